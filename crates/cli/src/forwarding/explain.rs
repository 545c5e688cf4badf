//! `podnet explain`: everything that the network did for a pod, and who decided it.

use std::{fmt::Write, net::IpAddr};

use k8s_openapi::api::core::v1 as api;
use podnet_kernel::{neigh, netlink::RtSocket, netns::NetNs};
use podnet_model::{Change, Family, NodeName, Pod, PodKey, crd::block_name, limits::Limits, service::ServiceKind};
use podnet_planner::{
    ipam::{NetworkWish, Wish},
    step::RouteTarget,
    trace::{Kind, Planned, Source, Target, Trace, Unknown},
};

use super::{
    access::Access,
    inside, kernels,
    names::DOTS,
    operand,
    state::{self, State},
    why::resolver::Resolver,
};
use crate::{arguments::forwarding::ExplainOptions, report::Failure};

pub(crate) fn run(options: &ExplainOptions) -> Result<(), Failure> {
    let mut state = state::gather(&options.cluster, "explain")?;
    let key = operand::pod(&state, &options.pod, options.namespace.as_deref())?;
    let spec = state::spec(&options.cluster, "explain", &key)?;
    let untold = ask(&mut state, options, &key);
    print!("{}", text(&state, &state.cluster.pods()[&key], &spec));
    if let Some(why) = untold {
        println!(
            "  assumed     device and MTU of its node, and its end of the link, which its node does not tell: {why}"
        );
    }
    Ok(())
}

/// Has the agent of the pod's node tell what that is and how the pod is joined to it; why it does not, where it does not.
fn ask(state: &mut State, options: &ExplainOptions, key: &PodKey) -> Option<String> {
    let pod = &state.cluster.pods()[key];
    let node = pod.node.clone().filter(|_| !pod.host_network)?;
    let addr = pod.addrs.first()?.0;
    if state.is_known(&node) {
        return None;
    }
    let access = Access::new(&options.cluster, options.agent_port);
    let follow = |state: &State| outward(state, key, addr).map_err(|unknown| Failure::new(unknown.to_string()));
    match kernels::look(state, &access, follow) {
        Ok((_, kernels)) => kernels.of(&node).is_none().then(|| kernels.why_not(&node).to_owned()),
        Err(failure) => Some(failure.sentence()),
    }
}

/// The way of what a pod sends out of the cluster from one of its addresses.
fn outward(state: &State, pod: &PodKey, addr: IpAddr) -> Result<Trace, Unknown> {
    let outside: IpAddr = if addr.is_ipv4() { operand::WORLD.0.into() } else { operand::WORLD.1.into() };
    let target = Target { addr: outside, protocol: podnet_model::Protocol::Tcp, port: 1 };
    state.cluster.trace(&Source::Pod(pod.clone()), target)
}

fn text(state: &State, pod: &Pod, spec: &api::PodSpec) -> String {
    let mut text = format!("pod {}\n", pod.key);
    let mut line = |head: &str, body: String| {
        let _ = writeln!(text, "  {head:<11} {body}");
    };
    let Some(node) = &pod.node else {
        line("node", format!("none yet: kubectl describe pod {} -n {}", pod.key.name, pod.key.namespace));
        return text;
    };
    line("node", node.to_string());
    match pod.host_network {
        true => line("network", "its node's own (hostNetwork): podnet gives it nothing".to_owned()),
        false => own_network(state, pod, spec, node, &mut line),
    }
    line("names", names(state, pod, spec));
    let services = services(state, &pod.key);
    if services.is_empty() {
        line("services", "none leads to it".to_owned());
    }
    services.into_iter().for_each(|body| line("service", body));
    text
}

