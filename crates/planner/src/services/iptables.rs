//! Services as rules of iptables, in the chains that kube-proxy has: `iptables -t nat -L KUBE-SERVICES` reads as people expect.
//!
//! - `KUBE-SERVICES` and `KUBE-NODEPORTS` (nat) have a rule for each frontend. It leads to `KUBE-SVC-…`, which chooses among all backends,
//!   or to `KUBE-SVL-…`, which chooses among those of this node; for addresses of others than ClusterIPs by way of `KUBE-EXT-…`, which
//!   knows who comes from where, and of `KUBE-FW-…`, where only some sources may come. Each backend has a chain `KUBE-SEP-…`.
//! - The same in the filter table, and `KUBE-EXTERNAL-SERVICES`, have a rule for each frontend that nobody serves; `KUBE-PROXY-FIREWALL`
//!   one for each with sources.
//! - `KUBE-MARK-MASQ` marks what `KUBE-POSTROUTING` masquerades.
//!
//! Chains that kube-proxy has not: `KUBE-LOCAL-PODS` and `KUBE-INSIDE` lead this node's pods past a policy `Local`, `KUBE-MARK-NOT-LOCAL`
//! marks all but those pods, `KUBE-MARK-NOT-PODS` all but pods where these are in several ranges, `KUBE-PING` answers pings of
//! ClusterIPs, and `KUBE-CLUSTER-IPS` refuses ports that they have not, by `KUBE-REJECT`.
//!
//! Changes write the chains of their own Services, and one that all share only where a frontend comes, goes, or is or is not served: once,
//! however many changes are written together.

mod port;
pub(super) mod shared;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;
use podnet_model::{Family, NodePort, PortName, Protocol, ServiceKey};

use super::{Plan, Services, Serving};
use crate::{
    iptables::{ChainKey, Rewrite, Rules},
    ruleset::{FrontendKey, Set},
};
use port::Layout;
pub use shared::{counts_from_loopback, counts_invalid};

/// A Service's port: whose chains bear one name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Port {
    service: ServiceKey,
    name: PortName,
    protocol: Protocol,
}

type Frontends = BTreeMap<FrontendKey, Arc<Serving>>;

/// The rendering of one [`Services`] value, whose plans it is given from when it was made on.
#[derive(Debug)]
pub struct Iptables {
    ports: BTreeMap<Port, Frontends>,
    noted: Noted,
    /// What else the chains were made of that no plan tells of.
    echo: Option<IpAddr>,
    health_checks: BTreeMap<NodePort, ServiceKey>,
}

/// What plans changed since the chains were rendered last.
#[derive(Debug, Default)]
struct Noted {
    /// What was there of the ports that changed.
    before: BTreeMap<Port, Frontends>,
    /// The shared chains that changed by something else than a frontend.
    touched: BTreeSet<ChainKey>,
    /// What the rules of every ClusterIP depend on changed.
    all: bool,
}

/// What the rules of every port depend on.
#[derive(Clone, Copy)]
struct Context<'a> {
    family: Family,
    /// Where pods are.
    pods: &'a BTreeSet<IpNet>,
    /// Pods are masqueraded on their way to a ClusterIP too.
    masquerade_all: bool,
}

impl Iptables {
    /// Of what is planned so far.
    #[must_use]
    pub fn new(services: &Services) -> Self {
        let mut ports = BTreeMap::<Port, Frontends>::new();
        for (key, frontend) in &services.frontends {
            if let Some(serving) = &frontend.serving {
                ports.entry(Port::of(key, serving)).or_default().insert(*key, serving.clone());
            }
        }
        let (echo, health_checks) = (services.config.primary(), checks(services));
        Self { ports, noted: Noted::default(), echo, health_checks }
    }

    /// All rules as they have to be. Whoever puts these in force has nothing left to [rewrite](Iptables::rewrite).
    pub fn whole(&mut self, services: &Services) -> Rules {
        self.noted = Noted::default();
        self.echo = services.config.primary();
        self.health_checks = checks(services);
        self.desired(services)
    }

    /// All rules as they have to be.
    #[must_use]
    pub fn desired(&self, services: &Services) -> Rules {
        self.desired_for(services, |_| true)
    }

    /// As [`Iptables::desired`], but of the chains that are a Service's own those of some Services alone.
    #[must_use]
    pub fn desired_for(&self, services: &Services, is_wanted: impl Fn(&ServiceKey) -> bool) -> Rules {
        let mut chains = self.shared(services, |_| true);
        let context = Context::of(services);
        let ports = self.ports.iter().filter(|(port, _)| is_wanted(&port.service));
        chains.extend(ports.flat_map(|(port, frontends)| Layout::new(port, frontends).chains(context)));
        Rules { chains, hooks: shared::hooks() }
    }

