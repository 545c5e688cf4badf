//! Walking a message's records without trusting a byte of it (RFC 9267).

use smallvec::SmallVec;

use super::{CLASS_IN, HEADER, Rcode, flag, rtype, u16_at, u32_at};
use crate::{answer::Answer, destination::Destination, name::QueryName};

/// Where one record lies in its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// The section: 0 answer, 1 authority, 2 additional.
    pub section: usize,
    /// Where its owner starts.
    pub start: usize,
    /// Where its TTL stands.
    pub ttl_at: usize,
    /// Its type.
    pub rtype: u16,
    /// Its time to live, in seconds; what has the top bit set counts as zero (RFC 2181 §8).
    pub ttl: u32,
    /// Where its data starts.
    pub rdata: usize,
    /// Where it ends.
    pub end: usize,
}

/// A message that contradicts itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the message is malformed at byte {at}")]
pub struct Malformed {
    /// Where reading it failed.
    pub at: usize,
}

/// The records of a message whose question ends at `at`, in order.
///
/// # Errors
/// When a record runs past the end, or a name is none.
pub fn walk(message: &[u8], at: usize) -> impl Iterator<Item = Result<Record, Malformed>> + '_ {
    let counts = [6, 8, 10].map(|index| u16_at(message, index).unwrap_or(0));
    let sections = (0..3).flat_map(move |section| std::iter::repeat_n(section, usize::from(counts[section])));
    let mut next = Some(at);
    sections.map_while(move |section| {
        let start = next?;
        let record = record(message, start, section);
        next = record.map(|record| record.end);
        Some(record.ok_or(Malformed { at: start }))
    })
}

fn record(message: &[u8], start: usize, section: usize) -> Option<Record> {
    let fixed = skip_name(message, start)?;
    let rtype = u16_at(message, fixed)?;
    let ttl = u32_at(message, fixed + 4)?;
    let rdata = fixed + 10;
    let end = rdata + usize::from(u16_at(message, fixed + 8)?);
    (end <= message.len()).then_some(Record {
        section,
        start,
        ttl_at: fixed + 4,
        rtype,
        ttl: if ttl > i32::MAX as u32 { 0 } else { ttl },
        rdata,
        end,
    })
}

/// Where the name at `at` ends: after its root label or its first pointer, which must point backwards.
pub(crate) fn skip_name(message: &[u8], mut at: usize) -> Option<usize> {
    let start = at;
    loop {
        match *message.get(at)? {
            0 => return Some(at + 1),
            size @ 1..=63 => at += usize::from(size) + 1,
            high @ 0xc0.. => {
                let target = usize::from(high & 0x3f) << 8 | usize::from(*message.get(at + 1)?);
                return (target >= HEADER && target < start).then_some(at + 2);
            }
            _ => return None,
        }
        if at - start > crate::name::MAX_NAME {
            return None;
        }
    }
}

/// Cuts a message to at most `limit` bytes at a record's boundary. `opt_follows`: the additional count includes an OPT record that
/// the caller is going to append.
///
/// TC is set where something of the answer was cut, and not where only additional records were: of those, what belongs to one set is
/// left out whole (RFC 2181 §9). A referral needs the addresses beside it (RFC 9471 §3.1).
pub fn truncate(message: &mut Vec<u8>, limit: usize, opt_follows: bool) {
    let Ok((_, end)) = QueryName::parse(message, HEADER) else { return };
    let opt = u16::from(opt_follows);
    if let Some(additional) = u16_at(message, 10) {
        message[10..12].copy_from_slice(&additional.saturating_sub(opt).to_be_bytes());
    }
    let mut counts = [0_u16; 3];
    let mut cut = (end + 4).min(message.len());
    let mut lost = None;
    let (mut start_of_authority, mut beside) = (false, Vec::new());
    for record in walk(message, cut).map_while(Result::ok) {
        if record.end > limit {
            lost = Some(record);
            break;
        }
        start_of_authority |= record.section == 1 && record.rtype == rtype::SOA;
        if record.section == 2 {
            beside.push(record);
        }
        counts[record.section] += 1;
        cut = record.end;
    }
    let refers = counts[0] == 0 && counts[1] > 0 && !start_of_authority;
    let complete = match lost.filter(|lost| lost.section == 2 && !refers) {
        Some(lost) => {
            // Records of one set stand side by side: with its first go all that follow.
            if let Some(first) = beside.iter().position(|record| same_set(message, record, &lost)) {
                counts[2] = first as u16;
                cut = beside[first].start;
            }
            true
        }
        None => lost.is_none() && cut == message.len(),
    };
    message.truncate(cut);
    counts[2] += opt;
    for (index, count) in counts.iter().enumerate() {
        message[6 + 2 * index..8 + 2 * index].copy_from_slice(&count.to_be_bytes());
    }
    if !complete {
        message[2] |= (flag::TC >> 8) as u8;
    }
}

/// Whether two records are of one set: one owner, one type.
fn same_set(message: &[u8], one: &Record, other: &Record) -> bool {
    let owners = owner(message, one.start).zip(owner(message, other.start));
    one.rtype == other.rtype && owners.is_some_and(|(one, other)| one == other)
}

