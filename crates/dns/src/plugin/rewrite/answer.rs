//! Answers that are changed on their way out.

use crate::{
    answer::{Answer, Section, composed},
    authority::rdata::{names, wire_name},
    chain::Replacement,
    message::{Expanded, Rcode, expand, rtype},
    name::Name,
    server::{Failure, Next, Query, Reply},
};

/// Types whose data has a name that may be replaced: the first one.
const NAMED: [u16; 8] = [rtype::NS, rtype::CNAME, rtype::SOA, rtype::PTR, 15, rtype::SRV, 35, 39];

/// What happens to an answer.
#[derive(Clone, Debug)]
pub(super) enum Change<'a> {
    /// A name becomes another one, as a record's owner and in data.
    Names { from: Name, to: Name, values: bool },
    /// Owners that match become others.
    Owners(&'a Replacement),
    /// Names in data that match become others.
    Values(&'a Replacement),
    /// Times to live are at least this, and at most that, in seconds.
    Ttl { min: u32, max: u32 },
    /// A code becomes another one.
    Rcode { from: Rcode, to: Rcode },
    /// Targets of aliases that match become others, which are looked up.
    Target(&'a Replacement),
}

/// Changes what the links behind said to `asked`, to be the answer to `query`. What the last rule made of the question is taken
/// back first.
pub(super) async fn change(
    query: &Query,
    asked: &Query,
    reply: Result<Reply, Failure>,
    changes: &[Change<'_>],
    next: Next<'_>,
) -> Result<Reply, Failure> {
    let reply = match reply {
        Err(Failure::Silent) => return Err(Failure::Silent),
        // Where codes are changed, that of a failure is one like others.
        Err(failure) => match changed_code(failure.rcode(), changes) {
            code if code == failure.rcode() => return Err(failure),
            code => return Ok(Reply::own(Answer::code(code))),
        },
        Ok(reply) => reply,
    };
    let mut told = Told { rcode: reply.answer.rcode, records: expand(&Name::from_query(&asked.name), &reply.answer) };
    for change in changes.iter().rev() {
        match change {
            Change::Target(replacement) => told.lead(replacement, query, next).await?,
            Change::Rcode { from, to } if told.rcode == *from => told.rcode = *to,
            change => told.records.iter_mut().try_for_each(|record| apply(change, record))?,
        }
    }
    let whole = composed(&Name::from_query(&query.name), told.rcode, &told.records);
    let Answer { authoritative, authentic, extended, .. } = reply.answer;
    Ok(Reply { answer: Answer { authoritative, authentic, extended, ..whole }, ..reply })
}

fn changed_code(code: Rcode, changes: &[Change<'_>]) -> Rcode {
    changes.iter().rev().fold(code, |code, change| match change {
        Change::Rcode { from, to } if *from == code => *to,
        _ => code,
    })
}

fn apply(change: &Change<'_>, record: &mut Expanded) -> Result<(), Failure> {
    match change {
        Change::Names { from, to, values } => {
            if record.owner == *from {
                record.owner = to.clone();
            }
            if *values {
                value(record, |name| Ok((name == from).then(|| to.wire().to_vec())))?;
            }
        }
        Change::Owners(replacement) => {
            if let Some(owner) = replacement.replace(&record.owner.to_string()) {
                record.owner = Name::of_text(&owner).map_err(|_| Failure::Malformed)?;
            }
        }
        Change::Values(replacement) => value(record, |name| match replacement.replace(&name.to_string()) {
            Some(new) => wire_name(&new, &[0]).map(Some).map_err(|_| Failure::Malformed),
            None => Ok(None),
        })?,
        Change::Ttl { min, max } => record.ttl = record.ttl.clamp(*min, *max),
        Change::Rcode { .. } | Change::Target(_) => {}
    }
    Ok(())
}

/// Replaces the name in a record's data.
fn value(record: &mut Expanded, new: impl FnOnce(&Name) -> Result<Option<Vec<u8>>, Failure>) -> Result<(), Failure> {
    if !NAMED.contains(&record.rtype) {
        return Ok(());
    }
    let Some((start, end)) = names(record.rtype, &record.rdata).first().copied() else { return Ok(()) };
    let Ok(name) = Name::from_wire(&record.rdata[start..end]) else { return Ok(()) };
    if let Some(new) = new(&name)? {
        record.rdata.splice(start..end, new);
    }
    Ok(())
}

/// An answer while it is changed.
struct Told {
    rcode: Rcode,
    records: Vec<Expanded>,
}

impl Told {
    /// Leads the first alias whose target matches elsewhere: what stands behind it is what is told of the new target.
    async fn lead(&mut self, replacement: &Replacement, query: &Query, next: Next<'_>) -> Result<(), Failure> {
        let target = |record: &Expanded| {
            let alias = record.section == Section::Answer && record.rtype == rtype::CNAME;
            let target = Name::from_wire(&record.rdata).ok().filter(|_| alias)?;
            replacement.replace(&target.to_string())
        };
        let found = self.records.iter().enumerate().find_map(|(at, record)| Some((at, target(record)?)));
        let Some((at, target)) = found else { return Ok(()) };
        let target = Name::of_text(&target).map_err(|_| Failure::Malformed)?;
        self.records[at].rdata = target.wire().to_vec();
        if query.qtype == rtype::CNAME {
            return Ok(());
        }
        let further = next.look_up(query, &target, query.qtype).await?;
        self.records.truncate(at + 1);
        self.records.extend(expand(&target, &further.answer));
        self.rcode = further.answer.rcode;
        Ok(())
    }
}
