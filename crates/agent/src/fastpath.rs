//! The way past the stack, for all that may take it: pods without limits, and the device that leads to other nodes.
//!
//! Whoever has a reason why a pod's packets have to pass the stack (limits, one day a policy) tells it to [`FastPath::follow`]; whoever
//! changes what the stack does with packets ends the flows' proofs by [`FastPath::relearn`]. Without eBPF all pass the stack.

use std::{
    collections::BTreeSet,
    error::Error,
    fmt::Write as _,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use podnet_kernel::{
    conntrack,
    fastpath::{self, Behind, FastPath as Programs, FastPathError},
    netlink::RtSocket,
    sysctl,
};
use podnet_model::LinkName;
use tracing::{debug, info, warn};

use crate::flows::Counting;

/// How long packets pass by the stack after an agent was last seen: longer than a restart or an upgrade takes.
const LIFE: Duration = Duration::from_secs(300);

/// Lets connection tracking, which is about to see few packets, take connections for what they are.
fn settle() -> Result<(), Box<dyn Error>> {
    conntrack::load()?;
    for setting in fastpath::settings_to_change()? {
        sysctl::set_here(setting.key, &setting.wanted)?;
    }
    Ok(())
}

/// The programs, where they are wanted and the kernel has them.
#[derive(Debug, Default)]
pub struct FastPath {
    /// Whether there are to be any, and there can be.
    wanted: bool,
    programs: RwLock<Option<Arc<Programs>>>,
    counting: Counting,
    /// The devices that lead to other nodes.
    to_nodes: Mutex<BTreeSet<LinkName>>,
    /// That the kernel refuses was told.
    told: AtomicBool,
    /// The kernel can have no programs at devices.
    lacking: AtomicBool,
}

impl FastPath {
    /// Loads the programs, where they are wanted. Why there are none is in the log, once. Where flows are counted, they count what they
    /// lead to pods.
    #[must_use]
    pub fn open(wanted: bool, counting: Counting) -> Self {
        let none = |counting| Self { counting, ..Self::default() };
        if !wanted {
            info!("no fast path, as asked: all packets pass the stack");
            return none(counting);
        }
        if let Err(error) = settle() {
            warn!(
                error = &*error,
                "no fast path: connection tracking would forget connections and take their ends for strays"
            );
            return none(counting);
        }
        let fast_path = Self { wanted, counting, ..Self::default() };
        fast_path.load();
        fast_path
    }

    /// Loads the programs that are needed: where flows are counted, others. Without them all packets pass the stack, which is counted as well.
    fn load(&self) {
        let loaded = match self.counting.flows() {
            Some(flows) => flows.fast_path().map_err(|error| -> Box<dyn Error> { error.into() }),
            None => Programs::load().map_err(|error| -> Box<dyn Error> { error.into() }),
        };
        let loaded = loaded.inspect_err(|error| warn!(error = &**error, "no fast path: all packets pass the stack"));
        *self.programs.write().unwrap_or_else(PoisonError::into_inner) = loaded.ok().map(Arc::new);
        self.live();
    }

    /// Counts flows from now on, or no more: at devices that lead to other nodes at once, at pods' as soon as these are looked at.
    pub(crate) fn count_flows(&self, counts: bool) {
        let changed = if counts { self.counting.begin() } else { self.counting.end() };
        if !changed || !self.wanted {
            return;
        }
        self.load();
        let devices = self.to_nodes.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let again = RtSocket::open().map_err(FastPathError::Links).and_then(|mut socket| {
            devices.iter().try_for_each(|device| self.follow(&mut socket, device, Behind::Nodes, true))
        });
        if let Err(error) = again {
            self.tell(&error);
        }
    }

    fn programs(&self) -> Option<Arc<Programs>> {
        self.programs.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What counts flows at the same devices.
    #[must_use]
    pub const fn counting(&self) -> &Counting {
        &self.counting
    }

    /// There is an agent: to be called again and again, as packets pass by the stack for [`LIFE`] from then on.
    pub fn live(&self) {
        if let Some(Err(error)) = self.programs().map(|programs| programs.live_for(LIFE)) {
            self.tell(&error);
        }
    }

    /// Whether there is one.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.programs().is_some() && !self.lacking.load(Ordering::Relaxed)
    }

    /// Lets what comes in by a device, and what leaves by it, pass by the stack or not. What passed by it until now proves itself again.
    ///
    /// # Errors
    /// Where packets that shall pass the stack may go on to pass by it. That those which may do not is told, once, and no error.
    pub fn follow(
        &self,
        socket: &mut RtSocket,
        device: &LinkName,
        behind: Behind,
        may_pass: bool,
    ) -> Result<(), FastPathError> {
        if behind == Behind::Nodes {
            self.to_nodes.lock().unwrap_or_else(PoisonError::into_inner).insert(device.clone());
        }
        match self.programs() {
            Some(programs) if may_pass => match programs.attach(socket, device, behind) {
                Ok(true) => debug!(%device, "fast path"),
                Ok(false) => {}
                Err(error) => self.tell(&error),
            },
            _ => {
                let gone = fastpath::detach(socket, device);
                // One of two may be gone; what is proven passes without it.
                if !matches!(gone, Ok(false)) {
                    debug!(%device, "no fast path");
                    self.relearn();
                }
                gone?;
            }
        }
        Ok(())
    }

    /// Whether a device is not as [`FastPath::follow`] would leave it.
    #[must_use]
    pub fn differs(&self, socket: &mut RtSocket, device: &LinkName, behind: Behind, may_pass: bool) -> bool {
        match self.programs() {
            Some(programs) if may_pass => programs.is_at(socket, device, behind).is_ok_and(|there| !there),
            // Where it cannot be told, taking away says why.
            _ => fastpath::is_attached(socket, device).unwrap_or(true),
        }
    }

    /// The stack treats packets in another way from now on: the next packet of every flow passes it.
    pub fn relearn(&self) {
        if let Some(Err(error)) = self.programs().map(|programs| programs.relearn()) {
            self.tell(&error);
        }
    }

    fn tell(&self, error: &FastPathError) {
        if error.is_lacking() {
            if !self.lacking.swap(true, Ordering::Relaxed) {
                warn!(
                    error = error as &dyn Error,
                    "no fast path: this kernel lacks clsact or cls_bpf (CONFIG_NET_SCH_INGRESS, CONFIG_NET_CLS_BPF); all packets pass the stack"
                );
            }
            return;
        }
        if !self.told.swap(true, Ordering::Relaxed) {
            warn!(error = error as &dyn Error, "packets pass the stack; told once");
        }
    }

    /// In the text format of Prometheus.
    #[must_use]
    pub fn metrics(&self) -> String {
        let mut text = String::new();
        let programs = self.programs().filter(|_| self.is_on());
        let Some(Ok(passed)) = programs.map(|programs| programs.passed()) else { return text };
        for (name, help, count) in [
            ("podnet_fastpath_packets_total", "Packets between pods that were led past the stack.", passed.forwarded),
            ("podnet_fastpath_probes_total", "Packets sent through the stack to prove a flow.", passed.probed),
            ("podnet_fastpath_proofs_total", "Of those, the ones that came out.", passed.proven),
        ] {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} counter\n{name} {count}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use podnet_kernel::{fastpath::CONNTRACK_LIBERAL, netns::NetNs};

    use super::*;

    #[test]
    fn it_is_there_where_it_is_wanted_and_an_agent_without_it_takes_it_away() {
        let path = format!("/run/netns/podnet-test-fastpath-{}", std::process::id());
        let netns = NetNs::create(&path).unwrap();
        let device = LinkName::from("pn0");
        let done = netns.run(|| {
            sysctl::set_here(CONNTRACK_LIBERAL, "0").unwrap();
            let made = Command::new("ip").args(["link", "add", "pn0", "type", "veth", "peer", "name", "pn1"]).status();
            assert!(made.unwrap().success());
            let socket = &mut RtSocket::open().unwrap();
            let fast_path = FastPath::open(true, Counting::default());
            assert_eq!(sysctl::read_here(CONNTRACK_LIBERAL).unwrap(), "1");
            assert!(
                fast_path.is_on()
                    && fast_path.differs(socket, &device, Behind::Pod, true)
                    && !fast_path.differs(socket, &device, Behind::Pod, false)
            );
            fast_path.follow(socket, &device, Behind::Pod, true).unwrap();
            // What limits a pod must not be taken for being in force where its packets go on to pass by.
            std::thread::scope(|scope| {
                let refused = scope.spawn(|| {
                    let mut sets = rustix::thread::capabilities(None).unwrap();
                    sets.effective.remove(rustix::thread::CapabilitySet::NET_ADMIN);
                    rustix::thread::set_capabilities(None, sets).unwrap();
                    fast_path.follow(&mut RtSocket::open().unwrap(), &device, Behind::Pod, false).unwrap_err();
                });
                refused.join().unwrap();
            });
            assert!(
                !fast_path.differs(socket, &device, Behind::Pod, true)
                    && fast_path.differs(socket, &device, Behind::Pod, false)
            );
            assert!(fast_path.metrics().contains("\npodnet_fastpath_packets_total 0\n"), "{}", fast_path.metrics());
            drop(fast_path);
            let next = FastPath::open(true, Counting::default());
            assert!(
                next.differs(socket, &device, Behind::Pod, true),
                "those of an earlier agent count for another one"
            );
            next.follow(socket, &device, Behind::Pod, true).unwrap();
            assert!(!next.differs(socket, &device, Behind::Pod, true));
            drop(next);
            // And one of a node that shall have none.
            let none = FastPath::open(false, Counting::default());
            assert!(!none.is_on() && none.differs(socket, &device, Behind::Pod, true) && none.metrics().is_empty());
            none.follow(socket, &device, Behind::Pod, true).unwrap();
            assert!(!none.differs(socket, &device, Behind::Pod, true));
            // What is not there needs nothing.
            let gone = LinkName::from("pn9");
            none.follow(socket, &gone, Behind::Pod, true).unwrap();
            assert!(!none.differs(socket, &gone, Behind::Pod, true));
        });
        NetNs::remove(&path).unwrap();
        done.unwrap();
    }
}
