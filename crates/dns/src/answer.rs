//! Prebuilt answers: the records of a response as they go on the wire, ready to be put behind any question for their name.
//!
//! Owner names are compression pointers into the question, so a body fits every spelling (upper or lower case) of its name, and
//! only that name.

use std::net::IpAddr;

use crate::{
    message::{CLASS_IN, Expanded, HEADER, Rcode, rtype},
    name::Name,
};

/// The largest body: what a message over TCP holds beside its header, a question and the OPT record.
const MAX_BODY: usize = 65_535 - HEADER - crate::name::MAX_NAME - 4 - 11;

/// A response without its header, question and OPT record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The response code.
    pub rcode: Rcode,
    /// It comes from a zone that this server is the authority of (AA).
    pub authoritative: bool,
    /// The upstream has validated it (AD, RFC 4035).
    pub authentic: bool,
    /// Records in the answer, authority and additional sections.
    pub counts: [u16; 3],
    /// The records.
    pub body: Box<[u8]>,
    /// The addresses that take turns in front.
    pub rotation: Option<Rotation>,
    /// Why the answer is what it is, beyond its code.
    pub extended: Option<Box<ExtendedError>>,
}

/// Codes of extended errors (RFC 8914 §4).
pub mod extended {
    /// Something else: the text says what.
    pub const OTHER: u16 = 0;
    /// The answer had ended.
    pub const STALE: u16 = 3;
    /// A failure that is remembered.
    pub const CACHED_ERROR: u16 = 13;
    /// The server does not know yet what it needs to.
    pub const NOT_READY: u16 = 14;
    /// The operator does not want this to be asked.
    pub const BLOCKED: u16 = 15;
    /// The client, or who speaks for it, does not want this to be asked.
    pub const FILTERED: u16 = 17;
    /// The answer that the name does not exist had ended.
    pub const STALE_NXDOMAIN: u16 = 19;
    /// Nobody who could know was reached.
    pub const NO_REACHABLE_AUTHORITY: u16 = 22;
    /// The answer is made of records that were told for another question.
    pub const SYNTHESIZED: u16 = 29;
}

/// An extended error (RFC 8914).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtendedError {
    /// The code (IANA, DNS parameters).
    pub code: u16,
    /// What is said beside it, for people.
    pub text: String,
}

/// Records of one size, side by side, of which each may stand first (the `loadbalance` plugin).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// Where the first one starts in the body.
    pub start: u16,
    /// The size of each.
    pub stride: u16,
    /// How many there are, at least 2.
    pub count: u16,
}

impl Answer {
    /// An answer that is only a code.
    #[must_use]
    pub fn code(rcode: Rcode) -> Self {
        Self {
            rcode,
            authoritative: false,
            authentic: false,
            counts: [0; 3],
            body: Box::default(),
            rotation: None,
            extended: None,
        }
    }

    /// The answer with an extended error beside its code.
    #[must_use]
    pub fn because(self, code: u16, text: &str) -> Self {
        Self { extended: Some(Box::new(ExtendedError { code, text: text.to_owned() })), ..self }
    }

    /// An authoritative answer without records: the name exists, the type does not.
    #[must_use]
    pub fn nothing() -> Self {
        Self { authoritative: true, ..Self::code(Rcode::NOERROR) }
    }
}

/// Writes the records of one answer.
#[derive(Debug)]
pub struct AnswerBuilder {
    name_len: usize,
    class: u16,
    body: Vec<u8>,
    counts: [u16; 3],
    /// Where the target of the last alias stands in the body: records behind it are its owner's.
    target: Option<(usize, usize)>,
}

/// A section of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// Answers.
    Answer = 0,
    /// Authority.
    Authority = 1,
    /// Additional.
    Additional = 2,
}

/// Whose record it is.
#[derive(Clone, Copy, Debug)]
pub enum Owner<'a> {
    /// The name that was asked for.
    Question,
    /// The name that was asked for without its first bytes: the offset of a label in its wire form.
    Ancestor(usize),
    /// Any other name.
    Other(&'a Name),
}

