//! Recording flows, where a log of them or reading them is asked for: nothing is loaded, watched or kept where neither is.
//!
//! - [`Counting`]: the programs at pods' interfaces, put there before a pod starts
//! - `known`: who is who, by the cluster's watches
//! - `recorder`: reads what was counted and makes records of it
//! - `log`: the file that they go to
//! - `past`: what is kept of them in memory
//! - `api`: who may read that, over HTTPS

pub(crate) mod api;
mod known;
mod log;
mod past;
mod recorder;

use std::{
    error::Error,
    io,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use kube::Client;
use podnet_kernel::{
    flows::{self, Flows, FlowsError, Sizes},
    link,
    netlink::RtSocket,
};
use podnet_model::LinkName;
use tracing::{info, warn};

pub use api::FlowApi;
pub use known::Known;
use log::Log;
use past::Past;
use recorder::Recorder;
pub(crate) use recorder::Recording;

use crate::AgentConfig;

/// Where records of flows go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowLog {
    /// The file, to which lines of JSON are added. What is full is set aside as `FILE.1.gz`, `FILE.2.gz`, …
    pub path: PathBuf,
    /// How many bytes it and those that were set aside may have together.
    pub bytes: u64,
}

/// What counts at pods' interfaces, where flows are recorded.
#[derive(Debug, Default)]
pub struct Counting {
    flows: Option<Arc<Flows>>,
    /// That the kernel refuses was told.
    told: AtomicBool,
}

impl Counting {
    /// Loads the programs, where they are wanted, over what those of an earlier agent counted; else those are taken away. Why there are none
    /// is in the log.
    #[must_use]
    pub fn open(wanted: bool) -> Self {
        let opened = RtSocket::open().map_err(FlowsOrLinks::Links).and_then(|mut socket| {
            let links = link::list(&mut socket).map_err(FlowsOrLinks::Links)?;
            let ends = links.into_iter().filter(|link| link.kind.as_deref() == Some("veth"));
            let ends: Vec<LinkName> = ends.map(|link| link.name).collect();
            if wanted {
                return Ok(Some(Flows::open(&mut socket, &ends, Sizes::default())?));
            }
            ends.iter().try_for_each(|end| flows::detach(&mut socket, end).map(drop))?;
            Ok(None)
        });
        let flows = opened.unwrap_or_else(|error| {
            warn!(error = &error as &dyn Error, "flows are not recorded");
            None
        });
        Self { flows: flows.map(Arc::new), told: AtomicBool::new(false) }
    }

    /// The programs.
    #[must_use]
    pub fn flows(&self) -> Option<&Arc<Flows>> {
        self.flows.as_ref()
    }

    /// Counts at the node's end of a pod's link. Where the kernel refuses, that is told once.
    pub fn follow(&self, socket: &mut RtSocket, device: &LinkName) {
        let done = self.flows.as_ref().map(|flows| flows.attach(socket, device));
        if let Some(Err(error)) = done
            && !self.told.swap(true, Ordering::Relaxed)
        {
            warn!(error = &error as &dyn Error, "a pod's flows are not recorded; told once");
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum FlowsOrLinks {
    #[error(transparent)]
    Flows(#[from] FlowsError),
    #[error("cannot list the pods' links")]
    Links(#[source] podnet_kernel::netlink::NetlinkError),
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

/// Records what is counted, where somebody wants that, until the value goes; and lets it be read at the node's address.
///
/// # Errors
/// Where the log cannot be opened, the port not be served, or the recorder have no thread.
pub(crate) async fn record(
    config: &AgentConfig,
    node_address: IpAddr,
    counted: Option<&Arc<Flows>>,
    known: &Arc<Known>,
    client: &Client,
) -> Result<Option<Recording>, RecordError> {
    let Some(counted) = counted.filter(|_| config.records_flows()) else { return Ok(None) };
    let open = |log: &FlowLog| Log::open(log).map_err(|source| RecordError::Log { path: log.path.clone(), source });
    let log = config.flow_log.as_ref().map(open).transpose()?;
    let mut past = None;
    if let Some(api) = &config.flow_api {
        let kept = past.insert(Past::new(api.retention));
        let address = SocketAddr::new(node_address, api.port);
        let answers = api::Answers { node: config.node.clone(), client: client.clone(), past: Arc::clone(kept) };
        api::serve(api, address, answers).await.map_err(|source| RecordError::Api { address, source })?;
    }
    tokio::spawn(known::watch_pods(client.clone(), Arc::clone(known)));
    let path = config.flow_log.as_ref().map(|log| tracing::field::display(log.path.display()));
    info!(path, "flows are recorded");
    let recorder = Recorder::new(Arc::clone(counted), (log, past), config.node.clone(), Arc::clone(known));
    recorder.start().map(Some).map_err(RecordError::Thread)
}