    /// Takes a plan in. What it means is told by the next [`Iptables::rewrite`], with all that comes until then.
    pub fn note(&mut self, plan: &Plan) {
        for port in affected(plan) {
            let before = self.ports.get(&port);
            self.noted.before.entry(port).or_insert_with(|| before.cloned().unwrap_or_default());
        }
        self.noted.touched.extend(shared::touched(plan));
        self.noted.all |= !plan.pods_more.is_empty() || !plan.pods_fewer.is_empty();
        self.take(plan);
    }

    /// What the plans since the last time mean: the chains that they change, each as it has to be. `services` has taken them in.
    pub fn rewrite(&mut self, services: &Services) -> Rewrite {
        let mut noted = std::mem::take(&mut self.noted);
        let context = Context::of(services);
        let before = render(&noted.before, context);
        if noted.all {
            let chains = self.whole(services).chains;
            let gone = before.chains.into_keys().filter(|key| !chains.contains_key(key)).collect();
            return Rewrite { chains, gone, ..Rewrite::default() };
        }
        let after = noted.before.keys().filter_map(|port| self.ports.get_key_value(port));
        let after = render(after, context);

        let touched = &mut noted.touched;
        touched.extend(before.shared.symmetric_difference(&after.shared).map(|(chain, _)| chain.clone()));
        let echo = services.config.primary();
        if std::mem::replace(&mut self.echo, echo) != echo {
            touched.insert(shared::ping());
        }
        let health_checks = checks(services);
        if self.health_checks != health_checks {
            self.health_checks = health_checks;
            touched.insert(shared::health_checks());
        }
        let mut rewrite = Rewrite {
            gone: before.chains.keys().filter(|key| !after.chains.contains_key(key)).cloned().collect(),
            ..Rewrite::default()
        };
        rewrite.chains =
            after.chains.into_iter().filter(|(key, rules)| before.chains.get(key) != Some(rules)).collect();
        rewrite.chains.extend(self.shared(services, |chain| touched.contains(chain)));
        rewrite
    }

    fn take(&mut self, plan: &Plan) {
        for change in &plan.frontends {
            if let Some(before) = &change.before
                && let Some(frontends) = self.ports.get_mut(&Port::of(&change.key, before))
            {
                frontends.remove(&change.key);
            }
            if let Some(after) = &change.after {
                let port = Port::of(&change.key, after);
                self.ports.entry(port).or_default().insert(change.key, after.clone());
            }
        }
        let emptied = |port: &Port| self.ports.get(port).is_some_and(Frontends::is_empty);
        let emptied: Vec<Port> = affected(plan).into_iter().filter(emptied).collect();
        for port in emptied {
            self.ports.remove(&port);
        }
    }
}

/// What some ports have: chains of their own, and rules in those of all.
#[derive(Default)]
struct Rendered {
    chains: BTreeMap<ChainKey, Vec<crate::iptables::Rule>>,
    shared: BTreeSet<(ChainKey, String)>,
}

fn render<'a>(ports: impl IntoIterator<Item = (&'a Port, &'a Frontends)>, context: Context<'_>) -> Rendered {
    let mut rendered = Rendered::default();
    for (port, frontends) in ports {
        let layout = Layout::new(port, frontends);
        rendered.shared.extend(layout.shared(context).map(|(chain, rule)| (chain, rule.to_string())));
        rendered.chains.extend(layout.chains(context));
    }
    rendered
}

impl Port {
    fn of(key: &FrontendKey, serving: &Serving) -> Self {
        Self { service: serving.service.clone(), name: serving.port.clone(), protocol: key.protocol }
    }
}

impl<'a> Context<'a> {
    fn of(services: &'a Services) -> Self {
        static NOTHING: BTreeSet<IpNet> = BTreeSet::new();
        let pods = match &services.ranges.sets().pods {
            Set::Ranges(ranges) => ranges,
            _ => &NOTHING,
        };
        let config = &services.config;
        Self { family: config.family, pods, masquerade_all: config.masquerade_all }
    }
}

fn affected(plan: &Plan) -> BTreeSet<Port> {
    let servings = |change: &super::FrontendChange| {
        let of = |serving: &Arc<Serving>| Port::of(&change.key, serving);
        [change.before.as_ref().map(of), change.after.as_ref().map(of)]
    };
    plan.frontends.iter().flat_map(servings).flatten().collect()
}

fn checks(services: &Services) -> BTreeMap<NodePort, ServiceKey> {
    services.health_checks().into_iter().map(|(port, check)| (port, check.service)).collect()
}

#[cfg(test)]
mod tests;
