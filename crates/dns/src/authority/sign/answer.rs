//! Signing answers on their way to the client.
//!
//! Who signs an answer does not know which other names there are, so what does not exist is denied by a record of its own that
//! covers nothing else (RFC 9824): the name is said to be there, without the type; one that does not exist has the type NXNAME alone.

use std::sync::Arc;

use ring::digest;

use super::{
    CannotSign, SigningKey, Validity,
    cache::{Covered, SignatureCache, Signatures},
    key::signers,
    signature::{Set, rrsig},
};
use crate::{
    answer::{Answer, Section},
    authority::{
        message::{RESERVE, Writer},
        rdata::type_bitmap,
        record::kind,
    },
    message::{Expanded, Rcode, expand, rtype},
    name::{MAX_NAME, Name, QueryName},
};

/// The time to live of keys, in seconds.
const KEY_TTL: u32 = 3600;
/// A kept signature is made anew when it holds for less than this: longer than anybody keeps an answer.
const REUSE: u32 = 2 * 86_400;

/// What is said to be at a name beside the type that is not, as CoreDNS has it: A, HINFO, TXT, AAAA, LOC, SRV, CERT, SSHFP, TLSA, HIP,
/// OPENPGPKEY, SPF.
const PERHAPS: [u16; 12] = [1, 13, 16, 28, 29, 33, 37, 44, 52, 55, 61, 99];
/// The same at a zone's own name: also NS, SOA, MX, DNSKEY.
const PERHAPS_APEX: [u16; 4] = [2, 6, 15, 48];

/// Hears of each set whether its signatures were there already.
pub type Told<'a> = &'a dyn Fn(bool);

/// Signs answers with the keys of one or more zones.
#[derive(Debug)]
pub struct Online {
    keys: Vec<Arc<SigningKey>>,
    cache: SignatureCache,
}

impl Online {
    /// A signer that keeps the signatures of up to `capacity` sets.
    #[must_use]
    pub fn new(keys: Vec<Arc<SigningKey>>, capacity: usize) -> Self {
        Self { keys, cache: SignatureCache::new(capacity) }
    }

    /// How many sets' signatures are kept.
    #[must_use]
    pub fn kept(&self) -> usize {
        self.cache.len()
    }

    /// The answer to a question for a zone's keys, with signatures where they are wanted.
    ///
    /// # Errors
    /// When a key cannot sign.
    pub fn keys(&self, zone: &Name, signed: bool, now: u32, told: Told<'_>) -> Result<Answer, CannotSign> {
        let mut writer = Writer::new(zone.wire(), usize::from(u16::MAX) - RESERVE);
        let data = self.keys.iter().map(|key| key.dnskey()).collect();
        let set = Set { owner: zone, rtype: kind::DNSKEY, ttl: KEY_TTL, data };
        if signed {
            self.set(&mut writer, Section::Answer, zone, &set, (now, told))?;
        } else {
            unsigned(&mut writer, Section::Answer, &set);
        }
        Ok(writer.answer(Rcode::NOERROR, true))
    }

    /// The answer with signatures of `zone`, for a client that wants them (DO). Answers that have signatures, or are failures, stay
    /// what they are; so does what lies in other zones. Additional records are not signed.
    ///
    /// # Errors
    /// When a key cannot sign.
    pub fn sign(
        &self,
        zone: &Name,
        name: &QueryName,
        qtype: u16,
        answer: &Answer,
        now: u32,
        told: Told<'_>,
    ) -> Result<Answer, CannotSign> {
        let asked = Name::from_query(name);
        let records = expand(&asked, answer);
        let done = records.iter().any(|record| record.rtype == kind::RRSIG);
        if done || !matches!(answer.rcode, Rcode::NOERROR | Rcode::NXDOMAIN) || records.len() != total(answer) {
            return Ok(answer.clone());
        }
        let denial = denial(zone, &asked, qtype, answer, &records);
        let mut writer = Writer::new(name.wire(), usize::from(u16::MAX) - RESERVE);
        for section in [Section::Answer, Section::Authority, Section::Additional] {
            for group in sets(&records, section) {
                let (first, data) = (group[0], group.iter().map(|record| record.rdata.as_slice()).collect());
                let ttl = group.iter().map(|record| record.ttl).min().unwrap_or(0);
                let set = Set { owner: &first.owner, rtype: first.rtype, ttl, data };
                // A delegation's NS records are the child's to sign, and so is what lies below.
                let plain = section == Section::Additional
                    || !first.owner.within(zone)
                    || section == Section::Authority && first.rtype == rtype::NS && !answer.authoritative;
                if plain {
                    unsigned(&mut writer, section, &set);
                } else {
                    self.set(&mut writer, section, zone, &set, (now, told))?;
                }
            }
            if let Some(denial) = denial.as_ref().filter(|denial| denial.section == section) {
                let set = Set { owner: &denial.owner, rtype: kind::NSEC, ttl: denial.ttl, data: vec![&denial.rdata] };
                self.set(&mut writer, section, zone, &set, (now, told))?;
            }
        }
        // The name is said to exist, with a type that says that it does not (RFC 9824 §3.1).
        let denied = denial.is_some_and(|denial| denial.section == Section::Authority);
        let rcode = if denied { Rcode::NOERROR } else { answer.rcode };
        Ok(Answer { authentic: answer.authentic, ..writer.answer(rcode, answer.authoritative) })
    }

