//! Addresses for Services of type LoadBalancer, out of IPAddressPools: written to their status. Nodes announce them.
//!
//! Who may have what is decided by [`podnet_planner::loadbalancer`]. All that is known follows from pools and Services; what a
//! Service's status says when this starts is its own before anybody else gets an address.

mod request;

use std::{
    collections::BTreeSet,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use k8s_openapi::api::core::v1::Service;
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams},
    runtime::watcher,
};
use podnet_client::apply;
use podnet_model::{ServiceKey, balancer::AddressPool, crd};
use podnet_planner::loadbalancer::Balancers;
use serde_json::json;
use tracing::{info, warn};

use super::{
    cache::{Cache, Change},
    caches::Caches,
    key::Key,
    queue::Queue,
    recorder::{Recorder, Tone},
    worker::{During, Failure, Outcome, absent_is_fine, work},
};

/// How long to wait before the definitions are tried again.
const RETRY: Duration = Duration::from_secs(1);

/// The controller of load balancers' addresses.
pub(crate) struct LoadBalancers {
    client: Client,
    caches: Arc<Caches>,
    pools: Arc<Cache<crd::IPAddressPool>>,
    recorder: Recorder,
    queue: Queue<Key>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    balancers: Balancers,
    /// Services that there is no address for: they are looked at again when something becomes free.
    waiting: BTreeSet<Key>,
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

impl LoadBalancers {
    /// Listens to the caches from now on.
    pub(crate) fn new(client: Client, caches: &Arc<Caches>, recorder: &Recorder) -> Arc<Self> {
        let controller = Arc::new(Self {
            client,
            caches: Arc::clone(caches),
            pools: Arc::default(),
            recorder: recorder.of("podnet-load-balancer"),
            queue: Queue::default(),
            state: Mutex::default(),
        });
        let listener = Arc::clone(&controller);
        caches.services.listen(move |change| {
            change.states().for_each(|service| listener.queue.add(Key::of(&service.metadata)));
        });
        let listener = Arc::clone(&controller);
        caches.namespaces.listen(move |change| {
            if let Change::Set { old: Some(old), new } = change
                && old.metadata.labels != new.metadata.labels
            {
                listener.look_at_all();
            }
        });
        controller
    }

    /// Works for ever.
    pub(crate) async fn run(self: Arc<Self>) {
        while let Err(error) = self.define().await {
            warn!(error = &error as &dyn std::error::Error, "cannot define IPAddressPools, trying again");
            tokio::time::sleep(RETRY).await;
        }
        let follow = {
            let (pools, api) = (Arc::clone(&self.pools), Api::all(self.client.clone()));
            async move { pools.follow(api, watcher::Config::default()).await }
        };
        let work = async {
            self.pools.synced().await;
            self.begin();
            let listener = Arc::clone(&self);
            self.pools.listen(move |_| listener.pools_changed());
            // What changed since.
            self.pools_changed();
            work("load balancers", &self.queue, |key| Box::pin(self.reconcile(key))).await;
        };
        tokio::join!(follow, work);
    }

    async fn define(&self) -> Result<(), apply::ApplyError> {
        for definition in crd::balancer_definitions() {
            apply::create_or_replace_definition(&self.client, definition).await?;
        }
        Ok(())
    }

    /// Every Service holds what its status says.
    fn begin(&self) {
        let mut state = self.lock();
        state.balancers.set_pools(self.known_pools());
        for service in self.caches.services.all().iter().filter(|service| request::is_ours(service)) {
            let current = request::current(service);
            if let (false, Ok(request)) = (current.is_empty(), self.request(service)) {
                state.balancers.restore(&request, &current);
            }
        }
    }

    fn pools_changed(&self) {
        self.lock().balancers.set_pools(self.known_pools());
        self.look_at_all();
    }

    fn look_at_all(&self) {
        let services = self.caches.services.all();
        let ours = services.iter().filter(|service| request::is_ours(service));
        ours.for_each(|service| self.queue.add(Key::of(&service.metadata)));
    }

