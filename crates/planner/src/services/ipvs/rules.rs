//! The chains: constant but for the addresses with NodePorts, the bit for masquerading, and whether all is masqueraded.
//!
//! A packet to a virtual server comes to this host and is translated at the end of the hook `input`, what this host sends itself at the begin
//! of the hook `output`: behind mangle and nat, before filter. So what this host may not reach is dropped in mangle.

use podnet_model::{Family, Protocol};

use super::{
    super::{Services, iptables::shared},
    Ipvs,
    sets::PROTOCOLS,
};
use crate::{
    iptables::{ChainKey, Hook, Match, Rule, Rules, Side, Table, Target, Transport},
    ipvs::SetName,
};

impl Ipvs {
    /// The chains as they have to be.
    #[must_use]
    pub fn rules(&self, services: &Services) -> Rules {
        let family = services.config().family;
        let chains = [
            (nat("KUBE-SERVICES"), self.services(services)),
            (
                nat("KUBE-LOAD-BALANCER"),
                vec![within(&self.sets.load_balancer[1], Side::DestinationPort).returns(), mark()],
            ),
            (nat("KUBE-NODE-ADDRESSES"), node_addrs(services)),
            (nat("KUBE-NODE-PORT"), self.node_ports()),
            (nat("KUBE-MARK-MASQ"), vec![Rule::new(Target::SetMark(services.config().masquerade_mark))]),
            (nat("KUBE-POSTROUTING"), self.postrouting(services.config().masquerade_mark)),
            (filter("KUBE-FORWARD"), shared::forward(services.config().masquerade_mark)),
            (filter("KUBE-REJECT"), shared::refusals(family)),
            (filter("KUBE-NODE-PORT"), self.health_checks()),
            (filter("KUBE-IPVS-FILTER"), self.inward(family)),
            (filter("KUBE-IPVS-OUT-FILTER"), filter_first(family).into()),
            (filter("KUBE-UNSERVED"), self.unserved()),
            (filter("KUBE-PROXY-FIREWALL"), vec![self.guarded()]),
            (filter("KUBE-SOURCE-RANGES-FIREWALL"), self.sources()),
            (mangle("KUBE-ATTRACT"), self.attract(family)),
            (mangle("KUBE-FROM-INSIDE"), self.told_apart()),
            (mangle("KUBE-IPVS-OUT-FILTER"), self.drop_early()),
            (mangle("KUBE-SOURCE-RANGES-FIREWALL"), self.sources()),
        ];
        Rules { chains: chains.into(), hooks: hooks() }
    }

    /// Who is masqueraded, as its connection comes.
    fn services(&self, services: &Services) -> Vec<Rule> {
        let sets = &self.sets;
        let mut to_cluster_ip = mark();
        if !services.config().masquerade_all {
            to_cluster_ip = to_cluster_ip.when(not_in(&sets.pods, Side::Source));
        }
        vec![
            to_cluster_ip
                .because("Kubernetes service cluster ip + port for masquerade purpose")
                .when(is_in(&sets.cluster_ip, Side::DestinationPort)),
            within(&sets.local_pods, Side::Source).because("pods of this node keep their address").returns(),
            Rule::jump(&"KUBE-LOAD-BALANCER".into())
                .because("Kubernetes service lb portal")
                .when(is_in(&sets.load_balancer[0], Side::DestinationPort)),
            within(&sets.external[1], Side::DestinationPort).returns(),
            mark()
                .because("Kubernetes service external ip + port for masquerade and filter purpose")
                .when(is_in(&sets.external[0], Side::DestinationPort)),
            Rule::jump(&"KUBE-NODE-ADDRESSES".into()),
        ]
    }

    fn node_ports(&self) -> Vec<Rule> {
        let of_protocol = PROTOCOLS.into_iter().zip(&self.sets.node_ports);
        let rules = of_protocol.flat_map(|(protocol, [all, local])| {
            let side = if protocol == Protocol::Sctp { Side::DestinationPort } else { Side::Destination };
            let of = |rule: Rule| rule.of(Transport::Ports(protocol));
            [of(Rule::new(Target::Return)).when(is_in(local, side)), of(mark()).when(is_in(all, side))]
        });
        rules.collect()
    }

