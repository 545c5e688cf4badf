//! Making a chain of NSEC records (RFC 4035 §2.3).

use super::Zone;
use crate::authority::{Record, rdata::type_bitmap, record::kind};

/// The NSEC records of a zone that has none, the signatures that will be there counted in.
pub(in crate::authority) fn chain(zone: &Zone) -> Vec<Record> {
    let nodes: Vec<_> = zone.spoken_for().filter(|(node, _)| !node.sets.is_empty()).collect();
    // RFC 9077 §3: as long as a negative answer may be kept, as its other records.
    let ttl = zone.soa_set().ttl.min(zone.soa.minimum);
    let names = nodes.iter().map(|(node, _)| &node.name);
    let next = names.clone().cycle().skip(1);
    let links = nodes.iter().zip(next).map(|((node, cut), next)| {
        let mut types: Vec<u16> = node.sets.iter().map(|set| set.rtype).collect();
        // RFC 4035 §2.3: of a delegation only what the parent speaks for.
        types.retain(|rtype| !cut || matches!(*rtype, crate::message::rtype::NS | kind::DS));
        types.retain(|rtype| *rtype != kind::NSEC);
        types.extend([kind::RRSIG, kind::NSEC]);
        let mut rdata = next.wire().to_vec();
        rdata.extend_from_slice(&type_bitmap(&types));
        Record { owner: node.name.clone(), rtype: kind::NSEC, ttl, rdata: rdata.into() }
    });
    links.collect()
}