/// The name at `at`, spelled out in lower case. Pointers lead backwards, so they end (RFC 9267 §2).
fn owner(message: &[u8], mut at: usize) -> Option<Vec<u8>> {
    let (mut name, mut before) = (Vec::new(), at);
    loop {
        match *message.get(at)? {
            0 => return Some(name),
            size @ 1..=63 => {
                name.extend(message.get(at..=at + usize::from(size))?.iter().map(u8::to_ascii_lowercase));
                at += usize::from(size) + 1;
            }
            high @ 0xc0.. => {
                let target = usize::from(high & 0x3f) << 8 | usize::from(*message.get(at + 1)?);
                if target >= before {
                    return None;
                }
                (before, at) = (target, target);
            }
            _ => return None,
        }
        if name.len() > crate::name::MAX_NAME {
            return None;
        }
    }
}

/// An upstream's response, checked to be well-formed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// It was cut.
    pub truncated: bool,
    /// It answers a query with an OPT record and has one itself.
    pub edns: bool,
    /// Nobody else can have spoken in its name: it came over TLS, or from this very machine.
    pub vouched: bool,
    /// The answer without the OPT record.
    pub answer: Answer,
    /// Who sent it, as far as it is known.
    pub from: Option<Destination>,
}

impl Upstream {
    /// Reads a response to the question `question` (name in lower case, type, class).
    ///
    /// # Errors
    /// When it is malformed, no response, or answers another question.
    pub fn parse(message: &[u8], question: &[u8]) -> Result<Self, Malformed> {
        let flags = u16_at(message, 2).ok_or(Malformed { at: 0 })?;
        let base = HEADER + question.len();
        let asked = message.get(HEADER..base).ok_or(Malformed { at: HEADER })?;
        if flags & flag::QR == 0 || u16_at(message, 4) != Some(1) || !asked.eq_ignore_ascii_case(question) {
            return Err(Malformed { at: HEADER });
        }
        let mut response = Self {
            truncated: flags & flag::TC != 0,
            edns: false,
            vouched: false,
            answer: Answer::code(Rcode(flags & flag::RCODE)),
            from: None,
        };
        let mut end = base;
        for record in walk(message, base) {
            let record = record?;
            if record.rtype == rtype::OPT {
                // Records behind it are additional at best: dropping them keeps every pointer's target in place.
                response.edns = true;
                response.answer.rcode.0 |= (u32_at(message, record.ttl_at).unwrap_or(0) >> 24 << 4) as u16;
                break;
            }
            response.answer.counts[record.section] += 1;
            end = record.end;
        }
        let body = &message[base..end];
        response.answer.body = body.into();
        response.answer.authentic = flags & flag::AD != 0;
        response.answer.rotation = crate::answer::uniform_addresses(body, response.answer.counts[0]);
        Ok(response)
    }
}

/// How long the records of an answer may be kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// Offset in the answer's body and value of each record's time to live, in seconds.
    pub ttls: SmallVec<[(u16, u32); 8]>,
    /// How long it may be kept as a negative answer (RFC 2308 §5), in seconds; none without SOA.
    pub negative: Option<u32>,
}

impl Times {
    /// Reads the records of an answer to a question.
    #[must_use]
    pub fn of(question: &[u8], answer: &Answer) -> Self {
        let base = HEADER + question.len();
        let mut message = Vec::with_capacity(base + answer.body.len());
        message.extend_from_slice(&[0, 0, 0x80, 0, 0, 1]);
        for count in answer.counts {
            message.extend_from_slice(&count.to_be_bytes());
        }
        message.extend_from_slice(question);
        message.extend_from_slice(&answer.body);
        Self::within(&message, base)
    }

    /// Reads the records of a message whose question ends at `base`, from where offsets count. That of EDNS has no time to live.
    #[must_use]
    pub(crate) fn within(message: &[u8], base: usize) -> Self {
        let mut times = Self::default();
        for record in walk(message, base).map_while(Result::ok).filter(|record| record.rtype != rtype::OPT) {
            times.ttls.push(((record.ttl_at - base) as u16, record.ttl));
            if record.section == 1 && record.rtype == rtype::SOA && record.end >= record.rdata + 20 {
                let minimum = u32_at(message, record.end - 4).unwrap_or(0);
                times.negative = Some(minimum.min(record.ttl));
            }
        }
        times
    }
}

/// How long caches that know nothing of DNS may keep a response, in seconds (RFC 8484 §5.1): as long as the first of its answer's
/// records lasts, or as a negative answer does (RFC 2308 §5); failures are not kept.
#[must_use]
pub fn max_age(response: &[u8]) -> u32 {
    let rcode = u16_at(response, 2).map(|flags| Rcode(flags & flag::RCODE));
    let Ok((_, end)) = QueryName::parse(response, HEADER) else { return 0 };
    if !matches!(rcode, Some(Rcode::NOERROR | Rcode::NXDOMAIN)) {
        return 0;
    }
    let lasts =
        walk(response, end + 4).map_while(Result::ok).filter_map(|record| match (record.section, record.rtype) {
            (0, _) => Some(record.ttl),
            (1, rtype::SOA) if record.end >= record.rdata + 20 => {
                Some(u32_at(response, record.end - 4).unwrap_or(0).min(record.ttl))
            }
            _ => None,
        });
    lasts.min().unwrap_or(0)
}

/// The question of class IN for a name and type, as it stands in a message.
#[must_use]
pub(crate) fn question(name: &[u8], qtype: u16) -> Vec<u8> {
    let mut question = Vec::with_capacity(name.len() + 4);
    question.extend_from_slice(name);
    question.extend_from_slice(&qtype.to_be_bytes());
    question.extend_from_slice(&CLASS_IN.to_be_bytes());
    question
}
