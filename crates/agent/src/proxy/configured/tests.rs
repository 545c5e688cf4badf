use kube::{Client, client::Body};

use super::*;
use crate::proxy::mode::NOT_SERVED;

fn configured() -> Configured {
    let service = tower::service_fn(|_: http::Request<Body>| async {
        Err::<http::Response<Body>, _>(std::io::Error::other("nobody is there"))
    });
    let complaints = Complaints::new(Client::new(service, "default"), "node1".into());
    let lacks = [(Mode::Ipvs, "no virtual servers".to_owned())].into();
    Configured::new("node1".into(), false, Capabilities { lacks }, Told::new(), complaints)
}

fn config(fields: &str) -> Option<Arc<ProxyConfig>> {
    let head = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n";
    Some(Arc::new(ProxyConfig::parse(&format!("{head}{fields}")).unwrap()))
}

fn wanted(configured: &Configured) -> Option<Mode> {
    configured.wanted().map(|choice| choice.mode)
}

#[tokio::test]
async fn a_mode_that_was_refused_is_tried_again_after_a_while_unless_the_configuration_changes() {
    let mut configured = configured();
    let refused = |configured: &Configured| configured.told().refused.load(Ordering::Relaxed);
    assert_eq!((wanted(&configured), configured.due()), (Some(Mode::Nftables), None));
    configured.had(Mode::Nftables, "");
    configured.take(config("mode: ebpf"));
    assert_eq!(wanted(&configured), Some(Mode::Ebpf));
    let now = Instant::now();
    configured.put_off("no such thing", now);
    assert_eq!((wanted(&configured), configured.due()), (None, Some(now + PAUSE)));
    assert!(refused(&configured) && *configured.told().mode.borrow() == Some(Mode::Nftables));
    assert!(!configured.tries_again(now));
    assert!(configured.tries_again(now + PAUSE));
    assert_eq!((wanted(&configured), configured.due()), (Some(Mode::Ebpf), None));
    configured.put_off("no such thing", now);
    configured.take(config("mode: nftables"));
    assert_eq!((wanted(&configured), configured.due()), (Some(Mode::Nftables), None));
    assert!(!refused(&configured));
}

#[tokio::test]
async fn a_mode_that_cannot_be_chosen_leaves_the_one_in_force_and_the_rest_counts() {
    let mut configured = configured();
    configured.had(Mode::Nftables, "");
    configured.take(config("mode: ipvs\nnftables: {masqueradeAll: true}\nnodePortAddresses: [192.0.2.0/24]"));
    assert_eq!((wanted(&configured), configured.due()), (None, None));
    assert!(configured.told().refused.load(Ordering::Relaxed));
    let rules = configured.rules(Mode::Nftables);
    assert!(rules.masquerade_all);
    assert_eq!(rules.node_port_addresses, NodePortAddresses::Ranges(vec!["192.0.2.0/24".parse().unwrap()]));
    configured.take(None);
    assert_eq!(configured.rules(Mode::Nftables).node_port_addresses, NodePortAddresses::Primary);
    assert!(matches!(configured.rules(Mode::Iptables).node_port_addresses, NodePortAddresses::Ranges(_)));
    assert!(!configured.told().refused.load(Ordering::Relaxed));
}

#[tokio::test]
async fn a_field_that_cannot_apply_in_a_mode_is_told_once_that_mode_serves() {
    let mut configured = configured();
    configured.take(config("mode: nftables\nnftables: {masqueradeAll: true}"));
    configured.had(Mode::Nftables, "");
    assert_eq!(configured.named, BTreeSet::new());
    configured.had(Mode::Ebpf, "");
    let told: BTreeSet<_> = ["nftables.masqueradeAll in mode ebpf".to_owned()].into();
    assert_eq!(configured.named, told);
    // It is the mode in force that counts, whatever was asked for.
    configured.take(config("nodePortAddresses: [127.0.0.0/8]"));
    configured.in_force(Mode::Ipvs, "another one cannot be had");
    let both: BTreeSet<_> = told.into_iter().chain(["nodePortAddresses in mode ipvs".to_owned()]).collect();
    assert_eq!(configured.named, both);
}

#[tokio::test]
async fn node_ports_are_at_the_loopback_where_the_configuration_and_the_mode_have_them_there() {
    let mut configured = configured();
    let mut at = |fields: &str, mode| -> Vec<String> {
        configured.take(config(fields));
        configured.rules(mode).loopback.iter().map(ToString::to_string).collect()
    };
    let (both, none) = (["127.0.0.1", "::1"], [""; 0]);
    for mode in [Mode::Nftables, Mode::Ebpf, Mode::Iptables, Mode::Userspace] {
        assert_eq!(at("", mode), both, "{mode}");
        assert_eq!(at("nodePortAddresses: [primary]", mode), none, "{mode}");
        assert_eq!(at("nodePortAddresses: [192.0.2.0/24]", mode), none, "{mode}");
        assert_eq!(at("nodePortAddresses: [127.0.0.0/8]", mode), ["127.0.0.1"], "{mode}");
    }
    assert_eq!(at("", Mode::Ipvs), none);
    let off = "iptables: {localhostNodePorts: false}\nnodePortAddresses: [127.0.0.0/8]";
    assert_eq!(at(off, Mode::Iptables), none);
    assert_eq!(at(off, Mode::Nftables), ["127.0.0.1"], "it is a setting of mode iptables");
}

#[tokio::test]
async fn what_no_node_serves_is_an_event_of_those_nodes_to_which_it_falls_and_once() {
    let asked = Arc::new(std::sync::Mutex::new(Vec::new()));
    let service = tower::service_fn({
        let asked = asked.clone();
        move |request: http::Request<Body>| {
            asked.lock().unwrap().push(request.uri().path().to_owned());
            async { Err::<http::Response<Body>, _>(std::io::Error::other("nobody is there")) }
        }
    });
    let complaints = Complaints::new(Client::new(service, "default"), "node1".into());
    let mut configured = Configured::new("node1".into(), false, Capabilities::default(), Told::new(), complaints);
    let fault = |name: &str| Unserved {
        service: ServiceKey::new("shop", name),
        reason: NOT_SERVED,
        message: "it is another's".into(),
        fact: Some("contested".to_owned()),
    };
    let falls = |service: &ServiceKey| *service.name != *"elsewhere";
    configured.faults([fault("elsewhere"), fault("here")].into(), falls);
    configured.faults([fault("elsewhere"), fault("here"), fault("last")].into(), falls);
    let deadline = Instant::now() + Duration::from_secs(10);
    while !asked.lock().unwrap().iter().any(|path| path.ends_with("/last")) {
        assert!(Instant::now() < deadline, "{asked:?}");
        tokio::task::yield_now().await;
    }
    let asked: Vec<_> = asked.lock().unwrap().iter().map(|path| path.rsplit('/').next().unwrap().to_owned()).collect();
    assert_eq!(asked, ["here", "last"]);
}
