use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

use podnet_model::limits::{Bandwidth, Limits, Peak, PodLimits};
use podnet_planner::limits::{Shaping, shaping, steps};

use super::*;
use crate::{
    netns::NetNs,
    pod_interface::{self, PodInterface},
    testing::{TestNs, mac},
};

const HOST: &str = "pn0123456789ab";
const EGRESS: &str = "pb0123456789ab";
const NODE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const POD: Ipv4Addr = Ipv4Addr::new(10, 233, 64, 1);
const MTU: u32 = 1450;

/// A node with one pod.
struct Pod {
    node: TestNs,
    pod: TestNs,
    socket: RtSocket,
    host: LinkName,
}

fn pod(tag: &str) -> Pod {
    let (node, pod) = (TestNs::new(&format!("{tag}-node")), TestNs::new(&format!("{tag}-pod")));
    node.command(&format!("ip addr add {NODE}/32 dev lo"));
    let mut socket = RtSocket::open_in(&node).unwrap();
    let interface = PodInterface {
        netns: NetNs::clone(&pod),
        container_ifname: "eth0".into(),
        host_ifname: HOST.into(),
        addr: vec![POD.into()],
        routes: Vec::new(),
        mtu: MTU,
        pod_mac: mac(1, 1),
        host_mac: mac(2, 1),
        bridge: None,
    };
    interface.create(&mut socket).unwrap();
    Pod { node, pod, socket, host: HOST.into() }
}

impl Pod {
    fn found(&mut self) -> Found {
        find(&mut self.socket, &self.host).unwrap().unwrap()
    }

    /// Makes it so, and says how many steps that took.
    fn shape(&mut self, wanted: &Shaping) -> usize {
        let steps = steps(wanted, &self.found());
        apply(&mut self.socket, &self.host, &steps).unwrap();
        assert_eq!(podnet_planner::limits::steps(wanted, &self.found()), [], "what was done is found");
        steps.len()
    }

    fn links(&self) -> String {
        self.node.command("ip -o link show type ifb")
    }
}

fn both(rate: u64) -> Shaping {
    let one = Limits { bandwidth: Some(Bandwidth { rate, burst: None, peak: None }), ..Limits::default() };
    shaping(&PodLimits { ingress: one.clone(), egress: one }, MTU)
}

/// What arrives of a transfer that is as fast as it can be: in its first half second, in bytes, and in all, in bits per second.
fn transfer(from: &NetNs, to: &NetNs, address: Ipv4Addr, port: u16, duration: Duration) -> (usize, f64) {
    let server = SocketAddrV4::new(address, port);
    let listener = to.run(|| TcpListener::bind(server)).unwrap().unwrap();
    let mut sender = from.run(|| TcpStream::connect(server)).unwrap().unwrap();
    let sending = std::thread::spawn(move || while sender.write_all(&[0; 16 << 10]).is_ok() {});
    let (mut receiver, _) = listener.accept().unwrap();
    receiver.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut buffer = vec![0; 64 << 10];
    let (mut all, mut first) = (receiver.read(&mut buffer).unwrap(), 0);
    let start = Instant::now();
    while start.elapsed() < duration {
        all += receiver.read(&mut buffer).unwrap();
        if start.elapsed() < Duration::from_millis(500) {
            first = all;
        }
    }
    // The last look may have been late.
    let rate = all as f64 * 8.0 / start.elapsed().as_secs_f64();
    drop(receiver);
    sending.join().unwrap();
    (first, rate)
}

#[test]
fn a_limited_pod_receives_and_sends_at_its_rate_and_has_no_long_first_burst() {
    const RATE: f64 = 10_000_000.0;
    let mut limited = pod("tc-rate");
    limited.shape(&both(10_000_000));
    // One after the other: the acknowledgements of the one would take from the other's rate.
    let duration = Duration::from_secs(4);
    let into = |port| transfer(&limited.node, &limited.pod, POD, port, duration);
    let out = |port| transfer(&limited.pod, &limited.node, NODE, port, duration);
    for (direction, transfer) in [("to the pod", &into as &dyn Fn(u16) -> _), ("from the pod", &out)] {
        let mut rates = Vec::new();
        while rates.len() < 3 && !rates.iter().any(|rate| *rate >= 0.95 * RATE) {
            let (first, rate) = transfer(7001 + rates.len() as u16);
            assert!(rate <= 1.05 * RATE, "{direction}: {rate} bits per second");
            let first = first as f64 * 8.0 / (RATE * 0.5);
            assert!(first <= 1.3, "{direction}: {first} of half a second's bits in the first half second");
            rates.push(rate);
        }
        // Somewhat less may be the machine's doing, that had something else to do than to fill the bucket; mistaken units and limits that count
        // twice make it half at most.
        assert!(rates.iter().any(|rate| *rate >= 0.6 * RATE), "{direction}: {rates:?} bits per second");
    }
    // Without limits the same is many times faster.
    limited.shape(&Shaping::default());
    let (_, free) = transfer(&limited.pod, &limited.node, NODE, 7009, Duration::from_millis(500));
    assert!(free > 5.0 * RATE, "{free} bits per second");
}

