//! Mode `ebpf`: connections of pods to Services are opened to a backend at the socket, whatever happens to agents, programs and endpoints.

use std::{
    io::{ErrorKind, Read, Write},
    net::{IpAddr, TcpListener, TcpStream},
    process::{Child, Stdio},
    time::Duration,
};

use podnet_kernel::{cgroup::Cgroup, netns::NetNs, sockets};
use podnet_testnet::{Cluster, eventually};

use crate::{
    PODNET, SOON,
    inside::{Inside, address, pod},
};

/// Pods `client` and `near` on one node, `far` on the other; the Service `web` of both, and Services without endpoints and with endpoints that
/// the test names.
struct Scene {
    cluster: Cluster,
}

/// Whoever has lost its backend is cut off within that time: an agent that does not know of any endpoint of the Service looks for 3 s whether one
/// comes, and lists connections each second. A machine that is slower by a factor of three is in time as well.
const CUT_OFF: Duration = Duration::from_secs(12);

const SERVICES: &str = "---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {type: NodePort, ipFamilyPolicy: PreferDualStack, selector: {web: yes}, ports: [{port: 80, nodePort: 30080}]}
---
apiVersion: v1
kind: Service
metadata: {name: none}
spec: {selector: {app: nobody}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: named}
spec: {ports: [{port: 7000}]}
";

impl Scene {
    fn up() -> Self {
        let cluster = Cluster::up(PODNET, &["--nodes", "2", "--ip-family", "dual", "--proxy-mode", "ebpf"]);
        let web = |name: &str, node: &str| pod(name, node).replace("app: ", "web: \"yes\", app: ");
        let services = SERVICES.replace("web: yes", "web: \"yes\"");
        cluster
            .apply(&[&pod("client", "node1"), &web("near", "node1"), &web("far", "node2"), services.as_str()].concat());
        cluster.await_ready(&["client", "near", "far"], SOON);
        Self { cluster }
    }

    fn name_endpoint(&self, addr: Option<&str>) {
        let endpoints = addr.map_or("[]".into(), |addr| format!("[{{addresses: [\"{addr}\"]}}]"));
        self.cluster.apply(&format!(
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: named-1, labels: {{kubernetes.io/service-name: named}}}}\naddressType: IPv4\nports: [{{port: 7000}}]\nendpoints: {endpoints}\n"
        ));
    }

    fn ips(&self, service: &str) -> Vec<String> {
        let service = self.cluster.json(&["service", service]);
        let ips = service["spec"]["clusterIPs"].as_array().unwrap();
        ips.iter().map(|ip| ip.as_str().unwrap().to_owned()).collect()
    }

    fn shell(&self, command: &str) -> Result<String, String> {
        self.cluster.exec("default", "client", &["bash", "-c", command])
    }

    /// Where the packets of a connection of the client's go, as its namespace sees them.
    fn goes_to(&self, host: &str, port: u16) -> Result<String, String> {
        let command =
            format!("exec 3<>/dev/tcp/{host}/{port} && ss -tnH state established '( dport != :0 )' && exec 3<&-");
        self.shell(&command)
    }

    /// Has Services served in another mode, and waits for what connections to `web` then look like.
    fn await_mode(&self, mode: &str, looks: impl Fn(&str) -> bool) {
        let map = self.cluster.kubectl(&["get", "configmap", "-n", "kube-system", "kube-proxy", "-o", "yaml"]);
        let is_mode = |line: &&str| line.trim_start().starts_with("mode: ");
        let former = map.lines().find(is_mode).unwrap().trim();
        self.cluster.apply(&map.replace(former, &format!("mode: {mode}")));
        let front = &self.ips("web")[0];
        eventually(&format!("mode {mode}"), SOON, || {
            let seen = self.goes_to(front, 80)?;
            if looks(&seen) { Ok(()) } else { Err(seen) }
        });
    }

    /// A client that is connected to the Service `named`, and says how that ends.
    fn stay(&self) -> Child {
        let ip = &self.ips("named")[0];
        let command = format!("exec 3<>/dev/tcp/{ip}/7000; timeout 120 cat <&3; echo \"ended $?\"");
        let mut kubectl = self.cluster.kubectl_command(&["exec", "client", "--", "bash", "-c", &command]);
        kubectl.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    fn listen(&self, pod: &str) -> TcpListener {
        let addr = address(&self.cluster, pod);
        let netns = NetNs::open(format!("/run/netns/{}", Inside::pod(&addr).0)).unwrap();
        let addr: IpAddr = addr.parse().unwrap();
        netns.run(|| TcpListener::bind((addr, 7000))).unwrap().unwrap()
    }
}

fn accept(listener: &TcpListener) -> TcpStream {
    listener.set_nonblocking(true).unwrap();
    eventually("a connection", SOON, || listener.accept().map(|(stream, _)| stream))
}

