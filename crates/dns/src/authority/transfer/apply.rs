//! Applying differences to a zone's records.

use std::collections::HashMap;

use crate::{
    authority::{Record, Zone, rdata::canonical},
    message::rtype,
    name::Name,
};

/// Who a record is, whatever its time to live.
type Identity = (Name, u16, Box<[u8]>);

/// Records that change, the SOA record aside.
#[derive(Debug)]
pub(super) struct Working(HashMap<Identity, Record>);

fn identity(record: &Record) -> Identity {
    (record.owner.clone(), record.rtype, canonical(record.rtype, &record.rdata).into())
}

impl Working {
    pub(super) fn new(zone: &Zone) -> Self {
        let records = zone.records().filter(|record| record.rtype != rtype::SOA);
        Self(records.map(|record| (identity(&record), record)).collect())
    }

    /// Takes a record away; false when it is not there.
    pub(super) fn delete(&mut self, record: &Record) -> bool {
        self.0.remove(&identity(record)).is_some()
    }

    pub(super) fn add(&mut self, record: Record) {
        self.0.insert(identity(&record), record);
    }

    /// The records with a new SOA record.
    pub(super) fn finish(self, soa: Record) -> Vec<Record> {
        std::iter::once(soa).chain(self.0.into_values()).collect()
    }
}
