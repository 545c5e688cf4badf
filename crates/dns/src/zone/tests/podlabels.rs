//! Labels of the pods that clients are (`kubernetes/client-label/…`).

use podnet_model::{Change, PodKey};

use super::{COREFILE, labelled, pod};
use crate::{
    Config, Environment,
    chain::PodLabels,
    name::QueryName,
    server::fixture::{Rig, name},
    zone::{Names, Zone},
};

const CLIENT: &str = "10.244.1.2";
const LABELS: [(&str, &str); 3] = [("app", "web"), ("a.b/c", "x"), ("other", "")];

fn rig(labels: PodLabels) -> Rig {
    let mut rig = Rig::new(COREFILE);
    rig.cluster.keep_pod_labels(labels);
    rig.apply(&labelled(pod("web", "a", &[CLIENT]), &LABELS));
    rig
}

fn these(keys: &[&str]) -> PodLabels {
    PodLabels::These(keys.iter().map(|key| (*key).to_owned()).collect())
}

/// The labels of the pod that has an address.
fn told(rig: &Rig, client: &str) -> [Option<String>; 3] {
    let config = Config::load("Corefile", COREFILE, &Environment::EMPTY).unwrap();
    let zone = Zone::new(config.kubernetes().next().unwrap().clone(), &rig.cluster, 1);
    let asked = QueryName::from(&name("www.example.org"));
    LABELS.map(|(key, _)| zone.label(&format!("kubernetes/client-label/{key}"), &asked, client.parse().unwrap()))
}

fn some(values: [&str; 3]) -> [Option<String>; 3] {
    values.map(|value| Some(value.to_owned()))
}

#[test]
fn changed_labels_of_a_pod_are_seen_though_its_address_stays() {
    let mut rig = rig(PodLabels::All);
    assert_eq!(told(&rig, CLIENT), some(["web", "x", ""]));
    rig.apply(&labelled(pod("web", "a", &[CLIENT]), &[("app", "shop"), ("a.b/c", "x"), ("other", "y")]));
    assert_eq!(told(&rig, CLIENT), some(["shop", "x", "y"]));
    rig.apply(&pod("web", "a", &[CLIENT]));
    assert_eq!(told(&rig, CLIENT), [None, None, None]);
    rig.apply(&labelled(pod("web", "a", &["10.244.1.3"]), &LABELS));
    assert_eq!(told(&rig, CLIENT), [None, None, None]);
    assert_eq!(told(&rig, "10.244.1.3"), some(["web", "x", ""]));
    // Which of several pods asks is not known.
    rig.apply(&labelled(pod("web", "b", &["10.244.1.3"]), &LABELS));
    assert_eq!(told(&rig, "10.244.1.3"), [None, None, None]);
}

#[test]
fn labels_go_with_their_pod() {
    let gone = Change::Pod(PodKey::new("web", "a"), None);
    for change in [gone, labelled(pod("web", "a", &[]), &LABELS)] {
        let mut rig = rig(PodLabels::All);
        assert!(!rig.cluster.is_empty());
        rig.apply(&change);
        assert!(rig.cluster.is_empty(), "{:?}", rig.cluster);
    }
    let mut rig = rig(PodLabels::All);
    rig.cluster.succeed(false);
    assert_eq!(told(&rig, CLIENT), some(["web", "x", ""]));
    rig.cluster.listed();
    assert!(rig.cluster.is_empty(), "other watches did not list it: {:?}", rig.cluster);
}

#[test]
fn no_more_labels_are_kept_than_are_asked_for() {
    let mut rig = rig(these(&["a.b/c", "none"]));
    assert_eq!(told(&rig, CLIENT), [None, Some("x".to_owned()), None]);
    rig.cluster.keep_pod_labels(these(&["app"]));
    rig.apply(&labelled(pod("web", "a", &[CLIENT]), &LABELS));
    assert_eq!(told(&rig, CLIENT), [Some("web".to_owned()), None, None]);
    rig.cluster.keep_pod_labels(PodLabels::default());
    assert_eq!(told(&rig, CLIENT), [None, None, None]);
    rig.apply(&labelled(pod("web", "a", &[CLIENT]), &LABELS));
    assert_eq!(told(&rig, CLIENT), [None, None, None]);
}
