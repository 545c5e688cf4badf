//! Whether the name server that the sender asks answers: one may run, and be reached by plan, and say nothing.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use podnet_model::Protocol;
use podnet_planner::trace::{Source, Target};

use super::{DNS, DNS_PORT, cluster_dns, own_servers, probed, resolver::Resolver};
use crate::{
    forwarding::{access::Access, inside, operand::Question, state::State},
    report::Failure,
};

/// Asks those that the sender's resolver asks, one of which has to answer, from the sender's own network, where that is on this machine. Elsewhere
/// agents send a probe to cluster DNS's port of TCP, where they may: by that a server is found out that takes nothing, and not one that takes
/// queries and leaves them. A pod's own name servers need not take TCP, and are not asked so.
pub(super) fn name_server(
    state: &State,
    question: &Question,
    resolver: &Resolver,
    access: &Access,
) -> Result<Option<Failure>, Failure> {
    let mut servers: Vec<IpAddr> = match resolver {
        Resolver::Node => return Ok(None),
        Resolver::Cluster => cluster_dns(state).into_iter().collect(),
        Resolver::Own(_, servers) => servers.clone(),
    };
    servers.retain(|server| is_asked(state, &question.from, *server));
    let Some(first) = servers.first().copied() else { return Ok(None) };
    let (node, netns) = match &question.from {
        Source::Pod(key) => {
            let Some(pod) = state.cluster.pods().get(key) else { return Ok(None) };
            let own = || inside::namespace_of_pod(state, pod);
            let of_node = || pod.node.as_ref().and_then(|node| state.here.get(node).cloned());
            (pod.node.as_ref(), if pod.host_network { of_node() } else { own() })
        }
        Source::Node(node) => (Some(node), state.here.get(node).cloned()),
        Source::World(..) => return Ok(None),
    };
    if node.is_none_or(|node| !state.here.contains_key(node)) {
        let is_cluster = matches!(resolver, Resolver::Cluster);
        return Ok(is_cluster.then(|| by_probe(state, question, first, access)).flatten());
    }
    let Some(netns) = netns else { return Ok(None) };
    let name = format!("kubernetes.default.svc.{}", state.domain);
    let mut silent = Vec::new();
    for server in servers {
        let at = SocketAddr::new(server, DNS_PORT);
        match inside::ask(&netns, at, &name)? {
            Ok(()) => return Ok(None),
            Err(error) => silent.push((at, error)),
        }
    }
    Ok(Some(said(resolver, &silent)))
}

/// Who has no address of its family does not ask it there, but in its own network.
fn is_asked(state: &State, from: &Source, server: IpAddr) -> bool {
    let asked = Target { addr: server, protocol: Protocol::Udp, port: DNS_PORT };
    server.is_loopback() || state.cluster.trace(from, asked).is_ok()
}

/// What is not known of who tells the sender the name of its destination, in words.
pub(super) fn unasked(state: &State, question: &Question, resolver: &Resolver) -> Option<String> {
    let is_of_cluster = question.object.as_ref().is_some_and(|object| object.kind == "service");
    match (resolver, &question.from) {
        (Resolver::Node, Source::Pod(key)) if is_of_cluster => Some(format!(
            "names: pod {key} asks its node's name servers, which need not know the cluster's names (dnsPolicy Default, or hostNetwork without ClusterFirstWithHostNet)"
        )),
        (Resolver::Own(key, _), _) => {
            let node = state.cluster.pods().get(key).and_then(|pod| pod.node.as_ref());
            let elsewhere = node.filter(|node| !state.here.contains_key(*node))?;
            Some(format!(
                "names: the name servers of pod {key} were not asked from here, as node {elsewhere} is elsewhere"
            ))
        }
        _ => None,
    }
}

/// Of those that were asked in vain.
fn said(resolver: &Resolver, silent: &[(SocketAddr, io::Error)]) -> Failure {
    let (whose, remedy) = match resolver {
        Resolver::Own(key, _) => (format!("name server of pod {key}"), own_servers(key)),
        Resolver::Cluster | Resolver::Node => ("cluster DNS".to_owned(), remedy()),
    };
    let each = silent.iter().map(|(at, error)| format!("{whose} at {at} does not answer a query ({error})"));
    Failure::new(format!("names are not answered: {}", each.collect::<Vec<_>>().join("; "))).remedy(remedy)
}

fn by_probe(state: &State, question: &Question, server: IpAddr, access: &Access) -> Option<Failure> {
    let target = Target { addr: server, protocol: Protocol::Tcp, port: DNS_PORT };
    let mut asked = Question {
        from: question.from.clone(),
        targets: vec![(target, 1.0)],
        title: String::new(),
        names: Vec::new(),
        object: None,
        is_echo: false,
        stands_in: None,
    };
    let broken = probed::small(state, &mut asked, access).err()?;
    Some(Failure::new(format!("names are not answered: {}", broken.sentence())).remedy(remedy()))
}

