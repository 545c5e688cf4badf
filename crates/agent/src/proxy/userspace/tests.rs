//! In a namespace, with real connections.

use std::{
    io::{Read, Write},
    net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::PathBuf,
    process::Command,
    thread,
};

use podnet_kernel::datapath::KernelDatapath;
use podnet_model::{
    Change, ClusterIp, Endpoint, EndpointSlice, NodeAddr, NodePort, PodAddr, Protocol, Service, ServiceKey,
    ServicePort, SliceKey, TargetPort,
    endpoints::EndpointPort,
    service::{Port, ServiceKind, TrafficPolicy},
};
use podnet_planner::services::ServicesConfig;
use rustix::process::{Resource, Rlimit, setrlimit};

use super::*;

mod known;
mod outlived;
mod waiting;

/// The node, and its pods.
const NODE: &str = "192.0.2.1";
const SERVICE: &str = "10.96.0.10";
const EXTERNAL: &str = "203.0.113.5";
const PATIENCE: Duration = Duration::from_secs(20);

struct Scene {
    path: PathBuf,
    netns: NetNs,
    datapath: KernelDatapath,
    services: Services,
    rules: InUserspace,
}

impl Scene {
    fn new(tag: &str) -> Self {
        let path = PathBuf::from(format!("/run/netns/pntest-user-{tag}-{}", std::process::id()));
        NetNs::remove(&path).unwrap();
        let netns = NetNs::create(&path).unwrap();
        let datapath = KernelDatapath::open_in(&netns).unwrap();
        let addrs = vec![NodeAddr(NODE.parse().unwrap())];
        let services = Services::new(ServicesConfig::new(Family::V4, "node1".into(), addrs));
        let rules = InUserspace::new(&services);
        let scene = Self { path, netns, datapath, services, rules };
        for own in [NODE, "10.0.0.1", "10.0.0.2"] {
            scene.command(&format!("ip addr add {own}/32 dev lo"));
        }
        scene
    }

    fn command(&self, line: &str) -> String {
        let words: Vec<&str> = line.split(' ').collect();
        let output = self.netns.run(|| Command::new(words[0]).args(&words[1..]).output()).unwrap().unwrap();
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn learn(&mut self, change: &Change) {
        let plan = self.services.apply(change);
        self.rules.learn(&self.services, &plan);
    }

    /// A Service of a port of each protocol, which is at the node too and at an external address, with these backends.
    fn serve(&mut self, backends: &[SocketAddr]) {
        let port = |name: &str, protocol, node_port| Port {
            name: name.into(),
            protocol,
            port: ServicePort(53),
            node_port: Some(NodePort(node_port)),
        };
        let kind = ServiceKind::Virtual { cluster_ips: vec![ClusterIp(SERVICE.parse().unwrap())] };
        let key = ServiceKey::new("default", "web");
        let ports =
            vec![port("t", Protocol::Tcp, 30053), port("u", Protocol::Udp, 30053), port("s", Protocol::Sctp, 30053)];
        let external_ips = vec![EXTERNAL.parse().unwrap()];
        let service = Service { external_ips, ..Service::new(key.clone(), kind, ports) };
        self.learn(&Change::Service(key.clone(), Some(service)));
        let slices = ["10.0.0.1", "10.0.0.2"].map(|addr| {
            let own: Vec<_> = backends.iter().filter(|at| at.ip().to_string() == addr).collect();
            let ports = own.iter().flat_map(|at| {
                [("t", Protocol::Tcp), ("u", Protocol::Udp)].map(|(name, protocol)| EndpointPort {
                    name: name.into(),
                    protocol,
                    port: TargetPort(at.port()),
                })
            });
            let key_of_slice = SliceKey::new("default", addr);
            Change::Slice(
                key_of_slice.clone(),
                Some(EndpointSlice {
                    key: key_of_slice,
                    service: key.clone(),
                    ports: ports.collect(),
                    endpoints: own.iter().map(|at| Endpoint::new(PodAddr(at.ip()))).collect(),
                    triggered: None,
                    unproxied: false,
                }),
            )
        });
        slices.iter().for_each(|slice| self.learn(slice));
        self.rules.edit(&self.services, &mut self.datapath).unwrap();
    }

    fn connect(&self, addr: &str, port: u16) -> std::io::Result<TcpStream> {
        let to = SocketAddr::new(addr.parse().unwrap(), port);
        let stream = self.netns.run(|| TcpStream::connect_timeout(&to, PATIENCE)).unwrap()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Ok(stream)
    }

    /// What leads aside.
    fn left(&self) -> String {
        self.command("ip route show proto 87") + &self.command("ip -o link show type veth")
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = NetNs::remove(&self.path);
    }
}

/// A backend that takes connections of TCP, and one of UDP at the same port, which tells its name to whoever asks.
struct Backend {
    tcp: TcpListener,
    at: SocketAddr,
}

impl Backend {
    fn new(scene: &Scene, addr: &str) -> Self {
        let addr: IpAddr = addr.parse().unwrap();
        let bound = || {
            let tcp = TcpListener::bind((addr, 0)).unwrap();
            let at = tcp.local_addr().unwrap();
            (tcp, at, UdpSocket::bind(at).unwrap())
        };
        let (tcp, at, udp) = scene.netns.run(bound).unwrap();
        thread::spawn(move || {
            let mut buffer = [0; 9];
            while let Ok((length, from)) = udp.recv_from(&mut buffer) {
                let _ = udp.send_to(&[at.to_string().as_bytes(), &buffer[..length]].concat(), from);
            }
        });
        Self { tcp, at }
    }

