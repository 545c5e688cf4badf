//! What others do to virtual servers and what goes with them.

use super::*;

#[test]
#[ignore = "runs in the virtual machine"]
fn with_virtual_servers_what_others_damage_is_mended() {
    let mut scene = Scene::new("mend");
    scene.serve(&[8080]);
    let (right, chains) = (scene.read(), scene.chains());
    let gone = |there: &State, wanted: &State| difference(wanted, there);
    for damage in [State { addrs: [].into(), ..right.clone() }, State { servers: [].into(), ..right.clone() }, {
        let mut fewer = right.clone();
        fewer.sets.values_mut().for_each(|set| set.elements.clear());
        fewer
    }] {
        Ipvs::open(&scene.netns, Family::V4).unwrap().apply(&gone(&right, &damage)).unwrap();
        assert_eq!(scene.read(), damage);
        assert!(scene.look().is_some());
        assert_eq!(scene.read(), right);
        assert_eq!(scene.look(), None);
    }
    scene.command(&format!("ip link del {DEVICE}"));
    assert!(scene.look().is_some());
    scene
        .netns
        .run(|| {
            podnet_kernel::iptables::Iptables::new(scene.netns.clone(), Family::V4, Variant::Legacy)
                .unwrap()
                .remove_ipvs()
        })
        .unwrap()
        .unwrap();
    assert!(scene.look().unwrap().contains("chains of iptables"));
    assert_eq!((scene.read(), scene.chains()), (right, chains));
}

#[test]
#[ignore = "runs in the virtual machine"]
fn with_virtual_servers_damage_shows_by_counting_where_there_are_too_many_to_read() {
    let mut scene = Scene::new("count");
    scene.serve(&[8080, 8081]);
    let right = scene.read();
    let glance = |scene: &mut Scene| {
        scene.rules.watch.next_look = Instant::now();
        scene.rules.watch.next_glance = Instant::now();
        scene.rules.watch.next_servers = Instant::now() + Duration::from_secs(600);
        scene.rules.look(&scene.services, &mut scene.datapath).unwrap()
    };
    assert_eq!(glance(&mut scene), None);
    for damage in [
        Edit::RemoveAddress(CLUSTER_IP.into()),
        Edit::RemoveServer(key()),
        Edit::RemoveReal(key(), real(8080)),
        Edit::Weigh(key(), real(8081), 3),
        Edit::ChangeServer(key(), Scheduling { persistence: Some(60), ..right.servers[&key()].scheduling }),
        Edit::RemoveElement("KUBE-IPVS-IPS".into(), Element::Address(CLUSTER_IP.into())),
    ] {
        Ipvs::open(&scene.netns, Family::V4).unwrap().apply(std::slice::from_ref(&damage)).unwrap();
        assert!(glance(&mut scene).is_some(), "{damage:?}");
        assert_eq!(scene.read(), right);
        assert_eq!(glance(&mut scene), None);
    }
}

#[test]
#[ignore = "runs in the virtual machine"]
fn with_virtual_servers_the_ways_there_are_mended_as_soon_as_somebody_is_heard_to_remove_them() {
    let mut scene = Scene::new("ways");
    scene.serve(&[8080]);
    let external = Service { external_ips: vec![[203, 0, 113, 7].into()], ..service() };
    scene.change(Some(external));
    let ways = |scene: &Scene| scene.command("ip rule") + &scene.command("ip route show table 28783");
    let right = ways(&scene);
    assert!(right.contains("fwmark") && right.contains("local 203.0.113.7"), "{right}");
    let mut monitor = scene.datapath.monitor(&[]).unwrap();
    for damage in ["ip rule del pref 100", "ip route flush table 28783"] {
        scene.command(damage);
        assert_ne!(ways(&scene), right);
        let told = monitor.pending().unwrap();
        told.iter().for_each(|notice| scene.rules.hear(notice));
        assert!(scene.rules.watch.ways, "{damage}: {told:?}");
        // Nothing else is due.
        scene.rules.watch.servers = false;
        scene.rules.watch.next_servers = Instant::now() + Duration::from_secs(600);
        scene.rules.watch.next_glance = scene.rules.watch.next_servers;
        scene.rules.watch.next_look = Instant::now();
        let mended = scene.rules.look(&scene.services, &mut scene.datapath).unwrap().unwrap();
        assert!(mended.contains("1 rules and routes that lead there"), "{mended}");
        assert_eq!(ways(&scene), right);
    }
    scene.take_away();
    assert!(!scene.command("ip rule").contains("28783"));
}

#[test]
#[ignore = "runs in the virtual machine"]
fn with_virtual_servers_addresses_of_another_make_are_set_right() {
    let mut scene = Scene::new("scope");
    scene.command(&format!("ip link add {DEVICE} type dummy"));
    scene.command(&format!("ip addr add 10.96.0.1/32 dev {DEVICE}"));
    scene.command(&format!("ip addr add 10.96.0.99/32 dev {DEVICE}"));
    scene.serve(&[8080]);
    let told = scene.command(&format!("ip -o addr show dev {DEVICE}"));
    assert!(told.contains("10.96.0.1/32 scope host") && !told.contains("10.96.0.99"), "{told}");
    assert_eq!(scene.look(), None);
}