fn remedy() -> String {
    format!(
        "its pods are ready and do not answer: kubectl logs -n {} -l k8s-app={}; or somebody else's rules drop port {DNS_PORT}: nft list ruleset",
        DNS.0, DNS.1
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use podnet_model::{
        Change, ClusterIp, PodKey, Service, ServiceKey, ServicePort,
        proxy::Mode,
        service::{Port, ServiceKind},
    };
    use podnet_planner::trace::{Facts, Object};

    use super::*;
    use crate::{arguments::forwarding::ClusterOptions, forwarding::lab};

    /// The cluster of the tests, where cluster DNS has this address.
    fn state(cluster_dns: &str) -> State {
        let dns = ServiceKey::new(DNS.0, DNS.1);
        let cluster_ips = vec![ClusterIp(cluster_dns.parse().unwrap())];
        let port = Port { name: "dns".into(), protocol: Protocol::Udp, port: ServicePort(DNS_PORT), node_port: None };
        let service = Service::new(dns.clone(), ServiceKind::Virtual { cluster_ips }, vec![port]);
        let mut changes = lab::state().changes;
        changes.push(Change::Service(dns, Some(service)));
        let facts: BTreeMap<_, _> =
            [1, 2].map(|number| (lab::node(number), Facts::new("eth0".into(), 1500, Mode::Nftables))).into();
        State::of(changes, facts)
    }

    fn question() -> Question {
        let from = Source::Pod(PodKey::new("default", "p1"));
        Question {
            from,
            targets: Vec::new(),
            title: String::new(),
            names: Vec::new(),
            object: None,
            is_echo: false,
            stands_in: None,
        }
    }

    /// That the pod names these.
    fn own(servers: &[&str]) -> Resolver {
        let servers = servers.iter().map(|server| server.parse().unwrap()).collect();
        Resolver::Own(PodKey::new("default", "p1"), servers)
    }

    #[test]
    fn who_has_no_address_of_its_family_is_not_told_that_cluster_dns_is_silent() {
        let options = ClusterOptions { kubeconfig: None, cluster_domain: "cluster.local".to_owned() };
        let access = Access::new(&options, 1);
        assert!(name_server(&state("fd00:96::a"), &question(), &Resolver::Cluster, &access).unwrap().is_none());
    }

    #[test]
    fn name_servers_of_a_pods_own_are_meant_and_not_cluster_dns_which_it_does_not_ask() {
        let (state, question) = (state("10.96.0.10"), question());
        let broken = |resolver: &Resolver| {
            super::super::name_server(&state, &question, resolver).map(|failure| failure.sentence())
        };
        // Nobody serves it.
        assert!(broken(&Resolver::Cluster).is_some());
        assert_eq!(broken(&Resolver::Node), None);
        assert_eq!(broken(&own(&["192.0.2.1"])), None);
        // In its own network somebody may answer, also in a family of which it has no address.
        for within in [&["127.0.0.1"][..], &["::1"], &["10.1.2.9", "::1"]] {
            assert_eq!(broken(&own(within)), None, "{within:?}");
        }
        let from = &question.from;
        for (server, asked) in [("127.0.0.1", true), ("::1", true), ("192.0.2.1", true), ("2001:db8::1", false)] {
            assert_eq!(is_asked(&state, from, server.parse().unwrap()), asked, "{server}");
        }
        // The second one's block has no such pod.
        assert_eq!(broken(&own(&["10.1.2.9", "192.0.2.1"])), None);
        let why = broken(&own(&["10.1.2.9"])).unwrap();
        assert!(why.contains("names are not answered: no pod has 10.1.2.9"), "{why}");
        let why = broken(&own(&["2001:db8::1"])).unwrap();
        assert!(why.contains("pod default/p1 asks no name server"), "{why}");
    }

    #[test]
    fn that_name_servers_were_not_asked_is_said_where_they_tell_the_name() {
        let state = state("10.96.0.10");
        let of = |is_service: bool, resolver: &Resolver| {
            let object = is_service.then(|| Object::namespaced("service", "default", "web"));
            unasked(&state, &Question { object, ..question() }, resolver)
        };
        let of_node = of(true, &Resolver::Node).unwrap();
        assert!(of_node.contains("pod default/p1 asks its node's name servers, which need not know"), "{of_node}");
        assert_eq!(of(false, &Resolver::Node), None, "they know what is outside");
        let elsewhere = of(false, &own(&["192.0.2.1"])).unwrap();
        assert!(elsewhere.contains("of pod default/p1 were not asked from here, as node node1"), "{elsewhere}");
        assert_eq!(of(true, &Resolver::Cluster), None);
    }

    #[test]
    fn each_name_server_that_is_silent_is_named_with_whose_it_is() {
        let silent = ["192.0.2.1:53", "192.0.2.2:53"].map(|at| {
            let nothing = io::Error::new(io::ErrorKind::TimedOut, "nothing comes back");
            (at.parse::<SocketAddr>().unwrap(), nothing)
        });
        let sentence = said(&own(&[]), &silent).sentence();
        for at in ["192.0.2.1:53", "192.0.2.2:53"] {
            let words = format!("name server of pod default/p1 at {at} does not answer a query (nothing comes back)");
            assert!(sentence.contains(&words), "{sentence}");
        }
        let of_cluster = said(&Resolver::Cluster, &silent[..1]).sentence();
        assert!(of_cluster.starts_with("names are not answered: cluster DNS at 192.0.2.1:53 does not"), "{of_cluster}");
    }
}
