//! One order of packets that several nodes tell.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    time::{Duration, Instant},
};

use crate::pcapng::Packet;

/// What is kept of a packet beside its bytes.
const OVERHEAD: usize = 96;

/// Holds packets back for a while, so that those that come later and were earlier go first.
///
/// A packet is held from when it came and not by its own time: clocks of nodes may differ, and one that is wrong holds nothing up.
#[derive(Debug)]
pub struct Order {
    hold: Duration,
    /// Beyond that the earliest goes, however short it was held.
    most: usize,
    waiting: BinaryHeap<Reverse<Waiting>>,
    bytes: usize,
    count: u64,
}

/// Compared by its time, and by when it came where that is the same.
#[derive(Debug, PartialEq, Eq)]
struct Waiting {
    at: u64,
    number: u64,
    came: Instant,
    packet: Packet,
}

impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Order {
    /// Nothing yet. A packet is held for `hold`, and no more bytes than about `most`.
    #[must_use]
    pub const fn new(hold: Duration, most: usize) -> Self {
        Self { hold, most, waiting: BinaryHeap::new(), bytes: 0, count: 0 }
    }

    /// A packet came.
    pub fn push(&mut self, packet: Packet, now: Instant) {
        self.bytes += size(&packet);
        self.count += 1;
        self.waiting.push(Reverse(Waiting { at: packet.at, number: self.count, came: now, packet }));
    }

    /// The next packet that is held no longer.
    pub fn due(&mut self, now: Instant) -> Option<Packet> {
        let Reverse(first) = self.waiting.peek()?;
        let is_due = now.saturating_duration_since(first.came) >= self.hold || self.bytes > self.most;
        if is_due { self.first() } else { None }
    }

    /// The next packet, however long it was held.
    pub fn first(&mut self) -> Option<Packet> {
        let Reverse(Waiting { packet, .. }) = self.waiting.pop()?;
        self.bytes -= size(&packet);
        Some(packet)
    }
}

const fn size(packet: &Packet) -> usize {
    packet.bytes.len() + OVERHEAD
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn packet(at: u64) -> Packet {
        Packet { interface: 0, at, length: 4, outbound: false, bytes: vec![0; 4] }
    }

    fn due(order: &mut Order, now: Instant) -> Vec<u64> {
        std::iter::from_fn(|| order.due(now)).map(|packet| packet.at).collect()
    }

    #[test]
    fn what_comes_later_and_was_earlier_goes_first_within_the_time_that_packets_are_held() {
        let (mut order, begin) = (Order::new(SECOND, 1 << 20), Instant::now());
        order.push(packet(50), begin);
        order.push(packet(20), begin + SECOND / 2);
        assert_eq!(due(&mut order, begin + SECOND / 2), [0; 0]);
        // The later one waits for the one before it.
        assert_eq!(due(&mut order, begin + SECOND), [0; 0]);
        order.push(packet(30), begin + SECOND);
        assert_eq!(due(&mut order, begin + SECOND * 3 / 2), [20]);
        assert_eq!(due(&mut order, begin + SECOND * 2), [30, 50]);
        // Too late.
        order.push(packet(10), begin + SECOND * 2);
        assert_eq!(due(&mut order, begin + SECOND * 3), [10]);
    }

    #[test]
    fn a_clock_that_is_wrong_holds_nothing_up_and_no_more_is_held_than_there_is_room_for() {
        let (mut order, begin) = (Order::new(SECOND, 3 * (4 + OVERHEAD)), Instant::now());
        order.push(packet(u64::MAX), begin);
        assert_eq!(due(&mut order, begin + SECOND), [u64::MAX]);
        for at in [9, 8, 7, 6, 5] {
            order.push(packet(at), begin);
        }
        assert_eq!(due(&mut order, begin), [5, 6]);
        assert_eq!(std::iter::from_fn(|| order.first()).map(|packet| packet.at).collect::<Vec<_>>(), [7, 8, 9]);
        assert_eq!(order.bytes, 0);
    }

    #[test]
    fn of_one_time_the_order_in_which_they_came_stays() {
        let (mut order, begin) = (Order::new(SECOND, 1 << 20), Instant::now());
        for interface in [3, 1, 2] {
            order.push(Packet { interface, ..packet(1) }, begin);
        }
        let order: Vec<u32> = std::iter::from_fn(|| order.first()).map(|packet| packet.interface).collect();
        assert_eq!(order, [3, 1, 2]);
    }
}