    fn postrouting(&self, bits: u32) -> Vec<Rule> {
        let itself = Rule::new(Target::Masquerade)
            .because("Kubernetes endpoints dst ip:port, source ip for solving hairpin purpose")
            .when(is_in(&self.sets.loop_back, Side::DestinationPortSource));
        let mut rules = vec![itself];
        rules.extend(shared::postrouting(bits));
        rules
    }

    fn health_checks(&self) -> Vec<Rule> {
        let accept = Rule::new(Target::Accept).of(Transport::Ports(Protocol::Tcp));
        vec![
            accept
                .because("Kubernetes health check node port")
                .when(is_in(&self.sets.health_checks, Side::Destination)),
        ]
    }

    /// What comes here that no virtual server serves.
    fn inward(&self, family: Family) -> Vec<Rule> {
        let bits = self.attraction();
        // While another mode is on its way in or out it may be the faster one to translate; the next try is let be by one of the two.
        let astray = Rule::new(Target::Drop)
            .because("attracted, and translated to elsewhere")
            .when(Match::Mark { bits, set: true })
            .when(Match::Translated);
        let outside = Rule::new(Target::Drop)
            .because("no local endpoints")
            .when(not_in(&self.sets.local_pods, Side::Source))
            .when(is_in(&self.sets.dropped_outside, Side::DestinationPort));
        let [known, echo, unserved] = filter_first(family);
        vec![astray, known, outside, echo, unserved]
    }

    /// What comes here or goes from here that no virtual server serves.
    fn unserved(&self) -> Vec<Rule> {
        let sets = &self.sets;
        let reject = |of: Match| Rule::jump(&"KUBE-REJECT".into()).when(of);
        let to = |set| is_in(set, Side::DestinationPort);
        vec![
            Rule::new(Target::Drop).because("no endpoints for this node").when(to(&sets.dropped)),
            reject(to(&sets.rejected)).because("no endpoints"),
            within(&sets.cluster_ip, Side::DestinationPort).returns(),
            reject(is_in(&sets.ips, Side::Destination)).because("ports that the ClusterIP does not have"),
        ]
    }

    fn guarded(&self) -> Rule {
        Rule::jump(&"KUBE-SOURCE-RANGES-FIREWALL".into())
            .because("Kubernetes service load balancer ip + port for load balancer with sourceRange")
            .when(is_in(&self.sets.guarded, Side::DestinationPort))
    }

    fn sources(&self) -> Vec<Rule> {
        vec![within(&self.sets.sources, Side::DestinationPortSource).returns(), Rule::new(Target::Drop)]
    }

    /// What is for a virtual server though its address is not this node's. A connection that was translated otherwise goes its way. What is
    /// refused stays on its way, too: of an address that is attracted and not the node's, the kernel tells nobody by ICMP over IPv4.
    fn attract(&self, family: Family) -> Vec<Rule> {
        let sets = &self.sets;
        let here = || Rule::new(Target::SetMark(self.attraction()));
        let untranslated = || Match::Untranslated;
        vec![
            within(&sets.rejected, Side::DestinationPort).because("refused on its way").returns(),
            here().when(untranslated()).when(is_in(&sets.load_balancer[0], Side::DestinationPort)),
            here().when(untranslated()).when(is_in(&sets.external[0], Side::DestinationPort)),
            here()
                .of(Transport::Icmp(family))
                .because("errors on the way of what a virtual server sends")
                .when(Match::ConnectionRelated)
                .when(is_in(&sets.elsewhere, Side::Destination)),
            Rule::jump(&"KUBE-FROM-INSIDE".into()).when(is_in(&sets.local_pods, Side::Source)),
        ]
    }

    /// For this node and its pods.
    fn told_apart(&self) -> Vec<Rule> {
        vec![Rule::new(Target::MapMark(self.sets.inside.clone())).when(Match::Untranslated)]
    }

