//! Options: what more a block says, each with a number, a length and a value.

use super::pad;

/// Numbers of options; each kind of block has its own, and a comment is 1 in all.
pub(super) mod code {
    pub(in crate::pcapng) const END: u16 = 0;
    pub(in crate::pcapng) const COMMENT: u16 = 1;
    pub(in crate::pcapng) const SECTION_PROGRAM: u16 = 4;
    pub(in crate::pcapng) const INTERFACE_NAME: u16 = 2;
    pub(in crate::pcapng) const INTERFACE_DESCRIPTION: u16 = 3;
    pub(in crate::pcapng) const INTERFACE_V4: u16 = 4;
    pub(in crate::pcapng) const INTERFACE_V6: u16 = 5;
    pub(in crate::pcapng) const INTERFACE_MAC: u16 = 6;
    pub(in crate::pcapng) const INTERFACE_RESOLUTION: u16 = 9;
    pub(in crate::pcapng) const INTERFACE_FILTER: u16 = 11;
    pub(in crate::pcapng) const PACKET_FLAGS: u16 = 2;
    pub(in crate::pcapng) const RECEIVED: u16 = 4;
    pub(in crate::pcapng) const DROPPED_BY_KERNEL: u16 = 7;
}

/// Where a block's options are written.
pub(super) struct Options<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> Options<'a> {
    pub(super) const fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out }
    }

    /// Adds a text; none that is empty, and what is too long is cut.
    pub(super) fn text(&mut self, code: u16, text: &str) -> &mut Self {
        if text.is_empty() { self } else { self.bytes(code, text.as_bytes()) }
    }

    pub(super) fn bytes(&mut self, code: u16, value: &[u8]) -> &mut Self {
        let length = u16::try_from(value.len()).unwrap_or(u16::MAX);
        let value = &value[..usize::from(length)];
        self.out.extend([code, length].map(u16::to_le_bytes).concat());
        self.out.extend(value);
        pad(self.out, value.len());
        self
    }

    pub(super) fn end(&mut self) {
        self.out.extend([0; 4]);
    }
}

/// The options that are written there, until their end or what is none.
pub(super) fn read(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (head, rest) = bytes.split_first_chunk::<4>()?;
        let [code, length] = [[head[0], head[1]], [head[2], head[3]]].map(u16::from_le_bytes);
        let value = rest.get(..usize::from(length)).filter(|_| code != code::END)?;
        bytes = rest.get(usize::from(length).next_multiple_of(4)..).unwrap_or_default();
        Some((code, value))
    })
}
