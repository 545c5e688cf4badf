//! Virtual servers on the virtual machine's kernel: what is written is what is read, by podnet and by `ipvsadm`.
#![allow(clippy::unwrap_used)]

mod connections;
#[path = "../tunnels/namespace.rs"]
mod namespace;
mod wanted;

use std::{
    collections::BTreeSet,
    net::{IpAddr, TcpListener},
    path::Path,
    time::{Duration, Instant},
};

use podnet_kernel::{
    addr as addresses, capabilities,
    ipvs::{self, Ipvs, Settings},
    netlink::RtSocket,
    snapshot::served::{Served, Servers},
    sysctl,
};
use podnet_model::{Family, Protocol, proxy::Mode};
use podnet_planner::{
    ipvs::{DEVICE, Edit, Scheduler, Server, State, difference},
    ruleset::BackendAddress,
};
use podnet_testnet::vm;

use crate::{
    namespace::Namespace,
    wanted::{MISSING, addr, key, names, plain, reals, state},
};

/// All schedulers but one, so that one is missing.
const MODULES: [&str; 25] = [
    "ip_vs_rr",
    "ip_vs_wrr",
    "ip_vs_lc",
    "ip_vs_wlc",
    "ip_vs_lblc",
    "ip_vs_sh",
    "ip_vs_dh",
    "ip_vs_sed",
    "ip_vs_nq",
    "ip_vs_mh",
    "ip_vs_fo",
    "ip_set_hash_ip",
    "ip_set_hash_net",
    "ip_set_hash_ipport",
    "ip_set_hash_ipportnet",
    "ip_set_hash_ipportip",
    "ip_set_bitmap_port",
    "dummy",
    "veth",
    "nf_conntrack",
    "iptable_nat",
    "xt_nat",
    "xt_MASQUERADE",
    "xt_tcpudp",
    "xt_conntrack",
];

#[test]
fn virtual_servers_are_those_that_are_wanted_on_the_kernel_of_the_virtual_machine() {
    let programs = ["ipvsadm", "ipset", "iptables-legacy", "iptables-legacy-restore", "iptables-legacy-save"];
    vm::run_tests_with("machine_", &MODULES, &programs);
}

fn open(place: &Namespace, family: Family) -> Ipvs {
    Ipvs::open(&place.netns, family).unwrap()
}

#[test]
#[ignore = "runs in the virtual machine"]
fn machine_a_state_is_read_as_it_was_written_changes_and_goes() {
    let place = Namespace::new("state");
    let wanted = Family::ALL.map(state);
    for (family, wanted) in Family::ALL.into_iter().zip(&wanted) {
        let mut ipvs = open(&place, family);
        assert_eq!(ipvs.read(&names(wanted)).unwrap(), State::default());
        let edits = difference(wanted, &State::default());
        // What is done is no error to do again.
        for _ in 0..2 {
            ipvs.apply(&edits).unwrap();
            assert_eq!(ipvs.read(&names(wanted)).unwrap(), *wanted, "{family:?}");
        }
    }
    let told = place.command("ipvsadm -Ln");
    for line in [
        "TCP  10.96.0.1:80 rr",
        "-> 10.1.0.1:8080                Masq    1      0          0         ",
        "-> 10.1.0.2:8080                Masq    0      0          0         ",
        "UDP  10.96.0.20:53 mh (mh-fallback,mh-port)",
        "SCTP 10.96.0.20:65535 sh (sh-port)",
        "TCP  10.96.0.22:80 wrr persistent 1",
        "TCP  [fd00:60::2]:80 wrr",
        "-> [fd00:1::3]:8080             Masq    7      0          0         ",
        "FWM  2147483647 mh persistent 10800",
        "FWM  2147483647 IPv6 mh persistent 10800",
    ] {
        assert!(told.lines().any(|found| found.trim() == line.trim()), "{line} is not in:\n{told}");
    }
    for (family, wanted) in Family::ALL.into_iter().zip(wanted) {
        let mut ipvs = open(&place, family);
        let mut other = wanted.clone();
        other.servers.pop_first();
        other.addrs.pop_first();
        for (server, scheduler) in
            other.servers.values_mut().zip([Scheduler::RoundRobin, Scheduler::Maglev].into_iter().cycle())
        {
            server.scheduling = plain(scheduler);
            server.reals.pop_first();
            server.reals.values_mut().for_each(|weight| *weight += 1);
        }
        let edits = difference(&other, &wanted);
        for _ in 0..2 {
            ipvs.apply(&edits).unwrap();
            assert_eq!(ipvs.read(&names(&wanted)).unwrap(), other, "{family:?}");
        }
        let edits = difference(&State::default(), &other);
        for _ in 0..2 {
            ipvs.apply(&edits).unwrap();
            assert_eq!(ipvs.read(&names(&wanted)).unwrap(), State::default(), "{family:?}");
        }
        ipvs.remove_device().unwrap();
    }
    assert_eq!(place.command("ipvsadm -Sn"), "");
    assert!(!place.command("ip link").contains(DEVICE));
}

