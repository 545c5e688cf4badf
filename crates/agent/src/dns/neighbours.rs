//! Whom the node's resolver answers where no rules of the kernel's keep strangers from it: this node and its pods, as the rules have it
//! (`podnet_planner::resolver`). It knows the cluster's names, and asks others without limit.
//!
//! A socket does not tell by which device a question came. What counts is the way back: who wears a pod's address and is none asks for
//! nothing, since the answer goes to the pod.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use podnet_kernel::{
    link,
    netlink::{NetlinkError, RtSocket},
    route::way::{self, Way},
};
use podnet_model::LinkName;
use podnet_planner::{attachments::DEVICE_PREFIX, resolver::BRIDGE};
use tokio::sync::watch;
use tracing::debug;

use super::Told;

/// For how long it is remembered who may ask: addresses of pods become other pods'.
const KEPT: Duration = Duration::from_secs(5);
/// Addresses that are remembered at once: many times the pods of a node.
const MOST: usize = 4096;

/// Whom the resolver answers; everybody, unless it is told that nothing else keeps strangers away.
#[derive(Debug, Default)]
pub(super) struct Neighbours {
    judges: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The bridges that pods are on beside [`BRIDGE`].
    bridges: BTreeSet<LinkName>,
    /// Who was looked at, when, and whether they may ask.
    known: HashMap<IpAddr, (Instant, bool)>,
    socket: Option<RtSocket>,
}

impl Neighbours {
    /// Whether anybody is judged.
    pub(super) fn judges(&self) -> bool {
        self.judges.load(Ordering::Relaxed)
    }

    /// Whether somebody is this node or one of its pods, where that has to be. It may ask the kernel, which takes some 20 µs.
    pub(super) fn may_ask(&self, addr: IpAddr) -> bool {
        if !self.judges() {
            return true;
        }
        let (mut state, now) = (self.state(), Instant::now());
        if let Some((since, may)) = state.known.get(&addr)
            && now.saturating_duration_since(*since) < KEPT
        {
            return *may;
        }
        match state.look(addr) {
            Ok(may) => {
                if state.known.len() >= MOST {
                    state.known.clear();
                }
                state.known.insert(addr, (now, may));
                may
            }
            Err(error) => {
                debug!(%addr, error = &error as &dyn std::error::Error, "who asks is not answered: it cannot be told who that is");
                state.socket = None;
                false
            }
        }
    }

    /// Does as the network's thread says.
    pub(super) fn heed(&self, told: &Told) {
        let mut state = self.state();
        state.known.clear();
        if let Some(bridges) = &told.unguarded {
            state.bridges.clone_from(bridges);
        }
        self.judges.store(told.unguarded.is_some(), Ordering::Relaxed);
    }

    /// Does what the network's thread says from now on, for good.
    pub(super) async fn follow(&self, mut told: watch::Receiver<Told>) {
        loop {
            self.heed(&told.borrow_and_update());
            if told.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn look(&mut self, addr: IpAddr) -> Result<bool, NetlinkError> {
        let socket = match &mut self.socket {
            Some(socket) => socket,
            none => none.insert(RtSocket::open()?),
        };
        let device = match way::towards(socket, addr)? {
            None => return Ok(false),
            Some(Way::Own) => return Ok(true),
            // Each link has such addresses: the answer goes to the link that was asked from, whichever the kernel names here.
            Some(Way::Device(_)) if is_link_local(addr) => return Ok(false),
            Some(Way::Device(index)) => link::find(socket, index)?,
        };
        Ok(device.is_some_and(|device| {
            let name = device.name.as_str();
            name.starts_with(DEVICE_PREFIX) || name == BRIDGE || self.bridges.contains(&device.name)
        }))
    }
}

fn is_link_local(addr: IpAddr) -> bool {
    matches!(addr, IpAddr::V6(addr) if addr.is_unicast_link_local())
}

#[cfg(test)]
mod tests {
    use podnet_kernel::{addr, netns::NetNs};

    use super::*;

    #[test]
    fn where_no_rules_keep_strangers_away_this_node_and_its_pods_alone_may_ask() {
        NetNs::with_scratch(|| {
            let mut socket = RtSocket::open().unwrap();
            for (device, net) in [
                ("pntest0", "10.244.1.1/24"),
                (BRIDGE, "10.244.2.1/24"),
                ("br-pods", "10.244.3.1/24"),
                ("outside0", "192.0.2.1/24"),
            ] {
                link::create_bridge(&mut socket, device).unwrap();
                link::set_up(&mut socket, device).unwrap();
                let index = link::index_of(&mut socket, device).unwrap();
                addr::add(&mut socket, index, net.parse().unwrap()).unwrap();
            }
            // Addresses of every link, of which the kernel thinks as this pod's alone.
            let pod = link::index_of(&mut socket, "pntest0").unwrap();
            addr::add(&mut socket, pod, "fe80::1/64".parse().unwrap()).unwrap();
            let neighbours = Neighbours::default();
            let may = |addr: &str| neighbours.may_ask(addr.parse().unwrap());
            assert!(may("192.0.2.7"), "rules keep strangers away");
            let unguarded = |bridges: &[&str]| Told {
                unguarded: Some(bridges.iter().map(|bridge| (*bridge).into()).collect()),
                ..Told::default()
            };
            neighbours.heed(&unguarded(&["br-pods"]));
            for _ in 0..2 {
                for own in ["192.0.2.1", "10.244.1.9", "10.244.2.9", "10.244.3.9"] {
                    assert!(may(own), "{own}");
                }
                assert!(!may("192.0.2.7") && !may("198.51.100.1"));
                assert!(!may("fe80::7"), "it may be a neighbour of any link");
            }
            neighbours.heed(&unguarded(&[]));
            assert!(may("10.244.2.9") && !may("10.244.3.9"));
            neighbours.heed(&Told::default());
            assert!(may("192.0.2.7"));
        })
        .unwrap();
    }
}
