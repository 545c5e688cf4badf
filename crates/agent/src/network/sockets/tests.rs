//! With the real programs, at a cgroup without processes.

use podnet_kernel::{memory::MemoryKernel, sockets::Sizes};
use podnet_model::{
    Change, ClusterIp, Endpoint, EndpointSlice, Family, PodAddr, Protocol, Service, ServiceKey, ServicePort, SliceKey,
    TargetPort,
    endpoints::EndpointPort,
    service::{Port, ServiceKind},
};
use podnet_planner::{
    border::BorderConfig,
    ruleset::BackendAddress,
    services::{
        ServicesConfig,
        ebpf::{Edits, Tables, Target},
    },
};

use super::*;
use crate::network::rules::tests::OfServers;

mod lost;

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
    at.next_compare = Instant::now();
    let look = |at: &mut AtSockets, rules: &mut ClusterRules| {
        at.next_look = Instant::now();
        at.next_count = at.next_look;
        at.look(rules).unwrap()
    };
    assert_eq!(look(&mut at, &mut rules), None);
    assert!(sockets::detach(&group.0, true).unwrap());
    assert_eq!(look(&mut at, &mut rules).unwrap(), "9 programs for sockets were taken away");
    assert_eq!(look(&mut at, &mut rules), None);
    let wait = |at: &mut AtSockets| at.next_compare = Instant::now() + Duration::from_secs(60);
    let others = Sockets::open(&group.0, Sizes::LEAST).unwrap();
    let (slot, target) = tables(&at).backends.first_key_value().map(|(slot, target)| (*slot, *target)).unwrap();
    others.apply(&Edits { empty: vec![slot], ..Edits::default() }).unwrap();
    wait(&mut at);
    let one = "1 elements of the programs for sockets were changed";
    assert_eq!(look(&mut at, &mut rules).unwrap(), one, "one that is gone shows before all are compared");
    assert_eq!(tables(&at).backends.get(&slot), Some(&target));
    let elsewhere = Target { at: BackendAddress { port: 1, ..target.at }, ..target };
    others.apply(&Edits { fill: vec![(slot, elsewhere)], ..Edits::default() }).unwrap();
    wait(&mut at);
    assert_eq!(look(&mut at, &mut rules), None, "a comparison waits after the one before");
    at.next_compare = Instant::now();
    assert_eq!(look(&mut at, &mut rules).unwrap(), one);
    assert_eq!(differs(&group, &rules), 0);
}

#[test]
fn nothing_is_at_the_sockets_before_the_mode_is_taken() {
    let group = Group::new("refused");
    let mut rules = rules();
    rules.learn(&service(1, true));
    let mut place = SocketsPlace::new(group.0.path().to_path_buf());
    for _ in 0..2 {
        place.prepare(Mode::Ebpf).unwrap();
        // The rules were refused, and changes come in.
        let change = slice(1, 3);
        rules.learn(&change);
        place.heard(&change);
        assert_eq!(place.edit(&mut rules).unwrap(), 0);
        place.put(&mut rules).unwrap();
        place.look(&mut rules).unwrap();
        assert!(place.due().is_none() && !sockets::detach(&group.0, false).unwrap());
    }
    place.follow(Mode::Ebpf, &mut rules).unwrap();
    assert!(place.due().is_some());
    assert_eq!(differs(&group, &rules), 0);
    assert!(sockets::detach(&group.0, false).unwrap());
}

#[test]
fn what_is_not_in_force_is_not_looked_at_without_a_pause() {
    let group = Group::new("pause");
    let mut rules = rules();
    let mut at = AtSockets::open(group.0.clone()).unwrap();
    at.put(&mut rules).unwrap();
    at.in_force = false;
    let began = Instant::now();
    while at.due().is_some_and(|due| due <= Instant::now()) {
        at.look(&mut rules).unwrap();
        assert!(began.elapsed() < Duration::from_secs(20), "it is due for ever");
    }
}

#[test]
fn what_leads_to_backends_that_virtual_servers_remember_comes_to_the_sockets_when_they_do_not() {
    let group = Group::new("remembered");
    group.0.create().unwrap();
    let mut before = OfServers::new();
    for change in [service(1, true), slice(1, 3), service(2, true), slice(2, 2)] {
        before.rules.learn(&change);
    }
    let backend = BackendAddress { addr: [10, 0, 1, 2].into(), port: 8080 };
    before.remember([(Protocol::Tcp, backend)].into());
    before.leave();
    let mut place = SocketsPlace::new(group.0.path().to_owned());
    place.prepare(Mode::Ebpf).unwrap();
    place.follow(Mode::Ebpf, &mut before.rules).unwrap();
    let served = |place: &SocketsPlace| {
        let there = tables(place.at.as_ref().unwrap());
        (there.frontends.len(), there.backends.len(), place.left_to_rules())
    };
    assert_eq!(served(&place), (1, 2, 1), "the other Service is at the sockets at once");
    // Of a Service whose endpoint goes nothing keeps it from them.
    before.rules.learn(&slice(1, 1));
    place.edit(&mut before.rules).unwrap();
    assert_eq!(served(&place), (2, 3, 1));
    before.rules.learn(&slice(1, 3));
    place.edit(&mut before.rules).unwrap();
    let wait = |place: &mut SocketsPlace| {
        place.at.as_mut().unwrap().next_compare = Instant::now() + Duration::from_secs(60);
    };
    wait(&mut place);
    let other = BackendAddress { addr: [10, 0, 2, 1].into(), port: 8080 };
    before.remember([backend, other].map(|backend| (Protocol::Tcp, backend)).into());
    place.look(&mut before.rules).unwrap();
    assert_eq!(served(&place), (0, 0, 2), "more cannot wait");
    before.remember(Remembered::new());
    wait(&mut place);
    place.look(&mut before.rules).unwrap();
    assert_eq!(served(&place), (0, 0, 2), "fewer can");
    place.at.as_mut().unwrap().next_compare = Instant::now();
    place.look(&mut before.rules).unwrap();
    assert_eq!(served(&place), (2, 5, 0));
    assert!(sockets::detach(&group.0, false).unwrap());
}
