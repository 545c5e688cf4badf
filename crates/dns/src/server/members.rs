//! Zones that catalogs list (RFC 9432): fetched from where the catalog comes from, added and removed as it changes.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use super::{Event, Server, allowance::Allowance, fetched::Fetched, lock};
use crate::{
    authority::{
        Held,
        catalog::{Catalog, LeftOut, Roster, Step},
        tsig::Key,
    },
    chain::Fallthrough,
    name::{Name, QueryName},
    plugin::ServedZone,
};

/// How many zones that are left out are told by name.
const NAMED: usize = 5;

/// A catalog that the Corefile names.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) held: Arc<Held>,
    /// Whom to ask for the zones that it lists.
    pub(super) primaries: Vec<SocketAddr>,
    pub(super) key: Option<Arc<Key>>,
    /// Which zones it may list: those within these; none means any.
    pub(super) may: Vec<Name>,
    /// What these may have together.
    pub(super) allowance: Arc<Allowance>,
    pub(super) fallthrough: Fallthrough,
}

/// The zones that the catalogs of one server block list.
#[derive(Debug)]
pub struct Members {
    catalogs: Vec<Source>,
    /// Zones that the Corefile names, which no catalog overrides.
    named: Vec<Name>,
    /// Those of them that a plugin behind answers for, by names that it is asked for alone (`etcd`).
    stored: Vec<Name>,
    /// The zones of the server block.
    around: Vec<Name>,
    roster: Mutex<Roster>,
    /// By their names' wire forms.
    served: RwLock<HashMap<Box<[u8]>, Arc<Member>>>,
}

#[derive(Debug)]
struct Member {
    served: Arc<ServedZone>,
    fetched: Arc<Fetched>,
}

impl Members {
    /// No member is known yet.
    pub(super) fn new(catalogs: Vec<Source>, named: Vec<Name>, stored: Vec<Name>, around: Vec<Name>) -> Self {
        Self { catalogs, named, stored, around, roster: Mutex::default(), served: RwLock::default() }
    }

    /// The member zone with the longest name that a name lies in, leaving `skip` of the name's labels out; none where a zone of a plugin
    /// behind has a longer one.
    #[must_use]
    pub fn above(&self, name: &QueryName, skip: usize) -> Option<Arc<ServedZone>> {
        let served = self.served.read().unwrap_or_else(PoisonError::into_inner);
        if served.is_empty() {
            return None;
        }
        let (above, member) =
            (skip..=name.labels()).find_map(|above| Some((above, served.get(name.suffix(above))?)))?;
        let longer = |zone: &Name| name.within(zone).is_some_and(|labels| (skip..above).contains(&labels));
        (!self.stored.iter().any(longer)).then(|| Arc::clone(&member.served))
    }

    /// A member zone.
    #[must_use]
    pub fn held(&self, zone: &Name) -> Option<Arc<Held>> {
        self.member(zone).map(|member| Arc::clone(&member.served.held))
    }

    /// How a member zone is kept new.
    pub(super) fn fetched(&self, zone: &Name) -> Option<Arc<Fetched>> {
        self.member(zone).map(|member| Arc::clone(&member.fetched))
    }

    /// How many bytes of records they have, with what is being fetched.
    pub(super) fn bytes(&self) -> usize {
        let served = self.served.read().unwrap_or_else(PoisonError::into_inner);
        served.values().map(|member| member.fetched.counted()).sum()
    }

    /// Members go on from those `before`; none of them is fetched yet.
    pub(super) fn resume(&self, before: &[&Self]) {
        let rosters: Vec<Roster> = before.iter().map(|old| lock(&old.roster).clone()).collect();
        let catalogs: Vec<Name> = self.catalogs.iter().map(|source| source.held.origin().clone()).collect();
        let roster = Roster::resumed(&rosters, &catalogs, &|catalog, zone| self.admits(catalog, zone));
        for (zone, owner) in roster.owners() {
            let mut same = before
                .iter()
                .zip(&rosters)
                .filter(|(_, roster)| roster.owner(zone).is_some_and(|old| old.id == owner.id));
            let old = same.find_map(|(old, _)| old.held(zone));
            self.add(zone, &owner.catalog, old.as_deref());
        }
        *lock(&self.roster) = roster;
    }

    /// Begins to fetch members, where those before left off, and takes catalogs in that came before they were taken for such, or while
    /// this server took over.
    pub(super) fn begin(&self, server: &Arc<Server>, before: &[&Self]) {
        let members: Vec<Arc<Fetched>> = {
            let served = self.served.read().unwrap_or_else(PoisonError::into_inner);
            served.values().map(|member| Arc::clone(&member.fetched)).collect()
        };
        for fetched in members {
            let old = before.iter().find_map(|old| old.fetched(fetched.held.origin()));
            fetched.begin(server, old.iter());
        }
        for source in &self.catalogs {
            self.changed(&source.held, server);
        }
    }

