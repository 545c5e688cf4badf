//! CNI requests: a sandbox gets its address and interface, or loses them.
//!
//! - [`add`], [`remove`], [`check`]: what is done for one attachment; [`bridged`]: where it is on a bridge
//! - [`limit`], [`limit_rules`]: how fast its traffic may be, how many packets and connections it may have
//! - [`garbage`]: what is done for all of them
//! - [`records`]: what was made for each, [`rules`]: what it may send and which ports lead to it

mod add;
mod bridged;
mod check;
mod garbage;
mod limit;
pub(crate) mod limit_rules;
mod records;
mod remove;
pub mod rules;
mod status;
mod undertaker;
mod wished;

use std::{
    net::IpAddr,
    os::fd::OwnedFd,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

pub use limit::{LimitError, Limited};
use limit_rules::LimitRules;
use podnet_kernel::{
    cni_wire::{Failure, Reply, Request, Verb, host_ifname},
    netlink::{NetlinkError, RtSocket},
    netns::NetNs,
    pod_interface::{OnBridge, PodInterface, PodInterfaceError},
};
use podnet_model::{HOST_MAC, LinkName, Mac, PodKey, errors::chain, pod::StickyOwner};
use podnet_planner::ipam::Handle;
pub use records::links;
use records::{Record, Records};
use tokio::sync::mpsc;
use tracing::warn;

use self::undertaker::Undertaker;
use crate::{addresses::Addresses, network::Network, repair::PodEnds, socket::Serve, turns::Turns, view::View};

/// Sockets kept for later requests.
const SPARE_SOCKETS: usize = 8;

/// Serves CNI requests.
pub struct Attachments {
    addresses: Arc<Addresses>,
    pods: Arc<PodEnds>,
    view: Arc<View>,
    sockets: Mutex<Vec<RtSocket>>,
    attached: mpsc::Sender<Attached>,
    tombstones: PathBuf,
    records: Arc<Records>,
    /// A runtime may give up an ADD and send DEL while the ADD still runs here: they take turns.
    turns: Arc<Turns<Handle>>,
    undertaker: Undertaker,
    limit_rules: LimitRules,
}

/// A pod that got its addresses: the cluster is told later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// The pod.
    pub pod: PodKey,
    /// Its uid.
    pub uid: Arc<str>,
    /// Its addresses, that of IPv4 first.
    pub addrs: Vec<IpAddr>,
    /// Whose pod it is, and which of its addresses the next pod of this name is to have again.
    pub sticky: Option<(StickyOwner, Vec<IpAddr>)>,
}

impl Attachments {
    /// Pods that were attached are told to `attached`; `tombstones` is where plugins leave word,
    /// `records` where it is kept what was made.
    #[must_use]
    pub fn new(
        addresses: Arc<Addresses>,
        network: &Network,
        view: Arc<View>,
        attached: mpsc::Sender<Attached>,
        tombstones: PathBuf,
        records: PathBuf,
    ) -> Self {
        let (sockets, turns) = (Mutex::default(), Arc::default());
        let records = Arc::new(Records::open(records));
        let undertaker = Undertaker::start(addresses.clone(), records.clone());
        let limit_rules = LimitRules::default();
        let pods = network.pods();
        Self { addresses, pods, view, sockets, attached, tombstones, records, turns, undertaker, limit_rules }
    }

    fn interface(
        &self,
        netns: NetNs,
        attachment: &Attachment,
        (addr, pod_mac): (Vec<IpAddr>, Mac),
        bridge: Option<OnBridge>,
    ) -> PodInterface {
        PodInterface {
            netns,
            container_ifname: attachment.ifname.as_str().into(),
            host_ifname: attachment.host_ifname.clone(),
            mtu: self.pods.mtu(&attachment.host_ifname).unwrap_or_else(|| self.pods.wanted_mtu_of(&addr)),
            addr,
            routes: Vec::new(),
            pod_mac,
            host_mac: HOST_MAC,
            bridge,
        }
    }

