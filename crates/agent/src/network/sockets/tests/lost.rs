//! Connections of a process in the cgroup to backends that nobody names any more.

use std::{
    io::{ErrorKind, Read, Write},
    net::{TcpListener, TcpStream},
    process::{Child, Command},
};

use podnet_kernel::netns::NetNs;
use podnet_model::{Block, BlockCidr, Held, Node, NodeAddr, NodeName, Pool};

use super::*;

/// A process in the cgroup that is in a namespace of its own, as a pod's is. Its loopback has all backends.
struct Pod {
    group: Group,
    path: String,
    netns: NetNs,
    process: Child,
}

impl Pod {
    fn new(tag: &str) -> Self {
        let group = Group::new(tag);
        group.0.create().unwrap();
        let path = format!("/run/netns/podnet-test-{tag}-{}", std::process::id());
        let netns = NetNs::create(&path).unwrap();
        netns.run(|| Command::new("ip").args(["link", "set", "lo", "up"]).status()).unwrap().unwrap();
        group.0.add_self().unwrap();
        let process = netns.run(|| Command::new("sleep").arg("100").spawn()).unwrap();
        Cgroup::v2("").unwrap().add_self().unwrap();
        Self { group, path, netns, process: process.unwrap() }
    }

    /// What a process of the pod does: this one, which is in the cgroup for that time.
    fn does<T: Send>(&self, action: impl FnOnce() -> T + Send) -> T {
        self.group.0.add_self().unwrap();
        let done = self.netns.run(action);
        Cgroup::v2("").unwrap().add_self().unwrap();
        done.unwrap()
    }

    /// A connection to the first Service, and its other end.
    fn connect(&self, listener: &TcpListener) -> (TcpStream, TcpStream) {
        let stream = self.does(|| TcpStream::connect("10.96.0.1:80")).unwrap();
        stream.set_nonblocking(true).unwrap();
        (stream, listener.accept().unwrap().0)
    }

    fn listen(&self) -> TcpListener {
        self.netns.run(|| TcpListener::bind("0.0.0.0:8080")).unwrap().unwrap()
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        let _ = self.process.kill().and_then(|()| self.process.wait());
        let _ = NetNs::remove(&self.path);
    }
}

/// What is planned where all backends are pods, of whose addresses nobody keeps account.
fn rules() -> ClusterRules {
    let mut rules = super::rules();
    rules.learn(&Change::Pool("pods".into(), Some(Pool::new("pods".into(), "127.0.0.0/8".parse().unwrap()))));
    rules
}

/// The account of the first 64 addresses, of which another node holds the first `held`.
fn account(held: usize) -> Change {
    let cidr = BlockCidr("127.0.0.0/26".parse().unwrap());
    let held: Held = (0..64).map(|place| place < held).collect();
    Change::Block(cidr, Some(Block { held, ..Block::new(cidr, Some("node2".into())) }))
}

/// The first Service's endpoints.
fn endpoints(addrs: &[[u8; 4]]) -> Change {
    let Change::Slice(key, Some(slice)) = slice(1, 0) else { panic!("a slice") };
    let endpoints = addrs.iter().map(|addr| Endpoint::new(PodAddr((*addr).into()))).collect();
    Change::Slice(key, Some(EndpointSlice { endpoints, ..slice }))
}

/// Goes on to look until the connection is ended, and tells how, or until patience is over.
fn ended(mut stream: impl Read, patience: Duration, mut look: impl FnMut()) -> Option<ErrorKind> {
    let began = Instant::now();
    while began.elapsed() < patience {
        std::thread::sleep(Duration::from_millis(10));
        look();
        match stream.read(&mut [0]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Some(error.kind()),
            Ok(length) => panic!("{length} bytes were sent"),
        }
    }
    None
}

const SOON: Duration = Duration::from_secs(20);
const A_WHILE: Duration = Duration::from_millis(1500);

#[test]
fn a_connection_whose_backend_is_gone_is_ended_soon() {
    let pod = Pod::new("lost");
    let listener = pod.listen();
    let mut at = AtSockets::open(pod.group.0.clone()).unwrap();
    let mut rules = rules();
    rules.learn(&service(1, true));
    rules.learn(&endpoints(&[[127, 0, 0, 1]]));
    at.put(&mut rules).unwrap();
    let (stream, _held) = pod.connect(&listener);
    for (said, addrs) in
        [("its backend is there", &[[127, 0, 0, 1]][..]), ("who serves may not be written yet", &[][..])]
    {
        rules.learn(&endpoints(addrs));
        at.edit(&mut rules).unwrap();
        at.lost.suspect();
        assert_eq!(ended(&stream, A_WHILE, || drop(at.look(&mut rules).unwrap())), None, "{said}");
    }
    rules.learn(&endpoints(&[[127, 0, 0, 2]]));
    at.edit(&mut rules).unwrap();
    at.lost.suspect();
    assert_eq!(ended(&stream, SOON, || drop(at.look(&mut rules).unwrap())), Some(ErrorKind::ConnectionAborted));
}

