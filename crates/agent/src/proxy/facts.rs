//! What kube-proxy's metrics tell of the rules themselves: how many there are, what was refused, which Services have no endpoint here,
//! and what connection tracking had to forget.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use podnet_kernel::iptables::FirstRule;
use podnet_model::{Dual, Family, proxy::Mode};
use podnet_planner::iptables::Table;

use super::{
    counted::{self, Counted},
    histogram::Histogram,
    programming::Round,
};

/// Rules of iptables in one table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// So many are in force.
    pub all: usize,
    /// So many were written the last time.
    pub last: usize,
}

/// How many Services have endpoints, but none on this node, which a policy `Local` asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WithoutLocal {
    /// `internalTrafficPolicy`.
    pub internal: usize,
    /// `externalTrafficPolicy`.
    pub external: usize,
}

/// Shared by the thread that puts rules in force and those who are asked.
#[derive(Debug)]
pub struct Facts(Mutex<State>);

#[derive(Debug)]
struct State {
    nftables_failures: u64,
    nftables_cleanup_failures: u64,
    restore_failures: u64,
    partial_restore_failures: u64,
    chains: Dual<BTreeMap<Table, Rules>>,
    without_local: Dual<WithoutLocal>,
    contested: Dual<usize>,
    left_to_rules: usize,
    addresses_left: usize,
    unfollowed: u64,
    counted: Dual<Counted>,
    reconciled: Dual<(Histogram, u64)>,
}

impl Facts {
    /// The kernel, or a program of iptables, refused a round.
    pub fn refused(&self, mode: Mode, round: Round) {
        let mut state = self.state();
        match (mode, round) {
            (Mode::Nftables | Mode::Ebpf, _) => state.nftables_failures += 1,
            (Mode::Iptables | Mode::Ipvs, Round::Full) => state.restore_failures += 1,
            (Mode::Iptables | Mode::Ipvs, Round::Partial) => state.partial_restore_failures += 1,
            (Mode::Userspace, _) => {}
        }
    }

    /// So often the kernel refused to remove tables of nf_tables that another mode had.
    pub fn cleanup_refused(&self, times: u64) {
        self.state().nftables_cleanup_failures += times;
    }

    /// The rules of iptables of a family; none where the mode has none.
    pub fn set_chains(&self, family: Family, chains: BTreeMap<Table, Rules>) {
        self.state().chains[family] = chains;
    }

    /// The rules of iptables that count packets.
    pub fn set_counted(&self, family: Family, rules: Counted) {
        self.state().counted[family] = rules;
    }

    /// Which Services lack an endpoint here.
    pub fn set_without_local(&self, family: Family, without: WithoutLocal) {
        self.state().without_local[family] = without;
    }

    /// So many addresses and ports are asked for by several Services.
    pub fn set_contested(&self, family: Family, count: usize) {
        self.state().contested[family] = count;
    }

    /// In mode `ebpf`: what leads to so many backends is left to the rules, as virtual servers remember connections to these.
    pub fn set_left_to_rules(&self, backends: usize) {
        self.state().left_to_rules = backends;
    }

    /// In the modes `ipvs` and `userspace`: so many addresses are left to rules, as connections of the other one of these modes need them.
    pub fn set_addresses_left_to_rules(&self, addresses: usize) {
        self.state().addresses_left = addresses;
    }

    /// In mode `ebpf`: so many sockets were connected that are not ended when their backend goes.
    pub fn set_unfollowed(&self, sockets: u64) {
        self.state().unfollowed = sockets;
    }

    /// Connection tracking was gone through, which took so long, and forgot so many connections.
    pub fn reconciled(&self, family: Family, took: Duration, forgotten: usize) {
        let (times, all) = &mut self.state().reconciled[family];
        times.observe(took);
        *all += forgotten as u64;
    }

    /// In the text format of Prometheus, under kube-proxy's names. A round is about both families here: failures are told of both. The kernel
    /// is asked what rules have counted.
    #[must_use]
    pub fn metrics(&self) -> String {
        let state = self.state();
        let mut text = String::new();
        for (name, help, value) in [
            ("nftables_sync_failures_total", "Rounds that nf_tables refused.", state.nftables_failures),
            (
                "nftables_cleanup_failures_total",
                "Tables of a mode that was left which nf_tables did not remove, each time that it was tried.",
                state.nftables_cleanup_failures,
            ),
            ("iptables_restore_failures_total", "Rounds of all rules that iptables refused.", state.restore_failures),
            (
                "iptables_partial_restore_failures_total",
                "Rounds of what changed that iptables refused.",
                state.partial_restore_failures,
            ),
        ] {
            let name = format!("kubeproxy_sync_proxy_rules_{name}");
            // Writing to a String cannot fail.
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} counter");
            for family in Family::ALL {
                let _ = writeln!(text, "{name}{{{}}} {value}", label(family));
            }
        }
        state.render_gauges(&mut text);
        let name = "podnet_proxy_sockets_unfollowed_total";
        let help = "Sockets connected in mode ebpf that found no room: none ends when its backend goes.";
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} counter\n{name} {}", state.unfollowed);
        let name = "kubeproxy_conntrack_reconciler_sync_duration_seconds";
        let _ = writeln!(
            text,
            "# HELP {name} How long it took to go through connection tracking.\n# TYPE {name} histogram"
        );
        for family in Family::ALL {
            state.reconciled[family].0.render_series(&mut text, name, &label(family));
        }
        let name = "kubeproxy_conntrack_reconciler_deleted_entries_total";
        let _ = writeln!(text, "# HELP {name} Connections that led to endpoints that are gone.\n# TYPE {name} counter");
        for family in Family::ALL {
            let _ = writeln!(text, "{name}{{{}}} {}", label(family), state.reconciled[family].1);
        }
        // Whoever has something to tell need not wait for the kernel.
        let rules = state.counted.clone();
        drop(state);
        text + &counted::metrics(&rules, FirstRule::packets)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Facts {
    fn default() -> Self {
        Self(Mutex::new(State {
            nftables_failures: 0,
            nftables_cleanup_failures: 0,
            restore_failures: 0,
            partial_restore_failures: 0,
            chains: Dual::default(),
            without_local: Dual::default(),
            contested: Dual::default(),
            left_to_rules: 0,
            addresses_left: 0,
            unfollowed: 0,
            counted: Dual::default(),
            reconciled: Dual::from_fn(|_| (Histogram::of_rounds(), 0)),
        }))
    }
}

