//! Connections of what goes: of Services that are removed, of frontends that change, of the mode.

use std::net::UdpSocket;

use podnet_model::{NodePort, service::TrafficPolicy};

use super::*;

const EXTERNAL: [u8; 4] = [203, 0, 113, 7];

/// A connection between a client and the endpoint, which hears what the client says.
struct Talk {
    client: TcpStream,
    server: TcpStream,
}

impl Talk {
    fn new(client: TcpStream, listener: &TcpListener) -> Self {
        let (server, _) = listener.accept().unwrap();
        server.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        Self { client, server }
    }

    fn goes_on(&mut self) -> bool {
        let mut heard = [0; 4];
        self.client.write_all(b"more").is_ok() && self.server.read_exact(&mut heard).is_ok() && heard == *b"more"
    }
}

impl Scene {
    /// The Service at a NodePort and an external address too.
    fn serve_outside(&mut self, policy: TrafficPolicy) {
        let mut service = service();
        service.external_ips = vec![EXTERNAL.into()];
        service.ports[0].node_port = Some(NodePort(30080));
        service.external_policy = policy;
        self.change(Some(service));
    }

    /// A host from which the node is asked for everything.
    fn client(&self, name: &str) -> Client {
        let path = PathBuf::from(format!("/run/netns/pntest-ipvs-{name}-{}", std::process::id()));
        NetNs::remove(&path).unwrap();
        let client = Client { netns: NetNs::create(&path).unwrap(), path };
        let file = client.path.file_name().unwrap().to_str().unwrap().to_owned();
        self.command(&format!("ip link add outside type veth peer name node netns {file}"));
        self.command("ip addr add 10.9.0.1/24 dev outside");
        self.command("ip link set outside up");
        for line in ["addr add 10.9.0.2/24 dev node", "link set node up", "route add default via 10.9.0.1"] {
            self.command(&format!("ip -n {file} {line}"));
        }
        // What the node has no address for it would send on, to nobody.
        self.command("ip route add default via 10.9.0.2");
        podnet_kernel::sysctl::set(&self.netns, "net.ipv4.ip_forward", "1").unwrap();
        client
    }

    /// A host beyond this node, which has an endpoint.
    fn server(&self, name: &str) -> Client {
        let path = PathBuf::from(format!("/run/netns/pntest-ipvs-{name}-{}", std::process::id()));
        NetNs::remove(&path).unwrap();
        let server = Client { netns: NetNs::create(&path).unwrap(), path };
        let file = server.path.file_name().unwrap().to_str().unwrap().to_owned();
        self.command(&format!("ip link add inside type veth peer name pod netns {file}"));
        self.command("ip addr add 10.8.0.1/24 dev inside");
        self.command("ip link set inside up");
        for line in ["addr add 10.8.0.2/24 dev pod", "link set pod up", "route add default via 10.8.0.1"] {
            self.command(&format!("ip -n {file} {line}"));
        }
        server
    }

    /// As if what goes had been waited for a quarter of an hour.
    fn wait_long(&mut self) {
        let began = self.rules.began.checked_sub(Duration::from_secs(16 * 60)).unwrap();
        self.rules.began = began;
        self.rules.watch.next_drain = Instant::now();
        self.look();
    }
}

struct Client {
    path: PathBuf,
    netns: NetNs,
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = NetNs::remove(&self.path);
    }
}

#[test]
#[ignore = "runs in the virtual machine"]
fn with_virtual_servers_connections_outlive_their_service() {
    let mut scene = Scene::new("service");
    let client = scene.client("service-client");
    scene.serve(&[8080]);
    scene.serve_outside(TrafficPolicy::Cluster);
    let listener = scene.listen(8080);
    let external = SocketAddr::from((EXTERNAL, 80));
    let mut talks = [
        Talk::new(scene.connect().unwrap(), &listener),
        Talk::new(connect(&client.netns, external).unwrap(), &listener),
    ];
    assert!(talks.iter_mut().all(Talk::goes_on));
    scene.change(None);
    assert!(scene.read().addrs.contains(&CLUSTER_IP.into()));
    assert!(talks.iter_mut().all(Talk::goes_on));
    assert!(scene.connect().is_err());
    assert_eq!(scene.look(), None, "nothing was damaged");
    scene.start_anew();
    assert!(talks.iter_mut().all(Talk::goes_on));
    // It may come back meanwhile.
    scene.change(Some(service()));
    let mut next = Talk::new(scene.connect().unwrap(), &listener);
    assert!(next.goes_on() && talks.iter_mut().all(Talk::goes_on));
    scene.change(None);
    assert!(talks.iter_mut().all(Talk::goes_on));
    scene.wait_long();
    assert_eq!(scene.read(), *scene.rules.renderer.state());
    assert!(!scene.command("ip rule").contains("tcp"), "{}", scene.command("ip rule"));
}

