//! What an upstream may speak of: of the names that it is asked for, nothing else.

use crate::{
    answer::{Answer, Section, composed, is_all_own},
    authority::kind,
    cache::Key,
    message::{Expanded, Upstream, expand, rtype},
    name::{Name, QueryName},
};

/// How many names an answer is about at most: resolvers follow fewer aliases than that.
const MOST_NAMES: usize = 32;

/// The answer without records that nobody asked for: those of names to which no alias leads, and, beside the answer (authority,
/// additional), those that belong to names outside `from`. Where an alias leads out of there, what it leads to stays: that is the answer.
pub(super) fn within(from: &Name, key: &Key, upstream: Upstream) -> Upstream {
    let counts = upstream.answer.counts;
    let beside = from.labels() > 0 && (counts[1] > 0 || counts[2] > 0);
    if !beside && is_all_own(&upstream.answer.body, counts[0]) {
        return upstream;
    }
    let Ok((name, _)) = QueryName::parse(key.question(), 0) else { return upstream };
    let name = Name::from_query(&name);
    let mut records = expand(&name, &upstream.answer);
    let all = records.len();
    // Where some cannot be read, nobody knows where aliases lead.
    let whole = all == counts.into_iter().map(usize::from).sum::<usize>();
    let names = names(&name, &records);
    records.retain(|record| match record.section {
        Section::Answer => !whole || names.contains(&record.owner),
        _ => record.owner.within(from),
    });
    if records.len() == all {
        return upstream;
    }
    let Answer { rcode, authoritative, authentic, .. } = upstream.answer;
    let answer = Answer { authoritative, authentic, ..composed(&name, rcode, &records) };
    Upstream { answer, ..upstream }
}

/// The names that an answer is about: the one that was asked for, those to which aliases lead from there, in whatever order they are
/// told, and those above them whose DNAME makes the aliases.
fn names(asked: &Name, records: &[Expanded]) -> Vec<Name> {
    let mut names = vec![asked.clone()];
    let mut at = 0;
    while let Some(name) = names.get(at).cloned() {
        for record in records.iter().filter(|record| record.section == Section::Answer) {
            let next = match record.rtype {
                rtype::CNAME if record.owner == name => {
                    QueryName::parse(&record.rdata, 0).ok().map(|(target, _)| Name::from_query(&target))
                }
                kind::DNAME if name.within(&record.owner) => Some(record.owner.clone()),
                _ => None,
            };
            if let Some(next) = next.filter(|next| names.len() < MOST_NAMES && !names.contains(next)) {
                names.push(next);
            }
        }
        at += 1;
    }
    names
}
