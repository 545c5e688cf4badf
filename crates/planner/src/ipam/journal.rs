//! The journal's text: one record a line, with a checksum, so that a line that a crash tore is known for one.
//!
//! ```text
//! 5d0b9a3e claimed 10.233.64.0/26
//! 90c1f3aa assigned 10.233.64.0 3f2a…/eth0 default/web-1 0b5c…
//! 1be24c90 assigned fd00:10:244::1c0 3f2a…/eth0 default/web-1 0b5c…
//! ```

use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;
use podnet_model::{NodeName, PodKey};

use super::{Handle, Moment};

/// One durable decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JournalRecord {
    /// The node owns the block now.
    Claimed {
        /// The block.
        block: IpNet,
    },
    /// The node gave the block up.
    Unclaimed {
        /// The block.
        block: IpNet,
    },
    /// The handle holds the address.
    Assigned {
        /// The address.
        addr: IpAddr,
        /// What it is freed by.
        handle: Handle,
        /// The pod.
        pod: PodKey,
        /// The pod's `metadata.uid`.
        uid: Arc<str>,
    },
    /// The handle, which is another node's, holds the address.
    Lent {
        /// The address.
        addr: IpAddr,
        /// What it is freed by.
        handle: Handle,
        /// The pod.
        pod: PodKey,
        /// The pod's `metadata.uid`.
        uid: Arc<str>,
        /// The node that the pod is on.
        node: NodeName,
    },
    /// The address rests.
    Released {
        /// The address.
        addr: IpAddr,
        /// Who held it.
        handle: Handle,
        /// When it was freed.
        at: Moment,
    },
}

impl JournalRecord {
    /// The record as a line, without the line feed.
    #[must_use]
    pub fn to_line(&self) -> String {
        let text = match self {
            Self::Claimed { block } => format!("claimed {block}"),
            Self::Unclaimed { block } => format!("unclaimed {block}"),
            Self::Assigned { addr, handle, pod, uid } => format!("assigned {}", held(*addr, handle, pod, uid)),
            Self::Lent { addr, handle, pod, uid, node } => {
                format!("lent {} {}", held(*addr, handle, pod, uid), escape(node.as_str()))
            }
            Self::Released { addr, handle, at } => format!("released {addr} {} {}", escape(handle.as_str()), at.0),
        };
        format!("{:08x} {text}", crc32(text.as_bytes()))
    }

    /// The record of a line; none where the line is damaged.
    #[must_use]
    pub fn from_line(line: &str) -> Option<Self> {
        let (sum, text) = line.split_once(' ')?;
        if sum.len() != 8 || u32::from_str_radix(sum, 16).ok()? != crc32(text.as_bytes()) {
            return None;
        }
        let fields: Vec<&str> = text.split(' ').collect();
        match fields[..] {
            ["claimed", block] => Some(Self::Claimed { block: block.parse().ok()? }),
            ["unclaimed", block] => Some(Self::Unclaimed { block: block.parse().ok()? }),
            ["assigned", addr, handle, pod, uid] => Some(Self::Assigned {
                addr: addr.parse().ok()?,
                handle: Handle::from(&*unescape(handle)?),
                pod: pod_key(pod)?,
                uid: Arc::from(unescape(uid)?),
            }),
            ["lent", addr, handle, pod, uid, node] => Some(Self::Lent {
                addr: addr.parse().ok()?,
                handle: Handle::from(&*unescape(handle)?),
                pod: pod_key(pod)?,
                uid: Arc::from(unescape(uid)?),
                node: unescape(node)?.into(),
            }),
            ["released", addr, handle, at] => Some(Self::Released {
                addr: addr.parse().ok()?,
                handle: Handle::from(&*unescape(handle)?),
                at: Moment(at.parse().ok()?),
            }),
            _ => None,
        }
    }
}

fn held(addr: IpAddr, handle: &Handle, pod: &PodKey, uid: &str) -> String {
    let (namespace, name) = (escape(pod.namespace.as_str()), escape(&pod.name));
    format!("{addr} {} {namespace}/{name} {}", escape(handle.as_str()), escape(uid))
}

fn pod_key(field: &str) -> Option<PodKey> {
    let (namespace, name) = field.split_once('/')?;
    Some(PodKey::new(&unescape(namespace)?, &unescape(name)?))
}

/// What a replay found besides good records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Number of good records.
    pub records: usize,
    /// The last line was damaged: a crash tore it while it was written, so nobody was answered. Cut it off before appending.
    pub torn: Option<Damage>,
    /// Damaged lines before the last: the medium or another program did that. What they said is lost, so that addresses may be
    /// held that this ledger does not know; compare it with the sandboxes that exist.
    pub damaged: Vec<Damage>,
}

/// A line that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Its number, from 1.
    pub line: usize,
    /// What stands there.
    pub text: String,
}

