//! What an answer claims of names that are not there, before and after it was validated.

use std::time::Instant;

use super::{
    NSEC, NSEC3, Proved,
    hashed::Span,
    zone::{Range, signs},
};
use crate::{
    answer::{Answer, Section},
    message::{Expanded, Rcode, expand, rtype},
    name::Name,
    validate::{Effort, Fault, Key, Nsec3, verify},
};

/// How many records of an answer are looked at that say what is not there: NSEC3 needs three.
const MOST_GAPS: usize = 8;
/// How many signatures are looked at over each of them: a zone that changes its keys has four, with two algorithms.
const MOST_SIGNATURES: usize = 4;

/// A denial as it was told.
#[derive(Clone, Debug)]
pub(in crate::forward) struct Claim {
    /// The zone's SOA record.
    pub(super) soa: Signed,
    /// What is to prove it: those of its records that could be of use.
    pub(super) gaps: Vec<Signed>,
}

/// A record with its zone's signatures, at least one. Of one that was validated only that which is right is left.
#[derive(Clone, Debug)]
pub(super) struct Signed {
    pub(super) record: Expanded,
    pub(super) signatures: Vec<Expanded>,
}

impl Claim {
    /// What an answer for `name` claims of what is not there; none where that would be of no use.
    pub(in crate::forward) fn read(name: &Name, answer: &Answer, now: Instant) -> Option<Self> {
        if !matches!(answer.rcode, Rcode::NOERROR | Rcode::NXDOMAIN) || answer.counts[0] > 0 {
            return None;
        }
        let records = expand(name, answer);
        let authority = || records.iter().filter(|record| record.section == Section::Authority);
        let soa = authority().find(|record| record.rtype == rtype::SOA && name.within(&record.owner))?;
        let signed = |record: &Expanded| {
            let signatures = authority().filter(|other| signs(other, record, &soa.owner)).take(MOST_SIGNATURES);
            let signatures: Vec<_> = signatures.cloned().collect();
            (!signatures.is_empty()).then(|| Signed { record: record.clone(), signatures })
        };
        let gaps = authority().filter(|record| matches!(record.rtype, NSEC | NSEC3)).take(MOST_GAPS);
        let gaps: Vec<_> = gaps.filter_map(signed).filter(|gap| gap.is_useful(&soa.owner, now)).collect();
        let soa = signed(soa)?;
        (!gaps.is_empty()).then_some(Self { soa, gaps })
    }

    /// The zone that makes it.
    pub(in crate::forward) fn zone(&self) -> &Name {
        &self.soa.record.owner
    }

    /// Whether a gap opts out: that a name is not there is not proved then, and it is hardly worth the checks what is.
    pub(in crate::forward) fn opts_out(&self) -> bool {
        let opts_out = |record: &Expanded| {
            let read = Nsec3::read(&record.owner, self.zone(), &record.rdata);
            record.rtype == NSEC3 && read.is_some_and(|span| span.opt_out)
        };
        self.gaps.iter().any(|gap| opts_out(&gap.record))
    }

    /// The same once all of it was signed with one of the zone's keys. `now` is in seconds since 1970.
    pub(in crate::forward) fn verified(self, keys: &[Key], now: u32) -> Result<Self, Fault> {
        let zone = self.zone().clone();
        let mut effort = Effort::of_message();
        let mut verified = |signed: Signed| signed.verified(&zone, keys, now, &mut effort);
        let soa = verified(self.soa)?;
        let gaps = self.gaps.into_iter().map(verified).collect::<Result<_, _>>()?;
        Ok(Self { soa, gaps })
    }
}

impl Signed {
    /// Whether it says anything that later questions could be answered with.
    fn is_useful(&self, zone: &Name, now: Instant) -> bool {
        let Some(signature) = self.signatures.first().cloned() else { return false };
        let proved = Proved { record: self.record.clone(), signature, until: now };
        match proved.record.rtype {
            NSEC3 => Span::read(proved, zone).is_some(),
            _ => Range::read(proved, zone).is_some(),
        }
    }

    /// The same with the one signature that is right, for no longer than that holds.
    fn verified(self, zone: &Name, keys: &[Key], now: u32, effort: &mut Effort) -> Result<Self, Fault> {
        let vouched = verify(&[&self.record], self.signatures.iter(), zone, keys, now, effort)?;
        let (seconds, signatures) = (vouched.seconds, vec![vouched.record.clone()]);
        let ttl = self.record.ttl.min(seconds);
        Ok(Self { record: Expanded { ttl, ..self.record }, signatures })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::composed;

    fn record(rtype: u16, owner: &str, rdata: &[u8]) -> Expanded {
        let owner = Name::parse(owner).unwrap();
        Expanded { section: Section::Authority, owner, rtype, ttl: 60, rdata: rdata.to_vec() }
    }

    fn signature(covered: u16, owner: &str, labels: u8) -> Expanded {
        let head = [&covered.to_be_bytes()[..], &[13, labels], &[0; 14]].concat();
        record(46, owner, &[&head[..], b"\x04test\0", &[7; 8]].concat())
    }

    #[test]
    fn of_an_answer_with_many_records_and_signatures_few_are_taken() {
        let mut records = vec![record(rtype::SOA, "test", &[0; 22]), signature(rtype::SOA, "test", 1)];
        records.extend((0..20_u8).map(|_| record(NSEC, "a.test", b"\x01m\x04test\0\0\x01\x40")));
        records.extend((0..20_u8).map(|_| signature(NSEC, "a.test", 2)));
        let name = Name::parse("b.test").unwrap();
        let claim = Claim::read(&name, &composed(&name, Rcode::NXDOMAIN, &records), Instant::now()).unwrap();
        assert_eq!(claim.gaps.len(), MOST_GAPS);
        assert!(claim.gaps.iter().all(|gap| gap.signatures.len() == MOST_SIGNATURES));
        assert!(!claim.opts_out());
    }

    #[test]
    fn a_gap_that_opts_out_is_told_from_others() {
        let owner = format!("{}.test", "0".repeat(32));
        for flags in [0, 1] {
            // Algorithm, flags, iterations, no salt, the next hash, A.
            let head = [1_u8, flags, 0, 0, 0, 20];
            let rdata = [&head[..], &[8; 20], &[0, 1, 0x40]].concat();
            let soa = [record(rtype::SOA, "test", &[0; 22]), signature(rtype::SOA, "test", 1)];
            let records = [soa, [record(NSEC3, &owner, &rdata), signature(NSEC3, &owner, 2)]].concat();
            let name = Name::parse("b.test").unwrap();
            let claim = Claim::read(&name, &composed(&name, Rcode::NXDOMAIN, &records), Instant::now()).unwrap();
            assert_eq!(claim.opts_out(), flags == 1);
        }
    }
}