/// What is done for a pod that has a network of its own, line by line.
fn own_network(state: &State, pod: &Pod, spec: &api::PodSpec, node: &NodeName, line: &mut impl FnMut(&str, String)) {
    let planned = state.cluster.planned(node);
    if pod.addrs.is_empty() {
        line("addresses", format!("none yet: {}", decided(state, pod, Family::V4)));
    }
    for addr in pod.addrs.iter().map(|addr| addr.0) {
        interface(planned, addr).into_iter().for_each(|body| line("interface", body));
        line("address", address(state, pod, addr));
        let sent = outward(state, &pod.key, addr).ok();
        within(state, sent.as_ref(), addr, node).into_iter().for_each(|body| line("inside", body));
        routes(state, planned, &pod.key, addr).into_iter().for_each(|body| line("route", body));
        line("rule", sender(sent.as_ref(), addr));
        let pool = state.cluster.pool_of(addr);
        match pool.filter(|pool| pool.nat_outgoing) {
            Some(pool) => line(
                "rule",
                format!("what leaves the cluster has its node's address: natOutgoing of ippool/{}", pool.name),
            ),
            None => line("rule", "what leaves the cluster keeps its address: its pool has no natOutgoing".to_owned()),
        }
    }
    host_ports(spec).into_iter().for_each(|body| line("host port", body));
    limits(pod).into_iter().for_each(|body| line("limit", body));
}

/// Who may send with its address, as its node asks where it is known how the pod is joined to it.
fn sender(sent: Option<&Trace>, addr: IpAddr) -> String {
    let mut hops = sent.into_iter().flat_map(|sent| &sent.paths).flat_map(|path| &path.hops);
    let received = hops.find(|hop| hop.kind == Kind::Received).and_then(|hop| hop.rule.clone());
    received.unwrap_or_else(|| format!("what comes from it must have the source {addr}"))
}

fn interface(planned: Option<&Planned>, addr: IpAddr) -> Option<String> {
    let planned = planned?;
    let mtu = planned.overlay.pod_mtu();
    let link = planned.link(addr);
    Some(match link.map(|link| (&link.device, &link.bridge)) {
        Some((device, Some(bridge))) => {
            format!("eth0, on node {} {device}, a port of bridge {bridge}; MTU {mtu}", planned.node.name)
        }
        Some((device, None)) => format!("eth0, on node {} {device}; MTU {mtu}", planned.node.name),
        None => format!("eth0; MTU {mtu}; the node's end is named on the node itself: ip route get {addr}"),
    })
}

/// What the pod's own network has: the route by plan, and neighbours where its namespace is on this machine.
fn within(state: &State, sent: Option<&Trace>, addr: IpAddr, node: &NodeName) -> Vec<String> {
    let first = sent.and_then(|sent| sent.paths.first()?.hops.first());
    let mut all: Vec<String> = first.and_then(|hop| hop.rule.clone()).into_iter().collect();
    let netns = Some(addr).filter(|_| state.here.contains_key(node)).and_then(inside::namespace_of);
    let neighbours = netns.and_then(|path| {
        let netns = NetNs::open(&path).ok()?;
        neigh::list_all(&mut RtSocket::open_in(&netns).ok()?).ok()
    });
    let of_family = |found: &&(u32, IpAddr, podnet_model::Mac)| found.1.is_ipv4() == addr.is_ipv4();
    let neighbours = neighbours.unwrap_or_default();
    all.extend(neighbours.iter().filter(of_family).map(|(_, addr, mac)| format!("neighbour {addr} is {mac}")));
    all
}

/// An address with where it came from, and by whose word.
fn address(state: &State, pod: &Pod, addr: IpAddr) -> String {
    let pool = state.cluster.pool_of(addr);
    let pool =
        pool.map_or_else(|| "of no ippool".to_owned(), |pool| format!("of ippool/{} ({})", pool.name, pool.cidr));
    let block = state.cluster.block_of(addr).map_or_else(
        || "of no block".to_owned(),
        |block| {
            let name = block_name(block.cidr);
            match &block.owner {
                Some(owner) if Some(owner) == pod.node.as_ref() => format!("from ipamblock/{name} of its node"),
                Some(owner) => format!("lent from ipamblock/{name} of node {owner}"),
                None => format!("from ipamblock/{name}, which no node owns any more"),
            }
        },
    );
    format!("{addr}, {pool}, {block}; {}", decided(state, pod, Family::of(&addr)))
}

