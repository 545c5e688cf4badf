//! What a reader is told who was slower than what comes, or asks for more than is kept.

use k8s_openapi::jiff::Timestamp;
use podnet_flow::{
    Gap, Item, Numbered, RecordId,
    record::GapAt,
    store::{Missed, Share, Sum},
};

/// What tells from `start` to `end` that items are missing before the one of the id `next`: a gap for each pod that they are of, and one for those of
/// which nothing is known. Each has an id among theirs, so that who asks again behind it is told that there are more. To who asks for `ends` alone
/// nothing is missing but these, and what gaps tell.
pub(super) fn gaps(
    missed: &Missed,
    next: &RecordId,
    (start, end): (Timestamp, Timestamp),
    ends: bool,
) -> Vec<Numbered> {
    let unknown = Share { pod: None, items: missed.unknown(), sum: Sum::default() };
    let unknown = Some((unknown, missed.unknown())).filter(|(_, items)| *items > 0);
    let known = missed.shares().filter(|share| !ends || share.sum != Sum::default());
    let known = known.map(|share| (share.clone(), if ends { share.sum.flows } else { share.items }));
    let shares: Vec<(Share, u64)> = known.chain(unknown).collect();
    let first = next.sequence.saturating_sub(shares.len() as u64);
    let gap = |(sequence, (share, flows)): (u64, (Share, u64))| {
        let Share { pod, sum: Sum { packets, bytes, .. }, .. } = share;
        let (node, at) = (next.node.clone(), GapAt::Reader);
        let gap = Gap { start, end, node, at, device: None, pod, packets, bytes, flows };
        Numbered { record: RecordId { sequence, missing: true, ..next.clone() }, item: Item::Gap(gap) }
    };
    (first..).zip(shares).map(gap).collect()
}

/// What tells that of what is asked for since `earliest` some that was before `until` had been forgotten; none where all of that was earlier. Its id is
/// behind all that is missing, before those of as many gaps as are told besides. How much it was since `earliest` nobody knows.
pub(super) fn forgotten(
    (earliest, until): (Timestamp, Timestamp),
    next: &RecordId,
    besides: usize,
) -> Option<Numbered> {
    if until < earliest {
        return None;
    }
    // Nothing is kept of before.
    let start = next.began().map_or(earliest, |began| earliest.max(began).min(until));
    let sequence = next.sequence.saturating_sub(1 + besides as u64);
    let (node, at) = (next.node.clone(), GapAt::Store);
    let gap = Gap { start, end: until, node, at, device: None, pod: None, packets: 0, bytes: 0, flows: 0 };
    Some(Numbered { record: RecordId { sequence, missing: true, ..next.clone() }, item: Item::Gap(gap) })
}

#[cfg(test)]
mod tests {
    use podnet_flow::{Store, store::Retention};
    use serde_json::json;

    use super::*;

    fn flow(pod: &str, report: &str, packets: u64) -> Item {
        serde_json::from_value(json!({
            "type": "flow", "id": "00000000-0000-0000-0000-000000000001", "report": report, "protocol": "UDP",
            "start": "2026-01-01T00:00:00Z", "end": "2026-01-01T00:00:01Z",
            "source": {"ip": "10.0.0.1", "port": 1,
                "pod": {"namespace": "web", "name": pod, "uid": pod, "node": "node1"}},
            "destination": {"ip": "192.0.2.1", "port": 80}, "class": "pod-world", "verdict": "unanswered", "node": "node1",
            "reporter": "source", "sent": {"packets": packets, "bytes": 10}, "received": {"packets": 0, "bytes": 0},
        }))
        .unwrap()
    }

    /// A gap's id, pod, packets and flows.
    type Told = (String, Option<String>, u64, u64);

    /// The gaps once so many of these items went by before and after somebody asked for what is behind the first.
    fn told(items: [Vec<Item>; 2], ends: bool) -> Vec<Told> {
        let at = Timestamp::UNIX_EPOCH;
        let mut store = Store::new(Retention { bytes: 0, ..Retention::default() });
        let [before, after] = items;
        before.into_iter().for_each(|item| store.push(item, at));
        let reader = store.enter(1);
        after.into_iter().for_each(|item| store.push(item, at));
        let page = store.page(&reader, 9);
        let next = RecordId { node: "node1".into(), epoch: 7, sequence: page.first, missing: false };
        let told = |numbered: Numbered| {
            let Item::Gap(gap) = numbered.item else { panic!("no gap") };
            assert_eq!((gap.start, gap.end, gap.at), (at, Timestamp::MAX, GapAt::Reader));
            let pod = gap.pod.map(|pod| pod.name.to_string());
            (numbered.record.to_string(), pod, gap.packets, gap.flows)
        };
        gaps(&page.missed, &next, (at, Timestamp::MAX), ends).into_iter().map(told).collect()
    }

    #[test]
    fn what_is_missing_is_told_of_each_pod_by_an_id_of_its_own() {
        let first = || vec![flow("a", "end", 1)];
        let items = || vec![flow("b", "end", 3), flow("a", "start", 4), flow("a", "end", 5), flow("c", "update", 6)];
        let row = |id: &str, pod: &str, packets, flows| -> Told {
            (format!("node1/7/{id}/missing"), Some(pod.to_owned()), packets, flows)
        };
        assert_eq!(told([first(), items()], true), [row("3", "a", 5, 1), row("4", "b", 3, 1)]);
        assert_eq!(told([first(), items()], false), [row("2", "a", 5, 2), row("3", "b", 3, 1), row("4", "c", 0, 1)]);
        assert!(told([first(), vec![flow("a", "update", 6)]], true).is_empty(), "nothing of it was asked for");
    }

    #[test]
    fn what_is_not_kept_any_more_of_what_was_asked_for_is_a_gap_from_then_on_or_since_recording_began() {
        let at = |second| Timestamp::from_second(second).unwrap();
        // It began at the tenth second.
        let next = RecordId { node: "node1".into(), epoch: 10_000_000, sequence: 7, missing: false };
        let told = |earliest, until, besides| {
            let Numbered { record, item } = forgotten((at(earliest), at(until)), &next, besides)?;
            let Item::Gap(Gap { start, end, at: GapAt::Store, .. }) = item else { panic!("{item:?}") };
            Some((record.to_string(), start, end))
        };
        let id = |sequence: u64| format!("node1/10000000/{sequence}/missing");
        let row = |sequence, start, until| Some((id(sequence), at(start), at(until)));
        assert_eq!(told(20, 30, 0), row(6, 20, 30));
        assert_eq!(told(20, 30, 2), row(4, 20, 30));
        assert_eq!(told(5, 30, 0), row(6, 10, 30));
        assert_eq!(told(5, 9, 0), row(6, 9, 9), "it had been counted before");
        assert_eq!(told(31, 30, 0), None, "nobody asked for it");
    }

    #[test]
    fn what_went_by_before_somebody_read_is_told_by_its_number() {
        let before = || (0..4).map(|_| flow("a", "end", 1)).collect::<Vec<_>>();
        let row = |id: u64, pod: Option<&str>, packets, flows| -> Told {
            (format!("node1/7/{id}/missing"), pod.map(str::to_owned), packets, flows)
        };
        assert_eq!(told([before(), Vec::new()], true), [row(3, None, 0, 3)]);
        let rows = told([before(), vec![flow("b", "end", 2)]], true);
        assert_eq!(rows, [row(3, Some("b"), 2, 1), row(4, None, 0, 3)]);
    }
}
