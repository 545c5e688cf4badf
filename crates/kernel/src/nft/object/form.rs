//! How the kernel tells of sets and of chains' hooks.

use podnet_model::Family;
use podnet_planner::ruleset::Hook;
use serde::{Deserialize, Serialize};

use super::{EVALUATED, Kind, NF_ACCEPT, TIMEOUT, VERDICT, chain_type, description, hook_number, typed};
use crate::netlink::attribute::{attribute, attributes};

/// What a set or map is, as the kernel tells it; what is zero is not told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in super::super) struct Form {
    flags: u32,
    key_type: u32,
    key_length: u32,
    data_type: u32,
    data_length: u32,
    /// How many elements it may hold; 0 where that is not said.
    size: u32,
    /// How many bytes count of each field of the key, where that is said.
    fields: Vec<u32>,
    /// Elements end by themselves when none said so, are looked through at another time than the kernel's own, or do something.
    is_strange: bool,
}

impl Form {
    /// `set` holds the set's attributes.
    pub(in super::super) fn told(set: &[u8]) -> Self {
        // enum nft_set_attributes
        const TIMEOUT: u16 = 11;
        const GC_INTERVAL: u16 = 12;
        const OBJECT_TYPE: u16 = 15;
        const EXPRESSION: u16 = 17;
        const EXPRESSIONS: u16 = 18;
        let [flags, key_type, key_length, data_type, data_length] = [3, 4, 5, 6, 7].map(|kind| number(set, kind));
        let data_length = if data_type == VERDICT { 0 } else { data_length };
        let description = attribute(set, description::ATTRIBUTE).unwrap_or_default();
        let fields = attribute(description, description::FIELDS).unwrap_or_default();
        let fields = attributes(fields).map(|(_, field)| number(field, description::FIELD_LENGTH)).collect();
        let strange = [TIMEOUT, GC_INTERVAL, OBJECT_TYPE, EXPRESSION, EXPRESSIONS];
        let is_strange = strange
            .into_iter()
            .any(|kind| attribute(set, kind).is_some_and(|value| value.iter().any(|byte| *byte != 0)));
        let size = number(description, description::SIZE);
        Self { flags, key_type, key_length, data_type, data_length, size, fields, is_strange }
    }

    /// It goes when its rule goes.
    pub(in super::super) fn is_part_of_a_rule(&self) -> bool {
        /// `NFT_SET_ANONYMOUS`.
        const ANONYMOUS: u32 = 1;
        self.flags & ANONYMOUS != 0
    }

    /// Rules put elements there, which end by themselves: what is in it is in no plan.
    pub(in super::super) fn is_evaluated(&self) -> bool {
        const BOTH: u32 = EVALUATED | TIMEOUT;
        self.flags & BOTH == BOTH
    }
}

/// Where a base chain stands, as the kernel tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct HookForm {
    pub(in super::super) number: u32,
    pub(in super::super) priority: i32,
    pub(in super::super) policy: u32,
    pub(in super::super) kind: String,
}

impl HookForm {
    pub(in super::super) fn of(hook: Hook) -> Self {
        let Hook { kind, point, priority } = hook;
        Self { number: hook_number(point), priority, policy: NF_ACCEPT, kind: chain_type(kind).to_owned() }
    }
}

impl Kind {
    /// How the kernel tells of it.
    pub(in super::super) fn form(self, family: Family) -> Form {
        let (flags, data) = self.flags_and_data(family);
        let (key_type, key_length) = typed(&self.key(family));
        let (data_type, data_length) = data.unwrap_or_default();
        // A verdict's length is the kernel's own affair.
        let data_length = if data_type == VERDICT { 0 } else { data_length };
        let (size, fields) = (self.size().unwrap_or(0), self.fields(family));
        Form { flags, key_type, key_length, data_type, data_length, size, fields, is_strange: self.is_stateful() }
    }
}

fn number(message: &[u8], kind: u16) -> u32 {
    attribute(message, kind).and_then(|value| value.try_into().ok()).map_or(0, u32::from_be_bytes)
}
