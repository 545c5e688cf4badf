//! Limits of pods' packets and connections, put in force as a table of rules for each family of addresses.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use podnet_kernel::nft::{NftError, NftSocket};
use podnet_model::{
    Family,
    limits::{Limits, PodLimits},
};
use podnet_planner::{
    limits::rules::{rules, state},
    ruleset::{RuleSet, Set, diff},
};
use tracing::{info, warn};

pub(crate) use podnet_planner::limits::rules::TABLE;

/// The tables and what is known of them.
#[derive(Default)]
pub(super) struct LimitRules {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    socket: Option<NftSocket>,
    /// The limits that are in force; none where that has to be found out.
    known: Option<BTreeMap<IpAddr, PodLimits>>,
}

impl LimitRules {
    /// Puts the limits in force that `wanted` tells. It is given the limits that are in force, for pods whose limits cannot be told;
    /// no other change comes between its answer and what is done.
    pub(super) fn set(
        &self,
        wanted: impl FnOnce(&BTreeMap<IpAddr, PodLimits>) -> BTreeMap<IpAddr, PodLimits>,
    ) -> Result<(), NftError> {
        let mut state = self.lock();
        let mut wanted = wanted(state.known.as_ref().unwrap_or(&BTreeMap::new()));
        wanted.retain(|_, limits| [&limits.ingress, &limits.egress].into_iter().any(counts));
        if state.known.as_ref() == Some(&wanted) {
            return Ok(());
        }
        let known = state.known.take();
        for family in Family::ALL {
            let before = known.as_ref().and_then(|known| table(family, known));
            let done = state.asking(|socket| match (before, table(family, &wanted)) {
                (Some(before), Some(rules)) => socket.apply(family, TABLE, &diff(&before, &rules)),
                (None, Some(rules)) if is_there(socket, &rules)? => Ok(()),
                (None, Some(rules)) => socket.replace(TABLE, &rules).map(drop),
                (None, None) if known.is_some() => Ok(()),
                (_, None) => socket.delete_table(family, TABLE),
            });
            match done {
                // What a kernel lacks is told elsewhere. The rounds look whether it came.
                Err(error) if error.is_absent() => return Ok(()),
                done => done?,
            }
        }
        if !wanted.is_empty() {
            info!(pods = wanted.len(), "limits of packets and connections in force");
        }
        state.known = Some(wanted);
        Ok(())
    }

    /// Whether a pod of this address is limited.
    pub(super) fn mentions(&self, addr: IpAddr) -> bool {
        self.lock().known.as_ref().is_none_or(|known| known.contains_key(&addr))
    }

    /// Takes an address out, where it is limited. Where it is not known what is in force, [`LimitRules::set`] finds out without it.
    pub(super) fn forget(&self, addr: IpAddr) -> Result<(), NftError> {
        if self.lock().known.as_ref().is_none_or(|known| !known.contains_key(&addr)) {
            return Ok(());
        }
        self.set(|known| {
            known.iter().filter(|(of, _)| **of != addr).map(|(of, limits)| (*of, limits.clone())).collect()
        })
    }

    /// Looks whether the tables are still there as they were made. Where one is not, the next call of [`LimitRules::set`] makes it anew.
    pub(super) fn verify(&self) -> Result<(), NftError> {
        let mut state = self.lock();
        let Some(known) = &state.known else { return Ok(()) };
        for rules in Family::ALL.map(|family| table(family, known)).into_iter().flatten() {
            if !state.asking(|socket| is_there(socket, &rules))? {
                warn!(table = TABLE, family = %rules.family, "somebody changed the rules that limit pods; they are made anew");
                state.known = None;
            }
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn asking<T>(&mut self, ask: impl FnOnce(&mut NftSocket) -> Result<T, NftError>) -> Result<T, NftError> {
        let mut socket = match self.socket.take() {
            Some(socket) => socket,
            None => NftSocket::open()?,
        };
        // After an error an answer may still be under way: a fresh one next time.
        ask(&mut socket).inspect(|_| self.socket = Some(socket))
    }
}

fn table(family: Family, limits: &BTreeMap<IpAddr, PodLimits>) -> Option<RuleSet> {
    rules(family, limits.iter().map(|(addr, limits)| (*addr, limits)))
}

/// A bandwidth is no rule.
pub(super) fn counts(limits: &Limits) -> bool {
    limits.packets.is_some() || limits.connections.is_some()
}

/// Whether the table holds these rules, by the set that is named for them and by how many elements there are, but for those that rules put there.
fn is_there(socket: &mut NftSocket, rules: &RuleSet) -> Result<bool, NftError> {
    if state(rules).is_none() {
        return Ok(false);
    }
    for (name, set) in &rules.sets {
        match socket.element_count(rules.family, TABLE, name) {
            Ok(found) if found == set.len() || *set == Set::Flows => {}
            Ok(_) => return Ok(false),
            Err(error) if error.is_missing() => return Ok(false),
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}
