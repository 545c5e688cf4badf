//! CNI requests: a sandbox gets its address and interface, or loses them.

use std::{
    collections::BTreeSet,
    fs,
    net::IpAddr,
    os::fd::OwnedFd,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use podnet_kernel::{
    cni_wire::{Failure, Reply, Request, Verb, host_ifname},
    link,
    netlink::{NetlinkError, RtSocket},
    netns::NetNs,
    pod_interface::{self, GATEWAY_V4, PodInterface, PodInterfaceError},
};
use podnet_model::{LinkName, Mac, PodKey, pod::AddressRequest};
use podnet_planner::ipam::{AllocationRequest, Handle};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::{
    addresses::{Addresses, Given},
    socket::Serve,
    turns::Turns,
    underlay::Underlay,
    view::View,
};

/// The host side's address on every pod's link; each link has just two ends, so that it need not differ.
const HOST_MAC: Mac = Mac([0xee, 0xee, 0xee, 0xee, 0xee, 0xee]);
/// How long the watch may lag behind the runtime's.
const POD_PATIENCE: Duration = Duration::from_secs(5);
/// Sockets kept for later requests.
const SPARE_SOCKETS: usize = 8;

/// Serves CNI requests.
pub struct Attachments {
    mtu: u32,
    addresses: Arc<Addresses>,
    view: Arc<View>,
    sockets: Mutex<Vec<RtSocket>>,
    attached: mpsc::Sender<Attached>,
    tombstones: PathBuf,
    /// A runtime may give up an ADD and send DEL while the ADD still runs here: they take turns.
    turns: Turns<Handle>,
}

/// A pod that got its address: the cluster is told later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// The pod.
    pub pod: PodKey,
    /// Its uid.
    pub uid: Arc<str>,
    /// Its address.
    pub addr: IpAddr,
}

impl Attachments {
    /// For a node with this underlay. Pods that were attached are told to `attached`; `tombstones` is where plugins leave word.
    #[must_use]
    pub fn new(
        underlay: &Underlay,
        addresses: Arc<Addresses>,
        view: Arc<View>,
        attached: mpsc::Sender<Attached>,
        tombstones: PathBuf,
    ) -> Self {
        let (mtu, sockets, turns) = (underlay.pod_mtu(), Mutex::default(), Turns::default());
        Self { mtu, addresses, view, sockets, attached, tombstones, turns }
    }

