//! What containers of a local network can do, and everything that can go wrong with them.

use serde_json::{Value, json};

use crate::{Machine, Sandbox, machine::address};

#[test]
fn containers_reach_each_other_the_machine_and_the_rest() {
    let machine = Machine::new("reach");
    let ranges = json!({"ranges": [[{"subnet": "10.50.0.0/24"}], [{"subnet": "fd50::/64"}]], "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]});
    let list = machine.network(&ranges, &json!({}));
    let (a, b) = (Sandbox::new("a"), Sandbox::new("b"));
    let first = list.add("a", &a.path(), "eth0").done();
    let second = list.add("b", &b.path(), "eth0").done();
    assert_eq!((address(&first, '.'), address(&first, ':')), ("10.50.0.2".into(), "fd50::2".into()));
    assert_eq!(first["ips"][0]["gateway"], "10.50.0.1");
    let _ = list.check("a", &a.path(), "eth0", &first).done();
    for to in [&address(&second, '.'), "10.50.0.1", "203.0.113.1", "203.0.113.2", &address(&second, ':'), "fd50::1"] {
        a.run(&["ping", "-c1", "-W3", to]);
    }
    assert!(machine.routes_and_hears_its_router());
    // Who is outside sees the machine; who is inside sees the container.
    let (_outside, _inside) = (machine.outside.serve(80), b.serve(80));
    assert_eq!(a.ask("203.0.113.2", 80).unwrap(), "203.0.113.1");
    assert_eq!(a.ask(&address(&second, '.'), 80).unwrap(), "10.50.0.2");
    assert_eq!(a.ask("2001:db8::2", 80).unwrap(), "2001:db8::1");
    assert_eq!(a.ask(&address(&second, ':'), 80).unwrap(), "fd50::2");
    for (id, sandbox, result) in [("a", &a, &first), ("b", &b, &second)] {
        let _ = list.del(id, &sandbox.path(), "eth0", result).done();
    }
    assert_eq!(machine.traces(), [""; 0]);
}

#[test]
fn ports_of_the_machine_lead_to_the_container() {
    let machine = Machine::new("ports");
    let list = machine.network(&json!({"subnet": "10.51.0.0/24"}), &json!({}));
    let ports = json!({"portMappings": [
        {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
        {"hostPort": 8081, "containerPort": 80, "protocol": "tcp", "hostIP": "127.0.0.1"},
    ]});
    let (web, other) = (Sandbox::new("web"), Sandbox::new("other"));
    let result = list.with(ports.clone()).add("web", &web.path(), "eth0").done();
    let second = list.add("other", &other.path(), "eth0").done();
    let _server = web.serve(80);
    assert_eq!(machine.outside.ask("203.0.113.1", 8080).unwrap(), "203.0.113.2");
    assert_eq!(other.ask("203.0.113.1", 8080).unwrap(), address(&second, '.'));
    assert_eq!(other.ask("10.51.0.1", 8080).unwrap(), address(&second, '.'));
    machine.node.ask("203.0.113.1", 8080).unwrap();
    machine.node.ask("127.0.0.1", 8080).unwrap();
    machine.node.ask("127.0.0.1", 8081).unwrap();
    web.ask("203.0.113.1", 8080).unwrap();
    assert!(machine.outside.ask("203.0.113.1", 8081).is_err());

    let third = Sandbox::new("third");
    let (code, message) = list.with(ports).add("third", &third.path(), "eth0").refused();
    assert!(code == 7 && message.contains("port 8080/TCP of this node leads to web/eth0 already"), "{message}");
    let _ = list.del("web", &web.path(), "eth0", &result).done();
    assert!(machine.outside.ask("203.0.113.1", 8080).is_err());
    assert!(other.try_run(&["ping", "-c1", "-W3", "203.0.113.2"]).is_ok());
    // A rule set that somebody else took away is whole again with the next container.
    machine.node.run(&["nft", "delete", "table", "ip", "podnet-cni"]);
    let result = list.add("third", &third.path(), "eth0").done();
    other.run(&["ping", "-c1", "-W3", "203.0.113.2"]);
    let _ = list.del("third", &third.path(), "eth0", &result).done();
    let _ = list.del("other", &other.path(), "eth0", &second).done();
    assert_eq!(machine.traces(), [""; 0]);
}

#[test]
fn ports_of_the_machine_lead_to_the_container_by_ipv6() {
    let machine = Machine::new("ports6");
    let list =
        machine.network(&json!({"ranges": [[{"subnet": "10.55.0.0/24"}], [{"subnet": "fd55::/64"}]]}), &json!({}));
    let ports = json!({"portMappings": [
        {"hostPort": 8080, "containerPort": 80},
        {"hostPort": 8081, "containerPort": 80, "hostIP": "::1"},
        {"hostPort": 8082, "containerPort": 80, "hostIP": "0.0.0.0"},
        {"hostPort": 8083, "containerPort": 80, "hostIP": "::"},
    ]});
    let (web, other) = (Sandbox::new("web6"), Sandbox::new("other6"));
    let result = list.with(ports).add("web", &web.path(), "eth0").done();
    let second = list.add("other", &other.path(), "eth0").done();
    let _server = web.serve(80);
    assert_eq!(machine.outside.ask("2001:db8::1", 8080).unwrap(), "2001:db8::2");
    assert_eq!(machine.outside.ask("203.0.113.1", 8080).unwrap(), "203.0.113.2");
    assert_eq!(other.ask("2001:db8::1", 8080).unwrap(), address(&second, ':'));
    assert_eq!(other.ask("fd55::1", 8080).unwrap(), address(&second, ':'));
    for (port, by_v4, by_v6) in [(8080, true, true), (8081, false, true), (8082, true, false), (8083, false, true)] {
        assert_eq!(machine.node.ask("::1", port).is_ok(), by_v6, "::1 port {port}");
        assert_eq!(machine.node.ask("127.0.0.1", port).is_ok(), by_v4, "127.0.0.1 port {port}");
    }
    web.ask("2001:db8::1", 8080).unwrap();
    assert!(machine.outside.ask("2001:db8::1", 8081).is_err());
    let _ = list.del("web", &web.path(), "eth0", &result).done();
    assert!(machine.outside.ask("2001:db8::1", 8080).is_err());
    let _ = list.del("other", &other.path(), "eth0", &second).done();
    assert_eq!(machine.traces(), [""; 0]);
}

#[test]
fn a_container_does_not_send_as_another() {
    let machine = Machine::new("spoof");
    let v4 = machine.network(&json!({"subnet": "10.52.0.0/24"}), &json!({}));
    let (a, b, c) = (Sandbox::new("a"), Sandbox::new("b"), Sandbox::new("c"));
    let _ = v4.add("a", &a.path(), "eth0").done();
    let _ = v4.add("b", &b.path(), "eth0").done();
    a.run(&["ip", "addr", "add", "10.52.0.3/32", "dev", "eth0"]);
    assert!(a.try_run(&["ping", "-c1", "-W1", "-I", "10.52.0.3", "203.0.113.1"]).is_err());
    a.run(&["ping", "-c1", "-W3", "-I", "10.52.0.2", "203.0.113.1"]);
    // No table for what nothing has.
    let has_table = || machine.node.run(&["nft", "list", "tables"]).contains("table ip6 podnet-cni");
    assert!(!has_table());
    let v6 = machine.network(&json!({"subnet": "fd52::/64"}), &json!({"name": "six"}));
    let third = v6.add("c", &c.path(), "eth0").done();
    assert!(has_table());
    c.run(&["ip", "addr", "add", "fd52::77/128", "dev", "eth0", "nodad"]);
    assert!(c.try_run(&["ping", "-c1", "-W1", "-I", "fd52::77", "2001:db8::1"]).is_err());
    c.run(&["ping", "-c1", "-W3", "-I", &address(&third, ':'), "2001:db8::1"]);
    let _ = v6.del("c", &c.path(), "eth0", &third).done();
    assert!(!has_table());
    a.run(&["ping", "-c1", "-W3", "-I", "10.52.0.2", "203.0.113.1"]);
}

#[test]
fn what_goes_wrong_is_told_and_harms_nothing() {
    let machine = Machine::new("wrong");
    // Two addresses, besides the gateway.
    let list = machine
        .network(&json!({"subnet": "10.53.0.0/24", "rangeStart": "10.53.0.10", "rangeEnd": "10.53.0.11"}), &json!({}));
    let mut sandboxes: Vec<Sandbox> = (0..3).map(|_| Sandbox::new("s")).collect();
    let paths: Vec<String> = sandboxes.iter().map(Sandbox::path).collect();
    let path = |place: usize| paths[place].clone();
    let first = list.add("c0", &path(0), "eth0").done();
    let (code, message) = list.add("c0", &path(0), "eth0").refused();
    assert!(code == 101 && message.contains("already"), "{message}");
    let (code, message) = list.add("thief", &path(0), "eth0").refused();
    assert!(code == 101 && message.contains("eth0 already"), "{message}");
    let wish = |addr: &str| list.with(json!({"ips": [addr]}));
    let (code, message) = wish("10.53.0.10/24").add("c1", &path(1), "eth0").refused();
    assert!(code == 100 && message.contains("10.53.0.10 of network local is in use"), "{message}");
    let (code, message) = wish("192.0.2.1").add("c1", &path(1), "eth0").refused();
    assert!(code == 100 && message.contains("192.0.2.1"), "{message}");
    let second = list.add("c1", &path(1), "eth0").done();
    assert_eq!((address(&first, '.').as_str(), address(&second, '.').as_str()), ("10.53.0.10", "10.53.0.11"));
    let (code, message) = list.add("c2", &path(2), "eth0").refused();
    assert!(code == 100 && message.contains("10.53.0.10–10.53.0.11"), "{message}");
    sandboxes[0].run(&["ping", "-c1", "-W3", "10.53.0.11"]);
    assert_eq!(list.check("nobody", &path(0), "eth0", &first).refused().0, 3);
    let _ = list.status().done();
    let mut unknown = list.clone();
    unknown.plugins[0]["ipam"]["subnets"] = json!("x");
    assert_eq!(unknown.add("c2", &path(2), "eth0").refused().0, 2);
    assert_eq!(unknown.status().refused().0, 2);

    // The namespace went with its container, and nobody called DEL: the address is found when it is needed.
    let gone = path(1);
    drop(sandboxes.remove(1));
    let third = Sandbox::new("third");
    let result =
        podnet_testnet::eventually("the device goes with the namespace", std::time::Duration::from_secs(5), || {
            let answer = list.add("c2", &third.path(), "eth0");
            if answer.success { Ok(answer.value) } else { Err(answer.value.to_string()) }
        });
    assert_eq!(address(&result, '.'), "10.53.0.11");
    // DEL of the first holder, late, takes nothing from the one that has its address now.
    let _ = list.del("c1", &gone, "eth0", &second).done();
    let _ = list.check("c2", &third.path(), "eth0", &result).done();
    for _ in 0..2 {
        let _ = list.gc(&[]).done();
    }
    assert_eq!(machine.traces(), [""; 0]);
    let _ = list.del("never-seen", "", "eth0", &Value::Null).done();
}

#[test]
fn a_full_range_takes_addresses_only_from_containers_that_are_known_to_be_gone() {
    let (machine, elsewhere) = (Machine::new("shared"), Machine::new("elsewhere"));
    let ipam = json!({"subnet": "10.59.0.0/29", "dataDir": machine.data.path()});
    let (list, neighbour) = (machine.network(&ipam, &json!({})), elsewhere.network(&ipam, &json!({})));
    let sandboxes: Vec<Sandbox> = (0..3).map(|_| Sandbox::new("s")).collect();
    let path = |place: usize| sandboxes[place].path();
    // Of another namespace with the same directory, of another plugin, and of this machine's own: 2 to 6.
    let _ = neighbour.add("remote", &path(0), "eth0").done();
    let lease = |addr: &str| machine.data.path().join("local").join(addr);
    for (addr, holder) in [("10.59.0.3", "bridged-a"), ("10.59.0.4", "bridged-b"), ("10.59.0.5", "of-old")] {
        std::fs::write(lease(addr), format!("{holder}\r\neth0")).unwrap();
    }
    let _ = list.add("own", &path(1), "eth0").done();
    let (code, message) = list.add("more", &path(2), "eth0").refused();
    assert!(code == 100 && message.contains("; 4 of them are held by containers that were not attached"), "{message}");

    // A machine's start leaves the addresses of before, and none of those who held them.
    let before = std::time::UNIX_EPOCH - std::time::Duration::from_secs(86_400);
    std::fs::File::options().write(true).open(lease("10.59.0.5")).unwrap().set_modified(before).unwrap();
    let more = list.add("more", &path(2), "eth0").done();
    assert_eq!(address(&more, '.'), "10.59.0.5");
    sandboxes[0].run(&["ping", "-c1", "-W3", "10.59.0.1"]);

    // The one whose device goes is lost, whichever network looks first.
    machine.node.run(&["ip", "link", "del", &device(&machine, "10.59.0.6")]);
    let mut other = machine.network(&json!({"subnet": "10.61.0.0/24"}), &json!({}));
    other.name = "other".to_owned();
    let third = Sandbox::new("third");
    let result = other.add("third", &third.path(), "eth0").done();
    let last = list.add("last", &third.path(), "eth1").done();
    assert_eq!(address(&last, '.'), "10.59.0.6");
    let _ = list.del("last", &third.path(), "eth1", &last).done();
    let _ = other.del("third", &third.path(), "eth0", &result).done();
    let _ = list.del("more", &path(2), "eth0", &more).done();
    let _ = list.gc(&[("bridged-a", "eth0"), ("remote", "eth0")]).done();
    let mut traces = machine.traces();
    traces.sort();
    assert_eq!(traces, ["address 10.59.0.2", "address 10.59.0.3"]);
}

/// The machine's device that leads to an address.
fn device(machine: &Machine, addr: &str) -> String {
    let route = machine.node.run(&["ip", "-o", "route", "get", addr]);
    route.split_once(" dev ").and_then(|(_, rest)| rest.split(' ').next()).unwrap().to_owned()
}

#[test]
fn a_second_network_takes_nothing_from_the_first() {
    let machine = Machine::new("two");
    let list = machine.network(&json!({"subnet": "10.64.0.0/24"}), &json!({}));
    let mut second =
        machine.network(&json!({"ranges": [[{"subnet": "10.65.0.0/24"}], [{"subnet": "fd65::/64"}]]}), &json!({}));
    second.name = "second".to_owned();
    let ports = |port: u16| json!({"portMappings": [{"hostPort": port, "containerPort": 80, "protocol": "tcp"}]});
    let (list, second) = (list.with(ports(8080)), second.with(ports(8081)));
    let sandbox = Sandbox::new("both");
    let _server = sandbox.serve(80);
    let reached = |port: u16| machine.outside.ask("203.0.113.1", port).is_ok();
    let first = list.add("both", &sandbox.path(), "eth0").done();
    for last in ["eth1", "eth0"] {
        let result = second.add("both", &sandbox.path(), "eth1").done();
        assert!(sandbox.run(&["ip", "route", "get", "203.0.113.2"]).contains("dev eth0"));
        assert!(reached(8080) && reached(8081), "both are reached from outside: {}", sandbox.run(&["ip", "route"]));
        for to in [address(&first, '.'), address(&result, '.'), address(&result, ':')] {
            machine.node.run(&["ping", "-c1", "-W3", &to]);
        }
        let _ = list.check("both", &sandbox.path(), "eth0", &first).done();
        let _ = second.check("both", &sandbox.path(), "eth1", &result).done();
        if last == "eth1" {
            let _ = second.del("both", &sandbox.path(), "eth1", &result).done();
            assert!(reached(8080) && !reached(8081));
            sandbox.run(&["ping", "-c1", "-W3", "203.0.113.2"]);
        } else {
            let _ = list.del("both", &sandbox.path(), "eth0", &first).done();
            assert!(!reached(8080) && reached(8081));
            sandbox.run(&["ping", "-c1", "-W3", "203.0.113.2"]);
            let _ = second.del("both", &sandbox.path(), "eth1", &result).done();
        }
    }
    assert_eq!(machine.traces(), [""; 0]);
}

#[test]
fn the_routes_of_the_result_are_those_of_the_container() {
    let machine = Machine::new("routes");
    let routes = json!([{"dst": "203.0.113.0/24"}, {"dst": "10.0.0.0/16"}]);
    let list = machine.network(&json!({"subnet": "10.66.0.0/24", "routes": routes}), &json!({}));
    let sandbox = Sandbox::new("routed");
    let result = list.add("routed", &sandbox.path(), "eth0").done();
    let mut told: Vec<&str> = result["routes"].as_array().unwrap().iter().map(|r| r["dst"].as_str().unwrap()).collect();
    told.sort_unstable();
    let shown = sandbox.run(&["ip", "route", "show", "via", "169.254.1.1"]);
    let mut made: Vec<&str> = shown.lines().filter_map(|line| line.split(' ').next()).collect();
    made.sort_unstable();
    assert_eq!((told.clone(), made), (told, vec!["10.0.0.0/16", "10.66.0.0/24", "203.0.113.0/24"]));
    let _ = list.check("routed", &sandbox.path(), "eth0", &result).done();
    sandbox.run(&["ping", "-c1", "-W3", "203.0.113.2"]);
    sandbox.run(&["ip", "route", "del", "10.0.0.0/16"]);
    let (code, message) = list.check("routed", &sandbox.path(), "eth0", &result).refused();
    assert!(code == 101 && message.contains("no route to 10.0.0.0/16"), "{message}");
    let _ = list.del("routed", &sandbox.path(), "eth0", &result).done();
    assert_eq!(machine.traces(), [""; 0]);
}
