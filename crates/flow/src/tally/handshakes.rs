//! How long handshakes took, in the buckets of a histogram.

/// Upper bounds in microseconds: from pods of one node (about 0.1 ms) to continents (0.25 s). A SYN that is sent again goes after 1 s, and then after
/// 3 s from the first (RFC 6298, sections 2 and 5): what is above the bound before was lost on its way once, or twice.
const BOUNDS: [u32; 14] =
    [50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 900_000, 2_900_000];

/// What they came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Handshakes {
    /// By the bound that is just not exceeded.
    within: [u64; BOUNDS.len()],
    count: u64,
    micros: u64,
}

impl Handshakes {
    pub(super) fn add(&mut self, micros: u32) {
        let bound = BOUNDS.iter().position(|bound| micros <= *bound);
        if let Some(within) = bound.and_then(|bound| self.within.get_mut(bound)) {
            *within += 1;
        }
        self.count += 1;
        self.micros += u64::from(micros);
    }

    pub(super) const fn count(&self) -> u64 {
        self.count
    }

    /// All of them together, in microseconds.
    pub(super) const fn micros(&self) -> u64 {
        self.micros
    }

    /// Bounds in seconds, each with how many took no longer: as Prometheus wants them, the last without a bound.
    pub(super) fn buckets(&self) -> impl Iterator<Item = (String, u64)> + '_ {
        let bounds = BOUNDS.iter().zip(&self.within).scan(0_u64, |sum, (bound, within)| {
            *sum += within;
            Some((seconds(*bound), *sum))
        });
        bounds.chain(std::iter::once(("+Inf".to_owned(), self.count)))
    }
}

fn seconds(micros: u32) -> String {
    (f64::from(micros) / 1e6).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bucket_has_all_that_took_no_longer() {
        let mut handshakes = Handshakes::default();
        for micros in [10, 50, 51, 700, 1_200_000, 4_000_000] {
            handshakes.add(micros);
        }
        let buckets: Vec<(String, u64)> = handshakes.buckets().collect();
        let of = |bound: &str| buckets.iter().find(|(other, _)| other == bound).map(|(_, count)| *count);
        for (bound, count) in [("0.00005", 2), ("0.0001", 3), ("0.001", 4), ("0.9", 4), ("2.9", 5), ("+Inf", 6)] {
            assert_eq!(of(bound), Some(count), "{bound}: {buckets:?}");
        }
        assert!(buckets.is_sorted_by_key(|(_, count)| *count) && buckets.len() == BOUNDS.len() + 1);
        assert_eq!((handshakes.count(), handshakes.micros()), (6, 5_200_811));
    }
}