/// Where the address of a pod that nothing is asked for comes from.
const UNASKED: &str = "neither the pod nor its namespace asked for a pool: the node's CNI configuration decides, or else it is the first that selects node and namespace";

/// Who decided where the address comes from. What the CNI configuration says is known to the node alone.
fn decided(state: &State, pod: &Pod, family: Family) -> String {
    let scope = state.changes.iter().find_map(|change| match change {
        Change::Namespace(name, Some(scope)) if *name == pod.key.namespace => Some(scope),
        _ => None,
    });
    let request = match &pod.request {
        Ok(request) => request,
        Err(wrong) => return format!("refused: {wrong}"),
    };
    match Wish::decide(request, scope, &NetworkWish::default()) {
        Err(wrong) => format!("refused: {wrong}"),
        Ok(wish) if !wish.addrs.is_empty() => {
            "asked for by the pod's annotation cni.projectcalico.org/ipAddrs".to_owned()
        }
        Ok(wish) if !wish.addrs_no_ipam.is_empty() => {
            "asked for by the pod's annotation cni.projectcalico.org/ipAddrsNoIpam".to_owned()
        }
        Ok(wish) => match (&wish.pools[family], &wish.sticky) {
            (Some(list), _) => format!("the pools {} were asked for by {}", list.names.join(", "), list.source),
            (None, Some(sticky)) => {
                format!("the address that the pod of this name had before (StatefulSet {})", sticky.name)
            }
            (None, None) => UNASKED.to_owned(),
        },
    }
}

/// The route of its own node, and those of the others.
fn routes(state: &State, planned: Option<&Planned>, pod: &PodKey, addr: IpAddr) -> Vec<String> {
    let own = planned
        .and_then(|planned| planned.link(addr))
        .map_or_else(|| "the pod's link".to_owned(), |link| link.route_device().to_string());
    let own_node = planned.map(|planned| planned.node.name.clone());
    let mut all: Vec<String> = own_node.iter().map(|node| format!("on node {node}: {addr} to {own}")).collect();
    let others = state.cluster.nodes().keys().filter(|node| own_node.as_ref() != Some(*node));
    for node in others {
        let target = Target { addr, protocol: podnet_model::Protocol::Tcp, port: 1 };
        let told = match state.cluster.trace(&Source::Node(node.clone()), target) {
            Ok(trace) => trace,
            Err(unknown) => {
                all.push(format!("on node {node}: {unknown}"));
                continue;
            }
        };
        let Some(path) = told.paths.first() else { continue };
        let rule = path.hops.iter().find(|hop| hop.place.node() == Some(node) && hop.rule.is_some());
        let rule = rule.and_then(|hop| hop.rule.clone()).unwrap_or_else(|| path.end.why.clone());
        let arrives = if path.end.verdict.is_well() { "" } else { " (it does not arrive at the pod)" };
        all.push(format!("on node {node}: {rule}{arrives}"));
    }
    if let Some(planned) = planned
        && let Some((block, RouteTarget::Blackhole)) = planned
            .overlay
            .desired()
            .routes
            .iter()
            .filter(|(range, _)| range.contains(&addr))
            .max_by_key(|(range, _)| range.prefix_len())
    {
        all.push(format!(
            "on node {}: blackhole {block}, for addresses that no pod has; {pod} is longer",
            planned.node.name
        ));
    }
    all
}

fn limits(pod: &Pod) -> Vec<String> {
    let limits = match &pod.limits {
        Ok(limits) => limits,
        Err(wrong) => return vec![format!("refused: {wrong}")],
    };
    let of = |way: &str, limits: &Limits| {
        let mut all = Vec::new();
        all.extend(
            limits.bandwidth.map(|bandwidth| format!("{way}: {} bits/s (qdisc tbf, handle 88:)", bandwidth.rate)),
        );
        all.extend(limits.packets.map(|rate| format!("{way}: {} packets/s (table podnet-limits)", rate.rate)));
        all.extend(limits.connections.map(|most| format!("{way}: {most} connections at once (table podnet-limits)")));
        all
    };
    let mut all = of("to the pod", &limits.ingress);
    all.extend(of("from the pod", &limits.egress));
    if all.is_empty() { vec!["none".to_owned()] } else { all }
}

