//! Connections as a script of packets: so many of a second as no program opens by sockets.
//!
//! Both pods' packets are sent as they are from within their namespaces, and their stacks are kept out of it. What counts is what passed the client's
//! interface: what a device had no room for is known from its counters.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddrV4},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use podnet_kernel::{datagrams::Packets, netns::NetNs};

use super::NODE;
use crate::{Result, traffic::End};

/// The client's ports, one after the other: each comes again after 2.5 s at 20,000 connections a second.
const FIRST: u16 = 10_000;
const PORTS: u32 = 50_000;
/// Connections whose packets are sent together.
const BATCH: u32 = 64;
/// How many batches each of a connection's packets comes after the first: what it answers has been everywhere by then.
const LATER: [u32; 4] = [0, 2, 4, 16];
/// Less is not worth to sleep for.
const SHORT: Duration = Duration::from_micros(200);
/// For packets that are on their way, and for counters to tell of them.
const ARRIVING: Duration = Duration::from_secs(1);

// RFC 9293, section 3.1
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// What was sent.
pub(super) struct Sent {
    /// That passed the client's interface, in both directions.
    pub(super) packets: u64,
    /// Of those that the client was to send, for which its device had no room: nobody saw them.
    pub(super) lost: u64,
    pub(super) took: Duration,
}

/// Sends so many connections, each of a SYN, its answer, the acknowledgement of that and a reset, at such a rate at most.
pub(super) fn connections(client: &End, server: &End, port: u16, count: u32, rate: f64) -> Result<Sent> {
    let (IpAddr::V4(from), IpAddr::V4(to)) = (client.addr, server.addr) else {
        return Err("the script is of IPv4".into());
    };
    let node = NetNs::open(format!("/run/netns/podnet-{NODE}"))?;
    let quiet = Quiet::new(client, "sport", port)?;
    let _quiet = Quiet::new(server, "dport", port)?;
    let to_server = client.netns.run(move || Packets::to(to))??;
    let to_client = server.netns.run(move || Packets::to(from))??;
    let before = [lost(&client.netns, "eth0")?, lost(&node, "pn")?];
    let script = Script { client: from, server: SocketAddrV4::new(to, port) };
    let (batches, started) = (count.div_ceil(BATCH), Instant::now());
    for batch in 0..batches + LATER[3] {
        let due = Duration::from_secs_f64(f64::from(batch) * f64::from(BATCH) / rate);
        if let Some(early) = due.checked_sub(started.elapsed()).filter(|early| *early > SHORT) {
            thread::sleep(early);
        }
        for (at, later) in LATER.into_iter().enumerate() {
            let Some(first) = batch.checked_sub(later).map(|batch| batch * BATCH) else { continue };
            let packets: Vec<_> = (first..count.min(first + BATCH)).map(|number| script.packet(number, at)).collect();
            let by = if at == ANSWER { &to_client } else { &to_server };
            by.send(&packets)?;
        }
    }
    let took = started.elapsed();
    thread::sleep(ARRIVING);
    let of_client = lost(&client.netns, "eth0")? - before[0];
    // These were counted before the device of the client's pod had no room for them.
    let to_pods = lost(&node, "pn")? - before[1];
    let sent = u64::from(count) * (LATER.len() as u64 - 1) - of_client;
    Ok(Sent { packets: sent + quiet.dropped()? + to_pods, lost: of_client, took })
}

/// Which of a connection's packets is the server's.
const ANSWER: usize = 1;

struct Script {
    client: Ipv4Addr,
    server: SocketAddrV4,
}

impl Script {
    /// One of a connection's packets. From the same port numbers go up, as they do (RFC 6528).
    fn packet(&self, connection: u32, at: usize) -> [u8; 40] {
        let port = FIRST.wrapping_add(u16::try_from(connection % PORTS).unwrap_or_default());
        let client = SocketAddrV4::new(self.client, port);
        let number = 1 + connection / PORTS * 100_000;
        match at {
            0 => segment([client, self.server], SYN, [number, 0]),
            ANSWER => segment([self.server, client], SYN | ACK, [number, number + 1]),
            2 => segment([client, self.server], ACK, [number + 1, number + 1]),
            _ => segment([client, self.server], RST | ACK, [number + 1, number + 1]),
        }
    }
}

