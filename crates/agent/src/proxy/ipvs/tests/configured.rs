//! What `ipvs.*` of kube-proxy's configuration says.

use podnet_model::proxy::SCHEDULERS;

use super::*;

#[test]
#[ignore = "runs in the virtual machine"]
fn with_virtual_servers_every_scheduler_of_the_configuration_is_had() {
    let mut scene = Scene::new("schedulers");
    scene.serve(&[8080]);
    for scheduler in SCHEDULERS {
        let config = IpvsConfig { scheduler, ..IpvsConfig::default() };
        scene.rules.configure(&scene.services, &config);
        scene.edit();
        assert!(scene.rules.in_force(), "{scheduler}");
        let told = scene.command("ipvsadm -Ln");
        let line = told.lines().find(|line| line.starts_with("TCP  10.96.0.1:80 ")).unwrap_or_default();
        assert_eq!(line.split_whitespace().nth(2), Some(scheduler), "{told}");
        assert_eq!(scene.read(), *scene.rules.renderer.state(), "{scheduler}");
    }
}

/// Of those that an earlier agent may have made, those in the ranges are somebody else's all the same.
#[test]
#[ignore = "runs in the virtual machine"]
fn with_virtual_servers_those_in_excluded_ranges_stay_with_their_addresses() {
    let mut scene = Scene::new("excluded");
    let exclude_cidrs = vec!["10.97.5.0/24".parse().unwrap()];
    let config = IpvsConfig { exclude_cidrs, ..IpvsConfig::default() };
    scene.rules.configure(&scene.services, &config);
    scene.serve(&[8080]);
    let right = scene.read();
    let scheduling = right.servers[&key()].scheduling;
    let [theirs, stray] =
        [5, 6].map(|third| FrontendKey { addr: [10, 97, third, 1].into(), protocol: Protocol::Tcp, port: 80 });
    // Without real servers: nothing has to be drained before they go.
    for frontend in [theirs, stray] {
        let (server, element) = (ServerKey::Address(frontend), Element::Port(frontend.addr, Protocol::Tcp, 80));
        let make = [
            Edit::AddServer(server, scheduling),
            Edit::AddAddress(frontend.addr),
            Edit::AddElement("KUBE-VIRTUAL-SERVERS".into(), element, None),
        ];
        Ipvs::open(&scene.netns, Family::V4).unwrap().apply(&make).unwrap();
    }
    assert!(scene.look().is_some());
    let there = scene.read();
    let has = |frontend: FrontendKey| {
        (there.servers.contains_key(&ServerKey::Address(frontend)), there.addrs.contains(&frontend.addr))
    };
    assert_eq!((has(theirs), has(stray)), ((true, true), (false, false)), "{there:?}");
    assert_eq!(there.sets, right.sets);
    assert_eq!(scene.look(), None);
    scene.take_away();
    let left = scene.read();
    assert_eq!(left.servers.keys().collect::<Vec<_>>(), [&ServerKey::Address(theirs)]);
    assert_eq!(left.addrs, [theirs.addr].into());
}
