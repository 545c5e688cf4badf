//! Which flows had a packet beyond a pod's limit of packets or of connections, as rules noted it.

use foldhash::HashMap;
use jiff::{SignedDuration, Timestamp};

use crate::{
    entry::{Entry, Transport},
    record::Key,
};

/// That much sooner than its entry began a flow's packet may have been noted, by clocks that tick: far less than it takes until a port is used again.
const NEARLY: SignedDuration = SignedDuration::from_millis(100);

/// What was noted just now.
#[derive(Debug, Default)]
pub struct Beyond {
    /// By the addresses and ports of packets, when the last of them was.
    noted: HashMap<Key, Timestamp>,
}

impl Beyond {
    /// A packet from `packet.source` to its destination was lost or refused; the last such one at that time. Of ICMP the source's port is the identifier
    /// of an echo, and the destination's counts for nothing.
    pub fn note(&mut self, packet: &Key, last: Timestamp) {
        let known = self.noted.entry(place(packet)).or_insert(last);
        *known = last.max(*known);
    }

    /// Whether a packet of a flow was noted since its entry began: one that went either way, as the entry's pod saw it or would have, or as the flow is
    /// known (`key`), which is as who answers sees it.
    pub(crate) fn has(&self, entry: &Entry, key: &Key) -> bool {
        if self.noted.is_empty() {
            return false;
        }
        let since = entry.first.checked_sub(NEARLY).unwrap_or(entry.first);
        let either = |key: &Key| self.has_packet(key, since) || self.has_packet(&answer(key), since);
        let own = Key::of(entry);
        either(&own) || own != *key && either(key)
    }

    /// Adds what was noted newer, and gives up what was noted last before that time. So many flows are kept at most: of newer ones as many as there is room for.
    pub(crate) fn keep(&mut self, newer: &Self, before: Timestamp, most: usize) {
        self.noted.retain(|_, last| *last >= before);
        for (packet, last) in &newer.noted {
            let has_room = self.noted.len() < most;
            if let Some(known) = self.noted.get_mut(packet) {
                *known = (*known).max(*last);
            } else if has_room {
                self.noted.insert(*packet, *last);
            }
        }
    }

    /// Whether a packet like this one was noted since then.
    pub(crate) fn has_packet(&self, packet: &Key, since: Timestamp) -> bool {
        self.noted.get(&place(packet)).is_some_and(|last| *last >= since)
    }
}

/// Of ICMP all types of messages are one.
fn place(packet: &Key) -> Key {
    let mut place = *packet;
    if is_icmp(packet) {
        place.destination.set_port(0);
    }
    place
}

/// What an answer has. An echo's has the same identifier.
fn answer(packet: &Key) -> Key {
    let mut answer = Key { source: packet.destination, destination: packet.source, ..*packet };
    if is_icmp(packet) {
        answer.source.set_port(packet.source.port());
    }
    answer
}

const fn is_icmp(packet: &Key) -> bool {
    matches!(packet.transport, Transport::ICMP | Transport::ICMP6)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Way, entry::EntryKey};

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millisecond(millis).unwrap()
    }

    fn key(source: &str, destination: &str, transport: Transport) -> Key {
        Key { source: source.parse().unwrap(), destination: destination.parse().unwrap(), transport }
    }

    /// At the interface of who began it, a second after the beginning of time.
    fn entry(key: &Key) -> Entry {
        let Key { source, destination, transport } = *key;
        Entry {
            key: EntryKey {
                device: 1,
                local: source.ip(),
                remote: destination.ip(),
                local_port: source.port(),
                remote_port: destination.port(),
                transport,
            },
            pod_began: true,
            out: Way::default(),
            into: Way::default(),
            born: 1,
            first: at(1000),
            last: at(1000),
            handshake_micros: 0,
            ended: false,
            asked: None,
            error: None,
            unserved: None,
        }
    }

    #[test]
    fn a_flow_is_known_by_packets_of_both_ways_and_by_whom_it_asked_or_who_answers() {
        let (tcp, icmp) = (Transport::TCP, Transport::ICMP6);
        let asked = key("10.0.0.1:40000", "10.96.0.1:80", tcp);
        let known = key("10.0.0.1:40000", "10.0.0.2:8080", tcp);
        let echo = key("[fd00::1]:7", "[fd00::2]:128", icmp);
        // What is noted, of what flow, and whether it is of that one.
        let rows = [
            (asked, (asked, known), true),
            (known, (asked, known), true),
            (key("10.0.0.2:8080", "10.0.0.1:40000", tcp), (asked, known), true),
            (key("10.96.0.1:80", "10.0.0.1:40000", tcp), (asked, known), true),
            (key("10.0.0.1:40001", "10.96.0.1:80", tcp), (asked, known), false),
            (key("10.0.0.1:40000", "10.96.0.1:80", Transport::UDP), (asked, known), false),
            // Type and code of a request, and of an answer.
            (key("[fd00::1]:7", "[fd00::2]:32768", icmp), (echo, echo), true),
            (key("[fd00::2]:7", "[fd00::1]:33024", icmp), (echo, echo), true),
            (key("[fd00::1]:8", "[fd00::2]:32768", icmp), (echo, echo), false),
        ];
        for (packet, (own, known), expected) in rows {
            let mut beyond = Beyond::default();
            assert!(!beyond.has(&entry(&own), &known));
            beyond.note(&packet, at(1000));
            assert_eq!(beyond.has(&entry(&own), &known), expected, "{packet:?} {own:?}");
        }
    }

    #[test]
    fn what_was_noted_before_a_flow_began_was_another_one_of_the_same_ports() {
        let key = key("10.0.0.1:40000", "10.0.0.2:80", Transport::TCP);
        let rows: [(&[i64], bool); 4] = [(&[899], false), (&[900], true), (&[500, 2000], true), (&[2000, 500], true)];
        for (times, expected) in rows {
            let mut beyond = Beyond::default();
            times.iter().for_each(|millis| beyond.note(&key, at(*millis)));
            assert_eq!(beyond.has(&entry(&key), &key), expected, "{times:?}");
        }
    }

    #[test]
    fn what_was_noted_is_kept_until_a_time_and_up_to_a_number() {
        let [one, other] = [1, 2].map(|port| key(&format!("10.0.0.1:{port}"), "10.0.0.2:80", Transport::TCP));
        let noted = |packet: &Key, millis| {
            let mut beyond = Beyond::default();
            beyond.note(packet, at(millis));
            beyond
        };
        let mut kept = Beyond::default();
        // What is newer, what is given up, how many at most, and which are known then, and of one that from 2 s on.
        let rows = [
            (noted(&one, 1000), 0, 1, [true, false], false),
            (noted(&other, 1500), 0, 1, [true, false], false),
            (noted(&other, 1500), 0, 2, [true, true], false),
            (noted(&one, 2000), 1500, 2, [true, true], true),
            (noted(&one, 1000), 1501, 2, [true, false], true),
            (Beyond::default(), 2001, 2, [false, false], false),
        ];
        for (newer, before, most, known, is_later) in rows {
            kept.keep(&newer, at(before), most);
            let has = [one, other].map(|packet| kept.has_packet(&packet, at(0)));
            assert_eq!((has, kept.has_packet(&one, at(2000))), (known, is_later), "{newer:?} {before} {most}");
        }
    }
}
