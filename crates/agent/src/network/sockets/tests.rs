//! With the real programs, at a cgroup without processes.

use std::{io::Read, process::Command};

use podnet_kernel::{memory::MemoryKernel, netns::NetNs, sockets::Sizes};
use podnet_model::{
    Change, ClusterIp, Endpoint, EndpointSlice, Family, PodAddr, Protocol, Service, ServiceKey, ServicePort, SliceKey,
    TargetPort,
    endpoints::EndpointPort,
    service::{Port, ServiceKind},
};
use podnet_planner::{
    border::BorderConfig,
    services::{
        ServicesConfig,
        ebpf::{Edits, Tables},
    },
};

use super::*;

/// A cgroup that goes with the value, and the programs with it.
struct Group(Cgroup);

impl Group {
    fn new(tag: &str) -> Self {
        Self(Cgroup::v2(format!("pntest-agent-{tag}-{}", std::process::id())).unwrap())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = self.0.remove_tree(Duration::from_secs(1));
    }
}

fn rules() -> ClusterRules {
    let services = ServicesConfig::new(Family::V4, "node1".into(), Vec::new());
    let border =
        BorderConfig { family: Family::V4, node_addrs: Vec::new(), pod_cidrs: Vec::new(), no_nat_cidrs: Vec::new() };
    ClusterRules::new(&services, &border)
}

fn service(number: u8, is_there: bool) -> Change {
    let key = ServiceKey::new("default", &format!("s{number}"));
    let port = Port { name: "".into(), protocol: Protocol::Tcp, port: ServicePort(80), node_port: None };
    let kind = ServiceKind::Virtual { cluster_ips: vec![ClusterIp([10, 96, 0, number].into())] };
    Change::Service(key.clone(), is_there.then(|| Service::new(key, kind, vec![port])))
}

fn slice(number: u8, endpoints: u8) -> Change {
    let key = SliceKey::new("default", &format!("s{number}-1"));
    let port = EndpointPort { name: "".into(), protocol: Protocol::Tcp, port: TargetPort(8080) };
    let endpoint = |last| Endpoint::new(PodAddr([10, 0, number, last].into()));
    let slice = EndpointSlice {
        key: key.clone(),
        service: ServiceKey::new("default", &format!("s{number}")),
        ports: vec![port],
        endpoints: (1..=endpoints).map(endpoint).collect(),
        triggered: None,
        unproxied: false,
    };
    Change::Slice(key, Some(slice))
}

fn tables(at: &AtSockets) -> Tables {
    at.programs.as_ref().unwrap().tables().unwrap()
}

/// What an agent that starts now would change.
fn differs(group: &Group, rules: &ClusterRules) -> usize {
    let there = Sockets::open(&group.0, Sizes::LEAST).unwrap().tables().unwrap();
    Ebpf::default().desired(rules.servings(), &there).edits_from(&there).len()
}

#[test]
fn what_changes_is_what_an_agent_would_make_that_starts_now() {
    let group = Group::new("changes");
    let mut rules = rules();
    rules.put(&mut MemoryKernel::new()).unwrap();
    let mut at = AtSockets::open(group.0.clone()).unwrap();
    for change in [service(1, true), slice(1, 3), slice(2, 2)] {
        rules.learn(&change);
    }
    at.put(&mut rules).unwrap();
    assert_eq!((tables(&at).frontends.len(), tables(&at).backends.len()), (1, 3));
    // Several changes of one frontend are one, and what comes and goes in between is nothing.
    for changes in [
        vec![service(2, true), slice(1, 5), slice(1, 1)],
        vec![service(3, true), service(3, false)],
        vec![service(1, false), slice(2, 9), service(1, true), slice(1, 4)],
        vec![slice(1, 0)],
    ] {
        changes.iter().for_each(|change| rules.learn(change));
        let edits = at.edit(&mut rules).unwrap();
        assert!(edits <= 12, "{edits} edits for {changes:?}");
        assert_eq!(differs(&group, &rules), 0, "{changes:?}");
    }
    assert_eq!((tables(&at).frontends.len(), tables(&at).backends.len()), (2, 9));
    // Another agent finds everything as it wants it, and so does one that missed something.
    let mut next = AtSockets::open(group.0.clone()).unwrap();
    rules.learn(&service(2, false));
    next.put(&mut rules).unwrap();
    assert_eq!((tables(&next).frontends.len(), tables(&next).backends.len()), (1, 0));
    AtSockets::take_away(&group.0);
    assert!(!sockets::detach(&group.0, false).unwrap() && sockets::detach(&group.0, true).unwrap());
}

