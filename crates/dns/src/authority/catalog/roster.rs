//! Which zone is a member of which catalog.

use std::collections::BTreeMap;

use super::{Catalog, MOST_MEMBERS, Member};
use crate::name::Name;

/// The members of all catalogs that one server block consumes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roster {
    /// The last version of each catalog that could be read.
    lists: BTreeMap<Name, Catalog>,
    /// The member zones.
    owners: BTreeMap<Name, Owner>,
}

/// What a member zone is a member of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The catalog.
    pub catalog: Name,
    /// The label of its node there.
    pub id: Box<[u8]>,
}

/// What a new version of a catalog changes, to be done in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// What there is to do.
    pub steps: Vec<Step>,
    /// Zones that are listed and are no members, and why.
    pub left_out: Vec<(Name, LeftOut)>,
}

/// Something to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A zone is a member no more: its data goes.
    Remove {
        /// The zone.
        zone: Name,
    },
    /// A zone is a member from now on.
    Add {
        /// The zone.
        zone: Name,
        /// The catalog that lists it.
        catalog: Name,
    },
    /// A member goes over to another catalog, with its data (RFC 9432 §4.4.1).
    Hand {
        /// The zone.
        zone: Name,
        /// The catalog that has it from now on.
        catalog: Name,
    },
}

/// Why a zone that is listed is no member.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeftOut {
    /// The Corefile has a zone of that name (RFC 9432 §5.2).
    #[error("the Corefile itself names it")]
    Configured,
    /// The Corefile says which zones the catalog may list.
    #[error("it lies in none of the zones that \"catalog\" allows")]
    Forbidden,
    /// Nobody can ask for it.
    #[error("it lies in none of the zones of the server block")]
    Elsewhere,
    /// Another catalog has it (RFC 9432 §5.2).
    #[error("catalog {owner} has it, and does not give it to this one (coo)")]
    Clash {
        /// The other catalog.
        owner: Name,
    },
    /// There are too many.
    #[error("there are {} member zones already", MOST_MEMBERS)]
    TooMany,
}

/// Says whether a catalog, the first name, may have a zone, the second one, as a member.
type Admits<'a> = &'a dyn Fn(&Name, &Name) -> Result<(), LeftOut>;

impl Roster {
    /// As it was `before`, where catalogs and what they may list have changed since; only `catalogs` are still there.
    #[must_use]
    pub fn resumed(before: &[Self], catalogs: &[Name], admits: Admits<'_>) -> Self {
        let mut roster = Self::default();
        for old in before {
            for (catalog, list) in old.lists.iter().filter(|(catalog, _)| catalogs.contains(catalog)) {
                if roster.lists.contains_key(catalog) {
                    continue;
                }
                roster.lists.insert(catalog.clone(), list.clone());
                for (zone, owner) in old.owners.iter().filter(|(_, owner)| owner.catalog == *catalog) {
                    roster.owners.entry(zone.clone()).or_insert_with(|| owner.clone());
                }
            }
        }
        for (catalog, list) in roster.lists.clone() {
            roster.take(&catalog, list, admits);
        }
        roster
    }

    /// Takes a version of a catalog in.
    pub fn take(&mut self, catalog: &Name, list: Catalog, admits: Admits<'_>) -> Changes {
        let mut changes = Changes::default();
        let stays = |zone: &Name| list.member(zone).is_some() && admits(catalog, zone).is_ok();
        let own = self.owners.iter().filter(|(_, owner)| owner.catalog == *catalog);
        let gone: Vec<Name> = own.filter(|(zone, _)| !stays(zone)).map(|(zone, _)| zone.clone()).collect();
        for zone in &gone {
            self.owners.remove(zone);
            changes.steps.push(Step::Remove { zone: zone.clone() });
        }
        for (zone, member) in list.members() {
            if let Err(why) = self.admit(catalog, zone, member, admits, &mut changes.steps) {
                changes.left_out.push((zone.clone(), why));
            }
        }
        self.lists.insert(catalog.clone(), list);
        for zone in gone {
            self.fall(&zone, admits, &mut changes.steps);
        }
        changes
    }

    /// The member zones.
    pub fn owners(&self) -> impl Iterator<Item = (&Name, &Owner)> {
        self.owners.iter()
    }

    /// What a zone is a member of.
    #[must_use]
    pub fn owner(&self, zone: &Name) -> Option<&Owner> {
        self.owners.get(zone)
    }

    /// Makes a zone a member of the catalog that lists it, unless it may not be.
    fn admit(
        &mut self,
        catalog: &Name,
        zone: &Name,
        member: &Member,
        admits: Admits<'_>,
        steps: &mut Vec<Step>,
    ) -> Result<(), LeftOut> {
        admits(catalog, zone)?;
        let wanted = Owner { catalog: catalog.clone(), id: member.id.clone() };
        let anew = Step::Add { zone: zone.clone(), catalog: catalog.clone() };
        match self.owners.get(zone) {
            Some(owner) if *owner == wanted => return Ok(()),
            Some(owner) if owner.catalog != *catalog && !self.gives(&owner.catalog, zone, catalog) => {
                return Err(LeftOut::Clash { owner: owner.catalog.clone() });
            }
            Some(owner) if owner.catalog != *catalog && owner.id == wanted.id => {
                steps.push(Step::Hand { zone: zone.clone(), catalog: catalog.clone() });
            }
            // With another label nothing of what was known of the zone counts any more.
            Some(_) => steps.extend([Step::Remove { zone: zone.clone() }, anew]),
            None if self.owners.len() >= MOST_MEMBERS => return Err(LeftOut::TooMany),
            None => steps.push(anew),
        }
        self.owners.insert(zone.clone(), wanted);
        Ok(())
    }

    /// Whether a catalog gives a zone to another one.
    fn gives(&self, owner: &Name, zone: &Name, heir: &Name) -> bool {
        let member = self.lists.get(owner).and_then(|list| list.member(zone));
        member.is_some_and(|member| member.heir.as_ref() == Some(heir))
    }

    /// A zone that its catalog gave up may stand in another one, which did not get it before.
    fn fall(&mut self, zone: &Name, admits: Admits<'_>, steps: &mut Vec<Step>) {
        let listed =
            self.lists.iter().filter_map(|(catalog, list)| Some((catalog.clone(), list.member(zone)?.clone())));
        let listed: Vec<(Name, Member)> = listed.collect();
        for (catalog, member) in listed {
            if self.owners.contains_key(zone) || self.admit(&catalog, zone, &member, admits, steps).is_ok() {
                return;
            }
        }
    }
}
