use super::*;

#[test]
fn a_name_is_compared_in_lower_case() {
    let (asked, end) = QueryName::parse(b"\x03WeB\x07CLUSTER\x05local\0rest", 0).unwrap();
    assert_eq!(end, 19);
    assert_eq!(asked.to_string(), "web.cluster.local.");
    assert_eq!(asked.within(&Name::parse("Cluster.Local").unwrap()), Some(1));
    assert_eq!(asked.within(&Name::parse("ster.local").unwrap()), None);
}

#[test]
fn a_reverse_name_is_an_address_and_back() {
    for addr in ["10.233.0.10", "fd00::1:a"] {
        let addr: IpAddr = addr.parse().unwrap();
        assert_eq!(QueryName::from(&reverse_name(addr)).reverse_address(), Some(addr));
    }
    for other in ["0.233.10.in-addr.arpa", "01.0.233.10.in-addr.arpa", "x.0.233.10.in-addr.arpa", "1.2.3.4.arpa"] {
        assert_eq!(QueryName::from(&Name::parse(other).unwrap()).reverse_address(), None, "{other}");
    }
}

#[test]
fn names_of_255_bytes_pass_and_longer_ones_do_not() {
    let label = "a".repeat(63);
    let most = format!("{label}.{label}.{label}.{}", "b".repeat(61));
    let name = Name::parse(&most).unwrap();
    assert_eq!(name.wire().len(), 255);
    assert_eq!(QueryName::parse(name.wire(), 0).unwrap().1, 255);
    assert_eq!(Name::parse(&format!("{most}b")), Err(BadName::TooLong));
    let mut long = name.wire().to_vec();
    long.splice(0..0, [1, b'x']);
    assert_eq!(QueryName::parse(&long, 0).unwrap_err(), BadName::TooLong);
}
