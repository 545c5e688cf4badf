//! The rows of the packet table, traced.

use std::collections::BTreeMap;

use podnet_model::{Family, proxy::Mode};

use super::{super::*, passed};
use crate::{
    ruleset::{BackendAddress, FrontendKey, walk::Direction},
    services::packet_table::{self, Fate, Row, configured, six, traced},
};

/// The modes that the rules tell the fate of a packet in.
const MODES: [Mode; 4] = [Mode::Nftables, Mode::Iptables, Mode::Ipvs, Mode::Userspace];

/// The packet table's cluster by IPv4; Services in this mode.
fn table(mode: Mode) -> Cluster {
    traced::cluster(Family::V4, mode)
}

/// The rows of a family whose sender is where the row has it.
fn rows_of(cluster: &Cluster, family: Family) -> Vec<Row> {
    let mut rows = if family == Family::V4 { packet_table::rows() } else { six::rows() };
    rows.retain(|row| row.direction != Direction::FromPod || traced::is_from_pod(cluster, row));
    assert!(rows.iter().any(|row| row.packet.is_echo), "no row is a ping");
    assert!(rows.len() > 250, "{} rows", rows.len());
    rows
}

fn traced(cluster: &Cluster, row: &Row) -> Trace {
    traced::trace(cluster, row).unwrap_or_else(|unknown| panic!("{row}: {unknown}"))
}

/// What the trace says becomes of a row's packet on the row's node, in the words of the table; whatever other nodes do to it then.
fn fate(row: &Row, trace: &Trace) -> Option<Fate> {
    let here = |hop: &&Hop| hop.place.node().is_some_and(|node| node.as_str() == row.node);
    let elsewhere = |hop: &&Hop| matches!(hop.kind, Kind::Translated | Kind::Judged) && !here(hop);
    let node = format!("node {}", row.node);
    // By the node, or by whoever has the address.
    let is_answered = |path: &Path| {
        path.end.verdict == Verdict::Arrives && (path.end.why == node || path.destination.addr == row.packet.dst)
    };
    if row.packet.is_echo && trace.paths.iter().all(is_answered) {
        return Some(Fate::Answered);
    }
    let mut arrivals = BTreeMap::new();
    let mut shares = BTreeMap::new();
    for path in &trace.paths {
        let masqueraded = path.hops.iter().filter(here).any(|hop| hop.kind == Kind::Masqueraded);
        let goes_on = path.hops.iter().any(|hop| elsewhere(&hop));
        let to = match goes_on {
            true => BackendAddress { addr: row.packet.dst, port: row.packet.dport },
            false => path.destination,
        };
        match path.end.verdict {
            Verdict::Arrives | Verdict::Leaves => {}
            _ if goes_on => {}
            Verdict::Refused => return Some(Fate::Rejected),
            Verdict::Lost => return Some(Fate::Dropped),
            Verdict::NoRoute => return None,
        }
        arrivals.insert(to, masqueraded);
        *shares.entry(to).or_insert(0.0) += path.share;
    }
    let equal = 1.0 / shares.len() as f64;
    shares.values().all(|share: &f64| (share - equal).abs() < 1e-9).then_some(Fate::Arrives(arrivals))
}

