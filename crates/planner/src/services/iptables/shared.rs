//! The chains that all Services share, and what leads into them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use podnet_model::{Family, Protocol};

use super::{
    super::{FrontendKind, Plan, Services, ServicesConfig},
    Context, Iptables,
    port::Layout,
};
use crate::iptables::{ChainKey, ChainName, Hook, Match, Rule, Table, Target, Transport};

/// kube-proxy's words.
const LAST: &str = "kubernetes service nodeports; NOTE: this must be the last rule in this chain";

pub(super) fn nat(name: impl AsRef<str>) -> ChainKey {
    ChainKey::new(Table::Nat, name.as_ref())
}

pub(super) fn filter(name: &str) -> ChainKey {
    ChainKey::new(Table::Filter, name)
}

pub(super) fn services() -> ChainKey {
    nat("KUBE-SERVICES")
}

pub(super) fn node_ports() -> ChainKey {
    nat("KUBE-NODEPORTS")
}

pub(super) fn inside() -> ChainKey {
    nat("KUBE-INSIDE")
}

pub(super) fn ping() -> ChainKey {
    nat("KUBE-PING")
}

pub(super) fn health_checks() -> ChainKey {
    filter("KUBE-NODEPORTS")
}

fn cluster_ips() -> ChainKey {
    filter("KUBE-CLUSTER-IPS")
}

fn reject() -> ChainKey {
    filter("KUBE-REJECT")
}

/// How what nobody serves is refused.
pub(super) fn refusal(protocol: Protocol, family: Family) -> Target {
    match protocol {
        Protocol::Tcp => Target::Reset,
        Protocol::Udp | Protocol::Sctp => Target::Reject(family),
    }
}

pub(super) fn mark() -> ChainName {
    "KUBE-MARK-MASQ".into()
}

pub(super) fn mark_not_local() -> ChainName {
    "KUBE-MARK-NOT-LOCAL".into()
}

pub(super) fn local_pods() -> ChainName {
    "KUBE-LOCAL-PODS".into()
}

/// Marks all but pods, wherever they are.
pub(super) fn mark_not_pods(context: Context<'_>) -> Rule {
    if context.masquerade_all {
        return Rule::jump(&mark());
    }
    let mut ranges = context.pods.iter();
    match (ranges.next(), ranges.next()) {
        (None, _) => Rule::jump(&mark()),
        (Some(only), None) => Rule::jump(&mark()).not_from(*only),
        _ => Rule::jump(&"KUBE-MARK-NOT-PODS".into()),
    }
}

/// The shared chains that a plan touches by something else than a frontend.
pub(super) fn touched(plan: &Plan) -> BTreeSet<ChainKey> {
    let mut touched = BTreeSet::new();
    if !plan.cluster_ips.is_empty() {
        touched.extend([ping(), cluster_ips(), filter("KUBE-SERVICES")]);
    }
    if !plan.local_pods.is_empty() {
        touched.extend([nat(local_pods()), nat(mark_not_local())]);
    }
    // The last rules of this one are for the addresses with NodePorts: they come and go with these.
    let node_port = |change: &super::super::FrontendChange| {
        let of = |serving: &std::sync::Arc<super::Serving>| serving.kind == FrontendKind::NodePort;
        change.before.as_ref().is_some_and(of) != change.after.as_ref().is_some_and(of)
    };
    if plan.frontends.iter().any(node_port) {
        touched.insert(self::services());
    }
    touched
}

/// What leads into podnet's chains.
pub(super) fn hooks() -> Vec<Hook> {
    let hook = |table, at: &str, to: &str, new: bool, comment: &str| {
        let rule = Rule::jump(&to.into());
        let rule = if new { rule.when(Match::ConnectionNew) } else { rule };
        Hook { at: ChainKey::new(table, at), rule: rule.because(comment) }
    };
    let portals = |table, at, new| hook(table, at, "KUBE-SERVICES", new, "kubernetes service portals");
    let firewall = |at| hook(Table::Filter, at, "KUBE-PROXY-FIREWALL", true, "kubernetes load balancer firewall");
    let visible = "kubernetes externally-visible service portals";
    let external = |at| hook(Table::Filter, at, "KUBE-EXTERNAL-SERVICES", true, visible);
    vec![
        portals(Table::Nat, "PREROUTING", false),
        portals(Table::Nat, "OUTPUT", false),
        hook(Table::Nat, "POSTROUTING", POSTROUTING, false, "kubernetes postrouting rules"),
        firewall("INPUT"),
        hook(Table::Filter, "INPUT", "KUBE-NODEPORTS", false, "kubernetes health check service ports"),
        external("INPUT"),
        firewall("FORWARD"),
        hook(Table::Filter, "FORWARD", FORWARD, false, "kubernetes forwarding rules"),
        portals(Table::Filter, "FORWARD", true),
        external("FORWARD"),
        firewall("OUTPUT"),
        portals(Table::Filter, "OUTPUT", true),
        external("OUTPUT"),
    ]
}

