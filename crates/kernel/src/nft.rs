//! Renders the planner's rule set to nf_tables, over netlink (`nft(8)`; `linux/netfilter/nf_tables.h`).
//!
//! Each call is one transaction: all of it is in force afterwards, or nothing has changed. The packet crates know few of the
//! expressions and no concatenations, so the messages are written by an encoder of our own.

mod edit;
mod element;
mod expression;
mod generation;
mod listing;
mod object;
mod passage;
mod replace;
mod rule;
mod segment;
mod transaction;
mod unheard;
mod wire;

use std::{collections::BTreeMap, net::IpAddr};

use podnet_model::{Dual, Family};
use podnet_planner::ruleset::{Edit, EditError, FrontendKey};
use rustix::io::Errno;

use crate::{monitor::Ears, netlink::NetlinkError, netns::NetNs};
pub use element::NotedFlow;
pub(crate) use generation::generation;
pub use passage::{ForwardChain, Passing};
pub use replace::{Fault, Listed, Mended, Touched};
pub use segment::Sender;
use transaction::Transaction;
use wire::Wire;
pub(crate) use wire::open_netfilter_in;

/// A blocking socket of the netfilter family, in one namespace. Tables are of family `ip` or `ip6`; of one name there may be one of each.
#[derive(Debug)]
pub struct NftSocket {
    wire: Wire,
    /// Those of one's own listener.
    ears: Option<Ears>,
    /// Others may have written something that it did not hear.
    missed: bool,
    /// The listener left its group and could not join it again.
    deaf: bool,
    /// See [`NftSocket::take_surplus`].
    surplus: Vec<FrontendKey>,
}

impl NftSocket {
    /// Opens a socket in the calling thread's namespace. Whether the kernel has nf_tables is asked with the first question.
    ///
    /// # Errors
    /// Where the process may not.
    pub fn open() -> Result<Self, NftError> {
        Ok(Self { wire: Wire::open()?, ears: None, missed: false, deaf: false, surplus: Vec::new() })
    }

    /// Opens a socket in a namespace; it stays there, whoever uses it.
    ///
    /// # Errors
    /// Where the namespace cannot be entered, and as [`NftSocket::open`].
    pub fn open_in(netns: &NetNs) -> Result<Self, NftError> {
        netns.run(Self::open).map_err(NetlinkError::from)?
    }

    /// Whether the kernel has nf_tables. One that had none is asked again half a minute later at the earliest.
    ///
    /// # Errors
    /// Where it cannot be asked.
    pub fn is_there(&mut self) -> Result<bool, NftError> {
        self.wire.get().map(|_| true).or_else(|error| if error.is_absent() { Ok(false) } else { Err(error) })
    }

    /// The number by which the kernel tells this socket's doings from others'; none where it has no netfilter.
    ///
    /// # Errors
    /// Where the socket cannot be asked.
    pub fn port(&self) -> Result<Option<u32>, NetlinkError> {
        self.wire.port()
    }

    /// Does the edits to a table that is there.
    ///
    /// # Errors
    /// Which edit the kernel refused; the table is then as it was.
    pub fn apply(&mut self, family: Family, table: &str, edits: &[Edit]) -> Result<(), NftError> {
        if edits.is_empty() {
            return Ok(());
        }
        let mut transaction = Transaction::new(family, table);
        render_edits(&mut transaction, family, edits);
        self.commit(transaction)
    }

    /// Does the edits of both families' tables of a name in one transaction.
    ///
    /// # Errors
    /// Which edit the kernel refused; both tables are then as they were.
    pub fn apply_dual(&mut self, table: &str, edits: &Dual<Vec<Edit>>) -> Result<(), NftError> {
        let mut transaction = Transaction::new(Family::V4, table);
        for family in Family::ALL {
            transaction.turn_to(family);
            render_edits(&mut transaction, family, &edits[family]);
        }
        if transaction.is_empty() { Ok(()) } else { self.commit(transaction) }
    }

