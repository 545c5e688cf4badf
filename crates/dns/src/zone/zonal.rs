//! `zonal`: `<zone>._zone.<service>.<namespace>.svc.<zone of names>` is a headless Service's endpoints in a zone of the topology, and only
//! those, as CoreDNS documents it.

use super::{
    Zone,
    known::{Known, Record},
    lookup,
    stand::{Stand, Stood},
};
use crate::name::QueryName;

impl Zone {
    /// What stands at a name below a Service's `_zone`; none where there is no such name. A zone in which no endpoint of any Service ever
    /// was is none.
    pub(super) fn zonal<'a>(
        &'a self,
        known: &'a Known,
        record: &'a Record,
        tail: &'a [u8],
        name: &QueryName,
        below: usize,
        qtype: u16,
    ) -> Option<Stood<'a>> {
        if !lookup::shows(known, record, &self.options) {
            return None;
        }
        match below {
            // Nothing stands at `_zone` itself, but names below it (RFC 8020).
            4 => {
                let is_there = known.has_zones() && Stand::zonal(record, &self.options, tail, "").is_some();
                is_there.then_some(Stood::Nothing)
            }
            5 => {
                let zone = known.zone(name.label(0))?;
                Some(Stand::zonal(record, &self.options, tail, zone)?.own(name, qtype))
            }
            _ => None,
        }
    }
}
