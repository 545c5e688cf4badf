//! Large transactions, of which one's own listener is not told.
//!
//! For every element of a transaction the kernel writes a message of its own while anybody listens, whatever filter the listener has: that
//! takes as long as the rest, and some KiB each until all of it is done. So one's own listener leaves the group for the time of
//! a large transaction. Whether others wrote meanwhile shows by the number that the kernel gives each transaction.

use super::{NftError, NftSocket, generation, transaction::Transaction};
use crate::monitor::Ears;

/// Below that (some 500 elements) leaving the group costs more than it saves.
const LARGE: usize = 64 << 10;

impl NftSocket {
    /// Has the listener with these ears not hear what large transactions of this socket do.
    pub(crate) fn cover(&mut self, ears: Ears) {
        self.ears = Some(ears);
    }

    /// Whether others may have changed something since the last call of which the listener was not told.
    pub fn missed(&mut self) -> bool {
        std::mem::take(&mut self.missed)
    }

    pub(super) fn commit(&mut self, transaction: Transaction<'_>) -> Result<(), NftError> {
        let Some(ears) = self.ears.as_ref().filter(|_| transaction.len() >= LARGE) else {
            return transaction.commit(&mut self.connection);
        };
        // The kernel counts before it tells: what others do before the group is left, or after it is joined again, may be counted
        // and told, and then is looked at twice.
        let before = generation::of(&mut self.connection)?;
        ears.leave()?;
        let done = transaction.commit(&mut self.connection);
        ears.join()?;
        let after = generation::of(&mut self.connection);
        let own = u32::from(done.is_ok());
        let expected = before.map(|before| before.wrapping_add(own));
        self.missed |= expected.is_none() || !after.is_ok_and(|after| after == expected);
        done
    }
}
