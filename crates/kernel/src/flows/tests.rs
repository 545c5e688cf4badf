//! Real traffic between namespaces, against what the programs counted of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::{AsFd, AsRawFd},
    thread,
    time::Duration,
};

use podnet_flow::{Transport, Way};
use rustix::net::sockopt;

use super::*;
use crate::{
    fastpath::Behind,
    netns::NetNs,
    pod_interface::PodInterface,
    sysctl,
    testing::{TestNs, eventually, mac},
};

mod again;
mod before;
mod errors;
mod forms;
mod fragments;
mod missed;
mod narrow;

const SMALL: Sizes = Sizes { entries: 1024, ring: 1 << 16 };

/// A node with two pods, the second of which echoes what comes to port 80.
struct Lab {
    netns: TestNs,
    pods: Vec<TestNs>,
    devices: Vec<LinkName>,
}

impl Lab {
    fn new(tag: &str) -> Self {
        let netns = TestNs::new(&format!("flows-{tag}-node"));
        for (key, value) in [("net.ipv4.ip_forward", "1"), ("net.ipv6.conf.all.forwarding", "1")] {
            sysctl::set(&netns, key, value).unwrap();
        }
        let pods: Vec<TestNs> = (1..=2).map(|number| TestNs::new(&format!("flows-{tag}-pod{number}"))).collect();
        let mut host = RtSocket::open_in(&netns).unwrap();
        let mut devices = Vec::new();
        for (number, pod) in (1..).zip(&pods) {
            let interface = PodInterface {
                netns: NetNs::clone(pod),
                container_ifname: "eth0".into(),
                host_ifname: LinkName::from(format!("pn{number:012}")),
                addr: vec![v4(number), v6(number)],
                routes: Vec::new(),
                mtu: 1450,
                pod_mac: mac(1, number),
                host_mac: mac(2, number),
                bridge: None,
            };
            interface.create(&mut host).unwrap();
            devices.push(interface.host_ifname);
        }
        echo(&pods[1]);
        Self { netns, pods, devices }
    }

    fn socket(&self) -> RtSocket {
        RtSocket::open_in(&self.netns).unwrap()
    }

    fn counting(&self, sizes: Sizes) -> Flows {
        let flows = Flows::open(&mut self.socket(), &self.devices, None, sizes).unwrap();
        for device in &self.devices {
            assert!(flows.attach(&mut self.socket(), device).unwrap());
        }
        flows
    }

    fn udp(&self, to: IpAddr) -> UdpSocket {
        let own = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = self.pods[0].run(|| UdpSocket::bind(own)).unwrap().unwrap();
        socket.connect((to, 80)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        socket
    }

    fn tcp(&self, to: IpAddr, port: u16) -> std::io::Result<TcpStream> {
        let to = SocketAddr::from((to, port));
        self.pods[0].run(|| TcpStream::connect_timeout(&to, Duration::from_secs(5))).unwrap()
    }
}

fn v4(number: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, number).into()
}

fn v6(number: u8) -> IpAddr {
    Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, number.into()).into()
}

/// The threads end with the test's process.
fn echo(pod: &NetNs) {
    let (tcp, udp) = pod.run(|| (TcpListener::bind("[::]:80").unwrap(), UdpSocket::bind("[::]:80").unwrap())).unwrap();
    thread::spawn(move || {
        for stream in tcp.incoming() {
            let mut stream = stream.unwrap();
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = stream.read(&mut buffer) {
                let _ = stream.write_all(&buffer[..length]);
            }
        }
    });
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok((length, peer)) = udp.recv_from(&mut buffer) {
            let _ = udp.send_to(&buffer[..length], peer);
        }
    });
}

fn datagrams(socket: &UdpSocket, count: u64, size: usize) {
    for _ in 0..count {
        socket.send(&vec![7; size]).unwrap();
        assert_eq!(socket.recv(&mut [0; 4096]).unwrap(), size);
    }
}

fn round_trips(stream: &mut TcpStream, count: usize) {
    stream.set_nodelay(true).unwrap();
    for _ in 0..count {
        stream.write_all(&[7; 100]).unwrap();
        stream.read_exact(&mut [0; 100]).unwrap();
    }
}

