//! Ratios of figures that are measured by turns, and how far chance may have moved them.

use serde::{Deserialize, Serialize};

use crate::{
    Result,
    services::{Figures, each},
};

/// Medians of the pairs' own ratios, to three digits, and between which values those of many more would be, with 95 % certainty; where there
/// are fewer than six pairs nobody knows that.
#[derive(Serialize, Deserialize)]
pub(crate) struct Ratios {
    pub(crate) median: Figures,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) low: Option<Figures>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) high: Option<Figures>,
}

/// So many pairs, of which each is the first one every other time: what the machine does meanwhile meets both alike.
pub(crate) fn by_turns(
    count: usize,
    one: impl Fn() -> Result<Figures>,
    other: impl Fn() -> Result<Figures>,
) -> Result<Vec<(Figures, Figures)>> {
    let pair = |number| {
        if number % 2 == 0 {
            return Ok((one()?, other()?));
        }
        let second = other()?;
        Ok((one()?, second))
    };
    (0..count).map(pair).collect()
}

impl Ratios {
    /// Of each pair the first by the second.
    pub(crate) fn of(pairs: &[(Figures, Figures)]) -> Self {
        let sorted = |of: fn(&Figures) -> f64| {
            let mut ratios: Vec<f64> = pairs.iter().map(|(one, other)| of(one) / of(other)).collect();
            ratios.sort_unstable_by(f64::total_cmp);
            ratios
        };
        let at = |place: usize| each(|of| (sorted(of)[place] * 1000.0).round() / 1000.0);
        let outside = outside(pairs.len());
        Self {
            median: at(pairs.len() / 2),
            low: outside.map(&at),
            high: outside.map(|outside| at(pairs.len() - 1 - outside)),
        }
    }
}

/// How many of so many values can be left out at each end, and what is left still has the median of what all were drawn from with 95 %
/// certainty, however it is spread: each value is above it as often as a coin shows heads. None where all of them are too few.
fn outside(count: usize) -> Option<usize> {
    // The logarithm of the chance that so many coins show so many heads, and the chance that they show at most as many.
    let mut chance = -(count as f64) * std::f64::consts::LN_2;
    let mut at_most = 0.0;
    let mut outside = None;
    for heads in 0..count / 2 {
        at_most += chance.exp();
        if 2.0 * at_most > 0.05 {
            break;
        }
        outside = Some(heads);
        chance += ((count - heads) as f64 / (heads + 1) as f64).ln();
    }
    outside
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_leaves_out_as_many_as_its_certainty_allows() {
        for (count, left_out) in [
            (0, None),
            (1, None),
            // Both ends: all of five coins show the same once in sixteen throws, all of six once in 32.
            (5, None),
            (6, Some(0)),
            (8, Some(0)),
            (9, Some(1)),
            (12, Some(2)),
            (24, Some(6)),
            (1000, Some(468)),
            (5000, Some(2430)),
        ] {
            assert_eq!(outside(count), left_out, "{count}");
        }
    }

    #[test]
    fn ratios_are_of_pairs_and_their_interval_has_the_median() {
        let pairs = |count: usize| -> Vec<_> {
            (1..=count).rev().map(|number| (each(|_| number as f64), each(|_| 10.0))).collect()
        };
        let nine = serde_json::to_value(Ratios::of(&pairs(9))).unwrap();
        let told = ["median", "low", "high"].map(|which| nine[which]["gbit_s"].as_f64());
        assert_eq!(told, [Some(0.5), Some(0.2), Some(0.8)]);
        let five = serde_json::to_value(Ratios::of(&pairs(5))).unwrap();
        assert_eq!((five["median"]["gbit_s"].as_f64(), five.get("low"), five.get("high")), (Some(0.3), None, None));
    }
}
