//! The kernel's virtual servers (IPVS), the device that has their addresses, and the sets that go with them, over netlink.
//!
//! Nothing here is a transaction: edits are done one after the other, in the order in which they are given.

mod device;
mod listed;
mod message;
mod settings;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use netlink_packet_core::NLM_F_DUMP;
use podnet_model::Family;
use podnet_planner::{
    ipvs::{Edit, Scheduling, Server, ServerKey, SetName, State},
    ruleset::BackendAddress,
};
use rustix::io::Errno;

use crate::{
    ipset::{IpsetError, IpsetSocket},
    netlink::{
        NetlinkError, Operation, RtSocket,
        batch::Refused,
        generic::{GenericSocket, body},
    },
    netns::NetNs,
    sysctl::SysctlError,
};
use listed::LIST;
use message::{Real, command, read_real, read_server, write_server};
pub use settings::{Settings, configure};

/// Whether the kernel has virtual servers without that anything is loaded for it. Where it has none there cannot be any.
#[must_use]
pub fn is_loaded(netns: &NetNs) -> bool {
    netns.run(|| Path::new(LIST).exists()).unwrap_or(false)
}

/// How long a set that rules asked is waited for, and how long between two looks.
const LETS_GO: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(10);

/// The netlink family of virtual servers.
const FAMILY: &str = "IPVS";

/// Virtual servers of one family in one namespace, with what goes with them.
#[derive(Debug)]
pub struct Ipvs {
    family: Family,
    servers: GenericSocket,
    sets: IpsetSocket,
    links: RtSocket,
    /// Addresses of the device that are such as others make them, when it was read.
    strange: BTreeSet<IpAddr>,
}

impl Ipvs {
    /// Opens sockets in a namespace; they stay there, whoever uses them. Nothing is changed.
    ///
    /// # Errors
    /// Where the kernel has no virtual servers, or the process may not.
    pub fn open(netns: &NetNs, family: Family) -> Result<Self, IpvsError> {
        let servers = netns.run(|| GenericSocket::open(FAMILY))??;
        let (sets, links) = (IpsetSocket::open_in(netns, family)?, RtSocket::open_in(netns)?);
        Ok(Self { family, servers, sets, links, strange: BTreeSet::new() })
    }

    /// As [`configure`], in the value's namespace.
    ///
    /// # Errors
    /// As there.
    pub fn configure(&mut self, settings: &Settings) -> Result<(), IpvsError> {
        settings::configure_by(&mut self.servers, self.links.netns(), settings)
    }

    /// All virtual servers of the family, everybody's, the addresses of the device, and those of the named sets that are there.
    ///
    /// What podnet cannot say of a server is told as something that it does not want, so that a difference sets it right: a persistence of
    /// 0 s, the weight [`u32::MAX`].
    ///
    /// # Errors
    /// What the kernel refused, and where a set is of a kind that podnet does not make.
    pub fn read(&mut self, sets: &[SetName]) -> Result<State, IpvsError> {
        let mut servers = BTreeMap::new();
        for (key, scheduling) in self.list()? {
            let reals = self.reals(&key)?.into_iter().map(|real| (real.at, real.weight));
            servers.insert(key, Server { scheduling, reals: reals.collect() });
        }
        let found = device::addresses(&mut self.links, self.family)?;
        self.strange = found.iter().filter(|(_, is_as_made)| !**is_as_made).map(|(addr, _)| *addr).collect();
        Ok(State { servers, addrs: found.into_keys().collect(), sets: self.sets.read(sets)? })
    }

    /// Addresses that were read last and are not such as [`Ipvs::apply`] makes them: a packet may get one of them as its source. To add one
    /// makes it right.
    #[must_use]
    pub const fn strange(&self) -> &BTreeSet<IpAddr> {
        &self.strange
    }

