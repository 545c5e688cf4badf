//! The objects of a large cluster, as kubelet and Calico's IPAM write them.

use std::net::{IpAddr, Ipv4Addr};

use serde_json::{Value, json};

pub(crate) const NODES: usize = 5_000;
pub(crate) const BLOCKS: usize = 20_000;
/// Where pods' addresses begin.
const FIRST_POD: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 0);
/// Addresses in a block.
const SIZE: usize = 64;
/// How many of them are given.
const GIVEN: usize = 20;

pub(crate) fn name(node: usize) -> String {
    format!("node-{node:04}")
}

/// Nodes lie in 10.0.0.0/8, pods in 100.64.0.0/10.
pub(crate) fn address(node: usize) -> IpAddr {
    let [.., high, low] = (node as u32 + 256).to_be_bytes();
    Ipv4Addr::new(10, 0, high, low).into()
}

/// Where a node is after it moved.
pub(crate) fn moved_address(node: usize) -> IpAddr {
    let [.., high, low] = (node as u32 + 256).to_be_bytes();
    Ipv4Addr::new(10, 200, high, low).into()
}

/// The pool of all pods.
pub(crate) fn pool() -> Value {
    json!({
        "apiVersion": "crd.projectcalico.org/v1", "kind": "IPPool", "metadata": {"name": "pods", "resourceVersion": "1"},
        "spec": {"cidr": "100.64.0.0/10", "blockSize": 26, "vxlanMode": "Always", "natOutgoing": true, "nodeSelector": "all()"},
    })
}

/// The node or the block of this name.
pub(crate) fn single(resource: &str, name: &str) -> Option<Value> {
    match resource {
        "nodes" => {
            let number = name.strip_prefix("node-")?.parse().ok()?;
            Some(node(number, address(number)))
        }
        "ipamblocks" => block_named(name),
        _ => None,
    }
}

/// A node as kubelet writes it, with what fills real ones: conditions, images, node info.
pub(crate) fn node(number: usize, address: IpAddr) -> Value {
    let name = name(number);
    let condition = |kind: &str, status: &str| {
        json!({"type": kind, "status": status, "reason": "KubeletHas", "message": "kubelet has what it needs",
               "lastHeartbeatTime": "2026-01-01T00:00:00Z", "lastTransitionTime": "2026-01-01T00:00:00Z"})
    };
    let images: Vec<Value> = (0..10)
        .map(|image| json!({"names": [format!("registry.example/team/application-{image}@sha256:{:064x}", image)], "sizeBytes": 1_000_000}))
        .collect();
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {
            "name": name, "uid": format!("00000000-0000-0000-0000-{number:012}"), "resourceVersion": "1",
            "labels": {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64", "topology.kubernetes.io/zone": format!("zone-{}", number % 3)},
            "annotations": {"projectcalico.org/IPv4Address": format!("{address}/8")},
        },
        "spec": {},
        "status": {
            "addresses": [{"type": "InternalIP", "address": address}, {"type": "Hostname", "address": name}],
            "capacity": {"cpu": "32", "memory": "131072Ki", "pods": "250"}, "allocatable": {"cpu": "32", "memory": "131072Ki", "pods": "250"},
            "conditions": [condition("MemoryPressure", "False"), condition("DiskPressure", "False"), condition("PIDPressure", "False"), condition("Ready", "True")],
            "images": images,
        },
    })
}

/// The block of this name, as [`block`] makes it.
fn block_named(name: &str) -> Option<Value> {
    let range = name.strip_suffix("-26")?.replace('-', ".");
    let offset = u32::from(range.parse::<Ipv4Addr>().ok()?).checked_sub(FIRST_POD.into())?;
    let number = offset as usize / SIZE;
    (number < BLOCKS).then(|| block(number))
}

/// Four blocks for each node, each with some addresses given.
pub(crate) fn block(number: usize) -> Value {
    let first = u32::from(FIRST_POD) + (number * SIZE) as u32;
    let cidr = format!("{}/26", Ipv4Addr::from(first));
    let allocations: Vec<Value> = (0..SIZE).map(|at| if at < GIVEN { json!(at) } else { Value::Null }).collect();
    let attributes: Vec<Value> = (0..GIVEN)
        .map(|at| json!({"handle_id": format!("k8s-pod-network.{number:032x}{at:032x}"), "secondary": {"namespace": "default", "pod": format!("pod-{number}-{at}"), "node": name(number % NODES)}}))
        .collect();
    json!({
        "apiVersion": "crd.projectcalico.org/v1", "kind": "IPAMBlock",
        "metadata": {"name": cidr.replace(['.', '/'], "-"), "resourceVersion": "1", "uid": format!("00000000-0000-0000-0001-{number:012}")},
        "spec": {"cidr": cidr, "affinity": format!("host:{}", name(number % NODES)), "strictAffinity": false,
                 "allocations": allocations, "unallocated": (GIVEN..SIZE).collect::<Vec<_>>(), "attributes": attributes},
    })
}
