//! How the kernel tells of sets and of chains' hooks.

use podnet_model::Family;
use podnet_planner::ruleset::Hook;

use super::{Kind, NF_ACCEPT, VERDICT, chain_type, hook_number, typed};

/// What a set or map is, as the kernel tells it; what is zero is not told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Form {
    flags: u32,
    key_type: u32,
    key_length: u32,
    data_type: u32,
    data_length: u32,
}

impl Form {
    /// `number` answers with the set's attribute of that kind (`enum nft_set_attributes`).
    pub(in super::super) fn told(number: impl Fn(u16) -> u32) -> Self {
        let [flags, key_type, key_length, data_type, data_length] = [3, 4, 5, 6, 7].map(number);
        let data_length = if data_type == VERDICT { 0 } else { data_length };
        Self { flags, key_type, key_length, data_type, data_length }
    }

    /// It goes when its rule goes.
    pub(in super::super) fn is_part_of_a_rule(self) -> bool {
        /// `NFT_SET_ANONYMOUS`.
        const ANONYMOUS: u32 = 1;
        self.flags & ANONYMOUS != 0
    }
}

/// Where a base chain stands, as the kernel tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
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
        Form { flags, key_type, key_length, data_type, data_length }
    }
}
