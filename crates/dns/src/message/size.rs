//! How large a message is with its names spelled out.

use super::{Record, rtype, walk};
use crate::name::MAX_NAME;

/// The size in bytes of a message whose question ends at `at`, as it would be without compression (RFC 1035 §4.1.4); none where its
/// records cannot be read. Nothing is copied: each line of a log may have it.
pub(crate) fn uncompressed(message: &[u8], at: usize) -> Option<usize> {
    let records = walk(message, at).map(|record| size(message, &record.ok()?));
    Some(at + records.sum::<Option<usize>>()?)
}

fn size(message: &[u8], record: &Record) -> Option<usize> {
    let (owner, _) = name(message, record.start)?;
    // Type, class, time to live and the data's length take 10 bytes (RFC 1035 §3.2.1).
    Some(owner + 10 + data(message, record)?)
}

/// The size of a record's data. Names in it are compressed in types that every reader knows (RFC 3597 §4), and some compress SRV.
fn data(message: &[u8], record: &Record) -> Option<usize> {
    // How much stands before the names, and how many there are.
    let (before, names) = match record.rtype {
        rtype::NS | rtype::CNAME | rtype::PTR => (0, 1),
        rtype::SOA => (0, 2),
        rtype::MX => (2, 1),
        rtype::SRV => (6, 1),
        _ => return Some(record.end - record.rdata),
    };
    let (mut size, mut at) = (before, record.rdata + before);
    for _ in 0..names {
        let (whole, end) = name(message, at)?;
        size += whole;
        at = end;
    }
    Some(size + record.end.checked_sub(at)?)
}

/// The size of the name at `at` with pointers followed, root label included, and where it ends in the message.
///
/// Each pointer has to lead further back than the last one, so that no message can make it go on for ever (RFC 9267 §2).
fn name(message: &[u8], mut at: usize) -> Option<(usize, usize)> {
    let (mut size, mut barrier, mut end) = (1, at, None);
    loop {
        match *message.get(at)? {
            0 => return Some((size, end.unwrap_or(at + 1))),
            label @ 1..=63 => {
                size += usize::from(label) + 1;
                if size > MAX_NAME {
                    return None;
                }
                at += usize::from(label) + 1;
            }
            high @ 0xc0.. => {
                let target = usize::from(high & 0x3f) << 8 | usize::from(*message.get(at + 1)?);
                end.get_or_insert(at + 2);
                if target >= barrier {
                    return None;
                }
                (barrier, at) = (target, target);
            }
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::uncompressed;
    use crate::{message::rtype, server::fixture::query};

    /// A response with one record of example.org, and where its question ends.
    fn response(rtype: u16, data: &[u8]) -> (Vec<u8>, usize) {
        let mut message = query("example.org", rtype);
        let at = message.len();
        message[7] = 1;
        message.extend_from_slice(&[0xc0, 12]);
        message.extend_from_slice(&rtype.to_be_bytes());
        message.extend_from_slice(&[0, 1, 0, 0, 0, 60, 0, data.len() as u8]);
        message.extend_from_slice(data);
        (message, at)
    }

    /// What its data takes; none where it cannot be read.
    fn data(rtype: u16, data: &[u8]) -> Option<usize> {
        let (message, at) = response(rtype, data);
        // The header, the question, and the record's owner and fixed part: the name takes 13 bytes.
        uncompressed(&message, at).map(|size| size - (12 + 17 + 13 + 10))
    }

    #[test]
    fn names_in_data_count_as_they_are_spelled_out() {
        assert_eq!(data(rtype::A, &[192, 0, 2, 1]), Some(4));
        assert_eq!(data(rtype::NS, &[0xc0, 12]), Some(13));
        assert_eq!(data(rtype::CNAME, &[1, b'a', 0xc0, 12]), Some(2 + 13));
        assert_eq!(data(rtype::PTR, &[1, b'a', 0]), Some(3));
        let soa = [&[2, b'n', b's', 0xc0, 12, 0xc0, 12][..], &[0; 20]].concat();
        assert_eq!(data(rtype::SOA, &soa), Some(16 + 13 + 20));
        assert_eq!(data(rtype::MX, &[0, 10, 0xc0, 12]), Some(2 + 13));
        assert_eq!(data(rtype::SRV, &[0, 0, 0, 0, 0, 80, 0xc0, 12]), Some(6 + 13));
        assert_eq!(data(rtype::TXT, &[2, 0xc0, 12]), Some(3), "no name");
    }

    #[test]
    fn what_contradicts_itself_has_no_size() {
        // Its data begins at 41.
        assert_eq!(data(rtype::NS, &[0xc0, 41]), None);
        assert_eq!(data(rtype::NS, &[1, b'a', 0xc0, 41]), None);
        assert_eq!(data(rtype::NS, &[0x80, 12]), None);
        assert_eq!(data(rtype::MX, &[0]), None);
        assert_eq!(data(rtype::SOA, &[0xc0, 12]), None);
        // Three labels of 63 bytes and one of another size before the name: 255 bytes, and one more.
        let long = |size: u8| [vec![63; 3 * 64], vec![size; usize::from(size) + 1], vec![0xc0, 12]].concat();
        assert_eq!(data(rtype::NS, &long(49)), Some(255));
        assert_eq!(data(rtype::NS, &long(50)), None);
        let (message, at) = response(rtype::A, &[192, 0, 2, 1]);
        assert_eq!(uncompressed(&message[..message.len() - 1], at), None);
    }
}
