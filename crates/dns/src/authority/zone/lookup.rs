//! Answering a question from a zone (RFC 1034 §4.3.2, RFC 4592, RFC 6672, RFC 4035 §3.1).

use smallvec::SmallVec;

use super::{Cover, Node, RrSet, Zone};
use crate::{
    answer::{Answer, Section},
    authority::{
        message::{RESERVE, Writer},
        order::Labels,
        rdata::targets,
        record::kind,
    },
    message::{Rcode, expand, rtype},
    name::{MAX_NAME, Name, QueryName},
};

/// How many aliases within the zone one answer follows.
const MAX_ALIASES: usize = 16;
/// How many names' addresses one answer adds.
const MAX_TARGETS: usize = 32;
/// RFC 6672 §2.2: a DNAME makes a name that is too long.
const YXDOMAIN: Rcode = Rcode(6);

/// What a zone says about a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The answer, aliases included, for the name that was asked for.
    pub answer: Answer,
    /// What it is.
    pub kind: Kind,
    /// The name that the last alias points to, when this zone does not answer for it: [`Found::followed`] takes what is found.
    pub next: Option<Name>,
}

/// What an answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Records of the type, or aliases that lead out of the zone.
    Records,
    /// The name exists, without records of the type.
    NoData,
    /// The name does not exist.
    NoName,
    /// Another server is the authority.
    Referral,
}

impl Found {
    /// The answer with what was found for [`Found::next`] behind its aliases.
    #[must_use]
    pub fn followed(self, name: &QueryName, target: &Name, further: &Answer) -> Answer {
        let mut writer = Writer::new(name.wire(), usize::from(u16::MAX) - RESERVE);
        // Sections follow each other: what proves an alias stands behind what it leads to.
        let mut records = expand(&Name::from_query(name), &self.answer);
        records.extend(expand(target, further));
        records.sort_by_key(|record| record.section as usize);
        for record in records {
            writer.push(record.section, record.owner.wire(), record.rtype, record.ttl, &record.rdata);
        }
        writer.answer(further.rcode, self.answer.authoritative)
    }
}

/// What one name led to.
enum Step {
    Done(Kind),
    Alias(Name),
}

impl Zone {
    /// What it says about a question; none when the name does not lie in it. `dnssec_ok`: signatures and proofs are wanted, and
    /// are given when the zone is signed.
    #[must_use]
    pub fn lookup(&self, name: &QueryName, qtype: u16, dnssec_ok: bool) -> Option<Found> {
        name.within(&self.origin)?;
        let mut search = Search {
            zone: self,
            writer: Writer::new(name.wire(), usize::from(u16::MAX) - RESERVE),
            qtype,
            dnssec: dnssec_ok && self.is_signed(),
            targets: SmallVec::new(),
            proofs: SmallVec::new(),
            wildcards: Vec::new(),
            authoritative: true,
            rcode: Rcode::NOERROR,
        };
        let (kind, next) = search.run(name);
        for (name, encloser) in std::mem::take(&mut search.wildcards) {
            search.deny_exact(&name, encloser);
        }
        search.additional(kind);
        Some(Found { answer: search.writer.answer(search.rcode, search.authoritative), kind, next })
    }
}