    /// Lends a socket: opening one costs as much as a whole batch, and requests come in bursts.
    fn with_socket<T>(
        &self,
        interface: &LinkName,
        work: impl FnOnce(&mut RtSocket) -> Result<T, PodInterfaceError>,
    ) -> Result<T, PodInterfaceError> {
        self.lending(|source| PodInterfaceError::Check { interface: interface.clone(), source }, work)
    }

    fn lending<T, E>(
        &self,
        unopened: impl FnOnce(NetlinkError) -> E,
        work: impl FnOnce(&mut RtSocket) -> Result<T, E>,
    ) -> Result<T, E> {
        let spare = self.sockets.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut socket = match spare {
            Some(socket) => socket,
            None => RtSocket::open().map_err(unopened)?,
        };
        let result = work(&mut socket);
        let mut spares = self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        // After an error an answer may still be under way in the socket: a fresh one next time.
        if result.is_ok() && spares.len() < SPARE_SOCKETS {
            spares.push(socket);
        }
        result
    }
}

impl Serve for Attachments {
    fn unanswered(&self, request: &Request) {
        // The plugin is gone, so the runtime believes that nothing was made.
        if request.verb == Verb::Add
            && let Err(failure) = self.del(request)
        {
            warn!(container = %request.container_id, failure.msg, "ADD that nobody waited for not undone");
        }
    }

    fn serve(&self, request: &Request, netns: Option<OwnedFd>) -> Reply {
        let result = match request.verb {
            Verb::Add => self.add(request, netns).map(Some),
            Verb::Del => self.del(request).map(|()| None),
            Verb::Check => self.check(request, netns).map(|()| None),
            Verb::Gc => self.collect_garbage(request).map(|()| None),
            Verb::Status => self.status(request).map(|()| None),
        };
        match result {
            Ok(result) => Reply::Done(result),
            Err(failure) => {
                warn!(verb = ?request.verb, container = %request.container_id, failure.msg, "CNI request failed");
                Reply::Failed(failure)
            }
        }
    }
}

/// One interface of one sandbox.
struct Attachment {
    handle: Handle,
    container_id: String,
    ifname: String,
    host_ifname: LinkName,
}

impl Attachment {
    fn new(container_id: &str, ifname: &str) -> Self {
        Self {
            handle: Handle::new(container_id, ifname),
            container_id: container_id.to_owned(),
            ifname: ifname.to_owned(),
            host_ifname: host_ifname(container_id, ifname),
        }
    }

    /// As the pods' rules know it.
    fn attached(&self, record: &Record) -> podnet_planner::attachments::Attached {
        podnet_planner::attachments::Attached {
            device: self.host_ifname.clone(),
            mac: record.mac,
            addrs: record.addrs.clone(),
            ports: record.ports.clone(),
            segment: record.bridge.as_ref().map(|on| on.segments.clone()),
        }
    }

    fn of(request: &Request) -> Self {
        Self::new(&request.container_id, &request.ifname)
    }
}

fn missing_namespace(request: &Request) -> Failure {
    let verb = serde_json::to_value(request.verb).unwrap_or_default();
    Failure::new(
        Failure::INVALID_ENVIRONMENT,
        format!("{verb} came without the sandbox's network namespace (CNI_NETNS)"),
    )
}

/// A pod's Ethernet address is made of its first address, that of IPv4 where it has one: whoever reads a capture sees who it is.
fn pod_mac(addrs: &[IpAddr]) -> Mac {
    let tail = match addrs.first() {
        None => [0; 4],
        Some(IpAddr::V4(addr)) => addr.octets(),
        Some(IpAddr::V6(addr)) => {
            let [.., a, b, c, d] = addr.octets();
            [a, b, c, d]
        }
    };
    Mac([0x0a, 0x58, tail[0], tail[1], tail[2], tail[3]])
}
