use std::process::Command;

use ipnet::IpNet;
use podnet_kernel::{monitor::Transaction, netns::NetNs, pod_interface::HostEnd, route, sysctl};
use podnet_model::{Block, BlockCidr, Change, Dual, EncapMode, Family, Loan, Mac, Node, NodeAddr, Pool};
use podnet_planner::{border::BorderConfig, overlay::OverlayConfig, services::ServicesConfig, step::ROUTE_PROTOCOL};

use super::*;
use crate::{attach::rules::PodRules, fastpath::FastPath, network::rules::ClusterRules};

/// Does something with a repair that listens in a namespace of its own, without a device of the underlay.
fn in_namespace(tag: &str, work: impl FnOnce(&mut Repair, &mut KernelDatapath, &mut ClusterRules) + Send) {
    let path = format!("/run/netns/podnet-test-{tag}-{}", std::process::id());
    let netns = NetNs::create(&path).unwrap();
    let done = netns.run(|| {
        let mut datapath = KernelDatapath::open().unwrap();
        let pods = Arc::new(PodEnds::new(PodRules::open().unwrap(), FastPath::default(), 1450));
        let address: IpNet = "172.29.0.11/24".parse().unwrap();
        let underlay = Underlay {
            device: "eth0".into(),
            address,
            address6: None,
            published: Dual { v4: Some(address), v6: None },
            mtu: 1500,
        };
        let (mut repair, _notices) = Repair::start(&mut datapath, &underlay, pods, Arc::default()).unwrap();
        let node_addrs = vec![NodeAddr(address.addr())];
        let services = ServicesConfig::new(Family::V4, "node1".into(), node_addrs.clone());
        let no_nat_cidrs = vec!["10.96.0.0/12".parse().unwrap()];
        let border = BorderConfig { family: Family::V4, node_addrs, pod_cidrs: Vec::new(), no_nat_cidrs };
        let mut rules = ClusterRules::new(&services, &border);
        work(&mut repair, &mut datapath, &mut rules);
    });
    NetNs::remove(&path).unwrap();
    done.unwrap();
}

fn overlay() -> Overlay {
    Overlay::new(OverlayConfig::new("node1".into(), "eth0".into(), 1500))
}

fn pool(cidr: &str) -> Change {
    pool_with(cidr, EncapMode::Never)
}

fn named(name: &str, change: Change) -> Change {
    let Change::Pool(_, Some(pool)) = change else { return change };
    Change::Pool(name.into(), Some(Pool { name: name.into(), ..pool }))
}

fn pool_with(cidr: &str, vxlan: EncapMode) -> Change {
    let pool = Pool { vxlan, nat_outgoing: true, ..Pool::new("pool".into(), cidr.parse().unwrap()) };
    Change::Pool("pool".into(), Some(pool))
}

/// Plans a route through a peer, which cannot be set where there is no underlay.
fn overlay_with_plain_route() -> Overlay {
    let mut overlay = overlay();
    for (name, addr) in [("node1", "172.29.0.11"), ("node2", "172.29.0.12")] {
        let node = Node::new(name.into(), NodeAddr(addr.parse().unwrap()));
        overlay.apply(&Change::Node(name.into(), Some(node)));
    }
    overlay.apply(&pool("10.233.64.0/18"));
    let cidr = BlockCidr("10.233.64.64/26".parse().unwrap());
    overlay.apply(&Change::Block(cidr, Some(Block::new(cidr, Some("node2".into())))));
    overlay
}

#[test]
fn an_obstacle_in_one_part_keeps_no_other_from_being_mended_and_is_not_forgotten() {
    in_namespace("obstacle", |repair, datapath, rules| {
        let overlay = overlay_with_plain_route();
        sysctl::set_here("net/ipv4/ip_forward", "0").unwrap();
        repair.hear(&[Notice::Lost], &overlay);
        repair.mend(datapath, &overlay, rules).unwrap_err();
        assert_eq!(sysctl::read_here("net/ipv4/ip_forward").unwrap(), "1");
        let tables = datapath.nft_socket().tables(Family::V4).unwrap();
        assert!(tables.iter().any(|there| there == "podnet"), "{tables:?}");
        repair.underlay_seen(false);
        assert_eq!(repair.due(), None, "what could not be mended waits");
        repair.try_again();
        assert!(repair.suspicion.overlay.is_some(), "and is tried again then");
        let Suspicion { settings, rules: of_cluster, pod_rules, passage, .. } = &repair.suspicion;
        assert_eq!([settings, of_cluster, pod_rules, passage], [&None; 4], "the rest is done");
        assert!(
            repair.counts.metrics().contains("podnet_repairs_total{object=\"route\"} 0"),
            "what failed does not count"
        );

        link::create_bridge(datapath.route_socket(), "eth0").unwrap();
        link::set_up(datapath.route_socket(), "eth0").unwrap();
        let index = link::index_of(datapath.route_socket(), "eth0").unwrap();
        podnet_kernel::addr::add(datapath.route_socket(), index, "172.29.0.11/24".parse().unwrap()).unwrap();
        repair.mend(datapath, &overlay, rules).unwrap();
        assert!(repair.suspicion.overlay.is_none());
        assert!(repair.counts.metrics().contains("podnet_repairs_total{object=\"route\"} 1"));
    });
}