impl AnswerBuilder {
    /// A builder of answers to questions for `name`.
    #[must_use]
    pub fn new(name: &Name) -> Self {
        Self::of_class(name, CLASS_IN)
    }

    /// A builder of answers for whichever name, whose records are the question's own, or others' that are spelled out.
    #[must_use]
    pub fn for_any() -> Self {
        Self { name_len: 0, class: CLASS_IN, body: Vec::new(), counts: [0; 3], target: None }
    }

    /// A builder of answers to questions of another class.
    #[must_use]
    pub fn of_class(name: &Name, class: u16) -> Self {
        Self { name_len: name.wire().len(), class, body: Vec::new(), counts: [0; 3], target: None }
    }

    /// Appends a record; false (and nothing appended) when the message would outgrow TCP's 64 KiB.
    pub fn push(&mut self, section: Section, owner: Owner<'_>, rtype: u16, ttl: u32, rdata: &[u8]) -> bool {
        let before = self.body.len();
        match owner {
            Owner::Question => self.body.extend_from_slice(&[0xc0, HEADER as u8]),
            Owner::Ancestor(offset) if offset < self.name_len => {
                self.body.extend_from_slice(&(0xc000 | (HEADER + offset) as u16).to_be_bytes());
            }
            Owner::Ancestor(_) => self.body.push(0),
            Owner::Other(name) => match self.target(name) {
                Some(pointer) => self.body.extend_from_slice(&(0xc000 | pointer).to_be_bytes()),
                None => self.body.extend_from_slice(name.wire()),
            },
        }
        self.body.extend_from_slice(&rtype.to_be_bytes());
        self.body.extend_from_slice(&self.class.to_be_bytes());
        self.body.extend_from_slice(&ttl.to_be_bytes());
        self.body.extend_from_slice(&(rdata.len() as u16).to_be_bytes());
        self.body.extend_from_slice(rdata);
        if self.body.len() > MAX_BODY {
            self.body.truncate(before);
            return false;
        }
        self.counts[section as usize] += 1;
        if rtype == rtype::CNAME {
            self.target = Some((self.body.len() - rdata.len(), self.body.len()));
        }
        true
    }

    /// Where the message has a name already, as the target of an alias.
    fn target(&self, name: &Name) -> Option<u16> {
        let (start, end) = self.target?;
        // The question stands between the header and the body, with its type and class.
        let offset = HEADER + self.name_len + 4 + start;
        (offset < 0x4000 && self.body[start..end].eq_ignore_ascii_case(name.wire())).then_some(offset as u16)
    }

    /// Appends an A or AAAA record.
    pub fn push_addr(&mut self, section: Section, owner: Owner<'_>, ttl: u32, addr: IpAddr) -> bool {
        match addr {
            IpAddr::V4(v4) => self.push(section, owner, rtype::A, ttl, &v4.octets()),
            IpAddr::V6(v6) => self.push(section, owner, rtype::AAAA, ttl, &v6.octets()),
        }
    }

    /// The authoritative answer with these records.
    #[must_use]
    pub fn build(self) -> Answer {
        let rotation = uniform_addresses(&self.body, self.counts[0]);
        Answer {
            rcode: Rcode::NOERROR,
            authoritative: true,
            authentic: false,
            counts: self.counts,
            body: self.body.into(),
            rotation,
            extended: None,
        }
    }
}

/// The first run of address records of one size and type in an answer section of `count` records; aliases may stand before it, and
/// none behind it: such an answer [`needs_arranging`].
///
/// Only records whose owner is a compression pointer count: their bytes mean the same wherever they stand.
#[must_use]
pub fn uniform_addresses(body: &[u8], count: u16) -> Option<Rotation> {
    let (mut start, mut before) = (0, 0);
    let size = loop {
        match kind_and_end(body, start)? {
            (rtype::A, _) => break 4_usize,
            (rtype::AAAA, _) => break 16,
            (rtype::CNAME, end) if before + 1 < count => {
                start = end;
                before += 1;
            }
            _ => return None,
        }
    };
    let head = body.get(start..start + 12)?;
    let stride = 12 + size;
    let run = body[start..]
        .chunks_exact(stride)
        .take(usize::from(count - before))
        .take_while(|record| head[0] >= 0xc0 && record[..6] == head[..6] && record[10..12] == head[10..12])
        .count();
    let mut behind = kinds(body, start + stride * run).take(usize::from(count - before) - run);
    let turns = run >= 2 && behind.all(|kind| kind != rtype::CNAME);
    turns.then_some(Rotation { start: start as u16, stride: stride as u16, count: run as u16 })
}

