//! What a plan touches, as it was and as it is: the difference is what the plan means.

use std::collections::BTreeSet;

use crate::ipvs::{Edit, Element, ServerKey, Set, SetName, State, difference};

/// Of one plan.
#[derive(Default)]
pub(super) struct Notes {
    pub(super) before: State,
    pub(super) after: State,
    servers: BTreeSet<ServerKey>,
    elements: BTreeSet<(SetName, Element)>,
}

impl Notes {
    /// These are going to change. What was noted before is noted as it was then.
    pub(super) fn begin<'a>(
        &mut self,
        state: &State,
        servers: &BTreeSet<ServerKey>,
        elements: impl Iterator<Item = (&'a SetName, Element)>,
    ) {
        for key in servers.iter().filter(|key| self.servers.insert(**key)) {
            note_server(state, *key, &mut self.before);
        }
        for (name, element) in elements {
            if self.elements.insert((name.clone(), element)) {
                note_element(state, name, element, &mut self.before);
            }
        }
    }

    /// They have changed.
    pub(super) fn end(&mut self, state: &State) {
        for key in &self.servers {
            note_server(state, *key, &mut self.after);
        }
        for (name, element) in &self.elements {
            note_element(state, name, *element, &mut self.after);
        }
    }

    /// The edits from the one to the other.
    pub(super) fn difference(mut self) -> Vec<Edit> {
        // A set is named in both, or nothing of it is touched.
        for (name, set) in &self.after.sets {
            self.before.sets.entry(name.clone()).or_insert_with(|| Set::new(set.kind));
        }
        difference(&self.after, &self.before)
    }
}

fn note_server(state: &State, key: ServerKey, to: &mut State) {
    to.servers.extend(state.servers.get(&key).map(|server| (key, server.clone())));
}

pub(super) fn note_element(state: &State, name: &SetName, element: Element, to: &mut State) {
    let Some(set) = state.sets.get(name) else { return };
    let noted = to.sets.entry(name.clone()).or_insert_with(|| Set::new(set.kind));
    noted.elements.extend(set.elements.get_key_value(&element));
}

pub(super) fn note_set(state: &State, name: &SetName, to: &mut State) {
    to.sets.extend(state.sets.get_key_value(name).map(|(name, set)| (name.clone(), set.clone())));
}