    /// Removes a table with all that is in it. Done also where there is none, as on a kernel without nf_tables.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn delete_table(&mut self, family: Family, table: &str) -> Result<(), NftError> {
        // Chains that go have their rules until the kernel comes to them, one after the other, when the maps that these ask are empty
        // already: for that long, what refuses Services' addresses still does, and what translates them does not. Rules go all at once.
        let mut rules = Transaction::new(family, table);
        rules.remove_all_rules();
        let mut rest = Transaction::new(family, table);
        rest.remove_table();
        let done = self.commit(rules).and_then(|()| self.commit(rest));
        done.or_else(|error| if error.is_missing() || error.is_absent() { Ok(()) } else { Err(error) })
    }

    /// The names of the tables of a family; none on a kernel without nf_tables.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn tables(&mut self, family: Family) -> Result<Vec<String>, NftError> {
        if self.is_there()? { listing::tables(self.wire.get()?, family) } else { Ok(Vec::new()) }
    }

    /// Whether there is a table of this name, however many others there are; no on a kernel without nf_tables.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn has_table(&mut self, family: Family, table: &str) -> Result<bool, NftError> {
        Ok(self.is_there()? && listing::table(self.wire.get()?, family, table)?.is_some())
    }

    /// Whether a table has a chain of this name; no where there is no such table, as on a kernel without nf_tables.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn has_chain(&mut self, family: Family, table: &str, chain: &str) -> Result<bool, NftError> {
        Ok(self.is_there()? && listing::has_chain(self.wire.get()?, family, table, chain)?)
    }

    /// How many packets the counter of a chain's first rule has counted; none where there is no such rule, or none that counts.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn packets(&mut self, family: Family, table: &str, chain: &str) -> Result<Option<u64>, NftError> {
        if self.is_there()? { listing::packets(self.wire.get()?, family, table, chain) } else { Ok(None) }
    }

    /// How many elements a set or map has; a range counts once.
    ///
    /// # Errors
    /// What the kernel refused; [`NftError::is_missing`] where there is no such table, set or map.
    pub fn element_count(&mut self, family: Family, table: &str, set: &str) -> Result<usize, NftError> {
        listing::element_count(self.wire.get()?, family, table, set)
    }

    /// How many packets each address of a set of counters ([`Set::Counters`](podnet_planner::ruleset::Set::Counters)) has counted since it is there; none
    /// where there is no such table or set, as on a kernel without nf_tables.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn counters(&mut self, family: Family, table: &str, set: &str) -> Result<BTreeMap<IpAddr, u64>, NftError> {
        if !self.is_there()? {
            return Ok(BTreeMap::new());
        }
        match listing::counters(self.wire.get()?, family, table, set) {
            Err(error) if error.is_missing() => Ok(BTreeMap::new()),
            found => found,
        }
    }

    /// The flows that rules noted in a set ([`Set::Flows`](podnet_planner::ruleset::Set::Flows)), some maybe twice; none where there is no such table or
    /// set, as on a kernel without nf_tables.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn flows(&mut self, family: Family, table: &str, set: &str) -> Result<Vec<NotedFlow>, NftError> {
        if !self.is_there()? {
            return Ok(Vec::new());
        }
        match listing::flows(self.wire.get()?, family, table, set) {
            Err(error) if error.is_missing() => Ok(Vec::new()),
            found => found,
        }
    }
}

fn render_edits(transaction: &mut Transaction<'_>, family: Family, edits: &[Edit]) {
    for (index, edit) in edits.iter().enumerate() {
        transaction.begin_edit(index);
        edit::render(transaction, family, edit);
    }
}

/// Why a rule set could not be put in force or looked at.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    /// The kernel has no nf_tables.
    #[error(
        "this kernel has no nf_tables (CONFIG_NF_TABLES): load the module nf_tables, or install the package that has the kernel's further modules"
    )]
    Absent,
    /// The kernel refused a part of a transaction, and so all of it.
    #[error("cannot {part} in table {table}{}{}", place(edit), explained(hint))]
    Refused {
        /// The table.
        table: String,
        /// The part, in words.
        part: String,
        /// The edit that the part belongs to: its place in the list, from 0. None where a whole table was put in place.
        edit: Option<usize>,
        /// What the kernel says beyond the number, where it says something.
        hint: Option<String>,
        /// The error number.
        #[source]
        errno: Errno,
    },
    /// The edits do not fit what the table holds (the in-memory kernel's refusal).
    #[error("cannot edit table {table}")]
    Unfit {
        /// The table.
        table: String,
        /// Why.
        source: EditError,
    },
    /// The socket failed.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
}

impl NftError {
    /// The object is not there.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        match self {
            Self::Refused { errno, .. } => *errno == Errno::NOENT,
            Self::Unfit { .. } | Self::Absent => false,
            Self::Netlink(error) => error.is_missing(),
        }
    }

    /// The kernel has no nf_tables at all.
    #[must_use]
    pub const fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }
}

fn place(edit: &Option<usize>) -> String {
    edit.map(|edit| format!(" (edit {edit})")).unwrap_or_default()
}

fn explained(hint: &Option<String>) -> String {
    hint.as_ref().map(|hint| format!(" (the kernel says: {hint})")).unwrap_or_default()
}

#[cfg(test)]
mod tests;