#[test]
fn a_node_whose_pods_have_ipv6_forwards_it_and_keeps_the_default_route_that_a_router_advertised() {
    in_namespace("forward6", |repair, datapath, rules| {
        link::create_bridge(datapath.route_socket(), "eth0").unwrap();
        let read = |key: &str| sysctl::read_here(&format!("net/ipv6/conf/{key}")).unwrap();
        sysctl::set_here("net/ipv6/conf/all/forwarding", "0").unwrap();
        sysctl::set_here("net/ipv6/conf/eth0/accept_ra", "1").unwrap();
        repair.hear(&[Notice::Lost], &overlay());
        repair.mend(datapath, &overlay(), rules).unwrap();
        assert_eq!([read("all/forwarding"), read("eth0/accept_ra")], ["0", "1"], "no pod has IPv6");
        let mut overlay = overlay();
        overlay.apply(&pool("fd00:10:233::/48"));
        repair.underlay().forward_ipv6().unwrap();
        assert_eq!([read("all/forwarding"), read("eth0/accept_ra")], ["1", "2"]);
        let before = repair.counts.metrics();
        sysctl::set_here("net/ipv6/conf/all/forwarding", "0").unwrap();
        repair.hear(&[Notice::Setting { device: None }], &overlay);
        repair.mend(datapath, &overlay, rules).unwrap();
        assert_eq!([read("all/forwarding"), read("eth0/accept_ra")], ["1", "2"]);
        assert_ne!(repair.counts.metrics(), before, "it is counted");
        // The device is made anew, as by a driver that is loaded again, while the node forwards.
        link::delete(datapath.route_socket(), "eth0").unwrap();
        sysctl::set_here("net/ipv6/conf/default/accept_ra", "1").unwrap();
        link::create_bridge(datapath.route_socket(), "eth0").unwrap();
        assert_eq!(read("eth0/accept_ra"), "1");
        repair.underlay_seen(true);
        repair.set_underlay(repair.underlay().clone());
        repair.mend(datapath, &overlay, rules).unwrap();
        assert_eq!([read("all/forwarding"), read("eth0/accept_ra")], ["1", "2"]);
    });
}

#[test]
fn once_pods_have_ipv6_tunnels_that_were_there_before_carry_it() {
    in_namespace("tunnels6", |repair, datapath, rules| {
        let mut overlay = overlay_with_plain_route();
        overlay.apply(&pool_with("10.233.64.0/18", EncapMode::Always));
        link::create_bridge(datapath.route_socket(), "podnet.vxlan").unwrap();
        let setting = "net/ipv6/conf/podnet.vxlan/disable_ipv6";
        sysctl::set_here(setting, "1").unwrap();
        repair.suspicion = Suspicion::default();
        overlay.apply(&named("six", pool("fd00:10:233::/48")));
        repair.ranges_changed();
        repair.mend(datapath, &overlay, rules).unwrap();
        assert_eq!(sysctl::read_here(setting).unwrap(), "0");
    });
}

