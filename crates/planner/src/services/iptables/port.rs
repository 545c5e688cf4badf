//! The chains of one port of one Service, and its rules in the chains of all.

use std::{collections::BTreeSet, net::SocketAddr};

use super::{
    super::{Backend, Backends, FrontendKind, Serving},
    Context, Frontends, Port,
    shared::{self, filter, nat},
};
use crate::{
    iptables::{ChainKey, ChainName, Match, Rule, Target, Transport, endpoint_chain, nth_port_chain, port_text},
    ruleset::{BackendAddress, FrontendKey},
};

/// A chain that chooses among all backends.
const EVERYWHERE: &str = "KUBE-SVC-";
/// One that chooses among those that a policy `Local` leaves.
const HERE: &str = "KUBE-SVL-";
/// One for who comes to an address that is no ClusterIP.
const EXTERNAL: &str = "KUBE-EXT-";
/// One for who comes to a load balancer's address that only some may come to.
const FIREWALL: &str = "KUBE-FW-";

/// Which chains a port needs, and which frontend leads to which of them.
///
/// Chains are known by what they do: frontends that do the same share one. As a rule there is one of each kind, and its name is
/// kube-proxy's; a second one has a number in what its name is the digest of.
pub(super) struct Layout<'a> {
    port: &'a Port,
    /// In the words of comments.
    text: String,
    lists: Vec<List>,
    ways: Vec<Way>,
    frontends: Vec<Placed<'a>>,
}

/// A chain that chooses.
struct List {
    prefix: &'static str,
    chain: ChainName,
    backends: BTreeSet<BackendAddress>,
    affinity: Option<u32>,
}

/// A chain for who comes to an address that is no ClusterIP.
struct Way {
    chain: ChainName,
    leads: Leads,
}

/// Where it leads.
#[derive(Clone, PartialEq, Eq)]
struct Leads {
    /// Who is of this node, or a pod of it.
    inside: Option<ChainName>,
    /// Everybody else.
    outside: Option<ChainName>,
    /// Those two are told apart.
    differs: bool,
    keeps_source: bool,
}

/// A frontend, and the chain that it leads to; none where nobody serves it.
struct Placed<'a> {
    key: FrontendKey,
    serving: &'a Serving,
    chain: Option<ChainName>,
    inside: Option<ChainName>,
}

impl<'a> Layout<'a> {
    pub(super) fn new(port: &'a Port, frontends: &'a Frontends) -> Self {
        let text = port_text(&port.service, &port.name);
        let mut layout = Self { port, text, lists: Vec::new(), ways: Vec::new(), frontends: Vec::new() };
        // External addresses first: to this node and its pods they are served by all endpoints, which is what the plain name says.
        let external =
            |(_, serving): &(&FrontendKey, &std::sync::Arc<Serving>)| serving.kind != FrontendKind::ClusterIp;
        for (key, serving) in frontends.iter().filter(external) {
            layout.place_external(*key, serving);
        }
        for (key, serving) in frontends.iter().filter(|one| !external(one)) {
            layout.place_cluster_ip(*key, serving);
        }
        layout.frontends.sort_by_key(|placed| (placed.serving.kind, placed.key));
        layout
    }

    fn place_cluster_ip(&mut self, key: FrontendKey, serving: &'a Serving) {
        let taken = |list: &List| list.prefix == EVERYWHERE && list.backends != addresses(&serving.inside);
        let prefix = if self.lists.iter().any(taken) { HERE } else { EVERYWHERE };
        let chain = self.list(prefix, &serving.inside, serving.affinity);
        self.frontends.push(Placed { key, serving, inside: chain.clone(), chain });
    }

    fn place_external(&mut self, key: FrontendKey, serving: &'a Serving) {
        let differs = serving.differs_outside();
        let inside = self.list(EVERYWHERE, &serving.inside, serving.affinity);
        let outside = match differs {
            false => inside.clone(),
            true => self.list(HERE, &serving.outside, serving.affinity),
        };
        let leads = Leads { inside: inside.clone(), outside, differs, keeps_source: serving.keeps_source };
        let chain = (leads.inside.is_some() || leads.outside.is_some()).then(|| self.way(leads));
        self.frontends.push(Placed { key, serving, chain, inside });
    }

    fn list(&mut self, prefix: &'static str, backends: &Backends, affinity: Option<u32>) -> Option<ChainName> {
        let backends = addresses(backends);
        if backends.is_empty() {
            return None;
        }
        let of_kind = || self.lists.iter().filter(|list| list.prefix == prefix);
        if let Some(list) = of_kind().find(|list| list.backends == backends && list.affinity == affinity) {
            return Some(list.chain.clone());
        }
        let chain = self.chain(prefix, of_kind().count());
        self.lists.push(List { prefix, chain: chain.clone(), backends, affinity });
        Some(chain)
    }

