//! Sending what is recorded to collectors: one thread for each, so that none waits for another, and the recorder for none.
//!
//! - [`Target`]: what a collector is called on the command line
//! - [`Collector`]: what all of them can do; `stdout`, `syslog`, `ipfix`, `bulk`, `otlp`, `amqp`, `kafka`, `parquet` are the ones there are, over `line` and
//!   `web`, with `tls` and `credentials`; all but the first are features of the crate
//! - `intake`: where the recorder leaves items
//! - `backlog`: what is not sent yet, in memory and (`spill`) on disk; `missing`: what had no room
//! - `courier`: takes in, sends, tries again
//! - `counts`: what metrics tell of it
//!
//! An item has come when its collector said so, or, where the protocol has no answers, when the collector's kernel acknowledged it. Whatever has
//! not is sent again, with the same id: also by the next agent, where this one had time to write it down, as it has where the target's `buffer` is `disk`
//! even if it is killed. Over UDP nobody can tell.

#[cfg(feature = "amqp")]
mod amqp;
mod backlog;
#[cfg(feature = "elasticsearch")]
mod bulk;
mod counts;
mod courier;
#[cfg(any(feature = "amqp", feature = "elasticsearch", feature = "kafka", feature = "otlp", feature = "parquet"))]
mod credentials;
mod intake;
#[cfg(feature = "ipfix")]
mod ipfix;
#[cfg(feature = "kafka")]
mod kafka;
#[cfg(any(feature = "amqp", feature = "ipfix", feature = "kafka", feature = "syslog"))]
#[cfg_attr(
    not(all(feature = "amqp", feature = "ipfix", feature = "syslog")),
    allow(dead_code, reason = "each kind has a use for a part of it")
)]
mod line;
mod missing;
#[cfg(feature = "otlp")]
mod otlp;
#[cfg(feature = "parquet")]
mod parquet;
mod spill;
mod stdout;
#[cfg(feature = "syslog")]
mod syslog;
mod target;
#[cfg(any(
    feature = "amqp",
    feature = "elasticsearch",
    feature = "ipfix",
    feature = "kafka",
    feature = "otlp",
    feature = "parquet",
    feature = "syslog"
))]
mod tls;
#[cfg(any(feature = "elasticsearch", feature = "otlp", feature = "parquet"))]
#[cfg_attr(
    not(any(feature = "elasticsearch", feature = "otlp")),
    allow(dead_code, reason = "each kind has a use for a part of it")
)]
mod web;

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use futures::future::BoxFuture;
use podnet_flow::{Item, Numbered, export::Taken};
use podnet_model::NodeName;
use tokio::{runtime, sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

pub use self::target::{Target, TargetError};
use self::{
    backlog::Backlog,
    counts::Counts,
    courier::{Courier, Gather},
    intake::Intake,
    spill::Spill,
    target::Kind,
};

/// For what is in memory to be sent as the agent ends; what is left goes to disk.
const FLUSH: Duration = Duration::from_secs(5);
/// For it to be written there, and for connections to be let go.
const WRITE: Duration = Duration::from_secs(2);

/// What is told of a collector whose records were to be on disk and cannot be.
const UNKEPT: &str = "flows are not on disk before they are sent to a collector (buffer=disk), but in memory alone: an agent that is killed loses them, \
                      and one that ends while the collector is away; mend the directory, and start the agent anew";

/// Where records are sent, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// The collectors.
    pub targets: Vec<Target>,
    /// How many bytes may wait on disk for each of them.
    pub spill_bytes: u64,
}

/// Why a batch has not come.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendError {
    /// The collector is away, or has no room: it is tried again.
    #[error("{0}")]
    Away(String),
    /// It does not take this batch: a smaller one it may.
    #[error("{0}")]
    Unfit(String),
}

impl From<io::Error> for SendError {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() == Some(rustix::io::Errno::MSGSIZE.raw_os_error()) {
            true => Self::Unfit(error.to_string()),
            false => Self::Away(podnet_model::errors::chain(&error)),
        }
    }
}

