//! Packets that rules of iptables count, under the names of kube-proxy's metrics. kube-proxy has them counted by nfacct, which not every kernel
//! has; here the rules' own counters tell, and begin anew where a rule is.

use std::fmt::Write as _;

use podnet_kernel::iptables::{FirstRule, IptablesError};
use podnet_model::Dual;
use tracing::debug;

/// The rules of one family, where there are some.
#[derive(Clone, Debug)]
pub struct Counted<R = FirstRule> {
    /// That drops what fits no connection.
    pub invalid: Option<R>,
    /// To which the first packet of each connection to a NodePort at a loopback address comes.
    pub from_loopback: Option<R>,
}

impl<R> Default for Counted<R> {
    fn default() -> Self {
        Self { invalid: None, from_loopback: None }
    }
}

/// In the text format of Prometheus, as the kernel counts now. What no rule counts is not told, nor is what cannot be asked for.
pub(super) fn metrics<R>(
    rules: &Dual<Counted<R>>,
    packets: impl Fn(&R) -> Result<Option<u64>, IptablesError>,
) -> String {
    let counted = |rule: &R| match packets(rule) {
        Ok(packets) => packets,
        Err(error) => {
            debug!(error = &error as &dyn std::error::Error, "cannot ask how many packets a rule has counted");
            None
        }
    };
    let mut text = String::new();
    for (name, help, of) in [
        (
            "iptables_ct_state_invalid_dropped_packets_total",
            "Packets dropped as they fit no connection.",
            [&rules.v4.invalid, &rules.v6.invalid],
        ),
        (
            "iptables_localhost_nodeports_accepted_packets_total",
            "First packets of connections to NodePorts at the loopback.",
            [&rules.v4.from_loopback, &rules.v6.from_loopback],
        ),
    ] {
        let rules: Vec<&R> = of.into_iter().flatten().collect();
        // Less than all would look as if it had begun anew.
        let all: Option<u64> = rules.iter().copied().map(counted).sum();
        if let Some(packets) = all.filter(|_| !rules.is_empty()) {
            let name = format!("kubeproxy_{name}");
            // Writing to a String cannot fail.
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} counter\n{name} {packets}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(v4: [Option<u64>; 2], v6: [Option<u64>; 2]) -> Vec<String> {
        let of = |[invalid, from_loopback]: [Option<u64>; 2]| Counted { invalid, from_loopback };
        // A rule of 99 packets is one that is not there.
        let packets = |count: &u64| Ok(Some(*count).filter(|count| *count != 99));
        let text = metrics(&Dual { v4: of(v4), v6: of(v6) }, packets);
        text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
    }

    #[test]
    fn families_are_told_together_and_not_at_all_where_a_part_is_not_known() {
        let invalid = "kubeproxy_iptables_ct_state_invalid_dropped_packets_total";
        let loopback = "kubeproxy_iptables_localhost_nodeports_accepted_packets_total";
        assert_eq!(told([None; 2], [None; 2]), [""; 0], "another mode");
        assert_eq!(told([Some(3), Some(5)], [Some(4), None]), [format!("{invalid} 7"), format!("{loopback} 5")]);
        assert_eq!(told([None, Some(0)], [None, None]), [format!("{loopback} 0")]);
        assert_eq!(told([Some(3), Some(5)], [Some(99), None]), [format!("{loopback} 5")]);
    }
}
