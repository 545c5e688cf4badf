//! Padding of what travels encrypted, so that its length tells less (RFC 7830, RFC 8467).

use super::{HEADER, rtype, u16_at, walk};
use crate::name::QueryName;

/// The number of the option (RFC 7830 §3).
const PADDING: u16 = 12;
/// Responses are as long as a multiple of this (RFC 8467 §4.1), where the client padded its query.
const BLOCK: usize = 468;
/// The longest message.
const LONGEST: usize = 65_535;

/// Whether a query is padded, which asks for a padded response (RFC 7830 §4).
#[must_use]
pub fn is_padded(query: &[u8]) -> bool {
    let Some(mut options) = options(query).and_then(|(start, end)| query.get(start..end)) else { return false };
    while let (Some(code), Some(length)) = (u16_at(options, 0), u16_at(options, 2)) {
        if code == PADDING {
            return true;
        }
        options = options.get(4 + usize::from(length)..).unwrap_or_default();
    }
    false
}

/// Pads a response whose OPT record stands last, up to the next multiple of the block. What is signed behind it stays as it is.
pub fn pad(response: &mut Vec<u8>) {
    let Some((start, end)) = options(response).filter(|(_, end)| *end == response.len()) else { return };
    let whole = response.len() + 4;
    let padding = whole.next_multiple_of(BLOCK).min(LONGEST).saturating_sub(whole);
    let Ok(length) = u16::try_from(end - start + 4 + padding) else { return };
    if whole > LONGEST {
        return;
    }
    response[start - 2..start].copy_from_slice(&length.to_be_bytes());
    response.extend_from_slice(&PADDING.to_be_bytes());
    response.extend_from_slice(&(padding as u16).to_be_bytes());
    response.resize(whole + padding, 0);
}

/// Where the options of the OPT record start and end.
fn options(message: &[u8]) -> Option<(usize, usize)> {
    let question = match u16_at(message, 4)? {
        0 => HEADER,
        _ => QueryName::parse(message, HEADER).ok()?.1 + 4,
    };
    let opt = walk(message, question).map_while(Result::ok).find(|record| record.rtype == rtype::OPT)?;
    Some((opt.rdata, opt.end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::fixture::{query, told, with_edns};

    /// The query with these options in its OPT record.
    fn with_options(options: &[u8]) -> Vec<u8> {
        let mut packet = with_edns(query("www.example.org", rtype::A), 1232, 0, false);
        let length = packet.len() - 2;
        packet[length..].copy_from_slice(&(options.len() as u16).to_be_bytes());
        packet.extend_from_slice(options);
        packet
    }

    #[test]
    fn rfc_7830_who_pads_wants_padding() {
        assert!(is_padded(&with_options(&[0, 12, 0, 2, 0, 0])));
        assert!(is_padded(&with_options(&[0, 3, 0, 0, 0, 12, 0, 0])), "after another option");
        assert!(!is_padded(&with_options(&[0, 3, 0, 2, 0, 12])), "within another option");
        assert!(!is_padded(&with_options(&[])));
        assert!(!is_padded(&query("www.example.org", rtype::A)));
        for end in 0..40 {
            let cut = with_options(&[0, 12, 0, 2, 0, 0]);
            assert!(!is_padded(&cut[..end]));
        }
    }

    #[test]
    fn rfc_8467_responses_are_as_long_as_a_multiple_of_468() {
        let response = |names: usize| {
            let mut message = with_edns(query(&vec!["a"; names].join("."), rtype::A), 1232, 0, false);
            message[2] |= 0x80;
            message
        };
        for names in 1..120 {
            let mut message = response(names);
            let before = message.len();
            pad(&mut message);
            assert_eq!(message.len() % 468, 0, "{before} bytes");
            assert!(message.len() - before < 468 + 4, "{before} bytes");
            assert_eq!(told(&message), ["NOERROR"]);
            assert!(is_padded(&message));
        }
        let mut plain = query("www.example.org", rtype::A);
        let before = plain.clone();
        pad(&mut plain);
        assert_eq!(plain, before, "without EDNS nothing can be padded");
        let mut signed = response(3);
        signed[11] += 1;
        signed.extend_from_slice(&[0, 0, 250, 0, 255, 0, 0, 0, 0, 0, 0]);
        let before = signed.clone();
        pad(&mut signed);
        assert_eq!(signed, before, "what is signed stays as it is");
    }

    #[test]
    fn nothing_grows_beyond_the_longest_message() {
        for length in [65_000, 65_530, 65_531, 65_532, 65_535] {
            let mut message = vec![0, 1, 0x80, 0, 0, 0, 0, 1, 0, 0, 0, 1];
            let data = length - HEADER - 11 - 11;
            message.extend_from_slice(&[0, 0, 16, 0, 1, 0, 0, 0, 0]);
            message.extend_from_slice(&(data as u16).to_be_bytes());
            message.resize(message.len() + data, 0);
            message.extend_from_slice(&[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
            assert_eq!(message.len(), length);
            pad(&mut message);
            assert!(message.len() <= LONGEST && message.len() >= length, "{length}");
        }
    }
}
