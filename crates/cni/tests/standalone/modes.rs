//! Networks of shared Ethernet segments: bridges, and devices that containers share with the machine.

use std::time::Duration;

use podnet_testnet::eventually;
use serde_json::{Value, json};

use crate::{Machine, Sandbox, machine::address};

fn bridge() -> Value {
    json!({"mode": "bridge", "bridge": "cni0", "isDefaultGateway": true})
}

fn ports(port: u16) -> Value {
    json!({"portMappings": [{"hostPort": port, "containerPort": 80, "protocol": "tcp"}]})
}

#[test]
fn containers_of_a_bridge_are_neighbours_and_the_machine_is_their_gateway() {
    let machine = Machine::new("br");
    let ranges = json!({"ranges": [[{"subnet": "10.70.0.0/24"}], [{"subnet": "fd70::/64"}]]});
    let list = machine.network(&ranges, &bridge());
    let (a, b) = (Sandbox::new("a"), Sandbox::new("b"));
    let names = json!({"aliases": {"local": ["web"], "elsewhere": ["db"]}});
    let first = list.with(names).add("a", &a.path(), "eth0").done();
    let second = list.add("b", &b.path(), "eth0").done();
    assert_eq!(machine.record("a", "eth0")["aliases"], json!(["web"]));
    assert_eq!(first["ips"][0], json!({"address": "10.70.0.2/24", "gateway": "10.70.0.1", "interface": 2}));
    assert_eq!(first["interfaces"][0]["name"], "cni0");
    assert_eq!(first["interfaces"][2]["name"], "eth0");
    let _ = list.check("a", &a.path(), "eth0", &first).done();
    let _ = list.status().done();
    for to in [&address(&second, '.'), "10.70.0.1", "203.0.113.1", "203.0.113.2", &address(&second, ':'), "fd70::1"] {
        a.run(&["ping", "-c1", "-W3", to]);
    }
    assert!(machine.routes_and_hears_its_router());
    // Neighbours by themselves: no route of the machine is between them.
    assert!(!a.run(&["ip", "route", "get", "10.70.0.3"]).contains("via"));
    machine.node.run(&["ping", "-c1", "-W3", "10.70.0.2"]);
    let (_outside, _inside) = (machine.outside.serve(80), b.serve(80));
    assert_eq!(a.ask("203.0.113.2", 80).unwrap(), "203.0.113.1");
    assert_eq!(a.ask("10.70.0.3", 80).unwrap(), "10.70.0.2");

    // The bridge keeps its Ethernet address whoever comes and goes.
    let mac = machine.node.run(&["cat", "/sys/class/net/cni0/address"]);
    machine.node.run(&["ip", "link", "set", &port(&first), "nomaster"]);
    let (code, message) = list.check("a", &a.path(), "eth0", &first).refused();
    assert!(code == 101 && message.contains("is no port of bridge cni0"), "{message}");
    for (id, sandbox, result) in [("a", &a, &first), ("b", &b, &second)] {
        for _ in 0..2 {
            let _ = list.del(id, &sandbox.path(), "eth0", result).done();
        }
    }
    assert_eq!(machine.traces(), [""; 0]);
    assert_eq!(machine.node.run(&["cat", "/sys/class/net/cni0/address"]), mac);
}

fn port(result: &Value) -> String {
    result["interfaces"][1]["name"].as_str().unwrap().to_owned()
}

/// With frames on bridges shown to the chains of `ip` (`br_netfilter`), and without: answers take different ways.
#[test]
fn ports_lead_to_a_container_on_a_bridge_from_everywhere() {
    for shown in ["0", "1"] {
        let machine = Machine::new("br-ports");
        let list = machine.network(&json!({"subnet": "10.71.0.0/24"}), &bridge());
        let (web, other) = (Sandbox::new("web"), Sandbox::new("other"));
        // A kernel without br_netfilter shows nothing.
        let setting = "/proc/sys/net/bridge/bridge-nf-call-iptables";
        let _ = machine.node.try_run(&["sh", "-c", &format!("echo {shown} > {setting}")]);
        let result = list.with(ports(8080)).add("web", &web.path(), "eth0").done();
        let second = list.add("other", &other.path(), "eth0").done();
        let _server = web.serve(80);
        assert_eq!(machine.outside.ask("203.0.113.1", 8080).unwrap(), "203.0.113.2");
        for (from, to) in [
            (&other, "203.0.113.1"),
            (&other, "10.71.0.1"),
            (&web, "203.0.113.1"),
            (&web, "10.71.0.1"),
            (&machine.node, "203.0.113.1"),
            (&machine.node, "127.0.0.1"),
        ] {
            from.ask(to, 8080).unwrap_or_else(|error| panic!("{} to {to}, shown: {shown}: {error}", from.name));
        }
        assert_eq!(other.ask("10.71.0.2", 80).unwrap(), "10.71.0.3", "what needs no port is not translated");
        let _ = list.del("web", &web.path(), "eth0", &result).done();
        assert!(machine.outside.ask("203.0.113.1", 8080).is_err());
        other.run(&["ping", "-c1", "-W3", "203.0.113.2"]);
        let _ = list.del("other", &other.path(), "eth0", &second).done();
        assert_eq!(machine.traces(), [""; 0]);
    }
}

