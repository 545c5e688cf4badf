//! IPAddressPools and L2Advertisements, followed apart from everything else: a cluster need not have them.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    mem,
    sync::{Arc, Mutex, PoisonError},
};

use futures::StreamExt;
use kube::{
    Api, Client, Resource, ResourceExt,
    runtime::watcher::{self, Event, watcher},
};
use podnet_client::watch::steadily;
use podnet_model::{
    balancer::{AddressPool, Advertisement},
    convert::Invalid,
    crd,
};
use serde::de::DeserializeOwned;
use tracing::{debug, warn};

use super::Announcements;

#[derive(Default)]
struct Known {
    pools: Vec<AddressPool>,
    advertisements: Vec<Advertisement>,
}

/// Tells of pools and advertisements for ever.
pub(super) async fn follow(client: Client, announcements: Arc<Announcements>) {
    let known = Mutex::new(Known::default());
    let tell = |change: &dyn Fn(&mut Known)| {
        let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut known);
        announcements.set_pools(known.pools.clone(), known.advertisements.clone());
    };
    tokio::join!(
        each_state(Api::<crd::IPAddressPool>::all(client.clone()), |all| {
            let pools: Vec<_> = all.values().filter_map(|pool| judged(AddressPool::try_from(pool))).collect();
            tell(&|known| known.pools.clone_from(&pools));
        }),
        each_state(Api::<crd::L2Advertisement>::all(client.clone()), |all| {
            let all: Vec<_> = all.values().filter_map(|one| judged(Advertisement::try_from(one))).collect();
            tell(&|known| known.advertisements.clone_from(&all));
        }),
    );
}

fn judged<T>(converted: Result<T, Invalid>) -> Option<T> {
    converted
        .inspect_err(|error| warn!(error = error as &dyn std::error::Error, "object ignored until it is mended"))
        .ok()
}

/// By namespace and name.
type All<K> = BTreeMap<(Option<String>, String), K>;

async fn each_state<K>(api: Api<K>, tell: impl Fn(&All<K>))
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let mut events = steadily(watcher(api, watcher::Config::default())).boxed();
    let (mut known, mut listed) = (All::new(), All::new());
    let key = |object: &K| (object.namespace(), object.name_any());
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => listed.clear(),
            Ok(Event::InitApply(object)) => {
                listed.insert(key(&object), object);
            }
            Ok(Event::InitDone) => {
                known = mem::take(&mut listed);
                tell(&known);
            }
            Ok(Event::Apply(object)) => {
                known.insert(key(&object), object);
                tell(&known);
            }
            Ok(Event::Delete(object)) => {
                known.remove(&key(&object));
                tell(&known);
            }
            // Where the kind is not defined nobody has load balancers of ours.
            Err(error) => {
                debug!(kind = %K::kind(&()), error = &error as &dyn std::error::Error, "watch interrupted");
            }
        }
    }
}
