//! Capturing packets of pods: what an agent is asked for, and one order of what several tell.

mod order;

use podnet_model::PodKey;
use serde::{Deserialize, Serialize};

use crate::pcapng::MOST_BYTES;
pub use order::Order;

/// Instructions of a filter at most (`BPF_MAXINSNS`, `linux/bpf_common.h`).
pub const MOST_INSTRUCTIONS: usize = 4096;
/// Pods of one capture on one node at most.
pub const MOST_PODS: usize = 32;
/// The subresource of pods whose creation somebody has to be allowed who captures a pod's packets.
pub const SUBRESOURCE: &str = "capture";

/// What an agent is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Request {
    /// Whose packets: their interfaces are numbered in this order.
    pub pods: Vec<Captured>,
    /// The interface, as it is called in each pod.
    pub interface: String,
    /// So many bytes of each packet are kept.
    pub snap: u32,
    /// Chooses packets; all where there is none.
    #[serde(default)]
    pub program: Vec<Instruction>,
    /// The expression that it was made of, for those who read the capture.
    #[serde(default)]
    pub expression: Option<String>,
}

/// A pod whose packets are captured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Captured {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// `metadata.uid`: another pod of this name is another pod.
    pub uid: String,
}

impl Captured {
    /// Its namespace and name.
    #[must_use]
    pub fn key(&self) -> PodKey {
        PodKey::new(&self.namespace, &self.name)
    }
}

/// An instruction of a classic packet filter (`struct sock_filter`, `linux/filter.h`): code, jumps where it is true and where not, operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instruction(pub u16, pub u8, pub u8, pub u32);

/// Why a request cannot be answered by anybody.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// Too many pods, or none.
    #[error("{0} pods are asked for; 1 to {MOST_PODS} of a node can be captured at once")]
    Pods(usize),
    /// A packet cannot be kept to that length.
    #[error("{0} bytes of each packet are asked for; 1 to {MOST_BYTES} can be kept")]
    Snap(u32),
    /// The kernel takes no such filter.
    #[error("the filter has {0} instructions; the kernel takes {MOST_INSTRUCTIONS}")]
    Program(usize),
    /// No interface has such a name.
    #[error("{0:?} is no name of an interface: 1 to 15 bytes without spaces and slashes")]
    Interface(String),
}

impl Request {
    /// Whether it can be answered at all. Whether the kernel takes the filter only the kernel knows.
    ///
    /// # Errors
    /// What is too much or cannot be.
    pub fn check(&self) -> Result<(), Unfit> {
        if !(1..=MOST_PODS).contains(&self.pods.len()) {
            return Err(Unfit::Pods(self.pods.len()));
        }
        if !(1..=MOST_BYTES).contains(&self.snap) {
            return Err(Unfit::Snap(self.snap));
        }
        if self.program.len() > MOST_INSTRUCTIONS {
            return Err(Unfit::Program(self.program.len()));
        }
        if !is_interface(&self.interface) {
            return Err(Unfit::Interface(self.interface.clone()));
        }
        Ok(())
    }
}

/// Whether an interface can be called so.
pub(crate) fn is_interface(name: &str) -> bool {
    let is_odd = |letter: char| letter == '/' || letter.is_whitespace() || letter.is_control();
    (1..=15).contains(&name.len()) && !name.contains(is_odd)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_much_is_refused_and_named() {
        let pod = Captured { namespace: "shop".into(), name: "web".into(), uid: "u".into() };
        let fit = Request {
            pods: vec![pod.clone()],
            interface: "eth0".into(),
            snap: MOST_BYTES,
            program: vec![Instruction(6, 0, 0, 1); MOST_INSTRUCTIONS],
            expression: None,
        };
        assert_eq!(fit.check(), Ok(()));
        let text = serde_json::to_string(&Request { program: vec![Instruction(6, 1, 2, 3)], ..fit.clone() }).unwrap();
        assert!(text.contains("[[6,1,2,3]]"), "{text}");
        assert_eq!(Request { pods: Vec::new(), ..fit.clone() }.check(), Err(Unfit::Pods(0)));
        assert_eq!(Request { pods: vec![pod; 33], ..fit.clone() }.check(), Err(Unfit::Pods(33)));
        for snap in [0, 65_536] {
            assert_eq!(Request { snap, ..fit.clone() }.check(), Err(Unfit::Snap(snap)));
        }
        let program = vec![Instruction(6, 0, 0, 1); MOST_INSTRUCTIONS + 1];
        assert_eq!(Request { program, ..fit.clone() }.check(), Err(Unfit::Program(4097)));
        for interface in ["", "a/b", "a b", "sixteen-letters-"] {
            let interface = interface.to_owned();
            assert_eq!(
                Request { interface: interface.clone(), ..fit.clone() }.check(),
                Err(Unfit::Interface(interface))
            );
        }
    }
}