/// The entries of both ends of the flow from a port of the first pod; of which each sees the other's counters the other way round.
fn both(flows: &Flows, port: u16) -> Option<(Entry, Entry)> {
    let entries = flows.entries().unwrap();
    let source = entries.iter().find(|entry| entry.key.local_port == port && entry.pod_began)?;
    let destination = entries.iter().find(|entry| entry.key.remote_port == port && !entry.pod_began)?;
    Some((*source, *destination))
}

fn passed(way: Way) -> (u64, u64) {
    (way.packets, way.bytes)
}

#[test]
fn datagrams_and_their_bytes_are_counted_exactly_at_both_ends_in_both_directions() {
    let lab = Lab::new("udp");
    let flows = lab.counting(SMALL);
    for (to, header) in [(v4(2), 28), (v6(2), 48)] {
        let socket = lab.udp(to);
        datagrams(&socket, 5, 100);
        let (source, destination) = both(&flows, socket.local_addr().unwrap().port()).unwrap();
        let expected = (5, 5 * (100 + header));
        for way in [source.out, source.into, destination.out, destination.into] {
            assert_eq!(passed(way), expected, "{to}");
        }
        assert!(source.first <= destination.first && source.first <= source.last && !source.ended);
        assert_eq!((source.key.remote, source.key.transport), (to, Transport::UDP));
    }
    assert!(flows.bells().is_empty(), "they are found in the map");
    lab.pods[0].command("ping -c 3 -i 0.01 10.0.0.2");
    let echoes = flows.entries().unwrap();
    let echoes: Vec<_> = echoes.iter().filter(|entry| entry.key.transport == Transport::ICMP).collect();
    assert_eq!(echoes.len(), 2);
    assert!(echoes.iter().all(|entry| passed(entry.out) == (3, 3 * 84) && passed(entry.into) == (3, 3 * 84)));
}

#[test]
fn a_connections_handshake_end_resets_and_next_of_the_same_ports_are_seen() {
    let lab = Lab::new("tcp");
    let flows = lab.counting(SMALL);
    for to in [v4(2), v6(2)] {
        let mut stream = lab.tcp(to, 80).unwrap();
        let port = stream.local_addr().unwrap().port();
        round_trips(&mut stream, 10);
        drop(stream);
        eventually("it ends", || {
            both(&flows, port).is_some_and(|(source, destination)| source.ended && destination.ended)
        });
        eventually("the last acknowledgement comes through", || {
            let (source, destination) = both(&flows, port).unwrap();
            passed(source.out) == passed(destination.into) && passed(source.into) == passed(destination.out)
        });
        let (source, _) = both(&flows, port).unwrap();
        assert!((1..1_000_000).contains(&source.handshake_micros), "{source:?}");
        assert!(source.out.flags & (Way::SYN | Way::FIN) == Way::SYN | Way::FIN && source.out.resets == 0);
        // SYN, acknowledgement, 10 requests, FIN, at least; with 1000 bytes in them.
        let header = if to.is_ipv4() { 40 } else { 60 };
        assert!(source.out.packets >= 13 && source.out.bytes >= 1000 + header * source.out.packets);
    }
    // Nobody listens: a reset, and then once more from the same port.
    let refused = lab.tcp(v4(2), 81).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    let once: Vec<Entry> = flows.entries().unwrap().into_iter().filter(|entry| entry.key.remote_port == 81).collect();
    let [once] = once[..] else { panic!("{once:?}") };
    assert!(once.ended && passed(once.out).0 == 1 && once.into.resets == 1 && once.into.packets == 1);
    let _ = flows.bells();
    let again = lab.pods[0].run(|| {
        let socket =
            rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM, None).unwrap();
        sockopt::set_socket_reuseaddr(socket.as_fd(), true).unwrap();
        rustix::net::bind(&socket, &SocketAddr::from((Ipv4Addr::UNSPECIFIED, once.key.local_port))).unwrap();
        rustix::net::connect(&socket, &SocketAddr::from((v4(2), 81)))
    });
    again.unwrap().unwrap_err();
    let replaced: Vec<Entry> = flows
        .bells()
        .into_iter()
        .filter_map(|told| if let Told::Replaced(entry) = told { Some(entry) } else { None })
        .collect();
    assert!(replaced.contains(&once), "its last counters rang: {replaced:?}");
    let now = flows.entries().unwrap().into_iter().find(|entry| entry.key == once.key).unwrap();
    assert!(now.born > once.born && now.out.packets == 1, "and the next counts from none: {now:?}");
    assert_eq!(flows.take(&once).unwrap(), None, "the next one has its place");
    assert_eq!(flows.take(&Entry { out: Way::default(), ..now }).unwrap(), None, "something passed since");
    assert_eq!(flows.take(&now).unwrap(), Some(now));
    assert_eq!(flows.take(&now).unwrap(), None);
}

