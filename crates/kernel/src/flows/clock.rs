//! What stands in the maps, in the words of records: with the time of the calendar.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use podnet_ebpf::flows::{Counted, Key};
use podnet_flow::{Entry, EntryKey, IcmpError, Transport, Way};

/// By more than this the calendar differs only where it was set, or the machine slept: what goes slowly about being right turns the time since the
/// start as well (`adjtimex(2)`).
const SET: SignedDuration = SignedDuration::from_millis(100);

/// The machine's time since its start, as that of the calendar. It stands still while the machine sleeps (`CLOCK_MONOTONIC`), and the calendar may be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Clock {
    start: Timestamp,
}

impl Clock {
    pub(super) fn now() -> Self {
        let start = || {
            let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
            let since = Duration::try_from(now).unwrap_or_default();
            Timestamp::now().saturating_sub(since).unwrap_or(Timestamp::UNIX_EPOCH)
        };
        // Who waits for a processor between these two times comes to a later one; twice in a row hardly anybody does.
        Self { start: start().min(start()) }
    }

    /// As it is now, if the calendar was set or the machine slept; else it stays, so that times do not waver.
    pub(super) fn follow(&mut self, now: Self) {
        if now.start.duration_since(self.start).abs() > SET {
            *self = now;
        }
    }

    pub(super) fn at(self, nanos: u64) -> Timestamp {
        self.start.saturating_add(Duration::from_nanos(nanos)).unwrap_or(Timestamp::MAX)
    }

    pub(super) fn entry(self, key: &Key, counted: &Counted) -> Entry {
        Entry {
            key: EntryKey {
                device: key.device,
                local: key.local,
                remote: key.remote,
                local_port: key.local_port,
                remote_port: key.remote_port,
                transport: Transport(key.protocol),
            },
            pod_began: !counted.remote_began,
            out: way(&counted.out),
            into: way(&counted.into),
            born: counted.first,
            first: self.at(counted.first),
            last: self.at(counted.last),
            handshake_micros: counted.handshake,
            ended: counted.ended,
            asked: counted.asked,
            error: counted.error.map(error),
            unserved: None,
        }
    }
}

fn error(of: podnet_ebpf::flows::Error) -> IcmpError {
    let podnet_ebpf::flows::Error { kind, code, by_destination } = of;
    IcmpError { kind, code, by_destination }
}

fn way(of: &podnet_ebpf::flows::Way) -> Way {
    let podnet_ebpf::flows::Way { packets, bytes, retransmissions, resets, flags } = *of;
    Way { packets, bytes, retransmissions, resets, flags }
}

pub(super) fn raw(key: &EntryKey) -> Key {
    let EntryKey { device, local, remote, local_port, remote_port, transport } = *key;
    Key { device, local, remote, local_port, remote_port, protocol: transport.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_follows_a_calendar_that_was_set_and_a_machine_that_slept_and_does_not_waver() {
        let now = Clock::now();
        let by = |millis| Clock { start: now.start + SignedDuration::from_millis(millis) };
        for set in [-3_600_000, -101, 101, 3_600_000] {
            let mut clock = by(set);
            clock.follow(now);
            assert_eq!(clock, now, "{set} ms");
        }
        for wavering in [-100, -3, 0, 3, 100] {
            let mut clock = by(wavering);
            clock.follow(now);
            assert_eq!(clock, by(wavering), "{wavering} ms");
        }
        let mut clock = by(-3_600_000);
        let nanos = 5_000_000_000;
        assert_eq!(now.at(nanos).duration_since(clock.at(nanos)), SignedDuration::from_hours(1));
        clock.follow(Clock::now());
        assert!(clock.at(nanos).duration_since(now.at(nanos)).abs() < SignedDuration::from_mins(1), "{clock:?}");
    }
}
