//! What people write.

use super::*;
use crate::forwarding::lab;

#[test]
fn a_pod_is_named_as_kubectl_takes_it_too() {
    let state = lab::state();
    let p1 = PodKey::new("default", "p1");
    for (text, namespace) in [
        ("p1", None),
        ("p1", Some("default")),
        ("pod/p1", None),
        ("po/p1", Some("default")),
        ("default/p1", None),
        ("pod/default/p1", None),
        ("default/p1", Some("default")),
    ] {
        assert_eq!(pod(&state, text, namespace).ok().as_ref(), Some(&p1), "{text} {namespace:?}");
    }
    for (text, namespace, words) in [
        ("p1", Some("shop"), "\"p1\" is no pod that is there"),
        ("p9", None, "\"p9\" is no pod that is there"),
        ("default/p1", Some("shop"), "\"default/p1\" names its namespace, and -n shop another one"),
        ("pod/default/p1", Some("shop"), "\"pod/default/p1\" names its namespace, and -n shop another one"),
    ] {
        let failure = pod(&state, text, namespace).unwrap_err();
        assert!(failure.sentence().contains(words), "{}", failure.sentence());
    }
}

#[test]
fn who_sends_may_be_a_name_of_the_clusters_own() {
    let state = lab::state();
    let read = |text: &str| {
        let mut told = Vec::new();
        source(&state, text, &mut told).map(|from| (from, told))
    };
    let (from, told) = read("10-1-1-5.default.pod.cluster.local").ok().unwrap();
    assert!(matches!(from, From::Pod(key) if key == PodKey::new("default", "p1")));
    assert_eq!(told, ["10-1-1-5.default.pod.cluster.local is 10.1.1.5"]);
    // An address that no pod has is somebody outside.
    let (from, _) = read("203-0-113-9.default.pod.cluster.local.").ok().unwrap();
    assert!(matches!(from, From::World(Some(addr)) if addr.to_string() == "203.0.113.9"));
    for (text, words) in [
        ("partner.example.org", "partner.example.org is a name outside of the cluster"),
        ("absent.default.svc.cluster.local", "is nothing that is there"),
        ("p1", "is nothing that is there"),
    ] {
        let sentence = read(text).err().unwrap().sentence();
        assert!(sentence.contains(words), "{text}: {sentence}");
    }
}
