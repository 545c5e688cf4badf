//! What is traced beside what the kernels of the nodes really have.

mod pods;
mod services;

use std::collections::{BTreeMap, BTreeSet};

use podnet_kernel::{
    forwarding::FORWARDING6,
    nft::Passing,
    snapshot::{FORWARDING4, Snapshot, Told},
};
use podnet_model::{Family, LinkName, NodeName, PodKey, ServiceKey, proxy::Mode};
use podnet_planner::{
    border,
    overlay::State as Observed,
    ruleset::RuleSet,
    services::nftables,
    step::{Route, RouteTarget, Step},
    trace::{BY_UNDERLAY, Entry, Hop, Kind, Place, Planned, Trace},
};

use super::{kernels::Kernels, state::State};
use crate::report::Failure;

/// Who mends what is found on a node.
const MENDED: &str = "agents mend such things within a second: is it running? podnet status; podnet logs agent";

/// Something about a node, or about a pod on it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Remark {
    pub(super) node: NodeName,
    /// What nobody mends comes last of a node.
    mender: Mender,
    /// In words.
    pub(super) what: String,
}

/// Who mends what differs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Mender {
    /// The node's agent.
    Agent,
    /// Whoever keeps the underlay, of which this device is.
    Underlay(LinkName),
    /// Whoever keeps the node's kernel, which has no nf_tables.
    Kernel,
    /// The node's agent, unless it is told not to: whoever keeps the host's firewall then.
    Firewall,
    /// Nobody: it is inside of this pod.
    Nobody(PodKey),
}

/// What is wrong on a node, in words, and who mends it.
type Fault = (String, Mender);

impl Remark {
    fn on(node: &NodeName, (what, mender): Fault) -> Self {
        Self { node: node.clone(), mender, what }
    }

    fn inside(node: &NodeName, pod: &PodKey, what: String) -> Self {
        Self { node: node.clone(), mender: Mender::Nobody(pod.clone()), what }
    }

    /// What to do about it.
    pub(super) fn remedy(&self) -> String {
        match &self.mender {
            Mender::Agent => MENDED.to_owned(),
            Mender::Underlay(device) => format!(
                "agents leave the underlay's device as it is: ip link set {device} up on that node, where it is there"
            ),
            Mender::Kernel => "load nf_tables on that node (modprobe nf_tables), or take a kernel with it".to_owned(),
            Mender::Firewall => {
                "an agent lets pods' packets pass there, unless it has --iptables-forward-rules=false: then accept them in that chain yourself"
                    .to_owned()
            }
            Mender::Nobody(PodKey { namespace, name }) => format!(
                "agents mend nothing inside of a pod: who changed it there? A new pod is whole: kubectl delete pod {name} -n {namespace}"
            ),
        }
    }

    /// What is the first to be said of: that which somebody has to mend on a node may be why there is more.
    const fn rank(&self) -> u8 {
        match self.mender {
            Mender::Underlay(_) | Mender::Kernel | Mender::Firewall => 0,
            Mender::Agent => 1,
            // What is not mended by itself in a pod is said where nothing else is wrong.
            Mender::Nobody(_) => 2,
        }
    }
}

/// What came of comparing.
#[derive(Default)]
pub(super) struct Compared {
    /// What is wrong, each once, in the order of the hops.
    pub(super) found: Vec<Remark>,
    /// What goes another way than is planned, and gets there all the same.
    pub(super) detours: BTreeSet<Remark>,
    /// Nodes that nobody told of, and why.
    pub(super) unseen: BTreeMap<NodeName, String>,
    /// What of other nodes, and which pods, were not compared.
    pub(super) left_out: BTreeSet<Remark>,
    /// The pods that were not looked into; why is among what is left out.
    pub(super) closed: BTreeSet<PodKey>,
}

/// In words.
#[derive(Debug, Default, PartialEq, Eq)]
struct Findings {
    /// What is wrong.
    found: Vec<String>,
    /// What is served all the same, in another way than is planned, or may be.
    detours: Vec<String>,
    /// What is not known.
    left_out: Vec<String>,
}