/// A question on its way through the zone.
pub(super) struct Search<'z> {
    pub(super) zone: &'z Zone,
    pub(super) writer: Writer,
    pub(super) qtype: u16,
    pub(super) dnssec: bool,
    /// Names whose addresses are worth adding.
    targets: SmallVec<[&'z [u8]; 4]>,
    /// Owners of the proofs that are in the answer already.
    pub(super) proofs: SmallVec<[&'z [u8]; 4]>,
    /// Names that wildcards stood for, with the nodes above these: their proofs follow the answers.
    wildcards: Vec<(Vec<u8>, usize)>,
    authoritative: bool,
    rcode: Rcode,
}

impl<'z> Search<'z> {
    fn run(&mut self, asked: &QueryName) -> (Kind, Option<Name>) {
        let mut seen = vec![Name::from_query(asked)];
        loop {
            let name = seen[seen.len() - 1].clone();
            match self.step(name.wire()) {
                Step::Done(kind) => return (kind, None),
                Step::Alias(target) if !target.within(&self.zone.origin) => return (Kind::Records, Some(target)),
                Step::Alias(target) if self.delegated(&target) => return (Kind::Records, Some(target)),
                // Aliases that point at each other: the client gets them, and sees it.
                Step::Alias(target) if seen.contains(&target) => return (Kind::Records, None),
                Step::Alias(target) if seen.len() == MAX_ALIASES => return (Kind::Records, Some(target)),
                Step::Alias(target) => seen.push(target),
            }
        }
    }

    fn delegated(&self, name: &Name) -> bool {
        let (node, exact) = self.zone.closest(name.wire());
        match self.zone.nodes[node].cover {
            Cover::Cut(cut) => !(exact && cut as usize == node && self.qtype == kind::DS),
            _ => false,
        }
    }

    fn step(&mut self, name: &[u8]) -> Step {
        let zone = self.zone;
        let (index, exact) = zone.closest(name);
        let node = &zone.nodes[index];
        match node.cover {
            // RFC 4035 §3.1.4.1: the parent answers for DS.
            Cover::Cut(cut) if exact && cut as usize == index && self.qtype == kind::DS => {}
            Cover::Cut(cut) => return self.referral(cut as usize),
            Cover::Redirect(top) => return self.redirect(name, top as usize),
            Cover::Nothing if !exact && node.set(kind::DNAME).is_some() => return self.redirect(name, index),
            Cover::Nothing => {}
        }
        if exact {
            return self.at(name, index, None);
        }
        let mut wildcard = b"\x01*".to_vec();
        wildcard.extend_from_slice(node.name.wire());
        match zone.node(&wildcard).filter(|wild| zone.nodes[*wild].cover == Cover::Nothing) {
            Some(wild) => self.at(name, wild, Some(index)),
            None => {
                self.rcode = Rcode::NXDOMAIN;
                self.soa();
                self.deny_name(name, index);
                Step::Done(Kind::NoName)
            }
        }
    }

    /// The records of a node for a name: its own, or one that the wildcard stands for below the node `encloser`.
    fn at(&mut self, name: &[u8], index: usize, encloser: Option<usize>) -> Step {
        let node = &self.zone.nodes[index];
        let past = [rtype::CNAME, rtype::ANY, kind::RRSIG, kind::NSEC, kind::KEY, kind::SIG];
        if let Some(alias) = node.set(rtype::CNAME).filter(|_| !past.contains(&self.qtype)) {
            self.set(Section::Answer, name, alias);
            self.wildcards.extend(encloser.map(|encloser| (name.to_vec(), encloser)));
            return match Name::from_wire(alias.data.first()) {
                Ok(target) => Step::Alias(target),
                Err(_) => Step::Done(Kind::Records),
            };
        }
        let found = match self.qtype {
            // RFC 8482 §4.1: one of the sets answers for all.
            rtype::ANY => any(node),
            kind::RRSIG => node.sets.iter().find(|set| !set.signatures.is_empty()),
            qtype => node.set(qtype),
        };
        let Some(set) = found else {
            self.soa();
            self.deny_type(name, index, encloser);
            return Step::Done(Kind::NoData);
        };
        if self.qtype == kind::RRSIG {
            for data in set.signatures.iter() {
                self.writer.push(Section::Answer, name, kind::RRSIG, set.ttl, data);
            }
        } else {
            self.set(Section::Answer, name, set);
            self.remember(set);
        }
        self.wildcards.extend(encloser.map(|encloser| (name.to_vec(), encloser)));
        Step::Done(Kind::Records)
    }

    /// RFC 1034 §4.3.2 step 3b, RFC 4035 §3.1.4: NS records of the delegation, and whether it is signed.
    fn referral(&mut self, cut: usize) -> Step {
        let node = &self.zone.nodes[cut];
        // No alias has been followed: those that lead to a delegation end the answer.
        self.authoritative = false;
        if let Some(servers) = node.set(rtype::NS) {
            for data in servers.data.iter() {
                self.writer.push(Section::Authority, node.name.wire(), rtype::NS, servers.ttl, data);
            }
            self.remember(servers);
        }
        if self.dnssec {
            match node.set(kind::DS) {
                Some(signers) => self.set(Section::Authority, node.name.wire(), signers),
                None => self.deny_type(node.name.wire(), cut, None),
            }
        }
        Step::Done(Kind::Referral)
    }

    /// RFC 6672 §3.2: the DNAME, and the alias that follows from it.
    fn redirect(&mut self, name: &[u8], top: usize) -> Step {
        let node = &self.zone.nodes[top];
        let Some(set) = node.set(kind::DNAME) else { return Step::Done(Kind::NoData) };
        self.set(Section::Answer, node.name.wire(), set);
        let mut target = name[..name.len() - node.name.wire().len()].to_vec();
        target.extend_from_slice(set.data.first());
        if target.len() > MAX_NAME {
            self.rcode = YXDOMAIN;
            return Step::Done(Kind::Records);
        }
        self.writer.push(Section::Answer, name, rtype::CNAME, set.ttl, &target);
        match Name::from_wire(&target) {
            Ok(target) if !matches!(self.qtype, rtype::CNAME | rtype::ANY) => Step::Alias(target),
            _ => Step::Done(Kind::Records),
        }
    }

    /// A set, with its signatures when they are wanted.
    pub(super) fn set(&mut self, section: Section, owner: &[u8], set: &RrSet) {
        self.set_for(section, owner, set, set.ttl);
    }

    fn set_for(&mut self, section: Section, owner: &[u8], set: &RrSet, ttl: u32) {
        for data in set.data.iter() {
            self.writer.push(section, owner, set.rtype, ttl, data);
        }
        if self.dnssec {
            for data in set.signatures.iter() {
                self.writer.push(section, owner, kind::RRSIG, ttl, data);
            }
        }
    }

    /// The SOA record of a negative answer, which may be kept as long as its minimum says (RFC 2308 §3).
    fn soa(&mut self) {
        let zone = self.zone;
        let set = zone.soa_set();
        self.set_for(Section::Authority, zone.origin.wire(), set, set.ttl.min(zone.soa.minimum));
    }

    fn remember(&mut self, set: &'z RrSet) {
        for name in set.data.iter().filter_map(|data| targets(set.rtype, data)) {
            if self.targets.len() < MAX_TARGETS {
                self.targets.push(name);
            }
        }
    }

    /// The addresses of names that the answer points to: for a referral also those that are only glue (RFC 1034 §4.3.2 step 6).
    fn additional(&mut self, kind: Kind) {
        let zone = self.zone;
        let mut told: SmallVec<[usize; 4]> = SmallVec::new();
        for target in std::mem::take(&mut self.targets) {
            let Ok(name) = Name::from_wire(target) else { continue };
            let Some(index) = zone.node(name.wire()).filter(|index| !told.contains(index)) else { continue };
            let node = &zone.nodes[index];
            let given = match node.cover {
                Cover::Nothing => true,
                Cover::Cut(_) => kind == Kind::Referral,
                Cover::Redirect(_) => false,
            };
            told.push(index);
            for set in node.sets.iter().filter(|set| given && matches!(set.rtype, rtype::A | rtype::AAAA)) {
                for data in set.data.iter() {
                    self.writer.push(Section::Additional, node.name.wire(), set.rtype, set.ttl, data);
                }
            }
        }
    }
}

/// The set that answers for all types: the first one that is not about the zone itself.
fn any(node: &Node) -> Option<&RrSet> {
    let about = [kind::NSEC, kind::DNSKEY, kind::NSEC3PARAM];
    node.sets.iter().find(|set| !about.contains(&set.rtype)).or_else(|| node.sets.first())
}

/// How many labels a name has.
pub(super) fn labels(name: &[u8]) -> usize {
    Labels::of(name).count()
}