    fn add(&self, request: &Request, netns: Option<OwnedFd>) -> Result<Value, Failure> {
        let started = Instant::now();
        let netns = NetNs::from_fd(netns.ok_or_else(|| missing_namespace(request))?);
        let attachment = Attachment::of(request);
        let _turn = self.turns.take(attachment.handle.clone());
        // An earlier life of the same attachment was deleted while the agent was down: this one must not be.
        let _ = fs::remove_file(self.tombstones.join(format!("{}@{}", request.container_id, request.ifname)));
        let Asker { pod, uid, wish, in_cluster } = self.asker(request)?;
        let asked =
            AllocationRequest { handle: attachment.handle.clone(), pod: pod.clone(), uid: uid.clone(), request: &wish };
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
            return Ok(Asker { pod, uid, wish: AddressRequest::default(), in_cluster: false });
        };
        let key = PodKey::new(namespace, name);
        let uid = argument("K8S_POD_UID");
        let pod = self.view.pod(&key, uid, POD_PATIENCE).ok_or_else(|| Failure {
            code: Failure::TRY_AGAIN,
            msg: format!("pod {key} is not known to the agent of this node"),
            details: "It was deleted meanwhile, or the API server is away and the pod is too new to be known here."
                .to_owned(),
        })?;
        let wish = pod
            .request
            .clone()
            .map_err(|error| Failure::new(Failure::INVALID_CONFIG, format!("pod {key}: {error}")))?;
        Ok(Asker { pod: key, uid: pod.uid, wish, in_cluster: true })
    }

    fn del(&self, request: &Request) -> Result<(), Failure> {
        self.detach(&Attachment::of(request))
    }

    /// Removes the interface and frees the address of an attachment that may be there whole, in part or not at all.
    fn detach(&self, attachment: &Attachment) -> Result<(), Failure> {
        let _turn = self.turns.take(attachment.handle.clone());
        self.with_socket(&attachment.host_ifname, |socket| pod_interface::remove(socket, &attachment.host_ifname))
            .map_err(|error| {
                Failure::new(
                    Failure::INTERFACE,
                    format!("cannot remove interface {}: {}", attachment.host_ifname, chain(&error)),
                )
            })?;
        let freed = self
            .addresses
            .release(&attachment.handle)
            .map_err(|error| Failure::new(Failure::JOURNAL, format!("cannot free the address: {}", chain(&error))))?;
        if let Some(addr) = freed {
            info!(%addr, interface = %attachment.host_ifname, "pod detached");
        }
        Ok(())
    }

    /// Detaches what a plugin deleted while the agent was down.
    ///
    /// # Errors
    ///
    /// When the interface cannot be removed or the journal cannot be written: it has to be tried again.
    pub fn bury(&self, container_id: &str, ifname: &str) -> Result<(), Failure> {
        self.detach(&Attachment::new(container_id, ifname))
    }

    /// Frees the addresses whose interface is not there: of pods that a reboot, a lost journal or a crash between two steps took. Call
    /// it before the first ADD, which makes the interface after it got the address.
    ///
    /// # Errors
    ///
    /// When the interfaces cannot be listed.
    pub fn sweep(&self) -> Result<(), NetlinkError> {
        let mut socket = RtSocket::open()?;
        let present: BTreeSet<LinkName> = link::list(&mut socket)?.into_iter().map(|link| link.name).collect();
        for handle in self.addresses.handles() {
            let Some((container_id, ifname)) = handle.as_str().rsplit_once('/') else { continue };
            if present.contains(&host_ifname(container_id, ifname)) {
                continue;
            }
            match self.addresses.release(&handle) {
                Ok(addr) => info!(container_id, ifname, ?addr, "address of a sandbox that is gone freed"),
                Err(error) => warn!(container_id, error = &error as &dyn std::error::Error, "address not freed"),
            }
        }
        Ok(())
    }

    fn check(&self, request: &Request, netns: Option<OwnedFd>) -> Result<(), Failure> {
        let netns = NetNs::from_fd(netns.ok_or_else(|| missing_namespace(request))?);
        let attachment = Attachment::of(request);
        let addr = self.addresses.of(&attachment.handle).ok_or_else(|| {
            Failure::new(Failure::NO_ADDRESS, format!("container {} holds no address here", request.container_id))
        })?;
        let interface = self.interface(netns, &attachment, addr);
        let differences =
            self.with_socket(&attachment.host_ifname, |socket| interface.check(socket)).map_err(|error| {
                Failure::new(
                    Failure::INTERFACE,
                    format!("cannot look at {}: {}", attachment.host_ifname, chain(&error)),
                )
            })?;
        if differences.is_empty() {
            return Ok(());
        }
        let what: Vec<String> = differences.iter().map(ToString::to_string).collect();
        Err(Failure::new(
            Failure::INTERFACE,
            format!("{} is not as it was made: {}", attachment.host_ifname, what.join("; ")),
        ))
    }

    /// Frees what belongs to none of the attachments that the runtime still knows (`cni.dev/valid-attachments`).
    fn collect_garbage(&self, request: &Request) -> Result<(), Failure> {
        let Some(valid) = request.config.get("cni.dev/valid-attachments").and_then(Value::as_array) else {
            return Err(Failure::new(Failure::INVALID_CONFIG, "GC needs the key \"cni.dev/valid-attachments\""));
        };
        let text = |entry: &Value, key: &str| entry.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let known: BTreeSet<Handle> =
            valid.iter().map(|entry| Handle::new(&text(entry, "containerID"), &text(entry, "ifname"))).collect();
        for stray in self.addresses.handles().into_iter().filter(|handle| !known.contains(handle)) {
            if let Some((container_id, ifname)) = stray.as_str().rsplit_once('/') {
                warn!(container_id, ifname, "attachment unknown to the runtime removed");
                self.bury(container_id, ifname)?;
            }
        }
        Ok(())
    }

    fn interface(&self, netns: NetNs, attachment: &Attachment, addr: IpAddr) -> PodInterface {
        PodInterface {
            netns,
            container_ifname: attachment.ifname.as_str().into(),
            host_ifname: attachment.host_ifname.clone(),
            addr: vec![addr],
            mtu: self.mtu,
            pod_mac: pod_mac(addr),
            host_mac: HOST_MAC,
        }
    }

    fn free(&self, attachment: &Attachment) {
        if let Err(error) = self.addresses.release(&attachment.handle) {
            warn!(error = &error as &dyn std::error::Error, "address not freed; the runtime's DEL frees it");
        }
    }

    /// Lends a socket: opening one costs as much as a whole batch, and requests come in bursts.
    fn with_socket<T>(
        &self,
        interface: &LinkName,
        work: impl FnOnce(&mut RtSocket) -> Result<T, PodInterfaceError>,
    ) -> Result<T, PodInterfaceError> {
        let spare = self.sockets.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut socket = match spare {
            Some(socket) => socket,
            None => {
                RtSocket::open().map_err(|source| PodInterfaceError::Check { interface: interface.clone(), source })?
            }
        };
        let result = work(&mut socket);
        let mut spares = self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        // After an error an answer may still be under way in the socket: a fresh one next time.
        if result.is_ok() && spares.len() < SPARE_SOCKETS {
            spares.push(socket);
        }
        result
    }
}

