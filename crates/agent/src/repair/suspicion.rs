//! Which of the kernel's notices may mean damage.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    time::{Duration, Instant},
};

use ipnet::IpNet;
use podnet_kernel::{
    link::Link,
    monitor::{Notice, Transaction},
    nft::Touched,
    route::{Route, Target},
};
use podnet_model::{Family, LinkName};
use podnet_planner::{ipvs, overlay::Overlay, services::userspace::DEVICE_PREFIX, step::ROUTE_PROTOCOL};

use super::{GATHER, Passages, Repair};
use crate::{attach::rules, network::rules::TABLES, underlay::is_ours};

/// `NFPROTO_IPV4`.
const FAMILY_IP: u8 = 2;
const FAMILY_IP6: u8 = 10;
/// `NFPROTO_BRIDGE`.
const FAMILY_BRIDGE: u8 = 7;
/// Other people's rules may change all the time: their chains are looked at this often at most.
const PASSAGE_PAUSE: Duration = Duration::from_millis(200);
/// As many elements are looked at one by one; where more were touched everything is.
pub(super) const MOST_TOUCHED: usize = 1024;
/// As many causes are kept for the log.
const HEARD: usize = 4;

/// What may be damaged, and since when that is known.
#[derive(Debug, Default)]
pub(super) struct Suspicion {
    /// Devices, routes, neighbours and FDB entries that lead to other nodes.
    pub(super) overlay: Option<Instant>,
    /// The node's ends of pods' interfaces.
    pub(super) pods: Option<Instant>,
    /// podnet's table.
    pub(super) rules: Option<Instant>,
    /// Single elements of podnet's tables.
    pub(super) elements: Option<Instant>,
    pub(super) touched: Vec<Touched>,
    /// When podnet's tables are looked at as a whole although single elements were mended: it is not urgent.
    pub(super) compare: Option<Instant>,
    /// The table of the pods' rules.
    pub(super) pod_rules: Option<Instant>,
    /// Settings for the whole namespace, and of the devices named.
    pub(super) settings: Option<Instant>,
    pub(super) settings_of: BTreeSet<LinkName>,
    pub(super) settings_of_all_pods: bool,
    /// Other people's chains.
    pub(super) passage: Option<Instant>,
    /// Who changed those last.
    pub(super) passage_by: String,
    /// When those were looked at last.
    pub(super) passage_seen: Option<Instant>,
    /// Whether podnet's table is known to have been changed, and not just suspected because notices were lost.
    pub(super) rules_touched: bool,
    /// The node's own addresses, and the devices that lead to others.
    pub(super) underlay: Option<Instant>,
    /// What was heard, in words.
    pub(super) heard: Vec<String>,
}

impl Suspicion {
    /// At its start an agent knows nothing of settings and other people's chains; the rest is looked at anyway.
    pub(super) fn at_start() -> Self {
        let now = Some(Instant::now());
        Self { settings: now, settings_of_all_pods: true, passage: now, ..Self::default() }
    }

    /// Everything but other people's chains.
    fn everything(&mut self) {
        let now = Instant::now();
        self.underlay.get_or_insert(now);
        self.settings_of_all_pods = true;
        let rules = [&mut self.rules, &mut self.pod_rules];
        for part in [&mut self.overlay, &mut self.pods, &mut self.settings].into_iter().chain(rules) {
            part.get_or_insert(now);
        }
    }

    pub(super) fn heard(&mut self, what: impl FnOnce() -> String) {
        if self.heard.len() < HEARD {
            self.heard.push(what());
        }
    }

    /// When it is looked at.
    pub(super) fn due(&self) -> Option<Instant> {
        let parts = [self.overlay, self.pods, self.rules, self.elements, self.pod_rules, self.settings, self.underlay];
        let seen = self.passage_seen.map(|seen| seen + PASSAGE_PAUSE);
        let passage = self.passage.map(|since| seen.map_or(since + GATHER, |seen| seen.max(since + GATHER)));
        parts.into_iter().flatten().map(|since| since + GATHER).chain(passage).chain(self.compare).min()
    }

    /// Adds what another one suspects.
    pub(super) fn join(&mut self, other: Self) {
        let earlier =
            |mine: &mut Option<Instant>, theirs: Option<Instant>| *mine = [*mine, theirs].into_iter().flatten().min();
        earlier(&mut self.overlay, other.overlay);
        earlier(&mut self.pods, other.pods);
        earlier(&mut self.rules, other.rules);
        earlier(&mut self.elements, other.elements);
        earlier(&mut self.compare, other.compare);
        self.touched.extend(other.touched);
        earlier(&mut self.pod_rules, other.pod_rules);
        earlier(&mut self.settings, other.settings);
        earlier(&mut self.passage, other.passage);
        earlier(&mut self.underlay, other.underlay);
        if self.passage_by.is_empty() {
            self.passage_by = other.passage_by;
        }
        self.settings_of.extend(other.settings_of);
        self.settings_of_all_pods |= other.settings_of_all_pods;
        self.rules_touched |= other.rules_touched;
    }
}

