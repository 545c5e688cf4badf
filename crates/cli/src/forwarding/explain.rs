//! `podnet explain`: everything that the network did for a pod, and who decided it.

use std::{fmt::Write, net::IpAddr};

use podnet_model::{Change, Family, Pod, PodKey, crd::block_name, limits::Limits, service::ServiceKind};
use podnet_planner::{
    ipam::{NetworkWish, Wish},
    step::RouteTarget,
    trace::{Planned, Source, Target},
};

use super::{
    names::DOTS,
    operand,
    state::{self, State},
};
use crate::{arguments::forwarding::ExplainOptions, report::Failure};

pub(crate) fn run(options: &ExplainOptions) -> Result<(), Failure> {
    let state = state::gather(&options.cluster, "explain")?;
    let key = operand::pod(&state, &options.pod)?;
    print!("{}", text(&state, &state.cluster.pods()[&key]));
    Ok(())
}

fn text(state: &State, pod: &Pod) -> String {
    let mut text = format!("pod {}\n", pod.key);
    let mut line = |head: &str, body: String| {
        let _ = writeln!(text, "  {head:<11} {body}");
    };
    let Some(node) = &pod.node else {
        line("node", format!("none yet: kubectl describe pod {} -n {}", pod.key.name, pod.key.namespace));
        return text;
    };
    line("node", node.to_string());
    if pod.host_network {
        line("network", "its node's own (hostNetwork): podnet gives it nothing".to_owned());
        return text;
    }
    let planned = state.cluster.planned(node);
    if pod.addrs.is_empty() {
        line("addresses", format!("none yet: {}", decided(state, pod, Family::V4)));
    }
    for addr in pod.addrs.iter().map(|addr| addr.0) {
        interface(planned, addr).into_iter().for_each(|body| line("interface", body));
        line("address", address(state, pod, addr));
        routes(state, planned, &pod.key, addr).into_iter().for_each(|body| line("route", body));
        line("rule", format!("what comes from it must have the source {addr} (table podnet-pods, set senders)"));
        let pool = state.cluster.pool_of(addr);
        match pool.filter(|pool| pool.nat_outgoing) {
            Some(pool) => line(
                "rule",
                format!("what leaves the cluster has its node's address: natOutgoing of ippool/{}", pool.name),
            ),
            None => line("rule", "what leaves the cluster keeps its address: its pool has no natOutgoing".to_owned()),
        }
    }
    limits(pod).into_iter().for_each(|body| line("limit", body));
    line("names", names(state, pod));
    let services = services(state, &pod.key);
    if services.is_empty() {
        line("services", "none leads to it".to_owned());
    }
    services.into_iter().for_each(|body| line("service", body));
    text
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
            (None, None) => "nobody asked for a pool: the first that selects node and namespace".to_owned(),
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

fn names(state: &State, pod: &Pod) -> String {
    let domain = &state.domain;
    match &pod.searches {
        None => {
            "its node's resolver, or one of its own: no search path of the cluster (dnsPolicy, dnsConfig)".to_owned()
        }
        Some(more) => {
            let more: Vec<&str> = more.iter().map(|name| &**name).collect();
            let path =
                [format!("{}.svc.{domain}", pod.key.namespace), format!("svc.{domain}"), domain.clone()].join(" ");
            format!("cluster DNS; search {path} {}; ndots:{}", more.join(" "), pod.ndots.unwrap_or(DOTS))
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
