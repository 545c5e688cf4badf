//! Every verb, in every version, and everything that can go wrong with it.

use podnet_testnet::{Cluster, cni::execute, eventually};
use serde_json::{Value, json};

use crate::{PODNET, SOON, Sandbox, address, conflist, held, on_node, plugin};

#[test]
fn the_plugin_does_what_the_specification_says() {
    let _cluster = Cluster::up(PODNET, &["--nodes", "1"]);
    each_version_has_its_own_results();
    an_add_twice_or_of_a_taken_name_harms_nothing();
    check_sees_damage_and_lets_later_plugins_change_what_they_may();
    a_namespace_that_is_gone_is_deleted_all_the_same();
    garbage_is_collected_in_its_own_network();
    the_runtime_chooses_address_mac_and_resolver();
    what_is_wrong_is_refused();
    without_an_agent();
}

fn each_version_has_its_own_results() {
    for version in ["0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        let (list, sandbox) = (conflist(version), Sandbox::new("version"));
        let result = list.add("version", &sandbox.path(), "eth0").done();
        assert_eq!(result["cniVersion"], version);
        assert_eq!(result["interfaces"][1]["name"], "eth0");
        assert_eq!(result["interfaces"][1]["sandbox"], sandbox.path());
        assert_eq!(result["ips"][0]["interface"], 1);
        let family = if version.starts_with("0.") { json!("4") } else { Value::Null };
        assert_eq!(result["ips"][0]["version"], family, "{version}: {result:#}");
        assert_eq!(result["interfaces"][1]["mtu"].is_number(), version == "1.1.0", "{version}: {result:#}");
        on_node(&["ping", "-c1", "-W3", &address(&result)]);
        sandbox.run(
            &["ping", "-c1", "-W3", "169.254.1.1"]
                .map(|word| if word == "169.254.1.1" { "172.29.240.11" } else { word }),
        );
        match version {
            "0.3.1" => assert_eq!(list.check("version", &sandbox.path(), "eth0", &result).refused().0, 1),
            _ => drop(list.check("version", &sandbox.path(), "eth0", &result).done()),
        }
        let _ = list.del("version", &sandbox.path(), "eth0", &result).done();
        assert_eq!(held("version"), [""; 0]);
        assert!(sandbox.try_run(&["ip", "link", "show", "eth0"]).is_err());
    }
}

fn an_add_twice_or_of_a_taken_name_harms_nothing() {
    let (list, sandbox) = (conflist("1.1.0"), Sandbox::new("twice"));
    let first = list.add("twice", &sandbox.path(), "eth0").done();
    let (code, message) = list.add("twice", &sandbox.path(), "eth0").refused();
    assert_eq!(code, 101);
    assert!(message.contains("has an interface eth0 already"), "{message}");
    // Another container that is given the same sandbox by mistake.
    let (_, message) = list.add("other", &sandbox.path(), "eth0").refused();
    assert!(message.contains("eth0 already"), "{message}");
    assert_eq!(held("other"), [""; 0]);
    on_node(&["ping", "-c1", "-W3", &address(&first)]);
    let _ = list.check("twice", &sandbox.path(), "eth0", &first).done();

    // A second interface of the same sandbox is another attachment.
    let (code, message) = list.add("twice", &sandbox.path(), "sixteen-letters1").refused();
    assert!(code == 4 && message.contains("1 to 15"), "{message}");
    let second = list.add("twice", &sandbox.path(), "eth1").done();
    assert_ne!(address(&first), address(&second));
    let _ = list.del("twice", &sandbox.path(), "eth1", &second).done();

    // The attachment's sandbox is another one by now: what the first left behind is no obstacle.
    let again = Sandbox::new("again");
    let result = list.add("twice", &again.path(), "eth0").done();
    on_node(&["ping", "-c1", "-W3", &address(&result)]);
    for _ in 0..2 {
        let _ = list.del("twice", &again.path(), "eth0", &result).done();
    }
    assert_eq!(held("twice"), [""; 0]);
    let _ = list.del("never-seen", "", "eth0", &Value::Null).done();
}