/// Somewhere that items are sent to.
pub(super) trait Collector: Send {
    /// Sends items, in this order. All of them have come when it is done, but those that are refused. Where it fails, or is given up before it is
    /// done, they are sent again.
    fn send<'a>(&'a mut self, items: &'a [Numbered]) -> BoxFuture<'a, Result<Taken, SendError>>;

    /// How many are put together for it.
    fn gather(&self) -> Gather {
        Gather::default()
    }
}

/// None for a kind that this program was built without, of which there is no target.
#[cfg_attr(
    not(any(feature = "ipfix", feature = "parquet")),
    allow(unused_variables, reason = "nobody else asks for the node")
)]
fn collector(target: &Target, node: &NodeName) -> Option<Box<dyn Collector>> {
    let collector: Box<dyn Collector> = match target.kind.clone() {
        Kind::Stdout => Box::new(stdout::Stdout::new(tokio::io::stdout())),
        #[cfg(feature = "syslog")]
        Kind::Syslog(place) => Box::new(syslog::Syslog::new(place)),
        #[cfg(feature = "ipfix")]
        Kind::Ipfix(place) => Box::new(ipfix::Ipfix::new(place, node)),
        #[cfg(feature = "elasticsearch")]
        Kind::Elasticsearch(web, index) => Box::new(bulk::Bulk::new(web, index)),
        #[cfg(feature = "amqp")]
        Kind::Amqp(broker) => Box::new(amqp::Amqp::new(broker)),
        #[cfg(feature = "otlp")]
        Kind::Otlp(web) => Box::new(otlp::Otlp::new(web)),
        #[cfg(feature = "kafka")]
        Kind::Kafka(brokers) => Box::new(kafka::Kafka::new(brokers)),
        #[cfg(feature = "parquet")]
        Kind::Parquet(files) => Box::new(parquet::Parquet::new(files, node)),
        #[cfg(not(all(
            feature = "amqp",
            feature = "elasticsearch",
            feature = "ipfix",
            feature = "kafka",
            feature = "otlp",
            feature = "parquet",
            feature = "syslog"
        )))]
        _ => return None,
    };
    Some(collector)
}

/// All collectors, as the recorder sees them.
#[derive(Clone, Debug, Default)]
pub(super) struct Collectors {
    intakes: Vec<Arc<Intake>>,
    /// What stands for them ([`Target`]).
    marks: Vec<Box<str>>,
    /// Only flows between pods go there.
    between_pods: bool,
}

impl Collectors {
    /// Nobody is sent anything.
    pub(super) fn is_empty(&self) -> bool {
        self.intakes.is_empty()
    }

    /// What stands for each of them, on all nodes alike.
    pub(super) fn marks(&self) -> impl Iterator<Item = Box<str>> + '_ {
        self.marks.iter().cloned()
    }

    /// Leaves items to be sent. Waits for nothing.
    pub(super) fn offer(&self, items: &[Numbered]) {
        let is_wanted = |item: &&Numbered| match &item.item {
            Item::Flow(record) => !self.between_pods || record.is_pod_to_pod(),
            Item::Gap(_) | Item::Drops(_) => true,
        };
        for intake in &self.intakes {
            intake.offer(items.iter().filter(is_wanted));
        }
    }
}

/// The threads that send.
#[derive(Debug)]
pub(crate) struct Couriers {
    end: CancellationToken,
    late: CancellationToken,
    /// Closed once all have ended.
    ended: mpsc::Receiver<()>,
    counts: Vec<Arc<Counts>>,
}