#[test]
#[ignore = "runs in the virtual machine"]
fn machine_what_others_set_otherwise_is_set_right() {
    let place = Namespace::new("others");
    let mut ipvs = open(&place, Family::V4);
    let wanted = state(Family::V4);
    ipvs.apply(&difference(&wanted, &State::default())).unwrap();
    let told = || {
        let served = Served::take(&place.netns, Mode::Ipvs, Path::new(""));
        let there = served.v4.servers.unwrap().unwrap();
        there.differences(&Servers::of(&wanted, BTreeSet::new()), &BTreeSet::new())
    };
    // It is none of podnet's.
    assert_eq!(told(), ["there is no set KUBE-MARKS"]);
    for line in [
        "ipvsadm -E -t 10.96.0.1:80 -s fo",
        "ipvsadm -E -u 10.96.0.20:53 -s rr -o",
        "ipvsadm -E -f 2147483647 -s mh -p 10800 -M 255.255.255.0",
        "ipvsadm -e -t 10.96.0.23:80 -r 10.1.0.1:80 -i",
        "ipvsadm -e -t 10.96.0.3:80 -r 10.1.0.1:8080 -m -w 9",
        "ipvsadm -d -t 10.96.0.4:80 -r 10.1.0.1:8080",
        "ipvsadm -a -t 10.96.0.5:80 -r 10.9.0.1:8080 -m",
        "ipvsadm -A -t 10.97.0.1:80 -s rr",
        "ip addr del 10.96.0.1/32 dev kube-ipvs0",
        "ip addr add 10.97.0.1/32 dev kube-ipvs0",
        "ipset del KUBE-NODE-PORT-TCP 30000",
    ] {
        place.command(line);
    }
    let all = told();
    for words in [
        "virtual server 10.96.0.4:80/TCP has no real server 10.1.0.1:8080",
        "virtual server 10.96.0.5:80/TCP has the real server 10.9.0.1:8080, which nobody asked for",
        "the real server 10.1.0.1:8080 of virtual server 10.96.0.3:80/TCP has the weight 9 and not 1",
        "kube-ipvs0 has no address 10.96.0.1, or not as podnet gives it",
        "set KUBE-NODE-PORT-TCP lacks 30000",
    ] {
        assert!(all.iter().any(|told| told == words), "{words}: {all:?}");
    }
    let there = ipvs.read(&names(&wanted)).unwrap();
    let edits = difference(&wanted, &there);
    assert_eq!(edits.len(), 11, "{edits:?}");
    ipvs.apply(&edits).unwrap();
    assert_eq!(ipvs.read(&names(&wanted)).unwrap(), wanted);
    // A device that went took its addresses along.
    place.command("ip link del kube-ipvs0");
    let there = ipvs.read(&names(&wanted)).unwrap();
    assert!(there.addrs.is_empty());
    ipvs.apply(&difference(&wanted, &there)).unwrap();
    assert_eq!(ipvs.read(&names(&wanted)).unwrap(), wanted);
}

