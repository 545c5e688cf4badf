//! What pods ask for and nodes have.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{Container, Node, Pod},
    apimachinery::pkg::api::resource::Quantity,
};

use crate::admission::quantity;

/// Amounts of the resources that scheduling looks at, in thousandths of their unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Amounts {
    /// Cores.
    pub(super) cpu: i128,
    /// Bytes.
    pub(super) memory: i128,
}

impl Amounts {
    /// What a pod asks for: all its containers together, or its greediest init container if that asks for more.
    pub(super) fn requested(pod: &Pod) -> Self {
        let Some(spec) = &pod.spec else { return Self::default() };
        let (mut together, mut first) = (Self::default(), Self::default());
        for container in &spec.containers {
            together = together.plus(of_container(container));
        }
        for container in spec.init_containers.iter().flatten() {
            if container.restart_policy.as_deref() == Some("Always") {
                together = together.plus(of_container(container));
            } else {
                first = first.larger(of_container(container));
            }
        }
        together.larger(first).plus(amounts(spec.overhead.as_ref()))
    }

    /// The sum.
    pub(super) fn plus(self, other: Self) -> Self {
        Self { cpu: self.cpu.saturating_add(other.cpu), memory: self.memory.saturating_add(other.memory) }
    }

    fn larger(self, other: Self) -> Self {
        Self { cpu: self.cpu.max(other.cpu), memory: self.memory.max(other.memory) }
    }
}

/// What a node can give: a resource that it says nothing of is not limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Capacity {
    /// Cores and memory.
    pub(super) amounts: Amounts,
    /// Pods.
    pub(super) pods: usize,
}

impl Capacity {
    /// The allocatable resources of a node.
    pub(super) fn of(node: &Node) -> Self {
        let status = node.status.as_ref();
        let all = status.and_then(|status| status.allocatable.as_ref().or(status.capacity.as_ref()));
        let limit = |resource| read(all, resource);
        let pods = limit("pods").map_or(usize::MAX, |pods| usize::try_from(pods / 1000).unwrap_or_default());
        let (cpu, memory) = (limit("cpu").unwrap_or(i128::MAX), limit("memory").unwrap_or(i128::MAX));
        Self { amounts: Amounts { cpu, memory }, pods }
    }
}

fn of_container(container: &Container) -> Amounts {
    amounts(container.resources.as_ref().and_then(|resources| resources.requests.as_ref()))
}

fn amounts(of: Option<&BTreeMap<String, Quantity>>) -> Amounts {
    Amounts { cpu: read(of, "cpu").unwrap_or_default(), memory: read(of, "memory").unwrap_or_default() }
}

fn read(of: Option<&BTreeMap<String, Quantity>>, resource: &str) -> Option<i128> {
    quantity::milli(&of?.get(resource)?.0)
}
