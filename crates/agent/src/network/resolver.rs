//! The way to the node's resolver: its addresses, and the rules that lead pods' questions to it, or past it to cluster DNS.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::{Duration, Instant},
};

use podnet_kernel::{
    datapath::KernelDatapath,
    link::{self, Link},
    monitor::Notice,
    netlink::{NetlinkError, RtSocket},
    nft::{NftError, NftSocket},
    resolver,
};
use podnet_model::{Change, Dual, Family, Protocol, ServiceKey};
use podnet_planner::{
    attachments::DEVICE_PREFIX,
    resolver::{Attempts, Endpoints, Resolver, TABLE},
    ruleset::RuleSet,
};
use tracing::{debug, info, warn};

use crate::dns::{Seat, Told};

/// How often it is looked at all, whether anybody said something or not.
const LOOK: Duration = Duration::from_secs(10);
/// The Service of cluster DNS, as every installer calls it.
const SERVICE: (&str, &str) = ("kube-system", "kube-dns");

/// Why nobody is led to the node's resolver.
#[derive(Debug, thiserror::Error)]
enum NotLed {
    /// The addresses are refused.
    #[error("cannot hold the addresses of the node's resolver")]
    Addresses(#[from] NetlinkError),
    /// The rules are.
    #[error("cannot put the rules for the node's resolver in force")]
    Rules(#[from] NftError),
}

/// What is wanted, and what of it is in force.
#[derive(Debug)]
pub(super) struct ResolverWay {
    wanted: Resolver,
    endpoints: Endpoints,
    seat: Seat,
    /// Addresses that an agent of this node may hold: none is left behind when others are asked for.
    note: PathBuf,
    /// The bridges that pods are on, by their devices' indices.
    bridges: BTreeSet<u32>,
    /// It was tidied up after an earlier agent that had others.
    tidied: bool,
    /// The tables as they were made, until somebody may have changed them.
    in_force: Dual<Option<RuleSet>>,
    /// What became of them so far.
    attempts: Dual<Attempts>,
    due: Option<Instant>,
    /// A refusal was told.
    told: bool,
}

impl ResolverWay {
    /// To a resolver at these addresses; without any, what an earlier agent had is taken away.
    pub(super) fn new(addrs: &[IpAddr], seat: Seat, note: PathBuf) -> Self {
        Self {
            wanted: Resolver { addrs: addrs.iter().copied().collect(), ..Resolver::default() },
            endpoints: Endpoints::new(ServiceKey::new(SERVICE.0, SERVICE.1)),
            seat,
            note,
            bridges: BTreeSet::new(),
            tidied: false,
            in_force: Dual::default(),
            attempts: Dual::default(),
            due: Some(Instant::now()),
            told: false,
        }
    }

    pub(super) fn learn(&mut self, change: &Change) {
        if !self.wanted.addrs.is_empty() && self.endpoints.learn(change) {
            self.hasten();
        }
    }

    /// Takes in what the kernel tells.
    pub(super) fn hear(&mut self, notices: &[Notice]) {
        let concerns = |notice: &Notice| match notice {
            Notice::Rules(transaction) => transaction.tables.iter().any(|(_, table)| table == TABLE),
            Notice::Address { addr, .. } => self.wanted.addrs.contains(&addr.addr()),
            // The first pod on a bridge tells which bridge that is; the others' bridge is known.
            Notice::Link(link) => is_of_pod(link) && link.master.is_some_and(|bridge| !self.bridges.contains(&bridge)),
            Notice::Lost | Notice::RulesLost => true,
            _ => false,
        };
        if notices.iter().any(concerns) {
            self.in_force = Dual::default();
            let now = Instant::now();
            Family::ALL.into_iter().for_each(|family| self.attempts[family].hasten(now));
            self.hasten();
        }
    }

    fn hasten(&mut self) {
        self.due = self.due.map(|_| Instant::now());
    }

    pub(super) const fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Does what is due. Nothing else depends on it, so a refusal is only told, and it is tried again.
    pub(super) fn look(&mut self, datapath: &mut KernelDatapath) {
        let gives_way = *self.seat.gives_way.borrow();
        if gives_way != self.wanted.gives_way {
            self.wanted.gives_way = gives_way;
            self.due = Some(Instant::now());
        }
        if self.due.is_none_or(|due| due > Instant::now()) {
            return;
        }
        self.due = (!self.wanted.addrs.is_empty()).then(|| Instant::now() + LOOK);
        match self.lead(datapath) {
            Ok(()) => self.told = false,
            // There is nobody to be reached.
            Err(error) if self.wanted.addrs.is_empty() => {
                debug!(error = &error as &dyn std::error::Error, "not tidied up");
            }
            Err(error) => {
                let again = Family::ALL.into_iter().filter_map(|family| self.attempts[family].due());
                self.due = self.due.into_iter().chain(again).min();
                if !std::mem::replace(&mut self.told, true) {
                    warn!(
                        error = &error as &dyn std::error::Error,
                        "the node's resolver is not reached as it should be; it is tried again"
                    );
                }
            }
        }
    }

    /// Does all that can be done, and tells the first thing that could not: neither family waits for the other.
    fn lead(&mut self, datapath: &mut KernelDatapath) -> Result<(), NotLed> {
        let (host, rules) = datapath.sockets();
        let addrs: Vec<IpAddr> = self.wanted.addrs.iter().copied().collect();
        let mut failed: Option<NotLed> = None;
        if let Err(error) = self.tidy_up(host, &addrs) {
            failed.get_or_insert(error.into());
        }
        let endpoints = self.endpoints.all();
        // While there is none, those that were there last are as good as any.
        if !endpoints.is_empty() {
            self.wanted.endpoints = endpoints;
        }
        if let Err(error) = self.look_for_bridges(host) {
            failed.get_or_insert(error.into());
        }
        let (mut held, mut all) = (BTreeSet::new(), true);
        for family in Family::ALL {
            let own: Vec<IpAddr> = addrs.iter().copied().filter(|addr| Family::of(addr) == family).collect();
            match if own.is_empty() { Ok(0) } else { resolver::hold(host, &own) } {
                Ok(new) => {
                    if new > 0 {
                        info!(addresses = ?own, "the node holds its resolver's addresses");
                    }
                    held.extend(own);
                }
                Err(error) => drop(failed.get_or_insert(error.into())),
            }
            match self.put(family, rules) {
                Ok(in_force) => all &= in_force,
                Err(error) => {
                    all = false;
                    failed.get_or_insert(error.into());
                }
            }
        }
        let over_tcp = self.wanted.endpoints.get(&Protocol::Tcp).into_iter().flatten();
        let upstreams: BTreeSet<SocketAddr> = over_tcp.map(|to| SocketAddr::new(to.addr, to.port)).collect();
        let unguarded = (!all).then(|| self.wanted.bridges.clone());
        let told = Told { upstreams, held, gave_way: self.wanted.gives_way && all, unguarded };
        self.seat.told.send_if_modified(|last| std::mem::replace(last, told.clone()) != told);
        failed.map_or(Ok(()), Err)
    }

    fn tidy_up(&mut self, host: &mut RtSocket, addrs: &[IpAddr]) -> Result<(), NetlinkError> {
        if self.tidied {
            return Ok(());
        }
        let former = self.noted();
        let strange: Vec<IpAddr> = former.iter().copied().filter(|addr| !addrs.contains(addr)).collect();
        // Written down before there is anything to take away, and struck out once it is.
        self.take_note(&[addrs, &strange].concat());
        resolver::release(host, &strange)?;
        self.take_note(addrs);
        self.tidied = true;
        Ok(())
    }

    /// Finds the bridges that pods are on: whoever sends by one of them may be a pod.
    fn look_for_bridges(&mut self, host: &mut RtSocket) -> Result<(), NetlinkError> {
        if self.wanted.addrs.is_empty() {
            return Ok(());
        }
        let links = link::list(host)?;
        self.bridges = links.iter().filter(|link| is_of_pod(link)).filter_map(|link| link.master).collect();
        let bridges = links.iter().filter(|link| self.bridges.contains(&link.index));
        self.wanted.bridges = bridges.map(|link| link.name.clone()).collect();
        Ok(())
    }

    /// Puts the family's rules in force, and tells whether they are.
    fn put(&mut self, family: Family, rules: &mut NftSocket) -> Result<bool, NftError> {
        // What a kernel lacks is told elsewhere: questions come to the agent's sockets all the same.
        if !rules.is_there()? {
            return Ok(false);
        }
        let is_there = rules.has_table(family, TABLE)?;
        let now = Instant::now();
        let mut refused = None;
        if self.attempts[family].sees(now) {
            match self.replace(family, false, is_there, rules) {
                Ok(()) => {
                    self.attempts[family].taken(false);
                    return Ok(true);
                }
                Err(error) => refused = Some(error),
            }
            self.attempts[family].refused(now);
        } else if !self.attempts[family].is_blind() {
            // It was refused in every form, and told; it is tried again later.
            return Ok(false);
        }
        self.replace(family, true, is_there, rules)?;
        let was_blind = self.attempts[family].is_blind();
        self.attempts[family].taken(true);
        if let Some(error) = refused.filter(|_| !was_blind) {
            let error = &error as &dyn std::error::Error;
            warn!(
                error,
                %family,
                "the kernel does not take rules that see sockets now: questions are led to nobody while the agent is away"
            );
        }
        Ok(true)
    }

    /// Has the family's table be as it is wanted, with rules that see sockets or without.
    fn replace(&mut self, family: Family, blind: bool, is_there: bool, rules: &mut NftSocket) -> Result<(), NftError> {
        let wanted = Resolver { blind, ..self.wanted.clone() };
        let Some(table) = wanted.table(family) else {
            return if is_there { rules.delete_table(family, TABLE) } else { Ok(()) };
        };
        if is_there && self.in_force[family].as_ref() == Some(&table) {
            return Ok(());
        }
        self.in_force[family] = None;
        rules.replace(TABLE, &table)?;
        self.in_force[family] = Some(table);
        Ok(())
    }

    fn noted(&self) -> Vec<IpAddr> {
        let text = std::fs::read_to_string(&self.note).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }

    fn take_note(&self, addrs: &[IpAddr]) {
        let written = match addrs {
            [] => match std::fs::remove_file(&self.note) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            },
            addrs => std::fs::write(&self.note, addrs.iter().map(|addr| format!("{addr}\n")).collect::<String>()),
        };
        if let Err(error) = written {
            warn!(path = %self.note.display(), %error, "the resolver's addresses are not written down");
        }
    }
}

/// Whether it is the node's end of a pod's link.
fn is_of_pod(link: &Link) -> bool {
    link.name.as_str().starts_with(DEVICE_PREFIX)
}
