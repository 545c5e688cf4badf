//! Numbers that zone files spell as words.

use domain::base::iana::Rtype;

/// The type of a mnemonic, or of `TYPE<number>`.
pub(crate) fn type_named(text: &str) -> Option<u16> {
    text.parse::<Rtype>().ok().map(Rtype::to_int)
}

/// Seconds, with or without units: `3600`, `1h`, `1w2d`.
pub(crate) fn period(text: &str) -> Option<u32> {
    let mut total = 0_u64;
    let mut number: Option<u64> = None;
    for byte in text.bytes() {
        if byte.is_ascii_digit() {
            let digit = u64::from(byte - b'0');
            number = Some(number.unwrap_or(0).checked_mul(10)?.checked_add(digit)?);
            continue;
        }
        let unit = match byte.to_ascii_lowercase() {
            b's' => 1,
            b'm' => 60,
            b'h' => 3600,
            b'd' => 86_400,
            b'w' => 604_800,
            _ => return None,
        };
        total = total.checked_add(number.take()?.checked_mul(unit)?)?;
    }
    match number {
        Some(rest) => u32::try_from(total.checked_add(rest)?).ok(),
        None if text.is_empty() => None,
        None => u32::try_from(total).ok(),
    }
}

/// Numbers of the algorithms' mnemonics (IANA, DNS Security Algorithm Numbers).
pub(super) fn algorithm(text: &str) -> Option<u8> {
    let known = [
        ("RSAMD5", 1),
        ("DH", 2),
        ("DSA", 3),
        ("RSASHA1", 5),
        ("DSA-NSEC3-SHA1", 6),
        ("RSASHA1-NSEC3-SHA1", 7),
        ("NSEC3RSASHA1", 7),
        ("RSASHA256", 8),
        ("RSASHA512", 10),
        ("ECC-GOST", 12),
        ("ECDSAP256SHA256", 13),
        ("ECDSAP384SHA384", 14),
        ("ED25519", 15),
        ("ED448", 16),
        ("INDIRECT", 252),
        ("PRIVATEDNS", 253),
        ("PRIVATEOID", 254),
    ];
    text.parse().ok().or_else(|| known.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)).map(|(_, code)| *code))
}

/// A signature's time: seconds modulo 2^32, or `YYYYMMDDHHmmSS` in UTC (RFC 4034 §3.2).
pub(super) fn timestamp(text: &str) -> Option<u32> {
    if text.len() != 14 {
        return text.parse().ok();
    }
    let number = |from: usize, to: usize| text.get(from..to)?.parse::<i64>().ok();
    let (year, month, day) = (number(0, 4)?, number(4, 6)?, number(6, 8)?);
    let (hour, minute, second) = (number(8, 10)?, number(10, 12)?, number(12, 14)?);
    let valid = (1970..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && (0..24).contains(&hour)
        && (0..60).contains(&minute)
        && (0..=60).contains(&second);
    if !valid {
        return None;
    }
    // Days since 1970 of a date in the Gregorian calendar, the year starting in March.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = y * 365 + y / 4 - y / 100 + y / 400 + (m * 153 + 2) / 5 + day - 1 - 719_468;
    Some((days * 86_400 + hour * 3600 + minute * 60 + second) as u32)
}
