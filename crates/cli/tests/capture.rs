//! `podnet capture`: packets of pods on several nodes in one file, for whoever may have them.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, ChildStderr, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use podnet_flow::pcapng::{Block, Interface, Packet, Reader, Statistics};
use podnet_testnet::Cluster;
use rustix::process::{Pid, Signal, kill_process};

const PODNET: &str = env!("CARGO_BIN_EXE_podnet");
const SOON: Duration = Duration::from_secs(60);

const PODS: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop}
spec:
  nodeName: node1
  containers: [{name: web, image: "podnet.local/demoapp"}]
---
apiVersion: v1
kind: Pod
metadata: {name: far, namespace: shop}
spec:
  nodeName: node2
  containers: [{name: far, image: "podnet.local/tools", command: [sleep, infinity]}]
---
apiVersion: v1
kind: Pod
metadata: {name: near, namespace: shop}
spec:
  nodeName: node1
  containers: [{name: near, image: "podnet.local/tools", command: [sleep, infinity]}]
"#;

/// A `podnet capture` that has begun.
struct Capture {
    child: Child,
    told: BufReader<ChildStderr>,
}

impl Capture {
    fn begin(arguments: &[&str], output: impl Into<Stdio>) -> Self {
        let mut command = Command::new(PODNET);
        command.arg("capture").args(arguments).stdin(Stdio::null()).stdout(output).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let told = BufReader::new(child.stderr.take().unwrap());
        let mut capture = Self { child, told };
        let line = capture.line();
        assert!(line.contains("capturing"), "{line}");
        capture
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.told.read_line(&mut line).unwrap();
        line
    }

    /// As ctrl-c does.
    fn interrupt(&self) {
        kill_process(Pid::from_child(&self.child), Signal::INT).unwrap();
    }

    /// Once it has ended by itself: whether all was well, and what it told.
    fn ended(mut self) -> (bool, String) {
        let deadline = Instant::now() + SOON;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if Instant::now() > deadline {
                self.child.kill().unwrap();
                panic!("it does not end");
            }
            thread::yield_now();
        };
        let mut told = String::new();
        self.told.read_to_string(&mut told).unwrap();
        (status.success(), told)
    }
}

