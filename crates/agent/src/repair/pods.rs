//! The node's ends of the pods' interfaces that are in use.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::PathBuf,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use podnet_kernel::{
    netlink::{NetlinkError, RtSocket},
    netns::NetNs,
    pod_interface::{
        HostEnd, NodeBridge, OnBridge, PodBridgeError, inside,
        mtu::{self, Interface},
    },
};
use podnet_model::{HOST_MAC, LinkName, Mac};
use podnet_planner::{overlay::IPV6_LEAST_MTU, step::Step};
use tracing::warn;

use crate::{attach::rules::PodRules, fastpath::FastPath};

/// What ADD made and DEL has not begun to remove: what is between the two has to be whole.
#[derive(Debug)]
pub struct PodEnds {
    ends: Mutex<BTreeMap<LinkName, (HostEnd, Option<PathBuf>)>>,
    rules: PodRules,
    fast_path: FastPath,
    /// The MTU of what is made from now on.
    mtu: AtomicU32,
    /// Bridges are made and changed by one at a time.
    preparing: Mutex<()>,
}

/// What came of giving interfaces another MTU.
#[derive(Debug, Default)]
pub struct Fitted {
    /// How many have it now.
    pub changed: usize,
    /// Their pod's namespace is not found by name.
    pub lost: Vec<LinkName>,
    /// The kernel refused.
    pub refused: Vec<(LinkName, NetlinkError)>,
}

impl PodEnds {
    /// None yet, with these rules; they will have this MTU.
    #[must_use]
    pub const fn new(rules: PodRules, fast_path: FastPath, mtu: u32) -> Self {
        Self {
            ends: Mutex::new(BTreeMap::new()),
            rules,
            fast_path,
            mtu: AtomicU32::new(mtu),
            preparing: Mutex::new(()),
        }
    }

    /// The rules about what comes in by them.
    #[must_use]
    pub const fn rules(&self) -> &PodRules {
        &self.rules
    }

    /// What of their packets passes by the stack.
    #[must_use]
    pub const fn fast_path(&self) -> &FastPath {
        &self.fast_path
    }

    /// The namespace of the pod behind this one; none where it is not in use, or that has no name here.
    ///
    /// # Errors
    ///
    /// When the device cannot be looked at.
    pub fn namespace(&self, socket: &mut RtSocket, ifname: &LinkName) -> Result<Option<NetNs>, NetlinkError> {
        let found = self.lock().get(ifname).map(|(end, netns)| (end.pod_mac, netns.clone()));
        found.map_or(Ok(None), |(mac, netns)| inside::namespace_of(socket, ifname, mac, netns))
    }

    /// The MTU that interfaces shall have.
    #[must_use]
    pub fn wanted_mtu(&self) -> u32 {
        self.mtu.load(Ordering::Acquire)
    }

    /// The MTU that an interface with these addresses shall have: IPv6 cannot do with less than 1280, and a pod would lose its address
    /// for good. Where the tunnels have less, its larger packets of IPv4 are answered with what fits.
    #[must_use]
    pub fn wanted_mtu_of(&self, addrs: &[IpAddr]) -> u32 {
        mtu_of(addrs, self.wanted_mtu())
    }

    /// An interface is made; `netns` is the name of the pod's namespace, where it is known. Answers whether its MTU was changed
    /// meanwhile, so that it has to be [fitted](PodEnds::fit).
    pub fn made(&self, end: HostEnd, netns: Option<PathBuf>) -> bool {
        let mut ends = self.lock();
        let fits = end.mtu == self.wanted_mtu_of(&end.addrs);
        ends.insert(end.ifname.clone(), (end, netns));
        !fits
    }

    /// Gives all interfaces this MTU, and those that will be made. One whose pod cannot be found keeps the MTU that it has: two ends
    /// that differ would drop packets.
    ///
    /// # Errors
    ///
    /// When the node's devices cannot be listed.
    pub fn fit(&self, socket: &mut RtSocket, mtu: u32) -> Result<Fitted, NetlinkError> {
        let mut others: BTreeMap<u32, Vec<Interface>> = BTreeMap::new();
        {
            let ends = self.lock();
            self.mtu.store(mtu, Ordering::Release);
            for (end, netns) in ends.values().filter(|(end, _)| end.mtu != mtu_of(&end.addrs, mtu)) {
                others.entry(mtu_of(&end.addrs, mtu)).or_default().push(Interface {
                    host_ifname: end.ifname.clone(),
                    pod_mac: end.pod_mac,
                    has_ipv6: end.bridge.is_none() && end.addrs.iter().any(IpAddr::is_ipv6),
                    netns: netns.clone(),
                });
            }
        }
        let mut fitted = Fitted::default();
        let fit = others.into_iter().try_for_each(|(mtu, others)| self.fit_to(socket, mtu, &others, &mut fitted));
        self.mend_bridges(socket);
        fit.map(|()| fitted)
    }

    fn fit_to(
        &self,
        socket: &mut RtSocket,
        mtu: u32,
        others: &[Interface],
        fitted: &mut Fitted,
    ) -> Result<(), NetlinkError> {
        let unchanged = mtu::change(socket, others, mtu)?;
        let changed = others.iter().filter(|interface| !unchanged.contains(&interface.host_ifname)).count();
        let mut ends = self.lock();
        for interface in others.iter().filter(|interface| !unchanged.contains(&interface.host_ifname)) {
            if let Some((end, _)) = ends.get_mut(&interface.host_ifname) {
                end.mtu = mtu;
            }
        }
        // What left meanwhile need not fit.
        let mtu::Unchanged { mut lost, mut refused } = unchanged;
        lost.retain(|device| ends.contains_key(device));
        refused.retain(|(device, _)| ends.contains_key(device));
        fitted.changed += changed;
        fitted.lost.extend(lost);
        fitted.refused.extend(refused);
        Ok(())
    }

