//! Which mode Services are served in: what was asked for, or the best that the kernel has; and what kube-proxy's configuration says of its rules.

mod settings;

use std::collections::BTreeMap;

use podnet_model::proxy::Mode;

pub use settings::{RuleSettings, loopback, node_port_addresses};

/// The order in which they are tried where none is asked for. `ebpf` is not among them before it has been measured on many kernels: it is
/// had by asking for it.
const PREFERENCE: [Mode; 4] = [Mode::Nftables, Mode::Iptables, Mode::Ipvs, Mode::Userspace];

/// Why `ebpf` is not, behind its name.
const NOT_BY_ITSELF: &str =
    "needs nf_tables besides, has not been measured on many kernels yet, and so is never chosen by itself";

/// What this node's kernel and its tools have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// What is lacking for a mode, where it cannot be.
    pub lacks: BTreeMap<Mode, String>,
}

/// A mode, and why it is that one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The mode.
    pub mode: Mode,
    /// Why, as the end of a sentence.
    pub why: String,
}

/// Why no mode can be taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// podnet does not have it.
    #[error("mode is {:?}, which this podnet does not have; it must be empty or one of {}", mode.name(), names(built))]
    NotBuilt {
        /// What was asked for.
        mode: Mode,
        /// What there is.
        built: Vec<Mode>,
    },
    /// The node cannot do it.
    #[error("mode is {:?}, which this node cannot have: {lack}", mode.name())]
    Lacking {
        /// What was asked for.
        mode: Mode,
        /// What is missing.
        lack: String,
    },
    /// The node can do none.
    #[error("this node can have no mode: {}", lacks.join("; "))]
    Nothing {
        /// What is missing for each.
        lacks: Vec<String>,
    },
}

fn names(modes: &[Mode]) -> String {
    modes.iter().map(|mode| mode.name()).collect::<Vec<_>>().join(", ")
}

/// The mode to be in. `built` are those that podnet has.
///
/// # Errors
/// Where what was asked for cannot be had; the mode in force then stays.
pub fn choose(asked: Option<Mode>, built: &[Mode], has: &Capabilities) -> Result<Choice, Refusal> {
    if let Some(mode) = asked {
        if !built.contains(&mode) {
            return Err(Refusal::NotBuilt { mode, built: built.to_vec() });
        }
        return match has.lacks.get(&mode) {
            Some(lack) => Err(Refusal::Lacking { mode, lack: lack.clone() }),
            None => Ok(Choice { mode, why: "the configuration says so".to_owned() }),
        };
    }
    let mut lacks = Vec::new();
    for mode in PREFERENCE.into_iter().filter(|mode| built.contains(mode)) {
        match has.lacks.get(&mode) {
            Some(lack) => lacks.push(format!("{mode}: {lack}")),
            None => return Ok(Choice { mode, why: why_best(&lacks) + &about_ebpf(built, has) }),
        }
    }
    Err(Refusal::Nothing { lacks })
}

fn why_best(lacks: &[String]) -> String {
    match lacks {
        [] => "it is the best, and the node has what it needs".to_owned(),
        lacks => format!("it is the best of what the node has ({})", lacks.join("; ")),
    }
}

/// What is said of the mode that is never chosen: why it is not, and whether it can be asked for.
fn about_ebpf(built: &[Mode], has: &Capabilities) -> String {
    let ebpf = Mode::Ebpf;
    match has.lacks.get(&ebpf) {
        _ if !built.contains(&ebpf) => String::new(),
        None => format!("; {ebpf} {NOT_BY_ITSELF}; the node has it for who asks for it"),
        Some(lack) => format!("; {ebpf} {NOT_BY_ITSELF}, and the node does not have it for who asks for it: {lack}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lacking(modes: &[Mode]) -> Capabilities {
        Capabilities { lacks: modes.iter().map(|mode| (*mode, format!("no {mode} here"))).collect() }
    }

    #[test]
    fn the_best_that_is_there_is_chosen_with_the_reasons_against_the_others() {
        let best = |lacks: &[Mode]| choose(None, &Mode::ALL, &lacking(lacks)).unwrap();
        let Choice { mode, why } = best(&[]);
        assert_eq!(mode, Mode::Nftables);
        assert_eq!(
            why,
            "it is the best, and the node has what it needs; ebpf needs nf_tables besides, has not been measured on many \
             kernels yet, and so is never chosen by itself; the node has it for who asks for it"
        );
        let choice = best(&[Mode::Nftables, Mode::Iptables, Mode::Ebpf]);
        assert_eq!(choice.mode, Mode::Ipvs);
        assert_eq!(
            choice.why,
            "it is the best of what the node has (nftables: no nftables here; iptables: no iptables here); \
             ebpf needs nf_tables besides, has not been measured on many kernels yet, and so is never chosen by itself, \
             and the node does not have it for who asks for it: no ebpf here"
        );
        assert_eq!(best(&[Mode::Nftables, Mode::Iptables, Mode::Ipvs]).mode, Mode::Userspace);
        let iptables = choose(None, &[Mode::Iptables], &lacking(&[])).unwrap();
        assert_eq!(iptables.mode, Mode::Iptables, "what is not built does not count");
        assert_eq!(iptables.why, "it is the best, and the node has what it needs");
    }

    #[test]
    fn what_is_asked_for_is_had_or_refused_with_the_reason() {
        let built = [Mode::Nftables, Mode::Ebpf];
        for mode in built {
            assert_eq!(choose(Some(mode), &built, &lacking(&[])).unwrap().mode, mode);
        }
        let refused = |asked, lacks: &[Mode]| choose(asked, &built, &lacking(lacks)).unwrap_err().to_string();
        assert_eq!(
            refused(Some(Mode::Ipvs), &[]),
            "mode is \"ipvs\", which this podnet does not have; it must be empty or one of nftables, ebpf"
        );
        assert_eq!(
            refused(Some(Mode::Ebpf), &[Mode::Ebpf]),
            "mode is \"ebpf\", which this node cannot have: no ebpf here"
        );
        assert_eq!(refused(None, &[Mode::Nftables]), "this node can have no mode: nftables: no nftables here");
    }
}