#[test]
fn what_is_sent_again_is_seen() {
    let lab = Lab::new("again");
    let flows = lab.counting(SMALL);
    let mut stream = lab.tcp(v4(2), 80).unwrap();
    let port = stream.local_addr().unwrap().port();
    round_trips(&mut stream, 1);
    // What leaves the node for the second pod is lost behind the counter.
    lab.netns.command("ip route add blackhole 10.0.0.2/32 metric 1");
    lab.netns.command("ip route del 10.0.0.2/32 dev pn000000000002");
    stream.write_all(&[7; 100]).unwrap();
    eventually("it is sent again", || {
        flows.entries().unwrap().iter().any(|entry| entry.key.local_port == port && entry.out.retransmissions > 0)
    });
}

#[test]
fn what_passes_by_the_stack_is_counted_as_well() {
    let lab = Lab::new("fast");
    let flows = lab.counting(SMALL);
    let fast_path = flows.fast_path().unwrap();
    fast_path.live_for(Duration::from_secs(60)).unwrap();
    for device in &lab.devices {
        assert!(fast_path.attach(&mut lab.socket(), device, Behind::Pod).unwrap());
    }
    for (to, header) in [(v4(2), 28), (v6(2), 48)] {
        let socket = lab.udp(to);
        let before = fast_path.passed().unwrap().forwarded;
        let mut sent = 0;
        eventually("datagrams pass by", || {
            datagrams(&socket, 50, 100);
            sent += 50;
            fast_path.passed().unwrap().forwarded > before + 50
        });
        let (source, destination) = both(&flows, socket.local_addr().unwrap().port()).unwrap();
        for way in [source.out, source.into, destination.out, destination.into] {
            assert_eq!(passed(way), (sent, sent * (100 + header)), "{to}");
        }
    }
}

#[test]
fn what_finds_no_room_is_counted_as_missing() {
    let lab = Lab::new("full");
    let flows = lab.counting(Sizes { entries: 8, ring: 1 << 16 });
    let sockets: Vec<UdpSocket> = (0..20).map(|_| lab.udp(v4(2))).collect();
    sockets.iter().for_each(|socket| datagrams(socket, 3, 100));
    let mut by_device: BTreeMap<u32, u64> = BTreeMap::new();
    let mut counted = |device, packets| *by_device.entry(device).or_default() += packets;
    let entries = flows.entries().unwrap();
    assert!(!entries.is_empty() && entries.len() <= 8, "{}", entries.len());
    entries.iter().for_each(|entry| counted(entry.key.device, entry.packets()));
    let missed = flows.missed().unwrap();
    assert!(!missed.is_empty() && missed.iter().all(|(_, missed)| missed.bytes == missed.packets * 128));
    missed.iter().for_each(|(device, missed)| counted(*device, missed.packets));
    assert_eq!(by_device.into_values().collect::<Vec<_>>(), [120, 120]);
    assert!(flows.missed().unwrap().is_empty(), "told once");
}