/// As kube-proxy leaves it: a label of the pod changed, or the Service's selector.
#[test]
fn a_connection_whose_backend_left_its_service_goes_on_until_the_backend_is_gone() {
    let pod = Pod::new("living");
    let listener = pod.listen();
    let mut place = SocketsPlace::new(pod.group.0.path().to_path_buf());
    let mut rules = rules();
    let node2: NodeName = "node2".into();
    rules.learn(&Change::Node(node2.clone(), Some(Node::new(node2, NodeAddr([10, 0, 0, 2].into())))));
    rules.learn(&account(2));
    rules.learn(&service(1, true));
    rules.learn(&endpoints(&[[127, 0, 0, 1]]));
    place.prepare(Mode::Ebpf).unwrap();
    place.follow(Mode::Ebpf, &mut rules).unwrap();
    let (stream, held) = pod.connect(&listener);
    let left = endpoints(&[[127, 0, 0, 2]]);
    rules.learn(&left);
    place.edit(&mut rules).unwrap();
    place.heard(&left);
    assert_eq!(ended(&stream, A_WHILE, || place.look(&mut rules).unwrap()), None);
    (&stream).write_all(&[0]).unwrap();
    (&held).read_exact(&mut [0]).unwrap();
    let gone = account(1);
    rules.learn(&gone);
    place.heard(&gone);
    let began = Instant::now();
    assert_eq!(ended(&stream, SOON, || place.look(&mut rules).unwrap()), Some(ErrorKind::ConnectionAborted));
    // By what it heard, and not by the round that it makes anyway.
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
}

#[test]
fn it_is_ended_where_the_first_tables_were_too_small_as_well() {
    let pod = Pod::new("many");
    let listener = pod.listen();
    let mut at = AtSockets::open(pod.group.0.clone()).unwrap();
    let small = Sockets::open(&pod.group.0, Sizes { frontends: 1, backends: 1 }).unwrap();
    at.lost = LostConnections::start(small.connections().unwrap()).unwrap();
    at.programs = Some(small);
    let mut rules = rules();
    rules.learn(&service(1, true));
    rules.learn(&endpoints(&[[127, 0, 0, 1], [127, 0, 0, 2]]));
    at.put(&mut rules).unwrap();
    assert_eq!(at.programs.as_ref().unwrap().sizes(), Sizes::LEAST);
    let (stream, _held) = pod.connect(&listener);
    rules.learn(&endpoints(&[[127, 0, 0, 3]]));
    at.edit(&mut rules).unwrap();
    at.lost.suspect();
    assert_eq!(ended(&stream, SOON, || drop(at.look(&mut rules).unwrap())), Some(ErrorKind::ConnectionAborted));
}

/// No rule leads these away from a backend that goes: they are connected to the backend itself.
#[test]
fn what_was_opened_before_the_mode_changed_is_looked_after() {
    let pod = Pod::new("left");
    let listener = pod.listen();
    let mut place = SocketsPlace::new(pod.group.0.path().to_path_buf());
    let mut rules = rules();
    rules.learn(&service(1, true));
    rules.learn(&endpoints(&[[127, 0, 0, 1]]));
    place.prepare(Mode::Ebpf).unwrap();
    place.follow(Mode::Ebpf, &mut rules).unwrap();
    let (stream, held) = pod.connect(&listener);
    place.follow(Mode::Nftables, &mut rules).unwrap();
    assert_eq!(ended(&stream, A_WHILE, || place.look(&mut rules).unwrap()), None);
    (&stream).write_all(&[0]).unwrap();
    (&held).read_exact(&mut [0]).unwrap();
    // By another agent, too.
    let mut next = SocketsPlace::new(pod.group.0.path().to_path_buf());
    next.follow(Mode::Nftables, &mut rules).unwrap();
    drop(place);
    let gone = endpoints(&[]);
    rules.learn(&gone);
    next.heard(&gone);
    assert_eq!(ended(&stream, SOON, || next.look(&mut rules).unwrap()), Some(ErrorKind::ConnectionAborted));
    // When there is none any more, none is looked for.
    drop(stream);
    let began = Instant::now();
    while next.due().is_some() {
        assert!(began.elapsed() < SOON, "connections are looked for that nobody can have");
        next.heard(&gone);
        next.look(&mut rules).unwrap();
        std::thread::sleep(Duration::from_millis(10));
    }
}
