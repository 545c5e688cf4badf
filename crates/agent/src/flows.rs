//! Recording flows, while a log of them is configured or somebody reads them: nothing is loaded, watched or kept else.
//!
//! - `demand`: who wants them
//! - `keeper`: turns recording on and off
//! - [`Counting`]: the programs at pods' interfaces
//! - `known`: who is who, by the cluster's watches
//! - `recorder`: reads what was counted and makes records of it; `senders`: whose addresses their sources have to be; `translated`: what is
//!   translated on the node
//! - `log`: the file that they go to, as [`Lines`]
//! - `collect`: the collectors that they are sent to
//! - `recorders`: which nodes record to the same places; `neighbours`: their agents, with which it is settled who tells a flow
//! - `past`: what is kept of them in memory
//! - `api`: who may read that, over HTTPS, capture packets themselves, and see where a probe passes
//! - `inside`: where these are; `own`: what is told of the node itself
//! - `private`: files that are the agent's alone

pub(crate) mod api;
mod collect;
mod counting;
mod demand;
mod inside;
mod keeper;
mod known;
mod lines;
mod log;
mod neighbours;
mod own;
mod past;
mod private;
mod recorder;
mod recorders;
mod senders;
mod translated;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use ipnet::IpNet;
use kube::Client;
use podnet_client::events::Complaints;
use podnet_flow::Tally;
use podnet_kernel::{
    netlink::RtSocket,
    pod_interface::{AGENT_V6, GATEWAY_V4},
    resolver,
};
use tokio::time::timeout;

pub use api::{ClientAuthority, FlowApi};
use collect::Couriers;
pub use collect::{Settings as CollectorSettings, Target, TargetError};
pub use counting::{AtStart, Counting};
use demand::{Demand, Scope};
pub(crate) use keeper::Keeper;
pub use lines::{Lines, Short};
use neighbours::Asks;
pub(crate) use own::OwnNode;
pub use recorder::untold;
use recorders::Marks;

use crate::{AgentConfig, addresses::Addresses, health::Health, repair::PodEnds};

/// For those who follow to read the last items, as the agent ends.
const READ: Duration = Duration::from_secs(2);

/// Where records of flows go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowLog {
    /// The file, to which lines of JSON are added. What is full is set aside as `FILE.1.gz`, `FILE.2.gz`, …
    pub path: PathBuf,
    /// How many bytes it and those that were set aside may have together.
    pub bytes: u64,
    /// Only flows between pods go there.
    pub between_pods: bool,
}

/// Why flows are not recorded, or not read.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The log cannot be opened.
    #[error("cannot add to the log of flows {}", path.display())]
    Log {
        /// Its file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// They cannot be read over the network.
    #[error(
        "cannot let flows be read at {address}; the port is --flow-port, the files --flow-certificate, --flow-key, --flow-client-ca"
    )]
    Api {
        /// The address.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// There is no thread for it.
    #[error("cannot start the thread that records flows")]
    Thread(#[source] io::Error),
}

/// Lets flows be read at the node's address and pods' gateway, where the agent is told how, and answers who turns recording on and off. What
/// is in the way of reading is told in the log and to `complaints`, and tried again: pods' network does not wait for it. Whoever has the second ends it
/// when the first has gone.
pub(crate) fn offer(
    config: &AgentConfig,
    node_address: IpAddr,
    client: &Client,
    (addresses, ends, own): (&Arc<Addresses>, Arc<PodEnds>, OwnNode),
    (health, complaints): (&Health, Complaints),
) -> Option<(Keeper, Ending)> {
    let always = match config.records_flows() {
        true if config.flows_between_pods => Scope::PodToPod,
        true => Scope::All,
        false => Scope::Nothing,
    };
    let demand = Demand::new(always);
    if let Some(api) = &config.flow_api {
        let address = SocketAddr::new(node_address, api.port);
        let here = Arc::new(inside::Attached { addresses: addresses.clone(), ends: ends.clone() });
        let (node, client, demand) = (config.node.clone(), client.clone(), demand.clone());
        let own = Arc::new(own);
        let answers = api::Answers { node, address: node_address, client, demand, here, own };
        api::serve(api.clone(), address, answers, complaints);
    } else {
        // What an earlier agent had there; it may be gone.
        let answered = [IpAddr::V4(GATEWAY_V4), IpAddr::V6(AGENT_V6)];
        let _ = RtSocket::open().and_then(|mut socket| resolver::release(&mut socket, &answered));
        if !config.records_flows() {
            tokio::spawn(recorders::announce(client.clone(), config.node.clone(), Marks::default(), demand));
            return None;
        }
    }
    let retention = config.flow_api.as_ref().and_then(|api| api.retention);
    let (node, log) = (config.node.clone(), config.flow_log.clone());
    let tally = Arc::new(Mutex::new(Tally::new(config.flow_pairs)));
    health.add_metrics({
        let tally = tally.clone();
        move || tally.lock().unwrap_or_else(PoisonError::into_inner).metrics()
    });
    let service_cidr = config.service_cidr.map(IpNet::V4);
    let (couriers, collectors) =
        Couriers::start(&config.flow_collectors, (&node, &config.flow_spill()), config.flows_between_pods);
    health.add_metrics(couriers.metrics());
    let marks = recorders::marks(log.is_some(), &collectors);
    tokio::spawn(recorders::announce(client.clone(), node.clone(), marks, demand.clone()));
    let ending = Ending { demand: demand.clone(), couriers };
    let (client, holders) = (client.clone(), config.flow_holders());
    let (labels, addresses) = (config.flow_labels.clone(), addresses.clone());
    // Who cannot be asked need not ask.
    let asks = config.flow_api.as_ref().map(|api| Asks { kubeconfig: config.kubeconfig.clone(), port: api.port });
    let keeper = Keeper {
        demand,
        node,
        client,
        log,
        retention,
        tally,
        collectors,
        labels,
        service_cidr,
        addresses,
        ends,
        holders,
        asks,
    };
    Some((keeper, ending))
}

/// What is left to do when nothing is recorded any more, because the agent ends.
#[derive(Debug)]
pub(crate) struct Ending {
    demand: Arc<Demand>,
    couriers: Couriers,
}

impl Ending {
    /// Those who follow are told the last items, and collectors are sent them.
    pub(crate) async fn end(self) {
        let read = timeout(READ, self.demand.unfollowed());
        let _ = tokio::join!(read, self.couriers.end());
    }
}
