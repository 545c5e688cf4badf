//! What is told of kernels beside what is planned.

use super::*;
use crate::forwarding::lab;

/// Of the table that no kernel here has.
const NO_TABLE: &str = "there is no table podnet that does anything";

/// What is found where these tell.
fn compared(told: [Result<Told, String>; 2]) -> Compared {
    let mut state = lab::state();
    let known =
        (1..).zip(&told).filter_map(|(number, told)| Some((lab::node(number), told.as_ref().ok()?.facts.clone())));
    state.learn(known.collect());
    let trace = lab::follow(&state).unwrap();
    let kernels = Kernels::told((1..).map(lab::node).zip(told));
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
fn of_a_node_that_nobody_tells_of_that_is_said_and_the_others_are_compared() {
    let compared = compared([Ok(lab::told(1)), Err("its agent does not answer".to_owned())]);
    assert_eq!(remarks(&compared), [("node1", NO_TABLE)]);
    let lines: Vec<String> = compared.lines().collect();
    assert_eq!(lines, ["node node2 was not compared: its agent does not answer"]);
    let nothing = Compared { found: Vec::new(), ..compared };
    assert!(nothing.failure().is_some_and(|failure| failure.sentence().contains("not all was compared")));
    assert!(Compared::default().failure().is_none());
}
