//! What a zone's parent says of its keys (RFC 4035 §5.2): which ones it has, or that none are vouched for.

use super::{Digest, Effort, Fault, Key, Nsec3, verify};
use crate::{
    answer::Section,
    authority::{kind, nsec3_hash, rdata::types},
    message::{Expanded, rtype, u16_at},
    name::{Name, QueryName},
};

/// The most DS records that a zone may have.
const MOST_DIGESTS: usize = 12;
/// With more iterations nothing is hashed, and the delegation counts as not signed (RFC 9276 §3.2): a hash would cost too much
/// (CVE-2023-50868).
const MOST_ITERATIONS: u16 = 50;
/// How many records are looked at that say what is not there: NSEC3 needs three.
const MOST_DENIALS: usize = 8;
/// How many names above the zone are hashed at most, to find the closest one that exists.
const MOST_HASHES: usize = 16;

/// What a parent says of its child's keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Delegation {
    /// It has to have one that one of these vouches for.
    Signed(Vec<Digest>),
    /// Nobody vouches for any of them: whatever it says may be forged.
    Unsigned,
}

/// The zone whose word the answer to a question for a zone's DS records is: who has signed it, or else who it says that it is from. None
/// where that is no zone above.
pub(crate) fn parent(child: &Name, records: &[Expanded]) -> Option<Name> {
    let signer = |record: &Expanded| {
        let about = [kind::DS, kind::NSEC, kind::NSEC3, rtype::SOA];
        let covered = u16_at(&record.rdata, 0).filter(|_| record.rtype == kind::RRSIG)?;
        let (signer, _) = QueryName::parse(&record.rdata, 18).ok().filter(|_| about.contains(&covered))?;
        Some(Name::from_query(&signer))
    };
    let begin = records.iter().filter(|record| record.rtype == rtype::SOA && record.section == Section::Authority);
    let begin = begin.map(|record| record.owner.clone());
    records.iter().filter_map(signer).chain(begin).find(|name| child != name && child.within(name))
}

/// What the zone `parent`, which has these keys, says of its child's, in the answer to a question for the child's DS records; and the
/// seconds for which that may be kept.
///
/// # Errors
/// With the reason not to believe it.
pub(crate) fn delegation(
    child: &Name,
    parent: &Name,
    keys: &[Key],
    records: &[Expanded],
    now: u32,
) -> Result<(Delegation, u32), Fault> {
    let mut effort = Effort::of_message();
    let told =
        |record: &&Expanded| record.section == Section::Answer && record.rtype == kind::DS && record.owner == *child;
    let set: Vec<&Expanded> = records.iter().filter(told).collect();
    if set.len() > MOST_DIGESTS {
        return Err(Fault::Effort);
    }
    if !set.is_empty() {
        let seconds = verify(&set, records.iter(), parent, keys, now, &mut effort)?.seconds;
        let digests: Vec<Digest> = set.iter().filter_map(|record| Digest::read(&record.rdata)).collect();
        let usable: Vec<Digest> = digests.into_iter().filter(Digest::is_usable).collect();
        // RFC 4035 §5.2: where nothing of it can be checked it is as if there were none.
        let delegation = if usable.is_empty() { Delegation::Unsigned } else { Delegation::Signed(usable) };
        return Ok((delegation, seconds));
    }
    let (mut proofs, mut seconds, mut fault) = (Vec::new(), u32::MAX, Fault::Missing);
    let denies =
        |record: &&Expanded| record.section == Section::Authority && matches!(record.rtype, kind::NSEC | kind::NSEC3);
    for record in records.iter().filter(denies).take(MOST_DENIALS) {
        match verify(&[record], records.iter(), parent, keys, now, &mut effort) {
            Ok(vouched) => {
                seconds = seconds.min(vouched.seconds);
                proofs.push(record);
            }
            Err(found) => fault = found,
        }
    }
    if by_name(child, &proofs) || by_hash(child, parent, &proofs) {
        return Ok((Delegation::Unsigned, seconds));
    }
    Err(fault)
}

/// Whether types are those of a delegation without DS records, as its parent tells them (RFC 6840 §4.4).
fn is_unsigned_cut(bitmap: &[u8]) -> bool {
    let told: Vec<u16> = types(bitmap).collect();
    told.contains(&rtype::NS) && !told.contains(&kind::DS) && !told.contains(&rtype::SOA)
}

/// Whether a name with these types says nothing of what is below it: others do (RFC 5155 §8.3, RFC 6840 §4.1).
fn leads_elsewhere(bitmap: &[u8]) -> bool {
    let told: Vec<u16> = types(bitmap).collect();
    told.contains(&kind::DNAME) || told.contains(&rtype::NS) && !told.contains(&rtype::SOA)
}

/// Whether an NSEC record says that there are no DS records.
fn by_name(child: &Name, proofs: &[&Expanded]) -> bool {
    let mut own = proofs.iter().filter(|record| record.rtype == kind::NSEC && record.owner == *child);
    own.any(|record| {
        let types = QueryName::parse(&record.rdata, 0).ok().and_then(|(_, end)| record.rdata.get(end..));
        types.is_some_and(is_unsigned_cut)
    })
}

/// Whether NSEC3 records say so: that of the name itself, or one that leaves unsigned delegations out where its name would be
/// (RFC 5155 §8.6).
fn by_hash(child: &Name, parent: &Name, proofs: &[&Expanded]) -> bool {
    let hashed = proofs.iter().filter(|record| record.rtype == kind::NSEC3);
    let read = hashed.filter_map(|record| {
        let data = record.rdata.as_slice();
        Nsec3::read(&record.owner, parent, data).map(|span| (span, data))
    });
    let mut spans: Vec<(Nsec3<'_>, &[u8])> = read.collect();
    let Some((Nsec3 { iterations, salt, .. }, _)) = spans.first() else { return false };
    let (iterations, salt) = (*iterations, *salt);
    if iterations > MOST_ITERATIONS {
        return true;
    }
    spans.retain(|(span, _)| (span.iterations, span.salt) == (iterations, salt));
    let hash = |name: &Name| nsec3_hash(name.wire(), iterations, salt);
    let mut next = hash(child);
    if let Some((span, data)) = spans.iter().find(|(span, _)| span.owner == next) {
        return data.get(span.types..).is_some_and(is_unsigned_cut);
    }
    let mut above = child.parent().filter(|name| name.within(parent));
    for _ in 0..MOST_HASHES {
        let Some(name) = above else { return false };
        let found = hash(&name);
        if let Some((span, data)) = spans.iter().find(|(span, _)| span.owner == found) {
            let speaks = data.get(span.types..).is_some_and(|bitmap| !leads_elsewhere(bitmap));
            return speaks && spans.iter().any(|(span, _)| span.opt_out && span.covers(&next));
        }
        next = found;
        above = name.parent().filter(|name| name.within(parent));
    }
    false
}