impl Serve for Attachments {
    fn unanswered(&self, request: &Request) {
        // The plugin is gone, so the runtime believes that nothing was made.
        if request.verb == Verb::Add
            && let Err(failure) = self.del(request)
        {
            warn!(container = %request.container_id, failure.msg, "ADD that nobody waited for not undone");
        }
    }

    fn serve(&self, request: &Request, netns: Option<OwnedFd>) -> Reply {
        let result = match request.verb {
            Verb::Add => self.add(request, netns).map(Some),
            Verb::Del => self.del(request).map(|()| None),
            Verb::Check => self.check(request, netns).map(|()| None),
            Verb::Gc => self.collect_garbage(request).map(|()| None),
            // The socket exists only while the agent is ready.
            Verb::Status => Ok(None),
        };
        match result {
            Ok(result) => Reply::Done(result),
            Err(failure) => {
                warn!(verb = ?request.verb, container = %request.container_id, failure.msg, "CNI request failed");
                Reply::Failed(failure)
            }
        }
    }
}

/// For whom an ADD asks.
struct Asker {
    pod: PodKey,
    uid: Arc<str>,
    wish: AddressRequest,
    in_cluster: bool,
}

/// One interface of one sandbox.
struct Attachment {
    handle: Handle,
    ifname: String,
    host_ifname: LinkName,
}

impl Attachment {
    fn new(container_id: &str, ifname: &str) -> Self {
        Self {
            handle: Handle::new(container_id, ifname),
            ifname: ifname.to_owned(),
            host_ifname: host_ifname(container_id, ifname),
        }
    }

    fn of(request: &Request) -> Self {
        Self::new(&request.container_id, &request.ifname)
    }
}

/// A pod's Ethernet address is made of its IPv4 address: whoever reads a capture sees who it is.
fn pod_mac(addr: IpAddr) -> Mac {
    let tail = match addr {
        IpAddr::V4(addr) => addr.octets(),
        IpAddr::V6(addr) => {
            let [.., a, b, c, d] = addr.octets();
            [a, b, c, d]
        }
    };
    Mac([0x0a, 0x58, tail[0], tail[1], tail[2], tail[3]])
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

fn missing_namespace(request: &Request) -> Failure {
    let verb = serde_json::to_value(request.verb).unwrap_or_default();
    Failure::new(
        Failure::INVALID_ENVIRONMENT,
        format!("{verb} came without the sandbox's network namespace (CNI_NETNS)"),
    )
}

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(error.source(), |error| error.source())
        .fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

fn elapsed_us(started: Instant) -> u64 {
    u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX)
}
