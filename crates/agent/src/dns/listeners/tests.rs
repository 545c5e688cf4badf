use std::time::Duration;

use podnet_dns::{Environment, Server, zone::Cluster};

use super::*;
use crate::dns::{keeper::observer, outside::Network};

#[test]
fn a_socket_has_room_for_as_much_as_it_is_to_have_whatever_the_machine_gives_to_others() {
    for address in ["127.0.0.1:0", "[::1]:0", "[::ffff:127.0.0.1]:0"] {
        let socket = udp_socket(address.parse().unwrap()).unwrap();
        assert!(sockopt::socket_recv_buffer_size(&socket).unwrap() >= RECEIVE_BUFFER, "{address}");
    }
}

#[test]
fn a_block_that_binds_nothing_is_where_the_process_listens() {
    let beside = |bind: &str, listen: Option<&str>| {
        let corefile = format!(".:5300 {{\n whoami\n}}\nexample.com:5300 {{\n bind {bind}\n whoami\n}}\n");
        let listeners = Config::load("Corefile", &corefile, &Environment::EMPTY).unwrap().listeners();
        let Beside { whole_and_part, all_v4 } =
            Beside::of(listeners[0].port, &listeners, listen.map(|address| address.parse().unwrap()));
        (whole_and_part, all_v4)
    };
    // Else both blocks would have sockets at all addresses of IPv4, and the kernel would spread clients over them.
    assert_eq!(beside("::", Some("0.0.0.0")), (true, true));
    assert_eq!(beside("::", Some("127.0.0.1")), (true, false));
    assert_eq!(beside("0.0.0.0", Some("::1")), (true, true));
    assert_eq!(beside("127.0.0.2", Some("127.0.0.1")), (false, false));
    assert_eq!(beside("127.0.0.2", None), (true, false));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_in_a_socket_for_both_families_of_a_version_before_is_answered_and_so_is_what_comes_then() {
    let before = rustix::net::socket(AddressFamily::INET6, SocketType::DGRAM, None).unwrap();
    sockopt::set_socket_reuseport(&before, true).unwrap();
    sockopt::set_ipv6_v6only(&before, false).unwrap();
    tell_destinations(before.as_fd(), true).unwrap();
    rustix::net::bind(&before, &SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0))).unwrap();
    let before = UdpSocket::from(before);
    before.set_nonblocking(true).unwrap();
    let port = before.local_addr().unwrap().port();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    client.connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    let ask = |id: u8| client.send(&[0, id, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, b'a', 0, 0, 1, 0, 1]).unwrap();
    let answered = || {
        let mut answer = [0; 512];
        client.recv(&mut answer).unwrap();
        answer[1]
    };
    ask(1);
    let config = || Config::load("Corefile", &format!(".:{port} {{\n whoami\n}}\n"), &Environment::EMPTY).unwrap();
    let network = Arc::new(Network::new(Arc::default()));
    let server = Server::new(config(), &Cluster::default(), 1, Arc::default(), network, observer());
    server.set_synced();
    let mut listeners = Listeners::new(Arc::new(Shared::new(Arc::new(server))), None);
    listeners.inherit(Inherited::of(vec![before.into()]));
    listeners.adopt(&config()).await.unwrap();
    assert_eq!(answered(), 1);
    let open = listeners.open.values().next().unwrap();
    let processors = available_parallelism().unwrap().get();
    assert_eq!((open.datagrams.here.len(), open.datagrams.v4.len()), (processors, processors));
    ask(2);
    assert_eq!(answered(), 2);
}
