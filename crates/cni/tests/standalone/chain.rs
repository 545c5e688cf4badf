//! podnet in a chain with Debian's containernetworking-plugins: first, and after another.

use serde_json::json;

use crate::{Machine, Sandbox, machine::address};

#[test]
fn debians_plugins_follow_podnet() {
    let machine = Machine::new("first");
    let mut list = machine.network(&json!({"subnet": "10.56.0.0/24"}), &json!({"capabilities": {"ips": true}}));
    list.version = "1.0.0".to_owned();
    list.plugins.extend([
        json!({"type": "portmap", "capabilities": {"portMappings": true}, "snat": true}),
        json!({"type": "bandwidth", "capabilities": {"bandwidth": true}}),
        json!({"type": "tuning", "sysctl": {"net.ipv4.conf.eth0.arp_filter": "1"}, "mtu": 1400}),
    ]);
    let list = list.with(json!({
        "portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}],
        "bandwidth": {"ingressRate": 8_000_000, "ingressBurst": 800_000, "egressRate": 8_000_000, "egressBurst": 800_000},
    }));
    let web = Sandbox::new("web");
    let result = list.add("web", &web.path(), "eth0").done();
    assert_eq!(address(&result, '.'), "10.56.0.2");
    assert!(web.run(&["ip", "link", "show", "eth0"]).contains("mtu 1400"));
    assert_eq!(web.run(&["cat", "/proc/sys/net/ipv4/conf/eth0/arp_filter"]).trim(), "1");
    let device = result["interfaces"].as_array().unwrap()[0]["name"].as_str().unwrap().to_owned();
    assert!(machine.node.run(&["tc", "qdisc", "show", "dev", &device]).contains("tbf"));
    let _server = web.serve(80);
    assert_eq!(machine.outside.ask("203.0.113.1", 8080).unwrap(), "203.0.113.2");
    // This portmap looks for IPv6 rules that it did not make where a container has IPv4 alone.
    let mut checked = list.clone();
    checked.plugins.retain(|plugin| plugin["type"] != "portmap");
    let _ = checked.check("web", &web.path(), "eth0", &result).done();
    for _ in 0..2 {
        let _ = list.del("web", &web.path(), "eth0", &result).done();
    }
    assert!(machine.outside.ask("203.0.113.1", 8080).is_err());
    assert_eq!(machine.traces(), [""; 0]);
}

#[test]
fn podnet_follows_loopback_and_a_bridge() {
    let machine = Machine::new("second");
    let mut list = machine.network(&json!({"subnet": "10.57.0.0/24"}), &json!({}));
    list.version = "1.0.0".to_owned();
    let podnet = list.plugins.remove(0);
    list.plugins = vec![json!({"type": "loopback"}), podnet.clone()];
    let sandbox = Sandbox::new("both");
    let result = list.add("both", &sandbox.path(), "eth0").done();
    let (interfaces, ips) = (result["interfaces"].as_array().unwrap(), result["ips"].as_array().unwrap());
    let own = ips.iter().find(|ip| ip["address"] == "10.57.0.2/32").unwrap_or_else(|| panic!("{result:#}"));
    let place = usize::try_from(own["interface"].as_u64().unwrap()).unwrap();
    assert_eq!(interfaces[place]["name"], "eth0");
    assert!(interfaces.iter().any(|interface| interface["name"] == "lo"), "{result:#}");
    sandbox.run(&["ping", "-c1", "-W3", "203.0.113.2"]);
    let _ = list.check("both", &sandbox.path(), "eth0", &result).done();
    let _ = list.del("both", &sandbox.path(), "eth0", &result).done();

    // Behind a plugin that makes the interface of that name itself, podnet says so, and the runtime's DEL of the chain removes all.
    list.plugins = vec![
        json!({"type": "bridge", "bridge": "br0", "ipam": {"type": "host-local", "subnet": "10.58.0.0/24", "dataDir": machine.data.path().join("bridge")}}),
        podnet,
    ];
    let (code, message) = list.add("both", &sandbox.path(), "eth0").refused();
    assert!(code == 101 && message.contains("eth0 already"), "{message}");
    let _ = list.del("both", &sandbox.path(), "eth0", &serde_json::Value::Null).done();
    assert_eq!(machine.traces(), [""; 0]);
}