    /// A zone has another version: where it is a catalog, its members become those that it lists now.
    pub(super) fn changed(&self, held: &Arc<Held>, server: &Arc<Server>) {
        if !self.catalogs.iter().any(|source| Arc::ptr_eq(&source.held, held)) {
            return;
        }
        let Some(zone) = held.zone() else { return };
        let origin = held.origin();
        let tell = |told: &str, failed| (server.observer)(&Event::Zone { zone: origin, told, failed });
        let list = match Catalog::read(&zone) {
            Ok(list) => list,
            Err(error) => return tell(&format!("it is no catalog that can be used: {error}; its members stay"), true),
        };
        let changes = {
            // Held until it is done, so that what two catalogs change is done in the order in which it was decided.
            let mut roster = lock(&self.roster);
            let changes = roster.take(origin, list, &|catalog, zone| self.admits(catalog, zone));
            changes.steps.iter().for_each(|step| self.follow(step, server));
            changes
        };
        if !changes.steps.is_empty() {
            let count = |is: fn(&Step) -> bool| changes.steps.iter().filter(|step| is(step)).count();
            let removed = count(|step| matches!(step, Step::Remove { .. }));
            let added = changes.steps.len() - removed;
            tell(&format!("of its member zones {removed} went and {added} came"), false);
        }
        if !changes.left_out.is_empty() {
            tell(&left_out(&changes.left_out), true);
        }
    }

    /// Whether a catalog may have a zone as a member.
    fn admits(&self, catalog: &Name, zone: &Name) -> Result<(), LeftOut> {
        let within = |zones: &[Name]| zones.iter().any(|around| zone.within(around));
        let source = self.catalogs.iter().find(|source| source.held.origin() == catalog);
        if self.named.contains(zone) || self.stored.contains(zone) {
            return Err(LeftOut::Configured);
        }
        if source.is_none_or(|source| !source.may.is_empty() && !within(&source.may)) {
            return Err(LeftOut::Forbidden);
        }
        if within(&self.around) { Ok(()) } else { Err(LeftOut::Elsewhere) }
    }

    fn follow(&self, step: &Step, server: &Arc<Server>) {
        match step {
            Step::Remove { zone } => {
                let mut served = self.served.write().unwrap_or_else(PoisonError::into_inner);
                // Its task ends with it.
                served.remove(zone.wire());
            }
            Step::Add { zone, catalog } => {
                if let Some(member) = self.add(zone, catalog, None) {
                    member.fetched.begin(server, std::iter::empty());
                }
            }
            Step::Hand { zone, catalog } => {
                let old = self.member(zone);
                if let Some(old) = &old {
                    old.fetched.give_up();
                }
                // The data is copied: what still comes from the primaries before must not get into it.
                let member = self.add(zone, catalog, old.as_ref().map(|old| &*old.served.held));
                if let Some((member, old)) = member.zip(old) {
                    member.fetched.succeed(&old.fetched, server);
                }
            }
        }
    }

    /// Serves a zone as a catalog's member, with the data that another one has; none: it has to be fetched first.
    fn add(&self, zone: &Name, catalog: &Name, data: Option<&Held>) -> Option<Arc<Member>> {
        let source = self.catalogs.iter().find(|source| source.held.origin() == catalog)?;
        let held = Arc::new(Held::new(zone.clone(), None));
        if let Some(data) = data {
            held.inherit(data);
        }
        let (primaries, key) = (source.primaries.clone(), source.key.clone());
        let fetched = Arc::new(Fetched::member(Arc::clone(&held), primaries, key, &source.allowance));
        let served = Arc::new(ServedZone { held, fallthrough: source.fallthrough.clone(), catalog: false });
        let member = Arc::new(Member { served, fetched });
        let mut all = self.served.write().unwrap_or_else(PoisonError::into_inner);
        all.insert(zone.wire().into(), Arc::clone(&member));
        Some(member)
    }

    fn member(&self, zone: &Name) -> Option<Arc<Member>> {
        let served = self.served.read().unwrap_or_else(PoisonError::into_inner);
        served.get(zone.wire()).cloned()
    }
}

/// Says what is left out, and why: some by their names.
fn left_out(zones: &[(Name, LeftOut)]) -> String {
    let named: Vec<String> = zones.iter().take(NAMED).map(|(zone, why)| format!("{zone}: {why}")).collect();
    let more = zones.len().saturating_sub(NAMED);
    let more = if more == 0 { String::new() } else { format!("; and {more} more") };
    format!("zones that it lists are left out: {}{more}", named.join("; "))
}