fn check_sees_damage_and_lets_later_plugins_change_what_they_may() {
    let (list, sandbox) = (conflist("1.0.0"), Sandbox::new("check"));
    let result = list.add("check", &sandbox.path(), "eth0").done();
    let check = |result: &Value| list.check("check", &sandbox.path(), "eth0", result);
    sandbox.run(&["ip", "link", "set", "eth0", "mtu", "1300"]);
    let _ = check(&result).done();
    // A plugin that changes the Ethernet address says so in its result.
    sandbox.run(&["ip", "link", "set", "eth0", "address", "02:00:00:00:00:42"]);
    let (code, message) = check(&result).refused();
    assert!(code == 101 && message.contains("02:00:00:00:00:42"), "{message}");
    let mut tuned = result.clone();
    tuned["interfaces"][1]["mac"] = json!("02:00:00:00:00:42");
    let (_, message) = check(&tuned).refused();
    assert!(
        message.contains("permanent neighbour") && !message.contains("Ethernet"),
        "the address itself may: {message}"
    );
    // With the address goes what the pod knew of its gateway; both as they were made, all is well again.
    let interfaces = &result["interfaces"];
    sandbox.run(&["ip", "link", "set", "eth0", "address", interfaces[1]["mac"].as_str().unwrap()]);
    let gateway = ["169.254.1.1", "lladdr", interfaces[0]["mac"].as_str().unwrap(), "nud", "permanent", "dev", "eth0"];
    sandbox.run(&[&["ip", "neigh", "replace"][..], &gateway].concat());
    let _ = check(&result).done();

    let mut moved = result.clone();
    moved["ips"][0]["address"] = json!("10.1.2.3/32");
    assert!(check(&moved).refused().1.contains("which prevResult does not list"));
    assert_eq!(check(&Value::Null).refused().0, 7);
    sandbox.run(&["ip", "route", "del", "default"]);
    assert!(check(&result).refused().1.contains("no route to 0.0.0.0/0"));
    assert_eq!(list.check("stranger", &sandbox.path(), "eth0", &result).refused().0, 3);
    let _ = list.del("check", &sandbox.path(), "eth0", &result).done();
}

fn a_namespace_that_is_gone_is_deleted_all_the_same() {
    let (list, sandbox) = (conflist("1.1.0"), Sandbox::new("gone"));
    let result = list.add("gone", &sandbox.path(), "eth0").done();
    let path = sandbox.path();
    drop(sandbox);
    assert_eq!(held("gone").len(), 2, "the address is kept until DEL");
    let (code, message) = list.check("gone", &path, "eth0", &result).refused();
    assert!(code == 4 && message.contains(&path), "{message}");
    let _ = list.del("gone", &path, "eth0", &result).done();
    assert_eq!(held("gone"), [""; 0]);
}

fn garbage_is_collected_in_its_own_network() {
    let list = conflist("1.1.0");
    let mut other = list.clone();
    other.name = "other".to_owned();
    let sandboxes = ["kept", "stray", "others"].map(Sandbox::new);
    for (sandbox, list) in sandboxes.iter().zip([&list, &list, &other]) {
        let _ = list.add(&sandbox.name, &sandbox.path(), "eth0").done();
    }
    let [kept, stray, others] = &sandboxes;
    // The runtime of the other network knows of none of this one's, and the other way round. Pods are valid as well.
    let mut valid = vec![(kept.name.clone(), "eth0".to_owned())];
    for entry in std::fs::read_dir("/var/lib/podnet/nodes/node1/agent/attachments").unwrap() {
        let name = entry.unwrap().file_name().to_string_lossy().into_owned();
        let (id, ifname) = name.split_once('@').unwrap();
        if !id.starts_with("podnet-test") {
            valid.push((id.to_owned(), ifname.to_owned()));
        }
    }
    assert!(valid.len() > 1, "the cluster's DNS runs");
    let valid: Vec<(&str, &str)> = valid.iter().map(|(id, ifname)| (id.as_str(), ifname.as_str())).collect();
    let _ = list.gc(&valid).done();
    assert_eq!(held(&kept.name).len(), 2);
    assert_eq!(held(&stray.name), [""; 0]);
    assert_eq!(held(&others.name).len(), 2);
    assert!(stray.try_run(&["ip", "link", "show", "eth0"]).is_err());
    let _ = other.gc(&[]).done();
    assert_eq!(held(&others.name), [""; 0]);
    assert_eq!(held(&kept.name).len(), 2);
    for _ in 0..2 {
        let _ = list.del(&kept.name, &kept.path(), "eth0", &Value::Null).done();
    }
}

