//! In the virtual machine: this one's kernel may have no virtual servers.

mod configured;
mod damaged;
mod going;

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    process::{Command, Stdio},
};

use podnet_kernel::{datapath::KernelDatapath, ipvs::Ipvs};
use podnet_model::{
    Change, ClusterIp, Endpoint, EndpointSlice, NodeAddr, PodAddr, Protocol, Service, ServiceKey, ServicePort,
    SliceKey, TargetPort,
    endpoints::EndpointPort,
    service::{Port, ServiceKind},
};
use podnet_planner::{
    ipvs::{DEVICE, Element, Scheduling, Server, ServerKey},
    ruleset::{BackendAddress, FrontendKey},
    services::{ServicesConfig, ipvs::names},
};
use podnet_testnet::vm;

use super::*;

/// The schedulers that only some ask for, and what other modes' rules need.
const FURTHER: [&str; 10] = [
    "ip_vs_wrr",
    "ip_vs_lc",
    "ip_vs_wlc",
    "ip_vs_lblc",
    "ip_vs_lblcr",
    "ip_vs_sh",
    "ip_vs_dh",
    "ip_vs_sed",
    "ip_vs_nq",
    "xt_nat",
];

#[test]
fn virtual_servers_are_put_in_force_followed_mended_and_taken_away() {
    let modules = [&vm::VIRTUAL_SERVERS[..], &FURTHER].concat();
    let programs = [&vm::IPTABLES_LEGACY[..], &["ipvsadm"]].concat();
    vm::run_tests_with("with_virtual_servers", &modules, &programs);
}

/// A node with the address 10.0.0.1, which has the endpoints too.
struct Scene {
    path: PathBuf,
    netns: NetNs,
    datapath: KernelDatapath,
    services: Services,
    rules: InIpvs,
}

const NODE: [u8; 4] = [10, 0, 0, 1];
const CLUSTER_IP: [u8; 4] = [10, 96, 0, 1];

impl Scene {
    fn new(name: &str) -> Self {
        let path = PathBuf::from(format!("/run/netns/pntest-ipvs-{name}-{}", std::process::id()));
        NetNs::remove(&path).unwrap();
        let netns = NetNs::create(&path).unwrap();
        let datapath = KernelDatapath::open_in(&netns).unwrap();
        let services = Services::new(ServicesConfig::new(Family::V4, "node1".into(), vec![NodeAddr(NODE.into())]));
        let rules = InIpvs::new(&services);
        let scene = Self { path, netns, datapath, services, rules };
        scene.command("ip link set lo up");
        scene.command("ip addr add 10.0.0.1/32 dev lo");
        scene
    }

    fn command(&self, line: &str) -> String {
        let words: Vec<&str> = line.split(' ').collect();
        let output = self.netns.run(|| Command::new(words[0]).args(&words[1..]).output()).unwrap().unwrap();
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Rules of somebody else's.
    fn restore(&self, rules: &str) {
        let mut command = Command::new("iptables-legacy-restore");
        let run = || {
            let mut child = command.args(["-w", "5", "--noflush"]).stdin(Stdio::piped()).spawn()?;
            child.stdin.take().unwrap().write_all(rules.as_bytes())?;
            child.wait()
        };
        assert!(self.netns.run(run).unwrap().unwrap().success());
    }

    fn learn(&mut self, change: &Change) {
        let plan = self.services.apply(change);
        self.rules.learn(&self.services, &plan);
    }

    /// The Service at port 80, and its endpoints: this node at these ports.
    fn serve(&mut self, ports: &[u16]) {
        self.serve_at(NODE, ports);
    }

    /// The same with endpoints at another address.
    fn serve_at(&mut self, addr: [u8; 4], ports: &[u16]) {
        let service = service();
        let key = service.key.clone();
        self.learn(&Change::Service(key.clone(), Some(service)));
        for number in 8080..8082 {
            let endpoint = Endpoint { node: Some("node1".into()), ..Endpoint::new(PodAddr(addr.into())) };
            let port = EndpointPort { name: "".into(), protocol: Protocol::Tcp, port: TargetPort(number) };
            let name = SliceKey::new("default", &format!("web-{number}"));
            let slice = EndpointSlice {
                key: name.clone(),
                service: key.clone(),
                ports: vec![port],
                endpoints: vec![endpoint],
                unproxied: false,
                triggered: None,
            };
            self.learn(&Change::Slice(name, ports.contains(&number).then_some(slice)));
        }
        self.edit();
    }

    /// The Service as it is from now on.
    fn change(&mut self, service: Option<Service>) {
        self.learn(&Change::Service(self::service().key, service));
        self.edit();
    }

    /// As an agent does that starts.
    fn start_anew(&mut self) {
        self.rules = InIpvs::new(&self.services);
        self.edit();
    }

    fn edit(&mut self) -> usize {
        self.rules.edit(&self.services, &mut self.datapath).unwrap()
    }

    /// Time is not waited for.
    fn look(&mut self) -> Option<String> {
        self.rules.watch.next_look = Instant::now();
        self.rules.watch.next_servers = Instant::now();
        self.rules.look(&self.services, &mut self.datapath).unwrap()
    }

    fn read(&self) -> State {
        Ipvs::open(&self.netns, Family::V4).unwrap().read(&names(Family::V4)).unwrap()
    }

    /// Without the comments, which tell the time.
    fn chains(&self) -> String {
        let saved = self.command("iptables-legacy-save");
        saved.lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}\n")).collect()
    }