#[test]
fn a_container_on_a_bridge_does_not_send_as_another() {
    let machine = Machine::new("br-spoof");
    let ranges = json!({"ranges": [[{"subnet": "10.72.0.0/24"}], [{"subnet": "fd72::/64"}]]});
    let list = machine.network(&ranges, &bridge());
    let (a, b) = (Sandbox::new("a"), Sandbox::new("b"));
    let first = list.with(ports(8080)).add("a", &a.path(), "eth0").done();
    let second = list.add("b", &b.path(), "eth0").done();
    let gateway = machine.node.run(&["cat", "/sys/class/net/cni0/address"]);
    // It is not believed when it says by ND that it is the gateway, by one that knows the gateway already, be that behind an option of IPv6.
    b.run(&["ping", "-c1", "-W3", "fd72::1"]);
    let knows = || b.run(&["ip", "neigh", "show", "fd72::1"]);
    assert!(knows().contains(gateway.trim()));
    for options in ["", "setsockopt $s, 41, 59, pack(q(C8), 0, 0, 1, 4, 0, 0, 0, 0) or die $!;"] {
        advertise(&a, "fd72::1", "fd72::3", options);
        // What was sent before has been heard.
        a.run(&["ping", "-c1", "-W3", "fd72::3"]);
        assert!(knows().contains(gateway.trim()), "{options}: {}", knows());
    }
    a.run(&["ip", "addr", "add", "10.72.0.9/24", "dev", "eth0"]);
    a.run(&["ip", "addr", "add", "fd72::9/64", "dev", "eth0", "nodad"]);
    for (from, to) in [("10.72.0.9", "10.72.0.3"), ("10.72.0.9", "10.72.0.1"), ("fd72::9", "fd72::3")] {
        assert!(a.try_run(&["ping", "-c1", "-W1", "-I", from, to]).is_err(), "{from} to {to}");
    }
    // Nor is it heard when it says that by ARP.
    a.run(&["ip", "addr", "add", "10.72.0.1/32", "dev", "eth0"]);
    let _ = a.try_run(&["ip", "link", "set", "eth0", "down"]);
    a.run(&["ip", "link", "set", "eth0", "up"]);
    b.run(&["ip", "neigh", "flush", "all"]);
    b.run(&["ping", "-c1", "-W3", "10.72.0.1"]);
    assert!(b.run(&["ip", "neigh", "show", "10.72.0.1"]).contains(gateway.trim()));
    // The machine takes packets for its loopback by the bridge, as a port leads there: nobody else may send such.
    a.run(&["ip", "addr", "del", "10.72.0.1/32", "dev", "eth0"]);
    let server = machine.node.serve(7070);
    assert!(machine.node.ask("127.0.0.1", 7070).is_ok());
    b.run(&["ip", "route", "add", "127.0.0.2/32", "via", "10.72.0.1"]);
    b.run(&["sh", "-c", "echo 1 > /proc/sys/net/ipv4/conf/eth0/route_localnet"]);
    b.run(&["ip", "addr", "del", "127.0.0.1/8", "dev", "lo"]);
    assert!(b.ask("127.0.0.2", 7070).is_err());
    drop(server);

    b.run(&["ip", "link", "set", "eth0", "address", "02:00:00:00:00:99"]);
    assert!(b.try_run(&["ping", "-c1", "-W1", "10.72.0.1"]).is_err());
    // Who looks for the reason finds it.
    let (_, message) = list.check("b", &b.path(), "eth0", &second).refused();
    let said = "has Ethernet address 02:00:00:00:00:99, and not ";
    assert!(message.contains(said) && message.contains("dropped, as macspoofchk is true"), "{message}");
    let table = machine.node.run(&["nft", "list", "table", "bridge", "podnet-cni"]);
    let counted = |line: &str| line.contains("not its own") && line.contains("counter") && !line.contains("packets 0 ");
    assert!(table.lines().any(|line| line.contains(" drop ") && counted(line)), "{table}");
    let _ = list.gc(&[]).done();
    assert_eq!(machine.traces(), [""; 0]);
    drop((first, second));

    // Where that is not wanted, nobody is checked.
    let mut config = bridge();
    config["macspoofchk"] = json!(false);
    let list = machine.network(&json!({"subnet": "10.72.0.0/24"}), &config);
    let free = Sandbox::new("free");
    let _ = list.add("free", &free.path(), "eth0").done();
    free.run(&["ip", "addr", "add", "10.72.0.99/24", "dev", "eth0"]);
    free.run(&["ping", "-c1", "-W3", "-I", "10.72.0.99", "10.72.0.1"]);
    // The machine's loopback is nobody's all the same, when the bridge takes packets for it because of a port.
    let web = Sandbox::new("web");
    let result = list.with(ports(8080)).add("web", &web.path(), "eth0").done();
    let _answering = (web.serve(80), machine.node.serve(7070));
    assert!(machine.node.ask("127.0.0.1", 8080).is_ok());
    let local = || machine.node.run(&["cat", "/proc/sys/net/ipv4/conf/cni0/route_localnet"]);
    assert_eq!(local().trim(), "1");
    let reached = || {
        free.run(&["ip", "route", "replace", "127.0.0.2/32", "via", "10.72.0.1"]);
        free.run(&["sh", "-c", "echo 1 > /proc/sys/net/ipv4/conf/eth0/route_localnet"]);
        let _ = free.try_run(&["ip", "addr", "del", "127.0.0.1/8", "dev", "lo"]);
        free.ask("127.0.0.2", 7070).is_ok()
    };
    assert!(!reached());
    // It is the rules that keep it away.
    machine.node.run(&["nft", "delete table ip podnet-cni"]);
    assert!(reached());
    let _ = list.del("web", &web.path(), "eth0", &result).done();
    assert_eq!(local().trim(), "0");
    let _ = list.gc(&[]).done();
    assert_eq!(machine.traces(), [""; 0]);
}