#[test]
fn tables_that_are_full_are_made_larger() {
    let group = Group::new("grow");
    let mut rules = rules();
    rules.learn(&service(1, true));
    rules.learn(&slice(1, 3));
    let mut at = AtSockets::open(group.0.clone()).unwrap();
    let small = Sizes { frontends: 2, backends: 4 };
    at.programs = Some(Sockets::open(&group.0, small).unwrap());
    at.put(&mut rules).unwrap();
    assert_eq!(at.programs.as_ref().unwrap().sizes(), small);
    rules.learn(&slice(1, 4));
    at.edit(&mut rules).unwrap();
    assert_eq!(at.programs.as_ref().unwrap().sizes(), small);
    rules.learn(&slice(1, 5));
    at.edit(&mut rules).unwrap();
    assert_eq!(at.programs.as_ref().unwrap().sizes(), Sizes::LEAST);
    assert_eq!((tables(&at).backends.len(), differs(&group, &rules)), (5, 0));
}

#[test]
fn programs_that_were_taken_away_and_elements_that_were_changed_are_put_back() {
    let group = Group::new("mend");
    let mut rules = rules();
    rules.learn(&service(1, true));
    rules.learn(&slice(1, 3));
    let mut at = AtSockets::open(group.0.clone()).unwrap();
    at.put(&mut rules).unwrap();
    let look = |at: &mut AtSockets, rules: &mut ClusterRules| {
        at.next_look = Instant::now();
        at.look(rules).unwrap()
    };
    assert_eq!(look(&mut at, &mut rules), None);
    assert!(sockets::detach(&group.0, true).unwrap());
    assert_eq!(look(&mut at, &mut rules).unwrap(), "9 programs for sockets were taken away");
    assert_eq!(look(&mut at, &mut rules), None);
    let slot = *tables(&at).backends.first_key_value().unwrap().0;
    let damage = Edits { empty: vec![slot], ..Edits::default() };
    Sockets::open(&group.0, Sizes::LEAST).unwrap().apply(&damage).unwrap();
    let told: Vec<String> = (0..COMPARE).filter_map(|_| look(&mut at, &mut rules)).collect();
    assert_eq!(told, ["1 elements of the programs for sockets were changed"]);
    assert_eq!(differs(&group, &rules), 0);
}

/// A connection of a process in the cgroup to a backend that nobody names any more is ended within a second or so.
#[test]
fn a_connection_whose_backend_is_gone_is_ended_soon() {
    let group = Group::new("lost");
    group.0.create().unwrap();
    // Of this process, which is in the group for that time.
    let root = Cgroup::v2("").unwrap();
    let netns = NetNs::create(format!("/run/netns/podnet-test-lost-{}", std::process::id())).unwrap();
    netns.run(|| Command::new("ip").args(["link", "set", "lo", "up"]).status()).unwrap().unwrap();
    let listener = netns.run(|| std::net::TcpListener::bind("127.0.0.1:8080")).unwrap().unwrap();
    let mut at = AtSockets::open(group.0.clone()).unwrap();
    let mut rules = rules();
    rules.learn(&service(1, true));
    let slice_of = |addrs: &[[u8; 4]]| {
        let Change::Slice(key, Some(slice)) = slice(1, 0) else { panic!("a slice") };
        let endpoints = addrs.iter().map(|addr| Endpoint::new(PodAddr((*addr).into()))).collect();
        Change::Slice(key, Some(EndpointSlice { endpoints, ..slice }))
    };
    rules.learn(&slice_of(&[[127, 0, 0, 1]]));
    at.put(&mut rules).unwrap();
    group.0.add_self().unwrap();
    let inside = netns.run(|| Command::new("sleep").arg("60").spawn()).unwrap();
    let stream = netns.run(|| std::net::TcpStream::connect("10.96.0.1:80")).unwrap();
    root.add_self().unwrap();
    let (mut inside, mut stream) = (inside.unwrap(), stream.unwrap());
    let _held = listener.accept().unwrap();
    stream.set_nonblocking(true).unwrap();
    let mut waits = |at: &mut AtSockets, rules: &mut ClusterRules, patience: Duration| {
        let began = Instant::now();
        while began.elapsed() < patience {
            std::thread::sleep(at.due().saturating_duration_since(Instant::now()).min(Duration::from_millis(20)));
            at.look(rules).unwrap();
            match stream.read(&mut [0]) {
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                ended => return Err(format!("{ended:?} after {:?}", began.elapsed())),
            }
        }
        Ok(())
    };
    at.lost.suspect();
    assert_eq!(waits(&mut at, &mut rules, Duration::from_millis(1500)), Ok(()), "its backend is there");
    rules.learn(&slice_of(&[[127, 0, 0, 2]]));
    at.edit(&mut rules).unwrap();
    at.lost.suspect();
    let ended = waits(&mut at, &mut rules, Duration::from_secs(20)).unwrap_err();
    println!("{ended}");
    assert!(ended.contains("ConnectionAborted"), "{ended}");
    inside.kill().unwrap();
    inside.wait().unwrap();
    NetNs::remove(format!("/run/netns/podnet-test-lost-{}", std::process::id())).unwrap();
}
