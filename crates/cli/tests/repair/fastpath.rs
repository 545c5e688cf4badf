//! Connections between pods pass by the nodes' stacks, and live on through whatever happens to that.

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    process::Command,
    thread,
    time::Duration,
};

use podnet_kernel::{fastpath, netlink::RtSocket, netns::NetNs};
use podnet_testnet::{Cluster, eventually};

use crate::{
    PODNET, SOON,
    inside::{Inside, address, pod},
};

const PASSED: &str = "podnet_fastpath_packets_total ";
const ROUND_TRIPS: u64 = 300;

/// Pods: `near` and `here` on one node, `far` on another; `there` is a Service of `far`.
struct Scene {
    cluster: Cluster,
}

impl Scene {
    fn up() -> Self {
        let cluster = Cluster::up(PODNET, &["--nodes", "2"]);
        let service = "---\napiVersion: v1\nkind: Service\nmetadata: {name: there}\nspec: {selector: {app: far}, ports: [{port: 7000}]}\n";
        cluster.apply(&[&pod("near", "node1"), &pod("here", "node1"), &pod("far", "node2"), service].concat());
        cluster.await_ready(&["near", "here", "far"], SOON);
        Self { cluster }
    }

    fn inside(&self, pod: &str) -> NetNs {
        NetNs::open(format!("/run/netns/{}", Inside::pod(&address(&self.cluster, pod)).0)).unwrap()
    }