    fn way(&mut self, leads: Leads) -> ChainName {
        if let Some(way) = self.ways.iter().find(|way| way.leads == leads) {
            return way.chain.clone();
        }
        let chain = self.chain(EXTERNAL, self.ways.len());
        self.ways.push(Way { chain: chain.clone(), leads });
        chain
    }

    fn chain(&self, prefix: &str, number: usize) -> ChainName {
        nth_port_chain(prefix, &self.port.service, &self.port.name, self.port.protocol, number)
    }

    /// The chains of the port's own.
    pub(super) fn chains(&self, context: Context<'_>) -> Vec<(ChainKey, Vec<Rule>)> {
        let mut chains: Vec<_> = self.lists.iter().map(|list| self.choosing(list, context)).collect();
        chains.extend(self.ways.iter().map(|way| self.external(way)));
        chains.extend(self.frontends.iter().filter_map(|placed| self.firewall(placed)));
        let backends: BTreeSet<_> = self.lists.iter().flat_map(|list| &list.backends).collect();
        let remembers = self.lists.iter().any(|list| list.affinity.is_some());
        chains.extend(backends.into_iter().map(|backend| self.endpoint(*backend, remembers, context)));
        chains
    }

    /// One of the backends, each as likely as the others, or the one that the client had before.
    fn choosing(&self, list: &List, context: Context<'_>) -> (ChainKey, Vec<Rule>) {
        let mut rules = Vec::new();
        let leading = self.frontends.iter().filter(|placed| placed.serving.kind == FrontendKind::ClusterIp);
        for placed in leading.filter(|placed| placed.chain.as_ref() == Some(&list.chain)) {
            let comment = format!("{} cluster IP", self.text);
            rules.push(shared::mark_not_pods(context).to_frontend(&placed.key, comment));
        }
        let says =
            |backend: &BackendAddress| format!("{} -> {}", self.text, SocketAddr::from((backend.addr, backend.port)));
        let chain = |backend: &BackendAddress| self.endpoint_chain(*backend);
        if let Some(seconds) = list.affinity {
            rules.extend(list.backends.iter().map(|backend| {
                let before = Match::Remembered { list: chain(backend), seconds, family: context.family };
                Rule::jump(&chain(backend)).because(says(backend)).when(before)
            }));
        }
        let left = (1..=list.backends.len()).rev().map(|left| u32::try_from(left).unwrap_or(u32::MAX));
        rules.extend(list.backends.iter().zip(left).map(|(backend, left)| {
            let rule = Rule::jump(&chain(backend)).because(says(backend));
            if left > 1 { rule.when(Match::OneIn(left)) } else { rule }
        }));
        (nat(&list.chain), rules)
    }

    /// A backend: a pod that comes to itself is masqueraded, for its answers would not come back here.
    fn endpoint(&self, backend: BackendAddress, remembers: bool, context: Context<'_>) -> (ChainKey, Vec<Rule>) {
        let chain = self.endpoint_chain(backend);
        let itself = Rule::jump(&shared::mark()).from(backend.addr.into()).because(&self.text);
        let mut to = Rule::new(Target::Dnat(backend)).of(Transport::Ports(self.port.protocol)).because(&self.text);
        if remembers {
            to = to.when(Match::Remember { list: chain.clone(), family: context.family });
        }
        (nat(&chain), vec![itself, to])
    }

    fn endpoint_chain(&self, backend: BackendAddress) -> ChainName {
        endpoint_chain(&self.port.service, &self.port.name, self.port.protocol, backend)
    }

    /// Who comes to an address that is no ClusterIP.
    fn external(&self, way: &Way) -> (ChainKey, Vec<Rule>) {
        let text = &self.text;
        let Leads { inside, outside, differs, keeps_source } = &way.leads;
        let mut rules = Vec::new();
        if *differs {
            let comment = format!("pod traffic for {text} external destinations");
            rules.push(Rule::jump(&shared::local_pods()).because(comment));
            if let Some(inside) = inside {
                let local = |to: &ChainName, what: &str| {
                    let comment = format!("{what} LOCAL traffic for {text} external destinations");
                    Rule::jump(to).because(comment).when(Match::SourceLocal)
                };
                rules.extend([local(&shared::mark(), "masquerade"), local(inside, "route")]);
            }
        }
        if !keeps_source {
            let comment = format!("masquerade traffic for {text} external destinations");
            rules.push(Rule::jump(&shared::mark_not_local()).because(comment));
        }
        rules.extend(outside.iter().map(Rule::jump));
        (nat(&way.chain), rules)
    }

