//! An agent is killed while a capture follows it.

use std::{
    net::{SocketAddr, TcpStream},
    os::unix::fs::MetadataExt,
    path::PathBuf,
};

use podnet_kernel::netns::NetNs;
use podnet_testnet::{Cluster, eventually};
use rustix::process::{Pid, Signal, kill_process};

use crate::{SOON, lines};

/// What the kernel counts stays as an agent is killed: what lives on, and what comes and goes until there is another one, is in a capture once, with a gap
/// for what the killed one may have read and not told.
pub(crate) fn tells_each_flow_once(cluster: &Cluster) {
    let web = cluster.kubectl(&["-n", "shop", "get", "pod", "web", "-o", "jsonpath={.status.podIP}"]);
    let web: SocketAddr = format!("{}:80", web.trim()).parse().unwrap();
    let client = namespace(cluster, "shop", "client");
    let connect = || client.run(|| TcpStream::connect(web)).unwrap().unwrap();
    let port = |stream: &TcpStream| stream.local_addr().unwrap().port();
    let captured =
        || cluster.kubectl(&["-n", "shop", "exec", "client", "-c", "capture", "--", "cat", "/flows/flows.jsonl"]);
    let await_told = |ports: &[u16]| {
        let mut expected: Vec<u64> = ports.iter().copied().map(u64::from).collect();
        expected.sort_unstable();
        eventually("each connection is told, and once", SOON, || {
            let text = captured();
            let flows = lines(&text).filter(|item| item["type"] == "flow" && item["destination"]["port"] == 80);
            // Who asks the Service comes from ports of its own, which may be the same.
            let flows = flows.filter(|flow| flow["service"].is_null());
            let told = flows.filter_map(|flow| flow["source"]["port"].as_u64());
            let mut told: Vec<u64> = told.filter(|port| expected.contains(port)).collect();
            told.sort_unstable();
            if told == expected { Ok(()) } else { Err(format!("{told:?} of {expected:?}")) }
        });
    };
    let gaps = || lines(&captured()).filter(|item| item["type"] == "gap" && item["at"] == "agent").count();
    let lasting = connect();
    let mut ports = vec![port(&lasting)];
    let before = port(&connect());
    await_told(&[before]);
    kill_process(Pid::from_raw(cluster.pid("node2-agent")).unwrap(), Signal::KILL).unwrap();
    ports.extend([(); 3].map(|()| port(&connect())));
    eventually("the next agent tells the gap", SOON, || if gaps() > 0 { Ok(()) } else { Err(captured()) });
    drop(lasting);
    await_told(&ports);
    // Whatever would be told once more was told by then.
    ports.extend([before, port(&connect())]);
    await_told(&ports);
    assert_eq!(gaps(), 1, "{}", captured());
}

/// A pod's network.
fn namespace(cluster: &Cluster, namespace: &str, pod: &str) -> NetNs {
    // As `net:[4026532000]`.
    let own = cluster.exec(namespace, pod, &["readlink", "/proc/self/ns/net"]).unwrap();
    let is_own = |path: &PathBuf| path.metadata().is_ok_and(|about| own.contains(&format!("[{}]", about.ino())));
    let mut all = std::fs::read_dir("/run/netns").unwrap().flatten().map(|entry| entry.path());
    NetNs::open(all.find(is_own).unwrap()).unwrap()
}