/// A file that goes with the value.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        Self(PathBuf::from(format!("/tmp/podnet-test-capture-{}-{name}.pcapng", std::process::id())))
    }

    fn text(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[derive(Default)]
struct Contents {
    interfaces: Vec<Interface>,
    packets: Vec<Packet>,
    statistics: Vec<Statistics>,
}

fn read(path: &Path) -> Contents {
    let (mut reader, mut read) = (Reader::default(), Contents::default());
    reader.push(&fs::read(path).unwrap());
    while let Some(block) = reader.block().unwrap() {
        match block {
            Block::Interface(interface) => read.interfaces.push(interface),
            Block::Packet(packet) => read.packets.push(packet),
            Block::Statistics(statistics) => read.statistics.push(statistics),
            _ => {}
        }
    }
    read
}

fn tcpdump(path: &Path) -> String {
    let output = Command::new("tcpdump").args(["-nn", "-r"]).arg(path).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn packets_of_pods_on_several_nodes_are_in_one_capture_for_who_may_have_them() {
    let cluster = Cluster::up(PODNET, &["--nodes", "2"]);
    cluster.apply(PODS);
    cluster.await_ready(&["-n", "shop", "web", "far", "near"], SOON);
    let address = cluster.kubectl(&["-n", "shop", "get", "pod", "web", "-o", "jsonpath={.status.podIP}"]);
    let ask = |from: &str, count: usize| {
        let url = format!("http://{}/hostname", address.trim());
        let urls = vec![&*url; count];
        cluster.exec("shop", from, &[&["curl", "-sS", "--max-time", "5"], &urls[..]].concat()).unwrap()
    };
    both_ends_of_a_connection_between_nodes(&ask);
    what_passes_by_the_stack(&ask);
    a_count_and_a_reader_who_goes(&ask);
    those_who_may_not_and_what_is_wrong();
    pods_that_go(&cluster);
}

fn both_ends_of_a_connection_between_nodes(ask: &dyn Fn(&str, usize) -> String) {
    let file = Scratch::new("both");
    let capture = Capture::begin(&["shop/web", "shop/far", "-w", file.text(), "tcp", "port", "80"], Stdio::null());
    ask("far", 1);
    ask("near", 1);
    capture.interrupt();
    let (is_well, told) = capture.ended();
    assert!(is_well && told.contains("packets; 0 dropped"), "{told}");
    let Contents { interfaces, packets, statistics } = read(&file.0);
    let names: Vec<&str> = interfaces.iter().map(|interface| &*interface.name).collect();
    assert_eq!(names, ["shop/web eth0", "shop/far eth0"]);
    assert!(interfaces[1].description.ends_with("on node2") && interfaces[1].addrs.len() == 1, "{interfaces:?}");
    assert!(packets.is_sorted_by_key(|packet| packet.at), "not in the order of time");
    let count = |interface: u32| packets.iter().filter(|packet| packet.interface == interface).count() as u64;
    assert_eq!(
        statistics.iter().map(|one| (one.received, one.dropped)).collect::<Vec<_>>(),
        [(count(0), 0), (count(1), 0)]
    );
    // That of `far` is seen at both ends, that of `near` at one: its SYN, which went out at `far` before it came in at `web`.
    let text = tcpdump(&file.0);
    let begun: Vec<&Packet> = packets.iter().filter(|packet| packet.bytes[14 + 20 + 13] == 0x02).collect();
    let seen: Vec<(u32, bool)> = begun.iter().map(|packet| (packet.interface, packet.outbound)).collect();
    assert_eq!(seen, [(1, true), (0, false), (0, false)], "{text}");
    assert_eq!(text.lines().filter(|line| line.contains("Flags [S],")).count(), 3, "{text}");
}

/// The fast path leads packets into a pod by its interface inside alone: all that one end sends comes in at the other.
fn what_passes_by_the_stack(ask: &dyn Fn(&str, usize) -> String) {
    let file = Scratch::new("fast");
    let capture = Capture::begin(&["shop/web", "shop/near", "-w", file.text(), "tcp port 80"], Stdio::null());
    ask("near", 100);
    capture.interrupt();
    assert!(capture.ended().0);
    let packets = read(&file.0).packets;
    let count = |interface: u32, outbound: bool| {
        packets.iter().filter(|packet| packet.interface == interface && packet.outbound == outbound).count()
    };
    assert!(count(1, true) > 100, "{}", count(1, true));
    assert_eq!((count(0, false), count(0, true)), (count(1, true), count(1, false)));
}

fn a_count_and_a_reader_who_goes(ask: &dyn Fn(&str, usize) -> String) {
    let file = Scratch::new("count");
    let capture = Capture::begin(&["shop/web", "-w", file.text(), "--count", "3", "-s", "60"], Stdio::null());
    ask("far", 1);
    assert!(capture.ended().0);
    let packets = read(&file.0).packets;
    assert!(packets.len() == 3 && packets.iter().all(|packet| packet.bytes.len() <= 60), "{packets:?}");
    // Who reads one packet and goes is no error.
    let mut capture = Capture::begin(&["shop/web", "tcp port 80"], Stdio::piped());
    let reader = Command::new("tcpdump")
        .args(["-nn", "-c", "1", "-r", "-"])
        .stdin(capture.child.stdout.take().unwrap())
        .stderr(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    ask("far", 1);
    let output = reader.wait_with_output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("Flags [S],"), "{output:?}");
    ask("far", 1);
    let (is_well, told) = capture.ended();
    assert!(is_well, "{told}");
    // A time ends it as well.
    let file = Scratch::new("time");
    assert!(Capture::begin(&["shop/web", "-w", file.text(), "--duration", "1s"], Stdio::null()).ended().0);
}

fn those_who_may_not_and_what_is_wrong() {
    // A node may read pods, and nobody gave it their packets.
    let node = "/var/lib/podnet/nodes/node1/kubeconfig";
    for (arguments, code, said) in [
        (&["shop/web", "--kubeconfig", node][..], 1, "you may not create pods/capture of shop/web"),
        (&["shop/web", "tcp prot 80"], 2, "\"tcp prot 80\" is no expression"),
        (&["web"], 2, "does not begin with a pod"),
        (&["shop/nobody"], 1, "there is no pod shop/nobody"),
        (&["shop/web", "-i", "eth7"], 1, "there is no interface eth7; there are lo, eth0"),
    ] {
        let output = Command::new(PODNET).arg("capture").args(arguments).args(["-w", "-"]).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(code) && told.contains(said), "{arguments:?}: {told}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
}

fn pods_that_go(cluster: &Cluster) {
    let file = Scratch::new("gone");
    let capture = Capture::begin(&["shop/far", "-w", file.text(), "-i", "lo"], Stdio::null());
    cluster.exec("shop", "far", &["ping", "-c", "1", "127.0.0.1"]).unwrap();
    cluster.kubectl(&["-n", "shop", "delete", "pod", "far", "--grace-period=1"]);
    let (is_well, told) = capture.ended();
    assert!(is_well && told.contains("no pod of this capture is on node2 any more"), "{told}");
    let text = tcpdump(&file.0);
    assert_eq!(text.lines().filter(|line| line.contains("ICMP echo request")).count(), 1, "{text}");
}
