//! The requests that shaping is made and changed by.

use netlink_packet_core::{DefaultNla, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage},
    tc::{TcAttribute, TcHandle, TcMessage},
};
use podnet_model::LinkName;
use podnet_planner::limits::Bucket;
use rustix::io::Errno;

use super::{HANDLE, PRIORITY};
use crate::netlink::{Operation, Request, attribute::Writer};

/// `TCA_OPTIONS`, which holds attributes.
const OPTIONS: u16 = 2;
const NESTED: u16 = 1 << 15;
/// Where the filters of what a device receives hang (`TC_H_CLSACT`, `TC_H_MIN_INGRESS`).
pub(super) const INGRESS: TcHandle = TcHandle { major: u16::MAX, minor: TcHandle::MIN_INGRESS };
/// Where the filters of what a device sends hang.
pub(super) const EGRESS: TcHandle = TcHandle { major: u16::MAX, minor: TcHandle::MIN_EGRESS };
/// `ETH_P_ALL`.
const ANY_PROTOCOL: u16 = 3;
/// What the kernel answers where the qdisc, the filter or what it hangs on is not there.
const ABSENT: &[Errno] = &[Errno::NOENT, Errno::INVAL];

pub(super) fn make_ifb(name: &LinkName) -> Request {
    let mut message = LinkMessage::default();
    message.attributes =
        vec![LinkAttribute::IfName(name.to_string()), LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Ifb)])];
    let message = RouteNetlinkMessage::NewLink(message);
    Request::new(Operation::new("make ifb device", name), message, NLM_F_CREATE | NLM_F_EXCL).done_at(&[Errno::EXIST])
}

/// Puts a token bucket before what a device sends, or changes the one that is there.
pub(super) fn set_bucket(index: u32, device: &LinkName, bucket: &Bucket) -> Request {
    let mut message = qdisc(index, TcHandle::ROOT, OUR_QDISC, "tbf");
    message.attributes.push(options(|writer| token_bucket(writer, bucket)));
    let message = RouteNetlinkMessage::NewQueueDiscipline(message);
    Request::new(Operation::new("set the token bucket of", device), message, NLM_F_CREATE | NLM_F_REPLACE)
}

/// Removes our token bucket; another qdisc stays.
pub(super) fn remove_bucket(index: u32, device: &LinkName) -> Request {
    let message = RouteNetlinkMessage::DelQueueDiscipline(qdisc(index, TcHandle::ROOT, OUR_QDISC, "tbf"));
    Request::new(Operation::new("remove the token bucket of", device), message, 0).done_at(ABSENT)
}

/// Lets filters see what a device receives.
pub(super) fn make_hook(index: u32, device: &LinkName) -> Request {
    let message = RouteNetlinkMessage::NewQueueDiscipline(hook(index));
    Request::new(Operation::new("make the filter hook of", device), message, NLM_F_CREATE | NLM_F_EXCL)
        .done_at(&[Errno::EXIST])
}

pub(super) fn remove_hook(index: u32, device: &LinkName) -> Request {
    let message = RouteNetlinkMessage::DelQueueDiscipline(hook(index));
    Request::new(Operation::new("remove the filter hook of", device), message, 0).done_at(ABSENT)
}

/// Leads all that a device receives to another one, as if that had sent it.
pub(super) fn divert(index: u32, to: u32, device: &LinkName) -> Request {
    let mut message = filters(index, INGRESS);
    message.header.info = OUR_FILTERS;
    message.attributes.push(TcAttribute::Kind("u32".into()));
    message.attributes.push(options(|writer| everything_to(writer, to)));
    let message = RouteNetlinkMessage::NewTrafficFilter(message);
    Request::new(Operation::new("lead away the traffic of", device), message, NLM_F_CREATE | NLM_F_EXCL)
}

/// Removes all filters of our priority.
pub(super) fn remove_diversions(index: u32, device: &LinkName) -> Request {
    let mut message = filters(index, INGRESS);
    message.header.info = OUR_FILTERS;
    let message = RouteNetlinkMessage::DelTrafficFilter(message);
    Request::new(Operation::new("stop leading away the traffic of", device), message, 0).done_at(ABSENT)
}

pub(super) fn list_qdiscs() -> Request {
    let message = RouteNetlinkMessage::GetQueueDiscipline(TcMessage::default());
    Request::new(Operation::new("list", "qdiscs"), message, 0)
}

/// Asks for a device's filters at a place.
pub(super) fn list_filters(index: u32, parent: TcHandle, device: &LinkName) -> Request {
    let message = RouteNetlinkMessage::GetTrafficFilter(filters(index, parent));
    Request::new(Operation::new("list the filters of", device), message, 0)
}

