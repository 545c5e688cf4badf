//! One connection after the other from the same port.

use super::*;

#[test]
fn connections_that_cannot_be_told_apart_for_lack_of_room_are_missed() {
    const COUNT: u64 = 40;
    let lab = Lab::new("merged");
    // Nobody reads what rings: there is room for 23.
    let flows = lab.counting(Sizes { entries: 1024, ring: 1 << 12 });
    for _ in 0..COUNT {
        // Nobody listens there: a SYN and a reset.
        let refused = lab.pods[0].run(|| {
            let socket =
                rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM, None).unwrap();
            sockopt::set_socket_reuseaddr(socket.as_fd(), true).unwrap();
            rustix::net::bind(&socket, &SocketAddr::from((Ipv4Addr::UNSPECIFIED, 20_000))).unwrap();
            rustix::net::connect(&socket, &SocketAddr::from((v4(2), 81)))
        });
        refused.unwrap().unwrap_err();
    }
    let mut told: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
    let replaced = flows.bells().into_iter().filter_map(|told| match told {
        Told::Replaced(entry) => Some(entry),
        Told::Ended(_) => None,
    });
    for entry in replaced.chain(flows.entries().unwrap()).filter(|entry| entry.key.transport == Transport::TCP) {
        let (count, packets) = told.entry(entry.key.device).or_default();
        *count += 1;
        *packets += entry.packets();
    }
    for (device, missed) in flows.missed().unwrap() {
        assert!(missed.flows > 0 && missed.packets == 0 && missed.bytes == 0, "{missed:?}");
        told.entry(device).or_default().0 += missed.flows;
    }
    assert_eq!(told.into_values().collect::<Vec<_>>(), [(COUNT, 2 * COUNT); 2]);
}

#[test]
fn connections_whose_end_nobody_saw_are_told_apart_by_their_numbers() {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
    const COUNT: u64 = 5;
    const PORT: u16 = 20_001;
    let lab = Lab::new("anew");
    let flows = lab.counting(SMALL);
    let mut replaced: Vec<Entry> = Vec::new();
    for count in 1..=COUNT {
        let begun = lab.pods[0].run(|| {
            let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::NONBLOCK, None).unwrap();
            sockopt::set_socket_reuseaddr(socket.as_fd(), true).unwrap();
            rustix::net::bind(&socket, &SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT))).unwrap();
            // It goes before anybody answers, and says nothing of that.
            rustix::net::connect(&socket, &SocketAddr::from((Ipv4Addr::new(203, 0, 113, 9), 81)))
        });
        assert_eq!(begun.unwrap().unwrap_err(), rustix::io::Errno::INPROGRESS);
        eventually("the connection is counted", || {
            let bells = flows.bells().into_iter().filter_map(|told| match told {
                Told::Replaced(entry) => Some(entry),
                Told::Ended(_) => None,
            });
            replaced.extend(bells);
            let entries = flows.entries().unwrap();
            let all = replaced.iter().chain(entries.iter().filter(|entry| entry.key.local_port == PORT));
            all.map(|entry| entry.out.packets).collect::<Vec<_>>() == vec![1; usize::try_from(count).unwrap()]
        });
    }
    assert!(replaced.iter().all(|entry| entry.key.local_port == PORT && entry.ended), "{replaced:?}");
}
