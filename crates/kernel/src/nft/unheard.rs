//! Large transactions, of which one's own listener is not told.
//!
//! For every element of a transaction the kernel writes a message of its own while anybody listens, whatever filter the listener has: that
//! takes as long as the rest, and some KiB each until all of it is done. So one's own listener leaves the group for the time of
//! a large transaction. Whether others wrote meanwhile shows by the number that the kernel gives each transaction.

use tracing::{debug, error};

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
        self.listen_again();
        // Nothing is heard of anybody: whatever is asked for is looked at.
        std::mem::take(&mut self.missed) || self.deaf
    }

    pub(super) fn commit(&mut self, transaction: Transaction<'_>) -> Result<(), NftError> {
        self.listen_again();
        let Some(before) = self.stop_listening(transaction.len()) else {
            return transaction.commit(self.wire.get()?);
        };
        let done = self.wire.get().and_then(|connection| transaction.commit(connection));
        // Until it hears again, whatever became of the rest.
        self.deaf = true;
        self.listen_again();
        let after = self.wire.get().and_then(|connection| Ok(generation::of(connection)?));
        let expected = before.wrapping_add(u32::from(done.is_ok()));
        // Pods' rules are written by a socket of their own: that counts as others', and costs a look.
        self.missed |= !after.is_ok_and(|after| after == Some(expected));
        done
    }

    /// The listener leaves its group for a transaction of so many bytes, where that is worth it and can be done. Answers the number of the
    /// last transaction before: the kernel counts before it tells, so what others do before the group is left, or after it is joined again,
    /// may be counted and told, and then is looked at twice.
    fn stop_listening(&mut self, length: usize) -> Option<u32> {
        let ears = self.ears.as_ref().filter(|_| length >= LARGE && !self.deaf)?;
        let before = generation::of(self.wire.get().ok()?).ok()??;
        match ears.leave() {
            Ok(()) => Some(before),
            Err(error) => {
                debug!(error = &error as &dyn std::error::Error, "a large transaction is told of element by element");
                None
            }
        }
    }

    /// A listener that left its group joins it again.
    fn listen_again(&mut self) {
        let Some(ears) = self.ears.as_ref().filter(|_| self.deaf) else { return };
        match ears.join() {
            Ok(()) => self.deaf = false,
            Err(error) => {
                self.missed = true;
                error!(
                    error = &error as &dyn std::error::Error,
                    "what others do to rules is not heard; the group of nf_tables is joined again at the next occasion"
                );
            }
        }
    }
}
