//! What is written to the kernel.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use podnet_model::{Family, Protocol};
use podnet_planner::{
    ipvs::{Element, Scheduler, Scheduling, Server, ServerKey, Set, SetKind, SetName, SetType, State},
    ruleset::{BackendAddress, FrontendKey},
};

/// Its module is not loaded.
pub(crate) const MISSING: Scheduler = Scheduler::LocalityLeastConnectionReplicated;

pub(crate) fn addr(family: Family, net: u8, number: u16) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::from(u32::from_be_bytes([10, net, 0, 0]) + u32::from(number)).into(),
        Family::V6 => Ipv6Addr::new(0xfd00, net.into(), 0, 0, 0, 0, 0, number).into(),
    }
}

pub(crate) fn key(family: Family, number: u16, protocol: Protocol, port: u16) -> ServerKey {
    ServerKey::Address(FrontendKey { addr: addr(family, 96, number), protocol, port })
}

pub(crate) const fn plain(scheduler: Scheduler) -> Scheduling {
    Scheduling { scheduler, fallback: false, port: false, persistence: None }
}

pub(crate) fn reals(family: Family, weights: &[u32]) -> BTreeMap<BackendAddress, u32> {
    let real = |number| BackendAddress { addr: addr(family, 1, number), port: 8080 };
    (1..).map(real).zip(weights.iter().copied()).collect()
}

/// Every scheduler, flag, protocol and sort of key, with sets and addresses.
pub(crate) fn state(family: Family) -> State {
    let mut servers = BTreeMap::new();
    let schedulers = Scheduler::ALL.into_iter().filter(|scheduler| *scheduler != MISSING);
    for (number, scheduler) in (1..).zip(schedulers) {
        let server = Server { scheduling: plain(scheduler), reals: reals(family, &[1, 0, 7]) };
        servers.insert(key(family, number, Protocol::Tcp, 80), server);
    }
    let hash = |scheduler, fallback, port| Scheduling { fallback, port, ..plain(scheduler) };
    let more = [
        (key(family, 20, Protocol::Udp, 53), hash(Scheduler::Maglev, true, true)),
        (key(family, 20, Protocol::Sctp, 65535), hash(Scheduler::SourceHash, false, true)),
        (key(family, 21, Protocol::Tcp, 80), hash(Scheduler::SourceHash, true, false)),
        (ServerKey::Mark(1), plain(Scheduler::RoundRobin)),
        (ServerKey::Mark(0x7fff_ffff), Scheduling { persistence: Some(10_800), ..plain(Scheduler::Maglev) }),
        (
            key(family, 22, Protocol::Tcp, 80),
            Scheduling { persistence: Some(1), ..plain(Scheduler::WeightedRoundRobin) },
        ),
    ];
    for (key, scheduling) in more {
        servers.insert(key, Server { scheduling, reals: reals(family, &[1, 1]) });
    }
    let untranslated = [(BackendAddress { addr: addr(family, 1, 1), port: 80 }, 1)].into();
    servers.insert(
        key(family, 23, Protocol::Tcp, 80),
        Server { scheduling: plain(Scheduler::RoundRobin), reals: untranslated },
    );
    servers.insert(
        key(family, 23, Protocol::Tcp, 81),
        Server { scheduling: plain(Scheduler::RoundRobin), reals: BTreeMap::new() },
    );
    let element = Element::Port(addr(family, 96, 1), Protocol::Tcp, 80);
    let from = Element::PortFrom(addr(family, 1, 1), Protocol::Udp, 53, addr(family, 1, 1));
    let suffix = if family == Family::V4 { "" } else { "6-" };
    let set = |name: &str, kind, element, mark| {
        (SetName::from(format!("KUBE-{suffix}{name}")), Set { kind, elements: [(element, mark)].into() })
    };
    let sets = [
        set("CLUSTER-IP", SetKind::plain(SetType::Port), element, None),
        set("MARKS", SetKind { of: SetType::Port, marks: true }, element, Some(7)),
        set("LOOP-BACK", SetKind::plain(SetType::PortFrom), from, None),
        set("NODE-PORT-TCP", SetKind::plain(SetType::PortAlone), Element::PortAlone(30000), None),
    ];
    State { servers, addrs: (1..=23).map(|number| addr(family, 96, number)).collect(), sets: sets.into() }
}

pub(crate) fn names(state: &State) -> Vec<SetName> {
    state.sets.keys().cloned().collect()
}
