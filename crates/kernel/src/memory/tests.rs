use std::collections::BTreeMap;

use podnet_planner::{
    ruleset::{Chain, Edit, FrontendKey, RuleSet},
    step::{FdbEntry, Neighbour, Route, RouteTarget, Vxlan},
};

use super::*;
use crate::testing::mac;

fn vxlan() -> Vxlan {
    let local = "192.0.2.1".parse().unwrap();
    Vxlan { name: "vx0".into(), vni: 1, port: 4789, local, mac: mac(1, 1), mtu: 1450, addrs: Default::default() }
}

fn route(dst: &str, target: RouteTarget) -> Step {
    Step::SetRoute(Route { dst: dst.parse().unwrap(), target })
}

#[test]
fn what_is_applied_is_observed_through_any_handle() {
    let mut kernel = MemoryKernel::new();
    let device = LinkName::from("vx0");
    let via = "10.0.0.1".parse().unwrap();
    let entry = FdbEntry { device: device.clone(), mac: mac(1, 2), remote: "192.0.2.2".parse().unwrap() };
    let neighbour = Neighbour { device: device.clone(), addr: via, mac: mac(1, 2) };
    let steps = [
        Step::SetVxlan(vxlan()),
        Step::SetFdb(entry.clone()),
        Step::SetNeighbour(neighbour.clone()),
        route("10.1.0.0/24", RouteTarget::OnLink { device: device.clone(), via, source: None }),
    ];
    let mut handle = kernel.clone();
    kernel.apply(&steps).unwrap();
    let observed = handle.observe(&[&device]).unwrap();
    assert_eq!((observed.vxlans.clone().into_values().next(), observed.routes.len()), (Some(vxlan()), 1));
    assert_eq!((observed.fdb, observed.neighbours), ([entry].into(), [neighbour].into()));
    handle.apply(&[Step::RemoveLink(device.clone())]).unwrap();
    assert_eq!(kernel.observe(&[&device]).unwrap(), Observed::default());
}

#[test]
fn it_refuses_what_the_real_one_refuses() {
    let mut kernel = MemoryKernel::new();
    kernel.add_device(&"eth0".into(), ["192.0.2.0/24".parse().unwrap()]);
    let device = LinkName::from("vx0");
    let on_link = RouteTarget::OnLink { device: device.clone(), via: "10.0.0.1".parse().unwrap(), source: None };
    let error = kernel.apply(&[route("10.1.0.0/24", on_link)]).unwrap_err();
    assert!(error.source.is_missing());
    let unreachable = RouteTarget::Via("198.51.100.1".parse().unwrap());
    let steps =
        [route("10.1.0.0/24", RouteTarget::Via("192.0.2.7".parse().unwrap())), route("10.2.0.0/24", unreachable)];
    let error = kernel.apply(&steps).unwrap_err();
    assert_eq!((error.index, error.source.errno()), (1, Some(Errno::NETUNREACH)));
    assert_eq!(kernel.state().routes.len(), 1);
}

#[test]
fn a_device_with_other_parameters_is_made_anew_without_what_was_on_it() {
    let mut kernel = MemoryKernel::new();
    let entry = FdbEntry { device: "vx0".into(), mac: mac(1, 2), remote: "192.0.2.2".parse().unwrap() };
    kernel.apply(&[Step::SetVxlan(vxlan()), Step::SetFdb(entry)]).unwrap();
    assert_eq!(kernel.apply(&[Step::SetVxlan(Vxlan { mtu: 1400, ..vxlan() })]).unwrap().remade, []);
    assert_eq!(kernel.state().fdb.len(), 1);
    assert_eq!(kernel.apply(&[Step::SetVxlan(Vxlan { vni: 2, ..vxlan() })]).unwrap().remade, ["vx0".into()]);
    assert_eq!(kernel.state().fdb.len(), 0);
}

#[test]
fn the_chosen_step_fails_once() {
    let mut kernel = MemoryKernel::new();
    kernel.fail_step(1);
    let steps = ["10.1.0.0/24", "10.2.0.0/24"].map(|dst| route(dst, RouteTarget::Blackhole));
    assert_eq!(kernel.apply(&steps).unwrap_err().index, 1);
    kernel.apply(&steps).unwrap();
    assert_eq!(kernel.state().routes.len(), 2);
}

#[test]
fn a_transaction_that_fails_changes_nothing() {
    let mut kernel = MemoryKernel::new();
    let key = FrontendKey { addr: "10.0.0.1".parse().unwrap(), protocol: podnet_model::Protocol::Tcp, port: 80 };
    let chains = BTreeMap::from([("svc-1".into(), Chain::default())]);
    let rules = RuleSet {
        chains,
        verdict_maps: BTreeMap::from([("frontends".into(), Default::default())]),
        ..RuleSet::empty(Family::V4)
    };
    kernel.replace("podnet", &rules).unwrap();
    let point = |replaces| Edit::SetVerdict { map: "frontends".into(), key, chain: "svc-1".into(), replaces };
    kernel.fail_transaction(0);
    assert!(kernel.edit(Family::V4, "podnet", &[point(false)]).is_err());
    assert!(kernel.edit(Family::V4, "podnet", &[point(false), point(false)]).is_err(), "the element is there already");
    assert_eq!(kernel.state().tables[&(Family::V4, "podnet".to_owned())], rules);
    kernel.edit(Family::V4, "podnet", &[point(false), point(true)]).unwrap();
    assert!(kernel.edit(Family::V4, "other", &[point(false)]).unwrap_err().is_missing());
    kernel.delete_table(Family::V4, "podnet").unwrap();
    kernel.delete_table(Family::V4, "podnet").unwrap();
    assert_eq!(kernel.state().tables.len(), 0);
}
