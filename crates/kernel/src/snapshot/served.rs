//! By what Services are served where tables of nf_tables are not all of it: chains of iptables, virtual servers, an agent's sockets, programs at
//! sockets.
//!
//! What there is and what there has to be are put into the same words, so that whoever has the one can hold it against the other: a kernel may be
//! another machine's.

mod chains;
mod frontends;
mod listeners;
mod servers;

use std::{collections::BTreeSet, path::Path};

use podnet_model::{Family, errors::chain, proxy::Mode};
use serde::{Deserialize, Serialize};

pub use self::{chains::Chains, frontends::Frontends, listeners::Listeners, servers::Servers};
use crate::{
    apart::{self, ApartError},
    cgroup::{Cgroup, CgroupError},
    fastpath::CONNTRACK_LIBERAL,
    iptables::IptablesError,
    ipvs::IpvsError,
    netlink::NetlinkError,
    netns::NetNs,
    sockets::{self, SocketsError},
    sysctl,
};

/// Rules of iptables are told of one node so far, in bytes: those of about 10,000 Services with ten endpoints each.
const MOST_TEXT: usize = 48 << 20;
/// So many real servers, elements of sets, listeners, frontends and backends are told of one node: those of as many Services, in some 12 MB.
const MOST_ENTRIES: usize = 200_000;

/// What serves Services, as far as a mode has it; of each, why it is not told where it is not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Served {
    /// Of IPv4.
    pub v4: OfFamily,
    /// Of IPv6.
    pub v6: OfFamily,
    /// What programs at sockets know, of both families (mode `ebpf`).
    pub frontends: Option<Result<Frontends, String>>,
    /// Connection tracking takes packets that fit no window for those of their connection
    /// (`net.netfilter.nf_conntrack_tcp_be_liberal`), for the fast path or by somebody else: mode `iptables` then drops none.
    pub is_liberal: bool,
}

/// What serves those of one family.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OfFamily {
    /// Chains of iptables (modes `iptables` and `ipvs`).
    pub chains: Option<Result<Chains, String>>,
    /// Virtual servers (mode `ipvs`).
    pub servers: Option<Result<Servers, String>>,
    /// Where an agent listens (mode `userspace`).
    pub listeners: Option<Result<Listeners, String>>,
}

/// Why something is not told.
#[derive(Debug, thiserror::Error)]
enum Untold {
    #[error(transparent)]
    Iptables(#[from] IptablesError),
    #[error(transparent)]
    Ipvs(#[from] IpvsError),
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    #[error(transparent)]
    Apart(#[from] ApartError),
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    #[error(transparent)]
    Sockets(#[from] SocketsError),
    #[error("there are {count} {what}, which are too many to be told")]
    TooMany { count: usize, what: &'static str },
}

impl Served {
    /// Looks at what a mode has in a namespace. Programs at sockets are looked for at the cgroup of this name, relative to the hierarchy's root.
    /// What cannot be looked at is told with the reason.
    #[must_use]
    pub fn take(netns: &NetNs, mode: Mode, cgroup: &Path) -> Self {
        let (mut text, mut entries) = (MOST_TEXT, MOST_ENTRIES);
        let is_liberal = netns.run(|| sysctl::read_here(CONNTRACK_LIBERAL).is_ok_and(|found| found != "0"));
        let mut served = Self { is_liberal: is_liberal.unwrap_or_default(), ..Self::default() };
        if mode == Mode::Ebpf {
            served.frontends = Some(told(at_sockets(cgroup, &mut entries)));
        }
        for family in Family::ALL {
            let of = served.of_mut(family);
            if matches!(mode, Mode::Iptables | Mode::Ipvs) {
                of.chains = Some(told(Chains::take(netns, family, &mut text)));
            }
            match mode {
                Mode::Ipvs => of.servers = Some(told(Servers::take(netns, family, &mut entries))),
                Mode::Userspace => of.listeners = Some(told(listeners(netns, family, &mut entries))),
                Mode::Ebpf | Mode::Nftables | Mode::Iptables => {}
            }
        }
        served
    }

    /// What is of a family.
    #[must_use]
    pub const fn of(&self, family: Family) -> &OfFamily {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }

    /// The same, to be changed.
    pub const fn of_mut(&mut self, family: Family) -> &mut OfFamily {
        match family {
            Family::V4 => &mut self.v4,
            Family::V6 => &mut self.v6,
        }
    }
}

fn told<T>(taken: Result<T, Untold>) -> Result<T, String> {
    taken.map_err(|error| chain(&error))
}

fn at_sockets(cgroup: &Path, room: &mut usize) -> Result<Frontends, Untold> {
    let seen = sockets::look(&Cgroup::v2(cgroup)?)?;
    take_room(room, seen.tables.frontends.len() + seen.tables.backends.len(), "frontends and backends of programs")?;
    Ok(Frontends::of(&seen))
}

fn listeners(netns: &NetNs, family: Family, room: &mut usize) -> Result<Listeners, Untold> {
    let seen = apart::look(netns, family)?;
    let count = seen.led.len() + seen.at_node.len() + seen.inside.as_ref().map_or(0, BTreeSet::len);
    take_room(room, count, "sockets of Services and ways to them")?;
    Ok(Listeners::of(&seen))
}

fn take_room(room: &mut usize, count: usize, what: &'static str) -> Result<(), Untold> {
    *room = room.checked_sub(count).ok_or(Untold::TooMany { count, what })?;
    Ok(())
}

#[cfg(test)]
mod tests;
