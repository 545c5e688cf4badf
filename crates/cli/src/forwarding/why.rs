//! `podnet why`: the first broken link, in one sentence, with what to change.
//!
//! What is looked at, in the order in which a packet would meet it: the sender, the name, the way by plan, the kernels on the way and on the way
//! back, whether its name server answers, who it is for, and last a connection, and a probe: where no connection can be tried from here, to find
//! out where one fails, and as large as packets may be.

mod probed;
pub(super) mod resolver;
mod silent;

use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::core::v1 as api;
use kube::{Api, Client, api::ListParams};
use podnet_model::{PodKey, Protocol, ServiceKey, service::ServiceKind};
use podnet_planner::trace::{End, Path, Place, Source, Target, Trace, Verdict};

use self::resolver::Resolver;
use super::{
    access::Access,
    compare, inside, kernels, operand,
    operand::{Question, StandsIn},
    state,
    state::State,
};
use crate::{
    api as server,
    arguments::forwarding::WhyOptions,
    report::{Doing, Failure},
};

/// The Service of cluster DNS, as every installer calls it.
const DNS: (&str, &str) = ("kube-system", "kube-dns");
const DNS_PORT: u16 = 53;

pub(crate) fn run(options: &WhyOptions) -> Result<(), Failure> {
    let mut state = state::gather(&options.cluster, "why")?;
    if let Some(broken) = sender(&state, options)? {
        return Err(broken);
    }
    let mut question = operand::read(&state, &options.ends)?;
    if let Some(StandsIn::Nobody(why)) = &question.stands_in {
        let remedy = "is it written right? A Service of another namespace is NAME.NAMESPACE";
        return Err(Failure::new(why.clone()).remedy(remedy));
    }
    let resolver = match &question.names[..] {
        [] => None,
        _ => Some(Resolver::of(options, &question.from)?),
    };
    if let Some(broken) = resolver.as_ref().and_then(|resolver| name_server(&state, &question, resolver)) {
        return Err(broken);
    }
    let access = Access::new(&options.cluster, options.agent_port);
    let (both, kernels) = kernels::look(&mut state, &access, |state| there_and_back(state, &question))?;
    let trace = operand::follow(&state, &question)?;
    for path in &trace.paths {
        if let Some(broken) = by_plan(&state, path) {
            return Err(broken);
        }
    }
    let compared = compare::compare(&state, &both, &kernels);
    if let Some(first) = compared.found.first() {
        return Err(Failure::new(format!("on node {}: {}", first.node, first.what)).remedy(first.remedy()));
    }
    if let Some(resolver) = &resolver
        && let Some(broken) = silent::name_server(&state, &question, resolver, &access)?
    {
        return Err(broken);
    }
    // Whoever is pinged need not listen.
    let protocol = question.targets.first().filter(|_| !question.is_echo).map(|(target, _)| target.protocol);
    for path in &trace.paths {
        if let Some(broken) = receiver(&state, options, path, protocol)? {
            return Err(broken);
        }
    }
    let unknown = match alive(&state, &question)? {
        Alive::Broken(target, what) => return Err(where_it_breaks(&state, question, &access, target, what)),
        Alive::Works => probed::of_full_size(&state, &mut question, &access)?,
        Alive::Untried => probed::along(&state, &mut question, &access)?,
    };
    let unasked = resolver.as_ref().and_then(|resolver| silent::unasked(&state, &question, resolver));
    println!("nothing is broken on the way: {}", question.title);
    for path in &trace.paths {
        println!("  {:.1} %: {}", path.share * 100.0, path.end.why);
    }
    for line in compared.lines().chain(unknown).chain(unasked) {
        println!("  {line}");
    }
    Ok(())
}

/// Whether the pod at an end is there and runs.
fn sender(state: &State, options: &WhyOptions) -> Result<Option<Failure>, Failure> {
    let pods = operand::pods_of(state, &options.ends);
    for key in pods {
        if let Some(broken) = running(options, &key)? {
            return Ok(Some(broken));
        }
    }
    Ok(None)
}

/// What keeps a pod from running, as its status and the last warning about it say.
fn running(options: &WhyOptions, key: &PodKey) -> Result<Option<Failure>, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().doing(|| "cannot start".into())?;
    let (namespace, name) = (key.namespace.as_str(), &*key.name);
    let (pod, events) = runtime.block_on(async {
        let client = server::connect(options.cluster.kubeconfig.as_deref(), "why").await?;
        let pods: Api<api::Pod> = Api::namespaced(client.clone(), namespace);
        let pod = pods.get(name).await.doing(|| format!("cannot get pod {key}"))?;
        Ok::<_, Failure>((pod, warnings(client, namespace, name).await))
    })?;
    let status = pod.status.clone().unwrap_or_default();
    let phase = status.phase.as_deref().unwrap_or("Pending");
    let waits = status.container_statuses.iter().flatten().find_map(|container| {
        let waiting = container.state.as_ref()?.waiting.as_ref()?;
        Some(format!("container {}: {}", container.name, waiting.reason.as_deref().unwrap_or("waits")))
    });
    let unscheduled = pod.spec.as_ref().is_none_or(|spec| spec.node_name.is_none());
    let see = format!("kubectl describe pod {name} -n {namespace}");
    let because = events.map_or_else(String::new, |event| format!(": {event}"));
    Ok(match phase {
        _ if unscheduled => Some(Failure::new(format!("pod {key} is on no node{because}")).remedy(see)),
        "Running" => {
            waits.map(|waits| Failure::new(format!("pod {key} does not run whole, {waits}{because}")).remedy(see))
        }
        phase => Some(Failure::new(format!("pod {key} does not run, it is {phase}{because}")).remedy(see)),
    })
}

