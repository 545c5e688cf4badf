//! The rules about what is attached, put in force: `planner::attachments` decides, the table is this module's alone.
//!
//! An ADD waits for its elements: a pod never starts with somebody else's addresses open to it, or without its ports.

use std::{
    collections::BTreeSet,
    sync::{Mutex, MutexGuard, PoisonError},
};

use ipnet::IpNet;
use podnet_kernel::{
    conntrack,
    netlink::NetlinkError,
    nft::{NftError, NftSocket, Sender},
    sysctl,
};
use podnet_model::{Dual, Family, LinkName, Protocol};
pub use podnet_planner::attachments::TABLE;
use podnet_planner::{
    attachments::{Attached, Attachments, DEVICE_PREFIX, PortTaken},
    ipam::Handle,
    ruleset::Edit,
};
use tracing::warn;

/// Why an attachment's rules are not in force.
#[derive(Debug, thiserror::Error)]
pub enum RulesError {
    /// One of its ports is another's.
    #[error(transparent)]
    Taken(#[from] PortTaken),
    /// The kernel refused.
    #[error("cannot put the pod's rules in force")]
    Nft(#[from] NftError),
}

/// The rules about what is attached to this node.
#[derive(Debug)]
pub struct PodRules {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    attachments: Attachments,
    socket: NftSocket,
    /// What is attached is known. Until then the table stays as an earlier agent left it: an empty one would cut all pods off.
    installed: bool,
    /// The tables in the kernel are as planned, as far as is known; one that is not needed is not there.
    in_force: Dual<bool>,
    /// There may be a table about bridges.
    checks_bridges: bool,
}

impl PodRules {
    /// Of nothing yet, and not in force yet: until [`PodRules::install`] the table stays as an earlier agent left it.
    ///
    /// # Errors
    ///
    /// When there is no socket for rules.
    pub fn open() -> Result<Self, NftError> {
        let (attachments, socket) = (Attachments::default(), NftSocket::open()?);
        let state = State { attachments, socket, installed: false, in_force: Dual::default(), checks_bridges: false };
        Ok(Self { state: Mutex::new(state) })
    }

    /// The port of the socket that all changes go through; none on a kernel without netfilter.
    ///
    /// # Errors
    ///
    /// When the socket cannot tell.
    pub fn port(&self) -> Result<Option<u32>, NetlinkError> {
        self.state().socket.port()
    }

    /// Replaces whatever is in the tables by the rules of these attachments.
    ///
    /// # Errors
    ///
    /// When the kernel refuses; the next change tries it again. One that lacks what is needed for that refuses nothing.
    pub fn install(&self, attached: impl IntoIterator<Item = (Handle, Attached)>) -> Result<(), NftError> {
        let mut state = self.state();
        state.attachments = Attachments::default();
        for (handle, attached) in attached {
            // Both were attached before this agent started, so that neither can be told any more.
            if let Err(error) = state.attachments.add(handle.clone(), attached) {
                warn!(%handle, %error, "a port of an attachment is without effect");
            }
        }
        state.installed = true;
        state.replace().or_else(unless_absent)
    }

    /// Puts an attachment's rules in force. On a kernel that lacks what is needed for that the reverse path filter checks who sends.
    ///
    /// # Errors
    ///
    /// When a port of the node is taken, or the kernel refuses; then it has no rules. Nothing but rules can have ports.
    pub fn add(&self, handle: &Handle, attached: Attached) -> Result<(), RulesError> {
        let mut state = self.state();
        let udp = Attachments::udp_ports(&attached);
        let (segments, on_bridge) = (state.attachments.all_segments(), attached.segment.is_some());
        let (device, has_ports) = (attached.device.clone(), !attached.ports.is_empty());
        let edits = state.attachments.add(handle.clone(), attached)?;
        let changed = match state.change(&edits, &segments, on_bridge) {
            Err(error) if error.is_absent() && !has_ports => {
                filter_senders(&device);
                Ok(())
            }
            changed => changed,
        };
        changed.inspect_err(|_| state.take_back(handle))?;
        drop(state);
        forget(&udp);
        Ok(())
    }

    /// Takes an attachment's rules out of force.
    ///
    /// # Errors
    ///
    /// When the kernel refuses; the next change tries it again.
    pub fn remove(&self, handle: &Handle) -> Result<(), NftError> {
        let mut state = self.state();
        let udp = state.attachments.of(handle).map(Attachments::udp_ports).unwrap_or_default();
        let on_bridge = state.attachments.of(handle).is_some_and(|attached| attached.segment.is_some());
        let segments = state.attachments.all_segments();
        let edits = state.attachments.remove(handle);
        state.change(&edits, &segments, on_bridge).or_else(unless_absent)?;
        drop(state);
        forget(&udp);
        Ok(())
    }

    /// Puts the whole tables in force again, once what is attached is known.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn restore(&self) -> Result<(), NftError> {
        let mut state = self.state();
        if state.installed { state.replace().or_else(unless_absent) } else { Ok(()) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Clients that go on sending are led anew. Where that fails they are once they pause for 30 s.
fn forget(ports: &BTreeSet<(Family, u16)>) {
    for (family, port) in ports {
        if let Err(error) = conntrack::forget(*family, Protocol::Udp, *port) {
            warn!(port, error = &error as &dyn std::error::Error, "earlier clients of a port may be led wrong");
        }
    }
}

/// What a kernel lacks is no refusal: nothing is there.
fn unless_absent(error: NftError) -> Result<(), NftError> {
    if error.is_absent() { Ok(()) } else { Err(error) }
}

/// Nobody is behind a pod's device but the pod, and whatever else comes from there is somebody else's. The agent looks after the setting.
fn filter_senders(device: &LinkName) {
    if let Err(error) = sysctl::set_here(&format!("net/ipv4/conf/{device}/rp_filter"), "1") {
        warn!(%device, %error, "it is not checked who sends by a pod's device");
    }
}

impl State {
    /// Puts a change in force of something that is on a bridge or not; `before` are the segments as they were.
    fn change(&mut self, edits: &Dual<Vec<Edit>>, before: &BTreeSet<IpNet>, on_bridge: bool) -> Result<(), NftError> {
        if self.installed && *before != self.attachments.all_segments() {
            return self.replace();
        }
        self.edit(edits)?;
        if self.installed && on_bridge { self.check_bridges() } else { Ok(()) }
    }

    /// Forgets what could not be put in force whole. A part of it may be: a port of the node would lead to whoever gets its address next.
    fn take_back(&mut self, handle: &Handle) {
        drop(self.attachments.remove(handle));
        if let Err(error) = if self.installed { self.replace().or_else(unless_absent) } else { Ok(()) } {
            let error = &error as &dyn std::error::Error;
            warn!(%handle, error, "pods' rules are not as they were before an attachment that failed; the next change tries again");
        }
    }

    /// What the ports of bridges may send.
    fn check_bridges(&mut self) -> Result<(), NftError> {
        let senders = self.attachments.on_bridges().map(|attached| Sender {
            port: attached.device.clone(),
            mac: attached.mac,
            addrs: attached.addrs.clone(),
        });
        let senders: Vec<Sender> = senders.collect();
        self.socket.check_segments(TABLE, DEVICE_PREFIX, &senders)?;
        self.checks_bridges = !senders.is_empty();
        Ok(())
    }

    /// Where the kernel's tables are not what the edits expect, all of them are replaced: somebody else was there.
    fn edit(&mut self, edits: &Dual<Vec<Edit>>) -> Result<(), NftError> {
        if !self.installed {
            return Ok(());
        }
        // A table that comes or goes is no edit.
        if self.in_force == Dual::from_fn(|family| self.attachments.is_needed(family)) {
            match self.socket.apply_dual(TABLE, edits) {
                Ok(()) => return Ok(()),
                Err(error) => warn!(error = &error as &dyn std::error::Error, "pods' rules are put in force afresh"),
            }
        }
        self.replace()
    }

    fn replace(&mut self) -> Result<(), NftError> {
        self.in_force = Dual::default();
        for family in Family::ALL {
            match self.attachments.is_needed(family) {
                true => drop(self.socket.replace(TABLE, &self.attachments.desired(family))?),
                false => self.socket.delete_table(family, TABLE)?,
            }
        }
        self.in_force = Dual::from_fn(|family| self.attachments.is_needed(family));
        // A kernel that has no rules for bridges is not asked for any where none are needed.
        if self.checks_bridges || self.attachments.on_bridges().next().is_some() {
            self.check_bridges()
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write,
        process::{Command, Stdio},
        time::{Duration, Instant},
    };

    use podnet_kernel::netns::NetNs;
    use podnet_model::{Mac, cni::PortMapping};

    use super::*;

    fn listed(family: &str) -> String {
        let output = Command::new("nft").args(["list", "table", family, TABLE]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    fn in_namespace(work: impl FnOnce() + Send) {
        let path = format!("/run/netns/podnet-test-pod-rules-{}", std::process::id());
        let done = NetNs::create(&path).unwrap().run(work);
        NetNs::remove(&path).unwrap();
        done.unwrap();
    }

    /// Somebody has the table about bridges for himself, so that it cannot be made.
    #[test]
    fn what_cannot_be_put_in_force_whole_leaves_no_port_open() {
        in_namespace(|| {
            let rules = PodRules::open().unwrap();
            rules.install([]).unwrap();
            let mut owner = Command::new("nft").arg("-i").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
            let text = format!("add table bridge {TABLE} {{ flags owner; }}\n");
            owner.stdin.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
            let deadline = Instant::now() + Duration::from_secs(10);
            while listed("bridge").is_empty() {
                assert!(Instant::now() < deadline, "nft makes no table");
                std::thread::yield_now();
            }
            let attached = Attached {
                device: "pn1".into(),
                mac: Mac([2, 0, 0, 0, 0, 1]),
                addrs: vec!["10.9.0.1".parse().unwrap()],
                ports: vec![PortMapping {
                    host_port: 8099,
                    container_port: 80,
                    protocol: Protocol::Tcp,
                    host_ip: "0.0.0.0".parse().unwrap(),
                }],
                segment: Some(Vec::new()),
            };
            let handle = Handle::new("a", "eth0");
            rules.add(&handle, attached.clone()).unwrap_err();
            assert!(!listed("ip").is_empty() && !listed("ip").contains("8099"), "{}", listed("ip"));
            // What it owns goes with it.
            drop(owner.stdin.take());
            owner.wait().unwrap();
            rules.add(&handle, attached).unwrap();
            assert!(listed("ip").contains("8099") && listed("bridge").contains("pn1"), "{}", listed("bridge"));
        });
    }
}