    fn accept(&self) -> TcpStream {
        let (stream, from) = self.tcp.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        assert!([NODE, "10.0.0.1", "10.0.0.2"].contains(&from.ip().to_string().as_str()), "{from}");
        stream
    }
}

fn echo(stream: &mut TcpStream, other: &mut TcpStream) {
    stream.write_all(b"there").unwrap();
    let mut heard = [0; 5];
    other.read_exact(&mut heard).unwrap();
    other.write_all(&heard).unwrap();
    stream.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"there");
}

#[test]
fn connections_outlive_their_frontend_their_backends_and_the_mode() {
    let mut scene = Scene::new("tcp");
    let backend = Backend::new(&scene, "10.0.0.1");
    scene.serve(&[backend.at]);
    let (mut first, mut first_there) = (scene.connect(SERVICE, 53).unwrap(), backend.accept());
    let (mut at_node, mut at_node_there) = (scene.connect(NODE, 30053).unwrap(), backend.accept());
    echo(&mut first, &mut first_there);
    scene.serve(&[]);
    // Refused, with the frontend there.
    assert_eq!(scene.connect(SERVICE, 53).unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
    assert_eq!(scene.connect(NODE, 30053).unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
    echo(&mut first, &mut first_there);
    echo(&mut at_node, &mut at_node_there);

    scene.serve(&[backend.at]);
    scene.rules.take_away(&mut scene.datapath).unwrap();
    assert!(!scene.rules.in_force());
    // Who was about to connect does so.
    echo(&mut scene.connect(SERVICE, 53).unwrap(), &mut backend.accept());
    echo(&mut first, &mut first_there);
    // The mode comes back before they are over, and another one of its kind may look for what earlier agents left.
    InUserspace::new(&scene.services).take_away(&mut scene.datapath).unwrap();
    scene.rules.put(&scene.services, &mut scene.datapath).unwrap();
    let (mut second, mut second_there) = (scene.connect(SERVICE, 53).unwrap(), backend.accept());
    for (here, there) in [(&mut first, &mut first_there), (&mut second, &mut second_there)] {
        echo(here, there);
    }

    scene.rules.take_away(&mut scene.datapath).unwrap();
    backend.tcp.set_nonblocking(true).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while let Ok(client) = scene.connect(SERVICE, 53) {
        assert!(Instant::now() < deadline, "it is listened for ever");
        client.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let _ = (&client).read(&mut [0; 9]);
        drop(client);
        // It may have come just too late to be passed on.
        while backend.tcp.accept().is_ok() {}
    }
    echo(&mut second, &mut second_there);
    drop((first, first_there, at_node, at_node_there, second_there));
    echo_ends(&mut second);
    drop(second);
    let deadline = Instant::now() + PATIENCE;
    while !scene.left().is_empty() {
        while backend.tcp.accept().is_ok() {}
        assert!(Instant::now() < deadline, "left behind: {}", scene.left());
        thread::yield_now();
    }
}

#[test]
fn what_is_left_of_the_mode_hears_nobody_at_a_frontend_that_goes_and_its_connections_go_on() {
    let mut scene = Scene::new("withdrawn");
    let backend = Backend::new(&scene, "10.0.0.1");
    scene.serve(&[backend.at]);
    let (mut first, mut first_there) = (scene.connect(SERVICE, 53).unwrap(), backend.accept());
    echo(&mut first, &mut first_there);
    scene.rules.take_away(&mut scene.datapath).unwrap();
    scene.rules.withdraw(&|frontend| frontend.port != 53, &mut scene.datapath).unwrap();
    assert_eq!(scene.connect(SERVICE, 53).unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
    echo(&mut scene.connect(NODE, 30053).unwrap(), &mut backend.accept());
    echo(&mut first, &mut first_there);
}

#[test]
fn what_is_left_of_the_mode_is_where_its_connections_are_and_what_it_leaves_to_rules_is_not_led() {
    let mut scene = Scene::new("held");
    let backend = Backend::new(&scene, "10.0.0.1");
    scene.serve(&[backend.at]);
    let led = |scene: &Scene| {
        let routes = scene.command("ip route show table all proto 87");
        [SERVICE, EXTERNAL].map(|addr| routes.lines().any(|line| line.starts_with(&format!("{addr} "))))
    };
    // Who begins with these addresses left does not lead them, and who takes them back does.
    let addrs = BTreeSet::from([SERVICE.parse().unwrap()]);
    scene.rules.leave_to_rules(&scene.services, &addrs);
    scene.rules.edit(&scene.services, &mut scene.datapath).unwrap();
    assert_eq!(led(&scene), [false, true]);
    echo(&mut scene.connect(EXTERNAL, 53).unwrap(), &mut backend.accept());
    scene.rules.leave_to_rules(&scene.services, &BTreeSet::new());
    scene.rules.edit(&scene.services, &mut scene.datapath).unwrap();
    assert_eq!(led(&scene), [true, true]);

    let (mut client, mut there) = (scene.connect(SERVICE, 53).unwrap(), backend.accept());
    echo(&mut client, &mut there);
    assert_eq!((scene.rules.held(), scene.rules.takes_new()), (BTreeSet::new(), false), "the mode is not left");
    let left = Instant::now();
    scene.rules.take_away(&mut scene.datapath).unwrap();
    let takes_new = scene.rules.takes_new();
    assert!(addrs.is_subset(&scene.rules.held()));
    scene.rules.take_away(&mut scene.datapath).unwrap();
    let led_meanwhile = led(&scene);
    // Where the machine was slow the time for that is over.
    if left.elapsed() < Duration::from_secs(3) {
        assert_eq!((takes_new, led_meanwhile), (true, [true, true]), "somebody may be about to connect");
    }
    // As if the time for that were over.
    scene.rules.withdraw(&|_| false, &mut scene.datapath).unwrap();
    let deadline = Instant::now() + PATIENCE;
    // The connection to the other address is over a moment after it was closed.
    while scene.rules.held() != addrs {
        assert!(Instant::now() < deadline, "{:?}", scene.rules.held());
        thread::yield_now();
    }
    assert!(!scene.rules.takes_new());
    scene.rules.take_away(&mut scene.datapath).unwrap();
    assert_eq!(led(&scene), [true, false]);
    echo(&mut client, &mut there);
    drop((client, there));
    while !scene.rules.held().is_empty() {
        assert!(Instant::now() < deadline, "{:?}", scene.rules.held());
        thread::yield_now();
    }
}

fn echo_ends(stream: &mut TcpStream) {
    assert_eq!(stream.read(&mut [0; 9]).unwrap(), 0);
}

#[test]
fn much_is_passed_on_whole_and_each_side_ends_by_itself() {
    let mut scene = Scene::new("much");
    let backend = Backend::new(&scene, "10.0.0.1");
    scene.serve(&[backend.at]);
    let mut client = scene.connect(SERVICE, 53).unwrap();
    let mut there = backend.accept();
    let much: Vec<u8> = (0..20_000_000_u32).map(|number| (number / 7) as u8).collect();
    let sent = much.clone();
    let mut writer = client.try_clone().unwrap();
    let sending = thread::spawn(move || {
        writer.write_all(&sent).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let mut heard = Vec::new();
    there.read_to_end(&mut heard).unwrap();
    assert!(heard == much, "{} of {} bytes", heard.len(), much.len());
    sending.join().unwrap();
    // The other direction is open still.
    let answering = thread::spawn(move || there.write_all(&much).map(|()| much));
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).unwrap();
    assert!(answer == answering.join().unwrap().unwrap(), "{} bytes", answer.len());
    // An end that is none is told as such.
    let mut client = scene.connect(SERVICE, 53).unwrap();
    let mut there = backend.accept();
    // The connection is passed on: one that ends before is not there, and another one would be made.
    echo(&mut client, &mut there);
    rustix::net::sockopt::set_socket_linger(&there, Some(Duration::ZERO)).unwrap();
    drop(there);
    assert_eq!(client.read(&mut [0; 9]).unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
}

#[test]
fn a_backend_that_does_not_answer_is_passed_by() {
    let mut scene = Scene::new("dead");
    let backend = Backend::new(&scene, "10.0.0.1");
    // Nobody listens there.
    let dead = SocketAddr::new("10.0.0.2".parse().unwrap(), 9);
    scene.serve(&[backend.at, dead]);
    for _ in 0..20 {
        let (mut client, mut there) = (scene.connect(SERVICE, 53).unwrap(), backend.accept());
        echo(&mut client, &mut there);
    }
    scene.serve(&[dead]);
    let reset = scene.connect(SERVICE, 53).and_then(|mut client| client.read(&mut [0; 9])).unwrap_err();
    assert_eq!(reset.kind(), std::io::ErrorKind::ConnectionReset);
}

#[test]
fn datagrams_stay_with_their_backend_until_it_goes() {
    let mut scene = Scene::new("udp");
    let backends = [Backend::new(&scene, "10.0.0.1"), Backend::new(&scene, "10.0.0.2")];
    scene.serve(&[backends[0].at]);
    let client = scene.netns.run(|| UdpSocket::bind((NODE, 0))).unwrap().unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut number = 0_u32;
    let mut ask = |to: (&str, u16)| {
        number += 1;
        let said = number.to_string();
        client.send_to(said.as_bytes(), to).unwrap();
        let mut buffer = [0; 64];
        let (length, from) = client.recv_from(&mut buffer).unwrap();
        assert_eq!(from.to_string(), format!("{}:{}", to.0, to.1));
        let heard = String::from_utf8_lossy(&buffer[..length]).into_owned();
        heard.strip_suffix(&said).unwrap().to_owned()
    };
    let [one, two] = [&backends[0], &backends[1]].map(|backend| backend.at.to_string());
    assert_eq!(ask((SERVICE, 53)), one);
    scene.serve(&[backends[0].at, backends[1].at]);
    for _ in 0..20 {
        assert_eq!(ask((SERVICE, 53)), one, "a flow stays");
    }
    scene.serve(&[backends[1].at]);
    assert_eq!(ask((SERVICE, 53)), two, "its backend is gone");
    assert_eq!(ask((NODE, 30053)), two);
    scene.serve(&[]);
    // The socket is closed a moment later, and what comes before is heard by nobody.
    client.connect((SERVICE, 53)).unwrap();
    client.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let deadline = Instant::now() + PATIENCE;
    let refused =
        std::iter::repeat_with(|| client.send(b"?").and_then(|_| client.recv(&mut [0; 9])).unwrap_err().kind());
    let mut told = refused.take_while(|_| Instant::now() < deadline);
    assert!(told.any(|kind| kind == std::io::ErrorKind::ConnectionRefused));
}

#[test]
fn what_others_have_or_nobody_can_is_told_and_damage_is_mended() {
    let mut scene = Scene::new("told");
    let backend = Backend::new(&scene, "10.0.0.1");
    let other = scene.netns.run(|| TcpListener::bind(("0.0.0.0", 30053))).unwrap().unwrap();
    scene.serve(&[backend.at]);
    let told =
        |scene: &Scene| scene.rules.unserved().into_iter().map(|told| told.message).collect::<Vec<_>>().join("\n");
    let before = told(&scene);
    assert!(
        before.contains("192.0.2.1:30053/TCP is not served: another program of the node listens there"),
        "{before}"
    );
    assert!(before.contains("10.96.0.10:53/SCTP is not served: mode userspace has no SCTP"), "{before}");
    // Of a Service that wants clients' addresses kept it is told once, whatever it is at, and no more where it does not.
    for (external_policy, times) in [(TrafficPolicy::Local, 1), (TrafficPolicy::Cluster, 0)] {
        let key = ServiceKey::new("default", "local");
        let kind = ServiceKind::Virtual { cluster_ips: vec![ClusterIp("10.96.0.11".parse().unwrap())] };
        let ports = ["a", "b"].map(|name| Port {
            name: name.into(),
            protocol: Protocol::Tcp,
            port: ServicePort(if name == "a" { 80 } else { 81 }),
            node_port: None,
        });
        let external_ips = vec!["203.0.113.6".parse().unwrap()];
        let service = Service::new(key.clone(), kind, ports.to_vec());
        scene.learn(&Change::Service(key.clone(), Some(Service { external_ips, external_policy, ..service })));
        scene.rules.edit(&scene.services, &mut scene.datapath).unwrap();
        let hiding = scene.rules.unserved().into_iter().filter(|told| told.message.contains("externalTrafficPolicy"));
        let whose: Vec<_> = hiding.map(|told| (told.service, told.reason)).collect();
        // It is served.
        assert_eq!(whose, vec![(key, "SourceHidden"); times]);
    }
    // The rest is served.
    echo(&mut scene.connect(SERVICE, 53).unwrap(), &mut backend.accept());
    drop(other);
    let look = |scene: &mut Scene| {
        scene.rules.next_look = Instant::now();
        scene.rules.look(&scene.services, &mut scene.datapath).unwrap()
    };
    assert_eq!(look(&mut scene), None);
    assert!(!told(&scene).contains("30053/TCP"), "{}", told(&scene));
    echo(&mut scene.connect(NODE, 30053).unwrap(), &mut backend.accept());

    scene.command("ip route del 10.96.0.10 proto 87");
    assert_eq!(look(&mut scene).unwrap(), "1 ways to where Services are served");
    echo(&mut scene.connect(SERVICE, 53).unwrap(), &mut backend.accept());
    // A connection keeps what was there from going, and what takes its place from nothing.
    let (mut at_node, mut at_node_there) = (scene.connect(NODE, 30053).unwrap(), backend.accept());
    scene.command("ip link del podservices4");
    assert_eq!(look(&mut scene).unwrap(), "the link to where Services are served");
    echo(&mut scene.connect(SERVICE, 53).unwrap(), &mut backend.accept());
    echo(&mut scene.connect(NODE, 30053).unwrap(), &mut backend.accept());
    assert!(!told(&scene).contains("listens there"), "{}", told(&scene));
    assert_eq!(look(&mut scene), None);
    echo(&mut at_node, &mut at_node_there);
    // Nor is it taken for the one that serves.
    assert!(program::is_left(&scene.netns, Family::V4));
    scene.serve(&[]);
    let refused = scene.connect(NODE, 30053).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused, "what was there listens still");
}

#[test]
fn an_external_address_is_served_whether_the_node_has_it_or_not() {
    let mut scene = Scene::new("own");
    let backend = Backend::new(&scene, "10.0.0.1");
    scene.serve(&[backend.at]);
    assert!(scene.command("ip rule").contains("ipproto tcp dport 53"));
    echo(&mut scene.connect(EXTERNAL, 53).unwrap(), &mut backend.accept());
    let addr = format!("{EXTERNAL}/32");
    for (change, flags) in [("add", Some(0)), ("del", None)] {
        scene.command(&format!("ip addr {change} {addr} dev lo"));
        scene.rules.hear(&Notice::Address { device: 1, addr: addr.parse().unwrap(), flags });
        scene.rules.next_look = Instant::now();
        assert_eq!(scene.rules.look(&scene.services, &mut scene.datapath).unwrap(), None);
        echo(&mut scene.connect(EXTERNAL, 53).unwrap(), &mut backend.accept());
        assert_eq!(scene.command("ip rule").contains("dport 53"), flags.is_none(), "{change}");
    }
}

#[test]
fn datagrams_from_many_ports_keep_nobody_out() {
    let few = Some(8_192);
    setrlimit(Resource::Nofile, Rlimit { current: few, maximum: few }).unwrap();
    let mut scene = Scene::new("many");
    let backend = Backend::new(&scene, "10.0.0.1");
    scene.serve(&[backend.at]);
    // As many as the process has files for, and more.
    let flood = || {
        for _ in 0..3_000 {
            let client = UdpSocket::bind((NODE, 0)).unwrap();
            client.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
            client.send_to(b"?", (SERVICE, 53)).unwrap();
            let _ = client.recv(&mut [0; 64]);
        }
    };
    scene.netns.run(flood).unwrap();
    echo(&mut scene.connect(SERVICE, 53).unwrap(), &mut backend.accept());
    let client = scene.netns.run(|| UdpSocket::bind(("10.0.0.2", 0))).unwrap().unwrap();
    client.connect((SERVICE, 53)).unwrap();
    client.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    // Sooner than the others are over by themselves.
    let deadline = Instant::now() + Duration::from_secs(10);
    while client.send(b"?").and_then(|_| client.recv(&mut [0; 64])).is_err() {
        assert!(Instant::now() < deadline, "a client is kept out by those of another one");
    }
}
