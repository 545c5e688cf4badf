//! Fractions, and how Go writes them.

/// A number of 64 bits that may be a fraction; two are the same when their bits are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fraction(u64);

impl Fraction {
    pub(super) fn of(number: f64) -> Self {
        Self(number.to_bits())
    }

    pub(super) fn value(self) -> f64 {
        f64::from_bits(self.0)
    }

    /// What the verb `letter` (one of `v`, `g`, `G`, `e`, `E`, `f`, `F`) writes.
    pub(super) fn written(self, letter: char, precision: Option<usize>) -> String {
        let number = self.value();
        if !number.is_finite() {
            let sign = if number < 0.0 { "-" } else { "+" };
            return if number.is_nan() { "NaN".to_owned() } else { format!("{sign}Inf") };
        }
        let text = match letter {
            'f' | 'F' => format!("{number:.*}", precision.unwrap_or(6)),
            'e' | 'E' => exponential(&format!("{number:.*e}", precision.unwrap_or(6))),
            _ => general(number, precision),
        };
        if letter.is_ascii_uppercase() { text.to_uppercase() } else { text }
    }
}

/// The shorter one of both forms: with so many digits, or, where nothing is said, with as many as tell the number from all others.
fn general(number: f64, precision: Option<usize>) -> String {
    let digits = precision.map(|precision| precision.max(1));
    let text = match digits {
        Some(digits) => format!("{number:.*e}", digits - 1),
        None => format!("{number:e}"),
    };
    let (mantissa, exponent) = text.split_once('e').unwrap_or((text.as_str(), "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if exponent < -4 || exponent >= digits.map_or(6, |digits| digits as i32) {
        return exponential(&format!("{}e{exponent}", trimmed(mantissa)));
    }
    match digits {
        Some(digits) => trimmed(&format!("{number:.*}", (digits as i32 - 1 - exponent).max(0) as usize)).to_owned(),
        None => number.to_string(),
    }
}

/// Without zeros at the end of its fraction.
fn trimmed(text: &str) -> &str {
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { text }
}

/// The exponent with its sign and two digits at least.
fn exponential(text: &str) -> String {
    let (mantissa, exponent) = text.split_once('e').unwrap_or((text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fractions_are_written_as_go_writes_them() {
        for (number, letter, precision, expected) in [
            (1.5, 'v', None, "1.5"),
            (100_000.0, 'v', None, "100000"),
            (1e6, 'v', None, "1e+06"),
            (123_456_789.0, 'v', None, "1.23456789e+08"),
            (0.000_01, 'v', None, "1e-05"),
            (-0.25, 'g', None, "-0.25"),
            (2.345_67, 'g', Some(3), "2.35"),
            (1234.0, 'g', Some(2), "1.2e+03"),
            (2.5, 'f', None, "2.500000"),
            (2.5, 'f', Some(1), "2.5"),
            (2.5, 'e', Some(2), "2.50e+00"),
            (2.5e-7, 'E', Some(1), "2.5E-07"),
            (f64::INFINITY, 'v', None, "+Inf"),
        ] {
            assert_eq!(Fraction::of(number).written(letter, precision), expected);
        }
    }
}