#[test]
fn buckets_are_found_as_they_were_set_changed_in_place_and_removed_without_a_trace() {
    let mut limited = pod("tc-set");
    let before = limited.node.command("tc qdisc show");
    assert_eq!(limited.found(), Found::default());
    assert_eq!(limited.shape(&both(10_000_000)), 2);
    assert_eq!(limited.shape(&both(10_000_000)), 0);
    assert!(limited.links().contains(EGRESS));
    assert_eq!(limited.shape(&both(20_000_000)), 2);
    let only_ingress = Shaping { egress: None, ..both(20_000_000) };
    assert_eq!(limited.shape(&only_ingress), 1);
    assert_eq!(limited.links(), "");
    assert_eq!(limited.shape(&Shaping { ingress: None, ..both(1_000) }), 2);
    assert_eq!(limited.shape(&Shaping::default()), 1);
    assert_eq!((limited.node.command("tc qdisc show"), limited.links()), (before, String::new()));
}

#[test]
fn every_rate_burst_and_peak_is_found_as_it_was_set() {
    let mut limited = pod("tc-range");
    for rate in [1000, 64_000, 1_000_000, 34_000_000_000, 40_000_000_000, 1_000_000_000_000_000] {
        limited.shape(&both(rate));
        for burst in [1_000, 1_000_000, 34_359_738_360] {
            let peak = Some(Peak { rate: rate * 2, min_burst: Some(3000) });
            let bandwidth = Some(Bandwidth { rate, burst: Some(burst), peak });
            let one = Limits { bandwidth, ..Limits::default() };
            limited.shape(&shaping(&PodLimits { ingress: one.clone(), egress: one }, MTU));
        }
    }
}

#[test]
fn what_somebody_breaks_is_found_and_mended() {
    let mut limited = pod("tc-damage");
    let wanted = both(10_000_000);
    limited.shape(&wanted);
    for damage in [
        format!("tc qdisc del dev {HOST} root"),
        format!("tc qdisc change dev {HOST} root handle 88: tbf rate 1gbit burst 1m limit 2m"),
        format!("tc qdisc replace dev {HOST} root handle 7: tbf rate 1gbit burst 1m limit 2m"),
        format!("tc qdisc del dev {EGRESS} root"),
        format!("tc filter del dev {HOST} ingress"),
        format!("tc qdisc del dev {HOST} clsact"),
        format!("ip link set {EGRESS} down"),
        format!("ip link del {EGRESS}"),
    ] {
        limited.node.command(&damage);
        assert_eq!(limited.shape(&wanted), 1, "{damage}");
    }
    limited.pod.command("ping -c 1 -W 2 192.0.2.1");
}

#[test]
fn what_others_put_on_the_link_stays() {
    let mut limited = pod("tc-others");
    limited.shape(&both(10_000_000));
    limited.node.command(&format!(
        "tc filter add dev {HOST} ingress pref 5 protocol ip u32 match ip dport 9 0xffff action mirred egress mirror dev lo"
    ));
    limited.shape(&Shaping::default());
    let filters = limited.node.command(&format!("tc filter show dev {HOST} ingress"));
    assert!(filters.contains("pref 5") && !filters.contains("pref 88"), "{filters}");
    limited.node.command(&format!("tc qdisc replace dev {HOST} root handle 7: tbf rate 1gbit burst 1m limit 2m"));
    assert_eq!(limited.shape(&Shaping::default()), 0, "another's bucket is none of ours");
    apply(&mut limited.socket, &limited.host.clone(), &[Step::RemoveIngress, Step::RemoveEgress]).unwrap();
    assert!(limited.node.command(&format!("tc qdisc show dev {HOST}")).contains("tbf 7:"));
}