    /// Who may come to a load balancer's address.
    fn firewall(&self, placed: &Placed<'a>) -> Option<(ChainKey, Vec<Rule>)> {
        let (sources, external) = (placed.serving.sources.as_ref()?, placed.chain.as_ref()?);
        let comment = format!("{} loadbalancer IP", self.text);
        let rules = sources.iter().map(|range| Rule::jump(external).from(*range).because(&comment));
        Some((nat(self.chain(FIREWALL, 0)), rules.collect()))
    }

    /// The port's rules in the chains of all.
    pub(super) fn shared(&self, context: Context<'_>) -> impl Iterator<Item = (ChainKey, Rule)> {
        self.frontends.iter().flat_map(move |placed| {
            let mut rules: Vec<_> = self.served(placed).into_iter().collect();
            rules.extend(self.led_past(placed));
            rules.extend(self.unserved(placed, context));
            rules
        })
    }

    /// The rule that leads to what serves it.
    fn served(&self, placed: &Placed<'a>) -> Option<(ChainKey, Rule)> {
        let chain = placed.chain.as_ref()?;
        let (text, key) = (&self.text, &placed.key);
        let rule = match placed.serving.kind {
            FrontendKind::ClusterIp => Rule::jump(chain).to_frontend(key, format!("{text} cluster IP")),
            FrontendKind::ExternalIp => Rule::jump(chain).to_frontend(key, format!("{text} external IP")),
            FrontendKind::LoadBalancer => {
                let firewall = placed.serving.sources.as_ref().map(|_| self.chain(FIREWALL, 0));
                Rule::jump(firewall.as_ref().unwrap_or(chain)).to_frontend(key, format!("{text} loadbalancer IP"))
            }
            FrontendKind::NodePort => {
                return Some((shared::node_ports(), Rule::jump(chain).to_port(key.protocol, key.port, text)));
            }
        };
        Some((shared::services(), rule))
    }

    /// This node's pods come to all backends whatever a policy says.
    fn led_past(&self, placed: &Placed<'a>) -> Option<(ChainKey, Rule)> {
        let external = placed.serving.kind != FrontendKind::ClusterIp && placed.serving.differs_outside();
        let inside = placed.inside.as_ref().filter(|_| external)?;
        let comment = format!("{} from pods of this node", self.text);
        Some((shared::inside(), Rule::jump(inside).to_frontend(&placed.key, comment)))
    }

    /// What becomes of who is not served.
    fn unserved(&self, placed: &Placed<'a>, context: Context<'_>) -> Vec<(ChainKey, Rule)> {
        let Placed { key, serving, .. } = placed;
        let refusal = shared::refusal(key.protocol, context.family);
        let reject = |what: &str| Rule::new(refusal.clone()).to_frontend(key, format!("{} {what}", self.text));
        let drop = |what: &str| Rule::new(Target::Drop).to_frontend(key, format!("{} {what}", self.text));
        let (nobody, not_here) = ("has no endpoints", "has no local endpoints");
        let chain = match serving.kind {
            FrontendKind::ClusterIp => filter("KUBE-SERVICES"),
            _ => filter("KUBE-EXTERNAL-SERVICES"),
        };
        let rules = match (&serving.inside, &serving.outside, &serving.sources) {
            (Backends::Reject, _, None) => vec![reject(nobody)],
            (Backends::Reject, _, Some(sources)) => {
                let mut rules: Vec<_> = sources.iter().map(|range| reject(nobody).from(*range)).collect();
                rules.push(drop("is not for everybody"));
                rules
            }
            (Backends::Drop, _, _) | (_, Backends::Drop | Backends::Reject, None) => vec![drop(not_here)],
            (Backends::Of(_), _, Some(_)) => {
                let comment = format!("{} traffic not accepted by {}", self.text, self.chain(FIREWALL, 0));
                return vec![(filter("KUBE-PROXY-FIREWALL"), Rule::new(Target::Drop).to_frontend(key, comment))];
            }
            (Backends::Of(_), Backends::Of(_), None) => Vec::new(),
        };
        rules.into_iter().map(|rule| (chain.clone(), rule)).collect()
    }
}

fn addresses(backends: &Backends) -> BTreeSet<BackendAddress> {
    backends.slots().iter().map(|Backend { at, .. }| *at).collect()
}