/// The address's new place has to be said when the rules let it be said, and as there are others on the bridge there are rules.
#[test]
fn who_gets_an_address_on_a_bridge_that_another_had_is_known_at_once() {
    let machine = Machine::new("br-said");
    let list = machine.network(&json!({"subnet": "10.76.0.0/24"}), &bridge());
    let wishes = |number: u8| json!({"mac": format!("02:00:00:00:76:0{number}"), "ips": ["10.76.0.9"]});
    let [before, after, neighbour] = ["before", "after", "neighbour"].map(Sandbox::new);
    let _ = list.add("neighbour", &neighbour.path(), "eth0").done();
    let first = list.with(wishes(1)).add("before", &before.path(), "eth0").done();
    let knows = |who: &Sandbox, number| {
        who.run(&["ip", "neigh", "show", "10.76.0.9"]).contains(&format!("02:00:00:00:76:0{number}"))
    };
    for who in [&machine.node, &neighbour] {
        who.run(&["ping", "-c1", "-W3", "10.76.0.9"]);
        assert!(knows(who, 1));
    }
    let _ = list.del("before", &before.path(), "eth0", &first).done();
    let _ = list.with(wishes(2)).add("after", &after.path(), "eth0").done();
    for who in [&machine.node, &neighbour] {
        eventually("the new Ethernet address is known without asking", Duration::from_secs(5), || {
            if knows(who, 2) { Ok(()) } else { Err(who.run(&["ip", "neigh"])) }
        });
    }
    let _ = list.gc(&[]).done();
    assert_eq!(machine.traces(), [""; 0]);
}

/// Tells a neighbour, unasked, that the address is at another Ethernet address now (RFC 4861, section 4.4, with the flag override).
fn advertise(from: &Sandbox, address: &str, to: &str, options: &str) {
    let program = format!(
        "use Socket qw(:DEFAULT :addrinfo inet_pton pack_sockaddr_in6 AF_INET6); \
         socket($s, AF_INET6, SOCK_RAW, 58) or die $!; \
         setsockopt $s, 41, 16, pack(q(i), 255) or die $!; {options} \
         $m = pack(q(CCnN), 136, 0, 0, 0x20000000) . inet_pton(AF_INET6, q({address})) . pack(q(CCC6), 2, 1, 2, 0, 0, 0, 0, 0x66); \
         send($s, $m, 0, pack_sockaddr_in6(0, inet_pton(AF_INET6, q({to})))) or die $!;"
    );
    from.run(&["perl", "-e", &program]);
}

