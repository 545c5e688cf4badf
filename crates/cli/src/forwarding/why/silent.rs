//! Whether the name server that the sender asks answers: one may run, and be reached by plan, and say nothing.

use std::net::{IpAddr, SocketAddr};

use podnet_model::Protocol;
use podnet_planner::trace::{Source, Target};

use super::{DNS, DNS_PORT, cluster_dns, probed};
use crate::{
    forwarding::{access::Access, inside, operand::Question, state::State},
    report::Failure,
};

/// Asks it from the sender's own network, where that is on this machine. Elsewhere agents send a probe to its port of TCP, where they may: by
/// that a server is found out that takes nothing, and not one that takes queries and leaves them.
pub(super) fn name_server(state: &State, question: &Question, access: &Access) -> Result<Option<Failure>, Failure> {
    let Some(server) = cluster_dns(state) else { return Ok(None) };
    // Who has no address of its family does not ask it there.
    let asked = Target { addr: server, protocol: Protocol::Udp, port: DNS_PORT };
    if state.cluster.trace(&question.from, asked).is_err() {
        return Ok(None);
    }
    let (node, netns) = match &question.from {
        Source::Pod(key) => {
            let Some(pod) = state.cluster.pods().get(key) else { return Ok(None) };
            let own = || pod.addrs.first().and_then(|addr| inside::namespace_of(addr.0));
            let of_node = || pod.node.as_ref().and_then(|node| state.here.get(node).cloned());
            (pod.node.as_ref(), if pod.host_network { of_node() } else { own() })
        }
        Source::Node(node) => (Some(node), state.here.get(node).cloned()),
        Source::World(..) => return Ok(None),
    };
    if node.is_none_or(|node| !state.here.contains_key(node)) {
        return Ok(by_probe(state, question, server, access));
    }
    let Some(netns) = netns else { return Ok(None) };
    let at = SocketAddr::new(server, DNS_PORT);
    let asked = inside::ask(&netns, at, &format!("kubernetes.default.svc.{}", state.domain))?;
    Ok(asked.err().map(|error| {
        let failure =
            Failure::new(format!("names are not answered: cluster DNS at {at} does not answer a query ({error})"));
        failure.remedy(remedy())
    }))
}

fn by_probe(state: &State, question: &Question, server: IpAddr, access: &Access) -> Option<Failure> {
    let target = Target { addr: server, protocol: Protocol::Tcp, port: DNS_PORT };
    let mut asked = Question {
        from: question.from.clone(),
        targets: vec![(target, 1.0)],
        title: String::new(),
        names: Vec::new(),
        object: None,
    };
    let broken = probed::along(state, &mut asked, access).err()?;
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

    use podnet_model::{Change, ClusterIp, PodKey, Service, ServiceKey, proxy::Mode, service::ServiceKind};
    use podnet_planner::trace::Facts;

    use super::*;
    use crate::{arguments::forwarding::ClusterOptions, forwarding::lab};

    #[test]
    fn who_has_no_address_of_its_family_is_not_told_that_cluster_dns_is_silent() {
        let dns = ServiceKey::new(DNS.0, DNS.1);
        let cluster_ips = vec![ClusterIp("fd00:96::a".parse().unwrap())];
        let service = Service::new(dns.clone(), ServiceKind::Virtual { cluster_ips }, Vec::new());
        let mut changes = lab::state().changes;
        changes.push(Change::Service(dns, Some(service)));
        let facts: BTreeMap<_, _> =
            [1, 2].map(|number| (lab::node(number), Facts::new("eth0".into(), 1500, Mode::Nftables))).into();
        let state = State::of(changes, facts);
        let from = Source::Pod(PodKey::new("default", "p1"));
        let question = Question { from, targets: Vec::new(), title: String::new(), names: Vec::new(), object: None };
        let options = ClusterOptions { kubeconfig: None, cluster_domain: "cluster.local".to_owned() };
        assert!(name_server(&state, &question, &Access::new(&options, 1)).unwrap().is_none());
    }
}
