//! An API server that is nothing but its answers: lists of nodes and blocks, and watches that say nothing until they are told to.

use std::{
    io::{BufRead, BufReader, Write},
    net::{IpAddr, Ipv4Addr, TcpListener, TcpStream},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use serde_json::{Value, json};

use crate::Result;

pub(super) const NODES: usize = 5_000;
pub(super) const BLOCKS: usize = 20_000;
/// Where pods' addresses begin.
const FIRST_POD: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 0);
/// Addresses in a block.
const SIZE: usize = 64;
/// How many of them are given.
const GIVEN: usize = 20;

/// The server; it ends with the process.
pub(super) struct Answers {
    port: u16,
    node_watches: Arc<Mutex<Vec<TcpStream>>>,
}

/// Objects on one page of a list: what clients ask for (kube's and client-go's watchers do).
const PAGE: usize = 500;

/// What is answered, made once: the pages of each list.
struct Texts {
    nodes: Vec<String>,
    blocks: Vec<String>,
    pools: Vec<String>,
    nothing: Vec<String>,
}

pub(super) fn name(node: usize) -> String {
    format!("node-{node:04}")
}

/// Nodes lie in 10.0.0.0/8, pods in 100.64.0.0/10.
pub(super) fn address(node: usize) -> IpAddr {
    let [.., high, low] = (node as u32 + 256).to_be_bytes();
    Ipv4Addr::new(10, 0, high, low).into()
}

/// Where a node is after it moved.
pub(super) fn moved_address(node: usize) -> IpAddr {
    let [.., high, low] = (node as u32 + 256).to_be_bytes();
    Ipv4Addr::new(10, 200, high, low).into()
}

impl Answers {
    /// Serves on a port of this namespace's loopback.
    pub(super) fn serve() -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        let texts = Arc::new(Texts::new());
        let node_watches = Arc::new(Mutex::new(Vec::new()));
        let watches = node_watches.clone();
        thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let (texts, watches) = (texts.clone(), watches.clone());
                thread::spawn(move || drop(answer(connection, &texts, &watches)));
            }
        });
        Ok(Self { port, node_watches })
    }

    pub(super) const fn port(&self) -> u16 {
        self.port
    }

    /// Tells every watch of nodes that this one has moved.
    pub(super) fn change_node(&self, number: usize) -> Result<()> {
        let event = json!({"type": "MODIFIED", "object": node(number, moved_address(number))}).to_string() + "\n";
        let chunk = format!("{:x}\r\n{event}\r\n", event.len());
        let mut watches = self.node_watches.lock().unwrap_or_else(PoisonError::into_inner);
        watches.retain_mut(|watch| watch.write_all(chunk.as_bytes()).is_ok());
        if watches.is_empty() { Err("nobody watches nodes".into()) } else { Ok(()) }
    }
}

impl Texts {
    fn new() -> Self {
        let nodes: Vec<Value> = (0..NODES).map(|number| node(number, address(number))).collect();
        let blocks: Vec<Value> = (0..BLOCKS).map(block).collect();
        let pool = json!({
            "apiVersion": "crd.projectcalico.org/v1", "kind": "IPPool", "metadata": {"name": "pods", "resourceVersion": "1"},
            "spec": {"cidr": "100.64.0.0/10", "blockSize": 26, "vxlanMode": "Always", "natOutgoing": true, "nodeSelector": "all()"},
        });
        Self {
            nodes: list("v1", "NodeList", &nodes),
            blocks: list("crd.projectcalico.org/v1", "IPAMBlockList", &blocks),
            pools: list("crd.projectcalico.org/v1", "IPPoolList", &[pool]),
            nothing: list("v1", "List", &[]),
        }
    }

    fn of(&self, path: &str, query: &str) -> &str {
        let pages = match path.rsplit('/').next().unwrap_or_default() {
            "nodes" => &self.nodes,
            "ipamblocks" => &self.blocks,
            "ippools" => &self.pools,
            _ => &self.nothing,
        };
        // A client that reads no pages would get a part: it is told so by nothing at all.
        if pages.len() > 1 && !query.contains("limit=") {
            return "";
        }
        let page = query.split('&').find_map(|part| part.strip_prefix("continue=")?.parse::<usize>().ok());
        pages.get(page.unwrap_or_default()).map_or("", String::as_str)
    }
}

/// The pages; each names the next one.
fn list(version: &str, kind: &str, items: &[Value]) -> Vec<String> {
    let count = items.len().div_ceil(PAGE).max(1);
    let page = |number: usize| {
        let items = items.chunks(PAGE).nth(number).unwrap_or_default();
        let next = if number + 1 < count { (number + 1).to_string() } else { String::new() };
        json!({"apiVersion": version, "kind": kind, "metadata": {"resourceVersion": "1", "continue": next}, "items": items})
            .to_string()
    };
    (0..count).map(page).collect()
}

/// A node as kubelet writes it, with what fills real ones: conditions, images, node info.
fn node(number: usize, address: IpAddr) -> Value {
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

/// What the API says where there is no such object.
fn not_found() -> Value {
    json!({"apiVersion": "v1", "kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404, "message": "no such object"})
}

/// The block of this name, as [`block`] makes it.
fn block_named(name: &str) -> Option<Value> {
    let range = name.strip_suffix("-26")?.replace('-', ".");
    let offset = u32::from(range.parse::<Ipv4Addr>().ok()?).checked_sub(FIRST_POD.into())?;
    let number = offset as usize / SIZE;
    (number < BLOCKS).then(|| block(number))
}

/// Four blocks for each node, each with some addresses given.
fn block(number: usize) -> Value {
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

/// Answers the requests of one connection, one after the other; a watch is the last.
fn answer(connection: TcpStream, texts: &Texts, node_watches: &Mutex<Vec<TcpStream>>) -> std::io::Result<()> {
    let mut reader = BufReader::new(connection.try_clone()?);
    let mut writer = connection;
    loop {
        let mut request = String::new();
        if reader.read_line(&mut request)? == 0 {
            return Ok(());
        }
        let mut length = 0;
        loop {
            let mut header = String::new();
            reader.read_line(&mut header)?;
            let header = header.trim().to_ascii_lowercase();
            if header.is_empty() {
                break;
            }
            if let Some(value) = header.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap_or(0);
            }
        }
        std::io::copy(&mut std::io::Read::take(&mut reader, length), &mut std::io::sink())?;
        let mut words = request.split(' ');
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        if query.contains("watch=true") {
            writer.write_all(
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n",
            )?;
            if path.ends_with("/nodes") {
                node_watches.lock().unwrap_or_else(PoisonError::into_inner).push(writer.try_clone()?);
            }
            // Until the client goes.
            std::io::copy(&mut reader, &mut std::io::sink())?;
            return Ok(());
        }
        let single = match path.split_once("/ipamblocks/") {
            Some((_, name)) => Some(block_named(name).unwrap_or_else(not_found)),
            // What is written is accepted; of the answer nothing is read.
            None => (method != "GET").then(|| node(0, address(0))),
        };
        let status =
            if single.as_ref().is_some_and(|object| object["kind"] == "Status") { "404 Not Found" } else { "200 OK" };
        let single = single.map(|object| object.to_string());
        let body = single.as_deref().unwrap_or_else(|| texts.of(path, query));
        write!(
            writer,
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        )?;
        writer.write_all(body.as_bytes())?;
    }
}