async fn warnings(client: Client, namespace: &str, name: &str) -> Option<String> {
    let events: Api<api::Event> = Api::namespaced(client, namespace);
    let about = ListParams::default().fields(&format!("involvedObject.name={name}"));
    let mut listed = events.list(&about).await.ok()?.items;
    listed.retain(|event| event.type_.as_deref() == Some("Warning"));
    listed.sort_by_key(|event| event.last_timestamp.as_ref().map(|time| time.0));
    listed.pop()?.message
}

/// What keeps a resolver from asking by what is planned; of the name servers that it asks one has to be reached.
fn name_server(state: &State, question: &Question, resolver: &Resolver) -> Option<Failure> {
    let (servers, see) = match resolver {
        Resolver::Node => return None,
        Resolver::Own(key, servers) => (servers.clone(), own_servers(key)),
        Resolver::Cluster => {
            let key = ServiceKey::new(DNS.0, DNS.1);
            let see = format!("kubectl get endpointslices -n {} -l kubernetes.io/service-name={}", DNS.0, DNS.1);
            if !state.cluster.services().contains_key(&key) {
                return Some(Failure::new(format!("names are not answered: there is no Service {key}")).remedy(see));
            }
            (vec![cluster_dns(state)?], see)
        }
    };
    let mut first: Option<String> = None;
    for server in servers {
        // Who listens there is in the sender's own network, where nothing is planned.
        if server.is_loopback() {
            return None;
        }
        let asked = Target { addr: server, protocol: Protocol::Udp, port: DNS_PORT };
        // Who has no address of its family does not ask it there.
        let Ok(trace) = state.cluster.trace(&question.from, asked) else { continue };
        let broken = trace.paths.iter().find(|path| !path.end.verdict.is_well())?;
        first.get_or_insert_with(|| broken.end.why.clone());
    }
    let why = match (first, resolver) {
        (Some(why), _) => why,
        (None, Resolver::Own(key, _)) => format!("pod {key} asks no name server that it has a way to"),
        (None, _) => return None,
    };
    Some(Failure::new(format!("names are not answered: {why}")).remedy(see))
}

/// What there is to be looked at where a pod has name servers of its own.
fn own_servers(pod: &PodKey) -> String {
    format!("dnsConfig of the pod: kubectl get pod {} -n {} -o jsonpath='{{.spec.dnsConfig}}'", pod.name, pod.namespace)
}

/// The first ClusterIP of cluster DNS.
pub(super) fn cluster_dns(state: &State) -> Option<IpAddr> {
    match &state.cluster.services().get(&ServiceKey::new(DNS.0, DNS.1))?.kind {
        ServiceKind::Virtual { cluster_ips } => cluster_ips.first().map(|addr| addr.0),
        ServiceKind::Headless | ServiceKind::External { .. } => None,
    }
}

/// What the plan itself says against it.
fn by_plan(state: &State, path: &Path) -> Option<Failure> {
    let End { verdict, why } = &path.end;
    if verdict.is_well() {
        return None;
    }
    let object = path.hops.iter().rev().find_map(|hop| hop.object.as_ref());
    let service = path.hops.iter().rev().filter_map(|hop| hop.object.as_ref()).find(|object| object.kind == "service");
    let remedy = match (verdict, service) {
        _ if why.contains("loadBalancerSourceRanges") => {
            "add the sender's range to spec.loadBalancerSourceRanges".to_owned()
        }
        _ if why.contains("policy Local") => {
            "run a pod of the Service on that node, or set the traffic policy to Cluster".to_owned()
        }
        _ if why.contains("is a ClusterIP without port") => {
            let owner = state.cluster.services().values().find(|service| is_at(service, path));
            owner.map_or_else(
                || "ask for a port that the Service has".to_owned(),
                |service| {
                    let ports: Vec<String> =
                        service.ports.iter().map(|port| format!("{}/{}", port.port, port.protocol)).collect();
                    format!("service {} has the ports {}", service.key, ports.join(", "))
                },
            )
        }
        (Verdict::Refused, _) if why.starts_with("mode userspace has no SCTP") => {
            "set another mode of Services (nftables, iptables, ipvs, ebpf): kube-proxy's configuration, key mode"
                .to_owned()
        }
        (Verdict::Refused, Some(service)) => {
            let namespace = service.namespace.as_deref().unwrap_or_default();
            format!(
                "its selector must match ready pods: kubectl get endpointslices -n {namespace} -l kubernetes.io/service-name={}",
                service.name
            )
        }
        (Verdict::Lost, _) if why.starts_with("no pod has") => {
            "the address is an old one: ask for the pod's address of now".to_owned()
        }
        (Verdict::NoRoute, _) => "podnet ipam check; kubectl get ippools,ipamblocks".to_owned(),
        _ => object
            .map_or_else(|| "podnet trace shows the way".to_owned(), |object| format!("kubectl describe {object}")),
    };
    Some(Failure::new(why.clone()).remedy(remedy))
}

