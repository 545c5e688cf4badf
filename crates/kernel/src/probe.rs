//! One packet that is sent to see where it passes (`raw(7)`).

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
    time::SystemTime,
};

use podnet_flow::probe::{Probe, ProbeProtocol, Sent};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, ipproto, sendto, socket_with};

/// Sends a probe from the calling thread's namespace, from the address that its routes choose and a port that nobody has, filled up to `size`
/// bytes. No socket waits for an
/// answer: the kernel resets a connection that is accepted, and no program is the wiser here.
///
/// # Errors
/// Where there is no route or no address of the family, or the kernel refuses: also what is larger than the device takes.
pub fn send(probe: Probe, to: SocketAddr, size: Option<u16>) -> io::Result<Sent> {
    let source = source(probe.protocol, to)?;
    let unfit = || io::Error::new(io::ErrorKind::InvalidInput, format!("there is no way from {source} to {to}"));
    let packet = probe.packet_of(source, to, size.unwrap_or_default()).ok_or_else(unfit)?;
    let domain = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    // Headers are the sender's affair with this protocol.
    let socket = socket_with(domain, SocketType::RAW, SocketFlags::CLOEXEC, Some(ipproto::RAW))?;
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    // A port would be taken for a protocol (raw(7)).
    sendto(&socket, &packet, SendFlags::empty(), &SocketAddr::new(to.ip(), 0))?;
    Ok(Sent { at: u64::try_from(since.as_nanos()).unwrap_or(u64::MAX), source })
}

/// The address that the routes of the calling thread's namespace choose for what is sent there.
///
/// # Errors
/// Where there is no route or no address of the family.
pub fn own_address(to: SocketAddr) -> io::Result<IpAddr> {
    /// For an echo, which has no port, the route is asked for by this one (RFC 863).
    const DISCARD: u16 = 9;
    let any = if to.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
    let port = if to.port() == 0 { DISCARD } else { to.port() };
    // This sends nothing.
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect((to.ip(), port))?;
    Ok(socket.local_addr()?.ip())
}

