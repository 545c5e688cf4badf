//! NodePorts at the node's loopback addresses: what the kernel has to take for them (`kernel::localhost`).

use std::time::{Duration, Instant};

use podnet_kernel::{
    datapath::KernelDatapath,
    localhost::{Localhost, LocalhostError},
    monitor::Notice,
};
use podnet_model::{Dual, Family, proxy::Mode};
use podnet_planner::{
    repair::{Damage, Object},
    services::loopback::TABLE,
};
use tracing::warn;

use super::worker::Worker;

/// How often it is looked at the setting, of whose change the kernel tells nobody, and what was refused is tried again.
const LOOK: Duration = Duration::from_secs(10);
/// Devices come several at once, and are told of more than once.
const GATHER: Duration = Duration::from_millis(20);
/// `NFPROTO_IPV4`.
const IPV4: u8 = 2;

/// The node's loopback as the agent keeps it.
#[derive(Debug, Default)]
pub(super) struct Loopback {
    localhost: Localhost,
    /// Answers are taken, by family.
    open: Dual<bool>,
    /// It was looked whether an earlier agent left it open.
    looked: bool,
    /// When it is looked at; none where nothing is open.
    due: Option<Instant>,
    /// A refusal that was told.
    told: bool,
    mended: Vec<Damage>,
}

impl Loopback {
    /// Takes in what the kernel tells.
    pub(super) fn hear(&mut self, notices: &[Notice]) {
        for notice in notices {
            match notice {
                Notice::Rules(transaction) if transaction.tables.contains(&(IPV4, TABLE.to_owned())) => {
                    self.localhost.suspect_guard();
                    self.hasten(Duration::ZERO);
                }
                Notice::Lost | Notice::RulesLost => {
                    self.localhost.suspect_guard();
                    self.hasten(Duration::ZERO);
                }
                Notice::Link(link) | Notice::LinkGone(link) if self.open.v6 => {
                    if !link.is_up {
                        self.localhost.suspect_device(link.index);
                    }
                    self.hasten(GATHER);
                }
                _ => {}
            }
        }
    }

    /// Devices were made.
    pub(super) fn devices_changed(&mut self) {
        if self.open.v6 {
            self.hasten(Duration::ZERO);
        }
    }

    fn hasten(&mut self, pause: Duration) {
        self.due = self.due.map(|due| due.min(Instant::now() + pause));
    }

    pub(super) const fn due(&self) -> Option<Instant> {
        self.due
    }

    /// What was mended since the last time.
    pub(super) fn mended(&mut self) -> Vec<Damage> {
        std::mem::take(&mut self.mended)
    }

    /// Opens what is needed, before what needs it. It stays open for connections that are under way, until the configuration allows none.
    fn follow(&mut self, needed: Dual<bool>, allowed: bool, datapath: &mut KernelDatapath) {
        if !allowed {
            self.shut(datapath);
            return;
        }
        for family in Family::ALL {
            if needed[family] && !self.open[family] {
                self.open[family] = true;
                self.due = Some(Instant::now());
            }
        }
        if self.due.is_some_and(|due| due <= Instant::now()) {
            self.look(datapath);
        }
    }

    fn look(&mut self, datapath: &mut KernelDatapath) {
        self.due = Some(Instant::now() + LOOK);
        let mut refused = false;
        let open = self.open;
        for family in Family::ALL.into_iter().filter(|family| open[*family]) {
            let (host, rules) = datapath.sockets();
            match self.localhost.open(family, host, rules) {
                Ok(None) => {}
                Ok(Some(what)) => {
                    warn!(what, "mended what somebody else damaged");
                    self.mended.push(Damage::new(Object::Setting("route_localnet".to_owned()), what));
                }
                Err(error) => {
                    refused = true;
                    self.tell(&error, "NodePorts do not answer at the node's loopback address");
                }
            }
        }
        self.told &= refused;
    }

    fn shut(&mut self, datapath: &mut KernelDatapath) {
        let is_shut = self.open == Dual::default() && self.looked;
        let waits = self.due.is_some_and(|due| due > Instant::now());
        if waits && (is_shut || self.told) || is_shut && self.due.is_none() {
            return;
        }
        let (host, rules) = datapath.sockets();
        match self.localhost.close(host, rules) {
            // What others opened is guarded still.
            Ok(stays) => {
                (self.open, self.looked, self.told) = (Dual::default(), true, false);
                self.due = stays.then(|| Instant::now() + LOOK);
            }
            Err(error) => {
                self.due = Some(Instant::now() + LOOK);
                self.tell(&error, "the node's loopback stays open to answers, and guarded");
            }
        }
    }

    fn tell(&mut self, error: &LocalhostError, what: &str) {
        if !std::mem::replace(&mut self.told, true) {
            warn!(error = error as &dyn std::error::Error, "{what}; it is tried again");
        }
    }
}

impl Worker {
    /// Has the kernel take what NodePorts at loopback addresses need in a mode, before their rules are in force.
    pub(super) fn open_loopback_for(&mut self, mode: Mode) {
        // Where a program or nobody serves them there, nothing comes back by a link.
        let by_rules = matches!(mode, Mode::Nftables | Mode::Ebpf | Mode::Iptables);
        let at = self.rules.is_at_loopback();
        let needed = Dual::from_fn(|family| by_rules && at[family]);
        let allowed = !self.proxy.loopback(mode).is_empty();
        self.loopback.follow(needed, allowed, &mut self.datapath);
    }
}

#[cfg(test)]
mod tests {
    use podnet_kernel::netns::NetNs;

    use super::*;

    /// CVE-2020-8558.
    #[test]
    fn the_guard_is_looked_at_when_rules_may_have_changed_unheard() {
        let path = format!("/run/netns/podnet-test-loopback-unheard-{}", std::process::id());
        let netns = NetNs::create(&path).unwrap();
        let guarded = netns.run(|| {
            let (mut loopback, mut datapath) = (Loopback::default(), KernelDatapath::open().unwrap());
            let mut after = |notice: &[Notice]| {
                datapath.nft_socket().delete_table(Family::V4, TABLE).unwrap();
                loopback.hear(notice);
                loopback.follow(Dual { v4: true, v6: false }, true, &mut datapath);
                datapath.nft_socket().tables(Family::V4).unwrap().contains(&TABLE.to_owned())
            };
            [after(&[]), after(&[]), after(&[Notice::RulesLost]), after(&[Notice::Lost])]
        });
        NetNs::remove(&path).unwrap();
        assert_eq!(guarded.unwrap(), [true, false, true, true], "the second time nothing is due");
    }
}
