//! What an upstream may speak of: of the names that it is asked for, nothing else.

use crate::{
    answer::{Answer, Section, composed},
    cache::Key,
    message::{Upstream, expand},
    name::{Name, QueryName},
};

/// The answer without records beside it (authority, additional) that belong to names outside `from`. Where an alias leads out
/// of there, what it leads to stays: that is the answer.
pub(super) fn within(from: &Name, key: &Key, upstream: Upstream) -> Upstream {
    let beside = upstream.answer.counts[1] > 0 || upstream.answer.counts[2] > 0;
    if from.labels() == 0 || !beside {
        return upstream;
    }
    let Ok((name, _)) = QueryName::parse(key.question(), 0) else { return upstream };
    let name = Name::from_query(&name);
    let mut records = expand(&name, &upstream.answer);
    let all = records.len();
    records.retain(|record| record.section == Section::Answer || record.owner.within(from));
    if records.len() == all {
        return upstream;
    }
    let Answer { rcode, authoritative, authentic, .. } = upstream.answer;
    let answer = Answer { authoritative, authentic, ..composed(&name, rcode, &records) };
    Upstream { answer, ..upstream }
}
