//! Addresses out of IPAddressPools, written to the Services' status.
//!
//! Who may have what is decided by [`podnet_planner::loadbalancer`]. All that is known follows from pools and Services; what a
//! Service's status says when this starts is its own before anybody else gets an address. Every write is of the version of the
//! Service that it was decided by, so that nothing is written over what somebody else wrote meanwhile.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use k8s_openapi::api::core::v1::{Namespace, Service};
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams},
    runtime::watcher,
};
use podnet_client::controller::{
    cache::{Cache, Change},
    key::Key,
    queue::Queue,
    recorder::{Recorder, Tone},
    worker::{During, Failure, Outcome, absent_is_fine, work},
};
use podnet_model::{ServiceKey, crd};
use podnet_planner::loadbalancer::{Balancers, Request};
use serde_json::json;
use tokio::time::timeout;
use tracing::{info, warn};

use super::request;
use crate::leader::Term;

/// By then pools can be read where they are defined.
const DEFINED: Duration = Duration::from_secs(10);
/// Until something is looked at again that could not be written, as it was not certain whose turn it is. Where the turn is over, nobody looks.
pub(super) const UNSURE: Duration = Duration::from_secs(1);

/// Gives addresses for ever, or until the term ends.
pub(super) async fn give(client: Client, term: Arc<Term>) {
    let (recorder, written) = Recorder::new(client.clone());
    let giver = Giver::new(client.clone(), term, &recorder);
    let everything = watcher::Config::default;
    tokio::join!(
        written,
        giver.services.follow_only(Api::all(client.clone()), everything(), request::prune),
        giver.namespaces.follow_only(Api::all(client.clone()), everything(), labels_alone),
        giver.pools.follow(Api::all(client), everything()),
        giver.run(),
    );
}

fn labels_alone(namespace: &mut Namespace) {
    (namespace.spec, namespace.status) = (None, None);
    (namespace.metadata.annotations, namespace.metadata.managed_fields) = (None, None);
}

/// The controller of load balancers' addresses.
pub(super) struct Giver {
    pub(super) client: Client,
    term: Arc<Term>,
    services: Cache<Service>,
    namespaces: Cache<Namespace>,
    pub(super) pools: Cache<crd::IPAddressPool>,
    pub(super) recorder: Recorder,
    queue: Queue<Key>,
    /// Pools whose status may be another one.
    pub(super) counted: Queue<Key>,
    state: Mutex<State>,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) balancers: Balancers,
    /// Services that there is no address for: they are looked at again when something becomes free.
    waiting: BTreeSet<Key>,
    /// Why Services wait, as it was told last: each time that something becomes free all of them are looked at.
    told: BTreeMap<Key, String>,
}

impl State {
    fn stops_waiting(&mut self, key: &Key) {
        self.waiting.remove(key);
        self.told.remove(key);
    }
}

/// What is to be done about a Service.
enum Verdict {
    /// Nothing: it is no load balancer's, or another's.
    Leave,
    /// It has these addresses.
    Has(Vec<IpAddr>),
    /// It has none, and why.
    Waits(String),
}

impl Giver {
    /// Listens to the caches from now on.
    fn new(client: Client, term: Arc<Term>, recorder: &Recorder) -> Arc<Self> {
        let giver = Arc::new(Self {
            client,
            term,
            services: Cache::default(),
            namespaces: Cache::default(),
            pools: Cache::default(),
            recorder: recorder.of("podnet-load-balancer"),
            queue: Queue::default(),
            counted: Queue::default(),
            state: Mutex::default(),
        });
        // The caches own their listeners, and this owns the caches.
        let weak = Arc::downgrade(&giver);
        giver.services.listen(move |change| {
            if let Some(giver) = weak.upgrade() {
                giver.service_changed(change);
            }
        });
        let weak = Arc::downgrade(&giver);
        giver.namespaces.listen(move |change| {
            if let Change::Set { old: Some(old), new } = change
                && old.metadata.labels != new.metadata.labels
                && let Some(giver) = weak.upgrade()
            {
                giver.look_at_all();
            }
        });
        giver
    }

    async fn run(self: &Arc<Self>) {
        tokio::join!(self.services.synced(), self.namespaces.synced());
        if timeout(DEFINED, self.pools.synced()).await.is_err() {
            warn!(
                "IPAddressPools (metallb.io/v1beta1) cannot be read: load balancers wait for addresses until they are defined (podnet manifests)"
            );
            self.pools.synced().await;
        }
        self.begin();
        let weak = Arc::downgrade(self);
        self.pools.listen(move |change| {
            if let Some(giver) = weak.upgrade() {
                giver.pool_changed(change);
            }
        });
        // What changed since.
        self.pools_changed();
        tokio::join!(
            work("load balancers", &self.queue, |key| Box::pin(self.reconcile(key))),
            work("pools", &self.counted, |key| Box::pin(self.count(key))),
        );
    }

    /// Every Service holds what its status says.
    fn begin(&self) {
        let (pools, unsure) = self.known_pools();
        let mut state = self.lock();
        state.balancers.set_pools(pools, unsure);
        for service in self.services.all().iter().filter(|service| request::is_ours(service)) {
            let current = request::current(service);
            if let (false, Ok(request)) = (current.is_empty(), self.request(service)) {
                state.balancers.restore(&request, &current);
            }
        }
    }

