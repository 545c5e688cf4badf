//! Watches that take the place of others (a changed Corefile wants pods, or another API server): what is known stays until they listed all.

use podnet_model::{Change, PodKey, ServiceKey, service::ServiceKind};

use super::{COREFILE, NXDOMAIN, endpoint, frontend, pod, rig, service, slice};
use crate::{
    Config, Environment,
    message::rtype,
    server::fixture::{Rig, name},
    zone::Zone,
};

const WEB: &str = "web.web.svc.cluster.local";
const HEADLESS: &str = "headless.web.svc.cluster.local";
const REVERSE: &str = "3.2.244.10.in-addr.arpa";
const POD: &str = "10-244-1-2.web.pod.cluster.local";

/// What the rig's cluster has of the Service `web`, as a list tells it.
fn list_web(rig: &mut Rig) {
    rig.apply(&service("web", "web", frontend(&["10.233.0.7", "fd00::7"]), vec![]));
    rig.apply(&slice("web", "web", &[("http", 8080)], vec![endpoint("10.244.1.2", true, None)]));
}

#[test]
fn what_is_not_listed_goes_when_all_is_and_not_before() {
    let mut rig = rig();
    let headless = rig.ask(HEADLESS, rtype::A);
    assert_eq!(headless[0], "NOERROR");
    let is_as_before = |rig: &Rig| {
        assert_eq!(rig.ask(WEB, rtype::A), ["NOERROR", "A 10.233.0.7"]);
        assert_eq!(rig.ask(HEADLESS, rtype::A), headless);
        assert_eq!(rig.ask(REVERSE, rtype::PTR)[0], "NOERROR");
        assert_eq!(rig.ask(POD, rtype::A), ["NOERROR", "A 10.244.1.2"]);
        assert_eq!(rig.ask("none.web.svc.cluster.local", rtype::A), NXDOMAIN);
    };
    rig.cluster.succeed(false);
    is_as_before(&rig);
    list_web(&mut rig);
    is_as_before(&rig);
    assert!(rig.cluster.listed());
    assert_eq!(rig.ask(WEB, rtype::A), ["NOERROR", "A 10.233.0.7"]);
    assert_eq!(rig.ask("10-244-1-2.web.web.svc.cluster.local", rtype::A), ["NOERROR", "A 10.244.1.2"]);
    for (gone, qtype) in [
        (HEADLESS, rtype::A),
        ("db-0.headless.web.svc.cluster.local", rtype::A),
        (REVERSE, rtype::PTR),
        (POD, rtype::A),
        ("kube-dns.kube-system.svc.cluster.local", rtype::A),
        ("kube-system.svc.cluster.local", rtype::A),
    ] {
        assert_eq!(rig.ask(gone, qtype), NXDOMAIN, "{gone}");
    }
    // Nothing was replaced since.
    assert!(!rig.cluster.listed());
    assert_eq!(rig.ask(WEB, rtype::A), ["NOERROR", "A 10.233.0.7"]);
}

#[test]
fn a_slice_that_is_not_listed_goes_from_a_service_that_is() {
    let mut rig = rig();
    rig.cluster.succeed(false);
    rig.apply(&service("web", "headless", ServiceKind::Headless, vec![]));
    assert_eq!(rig.ask(HEADLESS, rtype::A)[0], "NOERROR");
    rig.cluster.listed();
    assert_eq!(rig.ask(HEADLESS, rtype::A), NXDOMAIN);
    assert_eq!(rig.ask(REVERSE, rtype::PTR), NXDOMAIN);
    rig.apply(&slice("web", "headless", &[("http", 8080)], vec![endpoint("10.244.7.7", true, None)]));
    assert_eq!(rig.ask(HEADLESS, rtype::A), ["NOERROR", "A 10.244.7.7"]);
}

#[test]
fn what_changes_while_the_list_comes_in_is_as_it_was_told_last() {
    let mut rig = rig();
    rig.cluster.succeed(false);
    list_web(&mut rig);
    rig.apply(&service("web", "empty", frontend(&["10.233.0.9"]), vec![]));
    // It was listed, and went.
    rig.apply(&Change::Service(ServiceKey::new("web", "empty"), None));
    assert_eq!(rig.ask("empty.web.svc.cluster.local", rtype::A), NXDOMAIN);
    // It went, and came again with another address.
    rig.apply(&Change::Service(ServiceKey::new("web", "plain"), None));
    rig.apply(&service("web", "plain", frontend(&["10.233.0.88"]), vec![]));
    rig.apply(&pod("web", "a", &["10.244.1.9"]));
    rig.apply(&pod("web", "b", &["10.244.1.8"]));
    rig.apply(&Change::Pod(PodKey::new("web", "b"), None));
    rig.cluster.listed();
    assert_eq!(rig.ask("empty.web.svc.cluster.local", rtype::A), NXDOMAIN);
    assert_eq!(rig.ask("plain.web.svc.cluster.local", rtype::A), ["NOERROR", "A 10.233.0.88"]);
    assert_eq!(rig.ask("10-244-1-9.web.pod.cluster.local", rtype::A), ["NOERROR", "A 10.244.1.9"]);
    assert_eq!(rig.ask("10-244-1-8.web.pod.cluster.local", rtype::A), NXDOMAIN);
    assert_eq!(rig.ask(POD, rtype::A), NXDOMAIN);
}

#[test]
fn watches_that_are_replaced_before_they_listed_all_leave_nothing_behind() {
    let mut rig = rig();
    rig.cluster.succeed(false);
    rig.apply(&service("web", "new", frontend(&["10.233.0.99"]), vec![]));
    rig.cluster.succeed(false);
    assert_eq!(rig.ask("new.web.svc.cluster.local", rtype::A), ["NOERROR", "A 10.233.0.99"]);
    list_web(&mut rig);
    rig.cluster.listed();
    assert_eq!(rig.ask("new.web.svc.cluster.local", rtype::A), NXDOMAIN);
    assert_eq!(rig.ask(HEADLESS, rtype::A), NXDOMAIN);
    assert_eq!(rig.ask(WEB, rtype::A), ["NOERROR", "A 10.233.0.7"]);
}

#[test]
fn names_of_pods_are_not_denied_before_the_first_watches_of_pods_listed_them() {
    let mut rig = Rig::new(COREFILE);
    list_web(&mut rig);
    rig.server.set_synced();
    rig.at(5);
    let config = Config::load("Corefile", COREFILE, &Environment::EMPTY).unwrap();
    let options = config.kubernetes().next().unwrap().clone();
    let is_given = |rig: &Rig| Zone::new(options.clone(), &rig.cluster, 1).whole(&name("cluster.local")).is_some();
    rig.cluster.succeed(true);
    assert_eq!(rig.ask(POD, rtype::A), ["SERVFAIL"]);
    assert!(!is_given(&rig));
    // Of all else it is known.
    assert_eq!(rig.ask("none.web.svc.cluster.local", rtype::A), NXDOMAIN);
    assert_eq!(rig.ask(WEB, rtype::A), ["NOERROR", "A 10.233.0.7"]);
    list_web(&mut rig);
    rig.apply(&pod("web", "a", &["10.244.1.2"]));
    assert_eq!(rig.ask(POD, rtype::A), ["NOERROR", "A 10.244.1.2"]);
    rig.cluster.listed();
    assert_eq!(rig.ask(POD, rtype::A), ["NOERROR", "A 10.244.1.2"]);
    assert_eq!(rig.ask("10-244-1-3.web.pod.cluster.local", rtype::A), NXDOMAIN);
    assert!(is_given(&rig));
}