    /// Whether all of this seems to be there, told by how virtual servers schedule, which real servers they have, which addresses there are,
    /// and how many elements sets have. It is asked for in few requests, however many virtual servers there are.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn seems_to_have(&mut self, what: &State) -> Result<bool, IpvsError> {
        let servers: BTreeMap<ServerKey, Scheduling> = self.list()?.into_iter().collect();
        if what.servers.iter().any(|(key, server)| servers.get(key) != Some(&server.scheduling)) {
            return Ok(false);
        }
        let addrs = device::addresses(&mut self.links, self.family)?;
        if what.addrs.iter().any(|addr| !addrs.contains_key(addr)) {
            return Ok(false);
        }
        for (name, set) in &what.sets {
            if !self.sets.seems_to_be(name, set)? {
                return Ok(false);
            }
        }
        Ok(listed::seem_right(self.links.netns(), self.family, &what.servers)?)
    }

    /// Does edits in order. Neighbours of one sort go out together, and all of them are tried; those behind are not done once one was
    /// refused. What is to be made and is there is changed; what is to go and is not is no error.
    ///
    /// Answers the real servers that the kernel does not take such as they are, since they are at no unicast address: what else it knows of
    /// this node only, as a subnet's broadcast address. They keep nothing else back.
    ///
    /// # Errors
    /// The first that was refused otherwise.
    pub fn apply(&mut self, edits: &[Edit]) -> Result<Vec<(ServerKey, BackendAddress)>, IpvsError> {
        let mut odd = Vec::new();
        for run in edits.chunk_by(|one, next| Sort::of(one) == Sort::of(next)) {
            match run.first().map(Sort::of) {
                Some(Sort::Sets) => self.sets.apply(run)?,
                Some(Sort::Servers) => odd.extend(self.apply_to_servers(run)?),
                Some(Sort::Addresses) => device::apply(&mut self.links, self.family, run)?,
                None => {}
            }
        }
        Ok(odd)
    }

    /// As [`Ipvs::apply`], where rules of iptables that asked sets went a moment ago: the variant of nf_tables lets go of these later.
    ///
    /// # Errors
    /// As [`Ipvs::apply`], [`IpsetError::InUse`] only after a second.
    pub fn apply_when_free(&mut self, edits: &[Edit]) -> Result<(), IpvsError> {
        let deadline = Instant::now() + LETS_GO;
        loop {
            match self.apply(edits) {
                Err(IpvsError::Set(IpsetError::InUse { .. })) if Instant::now() < deadline => thread::sleep(PAUSE),
                done => return done.map(drop),
            }
        }
    }

    /// How many connections each real server of these virtual servers has; those that have ended count while they are remembered. A
    /// virtual server that is not there has none.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn connections<'a>(
        &mut self,
        of: impl IntoIterator<Item = &'a ServerKey>,
    ) -> Result<BTreeMap<(ServerKey, BackendAddress), u64>, IpvsError> {
        let mut found = BTreeMap::new();
        for key in of {
            found.extend(self.reals(key)?.into_iter().map(|real| ((*key, real.at), real.connections)));
        }
        Ok(found)
    }

    /// Removes the device where it has no address of either family.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn remove_device(&mut self) -> Result<(), IpvsError> {
        device::remove(&mut self.links)
    }

    fn list(&mut self) -> Result<Vec<(ServerKey, Scheduling)>, IpvsError> {
        let operation = Operation::new("list", "virtual servers");
        let frames = self.servers.ask(&operation, NLM_F_DUMP, command::GET_SERVER, |_| {})?;
        Ok(frames.iter().filter_map(|frame| read_server(body(frame), self.family)).collect())
    }

    fn reals(&mut self, key: &ServerKey) -> Result<Vec<Real>, IpvsError> {
        let (operation, family) = (Operation::new("list the real servers of", key), self.family);
        let frames = self.servers.ask(&operation, NLM_F_DUMP, command::GET_REAL, |writer| {
            write_server(writer, family, key, None);
        })?;
        Ok(frames.iter().filter_map(|frame| read_real(body(frame), family)).collect())
    }

    fn apply_to_servers(&mut self, edits: &[Edit]) -> Result<Vec<(ServerKey, BackendAddress)>, IpvsError> {
        let all: Vec<&Edit> = edits.iter().collect();
        let mut odd = Vec::new();
        let mut refused = self.send(&all, making)?;
        refused.retain(|refused| match all[refused.index] {
            Edit::AddReal(key, at, _) if refused.refusal.code == Errno::INVAL.raw_os_error() => {
                odd.push((*key, *at));
                false
            }
            _ => true,
        });
        let (there, refused): (Vec<_>, Vec<_>) =
            refused.into_iter().partition(|refused| is_there(all[refused.index], refused));
        let (lost, refused): (Vec<_>, Vec<_>) =
            refused.into_iter().partition(|refused| is_lost(all[refused.index], refused));
        fail_at_first(&all, refused)?;
        let lost: Vec<&Edit> = lost.into_iter().map(|refused| all[refused.index]).collect();
        let refused = self.send(&lost, remaking)?;
        fail_at_first(&lost, refused)?;
        let there: Vec<&Edit> = there.into_iter().map(|refused| all[refused.index]).collect();
        let refused = self.send(&there, changing)?;
        fail_at_first(&there, refused)?;
        Ok(odd)
    }

    fn send(&mut self, edits: &[&Edit], command: fn(&Edit) -> u8) -> Result<Vec<Refused>, NetlinkError> {
        let family = self.family;
        let write = |index: usize, writer: &mut _| message::edit(writer, family, edits[index]);
        self.servers.send_all(edits.len(), |index| command(edits[index]), write)
    }
}

