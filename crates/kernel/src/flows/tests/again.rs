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
        assert!(missed.connections > 0 && missed.packets == 0 && missed.bytes == 0, "{missed:?}");
        told.entry(device).or_default().0 += missed.connections;
    }
    assert_eq!(told.into_values().collect::<Vec<_>>(), [(COUNT, 2 * COUNT); 2]);
}
