use super::*;

fn device(name: &str, addrs: &[&str]) -> Candidate {
    let addrs = addrs.iter().map(|addr| addr.parse().unwrap()).collect();
    Candidate { name: name.into(), is_up: true, addrs }
}

fn devices() -> Vec<Candidate> {
    vec![
        device("lo", &["127.0.0.1/8", "198.51.100.1/32"]),
        device("docker0", &["172.17.0.1/16"]),
        Candidate { is_up: false, ..device("eth9", &["192.0.2.99/24"]) },
        device("eth0", &["169.254.7.7/16", "fe80::7/64", "192.0.2.11/24", "2001:db8::11/64"]),
        device("eth1", &["10.0.0.11/8", "203.0.113.11/28", "2001:db8:1::11/64", "2001:db8:2::11/64"]),
        device("bond0", &["10.9.0.11/16"]),
        device("podnet.vxlan", &["10.1.1.1/32"]),
    ]
}

fn found(method: &str) -> Option<String> {
    found_by(Family::V4, method)
}

fn found_by(family: Family, method: &str) -> Option<String> {
    let circumstances = Circumstances {
        default_device: Some("eth1".into()),
        towards: Some("10.9.0.11".parse().unwrap()),
        internal: Some("203.0.113.11".parse().unwrap()),
    };
    let detection: Detection = method.parse().unwrap();
    detection.choose(family, &devices(), &circumstances).map(|(device, addr)| format!("{device} {addr}"))
}

#[test]
fn each_method_finds_its_address() {
    for (method, place) in [
        ("first-found", Some("eth0 192.0.2.11/24")),
        ("interface=eth1", Some("eth1 10.0.0.11/8")),
        ("interface=ens.*,bond0,eth.*", Some("bond0 10.9.0.11/16")),
        ("interface=eth9", None),
        ("skip-interface=eth0,eth1", Some("bond0 10.9.0.11/16")),
        ("skip-interface=.*", None),
        ("cidr=203.0.113.0/24", Some("eth1 203.0.113.11/28")),
        ("cidr=100.64.0.0/10,10.9.0.0/16", Some("eth1 10.0.0.11/8")),
        ("can-reach=www.example.org", Some("bond0 10.9.0.11/16")),
        ("kubernetes-internal-ip", Some("eth1 203.0.113.11/28")),
    ] {
        // The range 10.9.0.0/16 does not hold 10.0.0.11.
        let place = if method.starts_with("cidr=100") { Some("bond0 10.9.0.11/16") } else { place };
        assert_eq!(found(method).as_deref(), place, "{method}");
    }
}

#[test]
fn each_method_finds_an_address_of_ipv6_too_and_never_one_of_the_other_family() {
    for (method, place) in [
        ("first-found", Some("eth0 2001:db8::11/64")),
        ("interface=lo,eth1", Some("eth1 2001:db8:1::11/64")),
        ("skip-interface=eth0", Some("eth1 2001:db8:1::11/64")),
        ("cidr=2001:db8:2::/48,203.0.113.0/24", Some("eth1 2001:db8:2::11/64")),
        ("can-reach=www.example.org", None),
        ("kubernetes-internal-ip", None),
        ("none", None),
    ] {
        assert_eq!(found_by(Family::V6, method).as_deref(), place, "{method}");
    }
}

#[test]
fn flannels_options_are_tried_in_order() {
    let choose = |names: &[&str], expressions: &[&str]| {
        let detection = Detection::Flannel {
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            expressions: expressions.iter().map(|text| expression(text).unwrap()).collect(),
        };
        detection
            .choose(Family::V4, &devices(), &Circumstances::default())
            .map(|(device, addr)| format!("{device} {addr}"))
    };
    assert_eq!(choose(&["eth7", "bond0"], &["eth0"]).as_deref(), Some("bond0 10.9.0.11/16"));
    assert_eq!(choose(&["203.0.113.11"], &[]).as_deref(), Some("eth1 203.0.113.11/28"));
    assert_eq!(choose(&["eth7"], &[r"^203\.", "bond"]).as_deref(), Some("eth1 203.0.113.11/28"));
    assert_eq!(choose(&["eth7"], &["nothing"]), None);
}

#[test]
fn a_method_that_cannot_be_read_is_told_with_what_is_allowed() {
    let error = |text: &str| text.parse::<Detection>().unwrap_err().to_string();
    assert!(error("firstfound").contains("first-found, can-reach=DESTINATION"), "{}", error("firstfound"));
    assert!(error("interface=").contains("there is no autodetection method"));
    assert!(error("interface=eth[").starts_with("\"eth[\" in the autodetection method is no regular expression"));
    assert_eq!(
        error("cidr=10.0.0.0/33").split(';').next(),
        Some("\"10.0.0.0/33\" in the autodetection method is no range")
    );
}