#[test]
#[ignore = "runs in the virtual machine"]
fn machine_addresses_answer_at_once_on_a_device_that_is_down() {
    let place = Namespace::new("device");
    sysctl::set(&place.netns, "net.ipv6.conf.default.accept_dad", "1").unwrap();
    for family in Family::ALL {
        let mut ipvs = open(&place, family);
        let addrs: Vec<IpAddr> = (1..=3).map(|number| addr(family, 96, number)).collect();
        ipvs.apply(&addrs.iter().map(|addr| Edit::AddAddress(*addr)).collect::<Vec<_>>()).unwrap();
        // No packet is sent before the address is in force: a bind is refused otherwise.
        for addr in &addrs {
            place.netns.run(|| TcpListener::bind((*addr, 80))).unwrap().unwrap();
        }
        place.command(&format!("ping -c 1 -W 5 {}", addrs[2]));
        let shown = place.command(&format!("ip addr show to {}", addrs[0]));
        let (scope, life) =
            if family == Family::V4 { ("host", "forever") } else { ("global nodad deprecated", "0sec") };
        assert!(shown.contains(&format!("scope {scope} ")), "{shown}");
        assert!(shown.contains(&format!("valid_lft forever preferred_lft {life}")), "{shown}");
        let lasting = addresses::list_lasting(&mut RtSocket::open_in(&place.netns).unwrap()).unwrap();
        assert!(lasting.iter().all(|(_, net)| !addrs.contains(&net.addr())), "they are not the node's: {lasting:?}");
        ipvs.remove_device().unwrap();
    }
    let shown = place.command("ip link show kube-ipvs0");
    assert!(shown.contains("<BROADCAST,NOARP>") && shown.contains("state DOWN"), "{shown}");
    for family in Family::ALL {
        let edits: Vec<Edit> = (1..=3).map(|number| Edit::RemoveAddress(addr(family, 96, number))).collect();
        let mut ipvs = open(&place, family);
        ipvs.apply(&edits).unwrap();
        ipvs.remove_device().unwrap();
        assert_eq!(
            place.command("ip link").contains(DEVICE),
            family == Family::V4,
            "only when both families' are gone"
        );
    }
    place.command("ip link add kube-ipvs0 type veth peer name other");
    let error = open(&place, Family::V4).apply(&[Edit::AddAddress(addr(Family::V4, 96, 1))]).unwrap_err();
    assert!(error.to_string().starts_with("device kube-ipvs0 is a veth;"), "{error}");
}

#[test]
#[ignore = "runs in the virtual machine"]
fn machine_settings_are_the_namespaces() {
    let (place, other) = (Namespace::new("settings"), Namespace::new("unset"));
    open(&other, Family::V4);
    let before = other.command("ipvsadm -L --timeout");
    let settings = Settings {
        tcp_timeout: Some(Duration::from_secs(901)),
        tcp_fin_timeout: None,
        udp_timeout: Some(Duration::from_millis(4500)),
        strict_arp: true,
    };
    ipvs::configure(&place.netns, &settings).unwrap();
    ipvs::configure(&place.netns, &Settings::default()).unwrap();
    assert_eq!(place.command("ipvsadm -L --timeout").trim(), "Timeout (tcp tcpfin udp): 901 120 5");
    assert_eq!(other.command("ipvsadm -L --timeout"), before);
    for (key, value) in [
        ("net.ipv4.vs.conntrack", "1"),
        ("net.ipv4.vs.expire_nodest_conn", "1"),
        ("net.ipv4.vs.expire_quiescent_template", "1"),
        ("net.ipv4.vs.conn_reuse_mode", "1"),
        ("net.ipv4.conf.all.arp_ignore", "1"),
        ("net.ipv4.conf.all.arp_announce", "2"),
    ] {
        assert_eq!(sysctl::read(&place.netns, key).unwrap(), value, "{key}");
    }
}

