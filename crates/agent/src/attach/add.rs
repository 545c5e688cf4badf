//! ADD: an address, an interface, a result.

use std::{
    fs,
    net::IpAddr,
    os::fd::OwnedFd,
    sync::Arc,
    time::{Duration, Instant},
};

use ipnet::IpNet;
use podnet_kernel::{
    cni_wire::{Failure, Request},
    netns::NetNs,
    pod_interface::{
        self, GATEWAY_V4, GATEWAY_V6, HostEnd, PodInterface, PodInterfaceError,
        loopback::{self, LoopbackError},
    },
};
use podnet_model::{
    Family, Pod, PodKey,
    cni::{Mode, Wishes},
    limits::PodLimits,
    pod::AddressRequest,
};
use podnet_planner::ipam::{AllocationRequest, Wish};
use serde_json::{Value, json};
use tracing::{info, warn};

use super::{
    Attached, Attachment, Attachments,
    bridged::bridged_mac,
    chain,
    limit::wished_limits,
    missing_namespace, pod_mac,
    records::Record,
    rules::RulesError,
    wished::{network, wished},
};
use crate::{
    addresses::{AssignError, Given},
    fault,
};

/// How long the watch may lag behind the runtime's.
const POD_PATIENCE: Duration = Duration::from_secs(5);
/// How long the pod's earlier sandbox may take to give its address back.
pub(super) const SETTLE_PATIENCE: Duration = Duration::from_secs(2);

impl Attachments {
    pub(super) fn add(&self, request: &Request, netns: Option<OwnedFd>) -> Result<Value, Failure> {
        let started = Instant::now();
        let netns = NetNs::from_fd(netns.ok_or_else(|| missing_namespace(request))?);
        let attachment = Attachment::of(request);
        let _turn = self.turns.take(attachment.handle.clone());
        // An earlier life of the same attachment was deleted while the agent was down: this one must not be.
        let _ = fs::remove_file(self.tombstone(&attachment));
        let wishes = Wishes::parse(&request.config, &request.args)?;
        let bridge = Mode::parse_with_agent(&request.config)?;
        let asker = self.asker(request, &wishes)?;
        fault::point("add-begun");
        let Given { addrs, anew } = self.addresses_for(&attachment, &asker)?;
        fault::point("add-assigned");
        let own_mac = || if bridge.is_some() { bridged_mac(&addrs) } else { pod_mac(&addrs) };
        let mac = wishes.mac.unwrap_or_else(own_mac);
        let on_bridge = bridge.map(|bridge| self.on_bridge(&bridge, &addrs));
        let interface = self.interface(netns, &attachment, (addrs.clone(), mac), on_bridge);
        if let Err(failure) = self.attach(request, &attachment, &interface, &wishes, &asker) {
            // What the attachment held before is still in use by the interface that is there.
            if let Err(error) = self.addresses.give_back(&attachment.handle, &anew) {
                warn!(error = &error as &dyn std::error::Error, "address not freed; the runtime's DEL frees it");
            }
            return Err(Failure { msg: format!("{}: {}", asker.pod, failure.msg), ..failure });
        }
        let answers = |record: Record| attachment.attached(&record).on_loopback().any(|family| family == Family::V6);
        let answers_loopback6 = self.records.of(&attachment.handle).is_some_and(answers);
        let end = HostEnd { answers_loopback6, ..interface.host_end() };
        if self.pods.made(end, Some(request.netns_path.clone().into())) {
            self.fit_mtu();
        }
        fault::point("add-done");
        let Asker { pod, uid, in_cluster, wish, .. } = asker;
        info!(%pod, ?addrs, interface = %attachment.host_ifname, elapsed_us = elapsed_us(started), "pod attached");
        // The annotation is for people and tools: where the queue is full it is left out rather than the pod kept waiting.
        let is_asked_for = !wish.addrs.is_empty() || !wish.addrs_no_ipam.is_empty();
        let sticky = wish.sticky.map(|owner| (owner, self.addresses.kept(&pod, &addrs, is_asked_for)));
        if in_cluster && self.attached.try_send(Attached { pod: pod.clone(), uid, addrs, sticky }).is_err() {
            warn!(%pod, "too many pods at once; the address of this one is not published");
        }
        Ok(result(request, &interface, &wishes))
    }

