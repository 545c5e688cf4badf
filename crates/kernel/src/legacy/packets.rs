//! How many packets a rule of the legacy variant has counted.

use std::io;

use podnet_model::Family;

use super::{
    chains::{error, places},
    table::Table,
};

/// Packets that came to the first rule of a chain that is none of the kernel's own, in the calling thread's namespace; none where there is no
/// such rule.
///
/// # Errors
/// Where the kernel cannot be asked.
pub(crate) fn packets(family: Family, table: &'static str, chain: &str) -> io::Result<Option<u64>> {
    let Some(table) = Table::open(family, table)? else { return Ok(None) };
    let (_, entries) = table.read()?;
    Ok(first(family, &entries, chain))
}

/// The chain's head is an error by its name, and its last entry returns from it: rules are in between.
fn first(family: Family, entries: &[u8], chain: &str) -> Option<u64> {
    // `counters` of `struct ipt_entry` and `struct ip6t_entry`: packets, then bytes.
    let counters = match family {
        Family::V4 => 96,
        Family::V6 => 152,
    };
    let error = |at: &usize| error(family, entries, *at);
    let mut within = places(family, entries).skip_while(|at| error(at) != Some(chain.as_bytes())).skip(1);
    let (first, next) = (within.next()?, within.next()?);
    let is_rule = error(&first).is_none() && error(&next).is_none();
    let packets = entries.get(first + counters..first + counters + 8).filter(|_| is_rule)?;
    packets.try_into().ok().map(u64::from_ne_bytes)
}
