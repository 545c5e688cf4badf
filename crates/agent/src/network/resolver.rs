//! The way to the node's resolver: its addresses, and the rules that lead pods' questions to it, or past it to cluster DNS.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::{Duration, Instant},
};

use podnet_kernel::{
    datapath::KernelDatapath,
    monitor::Notice,
    netlink::NetlinkError,
    nft::{NftError, NftSocket},
    resolver,
};
use podnet_model::{Change, Dual, Family, Protocol, ServiceKey};
use podnet_planner::{
    resolver::{Endpoints, Resolver, TABLE},
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
    /// It was tidied up after an earlier agent that had others.
    tidied: bool,
    /// The tables as they were made, until somebody may have changed them.
    in_force: Dual<Option<RuleSet>>,
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
            tidied: false,
            in_force: Dual::default(),
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
            Notice::Lost | Notice::RulesLost => true,
            _ => false,
        };
        if notices.iter().any(concerns) {
            self.in_force = Dual::default();
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
                self.due = Some(Instant::now() + LOOK);
                if !std::mem::replace(&mut self.told, true) {
                    warn!(
                        error = &error as &dyn std::error::Error,
                        "the node's resolver is not reached; it is tried again"
                    );
                }
            }
        }
    }

    fn lead(&mut self, datapath: &mut KernelDatapath) -> Result<(), NotLed> {
        let (host, rules) = datapath.sockets();
        let addrs: Vec<IpAddr> = self.wanted.addrs.iter().copied().collect();
        if !self.tidied {
            let former = self.noted();
            // Written down before there is anything to take away.
            self.take_note(&addrs);
            let strange: Vec<IpAddr> = former.into_iter().filter(|addr| !addrs.contains(addr)).collect();
            resolver::release(host, &strange)?;
            self.tidied = true;
        }
        let endpoints = self.endpoints.all();
        // While there is none, those that were there last are as good as any.
        if !endpoints.is_empty() {
            self.wanted.endpoints = endpoints;
        }
        if !addrs.is_empty() && resolver::hold(host, &addrs)? > 0 {
            info!(addresses = ?addrs, "the node holds its resolver's addresses");
        }
        for family in Family::ALL {
            self.put(family, rules)?;
        }
        let over_tcp = self.wanted.endpoints.get(&Protocol::Tcp).into_iter().flatten();
        let upstreams: BTreeSet<SocketAddr> = over_tcp.map(|to| SocketAddr::new(to.addr, to.port)).collect();
        let told = Told { upstreams, held: addrs.iter().copied().collect(), gave_way: self.wanted.gives_way };
        self.seat.told.send_if_modified(|last| std::mem::replace(last, told.clone()) != told);
        Ok(())
    }

    fn put(&mut self, family: Family, rules: &mut NftSocket) -> Result<(), NftError> {
        let is_there = rules.tables(family)?.iter().any(|table| table == TABLE);
        let Some(table) = self.wanted.table(family) else {
            return if is_there { rules.delete_table(family, TABLE) } else { Ok(()) };
        };
        if is_there && self.in_force[family].as_ref() == Some(&table) {
            return Ok(());
        }
        self.in_force[family] = None;
        match rules.replace(TABLE, &table) {
            Ok(_) => {
                self.in_force[family] = Some(table);
                Ok(())
            }
            Err(error) if self.wanted.blind => Err(error),
            Err(error) => {
                self.wanted.blind = true;
                let table = self.wanted.table(family).unwrap_or(table);
                rules.replace(TABLE, &table)?;
                let error = &error as &dyn std::error::Error;
                warn!(
                    error,
                    "this kernel does not see sockets in rules: questions are led to nobody while the agent is away"
                );
                Ok(())
            }
        }
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