/// Whether the trace says what becomes of a row's packet. What mode `userspace` does not serve is refused where it is led to the agent's sockets
/// or the address is the node's own, and passes by without being translated elsewhere, whatever the table says, which is about the other modes.
fn assert_fate(cluster: &Cluster, mode: Mode, row: &Row) {
    let packet = &row.packet;
    let planned = cluster.planned(&NodeName::from(row.node)).unwrap();
    let asked = FrontendKey { addr: packet.dst, protocol: packet.protocol, port: packet.dport };
    let is_served = planned.services[Family::of(&packet.dst)].serving(&asked).is_some();
    let trace = traced(cluster, row);
    if mode != Mode::Userspace || packet.is_echo || packet.protocol != Protocol::Sctp || !is_served {
        assert_eq!(fate(row, &trace).as_ref(), Some(&row.fate), "{mode} {row}");
        return;
    }
    if planned.leads(&asked) || planned.lookup(packet.dst) == Lookup::Own {
        assert_eq!(fate(row, &trace), Some(Fate::Rejected), "{mode} {row}");
        let why = &trace.paths[0].end.why;
        assert!(why.starts_with("mode userspace has no SCTP: service "), "{row}: {why}");
    }
    let here = |hop: &&Hop| hop.place.node().is_some_and(|node| node.as_str() == row.node);
    let translates = |path: &Path| path.hops.iter().filter(here).any(|hop| hop.kind == Kind::Translated);
    assert!(!trace.paths.iter().any(translates), "{row}: {trace:?}");
}

#[test]
fn each_row_of_the_packet_table_is_traced_to_its_fate() {
    for (family, mode) in Family::ALL.into_iter().flat_map(|family| MODES.map(|mode| (family, mode))) {
        let cluster = traced::cluster(family, mode);
        // Virtual servers are at no loopback address.
        let served = |row: &Row| mode != Mode::Ipvs || !row.packet.dst.is_loopback();
        for row in rows_of(&cluster, family).into_iter().filter(served) {
            assert_fate(&cluster, mode, &row);
        }
    }
}

#[test]
fn each_row_of_a_node_that_is_configured_otherwise_is_traced_to_its_fate() {
    for (family, mode) in Family::ALL.into_iter().flat_map(|family| MODES.map(|mode| (family, mode))) {
        let cluster = traced::cluster_configured(family, mode);
        let is_of_family = |row: &Row| Family::of(&row.packet.dst) == family;
        let rows: Vec<Row> = configured::rows().into_iter().filter(is_of_family).collect();
        assert!(rows.len() > 15, "{} rows", rows.len());
        for row in rows {
            assert_fate(&cluster, mode, &row);
        }
    }
}

#[test]
fn every_device_that_a_packet_passes_is_named() {
    let way = |mode: Mode, from: Source, to: &str, port: u16| {
        let addr = packet_table::address(to).unwrap();
        let trace = table(mode).trace(&from, Target { addr, protocol: Protocol::Tcp, port }).unwrap();
        assert_eq!(trace.paths.len(), 1, "{to}");
        passed(&trace.paths[0])
    };
    let pod = || Source::Pod(PodKey::new("default", "client1"));
    let node = || Source::Node("node1".into());
    let world = Source::World(packet_table::address("visitor").unwrap(), "node1".into());
    let sent = ["pod default/client1 sent eth0", "node node1 received pn-client1"];
    let there = ["node node1 routed pn-alone1", "pod default/alone1 delivered eth0"];
    let table: [(Mode, Source, &str, u16, Vec<&str>); 7] = [
        (
            Mode::Nftables,
            world,
            "node1",
            22,
            vec!["underlay sent -", "node node1 received eth0", "node node1 delivered -"],
        ),
        (Mode::Nftables, node(), "node1", 22, vec!["node node1 sent -", "node node1 delivered lo"]),
        (Mode::Nftables, pod(), "alone", 80, [&sent[..], &["node node1 translated -"], &there].concat()),
        (Mode::Ebpf, pod(), "alone", 80, [&["pod default/client1 chosen -"][..], &sent, &there].concat()),
        (
            Mode::Userspace,
            pod(),
            "alone",
            80,
            [&sent[..], &["node node1 routed podservices4", "node node1 translated -"], &there].concat(),
        ),
        (
            Mode::Userspace,
            pod(),
            "empty",
            80,
            [&sent[..], &["node node1 routed podservices4", "node node1 judged -"]].concat(),
        ),
        (
            Mode::Userspace,
            node(),
            "localhost",
            30099,
            vec![
                "node node1 sent -",
                "node node1 delivered lo",
                "node node1 translated -",
                "node node1 masqueraded -",
                "node node1 routed pn-web1",
                "pod default/web1 delivered eth0",
            ],
        ),
    ];
    for (mode, from, to, port, expected) in table {
        assert_eq!(way(mode, from, to, port), expected, "{mode} to {to}");
    }
}

