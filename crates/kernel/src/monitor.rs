//! What changes in a namespace, told by the kernel as it happens (`rtnetlink(7)`, multicast groups; nf_tables has one of its own).
//!
//! What the sockets that are named when the monitor is opened do is left out by a filter in the kernel, as far as the kernel says whose
//! work a notice is of (it does for rules, routes and neighbours): ten thousand routes of one's own would fill the buffer. Whoever
//! listens has to expect notices of one's own work all the same. Where notices were lost for want of room, [`Notice::Lost`] says so:
//! whoever listens looks at everything then.

mod decode;
mod ears;
mod filter;

use std::{collections::BTreeSet, io, net::IpAddr};

pub(crate) use decode::route_family;
pub(crate) use ears::Ears;

use ipnet::IpNet;
use netlink_sys::protocols::NETLINK_ROUTE;
use podnet_model::Mac;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::{
    link::Link,
    netlink::{Connection, NetlinkError, News, RtSocket},
    netns::NetNs,
    nft::{NftSocket, Touched, open_netfilter_in},
    route::Route,
};

/// The groups of the route family (`enum rtnetlink_groups`).
const LINK: u32 = 1;
const NEIGHBOUR: u32 = 3;
const IPV4_ADDRESS: u32 = 5;
const IPV4_ROUTE: u32 = 7;
const IPV4_RULE: u32 = 8;
const IPV6_ADDRESS: u32 = 9;
const IPV6_ROUTE: u32 = 11;
const IPV6_RULE: u32 = 19;
const IPV4_SETTINGS: u32 = 24;
const IPV6_SETTINGS: u32 = 25;
/// `NFNLGRP_NFTABLES`.
const NF_TABLES: u32 = 7;
/// As many notices as are handed over at once: a flood is taken in pieces.
const MOST: usize = 4096;
/// Room for what is told of rules until it is read: of a chain that a program of iptables writes anew each rule is told that goes and that
/// comes, in some 700 bytes. What has thousands of them shall not be taken for lost where the listener is late.
const OF_RULES: usize = 32 << 20;

/// How often a kernel without netfilter is asked whether it has one by now.
const LOOK_FOR_RULES: Timespec = Timespec { tv_sec: 30, tv_nsec: 0 };

/// One thing that happened in the namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A device is there, or changed.
    Link(Link),
    /// A device is gone.
    LinkGone(Link),
    /// A device got or lost an address, link-local ones of IPv6 aside.
    /// The kernel tells of one that is there again and again, at each router advertisement that lengthens its life.
    Address {
        /// The device's index.
        device: u32,
        /// The address with its prefix length.
        addr: IpNet,
        /// Its flags (`IFA_F_*`); none where it is gone.
        flags: Option<u32>,
    },
    /// A route of the main table was made or replaced.
    Route(Route),
    /// A route of the main table was removed. Those that go with their device are not told of.
    RouteGone(Route),
    /// A rule that asks a table for a way was removed (`ip-rule(8)`), or a route of a table that is neither the main one nor that of the
    /// node's own addresses.
    WayGone {
        /// The table.
        table: u32,
    },
    /// A neighbour changed.
    Neighbour {
        /// The device's index.
        device: u32,
        /// The neighbour's address.
        addr: IpAddr,
        /// The Ethernet address of a permanent entry; none where it is gone or no longer permanent.
        mac: Option<Mac>,
    },
    /// An FDB entry changed.
    Fdb {
        /// The device's index.
        device: u32,
        /// The inner destination.
        mac: Mac,
        /// Where a permanent entry leads; none where it is gone or no longer permanent.
        remote: Option<IpAddr>,
    },
    /// A setting of IPv4 or IPv6 changed: forwarding or the reverse path filter.
    Setting {
        /// Of which device: its index; none where it is `all` or `default`.
        device: Option<u32>,
    },
    /// A transaction of nf_tables.
    Rules(Transaction),
    /// Notices were lost.
    Lost,
    /// Others may have changed rules without a notice: during a large transaction of one's own, or before it could be listened.
    RulesLost,
}

/// What is told of a transaction of nf_tables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transaction {
    /// The tables in which something was changed, with their family (`NFPROTO_*`: 2 is `ip`, 1 `inet`).
    pub tables: BTreeSet<(u8, String)>,
    /// The number of the rules that it made, of all tables.
    pub generation: Option<u32>,
    /// Who did it: the process, where the kernel tells.
    pub author: Option<Author>,
    /// The chains that came or went, or whose rules did: family, table and name. Of a table that goes there is one without a name.
    pub chains: BTreeSet<(u8, String, String)>,
    /// There are more chains than are told.
    pub has_more_chains: bool,
    /// The elements of sets and maps that were added or removed, in the tables of whomever.
    pub touched: Vec<Touched>,
    /// More than those was changed, or more of them than are told.
    pub is_more: bool,
}

/// The process that changed something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Author {
    /// Process id, as the machine's own namespace counts.
    pub pid: u32,
    /// The program's name, as in `/proc/<pid>/comm`.
    pub name: String,
}

