//! What stands in the maps, in the words of records: with the time of the calendar.

use std::time::Duration;

use jiff::Timestamp;
use podnet_ebpf::flows::{Counted, Key};
use podnet_flow::{Entry, EntryKey, IcmpError, Transport, Way};

/// The machine's time since its start, as that of the calendar.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    start: Timestamp,
}

impl Clock {
    pub(super) fn now() -> Self {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let since = Duration::try_from(now).unwrap_or_default();
        Self { start: Timestamp::now().saturating_sub(since).unwrap_or(Timestamp::UNIX_EPOCH) }
    }

    fn at(self, nanos: u64) -> Timestamp {
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
