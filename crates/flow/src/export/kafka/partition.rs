//! Which partition a record belongs to.

use crate::{Item, Numbered};

/// Where Kafka's own clients begin.
const SEED: u32 = 0x9747_B28C;

/// All records of a flow have one, so that they stay in order; gaps of a node have another, with what was dropped there.
pub(super) fn key(item: &Numbered) -> String {
    match &item.item {
        Item::Flow(record) => record.id.to_string(),
        Item::Gap(_) | Item::Drops(_) => item.record.node.to_string(),
    }
}

/// The partition of that many that Kafka's own clients choose for the same key; 0 where there are none.
#[must_use]
pub fn partition(item: &Numbered, partitions: usize) -> usize {
    // As many bits as a number without a sign has there.
    let hash = murmur2(key(item).as_bytes()) & 0x7FFF_FFFF;
    usize::try_from(hash).unwrap_or(0).checked_rem(partitions).unwrap_or(0)
}

/// Austin Appleby's MurmurHash2, with 32 bits.
fn murmur2(bytes: &[u8]) -> u32 {
    const MIX: u32 = 0x5BD1_E995;
    let (words, rest) = bytes.as_chunks::<4>();
    let mut hash = SEED ^ u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    for word in words {
        let word = u32::from_le_bytes(*word).wrapping_mul(MIX);
        hash = hash.wrapping_mul(MIX) ^ (word ^ (word >> 24)).wrapping_mul(MIX);
    }
    if !rest.is_empty() {
        let rest = rest.iter().rev().fold(0, |word, byte| (word << 8) | u32::from(*byte));
        hash = (hash ^ rest).wrapping_mul(MIX);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(MIX);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::testing::{flow, gap};

    #[test]
    fn keys_are_hashed_as_kafkas_own_clients_do() {
        // From the tests of Kafka's client.
        for (key, expected) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(key.as_bytes()).cast_signed(), expected, "{key}");
        }
    }

    #[test]
    fn a_flow_stays_in_its_partition_and_flows_are_spread_over_all() {
        let chosen: Vec<usize> = (0..100).map(|number| partition(&flow(number), 4)).collect();
        assert_eq!(chosen.iter().copied().collect::<BTreeSet<_>>(), (0..4).collect());
        // Another record of the same flow.
        let mut later = flow(7);
        later.record.sequence = 70;
        assert_eq!(partition(&later, 4), chosen[7]);
        assert_eq!((partition(&gap(1), 4), partition(&gap(2), 4)), (partition(&gap(3), 4), partition(&gap(3), 4)));
        assert_eq!((partition(&flow(1), 1), partition(&flow(1), 0)), (0, 0));
    }
}