/// Listens in one namespace.
#[derive(Debug)]
pub struct Monitor {
    route: Connection,
    /// None where the kernel has no netfilter, in which case it is looked for now and then.
    nft: Option<Connection>,
    netns: NetNs,
    /// What of a transaction was told before its end.
    open: Transaction,
}

impl Monitor {
    /// Begins to listen in the calling thread's namespace. What is done through the sockets `routes` and `rules` is not
    /// told, nor what is done through the nf_tables sockets whose ports are `others`.
    ///
    /// # Errors
    /// Where a socket cannot be opened.
    pub fn open(routes: &RtSocket, rules: &NftSocket, others: &[u32]) -> Result<Self, NetlinkError> {
        let filter = |source| NetlinkError::Socket { action: "filter", source };
        let route = Connection::open(NETLINK_ROUTE)?;
        filter::drop_messages_of(route.descriptor(), &[routes.port()?]).map_err(filter)?;
        let of_ipv4 = [IPV4_ADDRESS, IPV4_ROUTE, IPV4_RULE, IPV4_SETTINGS];
        let of_ipv6 = [IPV6_ADDRESS, IPV6_ROUTE, IPV6_RULE, IPV6_SETTINGS];
        for group in [LINK, NEIGHBOUR].into_iter().chain(of_ipv4).chain(of_ipv6) {
            route.join(group)?;
        }
        let netns = NetNs::current()?;
        let nft = listen_to_rules(&netns)?;
        if let Some(nft) = &nft {
            let own: Vec<u32> = rules.port()?.into_iter().chain(others.iter().copied()).collect();
            filter::drop_messages_of(nft.descriptor(), &own).map_err(filter)?;
        }
        Ok(Self { route, nft, netns, open: Transaction::default() })
    }

    /// As [`Monitor::open`], in a namespace.
    ///
    /// # Errors
    /// Where the namespace cannot be entered, and as there.
    pub fn open_in(netns: &NetNs, routes: &RtSocket, rules: &NftSocket, others: &[u32]) -> Result<Self, NetlinkError> {
        netns.run(|| Self::open(routes, rules, others))?
    }

    /// What hears of nf_tables, where there is something to hear.
    pub(crate) fn ears(&self) -> Result<Option<Ears>, NetlinkError> {
        self.nft.as_ref().map(|nft| Ok(Ears::of(nft.duplicate()?, NF_TABLES))).transpose()
    }

    /// Waits until something happens, and tells it in the order in which it did, each family for itself.
    ///
    /// # Errors
    /// Where a socket fails.
    pub fn wait(&mut self) -> Result<Vec<Notice>, NetlinkError> {
        loop {
            // What one's own sockets do is told as well where they were not known when it was opened.
            if self.nft.is_none() {
                self.nft = listen_to_rules(&self.netns)?;
                // Nobody heard what was done before.
                if self.nft.is_some() {
                    return Ok(vec![Notice::RulesLost]);
                }
            }
            let timeout = self.nft.is_none().then_some(LOOK_FOR_RULES);
            let descriptors = [Some(&self.route), self.nft.as_ref()].map(|one| one.map(Connection::descriptor));
            let sockets = descriptors.iter().flatten().map(|one| PollFd::new(one, PollFlags::IN));
            match poll(&mut sockets.collect::<Vec<_>>(), timeout.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(errno) => {
                    return Err(NetlinkError::Socket { action: "wait for", source: io::Error::from(errno) });
                }
            }
            let notices = self.pending()?;
            if !notices.is_empty() {
                return Ok(notices);
            }
        }
    }

    /// What has happened since the last call, without waiting.
    ///
    /// # Errors
    /// Where a socket fails.
    pub fn pending(&mut self) -> Result<Vec<Notice>, NetlinkError> {
        let mut notices = Vec::new();
        while notices.len() < MOST {
            match self.route.news()? {
                News::Frames(frames) => notices.extend(frames.iter().filter_map(decode::route_family)),
                News::Lost => notices.push(Notice::Lost),
                News::None => break,
            }
        }
        while let Some(nft) = self.nft.as_mut().filter(|_| notices.len() < 2 * MOST) {
            match nft.news()? {
                News::Frames(frames) => {
                    let open = &mut self.open;
                    notices.extend(frames.iter().filter_map(|frame| decode::nf_tables(frame, open)));
                }
                News::Lost => notices.push(Notice::Lost),
                News::None => break,
            }
        }
        Ok(notices)
    }
}

/// Hears of nf_tables from now on; nobody where the kernel has no netfilter.
fn listen_to_rules(netns: &NetNs) -> Result<Option<Connection>, NetlinkError> {
    let Some(nft) = open_netfilter_in(netns)? else { return Ok(None) };
    nft.make_room_to_hear(OF_RULES);
    nft.join(NF_TABLES)?;
    Ok(Some(nft))
}

#[cfg(test)]
mod tests;