#[test]
#[ignore = "runs in the virtual machine"]
fn with_virtual_servers_connections_of_this_nodes_outlive_the_policy_local() {
    let mut scene = Scene::new("policy");
    scene.serve(&[8080]);
    scene.serve_outside(TrafficPolicy::Local);
    let listener = scene.listen(8080);
    let mut talk = Talk::new(connect(&scene.netns, SocketAddr::from((NODE, 30080))).unwrap(), &listener);
    assert!(talk.goes_on());
    let marked = |scene: &Scene| {
        let key = |(key, server): (ServerKey, Server)| matches!(key, ServerKey::Mark(_)).then_some((key, server.reals));
        scene.read().servers.into_iter().filter_map(key).collect::<Vec<_>>()
    };
    assert_eq!(marked(&scene).len(), 2, "of the NodePort and of the external address");
    scene.serve_outside(TrafficPolicy::Cluster);
    assert!(talk.goes_on());
    assert!(marked(&scene).iter().all(|(_, reals)| *reals == [(real(8080), 0)].into()));
    // New ones have the frontend's virtual server for everybody; who starts knows the one of the mark as its own.
    assert!(Talk::new(connect(&scene.netns, SocketAddr::from((NODE, 30080))).unwrap(), &listener).goes_on());
    scene.start_anew();
    assert!(talk.goes_on() && marked(&scene).len() == 2);
    scene.rules.watch.next_drain = Instant::now();
    scene.look();
    assert_eq!(marked(&scene).len(), 1, "that of the connection");
    scene.wait_long();
    assert_eq!(scene.read(), *scene.rules.renderer.state());
}

#[test]
#[ignore = "runs in the virtual machine"]
fn with_virtual_servers_connections_from_outside_outlive_the_mode() {
    let mut scene = Scene::new("outside");
    let client = scene.client("outside-client");
    scene.serve(&[8080]);
    scene.serve_outside(TrafficPolicy::Cluster);
    let listener = scene.listen(8080);
    let external = SocketAddr::from((EXTERNAL, 80));
    let mut talk = Talk::new(connect(&client.netns, external).unwrap(), &listener);
    // The mode that comes: its translation is for new ones.
    let other = "*nat\n-A PREROUTING -d 203.0.113.7 -p tcp --dport 80 -j DNAT --to-destination 10.0.0.1:8081\nCOMMIT\n";
    scene.restore(other);
    for _ in 0..2 {
        scene.take_away();
        assert!(scene.rules.lingers() && !scene.chains().contains("KUBE-"));
        assert!(talk.goes_on());
    }
    let others = scene.listen(8081);
    assert!(Talk::new(connect(&client.netns, external).unwrap(), &others).goes_on());
    scene.edit();
    assert!(scene.rules.in_force() && talk.goes_on());
    assert!(!scene.command("ip rule").contains("tcp"));
    scene.take_away();
    assert!(talk.goes_on());
    // Its connection is over. By itself it would be remembered for some minutes yet.
    scene.command("ipvsadm -C");
    scene.take_away();
    assert!(!scene.rules.lingers());
    assert_eq!(scene.read(), State::default());
    assert!(!scene.command("ip rule").contains("28783"));
}

#[test]
#[ignore = "runs in the virtual machine"]
fn with_virtual_servers_what_lingers_goes_with_its_service_and_the_rest_stays() {
    let mut scene = Scene::new("withdrawn");
    let client = scene.client("withdrawn-client");
    scene.serve(&[8080]);
    scene.serve_outside(TrafficPolicy::Cluster);
    let listener = scene.listen(8080);
    let external = SocketAddr::from((EXTERNAL, 80));
    let mut talk = Talk::new(scene.connect().unwrap(), &listener);
    let mut outer = Talk::new(connect(&client.netns, external).unwrap(), &listener);
    // The kernel tracks connections while any rule asks for it: another mode's do.
    scene.restore("*nat\n-A POSTROUTING -m conntrack --ctstate INVALID -j RETURN\nCOMMIT\n");
    scene.take_away();
    assert!(talk.goes_on() && outer.goes_on());
    let before = scene.read();
    assert_eq!(before.servers.len(), 2);
    scene.rules.withdraw(&|_| true, &mut scene.datapath).unwrap();
    assert_eq!(scene.read(), before, "all are served");

    scene.rules.withdraw(&|frontend| frontend.addr != external.ip(), &mut scene.datapath).unwrap();
    let left = scene.read();
    assert_eq!(left.servers.keys().collect::<Vec<_>>(), [&key()]);
    assert!(left.addrs.contains(&CLUSTER_IP.into()) && !scene.command("ip rule").contains("tcp"));
    assert!(scene.rules.lingers() && talk.goes_on());
    scene.rules.withdraw(&|_| false, &mut scene.datapath).unwrap();
    assert!(!scene.rules.lingers());
    assert_eq!(scene.rules.remembered(), [(Protocol::Tcp, real(8080))].into(), "the kernel forgets later");
    assert_eq!(scene.read(), State::default());
    assert!(!scene.command("ip link").contains(DEVICE));
}