    /// A set with its signatures.
    fn set(
        &self,
        writer: &mut Writer,
        section: Section,
        zone: &Name,
        set: &Set<'_>,
        (now, told): (u32, Told<'_>),
    ) -> Result<(), CannotSign> {
        unsigned(writer, section, set);
        for rrsig in self.signatures(zone, set, now, told)?.iter() {
            writer.push(section, set.owner.wire(), kind::RRSIG, set.ttl, rrsig);
        }
        Ok(())
    }

    fn signatures(&self, zone: &Name, set: &Set<'_>, now: u32, told: Told<'_>) -> Result<Signatures, CannotSign> {
        let canonical = set.canonical();
        let covered = covered(zone, &canonical);
        let found = self.cache.find(&covered, now);
        told(found.is_some());
        if let Some(found) = found {
            return Ok(found);
        }
        let validity = Validity::of_answer(now);
        let signatures = signers(&self.keys, set.rtype)
            .map(|key| rrsig(key, zone, set, &canonical, validity).map(Vec::into_boxed_slice))
            .collect::<Result<Signatures, _>>()?;
        self.cache.keep(covered, signatures.clone(), validity.expiration.wrapping_sub(REUSE));
        Ok(signatures)
    }
}

/// The sets of a section, in the order of their first records; others may stand between the records of one.
fn sets(records: &[Expanded], section: Section) -> Vec<Vec<&Expanded>> {
    let mut sets: Vec<Vec<&Expanded>> = Vec::new();
    for record in records.iter().filter(|record| record.section == section) {
        let same = |set: &&mut Vec<&Expanded>| set[0].owner == record.owner && set[0].rtype == record.rtype;
        match sets.iter_mut().find(same) {
            Some(set) => set.push(record),
            None => sets.push(vec![record]),
        }
    }
    sets
}

/// The zone is part of what is signed: the same name can lie in two.
fn covered(zone: &Name, canonical: &[u8]) -> Covered {
    let mut digest = digest::Context::new(&digest::SHA256);
    digest.update(zone.wire());
    digest.update(canonical);
    let mut covered = [0; 32];
    covered.copy_from_slice(digest.finish().as_ref());
    covered
}

fn total(answer: &Answer) -> usize {
    answer.counts.iter().map(|count| usize::from(*count)).sum()
}

fn unsigned(writer: &mut Writer, section: Section, set: &Set<'_>) {
    for data in &set.data {
        writer.push(section, set.owner.wire(), set.rtype, set.ttl, data);
    }
}

/// A record that says what is not there.
struct Denial {
    section: Section,
    owner: Name,
    ttl: u32,
    rdata: Vec<u8>,
}

/// The NSEC record that an answer needs, if any.
fn denial(zone: &Name, asked: &Name, qtype: u16, answer: &Answer, records: &[Expanded]) -> Option<Denial> {
    let of = |section, rtype| {
        records.iter().filter(move |record| record.section == section && (rtype == 0 || record.rtype == rtype))
    };
    if let Some(soa) = of(Section::Authority, rtype::SOA).next() {
        // The name that is denied is the one that the last alias points to.
        let alias = of(Section::Answer, rtype::CNAME).next_back();
        let about = match alias {
            Some(alias) if qtype != rtype::CNAME => Name::from_wire(&alias.rdata).ok()?,
            _ => asked.clone(),
        };
        let types = match answer.rcode {
            Rcode::NXDOMAIN => vec![kind::RRSIG, kind::NSEC, kind::NXNAME],
            _ => perhaps(&about, zone, qtype),
        };
        // A question for the record itself is answered by it.
        let own = qtype == kind::NSEC && answer.rcode == Rcode::NOERROR;
        let section = if own { Section::Answer } else { Section::Authority };
        return about.within(zone).then(|| minimal(section, about, soa.ttl, &types)).flatten();
    }
    // RFC 4035 §3.1.4: that a delegation is not signed has to be shown.
    let cut = of(Section::Authority, rtype::NS).next().filter(|_| !answer.authoritative)?;
    let signed = of(Section::Authority, kind::DS).next().is_some() || of(Section::Answer, 0).next().is_some();
    let unsigned = !signed && cut.owner.within(zone);
    unsigned
        .then(|| minimal(Section::Authority, cut.owner.clone(), cut.ttl, &[rtype::NS, kind::RRSIG, kind::NSEC]))
        .flatten()
}

/// Types that may be at a name, the one that was asked for left out: the answer does not tell which are.
fn perhaps(name: &Name, zone: &Name, qtype: u16) -> Vec<u16> {
    let apex = if name == zone { PERHAPS_APEX.as_slice() } else { &[] };
    let all = PERHAPS.iter().chain(apex).copied();
    let mut types: Vec<u16> = all.filter(|rtype| *rtype != qtype).collect();
    types.extend([kind::RRSIG, kind::NSEC]);
    types
}

/// An NSEC record that covers nothing: the next name is the first one that can follow (RFC 9824 §3.3); none when that is too long.
fn minimal(section: Section, owner: Name, ttl: u32, types: &[u16]) -> Option<Denial> {
    let mut rdata = b"\x01\x00".to_vec();
    rdata.extend_from_slice(owner.wire());
    (rdata.len() <= MAX_NAME).then(|| {
        rdata.extend_from_slice(&type_bitmap(types));
        Denial { section, owner, ttl, rdata }
    })
}
