//! Record batches of version 2 (magic byte 2), as brokers keep them: without sequence numbers and transactions.

use super::partition::key;
use crate::{Numbered, export::json};

const MAGIC: u8 = 2;
/// There is none: an epoch, a producer, a sequence number.
const NONE: i32 = -1;
/// What stands before the length's own end: the offset and the length.
const LENGTH_END: usize = 12;

/// The table of CRC-32C (RFC 3720, appendix B.4): what each byte makes of a remainder, with bits turned round.
const REMAINDERS: [u32; 256] = remainders();

/// What compresses the records of a batch as one (RFC 1952).
pub type Gzip = fn(&[u8]) -> Vec<u8>;

/// One batch of records for one partition, in this order: an item's JSON with the key by which its partition is chosen, and its id in the headers.
/// The records are compressed where there is something that does it; what stands before them never is.
#[must_use]
pub fn batch(items: &[&Numbered], gzip: Option<Gzip>) -> Vec<u8> {
    /// The lowest three bits of the attributes (`CompressionType.GZIP`).
    const OF_GZIP: i16 = 1;
    let first = items.first().map_or(0, |item| millis(item));
    let latest = items.iter().map(|item| millis(item)).max().unwrap_or(first);
    let count = i32::try_from(items.len()).unwrap_or(0);
    let mut body = Vec::new();
    // Attributes: the compression; times are those of who made the records.
    body.extend(gzip.map_or(0, |_| OF_GZIP).to_be_bytes());
    body.extend((count - 1).to_be_bytes());
    body.extend(first.to_be_bytes());
    body.extend(latest.to_be_bytes());
    // Producer and its epoch, and the first sequence number.
    body.extend(i64::from(NONE).to_be_bytes());
    body.extend((-1_i16).to_be_bytes());
    body.extend(NONE.to_be_bytes());
    body.extend(count.to_be_bytes());
    let mut records = Vec::new();
    for (number, item) in (0..).zip(items) {
        let record = record(item, number, millis(item) - first);
        put_bytes(&mut records, &record);
    }
    body.extend(match gzip {
        Some(gzip) => gzip(&records),
        None => records,
    });
    // The broker says at which offset it is.
    let mut bytes = vec![0; LENGTH_END];
    bytes.extend(NONE.to_be_bytes());
    bytes.push(MAGIC);
    bytes.extend(crc32c(&body).to_be_bytes());
    bytes.extend(body);
    let length = i32::try_from(bytes.len() - LENGTH_END).unwrap_or(0);
    bytes[LENGTH_END - 4..LENGTH_END].copy_from_slice(&length.to_be_bytes());
    bytes
}

fn millis(item: &Numbered) -> i64 {
    item.item.at().as_millisecond()
}

fn record(item: &Numbered, number: i64, later: i64) -> Vec<u8> {
    let id = item.record.to_string();
    let headers = [("content-type", "application/json"), ("record", id.as_str()), ("type", item.item.kind())];
    // Attributes: there are none.
    let mut bytes = vec![0];
    put_number(&mut bytes, later);
    put_number(&mut bytes, number);
    put_bytes(&mut bytes, key(item).as_bytes());
    put_bytes(&mut bytes, json(item).as_bytes());
    put_number(&mut bytes, headers.len().try_into().unwrap_or(0));
    for (name, value) in headers {
        put_bytes(&mut bytes, name.as_bytes());
        put_bytes(&mut bytes, value.as_bytes());
    }
    bytes
}

/// Bytes behind their length.
fn put_bytes(to: &mut Vec<u8>, bytes: &[u8]) {
    put_number(to, bytes.len().try_into().unwrap_or(0));
    to.extend_from_slice(bytes);
}

/// A number of variable length: its sign in the lowest bit, seven bits in each byte, the lowest first, the highest bit where more follow.
fn put_number(to: &mut Vec<u8>, number: i64) {
    let mut rest = ((number << 1) ^ (number >> 63)).cast_unsigned();
    loop {
        let [lowest, ..] = rest.to_le_bytes();
        rest >>= 7;
        if rest == 0 {
            return to.push(lowest & 0x7F);
        }
        to.push(lowest | 0x80);
    }
}

fn crc32c(bytes: &[u8]) -> u32 {
    let after = |crc: u32, byte: &u8| {
        let [lowest, ..] = crc.to_le_bytes();
        REMAINDERS[usize::from(lowest ^ byte)] ^ (crc >> 8)
    };
    !bytes.iter().fold(u32::MAX, after)
}

