//! Where the records of a name are.

use super::Keys;
use crate::name::{Name, QueryName};

/// The keys of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Without a slash at its end; up to the first wildcard.
    key: Vec<u8>,
    /// What is asked of the segments of keys, those of the path not counted; none for a wildcard. Empty where there is no wildcard.
    pattern: Vec<Option<Vec<u8>>>,
    /// The bytes of the path.
    path: usize,
}

impl Place {
    /// Where the records of `name` are below `path`, which begins with a slash and does not end with one. A label `*` or `any` stands
    /// for every one. None: no key can spell the name.
    #[must_use]
    pub fn of(path: &str, name: &Name) -> Option<Self> {
        let name = QueryName::from(name);
        let labels: Vec<&[u8]> = (0..name.labels()).rev().map(|index| name.label(index)).collect();
        if labels.iter().any(|label| label.contains(&b'/')) {
            return None;
        }
        let wild = |label: &[u8]| matches!(label, b"*" | b"any");
        let plain = labels.iter().position(|label| wild(label)).unwrap_or(labels.len());
        let mut key = path.as_bytes().to_vec();
        for label in &labels[..plain] {
            key.push(b'/');
            key.extend_from_slice(label);
        }
        let segment = |label: &&[u8]| (!wild(label)).then(|| label.to_vec());
        let pattern = if plain < labels.len() { labels.iter().map(segment).collect() } else { Vec::new() };
        Some(Self { key, pattern, path: path.len() })
    }

    /// The name's own key; none where a wildcard stands for several.
    #[must_use]
    pub fn own(&self) -> Option<Keys> {
        self.pattern.is_empty().then(|| Keys::One(self.key.clone()))
    }

    /// The keys below.
    #[must_use]
    pub fn below(&self) -> Keys {
        Keys::Below([&self.key, &b"/"[..]].concat())
    }

    /// Whether a key that was found is one of the name's, or below one. With `exact` nothing is that lies below.
    #[must_use]
    pub fn takes(&self, key: &[u8], exact: bool) -> bool {
        if self.pattern.is_empty() {
            return true;
        }
        let segments: Vec<&[u8]> = segments(key, self.path).collect();
        let fits =
            |(wanted, segment): (&Option<Vec<u8>>, &&[u8])| wanted.as_ref().is_none_or(|wanted| wanted == segment);
        segments.len() >= self.pattern.len()
            && (!exact || segments.len() == self.pattern.len())
            && self.pattern.iter().zip(&segments).all(fits)
    }
}

/// The segments of a key below a path of so many bytes.
pub(super) fn segments(key: &[u8], path: usize) -> impl DoubleEndedIterator<Item = &[u8]> {
    let below = key.get(path..).unwrap_or_default();
    below.split(|byte| *byte == b'/').filter(|segment| !segment.is_empty())
}
