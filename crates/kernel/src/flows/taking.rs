//! Entries, one at a time: as they are, and out of the map.

use std::os::fd::AsFd;

use podnet_ebpf::flows::{Counted, ENTRIES};
use podnet_flow::{Entry, aggregate::Entries};

use super::{Flows, FlowsError, clock::raw, refused};
use crate::sockets::call;

impl Flows {
    /// The entry of that key as it is now, which may be another connection's; none where there is none.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn look(&self, entry: &Entry) -> Result<Option<Entry>, FlowsError> {
        let key = raw(&entry.key);
        let there: Option<[u8; Counted::SIZE]> =
            call::lookup(self.object.map(ENTRIES)?.as_fd(), &key.to_bytes()).map_err(refused("look at a counter"))?;
        Ok(there.map(|value| self.clock().entry(&key, &Counted::from_bytes(&value))))
    }

    /// Takes an entry out of the map that is as it was read; its last counters. None where it is not, as something passed since, or another
    /// connection from the same port has its place: that one goes on to be counted there.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn take(&self, entry: &Entry) -> Result<Option<Entry>, FlowsError> {
        let (map, key) = (self.object.map(ENTRIES)?.as_fd(), raw(&entry.key));
        let read = |value: &[u8; Counted::SIZE]| self.clock().entry(&key, &Counted::from_bytes(value));
        let is_same = |last: &Entry| last.born == entry.born && last.packets() == entry.packets();
        call::take_read(map, &key.to_bytes(), read, is_same).map_err(refused("take a counter"))
    }
}

impl Entries for &Flows {
    type Error = FlowsError;

    fn look(&mut self, entry: &Entry) -> Result<Option<Entry>, FlowsError> {
        Flows::look(self, entry)
    }

    fn take(&mut self, entry: &Entry) -> Result<Option<Entry>, FlowsError> {
        Flows::take(self, entry)
    }
}