    /// Makes the bridge as the pods on it, and one with these addresses that is about to be, need it.
    ///
    /// # Errors
    ///
    /// What the kernel refused; where no pod is on it yet, also a bridge of somebody else's.
    pub fn prepare_bridge(&self, socket: &mut RtSocket, on: &OnBridge, addrs: &[IpAddr]) -> Result<(), PodBridgeError> {
        let _turn = self.preparing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.bridges().remove(&on.bridge);
        let is_ours = before.is_some();
        let mut bridge = before.unwrap_or_else(|| self.no_pods_on(&on.bridge));
        self.take_in(&mut bridge, on, addrs);
        bridge.prepare(socket, is_ours)
    }

    /// The bridges that pods are on, as they should be.
    #[must_use]
    pub fn bridges(&self) -> BTreeMap<LinkName, NodeBridge> {
        let mut bridges = BTreeMap::new();
        for (end, _) in self.lock().values() {
            let Some(on) = &end.bridge else { continue };
            let bridge = bridges.entry(on.bridge.clone()).or_insert_with(|| self.no_pods_on(&on.bridge));
            self.take_in(bridge, on, &end.addrs);
        }
        bridges
    }

    fn no_pods_on(&self, name: &LinkName) -> NodeBridge {
        let (mac, mtu) = (HOST_MAC, self.wanted_mtu());
        NodeBridge { name: name.clone(), mac, mtu, gateways: Vec::new(), has_ipv6: false }
    }

    fn take_in(&self, bridge: &mut NodeBridge, on: &OnBridge, addrs: &[IpAddr]) {
        for gateway in &on.gateways {
            if !bridge.gateways.contains(gateway) {
                bridge.gateways.push(*gateway);
            }
        }
        bridge.has_ipv6 |= addrs.iter().any(IpAddr::is_ipv6);
        bridge.mtu = bridge.mtu.max(self.wanted_mtu_of(addrs));
    }

    /// Makes all bridges what they should be.
    pub fn mend_bridges(&self, socket: &mut RtSocket) {
        let _turn = self.preparing.lock().unwrap_or_else(PoisonError::into_inner);
        for bridge in self.bridges().values() {
            if let Err(error) = bridge.prepare(socket, true) {
                warn!(bridge = %bridge.name, error = &error as &dyn std::error::Error, "a bridge of pods is not as it should be");
            }
        }
    }

    /// Whether pods are on this bridge.
    #[must_use]
    pub fn is_bridge(&self, name: &LinkName) -> bool {
        self.lock().values().any(|(end, _)| end.bridge.as_ref().is_some_and(|on| on.bridge == *name))
    }

    /// The bridge that a pod's device should be a port of.
    pub(super) fn bridge_of(&self, ifname: &LinkName) -> Option<LinkName> {
        Some(self.lock().get(ifname)?.0.bridge.as_ref()?.bridge.clone())
    }

    /// An interface is about to be removed, or made anew.
    pub fn leaving(&self, ifname: &LinkName) {
        self.lock().remove(ifname);
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> Vec<HostEnd> {
        self.lock().values().map(|(end, _)| end.clone()).collect()
    }

    /// Whether this one is in use.
    #[must_use]
    pub fn contains(&self, ifname: &LinkName) -> bool {
        self.lock().contains_key(ifname)
    }

    /// What the device's MTU should be; none where it is no pod's.
    pub(crate) fn mtu(&self, ifname: &LinkName) -> Option<u32> {
        self.lock().get(ifname).map(|(end, _)| end.mtu)
    }

    /// The Ethernet address that should be behind an address on the device.
    pub(super) fn mac(&self, ifname: &LinkName, addr: IpAddr) -> Option<Mac> {
        let ends = self.lock();
        let by_bridge = |end: &HostEnd| end.bridge.as_ref().is_some_and(|on| on.bridge == *ifname);
        let behind = |(end, _): &&(HostEnd, _)| end.addrs.contains(&addr) && (end.ifname == *ifname || by_bridge(end));
        ends.values().find(behind).map(|(end, _)| end.pod_mac)
    }

    /// Whether a pod in use has the address.
    pub(super) fn has_address(&self, addr: IpAddr) -> bool {
        self.lock().values().any(|(end, _)| end.addrs.contains(&addr))
    }

    /// Leaves out what would change the way to an address that a pod here has. A borrowed address that came back may be a pod's of this
    /// node before the plan knows that it is not the borrower's any more.
    pub(crate) fn without_theirs(&self, mut steps: Vec<Step>) -> Vec<Step> {
        let ends = self.lock();
        if ends.is_empty() {
            return steps;
        }
        let held: BTreeSet<IpAddr> = ends.values().flat_map(|(end, _)| end.addrs.iter().copied()).collect();
        drop(ends);
        steps.retain(|step| match step {
            Step::SetRoute(route) | Step::RemoveRoute(route) => {
                route.dst.prefix_len() != route.dst.max_prefix_len() || !held.contains(&route.dst.addr())
            }
            _ => true,
        });
        steps
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<LinkName, (HostEnd, Option<PathBuf>)>> {
        // Nothing panics half-way through a change.
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn mtu_of(addrs: &[IpAddr], mtu: u32) -> u32 {
    if addrs.iter().any(IpAddr::is_ipv6) { mtu.max(IPV6_LEAST_MTU) } else { mtu }
}