fn source(protocol: ProbeProtocol, to: SocketAddr) -> io::Result<SocketAddr> {
    let own = own_address(to)?;
    match protocol {
        ProbeProtocol::Tcp => TcpListener::bind((own, 0))?.local_addr(),
        ProbeProtocol::Udp | ProbeProtocol::Sctp => UdpSocket::bind((own, 0))?.local_addr(),
        ProbeProtocol::Icmp => Ok(SocketAddr::new(own, 0)),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use podnet_flow::probe::{Found, Framing, Kind, SNAP};

    use super::*;
    use crate::{
        capture::{Tap, wait},
        testing::TestNs,
    };

    const PATIENCE: Duration = Duration::from_secs(5);

    /// Two namespaces with a link between them, which has addresses of both families.
    fn lab(tag: &str) -> [TestNs; 2] {
        let [near, far] = ["near", "far"].map(|end| TestNs::new(&format!("probe-{tag}-{end}")));
        let name = far.path.file_name().unwrap().to_str().unwrap();
        near.command(&format!("ip link add eth0 type veth peer name eth0 netns {name}"));
        // First both ends: routes of IPv6 come with addresses at once where the link is up, and later where it comes up.
        for end in [&near, &far] {
            end.command("ip link set eth0 up");
        }
        for (number, end) in [(1, &near), (2, &far)] {
            end.command(&format!("ip addr add 192.0.2.{number}/24 dev eth0"));
            end.command(&format!("ip addr add fd00::{number}/64 dev eth0 nodad"));
        }
        [near, far]
    }

    fn tap(namespace: &TestNs, device: &str, probe: Probe) -> Tap {
        let open = || Tap::choosing(device, SNAP, 64 << 10, |framing| Some(probe.filter(framing)));
        namespace.run(open).unwrap().unwrap()
    }

    /// So many packets of the probe, each with whether it left.
    fn seen(tap: &mut Tap, probe: Probe, count: usize) -> Vec<(bool, u64, Found)> {
        let (mut all, deadline) = (Vec::new(), std::time::Instant::now() + PATIENCE);
        while all.len() < count {
            assert!(std::time::Instant::now() < deadline, "only {all:?}");
            wait([&*tap], PATIENCE).unwrap();
            let framing = tap.framing();
            if tap.receive().is_ok() {
                let found = |bytes: &[u8]| probe.recognise(framing, bytes).expect("the filter lets nothing else pass");
                all.extend(tap.seen().map(|seen| (seen.outbound, seen.at, found(seen.bytes))));
            }
        }
        all
    }

    #[test]
    fn a_probe_and_its_answer_pass_both_ends_of_a_link_and_leave_nothing() {
        let [near, far] = lab("tcp");
        // One that is as large as the link takes is accepted the same.
        let table = [
            ("192.0.2.2:80", None),
            ("[fd00::2]:80", None),
            ("192.0.2.2:80", Some(1500)),
            ("[fd00::2]:80", Some(1500)),
        ];
        for (number, (text, size)) in (1..).zip(table) {
            let to: SocketAddr = text.parse().unwrap();
            let listener = far.run(|| TcpListener::bind(to).unwrap()).unwrap();
            let probe = Probe { protocol: ProbeProtocol::Tcp, mark: 0xfeed_0000 + number };
            let mut taps = [&near, &far].map(|end| tap(end, "eth0", probe));
            let sent = near.run(|| send(probe, to, size)).unwrap().unwrap();
            for (tap, is_near) in taps.iter_mut().zip([true, false]) {
                let seen = seen(tap, probe, 2);
                let [(out, at, there), (back_out, _, back)] = seen[..] else { panic!("{seen:?}") };
                assert_eq!((there.kind, there.source, there.destination), (Kind::Probe, sent.source, to));
                assert_eq!((back.kind, back.source, back.destination), (Kind::Accepted, to, sent.source));
                assert_eq!((out, back_out), (is_near, !is_near));
                assert!(sent.at <= at, "{} {at}", sent.at);
            }
            // Reset before it was a connection: nobody is there to be accepted.
            listener.set_nonblocking(true).unwrap();
            assert_eq!(listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        }
    }

    #[test]
    fn who_does_not_listen_refuses_by_reset_and_by_an_error() {
        let [near, _far] = lab("refused");
        // Who knows nothing of SCTP says that. To ask for it loads it, where there is a module.
        let knows_sctp =
            socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, Some(ipproto::SCTP));
        let of_sctp = if knows_sctp.is_ok() { Kind::Refused } else { Kind::Error };
        for (protocol, text, kind) in [
            (ProbeProtocol::Sctp, "192.0.2.2:80", of_sctp),
            (ProbeProtocol::Sctp, "[fd00::2]:80", of_sctp),
            (ProbeProtocol::Tcp, "192.0.2.2:80", Kind::Refused),
            (ProbeProtocol::Udp, "192.0.2.2:80", Kind::Error),
            (ProbeProtocol::Udp, "[fd00::2]:80", Kind::Error),
        ] {
            let probe = Probe { protocol, mark: 0x0123_4567_89ab_cdef };
            let mut tap = tap(&near, "eth0", probe);
            near.run(|| send(probe, text.parse().unwrap(), None)).unwrap().unwrap();
            let kinds: Vec<Kind> = seen(&mut tap, probe, 2).into_iter().map(|(.., found)| found.kind).collect();
            assert_eq!(kinds, [Kind::Probe, kind], "{text}");
        }
    }

    #[test]
    fn who_is_asked_for_an_echo_replies_also_to_one_that_is_as_large_as_the_link_takes() {
        let [near, _far] = lab("echo");
        let ends = ["192.0.2.2:0", "[fd00::2]:0"].map(|text| text.parse::<SocketAddr>().unwrap());
        let table = [None, Some(1500)].into_iter().flat_map(|size| ends.map(|to| (to, size)));
        for (number, (to, size)) in (1..).zip(table) {
            let probe = Probe { protocol: ProbeProtocol::Icmp, mark: 0xecc0_0000_0000 + number };
            let mut tap = tap(&near, "eth0", probe);
            let sent = near.run(|| send(probe, to, size)).unwrap().unwrap();
            assert_eq!(sent.source, SocketAddr::new(near.run(|| own_address(to)).unwrap().unwrap(), 0));
            let seen = seen(&mut tap, probe, 2);
            let [(true, _, there), (false, _, back)] = seen[..] else { panic!("{seen:?}") };
            assert_eq!((there.kind, there.source, there.destination), (Kind::Probe, sent.source, to));
            assert_eq!((back.kind, back.source, back.destination), (Kind::Accepted, to, sent.source));
        }
    }

    #[test]
    fn a_device_without_ethernet_is_watched_by_its_bare_packets() {
        let [near, _far] = lab("bare");
        near.command("ip tuntap add tun0 mode tun");
        let probe = Probe { protocol: ProbeProtocol::Udp, mark: 7 << 40 };
        assert_eq!(tap(&near, "tun0", probe).framing(), Framing::Bare);
    }

    #[test]
    fn where_there_is_no_route_nothing_is_sent() {
        let [near, _far] = lab("noroute");
        let probe = Probe { protocol: ProbeProtocol::Tcp, mark: 9 };
        let error = near.run(|| send(probe, "198.51.100.1:80".parse().unwrap(), None)).unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NetworkUnreachable);
    }
}