impl State {
    fn render_gauges(&self, text: &mut String) {
        type Count = fn(&Rules) -> usize;
        for (name, help, count) in [
            ("iptables_total", "Rules of iptables in force.", (|rules: &Rules| rules.all) as Count),
            ("iptables_last", "Rules of iptables that the last round wrote.", |rules: &Rules| rules.last),
        ] {
            let name = format!("kubeproxy_sync_proxy_rules_{name}");
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge");
            for family in Family::ALL {
                for (table, rules) in &self.chains[family] {
                    let _ = writeln!(text, "{name}{{{},table=\"{table}\"}} {}", label(family), count(rules));
                }
            }
        }
        let name = "kubeproxy_sync_proxy_rules_no_local_endpoints_total";
        let help = "Services of a policy Local that have endpoints, but none on this node.";
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge");
        for family in Family::ALL {
            let WithoutLocal { internal, external } = self.without_local[family];
            for (policy, count) in [("external", external), ("internal", internal)] {
                let _ = writeln!(text, "{name}{{{},traffic_policy=\"{policy}\"}} {count}", label(family));
            }
        }
        let name = "podnet_proxy_contested_frontends";
        let help =
            "Addresses and ports that several Services ask for; one of them has each, events on the others say which.";
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge");
        for family in Family::ALL {
            let _ = writeln!(text, "{name}{{ip_family=\"{}\"}} {}", word(family), self.contested[family]);
        }
        for (name, help, count) in [
            (
                "podnet_proxy_backends_left_to_rules",
                "Backends that rules serve in mode ebpf while virtual servers remember connections to them.",
                self.left_to_rules,
            ),
            (
                "podnet_proxy_addresses_left_to_rules",
                "Addresses that rules serve in mode ipvs or userspace while connections of the other one last there.",
                self.addresses_left,
            ),
        ] {
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {count}");
        }
    }
}

/// As kube-proxy labels it.
pub(super) fn label(family: Family) -> String {
    format!("ip_family=\"{}\"", word(family))
}

/// As Kubernetes spells it (`Service.spec.ipFamilies`).
pub(super) const fn word(family: Family) -> &'static str {
    match family {
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_mode_has_its_own_failures_and_counts_come_by_family() {
        let facts = Facts::default();
        facts.refused(Mode::Nftables, Round::Partial);
        facts.refused(Mode::Ebpf, Round::Full);
        facts.refused(Mode::Iptables, Round::Full);
        facts.refused(Mode::Ipvs, Round::Partial);
        facts.refused(Mode::Iptables, Round::Partial);
        facts.refused(Mode::Userspace, Round::Partial);
        facts.set_chains(Family::V6, [(Table::Nat, Rules { all: 30, last: 4 })].into());
        facts.set_without_local(Family::V4, WithoutLocal { internal: 2, external: 1 });
        facts.set_contested(Family::V6, 3);
        facts.set_left_to_rules(5);
        facts.set_addresses_left_to_rules(6);
        facts.set_unfollowed(8);
        facts.reconciled(Family::V4, Duration::from_millis(3), 7);
        facts.cleanup_refused(1);
        facts.cleanup_refused(2);
        let text = facts.metrics();
        for line in [
            "kubeproxy_sync_proxy_rules_nftables_sync_failures_total{ip_family=\"IPv4\"} 2",
            "kubeproxy_sync_proxy_rules_nftables_cleanup_failures_total{ip_family=\"IPv6\"} 3",
            "kubeproxy_sync_proxy_rules_iptables_restore_failures_total{ip_family=\"IPv4\"} 1",
            "kubeproxy_sync_proxy_rules_iptables_partial_restore_failures_total{ip_family=\"IPv4\"} 2",
            "kubeproxy_sync_proxy_rules_iptables_total{ip_family=\"IPv6\",table=\"nat\"} 30",
            "kubeproxy_sync_proxy_rules_iptables_last{ip_family=\"IPv6\",table=\"nat\"} 4",
            "kubeproxy_sync_proxy_rules_no_local_endpoints_total{ip_family=\"IPv4\",traffic_policy=\"internal\"} 2",
            "kubeproxy_sync_proxy_rules_no_local_endpoints_total{ip_family=\"IPv6\",traffic_policy=\"external\"} 0",
            "podnet_proxy_contested_frontends{ip_family=\"IPv4\"} 0",
            "podnet_proxy_contested_frontends{ip_family=\"IPv6\"} 3",
            "podnet_proxy_backends_left_to_rules 5",
            "podnet_proxy_addresses_left_to_rules 6",
            "podnet_proxy_sockets_unfollowed_total 8",
            "kubeproxy_conntrack_reconciler_sync_duration_seconds_bucket{ip_family=\"IPv4\",le=\"0.004\"} 1",
            "kubeproxy_conntrack_reconciler_sync_duration_seconds_count{ip_family=\"IPv6\"} 0",
            "kubeproxy_conntrack_reconciler_deleted_entries_total{ip_family=\"IPv4\"} 7",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
    }
}
