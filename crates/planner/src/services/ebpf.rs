//! Services as the programs at the sockets of this node have them: frontends with lists of backends.
//!
//! A frontend has a list of its own, whose first slots are its backends. [`Edits`] are done in order: slots are filled before a frontend
//! counts them and emptied after it does not any more, so that whoever connects meanwhile finds the old backends or the new ones.

use std::collections::{BTreeMap, HashMap};

use podnet_model::Protocol;

use crate::ruleset::{BackendAddress, FrontendKey};

/// A place in a list of backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot {
    /// The list.
    pub list: u32,
    /// The number in it.
    pub number: u32,
}

/// What connecting to a frontend comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Serves {
    /// One of so many backends: the first slots of the list.
    Backends(u32),
    /// It is refused at once: nobody serves it.
    Nobody,
    /// It fails at once: others serve it, but none that clients of this node may use.
    NobodyHere,
}

/// What a frontend is to the programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The list of its backends; none other has the same.
    pub list: u32,
    /// What connecting to it comes to.
    pub serves: Serves,
    /// sessionAffinity: for how many seconds a client stays with its backend, and the group of frontends that it holds for.
    pub affinity: Option<Affinity>,
}

/// `sessionAffinity: ClientIP`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Affinity {
    /// Its timeout in seconds; not 0.
    pub seconds: u32,
    /// The frontends of one port of a Service are a group: clients stay with the same backend at all of them.
    pub group: u32,
}

/// A backend as it stands in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// Where it is.
    pub at: BackendAddress,
    /// The frontend's protocol.
    pub protocol: Protocol,
}

/// All that the programs know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    /// The frontends.
    pub frontends: HashMap<FrontendKey, Entry>,
    /// The backends.
    pub backends: BTreeMap<Slot, Target>,
}

/// What is changed, in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edits {
    /// Slots to fill, or fill otherwise.
    pub fill: Vec<(Slot, Target)>,
    /// Frontends to make, or change.
    pub point: Vec<(FrontendKey, Entry)>,
    /// Frontends to forget.
    pub forget: Vec<FrontendKey>,
    /// Slots to empty.
    pub empty: Vec<Slot>,
}
