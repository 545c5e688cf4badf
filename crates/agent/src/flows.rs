//! Recording flows, where a log of them is asked for: nothing is loaded, watched or kept where it is not.
//!
//! - [`Counting`]: the programs at pods' interfaces, put there before a pod starts
//! - `known`: who is who, by the cluster's watches
//! - `recorder`: reads what was counted and makes records of it
//! - `log`: the file that they go to

mod known;
mod log;
mod recorder;

use std::{
    error::Error,
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
use podnet_model::{LinkName, NodeName};
use tracing::{info, warn};

pub use known::Known;
use log::Log;
use recorder::Recorder;
pub(crate) use recorder::Recording;

use crate::AgentError;

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

/// Records what is counted, until the value goes.
///
/// # Errors
/// Where the log cannot be opened, or the recorder have no thread.
pub(crate) fn record(
    flows: &Arc<Flows>,
    log: &FlowLog,
    node: &NodeName,
    known: &Arc<Known>,
    client: Client,
) -> Result<Recording, AgentError> {
    let file = Log::open(log).map_err(crate::file("add to the log of flows", &log.path))?;
    tokio::spawn(known::watch_pods(client, Arc::clone(known)));
    info!(path = %log.path.display(), bytes = log.bytes, "flows are recorded");
    let recorder = Recorder::new(Arc::clone(flows), file, node.clone(), Arc::clone(known));
    recorder.start().map_err(crate::file("start the thread that writes", &log.path))
}