impl Repair {
    pub(super) fn judge(&mut self, notice: &Notice, overlay: &Overlay) {
        match notice {
            Notice::Lost => {
                self.counts.overrun();
                self.suspicion.everything();
                self.suspect_passage();
                self.flushed = true;
                self.devices_unknown = true;
                self.addresses.clear();
                self.suspicion.heard(|| "notices of the kernel's were lost".into());
            }
            Notice::RulesLost => {
                let now = Instant::now();
                self.suspicion.rules.get_or_insert(now);
                self.suspicion.pod_rules.get_or_insert(now);
                self.suspect_passage();
                self.suspicion.heard(|| "somebody changed rules while many were put in force".into());
            }
            Notice::Link(link) => self.judge_link(link, overlay),
            Notice::LinkGone(link) => self.judge_gone(link, overlay),
            Notice::Address { device, addr, flags } => {
                let name = self.devices.get(device).cloned();
                let is_theirs =
                    name.as_ref().is_none_or(|name| !is_ours(name.as_str()) && name.as_str() != ipvs::DEVICE);
                let before = match flags {
                    Some(flags) if is_theirs => self.addresses.insert((*device, *addr), *flags),
                    _ => self.addresses.remove(&(*device, *addr)),
                };
                // A router's advertisement tells of an address again that is as it was.
                let is_news = flags.is_none() || before != *flags;
                if flags.is_none()
                    && let Some(bridge) = name.as_ref().filter(|name| self.pods.is_bridge(name))
                {
                    let what = format!("address {addr} was taken from {bridge}");
                    self.suspect_pods(|| what);
                }
                if is_theirs && is_news {
                    self.suspicion.underlay.get_or_insert_with(Instant::now);
                    self.flushed |= name.is_none_or(|name| name == self.underlay.device);
                }
            }
            Notice::Route(route) => self.judge_route(route, overlay, false),
            Notice::RouteGone(route) => self.judge_route(route, overlay, true),
            Notice::Neighbour { device, addr, mac } => {
                let Some(device) = self.devices.get(device) else { return };
                let planned = overlay.desired().neighbours.get(&(device.clone(), *addr));
                if let Some(planned) = planned
                    && Some(planned) != mac.as_ref()
                {
                    let what = format!("neighbour {addr} on {device} changed");
                    self.suspect_overlay(|| what);
                } else if self.pods.mac(device, *addr).is_some_and(|planned| Some(planned) != *mac) {
                    let what = format!("neighbour {addr} on {device} changed");
                    self.suspect_pods(|| what);
                }
            }
            Notice::Fdb { device, mac, remote } => {
                let Some(device) = self.devices.get(device) else { return };
                let planned = overlay.desired().fdb.get(&(device.clone(), *mac));
                if planned.is_some() && planned != remote.as_ref() {
                    let what = format!("FDB entry {mac} on {device} changed");
                    self.suspect_overlay(|| what);
                }
            }
            Notice::Setting { device } => {
                self.suspicion.settings.get_or_insert_with(Instant::now);
                let name = device.and_then(|index| self.devices.get(&index));
                self.suspicion.settings_of.extend(name.cloned());
            }
            Notice::Rules(transaction) => self.judge_rules(transaction),
            // Of the tables of modes, which hear of it themselves.
            Notice::WayGone { .. } => {}
        }
    }

    fn judge_link(&mut self, link: &Link, overlay: &Overlay) {
        self.judge_program(link);
        if let Some(before) = self.devices.insert(link.index, link.name.clone()).filter(|before| *before != link.name) {
            let what = format!("device {before} was renamed to {}", link.name);
            if is_planned(overlay, &before) {
                self.suspect_overlay(|| what);
            } else if self.pods.contains(&before) {
                self.suspect_pods(|| what);
            }
        }
        if !is_ours(link.name.as_str()) {
            self.suspicion.underlay.get_or_insert_with(Instant::now);
            self.flushed |= link.name == self.underlay.device;
        }
        if is_planned(overlay, &link.name) {
            let state = if link.is_up { "changed" } else { "is down" };
            self.suspect_overlay(|| format!("device {} {state}", link.name));
        } else if self.pods.mtu(&link.name).is_some_and(|mtu| !link.is_up || link.mtu != mtu)
            || self.has_left_its_bridge(link)
            || self.pods.is_bridge(&link.name)
        {
            self.suspect_pods(|| format!("device {} changed", link.name));
        }
    }

    fn has_left_its_bridge(&self, link: &Link) -> bool {
        let master = || link.master.and_then(|master| self.devices.get(&master));
        self.pods.bridge_of(&link.name).is_some_and(|bridge| master() != Some(&bridge))
    }

    /// A device that leads to where a program serves Services: whether there is one matters to others' chains.
    fn judge_program(&mut self, link: &Link) {
        if link.name.as_str().starts_with(DEVICE_PREFIX) {
            self.suspect_passage();
        }
    }