impl Iptables {
    /// The shared chains that are wanted, as they have to be.
    pub(super) fn shared(
        &self,
        services: &Services,
        wanted: impl Fn(&ChainKey) -> bool,
    ) -> BTreeMap<ChainKey, Vec<Rule>> {
        let mut chains = constant(&services.config);
        chains.retain(|key, _| wanted(key));
        self.add_addresses(services, &wanted, &mut chains);
        let of_ports = OF_PORTS.map(|(table, name)| ChainKey::new(table, name));
        chains.extend(of_ports.into_iter().filter(&wanted).map(|key| (key, Vec::new())));
        if OF_PORTS.iter().any(|(table, name)| chains.contains_key(&ChainKey::new(*table, *name))) {
            self.add_ports(Context::of(services), &mut chains);
        }
        if let Some(rules) = chains.get_mut(&self::services()) {
            rules.insert(0, pings(services.config.family));
            let node_ports = node_ports().name;
            let to = |addr: IpAddr| Rule::jump(&node_ports).to(addr.into()).because(LAST);
            rules.extend(self.node_port_addrs().into_iter().map(to));
        }
        if let Some(rules) = chains.get_mut(&filter("KUBE-SERVICES")) {
            rules.extend(covering(services.cluster_ips.iter()).map(|range| {
                let rule = Rule::jump(&cluster_ips().name).to(range);
                rule.because("ports that the ClusterIP does not have").when(Match::Untranslated)
            }));
        }
        chains
    }

    /// The chains that have a rule for each address of some kind, and those that have rules of nothing but this value's own.
    fn add_addresses(
        &self,
        services: &Services,
        wanted: &impl Fn(&ChainKey) -> bool,
        chains: &mut BTreeMap<ChainKey, Vec<Rule>>,
    ) {
        let mut put = |key: ChainKey, rules: &dyn Fn() -> Vec<Rule>| {
            if wanted(&key) {
                chains.insert(key, rules());
            }
        };
        let otherwise_mark = |sources: &mut dyn Iterator<Item = IpNet>| {
            let rules = sources.map(|source| Rule::new(Target::Return).from(source));
            rules.chain([Rule::jump(&mark())]).collect()
        };
        let pods = || services.local_pods.iter().map(IpNet::from);
        put(nat("KUBE-MARK-NOT-PODS"), &|| otherwise_mark(&mut Context::of(services).pods.iter().copied()));
        put(nat(mark_not_local()), &|| otherwise_mark(&mut pods()));
        put(nat(local_pods()), &|| pods().map(|pod| Rule::new(Target::Goto(inside().name)).from(pod)).collect());
        put(ping(), &|| {
            let to = |echo| move |ip: IpAddr| Rule::new(Target::DnatAddress(echo)).to(ip.into());
            self.echo.into_iter().flat_map(|echo| services.cluster_ips.iter().map(to(echo))).collect()
        });
        put(cluster_ips(), &|| {
            services.cluster_ips.iter().map(|ip| Rule::jump(&reject().name).to(ip.into())).collect()
        });
        put(health_checks(), &|| self.health_check_rules());
    }

    fn add_ports(&self, context: Context<'_>, chains: &mut BTreeMap<ChainKey, Vec<Rule>>) {
        for (port, frontends) in &self.ports {
            for (key, rule) in Layout::new(port, frontends).shared(context) {
                // A NodePort is at several addresses, and has one rule.
                if let Some(rules) = chains.get_mut(&key).filter(|rules| rules.last() != Some(&rule)) {
                    rules.push(rule);
                }
            }
        }
    }

    fn node_port_addrs(&self) -> BTreeSet<IpAddr> {
        let all = self.ports.values().flatten();
        all.filter(|(_, serving)| serving.kind == FrontendKind::NodePort).map(|(key, _)| key.addr).collect()
    }

    /// Load balancers ask even where a host accepts nothing else.
    fn health_check_rules(&self) -> Vec<Rule> {
        let accept = |(port, service): (&podnet_model::NodePort, &podnet_model::ServiceKey)| {
            Rule::new(Target::Accept).to_port(Protocol::Tcp, port.0, format!("{service} health check node port"))
        };
        self.health_checks.iter().map(accept).collect()
    }
}

