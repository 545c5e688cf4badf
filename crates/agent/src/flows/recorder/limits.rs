//! What limits of bandwidth drop at pods' interfaces. The kernel counts it by queue and not by flow: so it is told by interface.

use std::collections::HashMap;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use podnet_flow::Direction;
use podnet_kernel::tc::Dropped;

/// How often it is looked, so that one who goes on beyond a limit is no more than some records in a minute.
const EVERY: SignedDuration = SignedDuration::from_secs(10);

/// What was dropped, from one look to the next.
#[derive(Debug, Default)]
pub(super) struct Limits {
    /// When it was looked last, and what had been dropped by then.
    looked: Option<(Timestamp, Counts)>,
}

/// Packets, by the node's end of a pod's link and where they went.
type Counts = HashMap<(u32, Direction), u64>;

impl Limits {
    /// Whether it is time to look.
    pub(super) fn is_due(&self, now: Timestamp, is_last: bool) -> bool {
        self.looked.as_ref().is_none_or(|(at, _)| is_last || now.duration_since(*at) >= EVERY)
    }

    /// What was dropped since the last look, and when that was. Nothing at the first one: what had been dropped by then was before this recording.
    pub(super) fn since_last(&mut self, found: &[Dropped], now: Timestamp) -> Vec<(Timestamp, Dropped)> {
        let counts = found.iter().map(|one| ((one.device, one.direction), one.packets)).collect();
        let Some((at, before)) = self.looked.replace((now, counts)) else { return Vec::new() };
        let more = |one: &Dropped| {
            let had = before.get(&(one.device, one.direction)).copied().unwrap_or_default();
            // A queue that has dropped less than before was made anew meanwhile.
            let packets = one.packets.checked_sub(had).unwrap_or(one.packets);
            (packets > 0).then_some((at, Dropped { packets, ..*one }))
        };
        found.iter().filter_map(more).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn what_was_dropped_is_told_once_with_when_it_was_looked_before() {
        let (ingress, egress) = (Direction::Ingress, Direction::Egress);
        let dropped = |device, direction, packets| Dropped { device, direction, packets };
        let mut limits = Limits::default();
        let mut looks = |second, found: &[Dropped]| limits.since_last(found, at(second));
        assert!(looks(0, &[dropped(1, ingress, 5), dropped(1, egress, 9)]).is_empty(), "nobody asked for it then");
        let found = [dropped(1, ingress, 12), dropped(1, egress, 9), dropped(2, egress, 3)];
        assert_eq!(looks(10, &found), [(at(0), dropped(1, ingress, 7)), (at(0), dropped(2, egress, 3))]);
        // Made anew; another one is gone, and comes back.
        assert_eq!(looks(20, &[dropped(1, ingress, 2)]), [(at(10), dropped(1, ingress, 2))]);
        assert_eq!(looks(30, &[dropped(1, ingress, 2), dropped(1, egress, 1)]), [(at(20), dropped(1, egress, 1))]);
    }

    #[test]
    fn it_is_looked_at_once_from_time_to_time_and_in_the_end() {
        let mut limits = Limits::default();
        assert!(limits.is_due(at(0), false));
        limits.since_last(&[], at(0));
        let is_due = |(second, is_last)| limits.is_due(at(second), is_last);
        assert_eq!([(9, false), (9, true), (10, false)].map(is_due), [false, true, true]);
    }
}