const fn remainders() -> [u32; 256] {
    const POLYNOMIAL: u32 = 0x82F6_3B78;
    let mut table = [0; 256];
    let mut index = 0;
    while index < table.len() {
        #[allow(clippy::cast_possible_truncation, reason = "it is less than 256")]
        let mut remainder = index as u32;
        let mut bit = 0;
        while bit < 8 {
            remainder = (remainder >> 1) ^ if remainder & 1 == 1 { POLYNOMIAL } else { 0 };
            bit += 1;
        }
        table[index] = remainder;
        index += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{flow, gap};

    #[test]
    fn the_checksum_is_that_of_rfc_3720() {
        // Appendix B.4, and the check value of the catalogue of CRCs.
        for (bytes, expected) in [
            (&[0; 32][..], 0x8A91_36AA),
            (&[0xFF; 32][..], 0x62A8_AB43),
            (&(0..32).collect::<Vec<u8>>()[..], 0x46DD_794E),
            (&b"123456789"[..], 0xE306_9283),
            (&[][..], 0),
        ] {
            assert_eq!(crc32c(bytes), expected, "{bytes:?}");
        }
    }

    #[test]
    fn numbers_have_as_many_bytes_as_they_need() {
        for (number, expected) in [
            (0, &[0][..]),
            (-1, &[1][..]),
            (1, &[2][..]),
            (63, &[0x7E][..]),
            (64, &[0x80, 1][..]),
            (-65, &[0x81, 1][..]),
            (i64::MIN, &[0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 1][..]),
        ] {
            let mut bytes = Vec::new();
            put_number(&mut bytes, number);
            assert_eq!(bytes, expected, "{number}");
        }
    }

    /// A number of variable length that takes a byte or two.
    fn small(bytes: &mut &[u8]) -> i64 {
        let (first, rest) = bytes.split_first().unwrap();
        let mut value = i64::from(first & 0x7F);
        *bytes = rest;
        if first & 0x80 != 0 {
            let (second, rest) = bytes.split_first().unwrap();
            assert!(second & 0x80 == 0);
            value |= i64::from(*second) << 7;
            *bytes = rest;
        }
        (value >> 1) ^ -(value & 1)
    }

    fn text(bytes: &mut &[u8]) -> String {
        let length = usize::try_from(small(bytes)).unwrap();
        let (text, rest) = bytes.split_at(length);
        *bytes = rest;
        String::from_utf8(text.to_vec()).unwrap()
    }

    #[test]
    fn a_batch_has_each_item_with_its_key_and_its_id_as_old_as_it_is() {
        let bytes = batch(&[&flow(7), &gap(8)], None);
        let int = |at: usize| i32::from_be_bytes(*bytes[at..].first_chunk().unwrap());
        let long = |at: usize| i64::from_be_bytes(*bytes[at..].first_chunk().unwrap());
        assert_eq!((long(0), int(8), int(12), bytes[16]), (0, i32::try_from(bytes.len() - 12).unwrap(), -1, 2));
        assert_eq!(int(17).cast_unsigned(), crc32c(&bytes[21..]));
        assert_eq!((&bytes[21..23], int(23)), (&[0, 0][..], 1));
        // The second item is older than the first one.
        assert_eq!((long(27), long(35)), (1_767_225_602_500, 1_767_225_602_500));
        assert_eq!((long(43), &bytes[51..53], int(53), int(57)), (-1, &[0xFF, 0xFF][..], -1, 2));
        let mut rest = &bytes[61..];
        for (number, later, item, key, kind) in
            [(0, 0, flow(7), "01020304-0506-0708-0000-000000000007", "flow"), (1, -1500, gap(8), "node1", "gap")]
        {
            let length = usize::try_from(small(&mut rest)).unwrap();
            let before = rest.len();
            assert_eq!(small(&mut rest), 0);
            assert_eq!((small(&mut rest), small(&mut rest)), (later, number));
            assert_eq!((text(&mut rest), text(&mut rest)), (key.to_owned(), json(&item)));
            assert_eq!(small(&mut rest), 3);
            let id = item.record.to_string();
            for (name, value) in [("content-type", "application/json"), ("record", id.as_str()), ("type", kind)] {
                assert_eq!((text(&mut rest), text(&mut rest)), (name.to_owned(), value.to_owned()));
            }
            assert_eq!(before - rest.len(), length);
        }
        assert!(rest.is_empty());
    }

    #[test]
    fn of_a_compressed_batch_the_records_are_compressed_and_what_tells_so_is_not() {
        /// In place of what compresses.
        fn turned(bytes: &[u8]) -> Vec<u8> {
            bytes.iter().rev().copied().collect()
        }
        let (flow, gap) = (flow(7), gap(8));
        let items = [&flow, &gap];
        let (plain, compressed) = (batch(&items, None), batch(&items, Some(turned)));
        assert_eq!((&plain[21..23], &compressed[21..23]), (&[0, 0][..], &[0, 1][..]));
        assert_eq!(plain[23..61], compressed[23..61]);
        assert_eq!(turned(&plain[61..]), compressed[61..]);
        let checksum = u32::from_be_bytes(*compressed[17..].first_chunk().unwrap());
        assert_eq!(checksum, crc32c(&compressed[21..]), "of what is sent");
    }
}
