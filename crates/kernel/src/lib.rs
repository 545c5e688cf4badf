//! Every kernel object that podnet touches. The only crate with `unsafe` and the only home of system calls.
//!
//! Everything here is blocking: a netlink request is answered by the kernel in microseconds, and async callers put whole batches on a
//! blocking thread. Nothing here decides: what should be is decided by the planner and arrives as
//! [`Step`](podnet_planner::step::Step)s and [`Edit`](podnet_planner::ruleset::Edit)s.
//!
//! - [`netns`]: network namespaces; every socket below can be opened in any of them
//! - [`netlink`]: the request and acknowledgement core, batches, dumps, errors that name operation and operand
//! - [`link`], [`addr`], [`route`], [`neigh`], [`fdb`]: the objects of rtnetlink
//! - [`pod_interface`]: a pod's interface as one unit: made whole or not at all
//! - [`segment`]: a container's interface on a bridge or beside others on one device
//! - [`tc`]: how a pod's traffic is held back
//! - [`executor`]: does the planner's steps and tells what is there
//! - [`nft`]: renders the planner's rule set to nf_tables, one transaction each
//! - [`iptables`]: the planner's rules for iptables
//! - [`ipset`]: sets that rules of iptables ask
//! - [`ipvs`]: the kernel's virtual servers
//! - [`legacy`]: what `iptables-legacy` forwards
//! - [`capabilities`]: in which modes this kernel can serve Services
//! - [`conntrack`]: connections that have to be forgotten
//! - [`datapath`], [`memory`]: the seam that agents work against, and the kernel that tests put there
//! - [`fastpath`]: the way past the stack for what the stack has let through
//! - [`flows`]: counting what passes pods' interfaces
//! - [`capture`]: packets themselves, as they pass an interface, and libpcap's language for which
//! - [`probe`]: one packet that is sent to see where it passes
//! - [`snapshot`]: what a node's kernel has of what a plan is compared with, as a value
//! - [`sockets`]: Services at the socket
//! - [`localhost`]: the loopback's addresses as a node's other ones
//! - [`apart`]: a namespace beside the node's, for what listens at addresses of Services
//! - [`socket_filter`], [`datagrams`]: who is let into a socket, and many datagrams with one system call
//! - [`announce`]: answering for addresses that the node does not have itself (ARP, neighbour discovery)
//! - [`monitor`]: what changes, told as it happens
//! - [`carrier`]: the program behind the UDP tunnel
//! - [`forwarding`]: the node forwards IPv6 and goes on listening to its routers
//! - [`acknowledgement`]: what the other side of a connection has
//! - [`heap`], [`descriptors`]: memory that a process does not use, and how many files it may have open
//! - [`stale`]: connections whose own address is gone
//! - [`sysctl`], [`cgroup`], [`process`]: settings of a namespace, groups of processes, and how a process is started in them
//! - [`cni_wire`]: how `podnet-cni` and the agent talk
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod acknowledgement;
pub mod addr;
pub mod announce;
pub mod apart;
pub mod capabilities;
pub mod capture;
pub mod carrier;
pub mod cgroup;
pub mod cni_wire;
pub mod conntrack;
pub mod datagrams;
pub mod datapath;
pub mod descriptors;
pub mod executor;
pub mod fastpath;
pub mod fdb;
pub mod flows;
pub mod forwarding;
pub mod heap;
pub mod ipset;
pub mod iptables;
pub mod ipvs;
pub mod legacy;
pub mod link;
pub mod localhost;
pub mod memory;
pub mod monitor;
pub mod neigh;
pub mod netlink;
pub mod netns;
pub mod nft;
pub mod object;
pub mod pod_interface;
pub mod probe;
pub mod process;
mod release;
pub mod resolver;
pub mod route;
pub mod segment;
pub mod snapshot;
pub mod socket_filter;
pub mod sockets;
pub mod stale;
pub mod sysctl;
pub mod tc;
mod tun;
mod wireguard;

#[cfg(test)]
mod testing;
