//! Domain names on the wire (RFC 1035 §3.1), in lower case for comparison (RFC 4343).

use std::{fmt, net::IpAddr};

/// The longest name on the wire, with its root label (RFC 1035 §2.3.4).
pub const MAX_NAME: usize = 255;
/// The longest label.
pub const MAX_LABEL: usize = 63;

/// A name that somebody asked for: lower-case wire form with the offsets of its labels, on the stack.
#[derive(Clone)]
pub struct QueryName {
    wire: [u8; MAX_NAME],
    starts: [u8; 128],
    len: u8,
    labels: u8,
}

/// Why bytes are not a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    /// The message ends within the name.
    #[error("the name runs past the end of the message")]
    Truncated,
    /// Longer than 255 bytes.
    #[error("the name is longer than 255 bytes")]
    TooLong,
    /// A label longer than 63 bytes.
    #[error("a label is longer than 63 bytes")]
    LongLabel,
    /// An empty label within the name.
    #[error("the name has an empty label")]
    EmptyLabel,
    /// A compression pointer or a reserved label type where only plain labels belong.
    #[error("the name has a label of a type that is not allowed here")]
    LabelType,
    /// A character that a name in configuration cannot have.
    #[error("the name has a character that is not printable ASCII")]
    Character,
}

impl QueryName {
    /// Reads the uncompressed name at `at` and says where it ends.
    ///
    /// Compression is refused: the first name of a message has nothing before it that it could point to, and following
    /// pointers there is what loops are made of (RFC 9267 §2).
    ///
    /// # Errors
    /// When the bytes are no uncompressed name.
    pub fn parse(message: &[u8], at: usize) -> Result<(Self, usize), BadName> {
        let mut name = Self { wire: [0; MAX_NAME], starts: [0; 128], len: 0, labels: 0 };
        let mut from = at;
        loop {
            let size = usize::from(*message.get(from).ok_or(BadName::Truncated)?);
            if size > MAX_LABEL {
                return Err(BadName::LabelType);
            }
            let next = from + size + 1;
            if next > message.len() {
                return Err(BadName::Truncated);
            }
            if next - at > MAX_NAME {
                return Err(BadName::TooLong);
            }
            if size == 0 {
                from = next;
                break;
            }
            name.starts[usize::from(name.labels)] = (from - at) as u8;
            name.labels += 1;
            from = next;
        }
        // All at once: a label's size is at most 63, which is no letter.
        let wire = &mut name.wire[..from - at];
        wire.copy_from_slice(&message[at..from]);
        wire.make_ascii_lowercase();
        name.len = wire.len() as u8;
        Ok((name, from))
    }

    /// The name's lower-case wire form, root label included.
    #[must_use]
    pub fn wire(&self) -> &[u8] {
        &self.wire[..usize::from(self.len)]
    }

    /// How many labels it has, the root not counted.
    #[must_use]
    pub fn labels(&self) -> usize {
        usize::from(self.labels)
    }

    /// The label at `index`, the leftmost being 0; empty past the end.
    #[must_use]
    pub fn label(&self, index: usize) -> &[u8] {
        if index >= self.labels() {
            return &[];
        }
        let start = usize::from(self.starts[index]);
        let size = usize::from(self.wire[start]);
        &self.wire[start + 1..start + 1 + size]
    }

    /// The wire form from the label at `index` on.
    #[must_use]
    pub fn suffix(&self, index: usize) -> &[u8] {
        let start = if index >= self.labels() { usize::from(self.len) - 1 } else { usize::from(self.starts[index]) };
        &self.wire[start..usize::from(self.len)]
    }

    /// The wire form of the labels from the one at `from` to the one before `to`.
    #[must_use]
    pub fn labels_between(&self, from: usize, to: usize) -> &[u8] {
        let (whole, rest) = (self.suffix(from), self.suffix(to));
        &whole[..whole.len().saturating_sub(rest.len())]
    }

