//! `labels` and `namespace_labels`: which Services are shown.

use std::sync::Arc;

use podnet_model::{Change, Namespace, Service, ServiceKey, labels::Labels};

use super::{NODATA, NXDOMAIN, endpoint, frontend, service, slice};
use crate::{message::rtype, server::fixture::Rig};

fn labels(text: &str) -> Labels {
    let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
    Arc::new(pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect())
}

fn labelled(name: &str, text: &str) -> Change {
    let Change::Service(key, Some(service)) = service("web", name, frontend(&["10.233.0.7"]), vec![]) else {
        unreachable!()
    };
    Change::Service(key, Some(Service { labels: labels(text), ..service }))
}

fn rig(option: &str) -> Rig {
    let mut rig =
        Rig::new(&format!(". {{\n kubernetes cluster.local 10.0.0.0/8 {{\n pods verified\n {option}\n }}\n}}"));
    rig.server.set_synced();
    rig.apply(&labelled("web", "app=web,tier=front"));
    rig.apply(&slice("web", "web", &[("http", 80)], vec![endpoint("10.244.1.2", true, None)]));
    rig
}

const WEB: &str = "web.web.svc.cluster.local";
const HERE: &[&str] = &["NOERROR", "A 10.233.0.7"];

#[test]
fn only_services_with_such_labels_have_names() {
    for (option, shown) in [
        ("labels app=web", true),
        ("labels app=web,tier!=front", false),
        ("labels tier in (back, front)", true),
        ("labels !app", false),
        ("labels other", false),
        ("labels app notin (api), tier == front, !other", true),
        ("labels tier > 1", false),
    ] {
        let rig = rig(option);
        assert_eq!(rig.ask(WEB, rtype::A), if shown { HERE } else { NXDOMAIN }, "{option}");
        let reverse = rig.ask("7.0.233.10.in-addr.arpa", rtype::PTR);
        assert_eq!(reverse[0] == "NOERROR", shown, "{option}");
        let endpoint = rig.ask("10-244-1-2.web.web.svc.cluster.local", rtype::A);
        assert_eq!(endpoint[0] == "NOERROR", shown, "{option}");
        assert_eq!(rig.ask("web.svc.cluster.local", rtype::A), NODATA, "the namespace is there: {option}");
    }
}

#[test]
fn a_service_whose_labels_change_comes_and_goes() {
    let mut rig = rig("labels app=web");
    rig.apply(&labelled("web", "app=other"));
    assert_eq!(rig.ask(WEB, rtype::A), NXDOMAIN);
    rig.apply(&labelled("web", "app=web"));
    assert_eq!(rig.ask(WEB, rtype::A), HERE);
}

#[test]
fn services_in_namespaces_with_such_labels_have_names_from_when_the_namespace_is_known() {
    let mut rig = rig("namespace_labels team=a");
    let (web, other) = (Namespace::from("web"), Namespace::from("other"));
    assert_eq!(rig.ask(WEB, rtype::A), NXDOMAIN);
    rig.namespace(&web, Some(&labels("team=b")));
    assert_eq!(rig.ask(WEB, rtype::A), NXDOMAIN);
    assert_eq!(rig.ask("web.svc.cluster.local", rtype::A), NXDOMAIN);
    rig.namespace(&web, Some(&labels("team=a")));
    rig.namespace(&other, Some(&labels("team=a")));
    assert_eq!(rig.ask(WEB, rtype::A), HERE);
    assert_eq!(rig.ask("other.svc.cluster.local", rtype::A), NODATA);
    rig.apply(&Change::Service(ServiceKey::new("web", "web"), None));
    rig.apply(&labelled("web", ""));
    assert_eq!(rig.ask(WEB, rtype::A), HERE, "a Service that comes later");
    rig.namespace(&web, Some(&labels("team=b")));
    assert_eq!(rig.ask(WEB, rtype::A), NXDOMAIN);
    rig.namespace(&web, Some(&labels("team=a")));
    rig.namespace(&web, None);
    assert_eq!(rig.ask(WEB, rtype::A), NXDOMAIN);
}

#[test]
fn a_reloaded_server_knows_the_labels() {
    let mut rig = rig("namespaces kube-system");
    rig.namespace(&Namespace::from("web"), Some(&labels("team=a")));
    assert_eq!(rig.ask(WEB, rtype::A), NXDOMAIN);
    rig.reload(". {\n kubernetes cluster.local {\n namespace_labels team=a\n labels app=web\n }\n}");
    assert_eq!(rig.ask(WEB, rtype::A), HERE);
}

#[test]
fn pods_of_namespaces_that_are_not_shown_have_no_names() {
    for (option, shown) in [("", true), ("namespaces kube-system", false), ("namespace_labels team=a", false)] {
        let mut rig = rig(option);
        rig.apply(&super::pod("web", "a", &["10.244.1.2"]));
        let told = rig.ask("10-244-1-2.web.pod.cluster.local", rtype::A);
        assert_eq!(told[0] == "NOERROR", shown, "{option}: {told:?}");
    }
}