/// Whether an answer section of `count` records has to be put together anew for `loadbalance`: for several mail exchangers, which have
/// different sizes, to take turns, or for an alias that stands behind an address to stand before it.
#[must_use]
pub fn needs_arranging(body: &[u8], count: u16) -> bool {
    let (mut exchangers, mut address) = (0, false);
    for kind in kinds(body, 0).take(usize::from(count)) {
        match kind {
            rtype::MX => exchangers += 1,
            rtype::A | rtype::AAAA => address = true,
            rtype::CNAME if address => return true,
            _ => {}
        }
    }
    exchangers > 1
}

/// Whether all of an answer section of `count` records is the question's own, as the body itself says: by a pointer to the question.
#[must_use]
pub fn is_all_own(body: &[u8], count: u16) -> bool {
    let mut at = 0;
    (0..count).all(|_| {
        let Some(&[0xc0, 12, _, _, _, _, _, _, _, _, longer, shorter]) = body.get(at..at + 12) else { return false };
        at += 12 + usize::from(u16::from_be_bytes([longer, shorter]));
        true
    })
}

/// The types of the records of a body from `at` on.
fn kinds(body: &[u8], mut at: usize) -> impl Iterator<Item = u16> + '_ {
    std::iter::from_fn(move || {
        let (kind, end) = kind_and_end(body, at)?;
        at = end;
        Some(kind)
    })
}

/// The type of the record at `at` of a body, and where the record ends.
fn kind_and_end(body: &[u8], at: usize) -> Option<(u16, usize)> {
    let fixed = name_end(body, at)?;
    let &[high, low, _, _, _, _, _, _, longer, shorter] = body.get(fixed..fixed + 10)? else { return None };
    Some((u16::from_be_bytes([high, low]), fixed + 10 + usize::from(u16::from_be_bytes([longer, shorter]))))
}

/// Where the name at `at` of a body ends.
fn name_end(body: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *body.get(at)? {
            0 => return Some(at + 1),
            0xc0.. => return Some(at + 2),
            size => at += usize::from(size) + 1,
        }
    }
}

/// The answer to a question for `name` with these records, not authoritative. Records for which there is no room are left out.
#[must_use]
pub fn composed(name: &Name, rcode: Rcode, records: &[Expanded]) -> Answer {
    let mut builder = AnswerBuilder::new(name);
    for record in records {
        let owner = if &record.owner == name { Owner::Question } else { Owner::Other(&record.owner) };
        builder.push(record.section, owner, record.rtype, record.ttl, &record.rdata);
    }
    Answer { rcode, authoritative: false, ..builder.build() }
}

/// A CNAME that was followed on the way to an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alias {
    /// Its owner.
    pub owner: Name,
    /// What it points to.
    pub target: Name,
    /// Seconds that it may be kept.
    pub ttl: u32,
}

/// Puts the aliases that led to `target` before the answer for it, as one answer for the first alias' owner.
#[must_use]
pub fn behind_aliases(aliases: &[Alias], target: &Name, answer: &Answer) -> Answer {
    let Some(first) = aliases.first() else { return answer.clone() };
    let mut builder = AnswerBuilder::new(&first.owner);
    for (index, alias) in aliases.iter().enumerate() {
        let owner = if index == 0 { Owner::Question } else { Owner::Other(&alias.owner) };
        builder.push(Section::Answer, owner, rtype::CNAME, alias.ttl, alias.target.wire());
    }
    for record in crate::message::expand(target, answer) {
        builder.push(record.section, Owner::Other(&record.owner), record.rtype, record.ttl, &record.rdata);
    }
    Answer { rcode: answer.rcode, extended: answer.extended.clone(), ..builder.build() }
}
