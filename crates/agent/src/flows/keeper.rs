//! Turns recording on when somebody wants it, and off when nobody does any more.

use std::{convert::Infallible, error::Error, io, sync::Arc, time::Duration};

use k8s_openapi::jiff::SignedDuration;
use kube::Client;
use podnet_flow::store::Retention;
use podnet_model::NodeName;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::{
    FlowLog, RecordError,
    demand::{Demand, Scope},
    known::{Known, Watches},
    log::Log,
    past::Past,
    recorder::{Recorder, Recording},
};
use crate::fastpath::FastPath;

/// So long recording goes on after the last one who followed went: they may only have lost their connection.
const LINGER: Duration = Duration::from_secs(15);
/// Before what failed is tried again.
const AGAIN: Duration = Duration::from_secs(10);
/// For the cluster's pods, nodes and Services to be listed. Without them flows are recorded too, without names.
const LISTING: Duration = Duration::from_secs(10);
/// What is kept where nobody asked for the past: enough for a reader to be a little slower than what it reads.
const UNASKED: Retention = Retention { time: SignedDuration::from_mins(1), bytes: 16 << 20 };

/// What it works with.
pub(crate) struct Keeper {
    pub(super) demand: Arc<Demand>,
    pub(super) node: NodeName,
    pub(super) client: Client,
    pub(super) log: Option<FlowLog>,
    /// The past that is kept whether somebody follows or not.
    pub(super) retention: Option<Retention>,
}

/// While flows are recorded.
struct Running {
    /// It ends before what it reads of does.
    _recording: Recording,
    _watches: Watches,
}

impl Keeper {
    /// Goes on for good. `mend` brings all pods' interfaces to what `pods` says.
    pub(crate) async fn keep(self, fast_path: &FastPath, mend: impl Fn()) -> Infallible {
        // An earlier agent recorded: who followed it is about to ask again.
        let mut running =
            if fast_path.counting().flows().is_some() { self.begin(fast_path, &mend).await } else { None };
        loop {
            let scope = self.demand.scope();
            match (&running, scope) {
                (Some(_), Scope::Nothing) => {
                    if timeout(LINGER, self.demand.changed_from(scope)).await.is_err() {
                        self.end(running.take(), fast_path, &mend);
                    }
                    continue;
                }
                (None, Scope::PodToPod | Scope::All) => {
                    running = self.begin(fast_path, &mend).await;
                    if running.is_none() {
                        sleep(AGAIN).await;
                        continue;
                    }
                }
                _ => {}
            }
            self.demand.changed_from(scope).await;
        }
    }

    async fn begin(&self, fast_path: &FastPath, mend: &impl Fn()) -> Option<Running> {
        tokio::task::block_in_place(|| {
            fast_path.count_flows(true);
            mend();
        });
        let flows = fast_path.counting().flows()?;
        // What is counted meanwhile is in the kernel.
        let known = Known::of_node(self.node.clone());
        let mut watches = Watches::start(&self.client, &known);
        if timeout(LISTING, watches.listed()).await.is_err() {
            warn!("flows are recorded before it is known who is who");
        }
        let past = Past::new(self.retention.unwrap_or(UNASKED));
        let recorder = |log| Recorder::new(flows, (log, Some(past.clone())), self.node.clone(), known);
        let recording = self.open_log().and_then(|log| recorder(log).start().map_err(RecordError::Thread));
        match recording {
            Ok(recording) => {
                let path = self.log.as_ref().map(|log| tracing::field::display(log.path.display()));
                info!(path, "flows are recorded");
                self.demand.set_past(Some(past));
                Some(Running { _recording: recording, _watches: watches })
            }
            Err(error) => {
                warn!(error = &error as &dyn Error, "flows are not recorded; it is tried again");
                None
            }
        }
    }

    fn open_log(&self) -> Result<Option<Log>, RecordError> {
        let failed = |log: &FlowLog, source: io::Error| RecordError::Log { path: log.path.clone(), source };
        self.log.as_ref().map(|log| Log::open(log).map_err(|source| failed(log, source))).transpose()
    }

    fn end(&self, running: Option<Running>, fast_path: &FastPath, mend: &impl Fn()) {
        self.demand.set_past(None);
        tokio::task::block_in_place(|| {
            drop(running);
            fast_path.count_flows(false);
            mend();
        });
        podnet_kernel::heap::give_back();
        info!("flows are recorded no more: nobody asks for them");
    }
}
