//! What found no room, while more of it comes.

use podnet_ebpf::flows::Missed;

use super::*;

/// Packets and bytes by interfaces.
type Told = BTreeMap<u32, (u64, u64)>;

fn hear(flows: &Flows, told: &mut Told) {
    for (device, missed) in flows.missed().unwrap() {
        let (packets, bytes) = told.entry(device).or_default();
        *packets += missed.packets;
        *bytes += missed.bytes;
    }
}

#[test]
fn what_finds_no_room_is_told_to_the_last_packet_and_once_by_whichever_agent() {
    const COUNT: u64 = 20_000;
    // One flow has all the room at both ends.
    const ROOM: Sizes = Sizes { entries: 2, ring: 1 << 16 };
    let lab = Lab::new("missed");
    let first = lab.counting(ROOM);
    let sockets: Vec<UdpSocket> = (0..3).map(|_| lab.udp(v4(2))).collect();
    datagrams(&sockets[0], 1, 100);
    let mut told = Told::new();
    thread::scope(|scope| {
        let say = |socket| scope.spawn(move || datagrams(socket, COUNT, 100));
        let speakers: Vec<_> = sockets[1..].iter().map(say).collect();
        while speakers.iter().any(|speaker| !speaker.is_finished()) {
            hear(&first, &mut told);
        }
    });
    hear(&first, &mut told);
    let all = |count: u64| vec![(2 * count, 2 * count * 128); 2];
    assert_eq!(told.values().copied().collect::<Vec<_>>(), all(2 * COUNT));
    // The next agent knows what was told, and what was not.
    datagrams(&sockets[1], 5, 100);
    hear(&first, &mut told);
    datagrams(&sockets[1], 5, 100);
    drop(first);
    let next = lab.counting(ROOM);
    hear(&next, &mut told);
    assert_eq!(told.values().copied().collect::<Vec<_>>(), all(2 * COUNT + 10));
    eventually("nothing is kept of what is told", || {
        assert!(next.missed().unwrap().is_empty());
        let map = next.object.map(MISSED).unwrap().as_fd();
        let left: Vec<([u8; 4], [u8; Missed::SIZE])> = call::elements(map).unwrap();
        left.is_empty()
    });
    datagrams(&sockets[2], 5, 100);
    hear(&next, &mut told);
    assert_eq!(told.values().copied().collect::<Vec<_>>(), all(2 * COUNT + 15));
}

#[test]
fn how_many_flows_of_datagrams_find_no_room_is_known_about_and_each_is_told_once() {
    const FLOWS: u16 = 400;
    let lab = Lab::new("marks");
    // One flow has all the room at both ends.
    let flows = lab.counting(Sizes { entries: 2, ring: 1 << 16 });
    datagrams(&lab.udp(v4(2)), 1, 100);
    assert!(flows.missed().unwrap().is_empty());
    // Nobody answers, and nobody refuses.
    let _open = lab.pods[1].run(|| UdpSocket::bind((v4(2), 81)).unwrap()).unwrap();
    let send = |port| {
        let socket = lab.pods[0].run(|| UdpSocket::bind((v4(1), port))).unwrap().unwrap();
        socket.send_to(b"x", (v4(2), 81)).unwrap();
        socket.send_to(b"x", (v4(2), 81)).unwrap();
    };
    let (mut told, mut packets, mut sent): (BTreeMap<u32, u64>, u64, u64) = (BTreeMap::new(), 0, 0);
    // One port after the other: the hardest for a hash.
    for ports in [20_000..20_000 + FLOWS / 2, 20_000 + FLOWS / 2..20_000 + FLOWS] {
        // Two of each, seen at both ends.
        sent += 4 * u64::from(FLOWS / 2);
        ports.for_each(&send);
        eventually("each datagram is told as missing", || {
            for (device, missed) in flows.missed().unwrap() {
                *told.entry(device).or_default() += missed.flows;
                packets += missed.packets;
            }
            packets == sent
        });
    }
    assert!(told.len() == 2 && told.values().all(|told| told.abs_diff(FLOWS.into()) <= 8), "{told:?}");
}