    fn judge_gone(&mut self, link: &Link, overlay: &Overlay) {
        self.judge_program(link);
        self.devices.remove(&link.index);
        self.addresses.retain(|(device, _), _| *device != link.index);
        if link.name == self.underlay.device {
            self.suspicion.underlay.get_or_insert_with(Instant::now);
            self.flushed = true;
        }
        if is_planned(overlay, &link.name) {
            self.suspect_overlay(|| format!("device {} was deleted", link.name));
        } else if self.pods.contains(&link.name) || self.pods.is_bridge(&link.name) {
            self.suspect_pods(|| format!("device {} was deleted", link.name));
        }
    }

    fn judge_route(&mut self, route: &Route, overlay: &Overlay, gone: bool) {
        let what = |done: &str| format!("route {} was {done} by protocol {}", route.dst, route.protocol);
        let ours = route.protocol == ROUTE_PROTOCOL;
        if route.dst.prefix_len() == 0 && !ours {
            self.suspicion.underlay.get_or_insert_with(Instant::now);
        }
        let planned = overlay.desired().routes.contains_key(&route.dst);
        // A pod's route is its host prefix.
        let of_pod = || is_host(route.dst) && self.pods.has_address(route.dst.addr());
        match (planned, gone) {
            (true, true) if ours => {
                self.suspect_overlay(|| format!("route {} was deleted", route.dst));
                self.suspect_settings_of(route);
            }
            // What is planned and what is done may be apart for a moment; whether it is damage shows when it is looked at.
            (true, false) => self.suspect_overlay(|| what("set")),
            (false, true) if ours && of_pod() => {
                self.suspect_pods(|| format!("route {} was deleted", route.dst));
                self.suspect_settings_of(route);
            }
            (false, false) if !ours && of_pod() => self.suspect_pods(|| what("set")),
            (false, false) if ours && !matches!(route.target, Target::Device(_)) => {
                self.suspect_overlay(|| what("made"));
            }
            _ => {}
        }
    }

    /// A device of which IPv6 was switched off loses its routes of IPv6, and nothing else tells of it.
    fn suspect_settings_of(&mut self, route: &Route) {
        if let (IpNet::V6(_), Target::Device(device) | Target::Gateway { device: Some(device), .. }) =
            (route.dst, route.target)
        {
            self.suspicion.settings.get_or_insert_with(Instant::now);
            self.suspicion.settings_of.extend(self.devices.get(&device).cloned());
        }
    }

    fn judge_rules(&mut self, transaction: &Transaction) {
        let author = || match &transaction.author {
            Some(author) => format!("{} (process {})", author.name, author.pid),
            None => "somebody".to_owned(),
        };
        let touches =
            |name: &str| [FAMILY_IP, FAMILY_IP6].iter().any(|of| transaction.tables.contains(&(*of, name.to_owned())));
        // Where it is told what was done to which elements, these are looked at.
        let room = self.suspicion.touched.len() + transaction.touched.len() <= MOST_TOUCHED;
        let is_told = !transaction.is_more && room;
        for table in TABLES.into_iter().filter(|table| touches(table)) {
            let suspected = if is_told { &mut self.suspicion.elements } else { &mut self.suspicion.rules };
            suspected.get_or_insert_with(Instant::now);
            self.suspicion.rules_touched = true;
            self.suspicion.heard(|| format!("{} changed table {table}", author()));
            let is_of_it = |one: &&Touched| is_told && Family::ALL.into_iter().any(|family| one.is_of(family, table));
            self.suspicion.touched.extend(transaction.touched.iter().filter(is_of_it).cloned());
        }
        if touches(rules::TABLE) || transaction.tables.contains(&(FAMILY_BRIDGE, rules::TABLE.to_owned())) {
            self.suspicion.pod_rules.get_or_insert_with(Instant::now);
            self.suspicion.rules_touched = true;
            self.suspicion.heard(|| format!("{} changed table {}", author(), rules::TABLE));
        }
        let ours = |table: &str| TABLES.contains(&table) || table == rules::TABLE;
        let is_ip = |family: u8| [FAMILY_IP, FAMILY_IP6].contains(&family);
        if transaction.tables.iter().any(|(family, table)| !is_ip(*family) || !ours(table)) {
            self.suspect_passage();
            self.suspicion.passage_by = author();
        }
    }

    /// Other people's chains may drop pods' packets now, where that is podnet's business.
    pub(super) fn suspect_passage(&mut self) {
        if self.passages != Passages::Gone {
            self.suspicion.passage.get_or_insert_with(Instant::now);
        }
    }

    fn suspect_overlay(&mut self, what: impl FnOnce() -> String) {
        self.suspicion.overlay.get_or_insert_with(Instant::now);
        self.suspicion.heard(what);
    }

    fn suspect_pods(&mut self, what: impl FnOnce() -> String) {
        self.suspicion.pods.get_or_insert_with(Instant::now);
        self.suspicion.heard(what);
    }
}

fn is_planned(overlay: &Overlay, device: &LinkName) -> bool {
    overlay.config().vxlan_names().contains(&device) || overlay.desired().tunnels.contains_key(device)
}

fn is_host(dst: IpNet) -> bool {
    match dst.addr() {
        IpAddr::V4(_) => dst.prefix_len() == 32,
        IpAddr::V6(_) => dst.prefix_len() == 128,
    }
}
