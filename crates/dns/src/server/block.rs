//! One server block at work.

mod bounded;
mod counted;

use std::{sync::Arc, time::Duration};

use super::{
    Link, Members, Outside, Own, Shape, allowance::Allowance, arrange::Arrangement, fetched::Fetched, guard::Guard,
    members::Source, parts::Parts, reporter::Reporter, signed::Keys,
};
use crate::{
    authority::{Held, sign::Online},
    cache::Divided,
    chain::{
        Chain, Expression, Fallthrough, ForwardOptions, HeaderFlag, HeaderRule, LoadedZone, LogOptions, PLUGINS,
        Plugin, Port, RewriteOptions, TransferOptions,
    },
    forward::{Crew, Upstreams},
    message::{CLASS_CH, flag},
    metrics::{Counting, Counts},
    name::Name,
    plugin,
    server::block::counted::place,
    zone::{Cluster, External, Zone},
};

/// One server block at work.
pub(super) struct Block {
    /// The zones that it serves, and where.
    pub(super) keys: Vec<(Name, Port)>,
    /// Conditions that hold for the questions that it takes (`view`).
    pub(super) views: Vec<Expression>,
    /// The names of whose questions plugins tell (`metadata`).
    pub(super) metadata: Vec<Name>,
    /// What metrics call its view.
    pub(super) view: String,
    /// Where its plugins count.
    counting: Counting,
    /// What is counted, for each key.
    pub(super) counts: Vec<Arc<Counts>>,
    /// What every plugin is called, those that are no links included.
    pub(super) plugins: Vec<&'static str>,
    pub(super) reporter: Option<Arc<Reporter>>,
    /// `log`: the first whose names fit counts.
    pub(super) log: Vec<LogOptions>,
    pub(super) guard: Guard,
    pub(super) shape: Shape,
    /// In the order in which they are asked.
    pub(super) links: Vec<Box<dyn Link>>,
    /// The plugin of each link, by its place among all there are.
    pub(super) places: Vec<usize>,
    /// Which links may answer at once with what lives for longer than the `cache` lets it; none where there is no cache.
    outlasting: Vec<bool>,
    pub(super) zone: Option<Arc<Zone>>,
    pub(super) external: Option<Arc<External>>,
    pub(super) cache: Option<Arc<Divided>>,
    pub(super) crews: Vec<Crew>,
    /// The entries of its `hosts`, and when they were read, in seconds since 1970.
    pub(super) hosts: Option<(usize, u64)>,
    /// Signs answers (`dnssec`).
    pub(super) online: Option<Arc<Online>>,
    /// The zones that this server is an authority of.
    pub(super) held: Vec<Arc<Held>>,
    /// Those of them that other servers have, too, and from where they come.
    pub(super) fetched: Vec<Arc<Fetched>>,
    /// Those that catalogs among them list.
    pub(super) members: Option<Arc<Members>>,
    pub(super) transfers: Vec<TransferOptions>,
    pub(super) loop_check: bool,
}