    /// How many labels stand before `zone`, when the name lies in it.
    #[must_use]
    pub fn within(&self, zone: &Name) -> Option<usize> {
        let before = self.labels().checked_sub(zone.labels())?;
        (self.suffix(before) == zone.wire()).then_some(before)
    }

    /// The address that a full reverse name stands for (RFC 1035 §3.5, RFC 3596 §2.5).
    #[must_use]
    pub fn reverse_address(&self) -> Option<IpAddr> {
        let root = self.labels().checked_sub(2)?;
        if self.label(root + 1) != b"arpa" {
            return None;
        }
        match (self.label(root), root) {
            (b"in-addr", 4) => {
                let mut octets = [0_u8; 4];
                for (index, octet) in octets.iter_mut().enumerate() {
                    *octet = decimal(self.label(3 - index))?;
                }
                Some(IpAddr::from(octets))
            }
            (b"ip6", 32) => {
                let mut octets = [0_u8; 16];
                for (index, octet) in octets.iter_mut().enumerate() {
                    *octet = nibble(self.label(31 - 2 * index))? << 4 | nibble(self.label(30 - 2 * index))?;
                }
                Some(IpAddr::from(octets))
            }
            _ => None,
        }
    }
}

fn decimal(label: &[u8]) -> Option<u8> {
    if label.len() > 1 && label[0] == b'0' {
        return None;
    }
    std::str::from_utf8(label).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?.parse().ok()
}

fn nibble(label: &[u8]) -> Option<u8> {
    match label {
        [digit] => char::from(*digit).to_digit(16).map(|value| value as u8),
        _ => None,
    }
}

impl fmt::Display for QueryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_wire(self.wire(), f)
    }
}

impl fmt::Debug for QueryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<&Name> for QueryName {
    fn from(name: &Name) -> Self {
        let empty = Self { wire: [0; MAX_NAME], starts: [0; 128], len: 1, labels: 0 };
        Self::parse(name.wire(), 0).map_or(empty, |(name, _)| name)
    }
}

/// A name that is kept: lower-case wire form.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name {
    wire: Box<[u8]>,
    labels: u8,
}

impl Name {
    /// The root.
    #[must_use]
    pub fn root() -> Self {
        Self { wire: Box::from([0_u8].as_slice()), labels: 0 }
    }

    /// Reads an uncompressed wire form, all of it, into lower case.
    ///
    /// # Errors
    /// When the bytes are no uncompressed name, or more than one.
    pub fn from_wire(wire: &[u8]) -> Result<Self, BadName> {
        match QueryName::parse(wire, 0)? {
            (name, end) if end == wire.len() => Ok(Self::from_query(&name)),
            _ => Err(BadName::Truncated),
        }
    }

    /// The name whose wire form, in lower case, these pieces are together; none where it is too long.
    pub(crate) fn joined(pieces: &[&[u8]]) -> Option<Self> {
        let wire = pieces.concat();
        if wire.len() > MAX_NAME {
            return None;
        }
        let (mut labels, mut at) = (0, 0);
        while let Some(size) = wire.get(at).filter(|size| **size > 0) {
            at += 1 + usize::from(*size);
            labels += 1;
        }
        debug_assert_eq!(at + 1, wire.len());
        Some(Self { wire: wire.into(), labels })
    }

