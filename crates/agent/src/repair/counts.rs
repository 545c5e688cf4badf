//! How much was mended, for metrics.

use std::{
    fmt::Write as _,
    sync::atomic::{AtomicU64, Ordering},
};

use podnet_planner::repair::{Damage, Object};

/// Counters since the agent's start.
#[derive(Debug, Default)]
pub struct Counts {
    repaired: [AtomicU64; Object::KINDS.len()],
    held_back: AtomicU64,
    overruns: AtomicU64,
    problems: AtomicU64,
    failing: AtomicU64,
    lacks_nftables: AtomicU64,
}

impl Counts {
    pub(crate) fn repaired<'a>(&self, damages: impl IntoIterator<Item = &'a Damage>) {
        for damage in damages {
            let kind = damage.object.kind();
            if let Some(place) = Object::KINDS.iter().position(|known| *known == kind) {
                self.repaired[place].fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    pub(super) fn held_back(&self) {
        self.held_back.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn overrun(&self) {
        self.overruns.fetch_add(1, Ordering::Relaxed);
    }

    /// So much of the network cannot be planned now.
    pub(crate) fn problems(&self, count: usize) {
        self.problems.store(count as u64, Ordering::Relaxed);
    }

    /// Whether the kernel refuses a part of the network now.
    pub(crate) fn failing(&self, is_so: bool) {
        self.failing.store(is_so.into(), Ordering::Relaxed);
    }

    /// Whether the kernel has no nf_tables now.
    pub(crate) fn lacks_nftables(&self, is_so: bool) {
        self.lacks_nftables.store(is_so.into(), Ordering::Relaxed);
    }

    /// In the text format of Prometheus.
    #[must_use]
    pub fn metrics(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "# HELP podnet_repairs_total Objects of podnet's in the kernel that others had damaged, mended."
        );
        let _ = writeln!(text, "# TYPE podnet_repairs_total counter");
        for (kind, count) in Object::KINDS.iter().zip(&self.repaired) {
            let _ = writeln!(text, "podnet_repairs_total{{object=\"{kind}\"}} {}", count.load(Ordering::Relaxed));
        }
        for (name, kind, help, count) in [
            (
                "podnet_repairs_held_back_total",
                "counter",
                "Repairs put off because somebody keeps undoing them.",
                &self.held_back,
            ),
            (
                "podnet_notices_overruns_total",
                "counter",
                "Times that notices of the kernel's were lost and all was looked at.",
                &self.overruns,
            ),
            (
                "podnet_network_problems",
                "gauge",
                "Blocks and nodes that cannot be reached as asked for; the log names them.",
                &self.problems,
            ),
            (
                "podnet_network_failing",
                "gauge",
                "1 while the kernel refuses a part of the node's network, which is tried again; the log says why.",
                &self.failing,
            ),
            (
                "podnet_nftables_lacking",
                "gauge",
                "1 while the kernel has no nf_tables, which much of the node's network needs; the log names what.",
                &self.lacks_nftables,
            ),
        ] {
            let count = count.load(Ordering::Relaxed);
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {count}");
        }
        text
    }
}