/// The chains that are the same whatever there is.
fn constant(config: &ServicesConfig) -> BTreeMap<ChainKey, Vec<Rule>> {
    let (bits, family) = (config.masquerade_mark, config.family);
    let invalid = config.drops_invalid.then(|| Rule::new(Target::Drop).when(Match::ConnectionInvalid));
    [
        (nat(mark()), vec![Rule::new(Target::SetMark(bits))]),
        (reject(), refusals(family)),
        (nat(POSTROUTING), from_loopback(config).into_iter().chain(postrouting(bits)).collect()),
        (filter(FORWARD), invalid.into_iter().chain(forward(bits)).collect()),
    ]
    .into()
}

/// The chain whose first rule drops what fits no connection, where that is dropped: it counts what kube-proxy counts by nfacct
/// (`ct_state_invalid_dropped_pkts`).
pub fn counts_invalid(config: &ServicesConfig) -> Option<ChainKey> {
    config.drops_invalid.then(|| filter(FORWARD))
}

/// The chain whose first rule counts what comes to NodePorts of the loopback: of each connection the first packet, as kube-proxy does by
/// nfacct (`localhost_nps_accepted_pkts`). What others translate, as a `hostPort`, has no mark. The chain is written anew for no Service, so the
/// count lasts. Of IPv4 alone, as kube-proxy's.
pub fn counts_from_loopback(config: &ServicesConfig) -> Option<ChainKey> {
    (config.family == Family::V4).then(|| nat(POSTROUTING))
}

fn from_loopback(config: &ServicesConfig) -> Option<Rule> {
    let range = Ipv4Net::new(Ipv4Addr::new(127, 0, 0, 0), 8).ok().filter(|_| config.family == Family::V4)?;
    let rule = Rule::new(Target::GoOn).because("connections to node ports of the loopback");
    let marked = rule.when(Match::Mark { bits: config.masquerade_mark, set: true });
    Some(marked.when(Match::TranslatedFrom(range.into())))
}

const POSTROUTING: &str = "KUBE-POSTROUTING";
const FORWARD: &str = "KUBE-FORWARD";

/// How what comes here is refused.
pub(in crate::services) fn refusals(family: Family) -> Vec<Rule> {
    vec![Rule::new(Target::Reset).of(Transport::Ports(Protocol::Tcp)), Rule::new(Target::Reject(family))]
}

/// What is marked is masqueraded.
pub(in crate::services) fn postrouting(bits: u32) -> Vec<Rule> {
    vec![
        Rule::new(Target::Return).when(Match::Mark { bits, set: false }),
        // The mark is off before the packet is encapsulated, or the outer packet would inherit it.
        Rule::new(Target::FlipMark(bits)),
        Rule::new(Target::Masquerade).because("kubernetes service traffic requiring SNAT"),
    ]
}

/// Services' connections pass, also where a host forwards nothing else.
pub(in crate::services) fn forward(bits: u32) -> Vec<Rule> {
    let marked = Rule::new(Target::Accept).because("kubernetes forwarding rules");
    vec![
        marked.when(Match::Mark { bits, set: true }),
        Rule::new(Target::Accept).because("kubernetes forwarding conntrack rule").when(Match::ConnectionKnown),
    ]
}

/// The chains that have rules of ports.
const OF_PORTS: [(Table, &str); 6] = [
    (Table::Nat, "KUBE-SERVICES"),
    (Table::Nat, "KUBE-NODEPORTS"),
    (Table::Nat, "KUBE-INSIDE"),
    (Table::Filter, "KUBE-SERVICES"),
    (Table::Filter, "KUBE-EXTERNAL-SERVICES"),
    (Table::Filter, "KUBE-PROXY-FIREWALL"),
];

fn pings(family: Family) -> Rule {
    let rule = Rule::jump(&ping().name).of(Transport::Icmp(family)).because("pings of ClusterIPs");
    rule.when(Match::EchoRequest(family))
}

/// The smallest range with all of these in it; none where there are none.
fn covering(addrs: impl Iterator<Item = IpAddr>) -> Option<IpNet> {
    let addrs: BTreeSet<IpAddr> = addrs.collect();
    let (first, last) = (*addrs.first()?, *addrs.last()?);
    match (first, last) {
        (IpAddr::V4(first), IpAddr::V4(last)) => {
            let same = (u32::from(first) ^ u32::from(last)).leading_zeros();
            let range: Option<Ipv4Net> = Ipv4Net::new(Ipv4Addr::from(u32::from(first)), u8::try_from(same).ok()?).ok();
            range.map(|range| range.trunc().into())
        }
        (IpAddr::V6(first), IpAddr::V6(last)) => {
            let same = (u128::from(first) ^ u128::from(last)).leading_zeros();
            let range: Option<Ipv6Net> = Ipv6Net::new(Ipv6Addr::from(u128::from(first)), u8::try_from(same).ok()?).ok();
            range.map(|range| range.trunc().into())
        }
        _ => None,
    }
}
