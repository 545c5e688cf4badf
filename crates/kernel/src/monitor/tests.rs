use std::time::{Duration, Instant};

use podnet_model::Family;

use super::*;
use crate::testing::TestNs;

/// A monitor of a namespace with a device `eth0`, whose notices so far were read.
fn listening(tag: &str) -> (TestNs, Own, Monitor) {
    let namespace = TestNs::new(tag);
    namespace.command("ip link add eth0 type veth peer name eth1");
    for device in ["eth0", "eth1"] {
        // Its own address would become usable, and be told, at any moment.
        namespace.command(&format!("ip link set {device} addrgenmode none"));
        namespace.command(&format!("ip link set {device} up"));
    }
    namespace.command("ip addr add 192.0.2.1/24 dev eth0");
    let own = NftSocket::open_in(&namespace).unwrap();
    let routes = RtSocket::open_in(&namespace).unwrap();
    let other = NftSocket::open_in(&namespace).unwrap();
    let mut monitor = Monitor::open_in(&namespace, &routes, &own, other.port().unwrap().as_slice()).unwrap();
    // Link states settle a moment later.
    std::thread::sleep(Duration::from_millis(20));
    monitor.pending().unwrap();
    (namespace, Own { rules: own, other, routes }, monitor)
}

/// The sockets whose work is not told.
struct Own {
    rules: NftSocket,
    other: NftSocket,
    routes: RtSocket,
}

/// What is told until something fits.
fn until(monitor: &mut Monitor, fits: impl Fn(&Notice) -> bool) -> Notice {
    let deadline = Instant::now() + Duration::from_secs(5);
    let mut seen = Vec::new();
    while Instant::now() < deadline {
        seen.extend(monitor.pending().unwrap());
        std::thread::yield_now();
        if let Some(found) = seen.iter().find(|notice| fits(notice)) {
            return found.clone();
        }
    }
    panic!("not told: {seen:?}");
}

#[test]
fn routes_are_told_with_their_way_and_when_they_are_gone() {
    let (namespace, _own, mut monitor) = listening("monitor-routes");
    namespace.command("ip route add 10.1.0.0/24 via 192.0.2.9 proto 88");
    let dst = "10.1.0.0/24".parse().unwrap();
    until(&mut monitor, |notice| matches!(notice, Notice::Route(route) if route.dst == dst && route.protocol == 88));
    namespace.command("ip route del 10.1.0.0/24");
    until(&mut monitor, |notice| matches!(notice, Notice::RouteGone(route) if route.dst == dst));
    // What asks a table, and the table's routes, both families; addresses' own are none of these.
    for ip in ["ip", "ip -6"] {
        namespace.command(&format!("{ip} rule add fwmark 1 lookup 4242"));
        namespace.command(&format!("{ip} route add blackhole default table 4243"));
        namespace.command("ip addr add 192.0.2.77/32 dev eth0");
        namespace.command("ip addr del 192.0.2.77/32 dev eth0");
        namespace.command(&format!("{ip} rule del fwmark 1"));
        until(&mut monitor, |notice| matches!(notice, Notice::WayGone { table: 4242 }));
        namespace.command(&format!("{ip} route del blackhole default table 4243"));
        let told = until(&mut monitor, |notice| matches!(notice, Notice::WayGone { .. }));
        assert_eq!(told, Notice::WayGone { table: 4243 });
    }
}

#[test]
fn ones_own_routes_and_neighbours_are_not_told() {
    let (namespace, mut own, mut monitor) = listening("monitor-own");
    let dst = |number: u8| format!("10.1.{number}.0/24").parse().unwrap();
    let device = crate::link::index_of(&mut own.routes, "eth0").unwrap();
    for number in 0..9 {
        let target = crate::route::Target::Device(device);
        crate::route::replace(&mut own.routes, &Route { dst: dst(number), target, protocol: 88, source: None })
            .unwrap();
        let addr = std::net::Ipv4Addr::new(192, 0, 2, 10 + number).into();
        crate::neigh::replace(&mut own.routes, device, addr, crate::testing::mac(0, number)).unwrap();
    }
    namespace.command("ip route del 10.1.8.0/24");
    let deadline = Instant::now() + Duration::from_secs(5);
    let mut told = Vec::new();
    while told.is_empty() {
        assert!(Instant::now() < deadline);
        told = monitor.pending().unwrap();
    }
    assert!(matches!(&told[..], [Notice::RouteGone(route)] if route.dst == dst(8)), "{told:?}");
}