    fn addresses_for(&self, attachment: &Attachment, asker: &Asker) -> Result<Given, Failure> {
        let asked = AllocationRequest {
            handle: attachment.handle.clone(),
            pod: asker.pod.clone(),
            uid: asker.uid.clone(),
            wish: &asker.wish,
        };
        // The address that is wanted may be on its way out with the pod's earlier sandbox, or be the last one.
        let wanted = !asker.wish.addrs.is_empty() || asker.wish.sticky.is_some();
        if wanted {
            self.undertaker.settle(SETTLE_PATIENCE);
        }
        let assigned = self.addresses.assign(&asked).or_else(|error| match error {
            AssignError::Ipam(_) if self.undertaker.settle(SETTLE_PATIENCE) => self.addresses.assign(&asked),
            error => Err(error),
        });
        assigned.map_err(|error| {
            let code = match &error {
                AssignError::Journal(_) => Failure::JOURNAL,
                // The API server comes back, and other nodes do not win for ever.
                AssignError::Claim(_) | AssignError::Silent | AssignError::Outrun | AssignError::Unanswered { .. } => {
                    Failure::TRY_AGAIN
                }
                AssignError::Ipam(_) => Failure::NO_ADDRESS,
                AssignError::NoFamily => Failure::INVALID_CONFIG,
            };
            Failure::new(code, format!("no address for pod {}: {}", asker.pod, chain(&error)))
        })
    }

    /// The interface and its record, or nothing of both.
    fn attach(
        &self,
        request: &Request,
        attachment: &Attachment,
        interface: &PodInterface,
        wishes: &Wishes,
        asker: &Asker,
    ) -> Result<(), Failure> {
        let mut limits = self.new_limits(asker)?;
        limits.passes_stack = interface.bridge.is_some();
        let network = request.config["name"].as_str().unwrap_or_default().to_owned();
        let record = Record {
            network,
            addrs: interface.addr.clone(),
            mac: interface.pod_mac,
            ports: wishes.ports.clone(),
            aliases: wishes.aliases.clone(),
            bandwidth: limits.kept.clone(),
            bridge: interface.bridge.clone(),
        };
        if let Some(on) = &interface.bridge {
            // Whatever runs there keeps its rules, which are its handle's.
            if interface.is_name_taken().map_err(|error| no_interface(&error))? {
                return Err(name_taken(interface));
            }
            self.is_only_one(attachment, on, interface.pod_mac)?;
            self.prepare_bridge(on, &interface.addr)?;
            // On a bridge it tells its neighbours of itself as soon as it is there: whoever checks senders has to know it by then.
            self.open_ports(attachment, &record)?;
        }
        self.make(interface, attachment).inspect_err(|_| {
            if interface.bridge.is_some() {
                self.close_ports(attachment);
            }
        })?;
        fault::point("add-made");
        let opened = if interface.bridge.is_some() { Ok(()) } else { self.open_ports(attachment, &record) };
        let made = opened.and_then(|()| {
            fault::point("add-ruled");
            self.records.put(&attachment.handle, record).map_err(|error| {
                Failure::new(Failure::JOURNAL, format!("cannot keep the record of {}: {error}", attachment.handle))
            })
        });
        fault::point("add-recorded");
        made.and_then(|()| self.limit_new(attachment, &interface.addr, &limits)).inspect_err(|_| {
            self.unmake(attachment, interface);
            let _ = self.records.remove(&attachment.handle);
        })
    }

    /// What the pod may send, and the node's ports that lead to it.
    fn open_ports(&self, attachment: &Attachment, record: &Record) -> Result<(), Failure> {
        let attached = attachment.attached(record);
        let device = record.bridge.as_ref().map_or(&attachment.host_ifname, |on| &on.bridge);
        for family in attached.on_loopback() {
            // What else a pod might send to that address is dropped by the pods' rules.
            self.lending(LoopbackError::from, |socket| loopback::answer(socket, device, family)).map_err(|error| {
                Failure::new(Failure::INTERFACE, format!("no ports on the node's loopback: {}", chain(&error)))
            })?;
        }
        self.pods.rules().add(&attachment.handle, attached).map_err(|error| {
            let code = if matches!(error, RulesError::Taken(_)) { Failure::INVALID_CONFIG } else { Failure::INTERFACE };
            Failure::new(code, chain(&error))
        })
    }

    /// Makes the interface. Where its name is taken in the sandbox, nothing that is there changes ("If an interface of the requested
    /// name already exists in the container, the CNI plugin MUST return with an error", specification, "ADD").
    fn make(&self, interface: &PodInterface, attachment: &Attachment) -> Result<(), Failure> {
        let host_ifname = &attachment.host_ifname;
        let first = self.with_socket(host_ifname, |socket| interface.create(socket));
        let taken = match first {
            Ok(_) => return Ok(()),
            Err(error) if error.is_exists() => interface.is_name_taken().map_err(|error| no_interface(&error))?,
            Err(error) => return Err(no_interface(&error)),
        };
        if taken {
            return Err(name_taken(interface));
        }
        // The node's end is of an earlier life of the attachment, whose sandbox is another one by now.
        warn!(interface = %host_ifname, "an interface that an earlier attachment left is removed");
        self.pods.leaving(host_ifname);
        let again = self.with_socket(host_ifname, |socket| {
            pod_interface::remove(socket, host_ifname)?;
            interface.create(socket)
        });
        again.map(|_| ()).map_err(|error| no_interface(&error))
    }

    fn close_ports(&self, attachment: &Attachment) {
        if let Err(error) = self.pods.rules().remove(&attachment.handle) {
            warn!(
                error = &error as &dyn std::error::Error,
                "rules of a pod not removed; they are with the next change"
            );
        }
    }