impl Couriers {
    /// Begins to send; first what an agent before this one left in `directory`.
    pub(super) fn start(
        settings: &Settings,
        (node, directory): (&NodeName, &Path),
        between_pods: bool,
    ) -> (Self, Collectors) {
        let (running, ended) = mpsc::channel(1);
        let mut couriers =
            Self { end: CancellationToken::new(), late: CancellationToken::new(), ended, counts: Vec::new() };
        let mut collectors = Collectors { intakes: Vec::new(), marks: Vec::new(), between_pods };
        let places = places(&settings.targets);
        for target in &places {
            let (intake, counts) = (Arc::new(Intake::default()), Arc::new(Counts::new(target.to_string())));
            let Some(collector) = collector(target, node) else { continue };
            let waits_on_disk = target.waits_on_disk || collector.gather().is_long;
            let spill = open(&directory.join(target.directory()), settings.spill_bytes, waits_on_disk);
            let mut backlog = Backlog::new(spill, Arc::clone(&counts));
            if target.waits_on_disk {
                backlog.wait_on_disk();
            }
            let courier = Courier::new(target.to_string(), collector, backlog, Arc::clone(&intake), counts.clone());
            let (end, late, running) = (couriers.end.clone(), couriers.late.clone(), running.clone());
            let run = move || {
                drive(courier.run(end, late));
                drop(running);
            };
            match thread::Builder::new().name("collector".into()).spawn(run) {
                Ok(_) => {
                    collectors.intakes.push(intake);
                    collectors.marks.push(target.mark().into());
                    couriers.counts.push(counts);
                }
                Err(error) => error!(%error, collector = %target, "there is no thread to send flows"),
            }
        }
        tell_strange(directory, &places.iter().map(|target| target.directory()).collect());
        (couriers, collectors)
    }

    /// What metrics tell.
    pub(super) fn metrics(&self) -> impl Fn() -> String + Send + use<> {
        let counts = self.counts.clone();
        move || counts::metrics(&counts)
    }

    /// Sends what is left, as far as there is time; the rest is on disk then.
    pub(crate) async fn end(mut self) {
        self.end.cancel();
        if timeout(FLUSH, self.ended.recv()).await.is_ok() {
            return;
        }
        self.late.cancel();
        if timeout(WRITE, self.ended.recv()).await.is_err() {
            warn!("flows that were not sent could not be written down in time");
        }
    }
}

/// Waits in this thread. Whatever the work left running is not waited for.
fn drive(work: impl Future<Output = ()>) {
    match runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => {
            runtime.block_on(work);
            runtime.shutdown_background();
        }
        Err(error) => error!(%error, "flows cannot be sent to a collector"),
    }
}

/// Each place once. Where it is named with and without `buffer=disk`, records wait on disk.
fn places(targets: &[Target]) -> Vec<&Target> {
    let mut places: Vec<&Target> = Vec::new();
    for target in targets {
        match places.iter().position(|place| place.directory() == target.directory()) {
            Some(at) if target.waits_on_disk => places[at] = target,
            Some(_) => {}
            None => places.push(target),
        }
    }
    places
}

/// None where the directory cannot be used; somebody has to mend that where records are to be on disk before they are sent.
fn open(directory: &Path, bytes: u64, waits_on_disk: bool) -> Option<Spill> {
    let tell = |error: &io::Error| {
        let directory = directory.display();
        if waits_on_disk {
            error!(%error, %directory, "{UNKEPT}");
        } else {
            warn!(%error, %directory, "flows wait in memory alone while their collector is away");
        }
    };
    Spill::open(directory, bytes).inspect_err(tell).ok()
}

/// What waits for a collector that is named no more stays: it may be named again.
fn tell_strange(directory: &Path, names: &BTreeSet<String>) {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let strange: Vec<PathBuf> = entries
        .filter(|entry| !entry.file_name().to_str().is_some_and(|name| names.contains(name)))
        .map(|entry| entry.path())
        .filter(|path| fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some()))
        .collect();
    for path in strange {
        warn!(directory = %path.display(), "flows wait there for a collector that is not named any more; remove them, or name it");
    }
}

#[cfg(test)]
mod tests;
