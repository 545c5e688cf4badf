//! Which list a frontend has, and which group.

use std::collections::{HashMap, HashSet};

use podnet_model::{Family, PortName, ServiceKey};

use super::{Serving, Tables};
use crate::ruleset::FrontendKey;

/// Larger ones that are found are not podnet's: there is one number for each frontend at most.
const LARGEST: u32 = 1 << 30;

/// A port of a Service, in one family.
type Port = (ServiceKey, PortName, Family);

#[derive(Debug, Default)]
pub(super) struct Numbers {
    lists: HashMap<FrontendKey, u32>,
    /// Of ports with affinity: their number, and how many frontends have it.
    groups: HashMap<Port, (u32, usize)>,
    free_lists: Vec<u32>,
    free_groups: Vec<u32>,
    next_list: u32,
    next_group: u32,
    /// The members of groups. A frontend that moves is one of both until it has left the former.
    grouped: HashSet<(FrontendKey, u32)>,
}

impl Numbers {
    /// With the numbers that stand there for what is wanted, and none that stands there for anything else.
    pub(super) fn from(there: &Tables, wanted: &[(&FrontendKey, &Serving)]) -> Self {
        let mut numbers = Self::default();
        let (mut lists, mut groups) = (HashSet::new(), HashMap::new());
        for (key, serving) in wanted {
            let Some(entry) = there.frontends.get(key) else { continue };
            if entry.list < LARGEST && lists.insert(entry.list) {
                numbers.lists.insert(**key, entry.list);
            }
            if let Some(affinity) = entry.affinity.filter(|affinity| affinity.group < LARGEST) {
                let port = port(key, serving);
                if groups.get(&affinity.group).is_none_or(|other| *other == port) {
                    groups.insert(affinity.group, port.clone());
                    numbers.groups.entry(port).or_insert((affinity.group, 0));
                }
            }
        }
        let after =
            |all: &mut dyn Iterator<Item = u32>| all.filter(|number| *number < LARGEST).max().map_or(1, |max| max + 1);
        let lists = there.frontends.values().map(|entry| entry.list);
        numbers.next_list = after(&mut lists.chain(there.backends.keys().map(|slot| slot.list)));
        let groups = there.frontends.values().filter_map(|entry| entry.affinity);
        numbers.next_group = after(&mut groups.map(|affinity| affinity.group));
        numbers
    }

    /// Numbers that nobody has, now that nothing of before is there any more, are free.
    pub(super) fn close_gaps(&mut self) {
        self.groups.retain(|_, (_, members)| *members > 0);
        let lists: HashSet<u32> = self.lists.values().copied().collect();
        self.free_lists = (1..self.next_list).filter(|number| !lists.contains(number)).collect();
        let groups: HashSet<u32> = self.groups.values().map(|(group, _)| *group).collect();
        self.free_groups = (1..self.next_group).filter(|number| !groups.contains(number)).collect();
    }

    /// How many lists there are.
    pub(super) fn lists(&self) -> usize {
        self.lists.len()
    }

    /// The frontend's list.
    pub(super) fn list(&mut self, key: &FrontendKey) -> u32 {
        *self.lists.entry(*key).or_insert_with(|| take(&mut self.free_lists, &mut self.next_list))
    }

    /// The frontend's group.
    pub(super) fn group(&mut self, key: &FrontendKey, serving: &Serving) -> u32 {
        let group = self.groups.entry(port(key, serving));
        let (group, members) = group.or_insert_with(|| (take(&mut self.free_groups, &mut self.next_group), 0));
        if self.grouped.insert((*key, *group)) {
            *members += 1;
        }
        *group
    }

    /// Gives back what a frontend does not need any more.
    pub(super) fn leave(&mut self, key: &FrontendKey, before: Option<&Serving>, after: Option<&Serving>) {
        if after.is_none() {
            self.free_lists.extend(self.lists.remove(key));
        }
        let group = |serving: Option<&Serving>| {
            serving
                .filter(|serving| serving.affinity.is_some_and(|seconds| seconds > 0))
                .map(|serving| port(key, serving))
        };
        let (before, after) = (group(before), group(after));
        let Some(left) = before.filter(|before| after.as_ref() != Some(before)) else { return };
        if let Some((group, members)) = self.groups.get_mut(&left)
            && self.grouped.remove(&(*key, *group))
        {
            *members -= 1;
            if *members == 0 {
                self.free_groups.push(*group);
                self.groups.remove(&left);
            }
        }
    }
}

fn port(key: &FrontendKey, serving: &Serving) -> Port {
    (serving.service.clone(), serving.port.clone(), Family::of(&key.addr))
}

fn take(free: &mut Vec<u32>, next: &mut u32) -> u32 {
    free.pop().unwrap_or_else(|| {
        *next = (*next).max(1);
        let number = *next;
        *next += 1;
        number
    })
}