#[test]
#[ignore = "runs in the virtual machine"]
fn machine_a_refusal_is_named() {
    let place = Namespace::new("refused");
    let mut ipvs = open(&place, Family::V4);
    let (one, other) = (key(Family::V4, 1, Protocol::Tcp, 80), key(Family::V4, 2, Protocol::Tcp, 80));
    let real = BackendAddress { addr: addr(Family::V4, 1, 1), port: 8080 };
    let edits = [Edit::AddServer(one, plain(MISSING)), Edit::AddServer(other, plain(Scheduler::RoundRobin))];
    let error = ipvs.apply(&edits).unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot make virtual server 10.96.0.1:80/TCP (the kernel says: it has no scheduler lblcr, module ip_vs_lblcr)"
    );
    let error = ipvs.apply(&[Edit::AddReal(other, real, 1), Edit::AddReal(one, real, 1)]).unwrap_err();
    assert_eq!(error.to_string(), "cannot add real server 10.1.0.1:8080 of virtual server 10.96.0.1:80/TCP");
    let there = ipvs.read(&[]).unwrap();
    assert_eq!(there.servers.keys().collect::<Vec<_>>(), [&other], "neighbours of what was refused are done");
    assert_eq!(there.servers[&other].reals, [(real, 1)].into());
    // A real server that is to have connections again is made anew; without its virtual server it cannot be.
    let lost = BackendAddress { port: 1, ..real };
    ipvs.apply(&[Edit::Weigh(other, lost, 5)]).unwrap();
    assert_eq!(ipvs.read(&[]).unwrap().servers[&other].reals, [(lost, 5), (real, 1)].into());
    let error = ipvs.apply(&[Edit::Weigh(one, real, 5)]).unwrap_err();
    assert_eq!(error.to_string(), "cannot weigh 5 real server 10.1.0.1:8080 of virtual server 10.96.0.1:80/TCP");
}

/// What the mode needs is all there, and the trial leaves nothing.
#[test]
#[ignore = "runs in the virtual machine"]
fn machine_has_what_the_mode_needs() {
    let place = Namespace::new("probe");
    let found = place.netns.run(capabilities::probe).unwrap();
    assert_eq!(found.lacks.get(&Mode::Ipvs), None, "{found:?}");
    assert_eq!(place.command("ipvsadm -Sn") + &place.command("ipset save"), "");
    assert!(!place.command("ip link").contains(DEVICE));
}

#[test]
#[ignore = "runs in the virtual machine"]
fn machine_thousands_go_in_at_once() {
    const SERVERS: u16 = 2_000;
    let place = Namespace::new("many");
    let mut ipvs = open(&place, Family::V6);
    let server = || Server { scheduling: plain(Scheduler::RoundRobin), reals: reals(Family::V6, &[1; 10]) };
    let servers = (0..SERVERS).map(|number| (key(Family::V6, number, Protocol::Tcp, 80), server()));
    let wanted = State { servers: servers.collect(), ..State::default() };
    let edits = difference(&wanted, &State::default());
    let begun = Instant::now();
    ipvs.apply(&edits).unwrap();
    let written = begun.elapsed();
    assert!(ipvs.read(&[]).unwrap() == wanted, "what is read is not what was written");
    println!("{} edits: written in {written:?}, read in {:?}", edits.len(), begun.elapsed() - written);
    let begun = Instant::now();
    ipvs.apply(&difference(&State::default(), &wanted)).unwrap();
    println!("removed in {:?}", begun.elapsed());
    assert_eq!(ipvs.read(&[]).unwrap(), State::default());
}