    fn service_changed(&self, change: &Change<'_, Service>) {
        if let Some(ours) = change.states().find(|service| request::is_ours(service)) {
            self.queue.add(Key::of(&ours.metadata));
        }
    }

    /// The pools are others.
    pub(super) fn pools_changed(&self) {
        let (pools, unsure) = self.known_pools();
        self.lock().balancers.set_pools(pools, unsure);
        self.look_at_all();
        self.count_all();
    }

    fn look_at_all(&self) {
        let services = self.services.all();
        let ours = services.iter().filter(|service| request::is_ours(service));
        ours.for_each(|service| self.queue.add(Key::of(&service.metadata)));
    }

    fn request(&self, service: &Service) -> Result<Request, String> {
        let namespace = self.namespaces.find(&Key::cluster(service.namespace().unwrap_or_default()));
        request::of(service, namespace.as_deref())
    }

    async fn reconcile(&self, key: Key) -> Result<Outcome, Failure> {
        let service = self.services.find(&key);
        let verdict = self.judge(&key, service.as_deref());
        let Some(service) = service else { return Ok(Outcome::Done) };
        let current = request::current(&service);
        let wanted: &[IpAddr] = match &verdict {
            Verdict::Leave => return Ok(Outcome::Done),
            Verdict::Has(addresses) => addresses,
            Verdict::Waits(_) => &[],
        };
        if wanted != current && !self.may_write() {
            return Ok(Outcome::After(UNSURE));
        }
        match verdict {
            Verdict::Leave => {}
            Verdict::Has(addresses) => {
                if addresses != current && self.write(&key, &service, &addresses).await? {
                    let shown: Vec<_> = addresses.iter().map(|addr| format!("{:?}", addr.to_string())).collect();
                    info!(service = %key, ?addresses, "load balancer has its addresses");
                    let message = format!("Assigned IP [{}]", shown.join(" "));
                    self.recorder.tell(&*service, Tone::Normal, "IPAllocated", message);
                }
            }
            Verdict::Waits(why) => {
                if !current.is_empty() {
                    self.write(&key, &service, &[]).await?;
                }
                if self.lock().told.insert(key.clone(), why.clone()).as_ref() != Some(&why) {
                    let message = format!("Failed to allocate IP for \"{key}\": {why}");
                    self.recorder.tell(&*service, Tone::Warning, "AllocationFailed", message);
                }
            }
        }
        Ok(Outcome::Done)
    }

    fn judge(&self, key: &Key, service: Option<&Service>) -> Verdict {
        let mut state = self.lock();
        let service_key = ServiceKey::new(&key.namespace, &key.name);
        let ours = service.filter(|service| request::is_ours(service));
        let Some(service) = ours else {
            state.stops_waiting(key);
            if state.balancers.release(&service_key) {
                self.became_free(&mut state);
            }
            return Verdict::Leave;
        };
        let current = request::current(service);
        let decided = match self.request(service) {
            Ok(request) => {
                let decided = state.balancers.settle(&request, &current);
                // What it had and has no more may be what another one waits for.
                let kept = decided.as_ref().is_ok_and(|now| *now == current);
                if !kept && !current.is_empty() {
                    self.became_free(&mut state);
                }
                decided.map_err(|refusal| format!("{refusal}; {}", refusal.remedy()))
            }
            Err(why) => {
                if state.balancers.release(&service_key) {
                    self.became_free(&mut state);
                }
                Err(why)
            }
        };
        match decided {
            Ok(addresses) => {
                state.stops_waiting(key);
                if addresses != current {
                    self.count_all();
                }
                Verdict::Has(addresses)
            }
            Err(why) => {
                state.waiting.insert(key.clone());
                Verdict::Waits(why)
            }
        }
    }

    /// Others may have what is free now.
    fn became_free(&self, state: &mut State) {
        std::mem::take(&mut state.waiting).into_iter().for_each(|key| self.queue.add(key));
        self.count_all();
    }

    /// Answers whether it was written: it is not where the Service is gone.
    async fn write(&self, key: &Key, decided_by: &Service, addresses: &[IpAddr]) -> Result<bool, Failure> {
        let ingress: Vec<_> = addresses.iter().map(|addr| json!({ "ip": addr.to_string(), "ipMode": "VIP" })).collect();
        let ingress = if ingress.is_empty() { serde_json::Value::Null } else { ingress.into() };
        let patch = Patch::Merge(json!({
            "metadata": { "resourceVersion": decided_by.metadata.resource_version, "uid": decided_by.metadata.uid },
            "status": { "loadBalancer": { "ingress": ingress } },
        }));
        let api = Api::<Service>::namespaced(self.client.clone(), &key.namespace);
        let written = api.patch_status(&key.name, &PatchParams::default(), &patch).await;
        let written = written.during(|| format!("writing the load balancer's addresses of {key}"));
        absent_is_fine(written).map(|written| written.is_some())
    }

    /// Whether it is still this agent's turn.
    pub(super) fn may_write(&self) -> bool {
        self.term.lasts()
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // Each change of the state is complete before anything can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