    fn take_away(&mut self) {
        self.rules.take_away(&mut self.datapath).unwrap();
    }

    fn listen(&self, port: u16) -> TcpListener {
        self.netns.run(|| TcpListener::bind(SocketAddr::from((NODE, port)))).unwrap().unwrap()
    }

    fn connect(&self) -> std::io::Result<TcpStream> {
        connect(&self.netns, SocketAddr::from((CLUSTER_IP, 80)))
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = NetNs::remove(&self.path);
    }
}

fn connect(netns: &NetNs, to: SocketAddr) -> std::io::Result<TcpStream> {
    netns.run(|| TcpStream::connect_timeout(&to, Duration::from_secs(10))).unwrap()
}

fn service() -> Service {
    let port = Port { name: "".into(), protocol: Protocol::Tcp, port: ServicePort(80), node_port: None };
    let kind = ServiceKind::Virtual { cluster_ips: vec![ClusterIp(CLUSTER_IP.into())] };
    Service::new(ServiceKey::new("default", "web"), kind, vec![port])
}

fn key() -> ServerKey {
    ServerKey::Address(FrontendKey { addr: CLUSTER_IP.into(), protocol: Protocol::Tcp, port: 80 })
}

fn real(port: u16) -> BackendAddress {
    BackendAddress { addr: NODE.into(), port }
}

#[test]
#[ignore = "runs in the virtual machine"]
fn with_virtual_servers_changes_follow_and_all_goes_with_the_mode() {
    let mut scene = Scene::new("follow");
    scene.serve(&[8080, 8081]);
    assert!(scene.rules.in_force());
    assert_eq!(scene.read(), *scene.rules.renderer.state());
    assert_eq!(scene.read().servers[&key()].reals, [(real(8080), 1), (real(8081), 1)].into());
    assert_eq!(scene.look(), None);
    // Others' are left alone.
    let foreign = FrontendKey { addr: NODE.into(), protocol: Protocol::Tcp, port: 5353 };
    let foreign = ServerKey::Address(foreign);
    let scheduling = scene.read().servers[&key()].scheduling;
    let theirs = Server { scheduling, reals: [(real(53), 1)].into() };
    let make = [Edit::AddServer(foreign, scheduling), Edit::AddReal(foreign, real(53), 1)];
    Ipvs::open(&scene.netns, Family::V4).unwrap().apply(&make).unwrap();
    assert_eq!(scene.look(), None);

    let config = IpvsConfig { scheduler: "mh", ..IpvsConfig::default() };
    scene.rules.configure(&scene.services, &config);
    scene.edit();
    assert_eq!(scene.read().servers[&key()].scheduling.scheduler, Scheduler::Maglev);
    scene.take_away();
    let left = scene.read();
    assert_eq!(left.servers, [(foreign, theirs)].into());
    assert!(left.addrs.is_empty() && left.sets.is_empty(), "{left:?}");
    assert!(!scene.command("ip link").contains(DEVICE));
    assert!(!scene.chains().contains("KUBE-"));
    assert!(!scene.command("ip rule").contains("fwmark"));
}

#[test]
#[ignore = "runs in the virtual machine"]
fn with_virtual_servers_a_connection_outlives_its_endpoints_leave() {
    let mut scene = Scene::new("drain");
    let config = IpvsConfig { tcp_fin_timeout: Some(Duration::from_secs(1)), ..IpvsConfig::default() };
    scene.rules.configure(&scene.services, &config);
    scene.serve(&[8080]);
    let listener = scene.listen(8080);
    let mut client = scene.connect().unwrap();
    let (server, _) = listener.accept().unwrap();
    server.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let speaks = |client: &mut TcpStream| {
        client.write_all(b"more").unwrap();
        let mut heard = [0; 4];
        (&server).read_exact(&mut heard).unwrap();
        heard == *b"more"
    };
    assert!(speaks(&mut client));
    // The kernel tracks connections while any rule asks for it: another mode's do.
    scene.restore("*nat\n-A POSTROUTING -m conntrack --ctstate INVALID -j RETURN\nCOMMIT\n");
    scene.take_away();
    assert!(scene.rules.lingers() && !scene.chains().contains("KUBE-"));
    assert!(speaks(&mut client));
    scene.edit();
    assert!(scene.rules.in_force());
    scene.serve(&[]);
    assert_eq!(scene.read().servers[&key()].reals, [(real(8080), 0)].into());
    assert!(speaks(&mut client));
    assert!(scene.connect().is_err());
    // As an agent does that starts.
    scene.rules = InIpvs::new(&scene.services);
    scene.rules.configure(&scene.services, &config);
    scene.edit();
    assert!(speaks(&mut client));
    scene.rules.watch.next_drain = Instant::now();
    scene.look();
    assert!(speaks(&mut client));
    // An endpoint that comes back is one again.
    scene.serve(&[8080]);
    assert_eq!(scene.read().servers[&key()].reals, [(real(8080), 1)].into());
    scene.serve(&[]);
    // One that ends in peace is remembered for two minutes, one that is reset for ten seconds: who closes what was not read resets.
    client.write_all(b"more").unwrap();
    server.peek(&mut [0]).unwrap();
    drop((server, client));
    let deadline = Instant::now() + Duration::from_secs(60);
    while !scene.read().servers.is_empty() {
        assert!(Instant::now() < deadline, "{:?}", scene.read().servers);
        std::thread::sleep(Duration::from_millis(100));
        scene.rules.watch.next_drain = Instant::now();
        scene.look();
    }
    assert_eq!(scene.read(), *scene.rules.renderer.state());
}

