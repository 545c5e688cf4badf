//! Virtual servers, with the sets and addresses that go with them.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fmt::Write as _,
    net::IpAddr,
};

use podnet_model::Family;
use podnet_planner::{
    ipvs::{DEVICE, NOTES, PLACES, ROUTES, Scheduling, Set as PlannedSet, State},
    ruleset::FrontendKey,
    services::ipvs::names,
};
use serde::{Deserialize, Serialize};

use super::{Untold, take_room};
use crate::{
    ipvs::{self, Ipvs},
    netns::NetNs,
    route::attraction::attracted_by,
};

/// What there is of one family, everybody's virtual servers among it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Servers {
    /// By whose packets are theirs.
    servers: BTreeMap<String, Server>,
    /// Of the device that has virtual servers' addresses, such as podnet gives them to it.
    addrs: BTreeSet<IpAddr>,
    /// To which what is marked is led to this node.
    led: BTreeSet<IpAddr>,
    sets: BTreeMap<String, Set>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Server {
    scheduling: String,
    /// With their weights.
    reals: BTreeMap<String, u32>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Set {
    kind: String,
    /// With the marks that they give.
    elements: BTreeMap<String, Option<u32>>,
}

impl Servers {
    /// A state in words, where the routes of virtual servers lead to these addresses.
    #[must_use]
    pub fn of(state: &State, led: BTreeSet<IpAddr>) -> Self {
        let servers = state.servers.iter().map(|(key, server)| {
            let reals = server.reals.iter().map(|(at, weight)| (at.to_string(), *weight)).collect();
            (key.to_string(), Server { scheduling: scheduled(&server.scheduling), reals })
        });
        let sets = state.sets.iter().map(|(name, set)| {
            let elements = set.elements.iter().map(|(element, mark)| (element.to_string(), *mark)).collect();
            (name.to_string(), Set { kind: kind(set), elements })
        });
        Self { servers: servers.collect(), addrs: state.addrs.clone(), led, sets: sets.collect() }
    }

    pub(super) fn take(netns: &NetNs, family: Family, room: &mut usize) -> Result<Self, Untold> {
        // Asking would load the modules. Where they are not there nothing is.
        if !ipvs::is_loaded(netns) {
            return Ok(Self::default());
        }
        let mut kernel = Ipvs::open(netns, family)?;
        let mut state = kernel.read(&names(family))?;
        state.addrs.retain(|addr| !kernel.strange().contains(addr));
        let reals = state.servers.values().map(|server| server.reals.len() + 1).sum::<usize>();
        let elements = state.sets.values().map(|set| set.elements.len()).sum::<usize>();
        take_room(room, reals + elements + state.addrs.len(), "real servers and elements of sets")?;
        Ok(Self::of(&state, attracted_by(netns, family, ROUTES)?))
    }

    /// What of that which is wanted is not there as it has to be, and what is there besides for these frontends, in words. What is on its way
    /// out for the sake of connections is no difference.
    #[must_use]
    pub fn differences(&self, wanted: &Self, frontends: &BTreeSet<FrontendKey>) -> Vec<String> {
        let mut told = Vec::new();
        for (key, server) in &wanted.servers {
            match self.servers.get(key) {
                None => told.push(format!("there is no {key}")),
                Some(there) => there.tell_differences(key, server, &mut told),
            }
        }
        let addrs = wanted.addrs.difference(&self.addrs);
        told.extend(addrs.map(|addr| format!("{DEVICE} has no address {addr}, or not as podnet gives it")));
        let led = wanted.led.difference(&self.led);
        told.extend(led.map(|addr| format!("no route of table {ROUTES} leads {addr} to the node")));
        let place_of = |key: &FrontendKey| format!("{},{}:{}", key.addr, key.protocol, key.port);
        let places: HashSet<String> = frontends.iter().map(place_of).collect();
        for (name, set) in &wanted.sets {
            match self.sets.get(name) {
                None => told.push(format!("there is no set {name}")),
                Some(there) if there.kind != set.kind => {
                    told.push(format!("set {name} is {} and not {}", there.kind, set.kind));
                }
                Some(there) => there.tell_differences(name, set, &places, &mut told),
            }
        }
        told
    }
}

impl Server {
    fn tell_differences(&self, key: &str, wanted: &Self, told: &mut Vec<String>) {
        if self.scheduling != wanted.scheduling {
            told.push(format!("{key} chooses by {} and not by {}", self.scheduling, wanted.scheduling));
        }
        for (real, weight) in &wanted.reals {
            match self.reals.get(real) {
                None => told.push(format!("{key} has no real server {real}")),
                Some(there) if there != weight => {
                    told.push(format!("the real server {real} of {key} has the weight {there} and not {weight}"));
                }
                Some(_) => {}
            }
        }
        // One without weight gets no new connections: it is on its way out.
        let more = self.reals.iter().filter(|(real, weight)| **weight > 0 && !wanted.reals.contains_key(*real));
        told.extend(more.map(|(real, _)| format!("{key} has the real server {real}, which nobody asked for")));
    }
}

impl Set {
    fn tell_differences(&self, name: &str, wanted: &Self, places: &HashSet<String>, told: &mut Vec<String>) {
        for (element, mark) in &wanted.elements {
            match self.elements.get(element) {
                None => told.push(format!("set {name} lacks {element}")),
                Some(there) if there != mark => told.push(format!("{element} of set {name} has another mark")),
                Some(_) => {}
            }
        }
        // What is leaving stays noted.
        if name.ends_with(NOTES) || PLACES.iter().any(|ending| name.ends_with(ending)) {
            return;
        }
        let is_more = |element: &&String| !wanted.elements.contains_key(*element) && places.contains(place(element));
        told.extend(
            self.elements.keys().filter(is_more).map(|element| format!("set {name} has {element}, which is not to be")),
        );
    }
}

/// The address, protocol and port that an element begins with.
fn place(element: &str) -> &str {
    element.match_indices(',').nth(1).map_or(element, |(at, _)| &element[..at])
}

fn scheduled(scheduling: &Scheduling) -> String {
    let Scheduling { scheduler, fallback, port, persistence } = scheduling;
    let mut words = scheduler.to_string();
    for (flag, is_set) in [("fallback", fallback), ("port", port)] {
        if *is_set {
            let _ = write!(words, " {scheduler}-{flag}");
        }
    }
    if let Some(seconds) = persistence {
        let _ = write!(words, " persistent {seconds}");
    }
    words
}

fn kind(set: &PlannedSet) -> String {
    let marks = if set.kind.marks { " skbinfo" } else { "" };
    format!("{}{marks}", set.kind.of.name())
}
