//! What limits of bandwidth, of packets and of connections drop or refuse at pods' interfaces. The kernel counts it by queue or by address and not by flow: so it is told by
//! interface.

use std::collections::HashMap;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use podnet_flow::Direction;
use podnet_kernel::{flows::Told, tc::Dropped};

use crate::flows::senders::{Counted, Loss};

/// How often it is looked, so that one who goes on beyond a limit is no more than some records in a minute.
const EVERY: SignedDuration = SignedDuration::from_secs(10);

/// What was dropped, from one look to the next.
#[derive(Debug, Default)]
pub(super) struct Limits {
    /// When it was looked last, and what had been dropped by then.
    looked: Option<(Timestamp, Counts)>,
}

/// Packets, by limit.
type Counts = HashMap<Limit, u64>;

/// The node's end of a pod's link, where the packets went, and, where it is no bandwidth, what counts them.
type Limit = (u32, Direction, Option<Counted>);

const fn limit(Loss { dropped, counted }: &Loss) -> Limit {
    (dropped.device, dropped.direction, *counted)
}

/// Whether what rang may have had a packet beyond a limit of packets or of connections: it was reset, or something of it was sent again.
pub(super) fn may_be_beyond(bell: &Told) -> bool {
    let (Told::Ended(entry) | Told::Replaced(entry)) = bell;
    [entry.out, entry.into].iter().any(|way| way.resets > 0 || way.retransmissions > 0)
}

impl Limits {
    /// Whether it is time to look.
    pub(super) fn is_due(&self, now: Timestamp, is_last: bool) -> bool {
        self.looked.as_ref().is_none_or(|(at, _)| is_last || now.duration_since(*at) >= EVERY)
    }

    /// What was dropped since the last look by interface and direction, and when that was. Nothing at the first one: what had been dropped by then was
    /// before this recording.
    pub(super) fn since_last(&mut self, found: &[Loss], now: Timestamp) -> Vec<(Timestamp, Dropped)> {
        let counts = found.iter().map(|one| (limit(one), one.dropped.packets)).collect();
        let Some((at, before)) = self.looked.replace((now, counts)) else { return Vec::new() };
        let mut told: Vec<(Timestamp, Dropped)> = Vec::new();
        for one in found {
            let (had, dropped) = (before.get(&limit(one)).copied().unwrap_or_default(), one.dropped);
            // A queue, or a rule, that has dropped less than before was made anew meanwhile.
            let packets = dropped.packets.checked_sub(had).unwrap_or(dropped.packets);
            let place = (dropped.device, dropped.direction);
            match told.iter_mut().find(|(_, told)| (told.device, told.direction) == place) {
                _ if packets == 0 => {}
                Some((_, told)) => told.packets += packets,
                None => told.push((at, Dropped { packets, ..dropped })),
            }
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use podnet_flow::{Entry, Refusal, Transport, Unserved, Way};

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn what_was_dropped_is_told_once_with_when_it_was_looked_before() {
        let (ingress, egress) = (Direction::Ingress, Direction::Egress);
        let dropped = |device, direction, packets| Dropped { device, direction, packets };
        let loss = |device, direction, packets| Loss { dropped: dropped(device, direction, packets), counted: None };
        let mut limits = Limits::default();
        let mut looks = |second, found: &[Loss]| limits.since_last(found, at(second));
        assert!(looks(0, &[loss(1, ingress, 5), loss(1, egress, 9)]).is_empty(), "nobody asked for it then");
        let found = [loss(1, ingress, 12), loss(1, egress, 9), loss(2, egress, 3)];
        assert_eq!(looks(10, &found), [(at(0), dropped(1, ingress, 7)), (at(0), dropped(2, egress, 3))]);
        // Made anew; another one is gone, and comes back.
        assert_eq!(looks(20, &[loss(1, ingress, 2)]), [(at(10), dropped(1, ingress, 2))]);
        assert_eq!(looks(30, &[loss(1, ingress, 2), loss(1, egress, 1)]), [(at(20), dropped(1, egress, 1))]);
    }

    #[test]
    fn what_several_limits_of_one_pod_drop_is_one_sum_though_one_of_them_begins_anew() {
        let loss = |packets, set: Option<&'static str>| Loss {
            dropped: Dropped { device: 1, direction: Direction::Egress, packets },
            counted: set.map(|set| (set, "10.0.0.1".parse().unwrap())),
        };
        let all = |[bandwidth, lost, refused]: [u64; 3]| {
            [loss(bandwidth, None), loss(lost, Some("lost-from")), loss(refused, Some("refused-from"))]
        };
        let mut limits = Limits::default();
        limits.since_last(&all([100, 50, 0]), at(0));
        let mut more = |second, counts| -> Vec<u64> {
            limits.since_last(&all(counts), at(second)).into_iter().map(|(_, dropped)| dropped.packets).collect()
        };
        assert_eq!(more(10, [101, 52, 4]), [7]);
        // The rules were replaced, and the queue was not.
        assert_eq!(more(20, [111, 3, 0]), [13]);
        assert!(more(30, [111, 3, 0]).is_empty());
    }

    #[test]
    fn what_was_refused_or_sent_again_may_have_been_beyond_a_limit() {
        let (to, transport, unserved) = ("10.96.0.7:80".parse().unwrap(), Transport::TCP, Unserved::Nobody);
        let refusal =
            Refusal { netns: 1, port: 1, to, transport, count: 1, born: 1, first: at(0), last: at(0), unserved };
        let entry = refusal.entry(1, &["10.0.0.1".parse().unwrap()]).unwrap();
        let (none, once) = (Way::default(), Way { retransmissions: 1, ..Way::default() });
        let reset = Way { resets: 1, ..Way::default() };
        for (out, into, expected) in
            [(none, none, false), (once, none, true), (none, once, true), (reset, none, true), (none, reset, true)]
        {
            let entry = Entry { out, into, ..entry };
            let told = [Told::Ended(entry), Told::Replaced(entry)];
            assert_eq!(told.each_ref().map(may_be_beyond), [expected; 2], "{out:?} {into:?}");
        }
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
