//! Quantities: `500m`, `1.5Gi`, `2e3` (Kubernetes documentation, "Quantity").

/// A quantity in thousandths, rounded up; none where the text is not a quantity or too large to count.
pub(crate) fn milli(text: &str) -> Option<i128> {
    let number_end = text.find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '+' | '-'))).unwrap_or(text.len());
    let (number, suffix) = text.split_at(number_end);
    let (factor, divisor) = scale(suffix)?;
    let (negative, digits) = match number.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, number.strip_prefix('+').unwrap_or(number)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let all = format!("{whole}{fraction}");
    if !all.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let numerator = all.parse::<i128>().ok()?.checked_mul(factor)?.checked_mul(1000)?;
    let divisor = divisor.checked_mul(10i128.checked_pow(u32::try_from(fraction.len()).ok()?)?)?;
    let size = numerator / divisor + i128::from(numerator % divisor != 0);
    Some(if negative { -size } else { size })
}

/// What a suffix multiplies and divides by.
fn scale(suffix: &str) -> Option<(i128, i128)> {
    const POWERS: [&str; 6] = ["k", "M", "G", "T", "P", "E"];
    const BINARY: [&str; 6] = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    let power = |at: usize| u32::try_from(at + 1).ok();
    match suffix {
        "" => return Some((1, 1)),
        "m" => return Some((1, 1000)),
        "u" => return Some((1, 1_000_000)),
        "n" => return Some((1, 1_000_000_000)),
        _ => {}
    }
    if let Some(at) = POWERS.iter().position(|known| *known == suffix) {
        return Some((1000i128.checked_pow(power(at)?)?, 1));
    }
    if let Some(at) = BINARY.iter().position(|known| *known == suffix) {
        return Some((1024i128.checked_pow(power(at)?)?, 1));
    }
    let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
    let power = 10i128.checked_pow(exponent.unsigned_abs())?;
    Some(if exponent < 0 { (1, power) } else { (power, 1) })
}

#[cfg(test)]
mod tests {
    use super::milli;

    #[test]
    fn quantities_are_counted_in_thousandths() {
        for (text, wanted) in [
            ("1", Some(1000)),
            ("500m", Some(500)),
            ("0.5", Some(500)),
            (".5", Some(500)),
            ("1.", Some(1000)),
            ("1k", Some(1_000_000)),
            ("1Ki", Some(1_024_000)),
            ("1.5Gi", Some(1_610_612_736_000)),
            ("2e3", Some(2_000_000)),
            ("1E", Some(1_000_000_000_000_000_000_000)),
            ("-1", Some(-1000)),
            ("1u", Some(1)),
            ("", None),
            ("m", None),
            ("1.2.3", None),
            ("1 Gi", None),
            ("1gi", None),
            ("lots", None),
        ] {
            assert_eq!(milli(text), wanted, "{text}");
        }
    }
}