#[test]
fn counting_goes_on_for_the_next_who_opens_it_and_ends_where_it_is_taken_away() {
    let lab = Lab::new("next");
    let first = lab.counting(SMALL);
    assert!(!first.goes_on() && !first.abandons());
    let socket = lab.udp(v4(2));
    let port = socket.local_addr().unwrap().port();
    datagrams(&socket, 2, 100);
    drop(first);
    datagrams(&socket, 2, 100);
    let next = lab.counting(SMALL);
    assert!(next.goes_on());
    datagrams(&socket, 2, 100);
    let (source, _) = both(&next, port).unwrap();
    assert_eq!(source.out.packets, 6);
    // Only flows to these from now on.
    let only = |range: &str| Some(BTreeSet::from([range.parse::<IpNet>().unwrap()]));
    next.set_ranges(only("10.9.0.0/16").as_ref()).unwrap();
    datagrams(&socket, 2, 100);
    assert_eq!(both(&next, port).unwrap().0.out.packets, 6);
    next.set_ranges(only("10.0.0.0/24").as_ref()).unwrap();
    datagrams(&socket, 1, 100);
    next.set_ranges(only("10.9.0.0/16").as_ref()).unwrap();
    datagrams(&socket, 1, 100);
    next.set_ranges(None).unwrap();
    datagrams(&socket, 1, 100);
    assert_eq!(both(&next, port).unwrap().0.out.packets, 8);
    // Whoever opens them next knows the ranges that are there.
    let narrow = ["10.0.0.0/24", "10.0.0.7/24"].map(|range| range.parse::<IpNet>().unwrap());
    next.set_ranges(Some(&narrow.into())).unwrap();
    let next = lab.counting(SMALL);
    next.set_ranges(only("10.9.0.0/16").as_ref()).unwrap();
    datagrams(&socket, 1, 100);
    assert_eq!(both(&next, port).unwrap().0.out.packets, 8);
    // These two are one.
    next.set_ranges(Some(&narrow.into())).unwrap();
    next.set_ranges(only("10.0.0.7/24").as_ref()).unwrap();
    datagrams(&socket, 1, 100);
    assert_eq!(both(&next, port).unwrap().0.out.packets, 9);
    next.set_ranges(None).unwrap();
    for device in &lab.devices {
        assert!(detach(&mut lab.socket(), device).unwrap() && !detach(&mut lab.socket(), device).unwrap());
    }
    datagrams(&socket, 1, 100);
    assert_eq!(both(&next, port).unwrap().0.out.packets, 9);
}

#[test]
fn who_cannot_go_on_with_the_maps_that_are_there_says_so_and_the_next_one_goes_on_with_the_new_ones() {
    let lab = Lab::new("shape");
    // Another version's: entries in the making are longer there.
    let object = Object::new(OBJECT, &[(ENTRIES, 1024), (BELLS, 1 << 16)], Vec::new()).unwrap();
    let longer = object.map(BLANK).unwrap().try_clone().unwrap();
    let older = Flows::over(vec![(FRESH.to_owned(), longer)], None, SMALL).unwrap();
    for device in &lab.devices {
        assert!(older.attach(&mut lab.socket(), device).unwrap());
    }
    let socket = lab.udp(v4(2));
    let port = socket.local_addr().unwrap().port();
    datagrams(&socket, 2, 100);
    assert_eq!(both(&older, port).map(|(source, _)| source.out.packets), Some(2));
    let first = lab.counting(SMALL);
    assert!(first.abandons() && !first.goes_on());
    assert!(both(&first, port).is_none());
    let next = lab.counting(SMALL);
    assert!(next.goes_on() && !next.abandons());
    assert!(!first.renewed(None).unwrap().abandons(), "that is told already");
}

#[test]
fn programs_that_are_renewed_before_they_are_at_any_device_count_for_who_read_the_first_ones() {
    let lab = Lab::new("renewed");
    let first = Flows::open(&mut lab.socket(), &[], None, SMALL).unwrap();
    let next = first.renewed(None).unwrap();
    for device in &lab.devices {
        assert!(next.attach(&mut lab.socket(), device).unwrap());
    }
    let socket = lab.udp(v4(2));
    datagrams(&socket, 3, 100);
    let port = socket.local_addr().unwrap().port();
    for flows in [&first, &next] {
        assert_eq!(both(flows, port).map(|(source, _)| passed(source.out)), Some((3, 3 * 128)));
    }
    drop(lab.tcp(v4(2), 80).unwrap());
    let mut ended = 0;
    eventually("the ends of both entries ring", || {
        ended += first.bells().len();
        ended == 2
    });
}