impl Compared {
    fn take(&mut self, node: &NodeName, findings: Findings) {
        let remark = |what: String| Remark::on(node, (what, Mender::Agent));
        self.found.extend(findings.found.into_iter().map(remark));
        self.detours.extend(findings.detours.into_iter().map(remark));
        self.left_out.extend(findings.left_out.into_iter().map(remark));
    }

    /// What is not as it is planned.
    pub(super) fn differences(&self) -> impl Iterator<Item = &Remark> {
        self.found.iter().chain(&self.detours)
    }

    /// What it means for whoever asked.
    pub(super) fn failure(&self) -> Option<Failure> {
        match self.differences().count() {
            0 if self.unseen.is_empty() && self.left_out.is_empty() => None,
            0 => Some(
                Failure::incomplete("what was compared is as it is planned, and not all was compared")
                    .remedy("agents answer who may get nodes/forwarding, at their port for flows (--agent-port); of pods those of this version tell"),
            ),
            count => {
                let remedy = self.differences().min_by_key(|one| one.rank()).map(Remark::remedy);
                let failure = Failure::new(format!("{count} things on the way are not as they are planned"));
                Some(failure.remedy(remedy.unwrap_or_default()))
            }
        }
    }

    /// What was not compared, and why, a line for each.
    pub(super) fn lines(&self) -> impl Iterator<Item = String> {
        let unseen = self.unseen.iter().map(|(node, why)| format!("node {node} was not compared: {why}"));
        unseen.chain(self.left_out.iter().map(|one| format!("not compared on node {}: {}", one.node, one.what)))
    }
}

/// What differs on the ways of a trace, by what the nodes' kernels were told to have.
pub(super) fn compare(state: &State, trace: &Trace, kernels: &Kernels) -> Compared {
    let mut compared = Compared::default();
    let (mut observed, mut ruled, mut asked) = (BTreeMap::new(), BTreeSet::new(), BTreeMap::new());
    let mut opened: BTreeMap<&PodKey, Observed> = BTreeMap::new();
    let mut entries: BTreeMap<&NodeName, BTreeSet<Entry>> = BTreeMap::new();
    let mut hops: Vec<&Hop> = Vec::new();
    for hop in trace.paths.iter().flat_map(|path| &path.hops) {
        if !hops.contains(&hop) {
            hops.push(hop);
        }
    }
    for hop in hops {
        let node = match (&hop.place, hop.kind) {
            // A backend is chosen at a pod's socket by its node's programs.
            (Place::Node(node), _) | (Place::Pod(_, node), Kind::Chosen) => node,
            (Place::Pod(pod, node), _) => {
                match kernels.inside(pod) {
                    Ok(kernel) => {
                        let observed = opened.entry(pod).or_insert_with(|| kernel.observed());
                        let remark = |what: String| Remark::inside(node, pod, format!("in pod {pod}: {what}"));
                        let faults = of_hop(hop, kernel, observed, None);
                        compared.found.extend(faults.into_iter().map(|(what, _)| remark(what)));
                    }
                    Err(why) => {
                        compared.closed.insert(pod.clone());
                        let what = format!("what is inside of pod {pod}: {why}");
                        compared.left_out.insert(Remark::inside(node, pod, what));
                    }
                }
                continue;
            }
            (Place::Underlay, _) => continue,
        };
        let (Some(told), Some(planned)) = (kernels.of(node), state.cluster.planned(node)) else {
            compared.unseen.entry(node.clone()).or_insert_with(|| kernels.why_not(node).to_owned());
            continue;
        };
        let remark = |fault: Fault| Remark::on(node, fault);
        let observed = observed.entry(node).or_insert_with(|| told.kernel.observed());
        let faults = of_hop(hop, &told.kernel, observed, Some(&planned.facts.device));
        compared.found.extend(faults.into_iter().map(remark));
        if !hop.entries.is_empty() {
            entries.entry(node).or_default().extend(&hop.entries);
        }
        if services::is_served_at(hop, planned) {
            let whose: &mut BTreeSet<ServiceKey> = asked.entry(node).or_default();
            whose.extend(services::asked(hop));
        }
        if is_ruled(hop) && ruled.insert(node) {
            let (found, left_out) = of_rules(told, planned);
            compared.found.extend(found.into_iter().map(remark));
            compared.left_out.extend(left_out.into_iter().map(|what| remark((what, Mender::Agent))));
        }
    }
    for (node, whose) in asked {
        let (Some(told), Some(planned)) = (kernels.of(node), state.cluster.planned(node)) else { continue };
        compared.take(node, services::compare(told, planned, state.cluster.proxy(), &whose));
    }
    for (node, entries) in entries {
        let (Some(told), Some(planned)) = (kernels.of(node), state.cluster.planned(node)) else { continue };
        compared.take(node, pods::compare(told, planned, &entries));
    }
    let mut seen = BTreeSet::new();
    compared.found.retain(|one| seen.insert(one.clone()));
    compared
}

