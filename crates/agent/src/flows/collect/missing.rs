//! Records that will not come to a collector, and the gap that tells it so.

use podnet_flow::{Gap, Item, Numbered, RecordId, record::GapAt};
use serde::{Deserialize, Serialize};

/// Some records, one behind the other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Missing {
    last: RecordId,
    gap: Gap,
}

impl Missing {
    pub(super) fn of(item: &Numbered) -> Self {
        let at = item.item.at();
        let (packets, bytes, flows) = match &item.item {
            // Its records say what passed since it began: what is missing may yet come with the next one.
            // What was dropped at an interface is in its flows' records as well.
            Item::Flow(_) | Item::Drops(_) => (0, 0, 1),
            Item::Gap(gap) => (gap.packets, gap.bytes, gap.flows),
        };
        let start = match &item.item {
            Item::Flow(_) => at,
            Item::Gap(gap) => gap.start,
            Item::Drops(drops) => drops.start,
        };
        let (node, where_) = (item.record.node.clone(), GapAt::Collector);
        let gap = Gap { start, end: at, node, at: where_, device: None, pod: None, packets, bytes, flows };
        Self { last: item.record.clone(), gap }
    }

    /// Makes one of two, of which either may be none.
    pub(super) fn add(to: &mut Option<Self>, more: Self) {
        let Some(own) = to else {
            *to = Some(more);
            return;
        };
        own.gap.start = own.gap.start.min(more.gap.start);
        own.gap.end = own.gap.end.max(more.gap.end);
        own.gap.packets += more.gap.packets;
        own.gap.bytes += more.gap.bytes;
        own.gap.flows += more.gap.flows;
        own.last = own.last.clone().max(more.last);
    }

    /// So many of these items, nobody knows which. None where none is left but what told of others: that is not told again.
    pub(super) fn among(items: &[Numbered], records: u64) -> Option<Self> {
        let (mut all, mut known) = (None, 0);
        for item in items.iter().filter(|item| !item.record.missing) {
            Self::add(&mut all, Self::of(item));
            known += 1;
        }
        all.map(|all| if records < known { all.counting(records) } else { all })
    }

    /// At the same time, so many records.
    pub(super) fn counting(mut self, records: u64) -> Self {
        (self.gap.packets, self.gap.bytes, self.gap.flows) = (0, 0, records);
        self
    }

    /// How many records.
    pub(super) const fn records(&self) -> u64 {
        self.gap.flows
    }

    /// As a collector is told of them.
    pub(super) fn told(&self) -> Numbered {
        Numbered { record: RecordId { missing: true, ..self.last.clone() }, item: Item::Gap(self.gap.clone()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flows::collect::tests::{flow, gap};

    #[test]
    fn what_is_missing_is_summed_up_under_the_id_of_the_last_one() {
        let mut missing = None;
        for item in [flow(3), gap(5, 40), flow(4)] {
            Missing::add(&mut missing, Missing::of(&item));
        }
        let missing = missing.unwrap();
        assert_eq!(missing.told().record.to_string(), "node1/1/5/missing");
        let Item::Gap(told) = missing.told().item else { panic!("no gap") };
        assert_eq!((told.flows, told.packets, told.at), (3, 40, GapAt::Collector));
        assert!(told.start < told.end);
    }

    #[test]
    fn of_some_that_nobody_knows_the_number_is_told_and_of_what_told_of_others_nothing() {
        let items = [flow(3), gap(5, 40), flow(6)];
        let some = Missing::among(&items, 2).unwrap();
        assert_eq!((some.records(), some.told().record.to_string()), (2, "node1/1/6/missing".to_owned()));
        let Item::Gap(all) = Missing::among(&items, 3).unwrap().told().item else { panic!("no gap") };
        assert_eq!((all.flows, all.packets), (3, 40));
        assert_eq!(Missing::among(&[some.told()], 1), None);
    }
}