fn is_at(service: &podnet_model::Service, path: &Path) -> bool {
    let ServiceKind::Virtual { cluster_ips } = &service.kind else { return false };
    cluster_ips.iter().any(|addr| addr.0 == path.destination.addr)
}

/// The way of a packet, and that of the answer.
fn there_and_back(state: &State, question: &Question) -> Result<Trace, Failure> {
    let trace = operand::follow(state, question)?;
    let mut all = trace.clone();
    for path in &trace.paths {
        let pod = state.cluster.pod_of(path.destination.addr);
        let (Some(pod), Some(port)) = (pod, question.targets.first().map(|(target, _)| target.port)) else { continue };
        let back = Target { addr: path.source, protocol: Protocol::Tcp, port };
        if let Ok(answers) = state.cluster.trace(&Source::Pod(pod.clone()), back) {
            all.paths.extend(answers.paths);
        }
    }
    Ok(all)
}

/// Whether there is somebody who takes what arrives.
fn receiver(
    state: &State,
    options: &WhyOptions,
    path: &Path,
    protocol: Option<Protocol>,
) -> Result<Option<Failure>, Failure> {
    let Some(Place::Pod(key, node)) = path.hops.last().map(|hop| &hop.place) else { return Ok(None) };
    if let Some(broken) = running(options, key)? {
        return Ok(Some(broken));
    }
    let Some(protocol) = protocol else { return Ok(None) };
    let (addr, port) = (path.destination.addr, path.destination.port);
    let netns = inside::namespace_of(addr).filter(|_| state.here.contains_key(node));
    let Some(netns) = netns else { return Ok(None) };
    if inside::listens(&netns, protocol, port) != Some(false) {
        return Ok(None);
    }
    let through = path.hops.iter().filter_map(|hop| hop.object.as_ref()).find(|object| object.kind == "service");
    let remedy = match through {
        Some(service) => {
            format!("set targetPort of service {} to a port that the pod's program listens on", service.name)
        }
        None => "start the program, or ask for the port that it listens on; 127.0.0.1 alone does not count".to_owned(),
    };
    Ok(Some(Failure::new(format!("nothing in pod {key} listens on port {port}/{protocol}")).remedy(remedy)))
}

/// What comes of trying to connect.
enum Alive {
    /// Nobody answers at one of the addresses, as is said.
    Broken(Target, String),
    Works,
    /// Nothing can be tried from here: the sender is a node, or elsewhere, or it is not asked for TCP, or no address is known.
    Untried,
}

/// Everything is as it should be, and yet nobody answers: somebody else's rules.
fn alive(state: &State, question: &Question) -> Result<Alive, Failure> {
    if question.stands_in.is_some() {
        return Ok(Alive::Untried);
    }
    let Source::Pod(key) = &question.from else { return Ok(Alive::Untried) };
    let Some(pod) = state.cluster.pods().get(key).filter(|pod| !pod.host_network) else { return Ok(Alive::Untried) };
    let Some(netns) = inside::namespace_of_pod(state, pod) else { return Ok(Alive::Untried) };
    for (target, _) in &question.targets {
        if target.protocol != Protocol::Tcp {
            return Ok(Alive::Untried);
        }
        let to = SocketAddr::new(target.addr, target.port);
        if let Err(error) = inside::connect(&netns, to)? {
            let what = format!(
                "all is as podnet planned it, and a connection from pod {key} to {to} fails all the same ({error})"
            );
            return Ok(Alive::Broken(*target, what));
        }
    }
    Ok(Alive::Works)
}

/// Of a connection that fails, by a probe: between which devices.
fn where_it_breaks(state: &State, mut question: Question, access: &Access, target: Target, what: String) -> Failure {
    question.targets = vec![(target, 1.0)];
    let found = match probed::of_both_sizes(state, &mut question, access) {
        Err(broken) => Some(broken.sentence()),
        Ok(Some(unknown)) => Some(unknown),
        Ok(None) => None,
    };
    let what = match found {
        Some(found) => format!("{what}: {found}"),
        None => what,
    };
    Failure::new(what).remedy(
        "somebody else's rules may drop it: nft list ruleset, iptables-save there, or on the nodes that podnet trace names",
    )
}
