//! What serves the Services on a packet's ways beside tables of nf_tables: what of it is not as it is planned.

use std::collections::BTreeSet;

use podnet_kernel::{
    apart,
    snapshot::{
        Told,
        served::{Chains, Frontends, Listeners, OfFamily, Servers},
    },
    sockets,
};
use podnet_model::{Family, ProxyConfig, ServiceKey, proxy::Mode};
use podnet_planner::{
    iptables::{Match, Rule, Rules, Target},
    ipvs::Scheduler,
    proxy::RuleSettings,
    ruleset::FrontendKey,
    services::{
        Services,
        ebpf::{Ebpf, Tables},
        iptables::Iptables,
        ipvs::Ipvs,
        userspace::{Led, Place, Userspace, is_elsewhere},
    },
    trace::{Hop, Kind, Planned},
};

use super::{Findings, is_ruled};

/// Why nothing of Services is compared.
pub(super) const CONFIGURED_ALONE: &str = "rules of Services, as its agent has a kube-proxy configuration of its own";

/// Whether what is compared here has a say at a hop: programs at sockets where a backend is chosen there, all else where rules do.
pub(super) fn is_served_at(hop: &Hop, planned: &Planned) -> bool {
    match planned.facts.mode {
        Mode::Ebpf => hop.kind == Kind::Chosen,
        Mode::Nftables => false,
        Mode::Iptables | Mode::Ipvs | Mode::Userspace => is_ruled(hop),
    }
}

/// The Service that is asked there.
pub(super) fn asked(hop: &Hop) -> Option<ServiceKey> {
    let object = hop.object.as_ref().filter(|object| object.kind == "service")?;
    Some(ServiceKey::new(object.namespace.as_deref()?, &object.name))
}

/// Of what serves these Services, and of what all have in common: what is not as it is planned.
pub(super) fn compare(told: &Told, planned: &Planned, proxy: &ProxyConfig, asked: &BTreeSet<ServiceKey>) -> Findings {
    let mut findings = Findings::default();
    if told.is_configured_alone {
        findings.left_out.push(CONFIGURED_ALONE.to_owned());
        return findings;
    }
    let (served, mode) = (&told.kernel.served, planned.facts.mode);
    if mode == Mode::Ebpf {
        let (wanted, there) = (at_sockets(planned, asked), served.frontends.as_ref());
        findings.take("programs at sockets", there, |there| there.differences(&wanted));
        findings.detours.extend(there.into_iter().flatten().flat_map(|there| there.left_to_rules(&wanted)));
        return findings;
    }
    for family in Family::ALL.into_iter().filter(|family| planned.services[*family].is_needed()) {
        let (services, there) = (&planned.services[family], served.of(family));
        match mode {
            Mode::Iptables => {
                let mut wanted = Iptables::new(services).desired_for(services, |service| asked.contains(service));
                let is_dropped = there.chains.iter().flatten().any(Chains::drop_invalid);
                if served.is_liberal && !is_dropped {
                    let drop = Rule::new(Target::Drop).when(Match::ConnectionInvalid);
                    wanted.chains.values_mut().for_each(|rules| rules.retain(|rule| *rule != drop));
                }
                findings.chains(there, &wanted);
            }
            Mode::Ipvs => by_virtual_servers(services, there, &RuleSettings::of(proxy, mode), asked, &mut findings),
            Mode::Userspace => {
                let wanted = listeners(planned, services, asked);
                findings.take("sockets of its agent", there.listeners.as_ref(), |there| there.differences(&wanted));
            }
            Mode::Ebpf | Mode::Nftables => {}
        }
    }
    findings
}

impl Findings {
    /// What differs of something, or why that is not known.
    fn take<T>(&mut self, what: &str, there: Option<&Result<T, String>>, differences: impl FnOnce(&T) -> Vec<String>) {
        match there {
            Some(Ok(there)) => self.found.extend(differences(there)),
            Some(Err(why)) => self.left_out.push(format!("{what}: {why}")),
            None => self.left_out.push(format!("{what}, of which nothing was told")),
        }
    }

    /// What differs of chains. What may be the same in other words is no fault.
    fn chains(&mut self, there: &OfFamily, wanted: &Rules) {
        self.take("rules of iptables", there.chains.as_ref(), |there| there.differences(wanted));
        self.detours.extend(there.chains.iter().flatten().flat_map(|there| there.reworded(wanted)));
    }
}

fn by_virtual_servers(
    services: &Services,
    there: &OfFamily,
    settings: &RuleSettings,
    asked: &BTreeSet<ServiceKey>,
    findings: &mut Findings,
) {
    let scheduler = Scheduler::named(settings.ipvs.scheduler).unwrap_or(Scheduler::RoundRobin);
    let (ipvs, frontends) = (Ipvs::new(services, scheduler), frontends(services, asked));
    let led = ipvs.attracted().into_iter().filter(|addr| frontends.iter().any(|key| key.addr == *addr));
    let wanted = Servers::of(&ipvs.state_of(&frontends), led.collect());
    findings.take("virtual servers", there.servers.as_ref(), |there| there.differences(&wanted, &frontends));
    let rules = ipvs.rules(services);
    findings.chains(there, &rules);
}

fn listeners(planned: &Planned, services: &Services, asked: &BTreeSet<ServiceKey>) -> Listeners {
    let frontends = frontends(services, asked);
    let is_asked = |led: &Led| match *led {
        Led::Address(addr) => frontends.iter().any(|key| key.addr == addr),
        Led::Port { addr, protocol, port } => frontends.contains(&FrontendKey { addr, protocol, port }),
    };
    let family = services.config().family;
    let own = planned.facts.addrs.iter().copied().filter(|addr| Family::of(addr) == family && is_elsewhere(*addr));
    let mut userspace = Userspace::new(services);
    userspace.set_own(own.collect());
    let work = userspace.whole(services);
    // Where nobody serves, nobody listens.
    let open = work.fronts.iter().filter_map(|(key, front)| {
        let front = front.as_ref().filter(|front| front.guard.is_some() && frontends.contains(key))?;
        Some((*key, front.place))
    });
    let (mut at_node, mut inside) = (BTreeSet::new(), BTreeSet::new());
    for (key, place) in open {
        let place = if place == Place::Node { &mut at_node } else { &mut inside };
        place.insert(key);
    }
    let led = work.more.into_iter().filter(is_asked).collect();
    Listeners::of(&apart::Seen { led, at_node, inside: Some(inside) })
}

fn at_sockets(planned: &Planned, asked: &BTreeSet<ServiceKey>) -> Frontends {
    let all = Family::ALL.into_iter().flat_map(|family| planned.services[family].frontends());
    let theirs = all.filter(|(_, serving)| asked.contains(&serving.service));
    let tables = Ebpf::default().desired(theirs, &Tables::default());
    Frontends::of(&sockets::Seen { missing: Vec::new(), tables })
}

fn frontends(services: &Services, asked: &BTreeSet<ServiceKey>) -> BTreeSet<FrontendKey> {
    let all = services.frontends().filter(|(_, serving)| asked.contains(&serving.service));
    all.map(|(key, _)| *key).collect()
}

#[cfg(test)]
mod tests;
