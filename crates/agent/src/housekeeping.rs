//! What the agent does beside serving: it tells the cluster what it gave, buries what was deleted while it was down, and gives back
//! what nobody needs.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    error::Error,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use ipnet::IpNet;
use kube::Client;
use podnet_client::{events, node};
use podnet_kernel::{netlink::NetlinkError, tc::Watch};
use podnet_model::{Dual, NodeName, PodKey};
use tokio::{
    sync::{Notify, mpsc, watch},
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tracing::{debug, warn};

use crate::{
    AgentConfig, AgentError,
    addresses::Addresses,
    attach::{Attached, Attachments, Limited},
    network::Network,
    view::View,
};

/// Brings what limits, counts and leads pods' packets to what it should be. What fails is told, and tried again in the rounds.
pub(crate) fn mend_limits(attachments: &Attachments) {
    if let Err(error) = attachments.mend_limits() {
        warn!(error = &error as &dyn Error, "limits of pods not mended; it is tried again");
    }
}

/// Between two rounds.
const ROUND: Duration = Duration::from_secs(10);
/// Looking costs one look into a directory that is nearly always empty.
const LOOK_FOR_TOMBSTONES: Duration = Duration::from_secs(1);
/// Between the two looks after which what belongs to a node that is gone is taken back.
const LOOK_FOR_THE_GONE: Duration = Duration::from_secs(5);
/// Changes of a block that come together are published together.
const GATHER: Duration = Duration::from_millis(100);
/// Before something is asked of an API server that just refused it.
const RETRY: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Between two looks at the limits of pods, however much is changed.
const LIMITS_PAUSE: Duration = Duration::from_millis(400);
/// For one request to the API server.
const PATIENCE: Duration = Duration::from_secs(10);
/// For the annotation of a pod's address, which serves people and tools only.
const PUBLISH_ATTEMPTS: u32 = 3;

/// The housekeeper.
pub struct Housekeeping {
    node: NodeName,
    published: watch::Receiver<Dual<Option<IpNet>>>,
    tombstones: PathBuf,
    client: Client,
    addresses: Arc<Addresses>,
    attachments: Arc<Attachments>,
    view: Arc<View>,
}

impl Housekeeping {
    /// For this agent.
    #[must_use]
    pub fn new(
        config: &AgentConfig,
        client: Client,
        published: watch::Receiver<Dual<Option<IpNet>>>,
        addresses: Arc<Addresses>,
        attachments: Arc<Attachments>,
        view: Arc<View>,
    ) -> Self {
        let node = config.node.clone();
        Self { node, published, tombstones: config.tombstones(), client, addresses, attachments, view }
    }

    /// Frees what plugins deleted while the agent was down; whether all went well. Nothing is lost when it fails: the tombstone stays.
    pub fn bury_tombstones(&self) -> bool {
        let mut all = true;
        let names = match tombstones(&self.tombstones) {
            Ok(names) => names,
            Err(error) => {
                warn!(%error, path = %self.tombstones.display(), "tombstones not read");
                return false;
            }
        };
        for name in names {
            let Some((container_id, ifname)) = name.split_once('@') else { continue };
            if let Err(failure) = self.attachments.bury(container_id, ifname) {
                warn!(container_id, ifname, failure.msg, "attachment not buried; it is tried again");
                all = false;
            }
        }
        all
    }

    /// Takes over this node's blocks from the API server, for as long as it takes.
    pub async fn adopt_blocks(&self) {
        while let Err(error) = self.addresses.adopt().await {
            warn!(error = &error as &dyn std::error::Error, "blocks not read; it is tried again");
            sleep(RETRY).await;
        }
    }

    /// Keeps house until the network's thread ends.
    ///
    /// # Errors
    ///
    /// When it did.
    pub async fn keep(self, network: Network, attached: mpsc::Receiver<Attached>) -> Result<(), AgentError> {
        tokio::select! {
            never = self.publish_node() => match never {},
            never = self.publish_blocks() => match never {},
            never = self.publish_pods(attached) => match never {},
            never = self.bury() => match never {},
            never = self.answer_others() => match never {},
            never = self.return_loans() => match never {},
            never = self.reclaim() => match never {},
            never = self.rounds() => match never {},
            never = Box::pin(self.limit_pods()) => match never {},
            never = self.mend_limits_at_once() => match never {},
            () = self.addresses.journal_broken() => Err(AgentError::Journal),
            error = network.ended() => Err(error.into()),
        }
    }

    /// Publishes the node's addresses, and again whenever they change, or the Node object comes to show others (it may have been made
    /// anew).
    async fn publish_node(&self) -> Infallible {
        let (mut published, mut shown) = (self.published.clone(), self.view.published());
        loop {
            let addresses = *published.borrow_and_update();
            shown.mark_unchanged();
            // The Node object may be registered only after the agent is up: on a real node kubelet waits for us.
            while let Err(error) = in_time(node::publish_network(&self.client, &self.node, addresses)).await {
                debug!(error = &*error as &dyn Error, "node not published yet");
                sleep(RETRY).await;
            }
            let contradicted = async {
                while shown.changed().await.is_ok() {
                    if shown.borrow_and_update().is_some_and(|shown| shown != addresses) {
                        return;
                    }
                }
            };
            tokio::select! {
                () = contradicted => {}
                Ok(()) = published.changed() => {}
            }
        }
    }

    async fn publish_blocks(&self) -> Infallible {
        let mut pause = GATHER;
        loop {
            self.addresses.unpublished().await;
            sleep(pause).await;
            pause = if self.addresses.publish().await { GATHER } else { (pause * 2).min(LONGEST_PAUSE) };
        }
    }

    async fn publish_pods(&self, mut attached: mpsc::Receiver<Attached>) -> Infallible {
        while let Some(pod) = attached.recv().await {
            for attempt in 1..=PUBLISH_ATTEMPTS {
                let published = async {
                    node::publish_pod_address(&self.client, &pod.pod, &pod.uid, &pod.addrs).await?;
                    match &pod.sticky {
                        Some((owner, kept)) => node::publish_sticky_address(&self.client, &pod.pod, owner, kept).await,
                        None => Ok(()),
                    }
                };
                let Err(error) = in_time(published).await else { break };
                warn!(pod = %pod.pod, attempt, error = &*error as &dyn Error, "pod's address not published");
                sleep(RETRY).await;
            }
        }
        std::future::pending().await
    }

    /// Brings what limits pods to what it should be.
    pub fn mend_limits(&self) {
        mend_limits(&self.attachments);
    }

    /// Looks at the limits when somebody changed something of their kind. It is heard of one's own work too, so not all the time.
    async fn mend_limits_at_once(&self) -> Infallible {
        let heard = Arc::new(Notify::new());
        let told = heard.clone();
        let listener = thread::Builder::new().name("limits".into()).spawn(move || {
            let Err(error) = listen(&told);
            warn!(error = &error as &dyn Error, "changes of limits are not heard of; they are looked at in rounds");
        });
        if let Err(error) = listener {
            warn!(%error, "changes of limits are not heard of; they are looked at in rounds");
        }
        loop {
            heard.notified().await;
            sleep(GATHER).await;
            tokio::task::block_in_place(|| self.mend_limits());
            sleep(LIMITS_PAUSE).await;
        }
    }

    /// Follows changes of pods' limits.
    async fn limit_pods(&self) -> Infallible {
        loop {
            for pod in self.view.limits_changed().await {
                match tokio::task::block_in_place(|| self.attachments.limit_again(&pod)) {
                    Ok(Limited::InForce) => {}
                    Ok(Limited::Refused { uid, reason }) => self.tell_refusal(&pod, &uid, &reason).await,
                    Err(error) => warn!(%pod, error = &error as &dyn Error, "limits not changed; it is tried again"),
                }
            }
        }
    }

    async fn tell_refusal(&self, pod: &PodKey, uid: &str, reason: &str) {
        warn!(%pod, reason, "limits refused; those of before stay in force");
        let message = format!("{reason}; the limits of before stay in force");
        let told = events::warn_of_pod(&self.client, &self.node, (pod, uid), "InvalidLimit", &message);
        if let Err(error) = in_time(told).await {
            debug!(%pod, error = &*error as &dyn Error, "event not written");
        }
    }

    /// Plugins that found no agent in its last moment, and `podnet ipam`, leave tombstones while it runs too.
    async fn bury(&self) -> Infallible {
        loop {
            let pause =
                if tokio::task::block_in_place(|| self.bury_tombstones()) { LOOK_FOR_TOMBSTONES } else { ROUND };
            sleep(pause).await;
        }
    }

    async fn answer_others(&self) -> Infallible {
        loop {
            self.addresses.asked().await;
            if !self.addresses.answer_others().await {
                sleep(RETRY).await;
            }
        }
    }

    /// At once when a borrowed address is freed, and in every round for what that missed.
    async fn return_loans(&self) -> Infallible {
        loop {
            let _ = timeout(ROUND, self.addresses.loan_freed()).await;
            self.addresses.return_loans().await;
        }
    }

    async fn rounds(&self) -> Infallible {
        let mut rounds = interval(ROUND);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            rounds.tick().await;
            tokio::task::block_in_place(|| {
                self.mend_limits();
                if let Err(error) = self.addresses.compact() {
                    warn!(error = &error as &dyn std::error::Error, "journal not compacted");
                }
            });
            self.addresses.give_surplus_back().await;
        }
    }

    /// What looks as if its node were gone at two looks is taken back: a Node object may be replaced by a new one of the same name.
    async fn reclaim(&self) -> Infallible {
        let (mut abandoned, mut orphans) = (BTreeMap::new(), BTreeSet::new());
        loop {
            sleep(LOOK_FOR_THE_GONE).await;
            abandoned = self.addresses.reclaim(&abandoned).await;
            orphans = self.addresses.free_orphans(&orphans).await;
        }
    }
}

fn listen(told: &Notify) -> Result<Infallible, NetlinkError> {
    let mut watch = Watch::open()?;
    loop {
        watch.wait()?;
        told.notify_one();
    }
}

/// An API server that is cut off while it has our request would keep us waiting for ever.
async fn in_time(request: impl Future<Output = Result<(), kube::Error>>) -> Result<(), Box<dyn Error + Send + Sync>> {
    Ok(timeout(PATIENCE, request).await??)
}

fn tombstones(directory: &Path) -> io::Result<Vec<String>> {
    match fs::read_dir(directory) {
        Ok(entries) => Ok(entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}
