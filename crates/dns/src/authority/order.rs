//! The canonical order of names (RFC 4034 §6.1): by labels from the root down, each as bytes.

use std::cmp::Ordering;

/// The labels of a name on the wire, found once.
pub(crate) struct Labels<'a> {
    wire: &'a [u8],
    starts: [u8; 128],
    count: usize,
}

impl<'a> Labels<'a> {
    /// The labels of an uncompressed name. What follows a label that runs past the end is left out.
    pub(crate) fn of(wire: &'a [u8]) -> Self {
        let mut labels = Self { wire, starts: [0; 128], count: 0 };
        let mut at = 0;
        while let Some(&size) = wire.get(at) {
            let next = at + usize::from(size) + 1;
            if size == 0 || next > wire.len() || labels.count == labels.starts.len() {
                break;
            }
            labels.starts[labels.count] = at as u8;
            labels.count += 1;
            at = next;
        }
        labels
    }

    /// How many there are, the root not counted.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// The label at `index`, the leftmost being 0.
    fn get(&self, index: usize) -> &'a [u8] {
        let start = usize::from(self.starts[index]);
        &self.wire[start + 1..start + 1 + usize::from(self.wire[start])]
    }

    /// The labels from the root down.
    pub(crate) fn downwards(&self) -> impl Iterator<Item = &'a [u8]> + '_ {
        (0..self.count).rev().map(|index| self.get(index))
    }

    /// The name made of the last `labels` labels.
    pub(crate) fn last(&self, labels: usize) -> &'a [u8] {
        match self.count.checked_sub(labels) {
            Some(first) if first < self.count => &self.wire[usize::from(self.starts[first])..],
            Some(_) => &self.wire[self.wire.len() - 1..],
            None => self.wire,
        }
    }
}

/// Compares two lower-case names.
pub(crate) fn compare(left: &[u8], right: &[u8]) -> Ordering {
    if left == right {
        return Ordering::Equal;
    }
    let (left, right) = (Labels::of(left), Labels::of(right));
    left.downwards().cmp(right.downwards())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::Name;

    #[test]
    fn rfc4034_6_1_the_example_order() {
        let order = [
            b"\x07example\x00".as_slice(),
            b"\x01a\x07example\x00",
            b"\x08yljkjljk\x01a\x07example\x00",
            b"\x01z\x01a\x07example\x00",
            b"\x04zabc\x01a\x07example\x00",
            b"\x01z\x07example\x00",
            b"\x01\x01\x01z\x07example\x00",
            b"\x01*\x01z\x07example\x00",
            b"\x01\xc8\x01z\x07example\x00",
        ];
        for pair in order.windows(2) {
            assert_eq!(compare(pair[0], pair[1]), Ordering::Less, "{pair:?}");
            assert_eq!(compare(pair[1], pair[0]), Ordering::Greater);
        }
    }

    #[test]
    fn the_last_labels_are_a_name() {
        let name = Name::parse("a.bc.example").unwrap();
        let labels = Labels::of(name.wire());
        assert_eq!(labels.count(), 3);
        assert_eq!(labels.last(2), b"\x02bc\x07example\x00");
        assert_eq!(labels.last(0), b"\x00");
        assert_eq!(labels.last(3), name.wire());
        assert_eq!(Labels::of(b"\x00").last(0), b"\x00");
    }
}