#[test]
fn the_device_goes_with_the_pod_and_strays_are_found() {
    let mut limited = pod("tc-stray");
    limited.shape(&both(10_000_000));
    let hosts = [limited.host.clone(), LinkName::from("pnffffffffffff")];
    let observed = observe(&mut limited.socket, &hosts).unwrap();
    assert_eq!(observed.strays, []);
    assert_eq!(observed.links, BTreeMap::from([(limited.host.clone(), limited.found())]));
    // Its namespace ended and took the link along, nobody was told.
    link::delete(&mut limited.socket, HOST).unwrap();
    limited.node.command("ip link add pbx type ifb");
    let observed = observe(&mut limited.socket, &hosts).unwrap();
    assert_eq!(observed, Observed { strays: vec![EGRESS.into()], ..Observed::default() });
    remove_stray(&mut limited.socket, &EGRESS.into()).unwrap();
    assert!(limited.links().contains("pbx") && !limited.links().contains(EGRESS));
    assert_eq!(find(&mut limited.socket, &HOST.into()).unwrap(), None);

    let mut limited = pod("tc-gone");
    limited.shape(&both(10_000_000));
    pod_interface::remove(&mut limited.socket, &limited.host).unwrap();
    assert_eq!(limited.links(), "");
}

#[test]
fn what_the_buckets_drop_is_counted_by_link_and_direction_as_the_kernel_shows_it() {
    let mut limited = pod("tc-dropped");
    assert_eq!(dropped(&mut limited.socket).unwrap(), [], "nothing is limited");
    limited.shape(&both(1_000_000));
    let index = link::index_of(&mut limited.socket, HOST).unwrap();
    let counted = |limited: &mut Pod, wanted: Direction| {
        let all = dropped(&mut limited.socket).unwrap();
        assert!(all.len() == 2 && all.iter().all(|one| one.device == index), "{all:?}");
        all.iter().find(|one| one.direction == wanted).unwrap().packets
    };
    assert_eq!([Direction::Ingress, Direction::Egress].map(|way| counted(&mut limited, way)), [0, 0]);
    // Many times what may wait.
    let burst = |from: &NetNs, to: Ipv4Addr| {
        let socket = from.run(|| UdpSocket::bind("0.0.0.0:0")).unwrap().unwrap();
        for _ in 0..300 {
            socket.send_to(&[7; 1400], (to, 9)).unwrap();
        }
    };
    burst(&limited.node, POD);
    let into = counted(&mut limited, Direction::Ingress);
    assert!((1..300).contains(&into), "{into}");
    burst(&limited.pod, NODE);
    let out = counted(&mut limited, Direction::Egress);
    assert!((1..300).contains(&out), "{out}");
    for (device, direction) in [(HOST, Direction::Ingress), (EGRESS, Direction::Egress)] {
        // Answers of the other side may be dropped meanwhile.
        let before = counted(&mut limited, direction);
        let shown = limited.node.command(&format!("tc -s qdisc show dev {device}"));
        let mut between = before..=counted(&mut limited, direction);
        assert!(between.any(|packets| shown.contains(&format!("(dropped {packets},"))), "{before}: {shown}");
    }
    limited.shape(&Shaping::default());
    assert_eq!(dropped(&mut limited.socket).unwrap(), []);
}

#[test]
fn a_name_that_another_device_has_and_a_link_that_is_gone_are_errors() {
    let mut limited = pod("tc-taken");
    link::create_bridge(&mut limited.socket, EGRESS).unwrap();
    let egress = [Step::SetEgress(both(1_000_000).egress.unwrap())];
    let error = apply(&mut limited.socket, &HOST.into(), &egress).unwrap_err();
    assert!(error.is_exists());
    assert!(error.to_string().contains(EGRESS), "{error}");
    limited.pod.command("ping -c 1 -W 2 192.0.2.1");
    let error = apply(&mut limited.socket, &"pnffffffffffff".into(), &egress).unwrap_err();
    assert!(error.is_missing(), "{error}");
}

#[test]
fn damage_is_heard_of_at_once_and_other_links_are_not() {
    let mut limited = pod("tc-watch");
    let wanted = both(10_000_000);
    limited.shape(&wanted);
    for damage in [
        format!("tc qdisc del dev {HOST} root"),
        format!("tc filter del dev {HOST} ingress"),
        format!("ip link set {EGRESS} down"),
        format!("ip link del {EGRESS}"),
    ] {
        let mut watch = Watch::open_in(&limited.node).unwrap();
        limited.node.command("ip link add other type bridge");
        limited.node.command("ip link del other");
        let (told, heard) = std::sync::mpsc::channel();
        let waiting = std::thread::spawn(move || told.send(watch.wait().is_ok()));
        assert!(heard.recv_timeout(Duration::from_millis(50)).is_err(), "nothing happened yet");
        limited.node.command(&damage);
        assert_eq!(heard.recv_timeout(Duration::from_secs(5)), Ok(true), "{damage}");
        waiting.join().unwrap().unwrap();
        limited.shape(&wanted);
    }
}