#[test]
fn containers_share_a_device_of_the_machine() {
    for mode in ["bridge", "private", "vepa"] {
        let machine = Machine::new("mv");
        let config = json!({"mode": "macvlan", "macvlanMode": mode, "ipMasq": false});
        // The device of the default route; the range is the outside's own.
        let routes = json!([{"dst": "0.0.0.0/0", "gw": "203.0.113.2"}]);
        let ipam = json!({"subnet": "203.0.113.0/24", "rangeStart": "203.0.113.20", "rangeEnd": "203.0.113.29",
            "gateway": "203.0.113.2", "routes": routes});
        let list = machine.network(&ipam, &config);
        let (a, b) = (Sandbox::new("a"), Sandbox::new("b"));
        let first = list.add("a", &a.path(), "eth0").done();
        let second = list.add("b", &b.path(), "eth0").done();
        assert_eq!(first["interfaces"].as_array().unwrap().len(), 1);
        assert_eq!(first["ips"][0], json!({"address": "203.0.113.20/24", "gateway": "203.0.113.2", "interface": 0}));
        let _ = list.check("a", &a.path(), "eth0", &first).done();
        let _ = list.status().done();
        a.run(&["ping", "-c1", "-W3", "203.0.113.2"]);
        let _server = a.serve(80);
        assert_eq!(machine.outside.ask("203.0.113.20", 80).unwrap(), "203.0.113.2");
        let neighbours = a.try_run(&["ping", "-c1", "-W1", "203.0.113.21"]).is_ok();
        assert_eq!(neighbours, mode == "bridge", "{mode}");
        assert!(a.run(&["ip", "-d", "link", "show", "eth0"]).contains(&format!("macvlan mode {mode}")));

        // A second ADD, a name that is taken: told, and nothing is harmed.
        let (code, message) = list.add("a", &a.path(), "eth0").refused();
        assert!(code == 101 && message.contains("already"), "{message}");
        let (code, message) = list.add("thief", &a.path(), "eth0").refused();
        assert!(code == 101 && message.contains("eth0 already"), "{message}");
        let _ = list.del("thief", &a.path(), "eth0", &Value::Null).done();
        let _ = list.check("a", &a.path(), "eth0", &first).done();
        for _ in 0..2 {
            let _ = list.del("a", &a.path(), "eth0", &first).done();
        }
        assert!(a.try_run(&["ip", "link", "show", "eth0"]).is_err());
        let _ = list.gc(&[("b", "eth0")]).done();
        let _ = list.check("b", &b.path(), "eth0", &second).done();
        let _ = list.gc(&[]).done();
        assert!(b.try_run(&["ip", "link", "show", "eth0"]).is_err());
        assert_eq!(machine.traces(), [""; 0]);
    }
}

#[test]
fn one_container_has_a_device_for_itself() {
    let machine = Machine::new("mv-pass");
    machine.node.run(&["ip", "addr", "flush", "dev", "eth0"]);
    let config = json!({"mode": "macvlan", "macvlanMode": "passthru", "master": "eth0", "ipMasq": false});
    let list = machine.network(&json!({"subnet": "203.0.113.0/24", "rangeStart": "203.0.113.30"}), &config);
    let (a, b) = (Sandbox::new("a"), Sandbox::new("b"));
    let first = list.add("a", &a.path(), "eth0").done();
    assert_eq!(first["interfaces"][0]["mac"], machine.node.run(&["cat", "/sys/class/net/eth0/address"]).trim());
    a.run(&["ping", "-c1", "-W3", "203.0.113.2"]);
    let (code, message) = list.add("b", &b.path(), "eth0").refused();
    assert!(code == 101 && message.contains("macvlan"), "{message}");
    // Lost without DEL: the address is free when the range is full, and the device with it.
    let gone = a.path();
    drop(a);
    eventually("the device is free with its container's namespace", Duration::from_secs(5), || {
        let answer = list.add("b", &b.path(), "eth0");
        if answer.success { Ok(()) } else { Err(answer.value.to_string()) }
    });
    let _ = list.del("a", &gone, "eth0", &first).done();
    b.run(&["ping", "-c1", "-W3", "203.0.113.2"]);
    let _ = list.gc(&[]).done();
    assert_eq!(machine.traces(), [""; 0]);
}

