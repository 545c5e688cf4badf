//! From the kernel's messages to what is there.

use netlink_packet_core::Nla;
use netlink_packet_route::{
    RouteNetlinkMessage,
    tc::{
        TcAction, TcActionAttribute, TcActionMirrorOption, TcActionOption, TcAttribute, TcFilterU32Option, TcHandle,
        TcMessage, TcOption, TcStats2,
    },
};
use podnet_model::LinkName;
use podnet_planner::limits::{Bucket, PeakBucket};

use super::{HANDLE, PRIORITY, request};
use crate::netlink::{NetlinkError, RtSocket, attribute::attribute};

/// The qdiscs of all devices. They are listed, as not every kernel answers a question for one.
pub(super) struct Qdiscs(Vec<TcMessage>);

impl Qdiscs {
    pub(super) fn list(socket: &mut RtSocket) -> Result<Self, NetlinkError> {
        let messages = socket.dump(&request::list_qdiscs())?;
        Ok(Self(messages.into_iter().filter_map(qdisc).collect()))
    }

    /// Our token bucket before what a device sends.
    pub(super) fn bucket(&self, index: u32) -> Option<Bucket> {
        let qdisc = self.at(index, TcHandle::ROOT)?;
        if is_our_bucket(qdisc) { read_bucket(qdisc) } else { None }
    }

    /// What our token buckets have dropped since they were made, by the devices before which they are.
    pub(super) fn dropped(&self) -> impl Iterator<Item = (u32, u64)> {
        let ours = self.0.iter().filter(|qdisc| qdisc.header.parent == TcHandle::ROOT && is_our_bucket(qdisc));
        ours.map(|qdisc| (qdisc.header.index.cast_unsigned(), dropped(qdisc)))
    }

    /// Whether filters see what the device receives.
    pub(super) fn has_hook(&self, index: u32) -> bool {
        self.at(index, TcHandle::CLSACT).is_some()
    }

    fn at(&self, index: u32, parent: TcHandle) -> Option<&TcMessage> {
        self.0.iter().find(|qdisc| qdisc.header.index.cast_unsigned() == index && qdisc.header.parent == parent)
    }
}

/// Where our filters lead what a device receives; none in the list is a filter that leads nowhere.
pub(super) fn diversions(
    socket: &mut RtSocket,
    index: u32,
    device: &LinkName,
) -> Result<Vec<Option<u32>>, NetlinkError> {
    let filters = socket.dump(&request::list_filters(index, request::INGRESS, device))?;
    let ours = filters.iter().filter_map(filter).filter(|filter| filter.header.info >> 16 == u32::from(PRIORITY));
    // A u32 filter is told as its table, its hash tables and its entries: only those have a selector.
    let entries = ours.filter_map(|filter| {
        let options = options(filter)?;
        options
            .iter()
            .any(|option| matches!(option, TcOption::U32(TcFilterU32Option::Selector(_))))
            .then(|| options.iter().find_map(redirected_to))
    });
    Ok(entries.collect())
}

/// How many filters of anybody see what the device sends or receives.
pub(super) fn filters(socket: &mut RtSocket, index: u32, device: &LinkName) -> Result<usize, NetlinkError> {
    let ingress = socket.dump(&request::list_filters(index, request::INGRESS, device))?;
    let egress = socket.dump(&request::list_filters(index, request::EGRESS, device))?;
    Ok(ingress.iter().chain(&egress).filter_map(filter).count())
}

fn qdisc(message: RouteNetlinkMessage) -> Option<TcMessage> {
    match message {
        RouteNetlinkMessage::NewQueueDiscipline(message) => Some(message),
        _ => None,
    }
}

pub(super) fn filter(message: &RouteNetlinkMessage) -> Option<&TcMessage> {
    match message {
        RouteNetlinkMessage::NewTrafficFilter(message) => Some(message),
        _ => None,
    }
}

fn is_our_bucket(qdisc: &TcMessage) -> bool {
    qdisc.header.handle.major == HANDLE && kind(qdisc) == Some("tbf")
}

/// By the statistics that the kernel sends along (`TCA_STATS2`, `struct gnet_stats_queue`).
fn dropped(qdisc: &TcMessage) -> u64 {
    let queue = qdisc.attributes.iter().find_map(|attribute| {
        let TcAttribute::Stats2(all) = attribute else { return None };
        all.iter().find_map(|one| if let TcStats2::Queue(queue) = one { Some(queue.drops) } else { None })
    });
    queue.map_or(0, u64::from)
}

fn kind(message: &TcMessage) -> Option<&str> {
    message.attributes.iter().find_map(|attribute| match attribute {
        TcAttribute::Kind(kind) => Some(kind.as_str()),
        _ => None,
    })
}

pub(super) fn options(message: &TcMessage) -> Option<&[TcOption]> {
    message.attributes.iter().find_map(|attribute| match attribute {
        TcAttribute::Options(options) => Some(options.as_slice()),
        _ => None,
    })
}

fn redirected_to(option: &TcOption) -> Option<u32> {
    let TcOption::U32(TcFilterU32Option::Action(actions)) = option else { return None };
    actions.iter().flat_map(|TcAction { attributes, .. }| attributes).find_map(|attribute| {
        let TcActionAttribute::Options(options) = attribute else { return None };
        options.iter().find_map(|option| match option {
            TcActionOption::Mirror(TcActionMirrorOption::Parms(mirror)) => Some(mirror.ifindex),
            _ => None,
        })
    })
}

/// The reverse of `request::token_bucket`; the kernel tells bursts as times, in its ticks of 64 ns.
fn read_bucket(message: &TcMessage) -> Option<Bucket> {
    let options = options(message)?;
    let TcOption::Other(all) = options.first()? else { return None };
    let mut bytes = vec![0; all.value_len()];
    all.emit_value(&mut bytes);
    let parameters = attribute(&bytes, 1)?;
    let number = |at: usize| Some(u32::from_ne_bytes(parameters.get(at..at + 4)?.try_into().ok()?));
    let wide = |kind| Some(u64::from_ne_bytes(attribute(&bytes, kind)?.try_into().ok()?));
    let rate = wide(4).or(number(8).map(u64::from))?;
    let peak_rate = wide(5).or(number(20).map(u64::from))?;
    let peak = match peak_rate {
        0 => None,
        rate => Some(PeakBucket { rate, burst: size(rate, number(32)?) }),
    };
    Some(Bucket { rate, burst: size(rate, number(28)?), queue: number(24)?, peak })
}

fn size(rate: u64, ticks: u32) -> u32 {
    const TICK_NS: u128 = 64;
    let bytes = u128::from(rate) * u128::from(ticks) * TICK_NS / 1_000_000_000;
    u32::try_from(bytes).unwrap_or(u32::MAX)
}