#[test]
fn pods_reach_services_at_the_socket_and_go_on_whatever_happens() {
    let scene = Scene::up();
    let cluster = &scene.cluster;
    let status = cluster.json(&["pods", "-l", "web=yes"]);
    let pods: Vec<String> = status["items"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|pod| pod["status"]["podIPs"].as_array().unwrap())
        .map(|ip| ip["ip"].as_str().unwrap().to_owned())
        .collect();
    // The connection's packets bear the pod's address, of either family, and no rule translates any.
    let node = cluster.json(&["node", "node1"])["status"]["addresses"][0]["address"].as_str().unwrap().to_owned();
    let fronts = scene.ips("web").into_iter().map(|ip| (ip, 80)).chain([(node, 30080)]);
    for (front, port) in fronts {
        let seen = eventually("a connection at the socket", SOON, || {
            let seen = scene.goes_to(&front, port)?;
            if seen.contains(&front) { Err(seen) } else { Ok(seen) }
        });
        assert!(pods.iter().any(|pod| seen.contains(pod.as_str())), "{front}: {seen} is none of {pods:?}");
    }
    assert!(scene.shell("curl -sS --max-time 5 http://web/").unwrap().contains("ServerName"), "by name, so by UDP too");
    let error = scene.shell(&format!("curl -sS --max-time 5 http://{}/", scene.ips("none")[0])).unwrap_err();
    assert!(error.contains("code 7"), "refused at once: {error}");

    // From the node's shell, which the programs do not know, so by rules: whichever pod it is, the answers come back.
    for loopback in ["127.0.0.1", "[::1]"] {
        let asks = format!("seq 8 | xargs -I_ curl -g -sSf -o /dev/null --max-time 5 http://{loopback}:30080/");
        eventually("the NodePort at the loopback", SOON, || Inside::node("node1").run(&asks));
    }

    // A backend that nobody names any more: who is connected to it stays so as long as it lives.
    let listener = scene.listen("far");
    scene.name_endpoint(Some(&address(cluster, "far")));
    let ready = || scene.goes_to(&scene.ips("named")[0], 7000);
    eventually("the endpoint", SOON, ready);
    drop(accept(&listener));
    let lasting = scene.stay();
    let held = accept(&listener);
    // An agent that is killed leaves the programs, and another one takes over.
    let agent = cluster.pid("node1-agent");
    rustix::process::kill_process(rustix::process::Pid::from_raw(agent).unwrap(), rustix::process::Signal::KILL)
        .unwrap();
    assert!(scene.goes_to(&scene.ips("web")[0], 80).unwrap().contains(":80"), "without an agent");
    eventually("another agent", SOON, || {
        let health = Inside::node("node1").run("curl -sf 127.0.0.1:9099/readyz || curl -sf 127.0.0.1:9099/healthz");
        health.and_then(|_| if cluster.pid("node1-agent") == agent { Err("the old one".to_owned()) } else { Ok(()) })
    });
    scene.name_endpoint(None);
    eventually("nobody else is led there", SOON, || match ready() {
        Ok(seen) => {
            drop(accept(&listener));
            Err(seen)
        }
        Err(_) => Ok(()),
    });
    held.set_read_timeout(Some(CUT_OFF)).unwrap();
    let cut_off = (&held).read(&mut [0]);
    let is_left_alone = cut_off.as_ref().is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
    // What comes of it is said.
    let _ = (&held).write_all(b"still here\n");
    drop(held);
    let heard = said(lasting);
    assert!(
        is_left_alone && heard.contains("still here") && heard.contains("ended 0"),
        "cut off though the pod lives: {cut_off:?}, {heard}\n{}",
        cluster.logs()
    );

    // Programs that somebody takes away come back.
    let group = Cgroup::v2("podnet/node1").unwrap();
    assert!(sockets::detach(&group, true).unwrap());
    let front = &scene.ips("web")[0];
    assert!(scene.shell(&format!("curl -sS --max-time 5 http://{front}/")).is_ok(), "the rules serve meanwhile");
    eventually("programs are put back", Duration::from_secs(10), || {
        let seen = scene.goes_to(front, 80)?;
        if seen.contains(front.as_str()) { Err(seen) } else { Ok(()) }
    });

    // Another mode, and back: who is connected does not notice.
    scene.name_endpoint(Some(&address(cluster, "far")));
    eventually("the endpoint", SOON, ready);
    drop(accept(&listener));
    let lasting = scene.stay();
    let held = accept(&listener);
    scene.await_mode("nftables", |seen| seen.contains(front.as_str()));
    scene.await_mode("ebpf", |seen| !seen.contains(front.as_str()));
    (&held).write_all(b"still here\n").unwrap();
    drop(held);
    let heard = said(lasting);
    assert!(heard.contains("still here") && heard.contains("ended 0"), "{heard}\n{}", cluster.logs());

    // A backend that is gone: who is connected to it learns it, though nothing of it answers.
    let lasting = scene.stay();
    let held = accept(&listener);
    scene.name_endpoint(None);
    cluster.kubectl(&["delete", "pod", "far", "--force", "--grace-period=0"]);
    let heard = said(lasting);
    assert!(
        heard.contains("Software caused connection abort") && heard.contains("ended 1"),
        "{heard}\n{}",
        cluster.logs()
    );
    drop(held);
}

/// All that it said until its end.
fn said(client: Child) -> String {
    let output = client.wait_with_output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}
