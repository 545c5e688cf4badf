//! Where virtual servers, sets and chains of one family are written.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;
use podnet_kernel::{
    iptables::{Fingerprint, Iptables, IptablesError, Variant},
    ipvs::{self, Ipvs, IpvsError, Settings},
    monitor::Transaction,
    netlink::NetlinkError,
    netns::NetNs,
    route::attraction::{Attraction, attract, attract_too},
};
use podnet_model::{Family, proxy::IpvsConfig};
use podnet_planner::{
    iptables::{Rewrite, Rules},
    ipvs::{Edit, PRIORITY, ROUTES, ServerKey, State, difference},
    ruleset::{BackendAddress, FrontendKey},
    services::ipvs::{led_here, lingering, lingers_for, may_linger, names, own, remembered},
};
use tracing::info;

use super::{
    super::{iptables::touches, mode::RulesError},
    lingering::Found,
};

/// No packets are attracted.
pub(super) const NOTHING: Attraction = Attraction::nothing(ROUTES, PRIORITY);

/// The sockets and programs.
#[derive(Debug)]
pub(super) struct Kernel {
    family: Family,
    servers: Ipvs,
    tables: Iptables,
    /// The chains that are in force.
    rules: Rules,
    /// What the tables looked like when they were right.
    seen: Option<Fingerprint>,
    /// The packets that are attracted, as far as is known.
    attracted: Option<Attraction>,
}

impl Kernel {
    /// Chooses the variant of iptables that the host uses. What an earlier agent made in the other one goes.
    pub(super) fn open(netns: &NetNs, family: Family) -> Result<Self, RulesError> {
        let variant = Variant::of_host(netns)?;
        let other = match variant {
            Variant::Legacy => Variant::Nft,
            Variant::Nft => Variant::Legacy,
        };
        remove_chains(netns, family, other)?;
        let tables = Iptables::new(netns.clone(), family, variant)?;
        info!(%variant, ?family, "Services are virtual servers, with rules in iptables");
        let servers = Ipvs::open(netns, family)?;
        Ok(Self { family, servers, tables, rules: Rules::default(), seen: None, attracted: None })
    }

    pub(super) const fn variant(&self) -> Variant {
        self.tables.variant()
    }

    pub(super) fn configure(&mut self, config: &IpvsConfig) -> Result<(), RulesError> {
        let settings = Settings {
            tcp_timeout: config.tcp_timeout,
            tcp_fin_timeout: config.tcp_fin_timeout,
            udp_timeout: config.udp_timeout,
            strict_arp: config.strict_arp,
        };
        Ok(self.servers.configure(&settings)?)
    }

    /// Everybody's virtual servers, and podnet's addresses and sets. Addresses that are wanted and are not such as podnet makes them are not
    /// told.
    pub(super) fn read(&mut self, wanted: &State) -> Result<State, RulesError> {
        let mut there = self.servers.read(&names(self.family))?;
        for addr in self.servers.strange().intersection(&wanted.addrs) {
            there.addrs.remove(addr);
        }
        Ok(there)
    }

    /// Whether all of this is there, as far as is told by counting.
    pub(super) fn seems_to_have(&mut self, what: &State) -> Result<bool, RulesError> {
        Ok(self.servers.seems_to_have(what)?)
    }

    /// Answers the real servers that the kernel does not take.
    pub(super) fn apply(&mut self, edits: &[Edit]) -> Result<Vec<(ServerKey, BackendAddress)>, RulesError> {
        Ok(self.servers.apply(edits)?)
    }

    pub(super) fn connections(
        &mut self,
        of: &BTreeSet<ServerKey>,
    ) -> Result<BTreeMap<(ServerKey, BackendAddress), u64>, RulesError> {
        Ok(self.servers.connections(of)?)
    }

    /// These packets come to this node; it is looked what is there where it `looks`, or others did. Answers in how many steps.
    pub(super) fn attract(&mut self, netns: &NetNs, what: Attraction, looks: bool) -> Result<usize, RulesError> {
        if self.attracted.as_ref() == Some(&what) && !looks {
            return Ok(0);
        }
        self.attracted = None;
        let done = attract(netns, self.family, &what)?;
        self.attracted = Some(what);
        Ok(done)
    }