const OUR_QDISC: TcHandle = TcHandle { major: HANDLE, minor: 0 };
/// Priority and protocol of our filters; the latter is in network byte order.
const OUR_FILTERS: u32 = filters_of(PRIORITY);

pub(super) const fn filters_of(priority: u16) -> u32 {
    (priority as u32) << 16 | ANY_PROTOCOL.to_be() as u32
}

pub(super) fn hook(index: u32) -> TcMessage {
    qdisc(index, TcHandle::CLSACT, TcHandle { major: u16::MAX, minor: 0 }, "clsact")
}

fn qdisc(index: u32, parent: TcHandle, handle: TcHandle, kind: &str) -> TcMessage {
    let mut message = TcMessage::with_index(signed(index));
    (message.header.parent, message.header.handle) = (parent, handle);
    message.attributes.push(TcAttribute::Kind(kind.to_owned()));
    message
}

pub(super) fn filters(index: u32, parent: TcHandle) -> TcMessage {
    let mut message = TcMessage::with_index(signed(index));
    message.header.parent = parent;
    message
}

/// The kernel counts devices in an `int`.
fn signed(index: u32) -> i32 {
    i32::try_from(index).unwrap_or(i32::MAX)
}

pub(super) fn options(body: impl FnOnce(&mut Writer)) -> TcAttribute {
    let mut writer = Writer::default();
    body(&mut writer);
    TcAttribute::Other(DefaultNla::new(OPTIONS | NESTED, writer.into_bytes()))
}

/// `TCA_TBF_*` of `linux/pkt_sched.h`.
fn token_bucket(writer: &mut Writer, bucket: &Bucket) {
    const PARAMETERS: u16 = 1;
    const RATE_64: u16 = 4;
    const PEAK_RATE_64: u16 = 5;
    const BURST: u16 = 6;
    const PEAK_BURST: u16 = 7;
    // struct tc_tbf_qopt; the burst is told in bytes below instead of times here.
    let peak_rate = bucket.peak.map_or(0, |peak| peak.rate);
    let mut parameters = Vec::new();
    parameters.extend(rate_specification(bucket.rate));
    parameters.extend(if peak_rate == 0 { [0; 12] } else { rate_specification(peak_rate) });
    for number in [bucket.queue, 0, 0] {
        parameters.extend(number.to_ne_bytes());
    }
    writer.bytes(PARAMETERS, &parameters);
    writer.bytes(BURST, &bucket.burst.to_ne_bytes());
    writer.bytes(RATE_64, &bucket.rate.to_ne_bytes());
    if let Some(peak) = bucket.peak {
        writer.bytes(PEAK_RATE_64, &peak.rate.to_ne_bytes());
        writer.bytes(PEAK_BURST, &peak.burst.to_ne_bytes());
    }
}

/// `struct tc_ratespec`. Of a rate beyond 32 bits the attribute beside it counts.
fn rate_specification(rate: u64) -> [u8; 12] {
    /// `TC_LINKLAYER_ETHERNET`: without it the kernel wants a table of times.
    const ETHERNET: u8 = 1;
    let mut bytes = [0; 12];
    bytes[1] = ETHERNET;
    bytes[8..].copy_from_slice(&u32::try_from(rate).unwrap_or(u32::MAX).to_ne_bytes());
    bytes
}

/// `TCA_U32_*` and `TCA_MIRRED_*`: a filter whose one key matches everything. Not `matchall`, which some kernels lack.
fn everything_to(writer: &mut Writer, index: u32) {
    const SELECTOR: u16 = 5;
    const ACTIONS: u16 = 7;
    const FIRST: u16 = 1;
    const KIND: u16 = 1;
    const MIRRED_PARAMETERS: u16 = 2;
    /// `TC_U32_TERMINAL`.
    const TERMINAL: u8 = 1;
    // struct tc_u32_sel with one struct tc_u32_key: the mask 0.
    let mut selector = [0; 32];
    (selector[0], selector[2]) = (TERMINAL, 1);
    writer.bytes(SELECTOR, &selector);
    writer.nested(ACTIONS, |writer| {
        writer.nested(FIRST, |writer| {
            writer.text(KIND, "mirred");
            writer.nested(OPTIONS, |writer| writer.bytes(MIRRED_PARAMETERS, &redirection(index)));
        });
    });
}

/// `struct tc_mirred`: index, capabilities, action, two counts, what is done, and the device.
fn redirection(index: u32) -> Vec<u8> {
    /// `TC_ACT_STOLEN`: nothing else sees the packet here.
    const STOLEN: u32 = 4;
    /// `TCA_EGRESS_REDIR`.
    const EGRESS_REDIRECT: u32 = 1;
    [0, 0, STOLEN, 0, 0, EGRESS_REDIRECT, index].into_iter().flat_map(u32::to_ne_bytes).collect()
}