impl Block {
    pub(super) fn new(chain: Chain, cluster: &Cluster, serial: u32, parts: &Parts) -> Self {
        let zone = chain.kubernetes().cloned();
        let external = chain.external().cloned().zip(zone.clone());
        let external = external.map(|(options, shown)| Arc::new(External::new(options, shown, cluster, serial)));
        let name = |plugin: &Plugin| if let Plugin::View(view) = plugin { Some(view.name.clone()) } else { None };
        let view = chain.plugins.iter().find_map(name).unwrap_or_default();
        let stored = stored(&chain);
        let addresses = chain.addresses();
        let keys: Vec<(Name, Port)> =
            chain.keys.iter().flat_map(|key| Port::of(key, &addresses).map(|port| (key.zone.clone(), port))).collect();
        let counting = Counting::new(&parts.metrics, keys.iter().map(|(_, port)| *port), &view);
        let mut block = Self {
            guard: guard(&chain, &*parts.outside, &counting),
            metadata: Vec::new(),
            views: chain.views().cloned().collect(),
            external,
            counts: keys.iter().map(|(zone, port)| parts.metrics.counts(place(zone, port, &view))).collect(),
            view,
            counting,
            plugins: chain.plugins.iter().map(Plugin::name).collect(),
            reporter: None,
            log: Vec::new(),
            loop_check: chain.loop_check(),
            shape: Shape {
                turns: chain.loadbalance().is_some(),
                arrangement: chain.loadbalance().and_then(Arrangement::new),
                ..Shape::default()
            },
            keys,
            links: Vec::new(),
            places: Vec::new(),
            outlasting: Vec::new(),
            zone: zone.map(|options| Arc::new(Zone::new(options, cluster, serial))),
            cache: None,
            crews: Vec::new(),
            hosts: None,
            online: None,
            held: Vec::new(),
            fetched: Vec::new(),
            members: None,
            transfers: Vec::new(),
        };
        let mut plugins = chain.plugins.into_iter().peekable();
        let mut challenges = parts.challenges.clone();
        let (mut rules, mut acls, mut zones, mut catalogs) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        while let Some(plugin) = plugins.next() {
            let name = plugin.name();
            if place_of(name) > place_of("dnssec") {
                block.prove(&mut challenges);
            }
            match plugin {
                Plugin::Rewrite(rule) => {
                    rules.push(rule);
                    // All rules are one link: they stand side by side.
                    if !matches!(plugins.peek(), Some(Plugin::Rewrite(_))) {
                        block.rewrites(std::mem::take(&mut rules));
                    }
                }
                Plugin::Acl(options) => {
                    acls.push(options);
                    // All of them are one link: what one lets pass the next does not look at.
                    if !matches!(plugins.peek(), Some(Plugin::Acl(_))) {
                        let acl = plugin::Acl::new(std::mem::take(&mut acls), &block.counting);
                        block.links.push(Box::new(Own(acl)));
                    }
                }
                plugin @ (Plugin::File(_) | Plugin::Auto(_) | Plugin::Secondary(_)) => {
                    zones.append(&mut block.zones(plugin, &parts.keys, &mut catalogs));
                    // All zones are one link: the plugins stand side by side.
                    if !matches!(plugins.peek(), Some(Plugin::File(_) | Plugin::Auto(_) | Plugin::Secondary(_))) {
                        block.members = block.members(std::mem::take(&mut catalogs), &stored);
                        let zones = plugin::Zones::new(std::mem::take(&mut zones), block.members.clone());
                        block.links.push(Box::new(zones));
                    }
                }
                plugin => block.take(plugin, parts),
            }
            block.places.resize(block.links.len(), place_of(name));
        }
        block.prove(&mut challenges);
        block.shape.recursion = !block.crews.is_empty();
        block.outlasting = block.find_outlasting();
        block
    }

    /// Puts what proves domains behind those that are there, once: in any block, and where CoreDNS has it, so that `dnssec` signs it.
    fn prove(&mut self, challenges: &mut Option<Arc<plugin::Challenges>>) {
        if let Some(challenges) = challenges.take() {
            self.links.push(Box::new(Own(plugin::Proving(challenges))));
            self.places.resize(self.links.len(), place_of("tls"));
        }
    }