    /// The name without its leftmost label; none for the root.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        let labels = self.labels.checked_sub(1)?;
        Some(Self { wire: self.wire[1 + usize::from(self.wire[0])..].into(), labels })
    }

    /// What was asked for, to be kept.
    #[must_use]
    pub fn from_query(name: &QueryName) -> Self {
        Self { wire: name.wire().into(), labels: name.labels }
    }

    /// Reads a name as configuration and Kubernetes objects spell it; a final dot is allowed, and is meant, always.
    ///
    /// # Errors
    /// When a label is empty or too long, the whole is too long, or a character cannot be in a name.
    pub fn parse(text: &str) -> Result<Self, BadName> {
        Self::root().prefixed_text(text)
    }

    /// This name with the dotted labels of `text` before it.
    ///
    /// # Errors
    /// As [`Name::parse`].
    pub fn prefixed_text(&self, text: &str) -> Result<Self, BadName> {
        let text = text.strip_suffix('.').unwrap_or(text);
        let mut wire = Vec::with_capacity(text.len() + 1 + self.wire.len());
        let mut labels = self.labels;
        for label in text.split('.').filter(|_| !text.is_empty()) {
            push_label(label.as_bytes(), &mut wire)?;
            labels = labels.saturating_add(1);
        }
        wire.extend_from_slice(&self.wire);
        if wire.len() > MAX_NAME {
            return Err(BadName::TooLong);
        }
        Ok(Self { wire: wire.into(), labels })
    }

    /// This name with one label before it, dots in it not being separators.
    ///
    /// # Errors
    /// As [`Name::parse`].
    pub fn child(&self, label: &str) -> Result<Self, BadName> {
        let mut wire = Vec::with_capacity(label.len() + 1 + self.wire.len());
        push_label(label.as_bytes(), &mut wire)?;
        wire.extend_from_slice(&self.wire);
        if wire.len() > MAX_NAME {
            return Err(BadName::TooLong);
        }
        Ok(Self { wire: wire.into(), labels: self.labels.saturating_add(1) })
    }

    /// Reads a name as [`Display`](fmt::Display) writes it, with `\DDD` for what is not printable.
    ///
    /// # Errors
    /// When it is no name.
    pub fn of_text(text: &str) -> Result<Self, BadName> {
        Self::from_wire(&crate::authority::rdata::wire_name(text, &[0])?)
    }

    /// The wire form, root label included.
    #[must_use]
    pub fn wire(&self) -> &[u8] {
        &self.wire
    }

    /// How many labels it has, the root not counted.
    #[must_use]
    pub fn labels(&self) -> usize {
        usize::from(self.labels)
    }

    /// Whether this name is `zone` or lies below it.
    #[must_use]
    pub fn within(&self, zone: &Self) -> bool {
        QueryName::from(self).within(zone).is_some()
    }
}

/// Appends a label in lower case.
pub(crate) fn push_label(label: &[u8], wire: &mut Vec<u8>) -> Result<(), BadName> {
    if label.is_empty() {
        return Err(BadName::EmptyLabel);
    }
    if label.len() > MAX_LABEL {
        return Err(BadName::LongLabel);
    }
    if !label.iter().all(u8::is_ascii_graphic) {
        return Err(BadName::Character);
    }
    wire.push(label.len() as u8);
    wire.extend(label.iter().map(u8::to_ascii_lowercase));
    Ok(())
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_wire(&self.wire, f)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The reverse name of an address.
#[must_use]
pub fn reverse_name(addr: IpAddr) -> Name {
    use fmt::Write as _;
    let mut text = String::new();
    match addr {
        IpAddr::V4(v4) => {
            for octet in v4.octets().iter().rev() {
                let _ = write!(text, "{octet}.");
            }
            text.push_str("in-addr.arpa");
        }
        IpAddr::V6(v6) => {
            for octet in v6.octets().iter().rev() {
                let _ = write!(text, "{:x}.{:x}.", octet & 15, octet >> 4);
            }
            text.push_str("ip6.arpa");
        }
    }
    Name::parse(&text).unwrap_or_else(|_| Name::root())
}

/// Writes a name as text: what is not printable, and a dot within a label, as `\DDD` (RFC 1035 §5.1).
fn write_wire(wire: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut rest = wire;
    if rest.first() == Some(&0) {
        return f.write_str(".");
    }
    while let Some((&size, tail)) = rest.split_first() {
        if size == 0 || tail.len() < usize::from(size) {
            break;
        }
        let (label, next) = tail.split_at(usize::from(size));
        for &byte in label {
            if byte.is_ascii_graphic() && !matches!(byte, b'.' | b'\\' | b'"') {
                write!(f, "{}", char::from(byte))?;
            } else {
                write!(f, "\\{byte:03}")?;
            }
        }
        f.write_str(".")?;
        rest = next;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
