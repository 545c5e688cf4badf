//! What is told of kernels beside what is planned.

use podnet_kernel::snapshot::Rules;
use podnet_model::{Change, Pool, Protocol};
use podnet_planner::trace::{Source, Target};

use super::*;
use crate::forwarding::lab;

/// Of the table that no kernel here has.
const NO_TABLE: &str = "there is no table podnet that does anything";

/// What is found where these tell, and the pods of those who do are looked into.
fn compared(told: [Result<Told, String>; 2]) -> Compared {
    let pods = (1..).zip(&told).filter(|(_, told)| told.is_ok()).map(|(number, _)| lab::inside(number)).collect();
    with_pods(told, pods)
}

/// The same where these are the pods that are looked into.
fn with_pods(told: [Result<Told, String>; 2], pods: Vec<(PodKey, Snapshot)>) -> Compared {
    let mut state = lab::state();
    let known =
        (1..).zip(&told).filter_map(|(number, told)| Some((lab::node(number), told.as_ref().ok()?.facts.clone())));
    state.learn(known.collect());
    let trace = lab::follow(&state).unwrap();
    let kernels = Kernels::told((1..).map(lab::node).zip(told)).with(pods);
    compare(&state, &trace, &kernels)
}

fn remarks(compared: &Compared) -> Vec<(&str, &str)> {
    compared.found.iter().map(|one| (one.node.as_str(), one.what.as_str())).collect()
}

#[test]
fn what_is_as_planned_differs_in_nothing() {
    let compared = compared([1, 2].map(|number| Ok(lab::told(number))));
    assert_eq!(remarks(&compared), [("node1", NO_TABLE), ("node2", NO_TABLE)]);
    assert_eq!(compared.lines().count(), 0);
}

#[test]
fn each_thing_that_is_missing_or_another_is_named() {
    type Fault = fn(&mut Snapshot);
    let faults: [(Fault, &str); 9] = [
        (
            |kernel| kernel.routes.retain(|route| route.dst.prefix_len() == 32),
            "the route to 10.1.2.0/26 should go to podnet.vxlan via",
        ),
        (|kernel| kernel.fdb.clear(), "on podnet.vxlan should lead to 192.0.2.12: there is none"),
        (|kernel| kernel.neighbours.clear(), "on podnet.vxlan should be"),
        (|kernel| kernel.vxlans[0].vni += 1, "has other settings than VNI 4096 and port 4789"),
        (|kernel| kernel.devices.retain(|device| device.name.as_str() != "ens3"), "there is no device ens3"),
        (
            |kernel| kernel.devices.iter_mut().for_each(|device| device.is_up = device.name.as_str() != "ens3"),
            "device ens3 is down",
        ),
        (
            |kernel| kernel.devices.iter_mut().for_each(|device| device.mtu = device.mtu.min(8950)),
            "device ens3 has MTU 8950 and not 9000",
        ),
        (|kernel| drop(kernel.settings.insert(FORWARDING4.into(), "0".into())), "net.ipv4.ip_forward is 0 and not 1"),
        (|kernel| kernel.rules = None, "its kernel has no nf_tables"),
    ];
    for (fault, words) in faults {
        let mut told = lab::told(1);
        fault(&mut told.kernel);
        let compared = compared([Ok(told), Ok(lab::told(2))]);
        let found = remarks(&compared);
        let named: Vec<_> = found.iter().filter(|(_, what)| *what != NO_TABLE).collect();
        assert!(matches!(named[..], [("node1", what)] if what.contains(words)), "{words}: {found:?}");
        assert!(compared.failure().is_some_and(|failure| failure.sentence().contains("not as they are planned")));
    }
}

#[test]
fn another_neighbour_in_the_pods_place_is_named() {
    let mut told = lab::told(2);
    let links = told.kernel.neighbours.iter_mut().filter(|one| one.device.as_str() == "pn-node2");
    links.for_each(|one| one.mac.0[5] = 9);
    let compared = compared([Ok(lab::told(1)), Ok(told)]);
    let words = "the neighbour 10.1.2.5 on pn-node2 should be 02:00:00:00:00:02: it is 02:00:00:00:00:09";
    assert_eq!(
        remarks(&compared).into_iter().filter(|(_, what)| *what != NO_TABLE).collect::<Vec<_>>(),
        [("node2", words)]
    );
}

#[test]
fn the_border_of_each_family_that_the_cluster_has_is_compared() {
    let mut changes = lab::state().changes;
    let usual = |number| (lab::node(number), lab::told(number).facts);
    let found = |changes: Vec<Change>| {
        let state = State::of(changes, [1, 2].map(usual).into());
        let (planned, mut told) = (state.cluster.planned(&lab::node(1)).unwrap(), lab::told(1));
        told.kernel.rules = Some(Rules::of([(border::TABLE, &planned.rules[Family::V4][1])]));
        let (found, _) = of_rules(&told, planned);
        found.into_iter().map(|(what, _)| what).filter(|what| what.contains("table podnet that")).collect::<Vec<_>>()
    };
    assert_eq!(found(changes.clone()), [""; 0]);
    let six = Pool::new("six".into(), "fd00:10::/48".parse().unwrap());
    changes.push(Change::Pool(six.name.clone(), Some(six)));
    assert_eq!(found(changes), [format!("{NO_TABLE} (family ip6)")]);
}

