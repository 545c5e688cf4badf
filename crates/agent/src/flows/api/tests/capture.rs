//! Who captures packets of which pods, how many at once, and until when.

use std::{
    collections::HashSet,
    net::UdpSocket,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use http_body_util::BodyExt;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use podnet_flow::{
    capture::{Captured, MOST_INSTRUCTIONS},
    pcapng::{self, Packet, Statistics},
};
use podnet_kernel::netns::NetNs;
use podnet_planner::ipam::Handle;

use super::*;
use crate::flows::inside::{Here, Inside};

/// `here` is a pod of this node, without a namespace of its own; `web` one in a namespace where a test puts it there.
#[derive(Default)]
pub(super) struct Pods {
    web: Mutex<Option<PathBuf>>,
}

impl Pods {
    pub(super) fn set(&self, namespace: Option<PathBuf>) {
        *self.web.lock().unwrap_or_else(PoisonError::into_inner) = namespace;
    }

    fn web(&self) -> Option<PathBuf> {
        self.web.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Here for Pods {
    fn is_here(&self, uid: &str) -> bool {
        uid == "here"
    }

    fn uids(&self) -> HashSet<Arc<str>> {
        HashSet::from(["here".into()])
    }

    fn is_held(&self, handle: &Handle) -> bool {
        self.web().is_some_and(|path| *handle == handle_in(&path))
    }

    fn enter(&self, pod: &Captured) -> Result<Inside, String> {
        let path = self.web().filter(|_| pod.uid == "web").ok_or("no such pod")?;
        let addrs =
            vec![("lo".to_owned(), Ipv4Addr::LOCALHOST.into()), ("eth0".to_owned(), Ipv4Addr::BROADCAST.into())];
        Ok(Inside { netns: NetNs::open(&path).unwrap(), handle: handle_in(&path), addrs })
    }
}

/// Each namespace is another sandbox of it.
fn handle_in(namespace: &Path) -> Handle {
    Handle::new(namespace.file_name().unwrap().to_str().unwrap(), "eth0")
}

/// A namespace that goes with the value.
pub(super) struct Namespace(pub(super) PathBuf, NetNs);

impl Namespace {
    pub(super) fn new(tag: &str) -> Self {
        let path = PathBuf::from(format!("/run/netns/podnet-test-{tag}-{}", std::process::id()));
        Self(path.clone(), NetNs::create(&path).unwrap())
    }

    /// Sends a datagram to itself.
    fn send(&self, length: usize) {
        let send = || {
            let socket = UdpSocket::bind("127.0.0.1:5000").unwrap();
            socket.send_to(&vec![7; length], "127.0.0.1:5000").unwrap();
        };
        self.1.run(send).unwrap();
    }

    /// Sends large datagrams to itself.
    fn flood(&self, count: u64) {
        let flood = || {
            let socket = UdpSocket::bind("127.0.0.1:5000").unwrap();
            for _ in 0..count {
                socket.send_to(&[7; 60_000], "127.0.0.1:5000").unwrap();
            }
        };
        tokio::task::block_in_place(|| self.1.run(flood)).unwrap();
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = NetNs::remove(&self.0);
    }
}

fn question(name: &str, interface: &str, program: &Value) -> Value {
    let pod = json!({"namespace": "shop", "name": name, "uid": name});
    json!({"pods": [pod], "interface": interface, "snap": 64, "program": program, "expression": "udp"})
}

fn whole_packets() -> String {
    let pods = vec![json!({"namespace": "shop", "name": "web", "uid": "web"})];
    json!({"pods": pods, "interface": "lo", "snap": 65535, "program": []}).to_string()
}

impl Lab {
    async fn post(&self, token: &str, question: &str) -> Response<Incoming> {
        self.post_to("/capture", token, question).await
    }

    pub(super) async fn post_to(&self, path: &str, token: &str, question: &str) -> Response<Incoming> {
        let stream = self.connect(b"http/1.1").await.unwrap();
        let (mut sender, connection) = http1::handshake::<_, String>(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let request = Request::post(path).header("Host", "x").header("Authorization", format!("Bearer {token}"));
        timeout(DEADLINE, sender.send_request(request.body(question.to_owned()).unwrap())).await.unwrap().unwrap()
    }
}

/// What comes of a capture.
struct Stream {
    body: Incoming,
    reader: pcapng::Reader,
}

impl Stream {
    fn new(response: Response<Incoming>) -> Self {
        assert_eq!(response.status(), 200);
        Self { body: response.into_body(), reader: pcapng::Reader::default() }
    }

    /// The next block; none at the end.
    async fn next(&mut self) -> Option<pcapng::Block> {
        loop {
            if let Some(block) = self.reader.block().unwrap() {
                return Some(block);
            }
            let frame = timeout(DEADLINE, self.body.frame()).await.expect("something comes")?.unwrap();
            self.reader.push(&frame.into_data().unwrap());
        }
    }

    async fn packet(&mut self) -> Packet {
        loop {
            if let pcapng::Block::Packet(packet) = self.next().await.expect("it goes on") {
                return packet;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn packets_of_a_pod_are_told_to_who_may_capture_it_until_it_goes() {
    let (lab, namespace) = (Lab::new().await, Namespace::new("capture-told"));
    lab.here.set(Some(namespace.0.clone()));
    let response = lab.post("lister", &question("web", "lo", &json!([])).to_string()).await;
    let mut stream = Stream::new(response);
    assert!(matches!(stream.next().await, Some(pcapng::Block::Section { .. })));
    let Some(pcapng::Block::Interface(interface)) = stream.next().await else { panic!("no interface") };
    assert_eq!((&*interface.name, interface.snap, interface.filter.as_deref()), ("shop/web lo", 64, Some("udp")));
    assert_eq!(interface.addrs, [Ipv4Addr::LOCALHOST]);
    for length in [100, 300] {
        namespace.send(length);
        let packet = stream.packet().await;
        let whole = u32::try_from(14 + 20 + 8 + length).unwrap();
        assert_eq!((packet.interface, packet.length, packet.bytes.len()), (0, whole, 64));
    }
    lab.here.set(None);
    let mut last = None;
    while let Some(block) = stream.next().await {
        last = Some(block);
    }
    let Some(pcapng::Block::Statistics(Statistics { received, dropped: 0, .. })) = last else { panic!("{last:?}") };
    assert_eq!(received, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_capture_a_pod_is_refused_and_what_cannot_be_captured_is_named() {
    let (lab, namespace) = (Lab::new().await, Namespace::new("capture-refused"));
    lab.here.set(Some(namespace.0.clone()));
    let wanted = |name: &str| question(name, "lo", &json!([])).to_string();
    let instructions = vec![[6, 0, 0, 1]; MOST_INSTRUCTIONS + 1];
    for (token, asked, status, said) in [
        ("nobody", wanted("web"), 401, "certificate"),
        ("here", wanted("web"), 403, "pods/capture of shop/web"),
        ("lister", wanted("db"), 403, "pods/capture of shop/db"),
        ("lister", question("web", "eth9", &json!([])).to_string(), 404, "there are lo"),
        ("lister", question("web", "lo", &json!([[5, 0, 0, 9]])).to_string(), 400, "does not take the filter"),
        ("lister", question("web", "lo", &json!(instructions)).to_string(), 400, "4097 instructions"),
        ("lister", "{}".to_owned(), 400, "pods"),
        ("lister", " ".repeat(300 << 10), 400, "length limit"),
    ] {
        let response = lab.post(token, &asked).await;
        assert_eq!(response.status(), status, "{token}: {said}");
        let text = response.into_body().collect().await.unwrap().to_bytes();
        let text = String::from_utf8_lossy(&text);
        assert!(text.contains(said), "{token}: {text}");
    }
    lab.here.set(None);
    assert_eq!(lab.post("lister", &wanted("web")).await.status(), 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_user_captures_twice_at_once_and_again_once_one_of_these_is_over() {
    let (lab, namespace) = (Lab::new().await, Namespace::new("capture-twice"));
    lab.here.set(Some(namespace.0.clone()));
    let asked = question("web", "lo", &json!([])).to_string();
    let [first, second] = [lab.post("lister", &asked).await, lab.post("lister", &asked).await];
    assert_eq!((first.status(), second.status()), (StatusCode::OK, StatusCode::OK));
    assert_eq!(lab.post("lister", &asked).await.status(), 429);
    drop(first);
    until("a capture that is over counts", async || lab.post("lister", &asked).await.status() == 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_slow_reader_does_not_take_is_dropped_by_the_kernel_and_counted() {
    let (lab, namespace) = (Lab::new().await, Namespace::new("capture-slow"));
    lab.here.set(Some(namespace.0.clone()));
    let mut stream = Stream::new(lab.post("lister", &whole_packets()).await);
    // More than is held in the kernel and on the way, whatever buffers the connection has: 240 MB.
    let count = 4000;
    namespace.flood(count);
    lab.here.set(None);
    let (mut packets, mut last) = (0, Statistics::default());
    while let Some(block) = stream.next().await {
        match block {
            pcapng::Block::Packet(_) => packets += 1,
            pcapng::Block::Statistics(statistics) => last = statistics,
            _ => {}
        }
    }
    assert_eq!((last.received, packets + last.dropped), (count, count));
    assert!((1..count).contains(&packets), "{packets} {last:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_reads_nothing_does_not_keep_a_place() {
    let (lab, namespace) = (Lab::new().await, Namespace::new("capture-idle"));
    lab.here.set(Some(namespace.0.clone()));
    let asked = whole_packets();
    let idle = [lab.post("lister", &asked).await, lab.post("lister", &asked).await];
    assert_eq!(idle.each_ref().map(Response::status), [StatusCode::OK; 2]);
    until("who reads nothing keeps a place", async || {
        namespace.flood(400);
        lab.post("lister", &asked).await.status() == 200
    })
    .await;
    drop(idle);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_capture_is_broken_off_once_it_is_not_allowed_any_more_and_not_while_nobody_says_so() {
    let (lab, namespace) = (Lab::new().await, Namespace::new("capture-forbidden"));
    lab.here.set(Some(namespace.0.clone()));
    let asked = question("web", "lo", &json!([])).to_string();
    let mut stream = Stream::new(lab.post("lister", &asked).await);
    lab.api.is_away.store(true, Ordering::SeqCst);
    // Each comes after a quarter of a second, in which it is asked several times.
    let mut words = 0;
    while words < 4 {
        let block = stream.next().await.expect("it goes on");
        words += usize::from(matches!(block, pcapng::Block::Statistics(_)));
    }
    namespace.send(100);
    stream.packet().await;
    lab.api.forbids.store(true, Ordering::SeqCst);
    lab.api.is_away.store(false, Ordering::SeqCst);
    let broken_off = async {
        loop {
            match stream.body.frame().await {
                Some(Ok(_)) => {}
                end => return end.is_some(),
            }
        }
    };
    assert!(timeout(DEADLINE, broken_off).await.expect("it goes on"), "it ended as where the pod has gone");
    assert_eq!(lab.post("lister", &asked).await.status(), 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_capture_ends_with_the_sandbox_that_it_began_in() {
    let (lab, first) = (Lab::new().await, Namespace::new("capture-first"));
    let second = Namespace::new("capture-second");
    lab.here.set(Some(first.0.clone()));
    let mut stream = Stream::new(lab.post("lister", &question("web", "lo", &json!([])).to_string()).await);
    first.send(100);
    stream.packet().await;
    lab.here.set(Some(second.0.clone()));
    let ended = async { while stream.next().await.is_some() {} };
    timeout(DEADLINE, ended).await.expect("it is captured in a namespace that the pod does not have any more");
}