/// A segment of TCP without options and data behind a header of IPv4, whose checksum the kernel makes.
fn segment([from, to]: [SocketAddrV4; 2], flags: u8, [number, acknowledged]: [u32; 2]) -> [u8; 40] {
    const WINDOW: u16 = 0xffff;
    let mut packet = [0; 40];
    // Not to be cut; through 64 routers; TCP.
    packet[..10].copy_from_slice(&[0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6]);
    packet[12..16].copy_from_slice(&from.ip().octets());
    packet[16..20].copy_from_slice(&to.ip().octets());
    packet[20..22].copy_from_slice(&from.port().to_be_bytes());
    packet[22..24].copy_from_slice(&to.port().to_be_bytes());
    packet[24..28].copy_from_slice(&number.to_be_bytes());
    packet[28..32].copy_from_slice(&acknowledged.to_be_bytes());
    packet[32..34].copy_from_slice(&[5 << 4, flags]);
    packet[34..36].copy_from_slice(&WINDOW.to_be_bytes());
    let sum = checksum(&packet);
    packet[36..38].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// Of the addresses, the protocol, the segment's length and the segment (RFC 9293, section 3.1; RFC 1071).
fn checksum(packet: &[u8; 40]) -> u16 {
    const TCP: u32 = 6;
    const LENGTH: u32 = 20;
    let words = packet[12..].chunks_exact(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
    let mut sum = words.sum::<u32>() + TCP + LENGTH;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or_default()
}

/// Keeps a pod's stack from what comes for the script, and counts it; until it goes.
struct Quiet<'a>(&'a End);

impl<'a> Quiet<'a> {
    /// The script's port is that which packets come from, or that which they go to.
    fn new(of: &'a End, which: &str, port: u16) -> Result<Self> {
        let quiet = Self(of);
        quiet.nft(&format!(
            "add table ip benchscript; delete table ip benchscript; add table ip benchscript; \
             add chain ip benchscript quiet {{ type filter hook prerouting priority -400; }}; \
             add rule ip benchscript quiet tcp {which} {port} counter drop"
        ))?;
        Ok(quiet)
    }

    /// How many packets it kept away.
    fn dropped(&self) -> Result<u64> {
        let told = self.nft("list chain ip benchscript quiet")?;
        counted(&told).ok_or_else(|| format!("no counter is in {told:?}").into())
    }

    fn nft(&self, script: &str) -> Result<String> {
        let pid = self.0.process.ok_or("the script is of pods")?;
        let output = Command::new("nsenter").arg(format!("--net=/proc/{pid}/ns/net")).args(["nft", script]).output()?;
        if output.status.success() {
            return Ok(String::from_utf8(output.stdout)?);
        }
        Err(format!("nft {script:?}: {}", String::from_utf8_lossy(&output.stderr)).into())
    }
}

impl Drop for Quiet<'_> {
    fn drop(&mut self) {
        // The pod's namespace goes with the pod.
        let _ = self.nft("delete table ip benchscript");
    }
}

/// The packets of the first counter that `nft` tells of.
fn counted(told: &str) -> Option<u64> {
    let (_, rest) = told.split_once("counter packets ")?;
    rest.split_whitespace().next()?.parse().ok()
}

/// Packets that left by devices whose names begin so and found no room on the other side.
pub(super) fn lost(netns: &NetNs, device: &str) -> Result<u64> {
    let text = netns.run(|| fs::read_to_string("/proc/thread-self/net/dev"))??;
    Ok(dropped_by(&text, device))
}

/// Behind a device's name are eight numbers of what it got and eight of what it sent: bytes, packets, errors, drops, …
fn dropped_by(text: &str, device: &str) -> u64 {
    let of = |line: &str| -> Option<u64> {
        let (name, numbers) = line.split_once(':')?;
        name.trim().starts_with(device).then(|| numbers.split_whitespace().nth(11)?.parse().ok()).flatten()
    };
    text.lines().filter_map(of).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_is_what_a_stack_sends() {
        let script =
            Script { client: Ipv4Addr::new(192, 0, 2, 1), server: SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 2), 80) };
        let syn = script.packet(0, 0);
        assert_eq!(syn[..12], [0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0]);
        assert_eq!(syn[12..36], *b"\xc0\0\x02\x01\xc0\0\x02\x02\x27\x10\0\x50\0\0\0\x01\0\0\0\0\x50\x02\xff\xff");
        // With its checksum the sum is all ones, in whatever order it is made.
        for packet in (0..4).flat_map(|at| [0, 49_999, 50_000, 599_999].map(|number| script.packet(number, at))) {
            assert_eq!(checksum(&packet), 0, "{packet:x?}");
        }
    }

    #[test]
    fn from_a_port_that_comes_again_numbers_have_gone_up() {
        let script =
            Script { client: Ipv4Addr::new(192, 0, 2, 1), server: SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 2), 80) };
        let [first, again] = [7, 7 + PORTS].map(|number| script.packet(number, 0));
        assert_eq!(first[..24], again[..24]);
        let number = |packet: [u8; 40]| u32::from_be_bytes([packet[24], packet[25], packet[26], packet[27]]);
        assert_eq!(number(again) - number(first), 100_000);
        // What the client has sent last is numbered as its answer asked for it.
        assert_eq!(number(script.packet(7, 3)), number(first) + 1);
    }

    #[test]
    fn what_the_tools_tell_is_understood() {
        let told = "table ip benchscript {\n chain quiet {\n  tcp sport 9100 counter packets 600000 bytes 24000000 drop\n }\n}";
        assert_eq!((counted(told), counted("tcp sport 9100 drop")), (Some(600_000), None));
        let text = "Inter-|   Receive\n face |bytes    packets\n    lo: 1 1 0 0 0 0 0 0 1 1 0 9 0 0 0 0\n\
                    pn01: 5 6 0 0 0 0 0 0 7 8 0 3 0 0 0 0\n  pn02: 5 6 0 1 0 0 0 0 7 8 0 4 0 0 0 0\n";
        assert_eq!(["lo", "pn", "eth0"].map(|device| dropped_by(text, device)), [9, 7, 0]);
    }
}
