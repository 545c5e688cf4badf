use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;
use crate::Protocol;

fn args(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn of_runtime(runtime: &Value) -> Result<Wishes, InvalidConfig> {
    Wishes::parse(&json!({"runtimeConfig": runtime}), &BTreeMap::new())
}

#[test]
fn every_capability_is_read() {
    let wishes = of_runtime(&json!({
        "ips": ["10.1.2.3/24", "fd00::5"],
        "mac": "02:00:00:00:00:07",
        "portMappings": [
            {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
            {"hostPort": 53, "containerPort": 5353, "protocol": "UDP", "hostIP": "127.0.0.1"},
            {"hostPort": 8080, "containerPort": 80},
        ],
        "ipRanges": [[{"subnet": "10.1.2.0/24"}], [{"subnet": "fd00::/64"}]],
        "dns": {"servers": ["10.0.0.53"], "searches": ["a.example"]},
        "aliases": ["web", "my_app.example", "web"],
    }))
    .unwrap();
    assert_eq!(wishes.addrs, ["10.1.2.3".parse::<std::net::IpAddr>().unwrap(), "fd00::5".parse().unwrap()]);
    assert_eq!(wishes.mac, Some(crate::Mac([2, 0, 0, 0, 0, 7])));
    let anywhere = std::net::Ipv4Addr::UNSPECIFIED.into();
    let tcp = PortMapping { host_ip: anywhere, protocol: Protocol::Tcp, host_port: 8080, container_port: 80 };
    let local = std::net::Ipv4Addr::LOCALHOST.into();
    let udp = PortMapping { host_ip: local, protocol: Protocol::Udp, host_port: 53, container_port: 5353 };
    let tcp6 = PortMapping { host_ip: std::net::Ipv6Addr::UNSPECIFIED.into(), ..tcp };
    assert_eq!(wishes.ports, [tcp, udp, tcp6], "sorted, and each once");
    assert_eq!(wishes.ranges, ["10.1.2.0/24".parse().unwrap(), "fd00::/64".parse().unwrap()]);
    assert_eq!(wishes.dns.to_json(), json!({"nameservers": ["10.0.0.53"], "search": ["a.example"]}));
    assert_eq!(wishes.aliases, ["my_app.example", "web"]);
}

#[test]
fn the_runtime_counts_before_the_configuration_and_that_before_arguments() {
    let config = json!({
        "dns": {"nameservers": ["10.0.0.1"], "domain": "example"},
        "args": {"cni": {"ips": ["10.0.0.2"]}},
        "runtimeConfig": {"dns": {"servers": ["10.0.0.9"]}},
    });
    let wishes = Wishes::parse(&config, &args(&[("IP", "10.0.0.3"), ("MAC", "02:00:00:00:00:01")])).unwrap();
    assert_eq!(wishes.addrs, ["10.0.0.2".parse::<std::net::IpAddr>().unwrap()]);
    assert_eq!(wishes.mac, Some(crate::Mac([2, 0, 0, 0, 0, 1])));
    assert_eq!(wishes.dns.nameservers, ["10.0.0.9"]);
    assert_eq!(wishes.dns.domain.as_deref(), Some("example"));
    let wishes = Wishes::parse(&json!({}), &args(&[("IP", "10.0.0.3,10.0.0.4/24")])).unwrap();
    assert_eq!(wishes.addrs.len(), 2);
}

#[test]
fn what_is_wrong_is_named_with_its_value_and_what_is_allowed() {
    let port = |entry: Value| of_runtime(&json!({"portMappings": [entry]})).unwrap_err().to_string();
    assert_eq!(
        port(json!({"hostPort": 70000, "containerPort": 80})),
        "key runtimeConfig.portMappings[0].hostPort is 70000; a port is a number from 1 to 65535"
    );
    assert!(port(json!({"hostPort": 80})).contains("containerPort is missing"));
    assert!(
        port(json!({"hostPort": 80, "containerPort": 80, "protocol": "icmp"}))
            .contains("allowed are tcp, udp and sctp")
    );
    assert!(port(json!({"hostPort": 80, "containerPort": 80, "hostIP": "here"})).contains("\"here\""));
    let twice = json!({"portMappings": [{"hostPort": 80, "containerPort": 80}, {"hostPort": 80, "containerPort": 81}]});
    assert!(of_runtime(&twice).unwrap_err().to_string().contains("80/TCP twice, to 80 and to 81"));
    for (wrong, named) in [
        (json!({"ips": ["10.0.0.256"]}), "runtimeConfig.ips"),
        (json!({"ips": "10.0.0.1"}), "a list"),
        (json!({"mac": "01:00:00:00:00:01"}), "unicast"),
        (json!({"mac": "00:00:00:00:00:00"}), "unicast"),
        (json!({"ipRanges": [[{}]]}), "CIDR"),
        (json!({"dns": {"servers": [1]}}), "runtimeConfig.dns.servers"),
        (json!({"aliases": ["two words"]}), "runtimeConfig.aliases is \"two words\""),
        (json!({"aliases": [".x"]}), "1 to 63 letters"),
        (json!({"aliases": "web"}), "runtimeConfig.aliases is \"web\"; a list"),
    ] {
        let error = of_runtime(&wrong).unwrap_err();
        assert!(error.to_string().contains(named), "{wrong}: {error}");
        assert_eq!(error.code(), 7);
    }
}

#[test]
fn unknown_keys_and_arguments_are_refused_with_their_value() {
    let config = json!({"cniVersion": "1.1.0", "type": "x", "cni.dev/valid-attachments": [], "soket": "/run/x"});
    let error = check_keys(config.as_object().unwrap(), &["socket"]).unwrap_err();
    assert_eq!(error.code(), 2);
    assert!(error.to_string().contains("\"soket\" (value \"/run/x\")"), "{error}");
    let known = json!({"cniVersion": "1.1.0", "cni.dev/attachments": [], "socket": "/run/x"});
    check_keys(known.as_object().unwrap(), &["socket"]).unwrap();

    let error = Wishes::parse(&json!({}), &args(&[("COLOUR", "red")])).unwrap_err();
    assert_eq!((error.code(), error.to_string().contains("COLOUR=red")), (4, true));
    Wishes::parse(&json!({}), &args(&[("COLOUR", "red"), ("IgnoreUnknown", "true")])).unwrap();
    assert_eq!(Wishes::parse(&json!({}), &args(&[("IP", "x")])).unwrap_err().code(), 4);
}

#[test]
fn aliases_by_network_are_those_of_this_network() {
    let aliases = json!({"front": ["web"], "back": ["db", "4f1b"]});
    let config = json!({"name": "back", "runtimeConfig": {"aliases": aliases}});
    assert_eq!(Wishes::parse(&config, &args(&[])).unwrap().aliases, ["4f1b", "db"]);
    let config = json!({"name": "other", "runtimeConfig": {"aliases": aliases}});
    assert_eq!(Wishes::parse(&config, &args(&[])).unwrap().aliases, [""; 0]);
}