    fn unmake(&self, attachment: &Attachment, interface: &PodInterface) {
        self.close_ports(attachment);
        if let Some(on) = &interface.bridge {
            // There may be no record that tells of it.
            self.cut_off(Some(&on.bridge), &interface.addr);
        }
        let name = &attachment.host_ifname;
        if let Err(error) = self.with_socket(name, |socket| pod_interface::remove(socket, name)) {
            warn!(error = &error as &dyn std::error::Error, "interface not removed; the runtime's DEL removes it");
        }
    }

    /// Who the address is for, and what was asked for it.
    fn asker(&self, request: &Request, wishes: &Wishes) -> Result<Asker, Failure> {
        let argument = |name: &str| request.args.get(name).map(String::as_str).filter(|value| !value.is_empty());
        let (Some(namespace), Some(name)) = (argument("K8S_POD_NAMESPACE"), argument("K8S_POD_NAME")) else {
            // A runtime without Kubernetes: the container stands for the pod.
            let (pod, uid) = (PodKey::new("", &request.container_id), Arc::from(""));
            let given = wished_limits(request, None)?;
            let wish = Wish::decide(&AddressRequest::default(), None, &network(&request.config)?).unwrap_or_default();
            return Ok(Asker { pod, uid, wish: wished(wish, wishes)?, given, in_cluster: false });
        };
        let key = PodKey::new(namespace, name);
        let uid = argument("K8S_POD_UID");
        let pod = self.view.pod(&key, uid, POD_PATIENCE).ok_or_else(|| Failure {
            code: Failure::TRY_AGAIN,
            msg: format!("pod {key} is not known to the agent of this node"),
            details: "It was deleted meanwhile, or the API server is away and the pod is too new to be known here."
                .to_owned(),
        })?;
        let wish = wished(self.wish(request, &pod)?, wishes)?;
        let given = wished_limits(request, Some(&pod))?;
        Ok(Asker { pod: key, uid: pod.uid, wish, given, in_cluster: true })
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
        Wish::decide(asked, Some(&namespace), &network(&request.config)?)
            .map_err(|error| wrong(&format!("namespace {}: {error}", pod.key.namespace)))
    }
}

/// For whom an ADD asks.
pub(super) struct Asker {
    pub(super) pod: PodKey,
    pub(super) uid: Arc<str>,
    wish: Wish,
    /// What the runtime asks for its traffic.
    pub(super) given: PodLimits,
    pub(super) in_cluster: bool,
}

fn no_interface(error: &PodInterfaceError) -> Failure {
    Failure::new(Failure::INTERFACE, format!("no interface: {}", chain(error)))
}

fn name_taken(interface: &PodInterface) -> Failure {
    Failure {
        code: Failure::INTERFACE,
        msg: format!("no interface: the sandbox has an interface {} already (CNI_IFNAME)", interface.container_ifname),
        details: "The sandbox is attached already, or another plugin made the interface; DEL removes what podnet made."
            .to_owned(),
    }
}

fn result(request: &Request, interface: &PodInterface, wishes: &Wishes) -> Value {
    let gateways: Vec<IpAddr> = match &interface.bridge {
        Some(on) => on.gateways.iter().map(IpNet::addr).collect(),
        None => vec![GATEWAY_V4.into(), GATEWAY_V6.into()],
    };
    let gateway = |addr: &IpAddr| gateways.iter().find(|gateway| gateway.is_ipv4() == addr.is_ipv4());
    let way = |addr: &IpAddr| match addr {
        IpAddr::V4(_) => json!({"dst": "0.0.0.0/0", "gw": gateway(addr)}),
        IpAddr::V6(_) => json!({"dst": "::/0", "gw": gateway(addr)}),
    };
    let mut interfaces = vec![json!({"name": interface.host_ifname})];
    match &interface.bridge {
        Some(on) => interfaces.insert(0, json!({"name": on.bridge, "mac": interface.host_mac.to_string()})),
        None => interfaces[0]["mac"] = json!(interface.host_mac.to_string()),
    }
    let place = interfaces.len();
    interfaces.push(json!({
        "name": interface.container_ifname, "mac": interface.pod_mac.to_string(),
        "mtu": interface.mtu, "sandbox": request.netns_path,
    }));
    let ip = |addr: &IpAddr| match &interface.bridge {
        Some(_) => json!({"address": interface.with_prefix(*addr), "gateway": gateway(addr), "interface": place}),
        None => json!({"address": IpNet::from(*addr).to_string(), "interface": place}),
    };
    json!({
        "interfaces": interfaces,
        "ips": interface.addr.iter().map(ip).collect::<Vec<_>>(),
        "routes": interface.addr.iter().map(way).collect::<Vec<_>>(),
        "dns": wishes.dns.to_json(),
    })
}

fn elapsed_us(started: Instant) -> u64 {
    u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX)
}