    /// What this host may not reach. What a virtual server has sent on its way goes where its real server is, and not where the mark would
    /// lead it once more.
    fn drop_early(&self) -> Vec<Rule> {
        let bits = self.attraction();
        vec![
            Rule::new(Target::ClearMark(self.marks.all())).when(Match::Mark { bits, set: true }),
            Rule::new(Target::Return).when(Match::ConnectionKnown),
            Rule::new(Target::Drop).when(is_in(&self.sets.dropped, Side::DestinationPort)),
            self.guarded(),
        ]
    }
}

/// The addresses with NodePorts.
fn node_addrs(services: &Services) -> Vec<Rule> {
    let to_node = |addr: &std::net::IpAddr| Rule::jump(&"KUBE-NODE-PORT".into()).to((*addr).into());
    services.node_port_addrs().iter().map(to_node).collect()
}

/// Before it is asked who serves: connections that are known pass, and so do pings.
fn filter_first(family: Family) -> [Rule; 3] {
    [
        Rule::new(Target::Return).when(Match::ConnectionKnown),
        Rule::new(Target::Return).of(Transport::Icmp(family)).when(Match::EchoRequest(family)),
        Rule::jump(&"KUBE-UNSERVED".into()),
    ]
}

/// A rule whose target is still to be said.
struct Unfinished(Match, Option<&'static str>);

impl Unfinished {
    fn because(mut self, comment: &'static str) -> Self {
        self.1 = Some(comment);
        self
    }

    fn returns(self) -> Rule {
        let rule = Rule::new(Target::Return);
        match self.1 {
            Some(comment) => rule.because(comment).when(self.0),
            None => rule.when(self.0),
        }
    }
}

fn within(set: &SetName, of: Side) -> Unfinished {
    Unfinished(is_in(set, of), None)
}

fn is_in(set: &SetName, of: Side) -> Match {
    Match::InSet { set: set.clone(), of, within: true }
}

fn not_in(set: &SetName, of: Side) -> Match {
    Match::InSet { set: set.clone(), of, within: false }
}

fn mark() -> Rule {
    Rule::jump(&"KUBE-MARK-MASQ".into())
}

fn nat(name: &str) -> ChainKey {
    ChainKey::new(Table::Nat, name)
}

fn filter(name: &str) -> ChainKey {
    ChainKey::new(Table::Filter, name)
}

fn mangle(name: &str) -> ChainKey {
    ChainKey::new(Table::Mangle, name)
}

/// What leads into the chains. Where there are several, in this order.
fn hooks() -> Vec<Hook> {
    let hook = |table, at: &str, to: &str, comment: &str| Hook {
        at: ChainKey::new(table, at),
        rule: Rule::jump(&to.into()).because(comment),
    };
    let (nat, filter, mangle) = (Table::Nat, Table::Filter, Table::Mangle);
    let (portals, firewall) = ("kubernetes service portals", "kube-proxy firewall rules");
    vec![
        hook(nat, "PREROUTING", "KUBE-SERVICES", portals),
        hook(nat, "OUTPUT", "KUBE-SERVICES", portals),
        hook(nat, "POSTROUTING", "KUBE-POSTROUTING", "kubernetes postrouting rules"),
        hook(filter, "INPUT", "KUBE-PROXY-FIREWALL", firewall),
        hook(filter, "INPUT", "KUBE-NODE-PORT", "kubernetes health check rules"),
        hook(filter, "INPUT", "KUBE-IPVS-FILTER", "kubernetes ipvs access filter"),
        // First: what is to be masqueraded passes by the other.
        hook(filter, "FORWARD", "KUBE-IPVS-OUT-FILTER", "kubernetes ipvs access filter"),
        hook(filter, "FORWARD", "KUBE-FORWARD", "kubernetes forwarding rules"),
        hook(filter, "OUTPUT", "KUBE-IPVS-OUT-FILTER", "kubernetes ipvs access filter"),
        hook(mangle, "PREROUTING", "KUBE-ATTRACT", "packets to virtual servers"),
        hook(mangle, "OUTPUT", "KUBE-IPVS-OUT-FILTER", "kubernetes ipvs access filter"),
        hook(mangle, "OUTPUT", "KUBE-FROM-INSIDE", "packets to virtual servers"),
    ]
}