/// The ports of its node that lead to it, which its containers ask for.
fn host_ports(spec: &api::PodSpec) -> Vec<String> {
    // Of those that come first, only sidecars stay (KEP-753).
    let sidecars = spec.init_containers.iter().flatten();
    let sidecars = sidecars.filter(|container| container.restart_policy.as_deref() == Some("Always"));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
    let told = |port: &api::ContainerPort| {
        let host = port.host_port?;
        let at = port.host_ip.as_deref().filter(|at| !at.is_empty()).unwrap_or("any address");
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let to = port.container_port;
        Some(format!("{host}/{protocol} at {at} of its node, to its port {to} (table podnet-pods)"))
    };
    ports.filter_map(told).collect()
}

fn names(state: &State, pod: &Pod, spec: &api::PodSpec) -> String {
    let domain = &state.domain;
    let config = spec.dns_config.as_ref();
    let listed = |texts: Option<&[String]>| texts.map(|texts| texts.join(", ")).filter(|texts| !texts.is_empty());
    let more = listed(config.and_then(|config| config.nameservers.as_deref()));
    let servers = match Resolver::of_pod(&pod.key, spec) {
        Resolver::Cluster => {
            let at = state.asked_for_names().map_or_else(|| "no Service".to_owned(), |addr| addr.to_string());
            // What a kubelet is told is known of podnet's own clusters alone.
            let or = match state.nameserver {
                Some(_) => "",
                None => " (or the nodes' resolver, by the kubelet's clusterDNS)",
            };
            let more = more.map_or_else(String::new, |more| format!(", then {more} (dnsConfig)"));
            format!("cluster DNS at {at}{or}{more}")
        }
        Resolver::Own(..) => {
            format!("{} (dnsPolicy None, dnsConfig)", more.unwrap_or_else(|| "no name server".to_owned()))
        }
        Resolver::Node => {
            let more = more.map_or_else(String::new, |more| format!(", then {more} (dnsConfig)"));
            format!("its node's name servers{more}")
        }
    };
    match &pod.searches {
        None => {
            let own = listed(config.and_then(|config| config.searches.as_deref()));
            let own = own.map_or_else(|| "no search path of the cluster".to_owned(), |own| format!("search {own}"));
            format!("{servers}; {own}")
        }
        Some(more) => {
            let more: Vec<&str> = more.iter().map(|name| &**name).collect();
            let path =
                [format!("{}.svc.{domain}", pod.key.namespace), format!("svc.{domain}"), domain.clone()].join(" ");
            format!("{servers}; search {path} {}; ndots:{}", more.join(" "), pod.ndots.unwrap_or(DOTS))
        }
    }
}

/// The Services whose endpoints it is, and how.
fn services(state: &State, pod: &PodKey) -> Vec<String> {
    let mut all = Vec::new();
    for service in state.cluster.services().values() {
        let slices = || state.cluster.slices_of(&service.key);
        let endpoint = slices().flat_map(|slice| &slice.endpoints).find(|endpoint| endpoint.pod.as_ref() == Some(pod));
        let Some(endpoint) = endpoint else { continue };
        let ready = if endpoint.ready { "ready" } else { "not ready: nothing is sent to it" };
        let at = match &service.kind {
            ServiceKind::Virtual { cluster_ips } => {
                cluster_ips.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
            }
            ServiceKind::Headless => "headless".to_owned(),
            ServiceKind::External { name } => name.to_string(),
        };
        let ports = slices().next().into_iter().flat_map(|slice| &slice.ports);
        let ports: Vec<String> = ports.map(|port| format!("{}/{}", port.port, port.protocol)).collect();
        all.push(format!(
            "service/{} -n {} ({at}), to its ports {}; {ready}",
            service.key.name,
            service.key.namespace,
            ports.join(", ")
        ));
    }
    all
}

#[cfg(test)]
mod tests {
    use podnet_model::limits::PodLimits;
    use serde_json::{Value, json};

    use super::*;
    use crate::forwarding::lab;