#[test]
fn who_hears_of_rules_late_is_told_once_that_some_may_be_missed() {
    let (namespace, _own, mut monitor) = listening("monitor-late");
    // As of a kernel that got netfilter after it was opened.
    monitor.nft = None;
    assert_eq!(monitor.wait().unwrap(), [Notice::RulesLost]);
    namespace.command("nft add table ip late");
    let told = until(&mut monitor, |notice| matches!(notice, Notice::Rules(_) | Notice::RulesLost));
    assert!(matches!(&told, Notice::Rules(rules) if rules.tables.contains(&(2, "late".to_owned()))), "{told:?}");
}

#[test]
fn devices_neighbours_and_settings_are_told() {
    let (namespace, _own, mut monitor) = listening("monitor-links");
    namespace.command("ip link set eth0 mtu 1400");
    until(
        &mut monitor,
        |notice| matches!(notice, Notice::Link(link) if link.name.as_str() == "eth0" && link.mtu == 1400),
    );
    namespace.command("ip neigh add 192.0.2.7 lladdr 02:00:00:00:00:07 dev eth0 nud permanent");
    let addr: IpAddr = "192.0.2.7".parse().unwrap();
    let neighbour = |there: bool| move |notice: &Notice| matches!(notice, Notice::Neighbour { addr: found, mac, .. } if *found == addr && mac.is_some() == there);
    until(&mut monitor, neighbour(true));
    namespace.command("ip neigh del 192.0.2.7 dev eth0");
    until(&mut monitor, neighbour(false));
    namespace.command("sysctl -qw net.ipv4.ip_forward=1");
    until(&mut monitor, |notice| matches!(notice, Notice::Setting { device: None }));
    namespace.command("sysctl -qw net.ipv4.conf.eth0.rp_filter=2");
    until(&mut monitor, |notice| matches!(notice, Notice::Setting { device: Some(_) }));
    namespace.command("sysctl -qw net.ipv6.conf.all.forwarding=1");
    until(&mut monitor, |notice| matches!(notice, Notice::Setting { device: None }));
    namespace.command("ip addr add 2001:db8::1/64 dev eth0 nodad");
    let told = |there: bool| {
        let wanted: ipnet::IpNet = "2001:db8::1/64".parse().unwrap();
        move |notice: &Notice| matches!(notice, Notice::Address { addr, flags, .. } if *addr == wanted && flags.is_some() == there)
    };
    until(&mut monitor, told(true));
    namespace.command("ip addr del 2001:db8::1/64 dev eth0");
    until(&mut monitor, told(false));
    namespace.command("ip link del eth0");
    until(&mut monitor, |notice| matches!(notice, Notice::LinkGone(link) if link.name.as_str() == "eth0"));
}

#[test]
fn link_local_addresses_of_ipv6_are_not_told() {
    let (namespace, _own, mut monitor) = listening("monitor-link-local");
    namespace.command("ip addr add fe80::7/64 dev eth0 nodad");
    namespace.command("ip addr del fe80::7/64 dev eth0");
    namespace.command("ip link set eth0 mtu 1400");
    let deadline = Instant::now() + Duration::from_secs(5);
    let mut seen = Vec::new();
    while !seen.iter().any(|notice| matches!(notice, Notice::Link(link) if link.mtu == 1400)) {
        assert!(Instant::now() < deadline, "{seen:?}");
        seen.extend(monitor.pending().unwrap());
    }
    assert!(!seen.iter().any(|notice| matches!(notice, Notice::Address { .. })), "{seen:?}");
}