    /// Makes the chains that are there those that are wanted, whatever there is.
    pub(super) fn put_chains(&mut self, rules: Rules) -> Result<Rewrite, RulesError> {
        let done = self.tables.put(&rules)?;
        self.seen = self.tables.fingerprint()?;
        self.rules = rules;
        Ok(done)
    }

    /// As [`Kernel::put_chains`], where others than before are wanted.
    pub(super) fn follow_chains(&mut self, rules: Rules) -> Result<(), RulesError> {
        if self.rules != rules {
            self.put_chains(rules)?;
        }
        Ok(())
    }

    /// Whether the tables look otherwise than when they were right, or cannot be looked at.
    pub(super) fn is_changed(&self) -> bool {
        self.tables.fingerprint().map_or(true, |now| now != self.seen)
    }

    /// Whether a change of the tables is this value's.
    pub(super) fn is_own(&self, transaction: &Transaction) -> bool {
        self.tables.is_own(transaction)
    }

    /// Whether somebody else changed something in the tables.
    pub(super) fn is_touched(&self, transaction: &Transaction) -> bool {
        touches(Some(&self.tables), self.family, transaction)
    }
}

/// Takes away what podnet has; nothing where there are no virtual servers. What has connections lingers where its frontend `may_stay`.
///
/// What lingers and what is only remembered is `known` before anything goes: once it went nobody could count it again, and it may be that
/// not all of it can.
pub(super) fn remove(
    netns: &NetNs,
    family: Family,
    excluded: &[IpNet],
    may_stay: impl Fn(&FrontendKey) -> bool,
    known: impl FnOnce(Found),
) -> Result<(), RulesError> {
    let remove_all_chains =
        || [Variant::Nft, Variant::Legacy].into_iter().try_for_each(|variant| remove_chains(netns, family, variant));
    // Asking would load the modules. Where they are not there nothing is.
    if !ipvs::is_loaded(netns) {
        known(Found::default());
        return Ok(remove_all_chains()?);
    }
    let mut servers = Ipvs::open(netns, family)?;
    let is_excluded = |addr: &IpAddr| excluded.iter().any(|range| range.contains(addr));
    let there = own(servers.read(&names(family))?, &State::default(), family, is_excluded);
    let counted = servers.connections(there.servers.keys())?;
    let may_linger: BTreeSet<ServerKey> = may_linger(&there, family, may_stay).into_iter().collect();
    let (busy, mut gone): (BTreeMap<_, _>, BTreeMap<_, _>) =
        counted.into_iter().partition(|((key, _), _)| may_linger.contains(key));
    let stays = lingering(&there, family, &busy);
    // Those that lead elsewhere and are too many.
    let too_many = busy.iter().filter(|((key, _), _)| !stays.servers.contains_key(key));
    gone.extend(too_many.map(|(key, count)| (*key, *count)));
    known(Found {
        frontends: lingers_for(&stays, family),
        backends: remembered(&stays, family, &busy),
        gone: remembered(&there, family, &gone),
    });
    let frontends = led_here(&stays, family, stays.servers.keys());
    let what = Attraction { frontends, ..NOTHING };
    // What stays is led here by its port before the chains go by whose mark it was: at no time its packets are sent on to elsewhere.
    attract_too(netns, family, &what)?;
    remove_all_chains()?;
    attract(netns, family, &what)?;
    servers.apply_when_free(&difference(&stays, &there))?;
    Ok(servers.remove_device()?)
}

/// Nothing where the variant is not installed, or the chains are those of another mode.
fn remove_chains(netns: &NetNs, family: Family, variant: Variant) -> Result<(), IptablesError> {
    match Iptables::new(netns.clone(), family, variant) {
        Err(IptablesError::Missing { .. }) => Ok(()),
        tables => tables?.remove_ipvs(),
    }
}

impl From<IpvsError> for RulesError {
    fn from(error: IpvsError) -> Self {
        Self::Other(Box::new(error))
    }
}

impl From<NetlinkError> for RulesError {
    fn from(error: NetlinkError) -> Self {
        Self::Other(Box::new(error))
    }
}
