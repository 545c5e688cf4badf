//! What is in a table.

use std::collections::BTreeMap;

use podnet_model::Family;

use super::super::{
    NftError, listing,
    object::{Form, HookForm},
    transaction::{Message, protocol_family},
};
use crate::netlink::{
    Connection, Operation,
    attribute::{attribute, text},
};

/// Attribute 1 of every message of nf_tables names the table.
const TABLE: u16 = 1;

/// The chains, sets and maps of a table that have names: those that are parts of rules go with these.
pub(super) struct Found {
    pub(super) sets: BTreeMap<String, Form>,
    /// With their hooks.
    pub(super) chains: BTreeMap<String, Option<HookForm>>,
}

impl Found {
    /// None where there is no table, or one that does nothing.
    pub(super) fn read(connection: &mut Connection, family: Family, table: &str) -> Result<Option<Self>, NftError> {
        /// Flags of a table (`enum nft_table_attributes`), of which one says that its hooks do nothing (`NFT_TABLE_F_DORMANT`).
        const FLAGS: u16 = 2;
        let Some(head) = listing::table(connection, family, table)? else { return Ok(None) };
        if number(&head, FLAGS).unwrap_or(0) != 0 {
            return Ok(None);
        }
        let chains =
            list(connection, family, table, Message::GetChain)?.iter().filter_map(|chain| hook(chain)).collect();
        let mut sets = BTreeMap::new();
        for set in list(connection, family, table, Message::GetSet)? {
            /// `enum nft_set_attributes`.
            const NAME: u16 = 2;
            let Some(name) = attribute(&set, NAME).map(text) else { continue };
            let form = Form::told(&set);
            if form.is_part_of_a_rule() {
                continue;
            }
            sets.insert(name, form);
        }
        Ok(Some(Self { sets, chains }))
    }
}

fn list(connection: &mut Connection, family: Family, table: &str, kind: Message) -> Result<Vec<Vec<u8>>, NftError> {
    let operation = Operation::new("list what is in", format_args!("table {table}"));
    let messages = listing::dump(connection, protocol_family(family), kind, &operation, |writer| {
        // Of chains the kernel tells all the same; what is of others is dropped by its table's name.
        if matches!(kind, Message::GetSet) {
            writer.text(TABLE, table);
        }
    });
    let mut messages = match messages {
        // It went since it was looked for.
        Err(error) if error.is_missing() => Vec::new(),
        messages => messages?,
    };
    messages.retain(|message| attribute(message, TABLE).is_some_and(|name| text(name) == table));
    Ok(messages)
}

fn number(message: &[u8], kind: u16) -> Option<u32> {
    Some(u32::from_be_bytes(attribute(message, kind)?.try_into().ok()?))
}

/// A chain's name and hook; None where it is a part of a rule.
fn hook(chain: &[u8]) -> Option<(String, Option<HookForm>)> {
    // enum nft_chain_attributes, nft_hook_attributes
    const NAME: u16 = 3;
    const HOOK: u16 = 4;
    const POLICY: u16 = 5;
    const TYPE: u16 = 7;
    const FLAGS: u16 = 10;
    /// `NFT_CHAIN_BINDING`.
    const PART_OF_A_RULE: u32 = 4;
    const HOOK_NUMBER: u16 = 1;
    const HOOK_PRIORITY: u16 = 2;
    if number(chain, FLAGS).unwrap_or(0) & PART_OF_A_RULE != 0 {
        return None;
    }
    let form = attribute(chain, HOOK).map(|hook| HookForm {
        number: number(hook, HOOK_NUMBER).unwrap_or(u32::MAX),
        priority: number(hook, HOOK_PRIORITY).unwrap_or(0).cast_signed(),
        policy: number(chain, POLICY).unwrap_or(u32::MAX),
        kind: attribute(chain, TYPE).map(text).unwrap_or_default(),
    });
    Some((text(attribute(chain, NAME)?), form))
}
