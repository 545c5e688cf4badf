//! Fragments that do not come as they were sent, or behind no first one.

use super::*;

/// Of the pod that sends, and of the one that it sends to; none where no fragment showed them.
const PORTS: (u16, u16) = (4000, 36412);
const NONE: (u16, u16) = (0, 0);

/// Fragments of datagrams of the first pod, of eight bytes each, none of which is the last one.
struct Fragments {
    socket: OwnedFd,
    to: IpAddr,
}

impl Fragments {
    fn new(lab: &Lab, to: IpAddr) -> Self {
        use rustix::net::{AddressFamily, SocketType, ipproto};
        // Of IPv4 the packet is written as a whole, of IPv6 what is behind its header.
        let (family, protocol) = match to {
            IpAddr::V4(_) => (AddressFamily::INET, ipproto::RAW),
            IpAddr::V6(_) => (AddressFamily::INET6, ipproto::FRAGMENT),
        };
        let socket = lab.pods[0].run(|| {
            let socket = rustix::net::socket(family, SocketType::RAW, Some(protocol)).unwrap();
            rustix::net::connect(&socket, &SocketAddr::from((to, 0))).unwrap();
            socket
        });
        Self { socket: socket.unwrap(), to }
    }

    /// Bytes of each, from the IP header on.
    const fn size(&self) -> u64 {
        if self.to.is_ipv4() { 20 + 8 } else { 40 + 8 + 8 }
    }

    /// That of the datagram with an identification that is at `offset`, a multiple of eight.
    fn send(&self, id: u8, offset: u8) {
        let mut packet = match self.to {
            // RFC 791, section 3.1. The kernel writes the length, the sender and the checksum.
            IpAddr::V4(to) => {
                let head = [0x45_u8, 0, 0, 0, 0, id, 0x20, offset / 8, 64, 17, 0, 0, 0, 0, 0, 0];
                [&head[..], &to.octets()].concat()
            }
            // RFC 8200, section 4.5.
            IpAddr::V6(_) => vec![17, 0, 0, offset | 1, 0, 0, 0, id],
        };
        // What is first is the header of UDP: ports, length, no checksum.
        packet.extend(if offset == 0 { [0x0f_u8, 0xa0, 0x8e, 0x3c, 0, 100, 0, 0] } else { [7_u8; 8] });
        rustix::net::send(&self.socket, &packet, rustix::net::SendFlags::empty()).unwrap();
    }
}

/// What was counted of datagrams to a pod at the sender's end, and at its own.
fn counted(flows: &Flows, to: IpAddr, ports: (u16, u16)) -> [(u64, u64); 2] {
    let (mut sent, mut came) = ((0, 0), (0, 0));
    let entries = flows.entries().unwrap();
    for Entry { key, out, into, .. } in entries.iter().filter(|entry| entry.key.transport == Transport::UDP) {
        if key.remote == to && (key.local_port, key.remote_port) == ports {
            sent = passed(*out);
        } else if key.local == to && (key.remote_port, key.local_port) == ports {
            came = passed(*into);
        }
    }
    [sent, came]
}

/// As if they had passed a minute sooner.
fn age_what_first_fragments_showed(flows: &Flows) {
    let map = flows.object.map(FRAGMENTS).unwrap().as_fd();
    let mut elements: Vec<([u8; 44], [u8; 16])> = call::elements(map).unwrap();
    assert!(!elements.is_empty());
    for (_, shown) in &mut elements {
        let then = u64::from_le_bytes(shown[..8].try_into().unwrap());
        shown[..8].copy_from_slice(&then.wrapping_sub(60_000_000_000).to_le_bytes());
    }
    call::update(map, &elements).unwrap();
}

#[test]
fn a_fragment_counts_as_its_first_one_if_that_came_before_and_else_without_ports() {
    let lab = Lab::new("orphan");
    let flows = lab.counting(SMALL);
    for to in [v4(2), v6(2)] {
        let fragments = Fragments::new(&lab, to);
        let mut expected: BTreeMap<(u16, u16), u64> = BTreeMap::new();
        let mut counts = |id, offset, ports| {
            fragments.send(id, offset);
            *expected.entry(ports).or_default() += 1;
            let as_expected = |(ports, count): (&(u16, u16), &u64)| {
                counted(&flows, to, *ports) == [(*count, count * fragments.size()); 2]
            };
            let what = format!("the one at {offset} of datagram {id} to {to} counts under {ports:?}");
            eventually(&what, || expected.iter().all(as_expected));
        };
        counts(1, 0, PORTS);
        counts(1, 16, PORTS);
        // Its first one never comes.
        counts(2, 16, NONE);
        // Its first one comes later.
        counts(3, 16, NONE);
        counts(3, 0, PORTS);
        counts(3, 32, PORTS);
        counts(1, 32, PORTS);
        // Another datagram may have the identification again, and this one's first fragment is still to come.
        age_what_first_fragments_showed(&flows);
        counts(1, 48, NONE);
    }
}

#[test]
fn counters_of_programs_that_know_no_fragments_are_gone_on_with() {
    let lab = Lab::new("older");
    let first = lab.counting(SMALL);
    let socket = lab.udp(v4(2));
    datagrams(&socket, 1, 100);
    let mut maps = first.shared().unwrap();
    maps.retain(|(name, _)| name != FRAGMENTS);
    assert!(suffice(&maps));
    let next = Flows::over(maps, None, SMALL).unwrap();
    for device in &lab.devices {
        assert!(next.attach(&mut lab.socket(), device).unwrap());
    }
    datagrams(&socket, 1, 4000);
    let (source, _) = both(&next, socket.local_addr().unwrap().port()).unwrap();
    assert_eq!((source.out.packets, source.into.packets), (4, 4));
    let mut maps = first.shared().unwrap();
    maps.retain(|(name, _)| name != ENTRIES);
    assert!(!suffice(&maps));
}