/// Whether rules have a say there.
const fn is_ruled(hop: &Hop) -> bool {
    matches!(hop.kind, Kind::Translated | Kind::Masqueraded | Kind::Judged | Kind::Routed)
}

/// Whether the routes that a packet takes there are somebody else's: nothing is planned that they could be compared with.
pub(super) fn is_by_underlay(hop: &Hop) -> bool {
    hop.rule.as_deref() == Some(BY_UNDERLAY)
}

/// What differs at a hop, in a network whose device of the underlay this is.
fn of_hop(hop: &Hop, kernel: &Snapshot, observed: &Observed, underlay: Option<&LinkName>) -> Vec<Fault> {
    let steps = hop.stands.iter().filter_map(|step| of_step(step, observed));
    let mut told: Vec<Fault> = steps.map(|what| (what, Mender::Agent)).collect();
    // What limits a pod is compared by itself: where it is missing, nothing is lost.
    if let Some(device) = hop.device.as_ref().filter(|_| hop.kind != Kind::Judged) {
        let mender = || if underlay == Some(device) { Mender::Underlay(device.clone()) } else { Mender::Agent };
        match kernel.devices.iter().find(|found| found.name == *device) {
            None => told.push((format!("there is no device {device}"), mender())),
            Some(found) if !found.is_up => told.push((format!("device {device} is down"), mender())),
            Some(found) if hop.mtu.is_some_and(|mtu| mtu != found.mtu) => {
                let mtu = hop.mtu.unwrap_or_default();
                // Of the underlay's device the agent follows it.
                told.push((format!("device {device} has MTU {} and not {mtu}", found.mtu), Mender::Agent));
            }
            Some(_) => {}
        }
    }
    told
}

/// A step that would change something tells what is wrong.
fn of_step(step: &Step, observed: &Observed) -> Option<String> {
    let mut after = observed.clone();
    after.apply(step);
    if after == *observed {
        return None;
    }
    Some(match step {
        Step::SetRoute(Route { dst, target }) => {
            let found = observed
                .routes
                .get(dst)
                .map_or_else(|| "there is none".to_owned(), |it| format!("it goes {}", way(it)));
            format!("the route to {dst} should go {}: {found}", way(target))
        }
        Step::SetNeighbour(entry) => {
            let found = observed.neighbours.get(&(entry.device.clone(), entry.addr));
            let found = found.map_or_else(|| "there is none".to_owned(), |mac| format!("it is {mac}"));
            format!("the neighbour {} on {} should be {}: {found}", entry.addr, entry.device, entry.mac)
        }
        Step::SetFdb(entry) => {
            let found = observed.fdb.get(&(entry.device.clone(), entry.mac));
            let found = found.map_or_else(|| "there is none".to_owned(), |remote| format!("it leads to {remote}"));
            format!("the FDB entry of {} on {} should lead to {}: {found}", entry.mac, entry.device, entry.remote)
        }
        Step::SetVxlan(vxlan) => match observed.vxlans.get(&vxlan.name) {
            None => format!("there is no VXLAN device {} that is up", vxlan.name),
            Some(found) if found.mtu != vxlan.mtu => {
                format!("device {} has MTU {} and not {}", vxlan.name, found.mtu, vxlan.mtu)
            }
            Some(_) => format!(
                "the VXLAN device {} has other settings than VNI {} and port {}",
                vxlan.name, vxlan.vni, vxlan.port
            ),
        },
        Step::SetTunnel(tunnel) => format!("the tunnel {} is missing or has other settings", tunnel.name()),
        Step::SetPeer(peer) => format!("the WireGuard peer {} is missing or has other ranges", peer.endpoint),
        other => format!("{other:?} is not done"),
    })
}