#[test]
fn the_node_has_the_ipv6_of_pods_ends_that_their_pods_have_and_hears_no_routers_there() {
    in_namespace("ends6", |repair, datapath, rules| {
        let of_pod = |name: &str, addrs: &[&str], mtu| HostEnd {
            ifname: name.into(),
            addrs: addrs.iter().map(|addr| addr.parse().unwrap()).collect(),
            pod_mac: Mac([2, 0, 0, 0, 0, 1]),
            mtu,
            answers_loopback6: false,
            bridge: None,
        };
        let both = ["10.233.64.6", "fd00:10:233::6"];
        let pods = repair.pods.clone();
        for (name, addrs) in [("pn4", &both[..1]), ("pn6", &both[..])] {
            link::create_bridge(datapath.route_socket(), name).unwrap();
            let wrong = if addrs.len() == 1 { "0" } else { "1" };
            sysctl::set_here(&format!("net/ipv6/conf/{name}/disable_ipv6"), wrong).unwrap();
            sysctl::set_here(&format!("net/ipv6/conf/{name}/accept_ra"), "1").unwrap();
            assert!(!pods.made(of_pod(name, addrs, 1450), None));
        }
        repair.suspicion =
            Suspicion { settings: Some(Instant::now()), settings_of_all_pods: true, ..Suspicion::default() };
        repair.mend(datapath, &overlay(), rules).unwrap();
        let read = |name: &str| {
            ["disable_ipv6", "accept_ra"].map(|of| sysctl::read_here(&format!("net/ipv6/conf/{name}/{of}")).unwrap())
        };
        assert_eq!([read("pn4"), read("pn6")], [["1", "0"], ["0", "0"]]);
        // Below 1280 bytes the pod would lose its address.
        pods.fit(datapath.route_socket(), 1200).unwrap();
        let wanted = [&both[..1], &both[..]].map(|addrs| pods.wanted_mtu_of(&of_pod("pn", addrs, 0).addrs));
        assert_eq!(wanted, [1200, 1280]);
        assert_eq!([1200, 1280].map(|mtu| pods.made(of_pod("pn6", &both, mtu), None)), [true, false]);
    });
}

#[test]
fn after_lost_notices_the_devices_are_known_again() {
    in_namespace("lost", |repair, datapath, rules| {
        let overlay = overlay();
        link::create_bridge(datapath.route_socket(), "br0").unwrap();
        let index = link::index_of(datapath.route_socket(), "br0").unwrap();
        assert!(!repair.devices.contains_key(&index), "it was not told");
        repair.hear(&[Notice::Lost], &overlay);
        assert!(repair.suspicion.settings_of_all_pods);
        repair.mend(datapath, &overlay, rules).unwrap();
        assert_eq!(repair.devices.get(&index), Some(&"br0".into()));
    });
}

#[test]
fn routes_are_looked_at_when_the_underlay_stands_again_and_not_before() {
    in_namespace("underlay", |repair, datapath, _| {
        let overlay = overlay();
        repair.suspicion = Suspicion::default();
        link::create_bridge(datapath.route_socket(), "eth0").unwrap();
        let down = link::find(datapath.route_socket(), "eth0").unwrap().unwrap();
        assert!(repair.hear(&[Notice::Link(down)], &overlay), "it is about the underlay's device");
        let stands = repair.underlay().stands(datapath.route_socket()).unwrap();
        assert!(!stands, "it is down");
        repair.underlay_seen(stands);
        assert!(repair.suspicion.overlay.is_none());
        repair.underlay_seen(true);
        assert!(repair.suspicion.overlay.is_some());
        let other = link::find(datapath.route_socket(), "lo").unwrap().unwrap();
        assert!(!repair.hear(&[Notice::Link(other)], &overlay), "other devices carry no routes of podnet's");
    });
}

#[test]
fn an_address_that_is_told_again_as_it_was_is_no_reason_to_look() {
    in_namespace("advertised", |repair, datapath, _| {
        let overlay = overlay();
        link::create_bridge(datapath.route_socket(), "eth0").unwrap();
        let link = link::find(datapath.route_socket(), "eth0").unwrap().unwrap();
        repair.hear(&[Notice::Link(link.clone())], &overlay);
        let told = |flags| Notice::Address { device: link.index, addr: "2001:db8::5/64".parse().unwrap(), flags };
        let mut looks = |notice: Notice| {
            repair.suspicion = Suspicion::default();
            let touched = repair.hear(&[notice], &overlay);
            assert_eq!(repair.underlay_suspected() || repair.suspicion.underlay.is_some(), touched);
            touched
        };
        const TENTATIVE: u32 = 0x40;
        let notices = [told(Some(TENTATIVE)), told(Some(0)), told(Some(0)), told(None), told(Some(0)), told(Some(0))];
        assert_eq!(notices.map(&mut looks), [true, true, false, true, true, false]);
        assert_eq!([Notice::Lost, told(Some(0))].map(&mut looks), [true, true], "who knows what was lost");
        assert_eq!([Notice::LinkGone(link.clone()), told(Some(0))].map(&mut looks), [true, true]);
    });
}

