//! Who asks for flows, and which they may see: those of the pods that they may list, and a pod its own.

use std::{
    collections::{BTreeSet, HashMap},
    hash::{BuildHasher, Hash, RandomState},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use k8s_openapi::api::{
    authentication::v1::{TokenReview, TokenReviewSpec},
    authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
};
use kube::{Api, Client, api::PostParams};
use podnet_client::certificate;
use podnet_flow::{
    Drops, Gap, Item, PodIdentity, Record,
    capture::{Captured, SUBRESOURCE},
    record::End,
};
use podnet_model::NodeName;
use tokio::{sync::Semaphore, time::timeout};

use crate::flows::inside::Here;

/// How long it is believed whose a token is.
const TOKEN: Duration = Duration::from_secs(10);
/// How many tokens are remembered.
const TOKENS: usize = 256;
/// How long it is believed what somebody may see.
const RIGHTS: Duration = Duration::from_secs(30);
/// Reviews of tokens at once.
const REVIEWS: usize = 4;
/// How long somebody waits for theirs to begin.
const TURN: Duration = Duration::from_secs(1);
/// How long one may take.
const REVIEW: Duration = Duration::from_secs(10);
/// How many tokens are remembered that are nobody's, by their hashes.
const STRANGE: usize = 1024;
/// Of how many namespaces it is asked whether somebody may follow flows there.
const NAMESPACES: usize = 16;
/// How a TokenReview calls the uid of the pod that a token was made for.
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";
/// And the name of the node that this pod is on (Kubernetes 1.30 and later, and podnet's own API server).
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";
/// The user of a node's own identity, before the node's name.
const NODE_USER: &str = "system:node:";

/// Somebody who said who they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Asker {
    user: String,
    groups: Vec<String>,
    /// Namespace and uid of the pod that the token was made for.
    pod: Option<(String, String)>,
    /// The node that they are on, or that they are.
    node: Option<NodeName>,
}

impl Asker {
    /// Whose a client certificate is, which TLS has verified already: user (`CN`) and groups (each `O`).
    pub(super) fn of_certificate(der: &[u8]) -> Option<Self> {
        let (user, mut groups) = certificate::holder(der).ok()?;
        groups.push("system:authenticated".to_owned());
        let node = user.strip_prefix(NODE_USER).map(NodeName::from);
        Some(Self { user, groups, pod: None, node })
    }

    /// The node whose they are, as far as that is known.
    pub(super) const fn node(&self) -> Option<&NodeName> {
        self.node.as_ref()
    }

    /// What they are allowed things by.
    pub(super) fn groups(&self) -> &[String] {
        &self.groups
    }

    /// What tells them from others: a pod's user is that of all pods with its service account.
    pub(super) fn name(&self) -> String {
        self.pod.as_ref().map_or_else(|| self.user.clone(), |(_, uid)| format!("{} {uid}", self.user))
    }

    fn of_review(review: TokenReview) -> Option<Self> {
        let status = review.status.filter(|status| status.authenticated == Some(true))?;
        let user = status.user?;
        let name = user.username?;
        let mut extra = user.extra.unwrap_or_default();
        let mut said = |key: &str| extra.remove(key).and_then(|values| values.into_iter().next());
        let (uid, node) = (said(POD_UID), said(NODE_NAME));
        let namespace = name.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'));
        let pod = namespace.map(|(namespace, _)| namespace.to_owned()).zip(uid);
        Some(Self { user: name, groups: user.groups.unwrap_or_default(), pod, node: node.map(NodeName::from) })
    }
}

/// Why it is not known whose a token is.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReviewError {
    /// Many come with tokens that are not known.
    #[error("too many tokens are being reviewed; try again later")]
    Busy,
    /// The API server does not answer.
    #[error("the API server does not say whose the token is; try again later")]
    Slow,
    /// It does not review it.
    #[error("the token cannot be reviewed")]
    Failed(#[source] kube::Error),
}

/// Asks the API server whose tokens are.
#[derive(Debug)]
pub(super) struct Tokens {
    known: Mutex<HashMap<String, (Instant, Asker)>>,
    /// Those that are nobody's, by their hashes, whose keys nobody knows.
    strange: Mutex<HashMap<u64, Instant>>,
    keyed: RandomState,
    reviews: Semaphore,
}

impl Default for Tokens {
    fn default() -> Self {
        let (known, strange) = (Mutex::default(), Mutex::default());
        Self { known, strange, keyed: RandomState::new(), reviews: Semaphore::new(REVIEWS) }
    }
}

