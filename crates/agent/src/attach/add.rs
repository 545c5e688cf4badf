//! ADD: an address, an interface, a result.

use std::{
    fs,
    net::IpAddr,
    os::fd::OwnedFd,
    sync::Arc,
    time::{Duration, Instant},
};

use podnet_kernel::{
    cni_wire::{Failure, Request},
    netns::NetNs,
    pod_interface::{self, GATEWAY_V4, PodInterface},
};
use podnet_model::{Pod, PodKey};
use podnet_planner::ipam::{AllocationRequest, Wish};
use serde_json::{Value, json};
use tracing::{info, warn};

use super::{Attached, Attachment, Attachments, chain, missing_namespace};
use crate::addresses::Given;

/// How long the watch may lag behind the runtime's.
const POD_PATIENCE: Duration = Duration::from_secs(5);

impl Attachments {
    pub(super) fn add(&self, request: &Request, netns: Option<OwnedFd>) -> Result<Value, Failure> {
        let started = Instant::now();
        let netns = NetNs::from_fd(netns.ok_or_else(|| missing_namespace(request))?);
        let attachment = Attachment::of(request);
        let _turn = self.turns.take(attachment.handle.clone());
        // An earlier life of the same attachment was deleted while the agent was down: this one must not be.
        let _ = fs::remove_file(self.tombstones.join(format!("{}@{}", request.container_id, request.ifname)));
        let Asker { pod, uid, wish, in_cluster } = self.asker(request)?;
        let asked =
            AllocationRequest { handle: attachment.handle.clone(), pod: pod.clone(), uid: uid.clone(), wish: &wish };
        let Given { addr, anew } = self.addresses.assign(&asked).map_err(|error| {
            Failure::new(Failure::NO_ADDRESS, format!("no address for pod {pod}: {}", chain(&error)))
        })?;
        let interface = self.interface(netns, &attachment, addr);
        let made = self.with_socket(&attachment.host_ifname, |socket| {
            // An ADD that was cut off, or a runtime that asks twice, left the interface: this request's is the one that counts.
            pod_interface::remove(socket, &attachment.host_ifname)?;
            interface.create(socket)
        });
        if let Err(error) = made {
            // What the attachment held before may still be in use by the interface that could not be removed.
            if anew {
                self.free(&attachment);
            }
            return Err(Failure::new(Failure::INTERFACE, format!("no interface for {pod}: {}", chain(&error))));
        }
        info!(%pod, %addr, interface = %attachment.host_ifname, elapsed_us = elapsed_us(started), "pod attached");
        // The annotation is for people and tools: where the queue is full it is left out rather than the pod kept waiting.
        if in_cluster && self.attached.try_send(Attached { pod: pod.clone(), uid, addr }).is_err() {
            warn!(%pod, "too many pods at once; the address of this one is not published");
        }
        Ok(result(request, &interface, addr))
    }

    /// Who the address is for, and what was asked for it.
    fn asker(&self, request: &Request) -> Result<Asker, Failure> {
        let argument = |name: &str| request.args.get(name).map(String::as_str).filter(|value| !value.is_empty());
        let (Some(namespace), Some(name)) = (argument("K8S_POD_NAMESPACE"), argument("K8S_POD_NAME")) else {
            // A runtime without Kubernetes: the container stands for the pod.
            let (pod, uid) = (PodKey::new("", &request.container_id), Arc::from(""));
            return Ok(Asker { pod, uid, wish: Wish::default(), in_cluster: false });
        };
        let key = PodKey::new(namespace, name);
        let uid = argument("K8S_POD_UID");
        let pod = self.view.pod(&key, uid, POD_PATIENCE).ok_or_else(|| Failure {
            code: Failure::TRY_AGAIN,
            msg: format!("pod {key} is not known to the agent of this node"),
            details: "It was deleted meanwhile, or the API server is away and the pod is too new to be known here."
                .to_owned(),
        })?;
        let wish = self.wish(request, &pod)?;
        Ok(Asker { pod: key, uid: pod.uid, wish, in_cluster: true })
    }

    /// What the pod, its namespace and the CNI configuration say about its address.
    fn wish(&self, request: &Request, pod: &Pod) -> Result<Wish, Failure> {
        let wrong =
            |error: &dyn std::fmt::Display| Failure::new(Failure::INVALID_CONFIG, format!("pod {}: {error}", pod.key));
        let namespace = self.view.namespace(&pod.key.namespace, POD_PATIENCE).ok_or_else(|| Failure {
            code: Failure::TRY_AGAIN,
            msg: format!("namespace {} is not known to the agent of this node", pod.key.namespace),
            details: "It was deleted meanwhile, or the API server is away.".to_owned(),
        })?;
        let asked = pod.request.as_ref().map_err(|error| wrong(error))?;
        let pools = conflist_pools(&request.config).map_err(|value| {
            wrong(&format!(
                "ipam.ipv4_pools of the CNI configuration is {value}; it must be a list of names or IPv4 ranges"
            ))
        })?;
        Wish::decide(asked, Some(&namespace), &pools)
            .map_err(|error| wrong(&format!("namespace {}: {error}", pod.key.namespace)))
    }

    fn free(&self, attachment: &Attachment) {
        if let Err(error) = self.addresses.release(&attachment.handle) {
            warn!(error = &error as &dyn std::error::Error, "address not freed; the runtime's DEL frees it");
        }
    }
}

/// The key `ipam.ipv4_pools`, as Calico's configuration has it; `Err` holds what is no list of texts.
fn conflist_pools(config: &Value) -> Result<Vec<Arc<str>>, &Value> {
    let pools = &config["ipam"]["ipv4_pools"];
    let list = match pools {
        Value::Null => return Ok(Vec::new()),
        Value::Array(list) => list,
        _ => return Err(pools),
    };
    list.iter().map(|entry| entry.as_str().filter(|name| !name.is_empty()).map(Arc::from).ok_or(pools)).collect()
}

/// For whom an ADD asks.
struct Asker {
    pod: PodKey,
    uid: Arc<str>,
    wish: Wish,
    in_cluster: bool,
}

fn result(request: &Request, interface: &PodInterface, addr: IpAddr) -> Value {
    json!({
        "interfaces": [
            {"name": interface.host_ifname, "mac": interface.host_mac.to_string()},
            {"name": interface.container_ifname, "mac": interface.pod_mac.to_string(), "mtu": interface.mtu, "sandbox": request.netns_path},
        ],
        "ips": [{"address": ipnet::IpNet::from(addr).to_string(), "interface": 1}],
        "routes": [{"dst": "0.0.0.0/0", "gw": GATEWAY_V4}],
        "dns": {},
    })
}

fn elapsed_us(started: Instant) -> u64 {
    u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX)
}