#[test]
#[ignore = "runs in the virtual machine"]
fn with_virtual_servers_an_endpoint_at_a_broadcast_address_keeps_nothing_else_back() {
    let mut scene = Scene::new("odd");
    scene.command("ip addr add 10.255.0.1/24 brd 10.255.0.255 dev lo");
    // Linux has the broadcast address of a loopback's subnet where it is given.
    assert!(scene.command("ip route show table local").contains("broadcast 10.255.0.255"));
    scene.serve_at([10, 255, 0, 255], &[8080]);
    assert!(scene.rules.in_force());
    assert!(scene.read().addrs.contains(&CLUSTER_IP.into()) && scene.chains().contains("KUBE-SERVICES"));
    let told = |scene: &Scene| scene.rules.unserved().into_iter().map(|one| one.message).collect::<String>();
    assert!(told(&scene).contains("endpoint 10.255.0.255:8080 gets no connections"), "{}", told(&scene));
    assert_eq!(scene.look(), None, "nothing was damaged");
    assert!(told(&scene).contains("10.255.0.255:8080"));
    // It goes as if it had been there; a real server that somebody removed before it went, too.
    scene.serve(&[8080, 8081]);
    assert_eq!((told(&scene), scene.read()), (String::new(), scene.rules.renderer.state().clone()));
    let removed = [Edit::RemoveReal(key(), real(8081))];
    Ipvs::open(&scene.netns, Family::V4).unwrap().apply(&removed).unwrap();
    scene.serve(&[8080]);
    assert!(scene.rules.in_force());
    assert_eq!(scene.read().servers[&key()].reals, [(real(8080), 1)].into());
    // One that is to get connections once more, and was removed meanwhile, is made.
    let mut kernel = Ipvs::open(&scene.netns, Family::V4).unwrap();
    assert_eq!(kernel.apply(&[Edit::Weigh(key(), real(8081), 1)]).unwrap(), []);
    assert_eq!(scene.read().servers[&key()].reals, [(real(8080), 1), (real(8081), 1)].into());
}

#[test]
#[ignore = "runs in the virtual machine"]
fn with_virtual_servers_what_lingers_tells_where_it_is_and_there_is_none_at_what_is_left_to_rules() {
    let mut scene = Scene::new("left");
    scene.serve(&[8080]);
    let listener = scene.listen(8080);
    let client = scene.connect().unwrap();
    let _server = listener.accept().unwrap();
    let addrs = BTreeSet::from([IpAddr::from(CLUSTER_IP)]);
    assert_eq!(scene.rules.held(), BTreeSet::new(), "the mode is not left");
    scene.take_away();
    assert_eq!((scene.rules.held(), scene.rules.lingers()), (addrs.clone(), true));
    assert_eq!(scene.read().servers[&key()].reals, [(real(8080), 0)].into(), "nothing new comes there");
    drop(client);
    scene.command("ipvsadm -C");
    scene.take_away();
    assert_eq!((scene.rules.held(), scene.rules.lingers()), (BTreeSet::new(), false));

    scene.rules.leave_to_rules(&scene.services, &addrs);
    scene.edit();
    let there = scene.read();
    assert!(scene.rules.in_force() && there.servers.is_empty() && there.addrs.is_empty(), "{there:?}");
    // Other settings change nothing of that.
    scene.rules.configure(&scene.services, &IpvsConfig { scheduler: "mh", ..IpvsConfig::default() });
    scene.edit();
    assert_eq!(scene.read(), there);
    scene.rules.leave_to_rules(&scene.services, &BTreeSet::new());
    assert_eq!(scene.read(), there, "with the next edits");
    scene.edit();
    assert_eq!(scene.read(), *scene.rules.renderer.state());
    assert_eq!(scene.read().servers[&key()].reals, [(real(8080), 1)].into());
    assert_eq!(scene.look(), None, "nothing was damaged");
}