/// What an edit is about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sort {
    Sets,
    Servers,
    Addresses,
}

impl Sort {
    const fn of(edit: &Edit) -> Self {
        match edit {
            Edit::MakeSet(..) | Edit::AddElement(..) | Edit::RemoveElement(..) | Edit::DestroySet(_) => Self::Sets,
            Edit::AddAddress(_) | Edit::RemoveAddress(_) => Self::Addresses,
            _ => Self::Servers,
        }
    }
}

/// The command for an edit of servers.
const fn making(edit: &Edit) -> u8 {
    match edit {
        Edit::AddServer(..) => command::NEW_SERVER,
        Edit::RemoveServer(_) => command::DEL_SERVER,
        Edit::AddReal(..) => command::NEW_REAL,
        Edit::RemoveReal(..) => command::DEL_REAL,
        _ => changing(edit),
    }
}

/// The command that makes what is there what is to be made.
const fn changing(edit: &Edit) -> u8 {
    match edit {
        Edit::AddServer(..) | Edit::ChangeServer(..) => command::SET_SERVER,
        _ => command::SET_REAL,
    }
}

/// The command that makes what is to be changed.
const fn remaking(_: &Edit) -> u8 {
    command::NEW_REAL
}

/// What is to get connections once more was removed by somebody else meanwhile.
fn is_lost(edit: &Edit, refused: &Refused) -> bool {
    matches!(edit, Edit::Weigh(_, _, 1..)) && refused.refusal.code == Errno::NOENT.raw_os_error()
}

/// What is to be made is there already.
fn is_there(edit: &Edit, refused: &Refused) -> bool {
    matches!(edit, Edit::AddServer(..) | Edit::AddReal(..)) && refused.refusal.code == Errno::EXIST.raw_os_error()
}

fn fail_at_first(edits: &[&Edit], refused: Vec<Refused>) -> Result<(), IpvsError> {
    let serious = refused.into_iter().find(|refused| !is_gone(edits[refused.index], refused));
    serious.map_or(Ok(()), |refused| Err(explain(edits[refused.index], refused)))
}

/// What is to go, or is to get nothing new before it goes, is gone: the kernel says `ESRCH` where there is no such virtual server, `ENOENT`
/// where it has no such real server.
fn is_gone(edit: &Edit, refused: &Refused) -> bool {
    let missing = [Errno::SRCH, Errno::NOENT].map(Errno::raw_os_error);
    matches!(edit, Edit::RemoveServer(_) | Edit::RemoveReal(..) | Edit::Weigh(_, _, 0))
        && missing.contains(&refused.refusal.code)
}

fn explain(edit: &Edit, refused: Refused) -> IpvsError {
    let real = |real: &BackendAddress, key| format!("{}:{} of {key}", real.addr, real.port);
    let operation = match edit {
        Edit::AddServer(key, _) => Operation::new("make", key),
        Edit::ChangeServer(key, _) => Operation::new("change", key),
        Edit::RemoveServer(key) => Operation::new("remove", key),
        Edit::AddReal(key, at, _) => Operation::new("add real server", real(at, key)),
        Edit::Weigh(key, at, weight) => Operation::new("weigh", format_args!("{weight} real server {}", real(at, key))),
        Edit::RemoveReal(key, at) => Operation::new("remove real server", real(at, key)),
        _ => Operation::new("do", "an edit that is none of virtual servers"),
    };
    match edit {
        Edit::AddServer(_, scheduling) | Edit::ChangeServer(_, scheduling)
            if refused.refusal.code == Errno::NOENT.raw_os_error() =>
        {
            let hint = Some(format!("it has no scheduler {0}, module ip_vs_{0}", scheduling.scheduler));
            NetlinkError::Refused { operation, hint, errno: Errno::NOENT }.into()
        }
        _ => refused.refusal.of(&operation).into(),
    }
}

/// Why virtual servers, and what goes with them, could not be changed or looked at.
#[derive(Debug, thiserror::Error)]
pub enum IpvsError {
    /// The kernel refused, or a socket failed.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// A set could not be changed or looked at.
    #[error(transparent)]
    Set(#[from] IpsetError),
    /// A setting could not be set.
    #[error(transparent)]
    Setting(#[from] SysctlError),
    /// The namespace cannot be entered.
    #[error(transparent)]
    Namespace(#[from] crate::netns::NetNsError),
    /// Another device has the name of the one for the addresses of virtual servers.
    #[error(
        "device {} is a {kind}; it must be a dummy, for the addresses of virtual servers",
        podnet_planner::ipvs::DEVICE
    )]
    Device {
        /// What it is.
        kind: String,
    },
}