#[test]
#[ignore = "runs in the virtual machine"]
fn with_virtual_servers_what_lingers_of_a_family_that_nobody_needs_is_looked_at_when_it_is_due() {
    let mut scene = Scene::new("six");
    scene.services = Services::new(ServicesConfig::new(Family::V6, "node1".into(), Vec::new()));
    scene.rules = InIpvs::new(&scene.services);
    scene.edit();
    assert_eq!((scene.rules.may_be_there(), scene.rules.due()), (false, None), "nothing is there");
    scene.command(&format!("ip link add {DEVICE} type dummy"));
    scene.command(&format!("ip addr add fd00::1/128 dev {DEVICE} nodad"));
    let is_there = |scene: &Scene| scene.command("ip link").contains(DEVICE);
    let again = Instant::now() + Duration::from_secs(60);
    scene.rules.lingers = Some(again);
    scene.rules.may_be_there = true;
    scene.edit();
    assert!(is_there(&scene) && scene.rules.due() == Some(again), "a change of the cluster is no reason to look");
    scene.rules.lingers = Some(Instant::now());
    scene.look();
    assert!(!is_there(&scene));
    assert_eq!((scene.rules.may_be_there(), scene.rules.due()), (false, None));
}

#[test]
#[ignore = "runs in the virtual machine"]
fn with_virtual_servers_a_port_that_they_remember_does_not_reach_the_endpoint_itself() {
    let mut scene = Scene::new("port");
    let (client, server) = (scene.client("port-client"), scene.server("port-server"));
    // A client has but one port for all that it connects to.
    podnet_kernel::sysctl::set(&client.netns, "net.ipv4.ip_local_port_range", "40000 40000").unwrap();
    let endpoint = SocketAddr::from(([10, 8, 0, 2], 8080));
    scene.serve_at([10, 8, 0, 2], &[8080]);
    let listener = server.netns.run(|| TcpListener::bind(endpoint)).unwrap().unwrap();
    let mut talk = Talk::new(connect(&client.netns, SocketAddr::from((CLUSTER_IP, 80))).unwrap(), &listener);
    assert!(talk.goes_on());
    let other = "*nat\n-A PREROUTING -d 10.96.0.1 -p tcp --dport 80 -j DNAT --to-destination 10.8.0.2:8080\nCOMMIT\n";
    scene.restore(other);
    scene.take_away();
    assert!(scene.rules.lingers() && talk.goes_on());
    let backend = BackendAddress { addr: endpoint.ip(), port: endpoint.port() };
    assert_eq!(scene.rules.remembered(), [(Protocol::Tcp, backend)].into());
    // The kernel takes the endpoint's answers for those of the connection that it remembers.
    let direct = || client.netns.run(|| TcpStream::connect_timeout(&endpoint, Duration::from_secs(3))).unwrap();
    assert!(direct().is_err());
    drop(talk);
    assert!(direct().is_err());
    // What rules translate is not hurt.
    let again = connect(&client.netns, SocketAddr::from((CLUSTER_IP, 80)));
    assert!(again.is_ok(), "{again:?}");
    // Nor is what comes from a port that they do not remember.
    podnet_kernel::sysctl::set(&client.netns, "net.ipv4.ip_local_port_range", "40001 40001").unwrap();
    let unremembered = direct();
    assert!(unremembered.is_ok(), "{unremembered:?}");
}

#[test]
#[ignore = "runs in the virtual machine"]
fn with_virtual_servers_what_the_kernel_remembers_of_datagrams_is_known_also_where_not_all_can_go() {
    let mut scene = Scene::new("in-use");
    let mut service = service();
    service.ports[0].protocol = Protocol::Udp;
    let name = SliceKey::new("default", "web-udp");
    let slice = EndpointSlice {
        key: name.clone(),
        service: service.key.clone(),
        ports: vec![EndpointPort { name: "".into(), protocol: Protocol::Udp, port: TargetPort(8080) }],
        endpoints: vec![Endpoint { node: Some("node1".into()), ..Endpoint::new(PodAddr(NODE.into())) }],
        unproxied: false,
        triggered: None,
    };
    scene.learn(&Change::Slice(name, Some(slice)));
    scene.change(Some(service));
    let ask = || {
        let socket = UdpSocket::bind(SocketAddr::from((NODE, 0)))?;
        socket.send_to(b"more", SocketAddr::from((CLUSTER_IP, 80)))
    };
    assert_eq!(scene.netns.run(ask).unwrap().unwrap(), 4);
    // Somebody else's rule asks a set of podnet's: the kernel keeps it.
    scene.restore("*filter\n-A INPUT -m set --match-set KUBE-CLUSTER-IP dst,dst -j ACCEPT\nCOMMIT\n");
    assert!(scene.rules.take_away(&mut scene.datapath).is_err());
    assert_eq!(scene.read().servers, State::default().servers);
    let remembered = Remembered::from([(Protocol::Udp, real(8080))]);
    assert_eq!(scene.rules.remembered(), remembered);
    scene.restore("*filter\n-F INPUT\nCOMMIT\n");
    scene.take_away();
    assert_eq!(scene.read(), State::default());
    assert_eq!((scene.rules.lingers(), scene.rules.remembered()), (false, remembered));
}