    /// A plugin behind those that are there: as a link, or in the shape of the responses.
    fn take(&mut self, plugin: Plugin, parts: &Parts) {
        let counting = self.counting.clone();
        let link: Box<dyn Link> = match plugin {
            Plugin::Errors(options) => {
                self.reporter = Some(Arc::new(Reporter::new(options, parts.debug.clone())));
                return;
            }
            Plugin::Log(options) => {
                self.log.push(options);
                return;
            }
            Plugin::Metadata(zones) => {
                self.metadata = zones;
                return;
            }
            Plugin::Nsid(name) => {
                let name = name.unwrap_or_else(|| parts.host.to_string());
                self.shape.nsid = Some(nsid(name.as_bytes()));
                return;
            }
            Plugin::Bufsize(size) => {
                self.shape.bufsize = Some(size);
                return;
            }
            Plugin::Minimal => {
                self.shape.minimal = true;
                return;
            }
            Plugin::Header(rules) => return self.flags(&rules),
            Plugin::Transfer(options) => return self.transfers.push(options),
            Plugin::Local(options) => {
                let (metrics, debug) = (Arc::clone(&parts.metrics), parts.debug.clone());
                Box::new(Own(plugin::Local { options, metrics, debug }))
            }
            Plugin::Dns64(options) => Box::new(plugin::Dns64::new(options, &counting)),
            Plugin::Tsig(options) => Box::new(Own(plugin::Tsig(options))),
            Plugin::Any => Box::new(Own(plugin::Any)),
            Plugin::Chaos(options) => {
                self.shape.chaos = true;
                Box::new(Own(plugin::Chaos { options, host: parts.host.to_string() }))
            }
            Plugin::Cache(options) => {
                let cache = Arc::new(Divided::new(options));
                self.cache = Some(Arc::clone(&cache));
                Box::new(plugin::Cached::new(cache, self.zone.as_deref(), &counting, parts.clone()))
            }
            Plugin::Searchpath(options) => Box::new(plugin::Autopath::new(options, None, &counting, parts.clone())),
            Plugin::Dnssec(options) => {
                let online = Arc::new(Online::new(options.keys, options.cache_capacity));
                self.online = Some(Arc::clone(&online));
                Box::new(plugin::Dnssec::new(options.zones, online, &counting, parts.clone()))
            }
            Plugin::Autopath(options) => {
                let options = options.among(&self.plugins);
                Box::new(plugin::Autopath::new(options, self.zone.clone(), &counting, parts.clone()))
            }
            Plugin::Template(options) => {
                self.shape.chaos |= options.class == CLASS_CH;
                Box::new(plugin::Template::new(options, !self.metadata.is_empty(), counting))
            }
            Plugin::Cancel(time) => Box::new(plugin::Cancel::new(time, parts.clone())),
            Plugin::Hosts(options) => {
                self.hosts = Some((options.table.entries(), parts.outside.unix()));
                Box::new(Own(plugin::Hosts(options)))
            }
            Plugin::K8sExternal(_) => match &self.external {
                Some(zone) => Box::new(plugin::Kubernetes::new(Arc::clone(zone), self.startup(), parts.clone())),
                None => return,
            },
            Plugin::Kubernetes(_) => match &self.zone {
                Some(zone) => Box::new(plugin::Kubernetes::new(Arc::clone(zone), self.startup(), parts.clone())),
                None => return,
            },
            Plugin::Forward(options) => {
                let crew = self.crew(options, parts);
                Box::new(plugin::Forward(crew))
            }
            Plugin::Grpc(options) => {
                let crew = self.crew(options.as_forward(), parts);
                Box::new(plugin::Grpc { crew, fallthrough: options.fallthrough })
            }
            Plugin::Etcd(options) => Box::new(plugin::Etcd::new(options, parts.clone())),
            Plugin::Erratic(options) => Box::new(plugin::Erratic::new(options, parts.clone())),
            Plugin::Whoami => Box::new(Own(plugin::WhoAmI)),
            // What is said of the process, and what [`NOT_SERVED`] refuses.
            _ => return,
        };
        self.links.push(link);
    }

    fn crew(&mut self, options: ForwardOptions, parts: &Parts) -> Crew {
        // Queries of this block have had their flags changed by then.
        let upstreams = Upstreams::new(options, self.shape.query.of(flag::RD) & flag::RD != 0);
        let crew = Crew::new(Arc::new(upstreams), parts.clone());
        self.crews.push(crew.clone());
        crew
    }