#[test]
fn the_way_to_a_pod_here_stays_though_the_plan_says_that_its_address_is_lent() {
    in_namespace("returned", |repair, datapath, rules| {
        let mut overlay = overlay_with_plain_route();
        let cidr = BlockCidr("10.233.64.0/26".parse().unwrap());
        let loan = Loan { addr: "10.233.64.5".parse().unwrap(), node: "node2".into(), handle: "c/eth0".into() };
        let block = Block { loans: vec![loan], ..Block::new(cidr, Some("node1".into())) };
        overlay.apply(&Change::Block(cidr, Some(block)));
        let socket = datapath.route_socket();
        for name in ["eth0", "pn1"] {
            link::create_bridge(socket, name).unwrap();
            link::set_up(socket, name).unwrap();
        }
        let underlay = link::index_of(socket, "eth0").unwrap();
        podnet_kernel::addr::add(socket, underlay, "172.29.0.11/24".parse().unwrap()).unwrap();
        let ifname = LinkName::from("pn1");
        let dst: IpNet = "10.233.64.5/32".parse().unwrap();
        let device = route::Target::Device(link::index_of(socket, "pn1").unwrap());
        let way = route::Route { dst, target: device, protocol: ROUTE_PROTOCOL, source: None };
        route::replace(socket, &way).unwrap();
        let end = HostEnd {
            ifname: ifname.clone(),
            addrs: vec![dst.addr()],
            pod_mac: Mac([2, 0, 0, 0, 0, 1]),
            mtu: 1500,
            answers_loopback6: false,
            bridge: None,
        };
        repair.pods.made(end, None);
        let mut way_after = |repair: &mut Repair| {
            // What the agent itself does is not heard of, so that nothing but the overlay is suspected.
            repair.suspicion = Suspicion { overlay: Some(Instant::now()), ..Suspicion::default() };
            repair.mend(datapath, &overlay, rules).unwrap();
            let routes = route::list(datapath.route_socket(), ROUTE_PROTOCOL).unwrap();
            routes.into_iter().find(|route| route.dst == dst).unwrap()
        };
        assert_eq!(way_after(repair), way);
        repair.pods.leaving(&ifname);
        assert!(matches!(way_after(repair).target, route::Target::Gateway { .. }));
    });
}

/// To the byte, with handles and counters.
#[test]
fn where_no_rules_are_wanted_in_other_peoples_chains_these_are_as_they_were_and_not_looked_at_any_more() {
    in_namespace("others-chains", |repair, datapath, rules| {
        let nft = |line: &str| {
            let done = Command::new("nft").args(line.split(' ')).output().unwrap();
            assert!(done.status.success(), "{line}: {}", String::from_utf8_lossy(&done.stderr));
            String::from_utf8(done.stdout).unwrap()
        };
        let others = || nft("-a list table inet other");
        nft("add table inet other");
        nft("add chain inet other forward { type filter hook forward priority 0 ; policy drop ; }");
        nft("add rule inet other forward ip daddr 192.0.2.1 counter packets 7 bytes 700 accept");
        let before = others();
        let mut overlay = overlay();
        overlay.apply(&pool("10.233.64.0/18"));
        repair.mend(datapath, &overlay, rules).unwrap();
        assert!(others().contains("podnet: from 10.233.64.0/18"), "of an agent that makes them: {}", others());
        let repairs = repair.counts.metrics();

        repair.leave_others_chains();
        assert!(repair.due().is_some(), "it is done at the start");
        repair.mend(datapath, &overlay, rules).unwrap();
        assert_eq!(others(), before);
        assert_eq!(repair.counts.metrics(), repairs, "nobody damaged anything");
        let transaction = Transaction { tables: [(1, "other".to_owned())].into(), ..Transaction::default() };
        repair.suspicion = Suspicion::default();
        repair.hear(&[Notice::Rules(transaction), Notice::RulesLost, Notice::Lost], &overlay);
        repair.ranges_changed();
        assert_eq!(repair.suspicion.passage, None, "nothing makes it look");
        // Nor does it do so if anything did.
        repair.suspicion.passage = Some(Instant::now());
        nft("add rule inet other forward ip daddr 192.0.2.2 accept comment \"podnet: mine\"");
        let now = others();
        repair.mend(datapath, &overlay, rules).unwrap();
        assert_eq!(others(), now);
    });
}

#[test]
fn what_others_may_have_changed_while_nobody_listened_is_looked_at_and_nothing_else() {
    in_namespace("rules-lost", |repair, datapath, rules| {
        repair.suspicion = Suspicion::default();
        repair.hear(&[Notice::RulesLost], &overlay());
        assert!(repair.suspicion.overlay.is_none() && repair.suspicion.underlay.is_none());
        assert!(repair.due().is_some());
        repair.mend(datapath, &overlay(), rules).unwrap();
        assert!(datapath.nft_socket().tables(Family::V4).unwrap().contains(&"podnet-services".to_owned()));
        let counted = repair.counts.metrics();
        assert!(counted.contains("podnet_repairs_total{object=\"table\"} 1"), "the tables were not there: {counted}");
    });
}