#[test]
fn a_ping_of_a_cluster_ip_passes_what_the_mode_has_answer_it() {
    let addr = packet_table::address("web").unwrap();
    let pod = || Source::Pod(PodKey::new("default", "client1"));
    let sent = ["pod default/client1 sent eth0", "node node1 received pn-client1"];
    let table: [(Mode, Source, Vec<&str>); 4] = [
        (Mode::Nftables, pod(), [&sent[..], &["node node1 translated -", "node node1 delivered -"]].concat()),
        (Mode::Userspace, pod(), [&sent[..], &["node node1 routed podservices4", "node node1 delivered -"]].concat()),
        (
            Mode::Nftables,
            Source::Node("node1".into()),
            vec!["node node1 sent -", "node node1 translated -", "node node1 delivered lo"],
        ),
        (
            Mode::Userspace,
            Source::Node("node1".into()),
            vec!["node node1 sent -", "node node1 routed podservices4", "node node1 delivered -"],
        ),
    ];
    for (mode, from, expected) in table {
        let trace = self::table(mode).ping(&from, addr).unwrap();
        assert_eq!(trace.paths.len(), 1, "{mode}");
        assert_eq!(passed(&trace.paths[0]), expected, "{mode}");
    }
}

#[test]
fn at_the_socket_the_same_backends_are_chosen_and_no_packet_is_translated() {
    let cluster = table(Mode::Ebpf);
    let mut chosen = 0;
    for row in rows_of(&cluster, Family::V4).into_iter().filter(|row| row.direction == Direction::FromPod) {
        let trace = traced(&cluster, &row);
        let Some(hop) = trace.paths[0].hops.first().filter(|hop| hop.kind == Kind::Chosen) else {
            assert_eq!(fate(&row, &trace).as_ref(), Some(&row.fate), "{row}: by the rules");
            continue;
        };
        assert!(hop.object.as_ref().is_some_and(|object| object.kind == "service"), "{row}");
        let places = |fate: Option<Fate>| match fate {
            Some(Fate::Arrives(backends)) => Ok(backends.into_keys().collect::<Vec<_>>()),
            other => Err(other),
        };
        assert_eq!(places(fate(&row, &trace)), places(Some(row.fate.clone())), "{row}");
        let of_services = |hop: &Hop| hop.kind == Kind::Translated || hop.what.contains("itself through a Service");
        assert!(!trace.paths.iter().flat_map(|path| &path.hops).any(of_services), "{row}");
        chosen += 1;
    }
    assert!(chosen > 50, "{chosen} rows");
}

#[test]
fn who_is_kept_out_is_told_why() {
    let cluster = table(Mode::Nftables);
    let why = |from: Source, to: &str, port| {
        let addr = packet_table::address(to).unwrap();
        cluster.trace(&from, Target { addr, protocol: Protocol::Tcp, port }).unwrap().paths[0].end.why.clone()
    };
    let pod = |name: &str| Source::Pod(PodKey::new("default", name));
    let world = |name: &str, node: &str| Source::World(packet_table::address(name).unwrap(), node.into());
    let table = [
        (pod("client1"), "empty", 80, "service default/empty has no ready endpoint for its port 80"),
        (pod("client1"), "web", 81, "10.233.0.20 is a ClusterIP without port 81/TCP"),
        (
            world("visitor", "node2"),
            "local-ip",
            80,
            "a traffic policy Local of service default/local leaves no endpoint on node node2, and others serve it",
        ),
        (
            world("partner", "node1"),
            "lbranges-ip",
            80,
            "198.51.100.200 is in none of the loadBalancerSourceRanges of service default/lbranges",
        ),
    ];
    for (from, to, port, said) in table {
        assert_eq!(why(from, to, port), said);
    }
}