#[test]
fn what_cannot_be_in_a_mode_is_told_and_leaves_nothing() {
    let machine = Machine::new("mode-wrong");
    let sandbox = Sandbox::new("s");
    let ipam = json!({"subnet": "10.73.0.0/24"});
    machine.node.run(&["ip", "link", "add", "taken", "type", "veth", "peer", "name", "taken2"]);
    for (config, code, said) in [
        (json!({"mode": "ipvlan"}), 7, "key mode is \"ipvlan\"; veth, bridge or macvlan"),
        (json!({"mode": "bridge", "master": "eth0"}), 7, "key master"),
        (json!({"mode": "bridge", "vlan": 7}), 2, "unknown key \"vlan\""),
        (json!({"mode": "bridge"}), 7, "key ipMasq is true; it needs \"isGateway\": true"),
        (json!({"mode": "bridge", "isGateway": true, "bridge": "taken"}), 101, "taken is no bridge (veth)"),
        (json!({"mode": "macvlan", "ipMasq": false, "master": "none0"}), 7, "key master is \"none0\""),
        (json!({"mode": "macvlan", "ipMasq": false, "master": "eth0", "mtu": 9000}), 7, "at most 1500"),
    ] {
        let (found, message) = machine.network(&ipam, &config).add("s", &sandbox.path(), "eth0").refused();
        assert!(found == code && message.contains(said), "{config}: {found} {message}");
        assert!(sandbox.try_run(&["ip", "link", "show", "eth0"]).is_err());
    }
    let absent = machine.network(&ipam, &json!({"mode": "macvlan", "ipMasq": false, "master": "none0"}));
    assert_eq!(absent.status().refused().0, 50);
    let _ = absent.del("s", &sandbox.path(), "eth0", &Value::Null).done();
    // A gateway of the bridge that is another's is told, or takes its place where that is wanted.
    machine.node.run(&["ip", "link", "add", "cni0", "type", "bridge"]);
    machine.node.run(&["ip", "addr", "add", "10.73.0.77/24", "dev", "cni0"]);
    let (_, message) = machine.network(&ipam, &bridge()).add("s", &sandbox.path(), "eth0").refused();
    assert!(message.contains("cni0 has 10.73.0.77/24, which is in the way of gateway 10.73.0.1/24"), "{message}");
    let mut forced = bridge();
    forced["forceAddress"] = json!(true);
    let list = machine.network(&ipam, &forced);
    let result = list.add("s", &sandbox.path(), "eth0").done();
    sandbox.run(&["ping", "-c1", "-W3", "203.0.113.2"]);
    let _ = list.del("s", &sandbox.path(), "eth0", &result).done();
    assert_eq!(machine.traces(), [""; 0]);
}

#[test]
fn an_interface_on_a_bridge_may_come_after_a_routed_one() {
    let machine = Machine::new("br-second");
    let routed = machine.network(&json!({"subnet": "10.74.0.0/24"}), &json!({}));
    let mut bridged = machine.network(&json!({"subnet": "10.75.0.0/24"}), &bridge());
    bridged.name = "bridged".to_owned();
    let sandbox = Sandbox::new("both");
    let first = routed.add("both", &sandbox.path(), "eth0").done();
    let second = bridged.with(ports(8081)).add("both", &sandbox.path(), "eth1").done();
    assert!(sandbox.run(&["ip", "route", "get", "203.0.113.2"]).contains("dev eth0"));
    let _server = sandbox.serve(80);
    machine.outside.ask("203.0.113.1", 8081).unwrap();
    for to in ["10.74.0.2", "10.75.0.2"] {
        machine.node.run(&["ping", "-c1", "-W3", to]);
    }
    let _ = bridged.check("both", &sandbox.path(), "eth1", &second).done();
    let _ = bridged.del("both", &sandbox.path(), "eth1", &second).done();
    let _ = routed.check("both", &sandbox.path(), "eth0", &first).done();
    sandbox.run(&["ping", "-c1", "-W3", "203.0.113.2"]);
    let _ = routed.del("both", &sandbox.path(), "eth0", &first).done();
    assert_eq!(machine.traces(), [""; 0]);
}