impl Tokens {
    /// Whose a token is; none where it is nobody's.
    pub(super) async fn owner(&self, client: &Client, token: &str) -> Result<Option<Asker>, ReviewError> {
        if let Some(owner) = self.remembered(token) {
            return Ok(owner);
        }
        let Ok(Ok(_turn)) = timeout(TURN, self.reviews.acquire()).await else { return Err(ReviewError::Busy) };
        // It may have been somebody else's turn with the same one.
        if let Some(owner) = self.remembered(token) {
            return Ok(owner);
        }
        let spec = TokenReviewSpec { token: token.to_owned(), audiences: None };
        let review = TokenReview { spec, ..TokenReview::default() };
        let reviews = Api::<TokenReview>::all(client.clone());
        let review = timeout(REVIEW, reviews.create(&PostParams::default(), &review)).await;
        let asker = Asker::of_review(review.map_err(|_| ReviewError::Slow)?.map_err(ReviewError::Failed)?);
        match &asker {
            Some(asker) => {
                remember(&self.known, TOKENS, token.to_owned(), (Instant::now(), asker.clone()), |(at, _)| *at);
            }
            None => remember(&self.strange, STRANGE, self.keyed.hash_one(token), Instant::now(), |at| *at),
        }
        Ok(asker)
    }

    fn remembered(&self, token: &str) -> Option<Option<Asker>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, asker)) = known.get(token).filter(|(at, _)| at.elapsed() < TOKEN) {
            return Some(Some(asker.clone()));
        }
        drop(known);
        let strange = self.strange.lock().unwrap_or_else(PoisonError::into_inner);
        strange.get(&self.keyed.hash_one(token)).filter(|at| at.elapsed() < TOKEN).map(|_| None)
    }
}

/// Keeps one more for [`TOKEN`], where there is room.
fn remember<K: Eq + Hash, V>(of: &Mutex<HashMap<K, V>>, most: usize, key: K, value: V, at: impl Fn(&V) -> Instant) {
    let mut kept = of.lock().unwrap_or_else(PoisonError::into_inner);
    kept.retain(|_, value| at(value).elapsed() < TOKEN);
    if kept.len() < most {
        kept.insert(key, value);
    }
}

/// What somebody may see. A namespace is asked for once in [`RIGHTS`]; the empty one is that of all.
pub(super) struct Rights {
    client: Client,
    asker: Asker,
    known: HashMap<String, (Instant, bool)>,
}

impl Rights {
    pub(super) fn new(client: Client, asker: Asker) -> Self {
        Self { client, asker, known: HashMap::new() }
    }