#[test]
fn what_no_agent_mends_has_a_remedy_of_its_own() {
    type Fault = fn(&mut Snapshot);
    let faults: [(Fault, &str, &str); 4] = [
        (
            |kernel| kernel.devices.iter_mut().for_each(|device| device.is_up = device.name.as_str() != "ens3"),
            "device ens3 is down",
            "ip link set ens3 up",
        ),
        (
            |kernel| kernel.devices.retain(|device| device.name.as_str() != "ens3"),
            "there is no device ens3",
            "ip link set ens3 up",
        ),
        (|kernel| kernel.rules = None, "no nf_tables", "modprobe nf_tables"),
        (
            |kernel| kernel.devices.iter_mut().for_each(|device| device.is_up = device.name.as_str() != "pn-node1"),
            "device pn-node1 is down",
            "agents mend such things",
        ),
    ];
    for (fault, words, remedy) in faults {
        let mut told = lab::told(1);
        fault(&mut told.kernel);
        let compared = compared([Ok(told), Ok(lab::told(2))]);
        let named = compared.found.iter().find(|one| one.what.contains(words)).unwrap();
        assert!(named.remedy().contains(remedy), "{words}: {}", named.remedy());
    }
    let wall = ("chain inet wall across has the policy drop".to_owned(), Mender::Firewall);
    let remedy = Remark::on(&lab::node(1), wall).remedy();
    assert!(remedy.contains("--iptables-forward-rules=false"), "{remedy}");
}

#[test]
fn what_the_underlay_routes_is_told_from_what_is_planned() {
    let state = lab::state();
    let by_underlay = |addr: [u8; 4]| {
        let target = Target { addr: addr.into(), protocol: Protocol::Tcp, port: 80 };
        let trace = state.cluster.trace(&Source::Pod(PodKey::new("default", "p1")), target).unwrap();
        trace.paths.iter().flat_map(|path| &path.hops).filter(|hop| is_by_underlay(hop)).count()
    };
    assert_eq!([[203, 0, 113, 9], [192, 0, 2, 12], [10, 1, 2, 5]].map(by_underlay), [1, 1, 0]);
}

#[test]
fn what_is_another_inside_of_a_pod_is_named_and_nobody_is_said_to_mend_it() {
    type Fault = fn(&mut Snapshot);
    let faults: [(Fault, &str); 5] = [
        (
            |kernel| kernel.routes.clear(),
            "in pod default/p1: the route to 0.0.0.0/0 should go to eth0 via 169.254.1.1: there is none",
        ),
        (
            |kernel| kernel.neighbours.clear(),
            "in pod default/p1: the neighbour 169.254.1.1 on eth0 should be ee:ee:ee:ee:ee:ee: there is none",
        ),
        (|kernel| kernel.devices.clear(), "in pod default/p1: there is no device eth0"),
        (|kernel| kernel.devices[0].is_up = false, "in pod default/p1: device eth0 is down"),
        (|kernel| kernel.devices[0].mtu = 900, "in pod default/p1: device eth0 has MTU 900 and not 8950"),
    ];
    for (fault, words) in faults {
        let (key, mut inside) = lab::inside(1);
        fault(&mut inside);
        let compared = with_pods([1, 2].map(|number| Ok(lab::told(number))), vec![(key, inside), lab::inside(2)]);
        let named: Vec<&Remark> = compared.found.iter().filter(|one| one.what != NO_TABLE).collect();
        assert!(matches!(named[..], [one] if one.what == words && one.node == lab::node(1)), "{words}: {named:?}");
        assert!(named[0].remedy().contains("kubectl delete pod p1 -n default"), "{}", named[0].remedy());
    }
}

#[test]
fn of_pods_that_nobody_tells_of_it_is_said_that_not_all_was_compared() {
    let compared = with_pods([1, 2].map(|number| Ok(lab::told(number))), vec![lab::inside(2)]);
    let lines: Vec<String> = compared.lines().collect();
    assert_eq!(lines, ["not compared on node node1: what is inside of pod default/p1: it was not asked"]);
    assert!(compared.closed.iter().eq([&lab::inside(1).0]));
    let nothing = Compared { found: Vec::new(), ..compared };
    assert!(nothing.failure().is_some_and(|failure| failure.sentence().contains("not all was compared")));
}

#[test]
fn of_a_node_that_nobody_tells_of_that_is_said_and_the_others_are_compared() {
    let compared = compared([Ok(lab::told(1)), Err("its agent does not answer".to_owned())]);
    assert_eq!(remarks(&compared), [("node1", NO_TABLE)]);
    let lines: Vec<String> = compared.lines().collect();
    let pod = "not compared on node node2: what is inside of pod default/p2: it was not asked";
    assert_eq!(lines, ["node node2 was not compared: its agent does not answer", pod]);
    let nothing = Compared { found: Vec::new(), ..compared };
    assert!(nothing.failure().is_some_and(|failure| failure.sentence().contains("not all was compared")));
    assert!(Compared::default().failure().is_none());
}