#[test]
fn fdb_entries_are_told() {
    let (namespace, _own, mut monitor) = listening("monitor-fdb");
    namespace.command("ip link add vx0 type vxlan id 7 dstport 4789 local 192.0.2.1 nolearning");
    let mut socket = crate::netlink::RtSocket::open_in(&namespace).unwrap();
    let device = crate::link::index_of(&mut socket, "vx0").unwrap();
    crate::fdb::replace(&mut socket, device, crate::testing::mac(0, 7), "192.0.2.7".parse().unwrap()).unwrap();
    let entry = |there: bool| move |notice: &Notice| matches!(notice, Notice::Fdb { mac, remote, .. } if mac.0[5] == 7 && remote.is_some() == there);
    until(&mut monitor, entry(true));
    namespace.command("bridge fdb del 02:00:00:00:00:07 dev vx0 dst 192.0.2.7");
    until(&mut monitor, entry(false));
    // Marked otherwise than podnet's own.
    namespace.command("bridge fdb add 02:00:00:00:00:07 dev vx0 dst 192.0.2.7");
    until(&mut monitor, entry(true));
}

#[test]
fn a_transaction_of_others_is_told_with_its_author_and_ones_own_is_not() {
    let (namespace, mut own, mut monitor) = listening("monitor-rules");
    own.rules.replace("mine", &podnet_planner::ruleset::RuleSet::empty(Family::V4)).unwrap();
    own.other.replace("other", &podnet_planner::ruleset::RuleSet::empty(Family::V4)).unwrap();
    namespace.command("nft delete table ip mine");
    let told = until(&mut monitor, |notice| matches!(notice, Notice::Rules(_)));
    let Notice::Rules(transaction) = told else { unreachable!() };
    // The first that is told is the deletion: the making was one's own.
    assert_eq!(transaction.tables, [(2, "mine".to_owned())].into());
    assert_eq!(transaction.author.unwrap().name, "nft");
}

#[test]
fn chains_that_others_changed_are_told_by_name_and_so_is_a_table_that_goes() {
    let (namespace, _own, mut monitor) = listening("monitor-chains");
    let mut after = |line: &str| {
        namespace.command(line);
        let Notice::Rules(transaction) = until(&mut monitor, |notice| matches!(notice, Notice::Rules(_))) else {
            unreachable!()
        };
        assert!(!transaction.has_more_chains);
        transaction.chains
    };
    let chain = |name: &str| (2, "nat".to_owned(), name.to_owned());
    after("nft add table ip nat");
    assert_eq!(after("nft add chain ip nat SOME"), [chain("SOME")].into());
    assert_eq!(after("nft add rule ip nat SOME counter"), [chain("SOME")].into());
    assert_eq!(after("nft add set ip nat names { type ipv4_addr ; }"), BTreeSet::new());
    assert_eq!(after("nft flush chain ip nat SOME"), [chain("SOME")].into());
    assert_eq!(after("nft delete table ip nat"), [chain(""), chain("SOME")].into());
}

#[test]
fn rules_have_room_to_be_told_however_many_are_written_at_once() {
    let (_namespace, _own, monitor) = listening("monitor-room");
    let nft = monitor.nft.as_ref().unwrap();
    assert!(rustix::net::sockopt::socket_recv_buffer_size(nft.descriptor()).unwrap() >= OF_RULES);
}

#[test]
fn a_flood_that_does_not_fit_is_told_as_lost() {
    let (namespace, _own, mut monitor) = listening("monitor-flood");
    rustix::net::sockopt::set_socket_recv_buffer_size(monitor.route.descriptor(), 4096).unwrap();
    let batch: String = (1..250).map(|last| format!("route add 10.9.0.{last}/32 dev eth0\n")).collect();
    let file = tempfile(&batch);
    namespace.command(&format!("ip -batch {file}"));
    until(&mut monitor, |notice| *notice == Notice::Lost);
    std::fs::remove_file(file).unwrap();
}

fn tempfile(text: &str) -> String {
    let path = format!("/tmp/pntest-monitor-{}", std::process::id());
    std::fs::write(&path, text).unwrap();
    path
}