    /// Whether they may have flows be recorded: as a pod of this node, or where they may list the pods of all namespaces, of one of these,
    /// or of their own.
    pub(super) async fn may_follow(
        &mut self,
        namespaces: &BTreeSet<&str>,
        here: &dyn Here,
    ) -> Result<bool, kube::Error> {
        let pod = self.asker.pod.clone();
        if pod.as_ref().is_some_and(|(_, uid)| here.is_here(uid)) || self.may_list("").await? {
            return Ok(true);
        }
        let own = pod.iter().map(|(namespace, _)| namespace.as_str());
        let some: Vec<&str> = own.chain(namespaces.iter().copied()).take(NAMESPACES).collect();
        for namespace in some {
            if self.may_list(namespace).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// An item as they may see it, or not at all.
    pub(super) async fn shown(&mut self, item: Item) -> Result<Option<Item>, kube::Error> {
        if self.may_list("").await? {
            return Ok(Some(item));
        }
        match item {
            Item::Flow(record) => Ok(self.record(record).await?.map(Item::Flow)),
            Item::Gap(gap) => {
                let pod = match gap.pod {
                    Some(pod) if self.may_name(&pod.namespace).await? => Some(pod),
                    _ => None,
                };
                Ok(Some(Item::Gap(Gap { device: None, pod, ..gap })))
            }
            Item::Drops(drops) => {
                let is_seen = match drops.pod.as_deref() {
                    Some(pod) => self.is_own(pod) || self.may_list(&pod.namespace).await?,
                    None => false,
                };
                Ok(is_seen.then_some(Item::Drops(Drops { device: None, ..drops })))
            }
        }
    }

    async fn record(&mut self, record: Arc<Record>) -> Result<Option<Arc<Record>>, kube::Error> {
        let is_seen = self.sees(&record.source).await? || self.sees(&record.destination).await?;
        if !is_seen {
            return Ok(None);
        }
        let mut shown = Record::clone(&record);
        for end in [&mut shown.source, &mut shown.destination] {
            if let Some(pod) = &end.pod
                && !self.may_name(&pod.namespace).await?
            {
                end.pod = None;
            }
        }
        if let Some(asked) = &shown.service
            && !self.may_name(asked.service.namespace.clone().as_str()).await?
        {
            shown.service = None;
        }
        Ok(Some(Arc::new(shown)))
    }

    /// Whether flows of that end are theirs to see.
    async fn sees(&mut self, end: &End) -> Result<bool, kube::Error> {
        match end.pod.as_deref() {
            Some(pod) => Ok(self.is_own(pod) || self.may_list(&pod.namespace).await?),
            None => Ok(false),
        }
    }

    fn is_own(&self, pod: &PodIdentity) -> bool {
        self.asker.pod.as_ref().is_some_and(|(_, uid)| *pod.uid == **uid)
    }

    /// A pod is told the names of those in its own namespace with whom it talks: cluster DNS tells them as well.
    async fn may_name(&mut self, namespace: &str) -> Result<bool, kube::Error> {
        let is_own = self.asker.pod.as_ref().is_some_and(|(own, _)| own == namespace);
        Ok(is_own || self.may_list(namespace).await?)
    }

    async fn may_list(&mut self, namespace: &str) -> Result<bool, kube::Error> {
        if let Some((at, allowed)) = self.known.get(namespace)
            && at.elapsed() < RIGHTS
        {
            return Ok(*allowed);
        }
        let list = ResourceAttributes {
            verb: Some("list".to_owned()),
            resource: Some("pods".to_owned()),
            namespace: Some(namespace.to_owned()),
            ..ResourceAttributes::default()
        };
        let allowed = self.may(list).await?;
        self.known.insert(namespace.to_owned(), (Instant::now(), allowed));
        Ok(allowed)
    }

    /// Whether they may capture a pod's packets: what RBAC knows as creating its subresource.
    pub(super) async fn may_capture(&self, pod: &Captured) -> Result<bool, kube::Error> {
        self.may_create(("pods", SUBRESOURCE), Some(&pod.namespace), &pod.name).await
    }

    /// Whether they may see which packets pass a node's own devices.
    pub(super) async fn may_watch(&self, node: &NodeName) -> Result<bool, kube::Error> {
        self.may_create(("nodes", SUBRESOURCE), None, node.as_str()).await
    }

    /// Whether they may have something be sent from within a pod: who may run programs there.
    pub(super) async fn may_send_from_pod(&self, pod: &Captured) -> Result<bool, kube::Error> {
        self.may_create(("pods", "exec"), Some(&pod.namespace), &pod.name).await
    }

    /// The same of the node itself: who may do so in all of its pods.
    pub(super) async fn may_send_from_node(&self, node: &NodeName) -> Result<bool, kube::Error> {
        self.may_create(("nodes", "proxy"), None, node.as_str()).await
    }

    /// Whether they may see what a node's kernel has: what RBAC knows as getting its subresource.
    pub(super) async fn may_see_forwarding(&self, node: &NodeName) -> Result<bool, kube::Error> {
        self.may(ResourceAttributes {
            verb: Some("get".to_owned()),
            resource: Some("nodes".to_owned()),
            subresource: Some("forwarding".to_owned()),
            name: Some(node.to_string()),
            ..ResourceAttributes::default()
        })
        .await
    }

    /// Whether they may say what they counted of a node's flows, and learn whose these are, as other agents do: what RBAC knows as creating its
    /// subresource.
    pub(super) async fn may_join(&self, node: &NodeName) -> Result<bool, kube::Error> {
        self.may_create(("nodes", "flows"), None, node.as_str()).await
    }

    async fn may_create(
        &self,
        (resource, subresource): (&str, &str),
        namespace: Option<&str>,
        name: &str,
    ) -> Result<bool, kube::Error> {
        self.may(ResourceAttributes {
            verb: Some("create".to_owned()),
            resource: Some(resource.to_owned()),
            subresource: Some(subresource.to_owned()),
            namespace: namespace.map(str::to_owned),
            name: Some(name.to_owned()),
            ..ResourceAttributes::default()
        })
        .await
    }

    async fn may(&self, attempt: ResourceAttributes) -> Result<bool, kube::Error> {
        let spec = SubjectAccessReviewSpec {
            user: Some(self.asker.user.clone()),
            groups: Some(self.asker.groups.clone()),
            resource_attributes: Some(attempt),
            ..SubjectAccessReviewSpec::default()
        };
        let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
        let reviews = Api::<SubjectAccessReview>::all(self.client.clone());
        let review = reviews.create(&PostParams::default(), &review).await?;
        Ok(review.status.is_some_and(|status| status.allowed && status.denied != Some(true)))
    }
}