    /// The pools that say what they mean; the others are told of and left out.
    fn known_pools(&self) -> Vec<AddressPool> {
        let known = self.pools.all();
        let pools = known.iter().filter(|pool| pool.metadata.deletion_timestamp.is_none());
        let judged = pools.map(|pool| (pool, AddressPool::try_from(&**pool)));
        judged
            .filter_map(|(pool, judged)| {
                let told = |error: &podnet_model::convert::Invalid| {
                    self.recorder.tell(&**pool, Tone::Warning, "InvalidPool", error.to_string());
                };
                judged.inspect_err(told).ok()
            })
            .collect()
    }

    fn request(&self, service: &Service) -> Result<podnet_planner::loadbalancer::Request, String> {
        let namespace = self.caches.namespaces.find(&Key::cluster(service.namespace().unwrap_or_default()));
        request::of(service, namespace.as_deref())
    }

    async fn reconcile(&self, key: Key) -> Result<Outcome, Failure> {
        let service = self.caches.services.find(&key);
        let verdict = self.judge(&key, service.as_deref());
        let Some(service) = service else { return Ok(Outcome::Done) };
        let current = request::current(&service);
        match verdict {
            Verdict::Leave => {}
            Verdict::Has(addresses) => {
                if addresses != current {
                    self.write(&key, &addresses).await?;
                    let shown: Vec<_> = addresses.iter().map(|addr| format!("{:?}", addr.to_string())).collect();
                    info!(service = %key, ?addresses, "load balancer has its addresses");
                    let message = format!("Assigned IP [{}]", shown.join(" "));
                    self.recorder.tell(&*service, Tone::Normal, "IPAllocated", message);
                }
            }
            Verdict::Waits(why) => {
                if !current.is_empty() {
                    self.write(&key, &[]).await?;
                }
                let message = format!("Failed to allocate IP for \"{key}\": {why}");
                self.recorder.tell(&*service, Tone::Warning, "AllocationFailed", message);
            }
        }
        Ok(Outcome::Done)
    }

    fn judge(&self, key: &Key, service: Option<&Service>) -> Verdict {
        let mut state = self.lock();
        let service_key = ServiceKey::new(&key.namespace, &key.name);
        let ours = service.filter(|service| request::is_ours(service));
        let request = ours.map(|service| (self.request(service), request::current(service)));
        let decided = match request {
            None => {
                state.waiting.remove(key);
                if state.balancers.release(&service_key) {
                    self.let_others_try(&mut state);
                }
                return Verdict::Leave;
            }
            Some((Ok(request), current)) => {
                let decided = state.balancers.settle(&request, &current);
                // What it had and has no more may be what another one waits for.
                let given_up =
                    decided.as_ref().map_or(!current.is_empty(), |now| !current.is_empty() && *now != current);
                if given_up {
                    self.let_others_try(&mut state);
                }
                decided.map_err(|refusal| refusal.to_string())
            }
            Some((Err(why), _)) => {
                if state.balancers.release(&service_key) {
                    self.let_others_try(&mut state);
                }
                Err(why)
            }
        };
        match decided {
            Ok(addresses) => {
                state.waiting.remove(key);
                Verdict::Has(addresses)
            }
            Err(why) => {
                state.waiting.insert(key.clone());
                Verdict::Waits(why)
            }
        }
    }

    fn let_others_try(&self, state: &mut State) {
        std::mem::take(&mut state.waiting).into_iter().for_each(|key| self.queue.add(key));
    }

    async fn write(&self, key: &Key, addresses: &[IpAddr]) -> Result<(), Failure> {
        let ingress: Vec<_> = addresses.iter().map(|addr| json!({ "ip": addr.to_string(), "ipMode": "VIP" })).collect();
        let status = match ingress.is_empty() {
            true => json!({ "loadBalancer": { "ingress": null } }),
            false => json!({ "loadBalancer": { "ingress": ingress } }),
        };
        let api = Api::<Service>::namespaced(self.client.clone(), &key.namespace);
        let patch = Patch::Merge(json!({ "status": status }));
        let written = api.patch_status(&key.name, &PatchParams::default(), &patch).await;
        absent_is_fine(written.during(|| format!("writing the load balancer's addresses of {key}"))).map(|_| ())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change of the state is complete before anything can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
