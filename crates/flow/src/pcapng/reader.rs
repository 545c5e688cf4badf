//! Reading a capture as it comes, in whatever pieces.

use std::net::IpAddr;

use podnet_model::Mac;

use super::{
    Block, ETHERNET, INTERFACE, Interface, MAGIC, MOST_BYTES, NAMES, PACKET, Packet, SECTION, STATISTICS, Statistics,
    option::{self, code},
};

/// No block is longer: the longest packet, with room for what is said of it.
const LONGEST: u32 = MOST_BYTES + 4096;
/// Type and length stand before what is in a block, and the length once more behind it.
const FRAME: u32 = 12;

/// Why what came is no capture.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    /// The first thing that says what it is says something else.
    #[error("what comes is no capture in pcapng of this order of bytes")]
    NotPcapng,
    /// A length cannot be meant.
    #[error("a block of type {kind} says that it is {length} bytes long; 12 to {LONGEST} can be")]
    Length {
        /// The block's type.
        kind: u32,
        /// What it says.
        length: u32,
    },
    /// Something is missing in a block.
    #[error("a block of type {kind} is cut off")]
    Cut {
        /// The block's type.
        kind: u32,
    },
    /// It is of a link that podnet does not capture at.
    #[error("an interface is of link type {0}; only Ethernet (1) is read")]
    Link(u16),
}

/// Reads blocks out of bytes that come. It keeps one block that is not whole, and what was pushed and not read.
#[derive(Debug, Default)]
pub struct Reader {
    pub(super) bytes: Vec<u8>,
    /// What of them is read.
    done: usize,
    is_begun: bool,
}

impl Reader {
    /// Adds what came.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.done);
        self.done = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// The next block that is whole; none where more has to come.
    ///
    /// # Errors
    /// What came is no capture: nothing that follows can be read.
    pub fn block(&mut self) -> Result<Option<Block>, Wrong> {
        while let Some((kind, body)) = frame(&self.bytes[self.done..])? {
            if !self.is_begun && kind != SECTION {
                return Err(Wrong::NotPcapng);
            }
            let block = meant(kind, body)?;
            self.is_begun = true;
            self.done += body.len() + FRAME as usize;
            if block.is_some() {
                return Ok(block);
            }
        }
        Ok(None)
    }
}

/// The type of the first block, and what is in it, once it is whole.
fn frame(bytes: &[u8]) -> Result<Option<(u32, &[u8])>, Wrong> {
    let (Some(kind), Some(length)) = (number(bytes, 0), number(bytes, 4)) else { return Ok(None) };
    if !(FRAME..=LONGEST).contains(&length) || !length.is_multiple_of(4) {
        return Err(if kind == SECTION { Wrong::NotPcapng } else { Wrong::Length { kind, length } });
    }
    Ok(bytes.get(8..length as usize).map(|rest| (kind, &rest[..rest.len() - 4])))
}

/// What a block says; none of one that is not podnet's.
fn meant(kind: u32, body: &[u8]) -> Result<Option<Block>, Wrong> {
    let read = match kind {
        SECTION => section(body)?,
        INTERFACE => interface(body)?,
        NAMES => names(body),
        PACKET => packet(body),
        STATISTICS => statistics(body),
        _ => return Ok(None),
    };
    read.map(Some).ok_or(Wrong::Cut { kind })
}

fn section(body: &[u8]) -> Result<Option<Block>, Wrong> {
    if number(body, 0) != Some(MAGIC) {
        return Err(Wrong::NotPcapng);
    }
    let Some(options) = body.get(16..) else { return Ok(None) };
    let (mut program, mut comment) = (String::new(), String::new());
    for (code, value) in option::read(options) {
        match code {
            code::COMMENT => comment = text(value),
            code::SECTION_PROGRAM => program = text(value),
            _ => {}
        }
    }
    Ok(Some(Block::Section { program, comment }))
}

fn interface(body: &[u8]) -> Result<Option<Block>, Wrong> {
    let (Some(&[low, high]), Some(snap)) = (body.first_chunk::<2>(), number(body, 4)) else { return Ok(None) };
    let link = u16::from_le_bytes([low, high]);
    if link != ETHERNET {
        return Err(Wrong::Link(link));
    }
    let mut interface = Interface { snap, ..Interface::default() };
    for (code, value) in option::read(&body[8..]) {
        match code {
            code::INTERFACE_NAME => interface.name = text(value),
            code::INTERFACE_DESCRIPTION => interface.description = text(value),
            code::INTERFACE_V4 => interface.addrs.extend(value.first_chunk::<4>().map(|addr| IpAddr::from(*addr))),
            code::INTERFACE_V6 => interface.addrs.extend(value.first_chunk::<16>().map(|addr| IpAddr::from(*addr))),
            code::INTERFACE_MAC => interface.mac = value.first_chunk().map(|mac| Mac(*mac)),
            code::INTERFACE_FILTER => interface.filter = value.get(1..).map(text),
            _ => {}
        }
    }
    Ok(Some(Block::Interface(interface)))
}

fn names(body: &[u8]) -> Option<Block> {
    let named = option::read(body).filter_map(|(kind, value)| {
        let (addr, name): (IpAddr, _) = match kind {
            1 => value.split_first_chunk::<4>().map(|(addr, name)| ((*addr).into(), name))?,
            2 => value.split_first_chunk::<16>().map(|(addr, name)| ((*addr).into(), name))?,
            _ => return None,
        };
        Some((addr, text(name.split(|byte| *byte == 0).next()?)))
    });
    Some(Block::Names(named.collect()))
}

fn packet(body: &[u8]) -> Option<Block> {
    let (kept, length) = (number(body, 12)? as usize, number(body, 16)?);
    let rest = body.get(20..)?;
    let bytes = rest.get(..kept)?.to_vec();
    let options = rest.get(kept.next_multiple_of(4)..).unwrap_or_default();
    let flags = option::read(options).find(|(code, _)| *code == code::PACKET_FLAGS);
    let outbound = flags.is_some_and(|(_, value)| value.first().is_some_and(|flags| flags & 3 == 2));
    Some(Block::Packet(Packet { interface: number(body, 0)?, at: time(body)?, length, outbound, bytes }))
}

fn statistics(body: &[u8]) -> Option<Block> {
    let mut statistics = Statistics { interface: number(body, 0)?, at: time(body)?, ..Statistics::default() };
    for (code, value) in option::read(body.get(12..)?) {
        let count = value.first_chunk().map_or(0, |value| u64::from_le_bytes(*value));
        match code {
            code::RECEIVED => statistics.received = count,
            code::DROPPED_BY_KERNEL => statistics.dropped = count,
            _ => {}
        }
    }
    Some(Block::Statistics(statistics))
}

/// Behind the interface's number, the upper half first.
fn time(body: &[u8]) -> Option<u64> {
    Some((u64::from(number(body, 4)?) << 32) | u64::from(number(body, 8)?))
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