    /// A connection from `near` to who echoes in `to`, through `by` where it is another address.
    fn connect(&self, to: &str, by: Option<&str>) -> TcpStream {
        let addr: IpAddr = address(&self.cluster, to).parse().unwrap();
        let listener = self.inside(to).run(|| TcpListener::bind((addr, 7000))).unwrap().unwrap();
        thread::spawn(move || {
            let mut stream = listener.accept().unwrap().0;
            stream.set_nodelay(true).unwrap();
            let mut buffer = [0; 16];
            while stream.read_exact(&mut buffer).is_ok() {
                stream.write_all(&buffer).unwrap();
            }
        });
        let addr = by.map_or(addr, |by| by.parse().unwrap());
        let from = self.inside("near");
        let stream = eventually("a connection", SOON, || {
            from.run(|| TcpStream::connect_timeout(&SocketAddr::from((addr, 7000)), Duration::from_secs(2))).unwrap()
        });
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    /// How many packets pass by a node's stack while so many are sent and come back. There are others than ours, but few.
    fn passed(&self, node: &str, stream: &mut TcpStream) -> u64 {
        let node = Inside::node(node);
        let before = node.counter(PASSED);
        round_trips(stream);
        node.counter(PASSED) - before
    }

    /// Without waiting until what was proved has to be proved again, which takes up to 4 s.
    fn datagrams_follow_their_service(&self) {
        let service =
            "apiVersion: v1\nkind: Service\nmetadata: {name: turns}\nspec: {ports: [{port: 7001, protocol: UDP}]}\n";
        self.cluster.apply(service);
        for pod in ["here", "far"] {
            let socket = self.inside(pod).run(|| UdpSocket::bind("0.0.0.0:7001")).unwrap().unwrap();
            thread::spawn(move || {
                let mut buffer = [0; 16];
                while let Ok((_, from)) = socket.recv_from(&mut buffer) {
                    let _ = socket.send_to(pod.as_bytes(), from);
                }
            });
        }
        let addr = self.cluster.json(&["service", "turns"])["spec"]["clusterIP"].as_str().unwrap().to_owned();
        let client = self.inside("near").run(|| UdpSocket::bind("0.0.0.0:0")).unwrap().unwrap();
        client.connect(format!("{addr}:7001")).unwrap();
        client.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let answer = || {
            let mut buffer = [0; 16];
            client.send(b"?").unwrap();
            client.recv(&mut buffer).ok().map(|length| String::from_utf8_lossy(&buffer[..length]).into_owned())
        };
        for (turn, pod) in ["here", "far", "here", "far"].into_iter().enumerate() {
            let slice = format!(
                "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: turns, labels: {{kubernetes.io/service-name: turns}}}}\naddressType: IPv4\nports: [{{port: 7001, protocol: UDP}}]\nendpoints: [{{addresses: [{}]}}]\n",
                address(&self.cluster, pod)
            );
            self.cluster.apply(&slice);
            let patience = if turn == 0 { SOON } else { Duration::from_secs(2) };
            eventually(&format!("{pod} answers"), patience, || match answer() {
                Some(who) if who == pod => Ok(()),
                other => Err(format!("{other:?}")),
            });
            assert!((0..100).all(|_| answer().is_none_or(|who| who == pod)), "and nobody else does");
        }
    }

    fn await_passing(&self, what: &str, node: &str, stream: &mut TcpStream, passes: bool) {
        eventually(what, SOON, || match self.passed(node, stream) {
            passed if passes == (passed > ROUND_TRIPS) => Ok(()),
            passed => Err(format!("{passed} packets of {} passed\n{}", 2 * ROUND_TRIPS, self.cluster.logs())),
        });
    }
}

fn round_trips(stream: &mut TcpStream) {
    for number in 0..ROUND_TRIPS {
        let sent = [number as u8; 16];
        stream.write_all(&sent).unwrap();
        let mut came = [0; 16];
        stream.read_exact(&mut came).unwrap();
        assert_eq!(came, sent);
    }
}

#[test]
fn connections_between_pods_pass_by_the_stack_but_for_limited_pods_and_survive_the_agent() {
    let scene = Scene::up();
    let mut near = scene.connect("here", None);
    scene.await_passing("of one node", "node1", &mut near, true);
    let mut across = scene.connect("far", None);
    for node in ["node1", "node2"] {
        scene.await_passing("between nodes", node, &mut across, true);
    }
    let service = scene.cluster.json(&["service", "there"])["spec"]["clusterIP"].as_str().unwrap().to_owned();
    drop(across);
    let mut translated = scene.connect("far", Some(&service));
    scene.await_passing("translated as the stack does it", "node1", &mut translated, true);
    scene.datagrams_follow_their_service();

    // A limit that comes counts all packets of the pod, and one that goes lets them pass again.
    let annotate = |value: &str| {
        let annotation = format!("qos.projectcalico.org/ingressPacketRate{value}");
        scene.cluster.kubectl(&["annotate", "--overwrite", "pod", "here", &annotation]);
    };
    annotate("=100000");
    scene.await_passing("a limit", "node1", &mut near, false);
    annotate("-");
    scene.await_passing("no limit", "node1", &mut near, true);

    // What others take away harms nothing and comes back.
    let node = NetNs::open("/run/netns/podnet-node1").unwrap();
    let device = Inside::node("node1").must(&format!("ip -o route get {}", address(&scene.cluster, "here")));
    let device = device.split_whitespace().skip_while(|word| *word != "dev").nth(1).unwrap().to_owned();
    assert!(fastpath::detach(&mut RtSocket::open_in(&node).unwrap(), &device.as_str().into()).unwrap());
    round_trips(&mut near);
    scene.await_passing("put back", "node1", &mut near, true);

    // While the agent is away nothing changes; the next one takes over.
    let agent = scene.cluster.pid("node1-agent");
    let _ = Command::new("kill").args(["-KILL", &agent.to_string()]).status().unwrap();
    round_trips(&mut near);
    eventually("another agent", SOON, || Inside::node("node1").run("curl -sf 127.0.0.1:9099/readyz"));
    scene.await_passing("with another agent", "node1", &mut near, true);
    round_trips(&mut translated);
    let setting = Inside::node("node1").must("sysctl -n net.netfilter.nf_conntrack_tcp_be_liberal");
    assert_eq!(setting.trim(), "1");

    scene.cluster.kubectl(&["delete", "pod", "here", "--now"]);
    eventually("the connection of a pod that is gone ends or stands still", SOON, || {
        near.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        let _ = near.write_all(&[0; 16]);
        match near.read_exact(&mut [0; 16]) {
            Err(_) => Ok(()),
            Ok(()) => Err("it is answered"),
        }
    });
}