    /// The zones of `file`, `auto` or `secondary`, and those of them that are catalogs.
    fn zones(&mut self, plugin: Plugin, keys: &Keys, catalogs: &mut Vec<Source>) -> Vec<plugin::ServedZone> {
        let (loaded, fallthrough) = match plugin {
            Plugin::File(options) => (options.loaded, options.fallthrough),
            Plugin::Auto(options) => (options.loaded, Fallthrough::default()),
            Plugin::Secondary(options) => {
                let nothing = |origin| LoadedZone { origin, zone: None };
                let before = self.held.len();
                let zones: Vec<LoadedZone> = options.zones.into_iter().map(nothing).collect();
                let mut served = self.hold(zones, &options.fallthrough);
                let key = options.key.and_then(|(name, _)| keys.get(&name).cloned());
                let allowance = Allowance::new(options.catalog_bytes);
                for held in &self.held[before..] {
                    let (held, primaries, key) = (Arc::clone(held), options.primaries.clone(), key.clone());
                    if let Some(may) = options.catalog.clone() {
                        let (held, fallthrough) = (Arc::clone(&held), options.fallthrough.clone());
                        let (primaries, key, allowance) = (primaries.clone(), key.clone(), Arc::clone(&allowance));
                        catalogs.push(Source { held, primaries, key, may, allowance, fallthrough });
                    }
                    self.fetched.push(Arc::new(Fetched::new(held, primaries, key)));
                }
                served.iter_mut().for_each(|zone| zone.catalog = options.catalog.is_some());
                return served;
            }
            _ => return Vec::new(),
        };
        self.hold(loaded, &fallthrough)
    }

    fn hold(&mut self, loaded: Vec<LoadedZone>, fallthrough: &Fallthrough) -> Vec<plugin::ServedZone> {
        let mut served = Vec::new();
        for LoadedZone { origin, zone } in loaded {
            let held = Arc::new(Held::new(origin, zone));
            self.held.push(Arc::clone(&held));
            served.push(plugin::ServedZone { held, fallthrough: fallthrough.clone(), catalog: false });
        }
        served
    }

    /// What the block's catalogs list, beside zones that others of its plugins have; none: it has no catalog.
    fn members(&self, catalogs: Vec<Source>, stored: &[Name]) -> Option<Arc<Members>> {
        if catalogs.is_empty() {
            return None;
        }
        let named = self.held.iter().map(|held| held.origin().clone()).collect();
        let around = self.keys.iter().map(|(zone, _)| zone.clone()).collect();
        Some(Arc::new(Members::new(catalogs, named, stored.to_vec(), around)))
    }

    /// How long answers wait for the first whole state of the cluster.
    fn startup(&self) -> Duration {
        self.zone.as_ref().map_or(Duration::ZERO, |zone| zone.options().startup_timeout)
    }

    fn rewrites(&mut self, rules: Vec<RewriteOptions>) {
        let link = plugin::Rewriting(rules);
        self.shape.chaos |= link.takes_chaos();
        self.links.push(Box::new(link));
    }

    fn flags(&mut self, rules: &[HeaderRule]) {
        for rule in rules {
            let flags = rule.flags.iter().fold(0, |flags, flag| flags | bit(*flag));
            let change = if rule.query { &mut self.shape.query } else { &mut self.shape.response };
            *change = change.then(flags, rule.set);
        }
    }
}

/// The place of a plugin among all there are.
fn place_of(name: &str) -> usize {
    PLUGINS.iter().position(|known| *known == name).unwrap_or(PLUGINS.len())
}

fn guard(chain: &Chain, outside: &dyn Outside, counting: &Counting) -> Guard {
    let plugins = || chain.plugins.iter();
    let cookies = plugins().find_map(|plugin| if let Plugin::Cookies(options) = plugin { Some(options) } else { None });
    let rrl = plugins().find_map(|plugin| if let Plugin::Rrl(options) = plugin { Some(options) } else { None });
    Guard::new(cookies.cloned(), rrl.cloned(), outside, counting)
}

/// The zones whose records are in a store (`etcd`).
fn stored(chain: &Chain) -> Vec<Name> {
    let zones = |plugin: &Plugin| if let Plugin::Etcd(options) = plugin { options.zones.clone() } else { Vec::new() };
    chain.plugins.iter().flat_map(zones).collect()
}

const fn bit(flag: HeaderFlag) -> u16 {
    match flag {
        HeaderFlag::Authoritative => flag::AA,
        HeaderFlag::RecursionAvailable => flag::RA,
        HeaderFlag::RecursionDesired => flag::RD,
    }
}

/// The option that tells a server's identity (RFC 5001 §2.3).
fn nsid(name: &[u8]) -> Box<[u8]> {
    let mut option = vec![0, 3];
    option.extend_from_slice(&(name.len() as u16).to_be_bytes());
    option.extend_from_slice(name);
    option.into()
}
