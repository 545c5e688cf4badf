//! What another mode keeps for the sake of connections.

use super::*;

#[test]
fn what_lingers_for_a_service_goes_with_it_and_other_changes_are_no_reason_to_look() {
    let kernel = MemoryKernel::new();
    let mut datapath = kernel.clone();
    let mut rules = rules();
    rules.learn(&service(Some("10.96.0.1")));
    rules.put(&mut datapath).unwrap();
    let (lingers, done) = (Arc::new(AtomicBool::new(true)), Arc::default());
    let fakes = Dual::from_fn(|_| -> Box<dyn ServiceRules> {
        Box::new(Fake { lingers: Arc::clone(&lingers), done: Arc::clone(&done), ..Fake::beside(&kernel) })
    });
    let heard = || std::mem::take(&mut *done.lock().unwrap());
    rules.replace(Mode::Ipvs, fakes, &rules.held_beside(Mode::Ipvs), &mut datapath).unwrap();
    let back = Dual::from_fn(|family| mode::rules(Mode::Nftables, &rules.families[family].services));
    drop(heard());
    rules.replace(Mode::Nftables, back, &Dual::default(), &mut datapath).unwrap();
    assert_eq!(heard(), ["gone beside 1", "keeps web beside 1", "gone beside 1", "keeps web beside 1"]);

    for change in [pool("four", Some("10.0.0.0/16")), service(Some("10.96.0.1"))] {
        rules.learn(&change);
        rules.edit(Tries::All, &mut datapath).unwrap();
        assert_eq!(heard(), [""; 0], "{change:?}");
    }
    rules.learn(&service(None));
    rules.edit(Tries::All, &mut datapath).unwrap();
    assert_eq!(heard(), ["withdraws web beside 1"; 2]);
    rules.edit(Tries::All, &mut datapath).unwrap();
    assert_eq!(heard(), [""; 0], "once");
    // What could not be taken away is not forgotten.
    rules.left.pass(Duration::from_secs(60));
    rules.look(&mut datapath).unwrap();
    assert_eq!(heard(), ["gone beside 1", "withdraws web beside 1", "gone beside 1", "withdraws web beside 1"]);
}

#[test]
fn tables_that_cannot_be_taken_away_are_counted_until_that_is_told() {
    let kernel = MemoryKernel::new();
    let mut rules = rules();
    rules.left = Left::default();
    rules.left.add(Mode::Nftables, Box::new(Fake { stays: 2, ..Fake::beside(&kernel) }));
    rules.left.add(Mode::Iptables, Box::new(Fake { stays: 1, ..Fake::beside(&kernel) }));
    for refused in [1, 1, 0] {
        rules.left.clear(&|_| true, &mut kernel.clone());
        assert_eq!(rules.left.take_tables_refused(), refused);
    }
}

#[test]
fn a_nodes_port_is_a_services_at_whatever_address_and_other_frontends_are_at_their_own() {
    let mut rules = rules();
    let node = [NodeAddr([192, 0, 2, 1].into())];
    rules.set_node_addrs(&node, &node);
    let Change::Service(key, Some(mut web)) = service(Some("10.96.0.1")) else { unreachable!() };
    web.ports[0].node_port = Some(podnet_model::NodePort(30080));
    rules.learn(&Change::Service(key, Some(web)));
    let at = |addr: [u8; 4], port| FrontendKey { addr: addr.into(), protocol: Protocol::Tcp, port };
    let of_services = [at([10, 96, 0, 1], 80), at([192, 0, 2, 1], 30080), at([192, 0, 2, 9], 30080)];
    let others = [at([10, 96, 0, 1], 81), at([10, 96, 0, 2], 80), at([192, 0, 2, 1], 80)];
    let is_served = is_served(&rules.families);
    assert!(of_services.iter().all(&is_served) && !others.iter().any(is_served));
}
