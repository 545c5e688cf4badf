//! Captures in the format pcapng, version 1.0 (draft-ietf-opsawg-pcapng): what Wireshark, tcpdump and libpcap's other users read.
//!
//! Agents stream it, and whoever captures makes one of several: so it is written ([`Block::write`]) and read ([`Reader`]) here. Only blocks that
//! podnet writes are understood, in little-endian order; others are passed over.

mod option;
mod reader;

use std::net::IpAddr;

use podnet_model::Mac;

use option::{Options, code};
pub use reader::{Reader, Wrong};

/// A packet's bytes are as many at most: as long as a packet of IP can be.
pub const MOST_BYTES: u32 = 65_535;
/// `LINKTYPE_ETHERNET` (<https://www.tcpdump.org/linktypes.html>).
pub const ETHERNET: u16 = 1;

/// `Section Header Block`, and the number that tells the order of bytes.
const SECTION: u32 = 0x0a0d_0d0a;
const MAGIC: u32 = 0x1a2b_3c4d;
const INTERFACE: u32 = 1;
const NAMES: u32 = 4;
const STATISTICS: u32 = 5;
const PACKET: u32 = 6;
/// Times are told in 10⁻⁹ s.
const NANOSECONDS: u8 = 9;

/// A part of a capture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Block {
    /// What follows is one capture, until the next of these.
    Section {
        /// The program that made it.
        program: String,
        /// What people shall know of it.
        comment: String,
    },
    /// An interface. They are numbered by their order, from 0.
    Interface(Interface),
    /// Names of addresses.
    Names(Vec<(IpAddr, String)>),
    /// A packet.
    Packet(Packet),
    /// What an interface has seen so far.
    Statistics(Statistics),
}

/// Where packets were captured. All of one capture have Ethernet's header and are cut at the same length: libpcap reads no others together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// What it is.
    pub description: String,
    /// Its addresses.
    pub addrs: Vec<IpAddr>,
    /// Its Ethernet address.
    pub mac: Option<Mac>,
    /// So many bytes of a packet are kept at most.
    pub snap: u32,
    /// The expression that chose packets, as people wrote it.
    pub filter: Option<String>,
}

/// One packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// The number of the interface.
    pub interface: u32,
    /// Nanoseconds since 1970.
    pub at: u64,
    /// How long it was, in bytes.
    pub length: u32,
    /// It left by the interface; else it came in.
    pub outbound: bool,
    /// What is kept of it.
    pub bytes: Vec<u8>,
}

/// What an interface has seen since the capture began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// The number of the interface.
    pub interface: u32,
    /// When that was so: nanoseconds since 1970.
    pub at: u64,
    /// Packets that the expression chose.
    pub received: u64,
    /// Of these, those that found no room, since whoever reads is slower.
    pub dropped: u64,
}

impl Block {
    /// Adds the block to what is written.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Section { program, comment } => framed(out, SECTION, |out| {
                out.extend(MAGIC.to_le_bytes());
                out.extend([1_u16, 0].map(u16::to_le_bytes).concat());
                // How long it is, nobody knows yet.
                out.extend(u64::MAX.to_le_bytes());
                Options::new(out).text(code::COMMENT, comment).text(code::SECTION_PROGRAM, program).end();
            }),
            Self::Interface(interface) => framed(out, INTERFACE, |out| interface.write(out)),
            Self::Names(names) => framed(out, NAMES, |out| write_names(names, out)),
            Self::Packet(packet) => {
                let Packet { interface, at, length, outbound, bytes } = packet;
                write_packet(out, (*interface, *at), *length, *outbound, bytes);
            }
            Self::Statistics(statistics) => framed(out, STATISTICS, |out| statistics.write(out)),
        }
    }
}

/// As [`Block::write`] of a packet at an interface's number and time, whose bytes stay where they are.
pub fn write_packet(out: &mut Vec<u8>, (interface, at): (u32, u64), length: u32, outbound: bool, bytes: &[u8]) {
    framed(out, PACKET, |out| {
        let kept = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let [high, low] = halves(at);
        out.extend([interface, high, low, kept, length].map(u32::to_le_bytes).concat());
        out.extend(bytes);
        pad(out, bytes.len());
        let direction: u32 = if outbound { 2 } else { 1 };
        Options::new(out).bytes(code::PACKET_FLAGS, &direction.to_le_bytes()).end();
    });
}

impl Interface {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend([ETHERNET, 0].map(u16::to_le_bytes).concat());
        out.extend(self.snap.to_le_bytes());
        let mut options = Options::new(out);
        options.text(code::INTERFACE_NAME, &self.name).text(code::INTERFACE_DESCRIPTION, &self.description);
        for addr in &self.addrs {
            match addr {
                // A pod has its address alone.
                IpAddr::V4(addr) => options.bytes(code::INTERFACE_V4, &[addr.octets(), [255; 4]].concat()),
                IpAddr::V6(addr) => options.bytes(code::INTERFACE_V6, &[&addr.octets()[..], &[128]].concat()),
            };
        }
        if let Some(mac) = self.mac {
            options.bytes(code::INTERFACE_MAC, &mac.0);
        }
        options.bytes(code::INTERFACE_RESOLUTION, &[NANOSECONDS]);
        if let Some(filter) = &self.filter {
            // The first byte says that it is libpcap's language.
            options.bytes(code::INTERFACE_FILTER, &[&[0], filter.as_bytes()].concat());
        }
        options.end();
    }
}

impl Statistics {
    fn write(&self, out: &mut Vec<u8>) {
        let [high, low] = halves(self.at);
        out.extend([self.interface, high, low].map(u32::to_le_bytes).concat());
        let mut options = Options::new(out);
        options.bytes(code::RECEIVED, &self.received.to_le_bytes());
        options.bytes(code::DROPPED_BY_KERNEL, &self.dropped.to_le_bytes()).end();
    }
}

fn write_names(names: &[(IpAddr, String)], out: &mut Vec<u8>) {
    const V4: u16 = 1;
    const V6: u16 = 2;
    let mut records = Options::new(out);
    for (addr, name) in names {
        let (kind, addr) = match addr {
            IpAddr::V4(addr) => (V4, addr.octets().to_vec()),
            IpAddr::V6(addr) => (V6, addr.octets().to_vec()),
        };
        records.bytes(kind, &[&addr, name.as_bytes(), &[0]].concat());
    }
    records.end();
}

/// Writes a block's type and its length around what is in it.
fn framed(out: &mut Vec<u8>, kind: u32, inside: impl FnOnce(&mut Vec<u8>)) {
    let begin = out.len();
    out.extend(kind.to_le_bytes());
    out.extend([0; 4]);
    inside(out);
    // Both lengths count, and the type.
    let length = u32::try_from(out.len() - begin + 4).unwrap_or(u32::MAX).to_le_bytes();
    out[begin + 4..begin + 8].copy_from_slice(&length);
    out.extend(length);
}

/// All ends at a multiple of four bytes.
fn pad(out: &mut Vec<u8>, length: usize) {
    out.extend(&[0; 3][..length.next_multiple_of(4) - length]);
}

fn halves(number: u64) -> [u32; 2] {
    [(number >> 32) as u32, number as u32]
}

#[cfg(test)]
mod tests;
