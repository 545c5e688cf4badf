//! Escapes in quoted texts, as Go has them: in templates and in expressions.

/// The character that the escape at `at`, a backslash, stands for, and where it ends; none: it is no escape, or stands for no character.
/// What escapes a quote is for the reader of the text to say: any of `'`, `"` and `` ` `` is taken here.
pub(super) fn read(chars: &[char], at: usize) -> Option<(char, usize)> {
    let simple = |c| Some((c, at + 2));
    match *chars.get(at + 1)? {
        'a' => simple('\u{7}'),
        'b' => simple('\u{8}'),
        'f' => simple('\u{c}'),
        'n' => simple('\n'),
        'r' => simple('\r'),
        't' => simple('\t'),
        'v' => simple('\u{b}'),
        c @ ('\\' | '\'' | '"' | '`') => simple(c),
        'x' => coded(chars, at + 2, 2, 16).filter(|(c, _)| c.is_ascii()),
        'u' => coded(chars, at + 2, 4, 16),
        'U' => coded(chars, at + 2, 8, 16),
        '0'..='7' => coded(chars, at + 1, 3, 8).filter(|(c, _)| c.is_ascii()),
        _ => None,
    }
}

/// The character with the number of these digits. Of single bytes only those of ASCII are characters.
fn coded(chars: &[char], at: usize, digits: usize, radix: u32) -> Option<(char, usize)> {
    let digits: &[char] = chars.get(at..at + digits)?;
    let mut number = 0_u32;
    for digit in digits {
        number = number.checked_mul(radix)?.checked_add(digit.to_digit(radix)?)?;
    }
    Some((char::from_u32(number)?, at + digits.len()))
}

#[cfg(test)]
mod tests {
    #[test]
    fn escapes_stand_for_characters() {
        for (text, expected) in [
            (r"\n", Some('\n')),
            (r"\a", Some('\u{7}')),
            (r"\\", Some('\\')),
            (r"\'", Some('\'')),
            (r"\x41", Some('A')),
            (r"\101", Some('A')),
            (r"\u00e9", Some('é')),
            (r"\U0001F600", Some('😀')),
            (r"\xff", None),
            (r"\x4", None),
            (r"\ud800", None),
            (r"\UFFFFFFFF", None),
            (r"\8", None),
            (r"\.", None),
            (r"\", None),
        ] {
            let chars: Vec<char> = text.chars().collect();
            assert_eq!(super::read(&chars, 0), expected.map(|c| (c, chars.len())), "{text}");
        }
    }
}
