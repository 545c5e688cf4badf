//! Kubernetes quantities: `10M`, `1.5Gi`, `100m`, `1e3` (apimachinery, `pkg/api/resource`).

/// The value as a whole number, rounded up as Kubernetes does (`Quantity.Value`); none where the text is no quantity, is negative, or
/// is beyond 128 bits. The arithmetic is exact: `1000000000000001` is not `1P`.
#[must_use]
pub fn whole(text: &str) -> Option<u128> {
    let digits_end = text.find(|letter: char| !matches!(letter, '0'..='9' | '.' | '+')).unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits_end);
    let number = number.strip_prefix('+').unwrap_or(number);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    // The number without its point, and how many of its digits stood behind it.
    let digits = digits(whole, fraction)?;
    let behind = i32::try_from(fraction.len()).ok()?;
    match suffix {
        "Ki" | "Mi" | "Gi" | "Ti" | "Pi" | "Ei" => {
            let power = "KMGTPE".find(&suffix[..1])? + 1;
            let factor = 1_u128.checked_shl(u32::try_from(power * 10).ok()?)?;
            scaled(digits.checked_mul(factor)?, -behind)
        }
        _ => scaled(digits, decimal_exponent(suffix)?.checked_sub(behind)?),
    }
}

fn digits(whole: &str, fraction: &str) -> Option<u128> {
    whole.bytes().chain(fraction.bytes()).try_fold(0_u128, |number, digit| {
        let digit = digit.is_ascii_digit().then(|| u128::from(digit - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

fn decimal_exponent(suffix: &str) -> Option<i32> {
    const SUFFIXES: [(&str, i32); 10] =
        [("", 0), ("n", -9), ("u", -6), ("m", -3), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];
    if let Some((_, exponent)) = SUFFIXES.iter().find(|(name, _)| *name == suffix) {
        return Some(*exponent);
    }
    suffix.strip_prefix(['e', 'E'])?.parse().ok()
}

/// `digits` times ten to that power, rounded up.
fn scaled(digits: u128, exponent: i32) -> Option<u128> {
    if digits == 0 {
        return Some(0);
    }
    match 10_u128.checked_pow(exponent.unsigned_abs()) {
        Some(power) if exponent >= 0 => digits.checked_mul(power),
        Some(power) => Some(digits.div_ceil(power)),
        // Smaller than any whole number, but not nothing.
        None => (exponent < 0).then_some(1),
    }
}

#[cfg(test)]
mod tests {
    use super::whole;

    #[test]
    fn quantities_read_as_kubernetes_reads_them() {
        for (text, value) in [
            ("0", 0),
            ("10M", 10_000_000),
            ("+10M", 10_000_000),
            ("1P", 1_000_000_000_000_000),
            ("1000000000000001", 1_000_000_000_000_001),
            ("1.5Gi", 1_610_612_736),
            (".5k", 500),
            ("5.", 5),
            ("1E", 1_000_000_000_000_000_000),
            ("1Ei", 1 << 60),
            ("1e3", 1000),
            ("12E2", 1200),
            ("100e-1", 10),
            ("1500m", 2),
            ("1n", 1),
            ("1e-400", 1),
            ("0e-400", 0),
        ] {
            assert_eq!(whole(text), Some(value), "{text}");
        }
    }

    #[test]
    fn what_is_no_quantity_is_none() {
        for text in [
            "", " ", "M", "10Q", "10 M", "10MM", "-10M", "ten", "1.2.3", "1e", "1e+", "0x10", ".", "++1", "1+1",
            "1e400", "10mi",
        ] {
            assert_eq!(whole(text), None, "{text:?}");
        }
    }
}
