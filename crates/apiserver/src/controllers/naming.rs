//! Names that controllers invent.

use sha2::{Digest, Sha256};
use uuid::Uuid;

/// The characters of generated names: no vowels, so no words, and nothing that looks like another (Kubernetes' `rand` package).
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// Length of a generated suffix.
const SUFFIX: usize = 5;

/// Names whose last part is generated keep at most this many characters before it, as the API server's `generateName` does.
const LONGEST_BASE: usize = 63 - SUFFIX;

/// `base` and a random suffix: `web-7d4b9` for `web-`.
pub(crate) fn random(base: &str) -> String {
    let bytes = Uuid::new_v4();
    format!("{}{}", shortened(base), letters(bytes.as_bytes(), SUFFIX))
}

/// `base` and a suffix that is the same for the same content.
pub(crate) fn derived(base: &str, content: &[&[u8]]) -> String {
    format!("{}{}", shortened(base), hash(content, SUFFIX))
}

/// A text of that many characters that is the same for the same content, and different for other content in all likelihood: ten
/// characters tell 27^10, about 2^47, contents apart.
pub(crate) fn hash(content: &[&[u8]], length: usize) -> String {
    let mut digest = Sha256::new();
    for part in content {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    letters(&digest.finalize(), length)
}

fn shortened(base: &str) -> &str {
    let end = base.char_indices().nth(LONGEST_BASE).map_or(base.len(), |(at, _)| at);
    &base[..end]
}

/// Each byte picks a letter. (The slight preference for the first letters costs nothing here.)
fn letters(bytes: &[u8], length: usize) -> String {
    bytes.iter().take(length).map(|byte| char::from(ALPHABET[usize::from(*byte) % ALPHABET.len()])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_content_has_the_same_name_and_boundaries_count() {
        assert_eq!(derived("web-", &[b"a", b"b"]), derived("web-", &[b"a", b"b"]));
        assert_ne!(hash(&[b"ab", b"c"], 10), hash(&[b"a", b"bc"], 10));
    }

    #[test]
    fn a_generated_name_fits_a_label() {
        let name = random(&"x".repeat(80));
        assert_eq!(name.len(), 63);
        assert!(name.bytes().skip(58).all(|byte| ALPHABET.contains(&byte)));
    }
}