/// Hands each good record on and says which lines are none. Empty lines are passed over.
pub(super) fn replay<'a>(lines: impl IntoIterator<Item = &'a str>, mut take: impl FnMut(JournalRecord)) -> Replayed {
    let mut replayed = Replayed::default();
    for (index, line) in lines.into_iter().enumerate().filter(|(_, line)| !line.is_empty()) {
        replayed.damaged.extend(replayed.torn.take());
        match JournalRecord::from_line(line) {
            Some(record) => {
                replayed.records += 1;
                take(record);
            }
            None => replayed.torn = Some(Damage { line: index + 1, text: line.to_owned() }),
        }
    }
    replayed
}

/// Makes one field of any text: bytes other than printable ASCII and `%` become `%XX`, and the empty text becomes `%`.
///
/// A `/` inside a pod's namespace or name cannot be (RFC 1123 labels and subdomains); in handles it is wanted.
fn escape(text: &str) -> String {
    if text.is_empty() {
        return "%".to_owned();
    }
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_graphic() && byte != b'%' {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02x}"));
        }
    }
    escaped
}

fn unescape(field: &str) -> Option<String> {
    if field == "%" {
        return Some(String::new());
    }
    let mut parts = field.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(part.get(..2)?, 16).ok()?);
        bytes.extend_from_slice(part.get(2..)?.as_bytes());
    }
    String::from_utf8(bytes).ok()
}

/// CRC-32 as in Ethernet and gzip (RFC 1952 section 8): polynomial 0xEDB88320, reflected, inverted at both ends.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc: u32, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use ipnet::{Ipv4Net, Ipv6Net};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_checksum_is_the_one_of_rfc_1952() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(crc32(b""), 0);
    }

    fn records() -> impl Strategy<Value = JournalRecord> {
        let text = "[ -~\u{e9}\n]{0,12}";
        let addr = prop_oneof![
            any::<u32>().prop_map(|addr| IpAddr::V4(Ipv4Addr::from(addr))),
            any::<u128>().prop_map(|addr| IpAddr::V6(Ipv6Addr::from(addr))),
        ];
        let block = prop_oneof![
            (any::<u32>(), 0..=32_u8)
                .prop_map(|(addr, size)| IpNet::V4(Ipv4Net::new(addr.into(), size).unwrap().trunc())),
            (any::<u128>(), 0..=128_u8)
                .prop_map(|(addr, size)| IpNet::V6(Ipv6Net::new(addr.into(), size).unwrap().trunc())),
        ];
        let lent = (addr.clone(), text, "[a-z0-9-]{1,9}", "[a-z0-9.-]{1,9}", "[a-z0-9.-]{1,9}");
        let assigned = (addr.clone(), text, "[a-z0-9-]{1,9}", "[a-z0-9.-]{1,9}", text);
        prop_oneof![
            block.clone().prop_map(|block| JournalRecord::Claimed { block }),
            block.prop_map(|block| JournalRecord::Unclaimed { block }),
            assigned.prop_map(|(addr, handle, namespace, name, uid)| JournalRecord::Assigned {
                addr,
                handle: Handle::from(&*handle),
                pod: PodKey::new(&namespace, &name),
                uid: Arc::from(uid),
            }),
            lent.prop_map(|(addr, handle, namespace, name, node)| JournalRecord::Lent {
                addr,
                handle: Handle::from(&*handle),
                pod: PodKey::new(&namespace, &name),
                uid: Arc::from("u"),
                node: node.into(),
            }),
            (addr, text, any::<u64>()).prop_map(|(addr, handle, at)| JournalRecord::Released {
                addr,
                handle: Handle::from(&*handle),
                at: Moment(at),
            }),
        ]
    }

    proptest! {
        #[test]
        fn a_line_reads_back_as_the_record_that_it_was(record in records()) {
            let line = record.to_line();
            prop_assert!(!line.contains('\n'));
            prop_assert_eq!(JournalRecord::from_line(&line), Some(record));
        }

        #[test]
        fn a_torn_line_is_no_record(record in records(), length in 0..40_usize) {
            let line = record.to_line();
            let torn = &line[..length.min(line.len() - 1)];
            prop_assert_eq!(JournalRecord::from_line(torn), None);
        }
    }

    /// Journals of nodes outlive versions of podnet.
    #[test]
    fn lines_are_written_and_read_as_they_ever_were() {
        for line in [
            "8deb3ce1 claimed 10.233.64.0/26",
            "56869c8a assigned 10.233.64.0 3f2a/eth0 default/web-1 0b5c",
            "63968871 released 10.233.64.0 3f2a/eth0 1000000",
        ] {
            assert_eq!(JournalRecord::from_line(line).map(|record| record.to_line()).as_deref(), Some(line));
        }
    }

    #[test]
    fn only_the_last_line_counts_as_torn() {
        let good = JournalRecord::Claimed { block: "10.0.0.0/26".parse().unwrap() }.to_line();
        let mut count = 0;
        let replayed = replay([good.as_str(), "spoilt", "", &good, &good[..12]], |_| count += 1);
        assert_eq!((count, replayed.records), (2, 2));
        assert_eq!(replayed.damaged, [Damage { line: 2, text: "spoilt".into() }]);
        assert_eq!(replayed.torn.map(|damage| damage.line), Some(5));
    }
}