    fn told(spec: &Value) -> String {
        let state = lab::state();
        let pod = &state.cluster.pods()[&PodKey::new("default", "p1")];
        text(&state, pod, &serde_json::from_value(spec.clone()).unwrap())
    }

    #[test]
    fn who_may_send_is_told_as_the_node_asks_and_where_an_address_is_from_as_far_as_it_is_known() {
        let key = PodKey::new("default", "p1");
        let told = |state: &State| text(state, &state.cluster.pods()[&key], &api::PodSpec::default());
        let elsewhere = told(&lab::state());
        assert!(elsewhere.contains("rule        what comes from it must have the source 10.1.1.5\n"), "{elsewhere}");
        assert!(elsewhere.contains(UNASKED), "{elsewhere}");
        let mut state = lab::limited(&Ok(PodLimits::default()));
        let rule =
            |set: &str| format!("rule        sender 10.1.1.5 of pn-node1 alone, all else is dropped (table {set})\n");
        let routed = told(&state);
        assert!(routed.contains(&rule("podnet-pods, set senders")), "{routed}");
        let mut facts = lab::told(1).facts;
        facts.links.values_mut().for_each(|link| link.bridge = Some("br-one".into()));
        state.learn([(lab::node(1), facts)].into());
        let bridged = told(&state);
        assert!(bridged.contains(&rule("bridge podnet-pods, set senders4")), "{bridged}");
    }

    #[test]
    fn of_a_pod_in_its_nodes_network_name_servers_are_told_and_nothing_that_it_has_not() {
        let state = lab::state();
        let pod = &state.cluster.pods()[&PodKey::new("default", "p1")];
        let pod = Pod { host_network: true, ..pod.clone() };
        let spec = json!({"containers": [], "hostNetwork": true, "dnsPolicy": "ClusterFirst"});
        let told = text(&state, &pod, &serde_json::from_value(spec).unwrap());
        for words in ["network     its node's own", "names       its node's name servers", "services    none"] {
            assert!(told.contains(words), "{words:?} in {told}");
        }
        assert!(!told.contains("address ") && !told.contains("rule ") && !told.contains("limit "), "{told}");
    }

    #[test]
    fn name_servers_host_ports_and_the_pods_own_route_are_told() {
        let ports = json!([{"containerPort": 80, "hostPort": 8080}, {"containerPort": 81}]);
        let of = |name: &str, host: u16, policy: Option<&str>| json!({"name": name, "restartPolicy": policy, "ports": [{"containerPort": 82, "hostPort": host}]});
        let first = [of("sidecar", 8082, Some("Always")), of("init", 8083, None)];
        let cluster = told(&json!({"containers": [{"name": "c", "ports": ports}], "initContainers": first}));
        for words in [
            "host port   8080/TCP at any address of its node, to its port 80 ",
            "host port   8082/TCP at any address of its node, to its port 82 ",
            "names       cluster DNS at no Service (or the nodes' resolver, by the kubelet's clusterDNS); no search",
            "inside      default via 169.254.1.1 dev eth0",
        ] {
            assert!(cluster.contains(words), "{words:?} in {cluster}");
        }
        assert!(!cluster.contains("its port 81") && !cluster.contains("8083"), "{cluster}");
        let mut state = lab::state();
        state.nameserver = Some("169.254.20.10".parse().unwrap());
        let of_node = text(&state, &state.cluster.pods()[&PodKey::new("default", "p1")], &api::PodSpec::default());
        assert!(of_node.contains("names       cluster DNS at 169.254.20.10; no search path"), "{of_node}");
        let config = json!({"nameservers": ["192.0.2.1", "192.0.2.2"], "searches": ["lab.example"]});
        let own = told(&json!({"containers": [], "dnsPolicy": "None", "dnsConfig": config}));
        assert!(own.contains("192.0.2.1, 192.0.2.2 (dnsPolicy None, dnsConfig); search lab.example"), "{own}");
        let node = told(&json!({"containers": [], "dnsPolicy": "Default"}));
        assert!(node.contains("its node's name servers; no search path of the cluster"), "{node}");
    }
}