fn way(target: &RouteTarget) -> String {
    match target {
        RouteTarget::Device(device) => format!("to {device}"),
        RouteTarget::OnLink { device, via, .. } => format!("to {device} via {via}"),
        RouteTarget::Via(via) => format!("via {via}"),
        RouteTarget::Blackhole => "to nowhere".to_owned(),
    }
}

/// Of the settings, of the tables of nf_tables and of other people's chains that would drop what is forwarded: what is wrong, and what is not
/// known.
fn of_rules(told: &Told, planned: &Planned) -> (Vec<Fault>, Vec<String>) {
    let by_agent = |what: String| (what, Mender::Agent);
    let mut found: Vec<Fault> = of_settings(&told.kernel, planned).into_iter().map(by_agent).collect();
    let mut left_out = Vec::new();
    let Some(rules) = &told.kernel.rules else {
        let what = "its kernel has no nf_tables (CONFIG_NF_TABLES): there are no rules of podnet's".to_owned();
        found.push((what, Mender::Kernel));
        return (found, left_out);
    };
    let bordered = Family::ALL.into_iter().filter(|family| planned.bordered[*family]);
    let mut wanted: Vec<(&str, &RuleSet)> = bordered.map(|family| (border::TABLE, &planned.rules[family][1])).collect();
    if matches!(planned.facts.mode, Mode::Nftables | Mode::Ebpf) {
        let needed = Family::ALL.into_iter().filter(|family| planned.services[*family].is_needed());
        match told.is_configured_alone {
            true => left_out.push(services::CONFIGURED_ALONE.to_owned()),
            false => wanted.extend(needed.map(|family| (nftables::TABLE, &planned.rules[family][0]))),
        }
    }
    for (table, planned) in wanted {
        // Tables of both families are called the same.
        let of_family = |what: String| match planned.family {
            Family::V4 => what,
            Family::V6 => format!("{what} (family ip6)"),
        };
        found.extend(rules.differences(table, planned).into_iter().map(of_family).map(by_agent));
        left_out.extend(rules.unlisted(table, planned).into_iter().map(of_family));
    }
    // What is passed on by the agent itself needs other rules in these chains.
    if planned.facts.mode != Mode::Userspace {
        let all: Vec<Passing> = planned.overlay.pod_ranges().map(Passing::Range).collect();
        let walls = rules.walls.iter().filter(|chain| !chain.lets_pass(&all));
        found.extend(walls.map(|chain| {
            let what = format!("the host's firewall drops what is forwarded: chain {chain} has the policy drop");
            (what, Mender::Firewall)
        }));
    }
    (found, left_out)
}

/// A kernel that was started without a family has no setting of it.
fn of_settings(kernel: &Snapshot, planned: &Planned) -> Vec<String> {
    let needed = [(FORWARDING4, planned.node.v4().is_some()), (FORWARDING6, planned.overlay.carries_ipv6())];
    let mut told = Vec::new();
    for (key, _) in needed.into_iter().filter(|(_, is_needed)| *is_needed) {
        // 2 is forwarding too.
        if let Some(found) = kernel.settings.get(key).filter(|found| *found == "0") {
            told.push(format!("{} is {found} and not 1: nothing is forwarded", key.replace('/', ".")));
        }
    }
    told
}

#[cfg(test)]
mod tests;
