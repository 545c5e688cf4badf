use podnet_kernel::netns::NetNs;

use super::*;

/// What is found on a device `eth0` with these addresses.
fn found(tag: &str, addrs: &[&str], settings: UnderlaySettings) -> Result<Underlay, UnderlayError> {
    let path = format!("/run/netns/podnet-test-{tag}-{}", std::process::id());
    let netns = NetNs::create(&path).unwrap();
    let found = netns.run(|| {
        let mut socket = RtSocket::open().unwrap();
        link::create_bridge(&mut socket, "eth0").unwrap();
        link::set_without_link_local(&mut socket, "eth0").unwrap();
        link::set_up(&mut socket, "eth0").unwrap();
        let index = link::index_of(&mut socket, "eth0").unwrap();
        addrs.iter().for_each(|addr| addr::add(&mut socket, index, addr.parse().unwrap()).unwrap());
        let internal = Dual { v4: None, v6: "2001:db8::12".parse().ok() };
        Finder::new(settings).find(internal)
    });
    NetNs::remove(&path).unwrap();
    found.unwrap()
}

fn on_eth0() -> UnderlaySettings {
    UnderlaySettings { detection: Detection::Device("eth0".into()), ..UnderlaySettings::default() }
}

fn told(found: &Underlay) -> [Option<String>; 4] {
    let Underlay { address, address6, published, .. } = found;
    [Some(*address), *address6, published.v4, published.v6].map(|net| net.map(|net| net.to_string()))
}

const BOTH: [&str; 4] = ["fe80::9/64", "2001:db8::11/64", "2001:db8::12/64", "192.0.2.11/24"];

#[test]
fn the_address_by_ipv6_is_on_the_device_of_the_other_one_unless_it_is_told_otherwise() {
    let some = |text: &str| Some(text.to_owned());
    let by = |method: &str| UnderlaySettings { detection6: Some(method.parse().unwrap()), ..on_eth0() };
    let v4 = || some("192.0.2.11/24");
    for (number, (settings, v6)) in [
        (on_eth0(), some("2001:db8::11/64")),
        (by("kubernetes-internal-ip"), some("2001:db8::12/64")),
        (by("cidr=2001:db8::12/128"), some("2001:db8::12/64")),
        (by("interface=eth7"), None),
        (by("none"), None),
    ]
    .into_iter()
    .enumerate()
    {
        let found = found(&format!("find6-{number}"), &BOTH, settings).unwrap();
        assert_eq!(told(&found), [v4(), v6.clone(), v4(), v6], "{number}");
    }
    let public = UnderlaySettings { public_ip: Some([203, 0, 113, 7].into()), ..on_eth0() };
    let found = found("find6-public", &BOTH, public).unwrap();
    assert_eq!(told(&found), [v4(), some("2001:db8::11/64"), some("203.0.113.7/32"), some("2001:db8::11/64")]);
}

#[test]
fn a_node_without_ipv4_is_found_by_ipv6_and_one_without_any_address_is_told() {
    let some = |text: &str| Some(text.to_owned());
    let six = found("find6-only", &BOTH[..3], on_eth0()).unwrap();
    assert_eq!(told(&six), [some("2001:db8::11/64"), some("2001:db8::11/64"), None, some("2001:db8::11/64")]);
    let error = found("find6-none", &BOTH[..1], on_eth0()).unwrap_err();
    assert_eq!(error.to_string(), "device eth0 has no IPv4 or IPv6 address that other nodes could reach");
}