fn the_runtime_chooses_address_mac_and_resolver() {
    let sandbox = Sandbox::new("wishes");
    let probe = conflist("1.1.0").add("probe", &sandbox.path(), "eth7").done();
    let _ = conflist("1.1.0").del("probe", &sandbox.path(), "eth7", &probe).done();
    // The last address of the block that the node has.
    let [a, b, c, d] = address(&probe).parse::<std::net::Ipv4Addr>().unwrap().octets();
    let wanted = format!("{a}.{b}.{c}.{}", d | 63);
    let list = conflist("1.1.0").with(json!({
        "ips": [format!("{wanted}/24")],
        "mac": "02:00:00:00:00:77",
        "dns": {"servers": ["192.0.2.53"], "searches": ["example.org"]},
    }));
    let result = list.add("wishes", &sandbox.path(), "eth0").done();
    assert_eq!(address(&result), wanted);
    assert_eq!(result["interfaces"][1]["mac"], "02:00:00:00:00:77");
    assert_eq!(result["dns"], json!({"nameservers": ["192.0.2.53"], "search": ["example.org"]}));
    assert!(sandbox.run(&["ip", "link", "show", "eth0"]).contains("02:00:00:00:00:77"));
    on_node(&["ping", "-c1", "-W3", &wanted]);
    let _ = list.check("wishes", &sandbox.path(), "eth0", &result).done();
    // It is taken: another container that wishes the same is told so.
    let (code, message) = list.add("rival", &sandbox.path(), "eth1").refused();
    assert!(code == 100 && message.contains(&wanted), "{message}");
    let _ = list.del("wishes", &sandbox.path(), "eth0", &result).done();
}

fn what_is_wrong_is_refused() {
    let (list, sandbox) = (conflist("1.1.0"), Sandbox::new("wrong"));
    let mut misspelt = list.clone();
    misspelt.plugins[0]["tombstone"] = json!("/x");
    let (code, message) = misspelt.add("wrong", &sandbox.path(), "eth0").refused();
    assert!(code == 2 && message.contains("\"tombstone\" (value \"/x\")"), "{message}");

    let port = list.with(json!({"portMappings": [{"hostPort": 0, "containerPort": 80}]}));
    let (code, message) = port.add("wrong", &sandbox.path(), "eth0").refused();
    assert!(code == 7 && message.contains("portMappings[0].hostPort is 0"), "{message}");

    let (code, message) = list.add("wrong", "/run/netns/podnet-node1", "eth0").refused();
    assert!(code == 8 && message.contains("not a sandbox's"), "{message}");
    assert_eq!(list.add("wrong", "/proc/self/ns/uts", "eth0").refused().0, 8);
    assert_eq!(list.add("wrong", "/run/netns/never-there", "eth0").refused().0, 4);

    let mut args = list.clone();
    args.args = "COLOUR=red".to_owned();
    assert_eq!(args.add("wrong", &sandbox.path(), "eth0").refused().0, 4);
    assert_eq!(held("wrong"), [""; 0]);
    assert_eq!(sandbox.run(&["ip", "-o", "link"]).lines().count(), 1, "just lo");
    let gc = [("CNI_COMMAND", "GC")];
    let config = json!({"cniVersion": "1.1.0", "name": "podnet", "type": "podnet-cni", "socket": list.plugins[0]["socket"], "tombstones": list.plugins[0]["tombstones"]});
    assert_eq!(execute(&plugin(), &gc, &config.to_string()).refused().0, 7, "GC without a list frees nothing");
}

/// The agent is stopped, and comes back.
fn without_an_agent() {
    let (list, sandbox) = (conflist("1.1.0"), Sandbox::new("alone"));
    let _ = list.status().done();
    let result = list.add("alone", &sandbox.path(), "eth0").done();
    // Where the socket should be is none, as while an agent starts.
    let socket = list.plugins[0]["socket"].as_str().unwrap();
    let away = format!("{socket}.away");
    std::fs::rename(socket, &away).unwrap();
    assert_eq!(list.status().refused().0, 50);
    let other = Sandbox::new("waiting");
    let (code, message) = list.add("waiting", &other.path(), "eth0").refused();
    assert!(code == 11 && message.contains(socket), "{message}");
    let _ = list.del("alone", &sandbox.path(), "eth0", &result).done();
    assert!(sandbox.try_run(&["ip", "link", "show", "eth0"]).is_err(), "the plugin removes the interface by itself");
    std::fs::rename(&away, socket).unwrap();
    eventually("the tombstone is buried", SOON, || match held("alone") {
        left if left.is_empty() => Ok(()),
        left => Err(format!("{left:?}")),
    });
    let _ = list.status().done();
}
