//! L2Advertisements, followed apart from everything else: a cluster need not have them. Pools come with what is served by them.

use std::{collections::BTreeMap, fmt::Debug, mem, sync::Arc};

use futures::StreamExt;
use kube::{
    Api, Client, Resource, ResourceExt,
    runtime::watcher::{self, Event, watcher},
};
use podnet_client::watch::steadily;
use podnet_model::{balancer::Advertisement, crd};
use serde::de::DeserializeOwned;
use tracing::{debug, warn};

use super::Announcements;

/// Tells of advertisements for ever.
pub(super) async fn follow(client: Client, announcements: Arc<Announcements>) {
    let mut right = Right::new();
    each_state(Api::<crd::L2Advertisement>::all(client), |all| {
        right = judged(all, mem::take(&mut right));
        announcements.set_advertisements(right.values().cloned().collect());
    })
    .await;
}

/// The last right state of each.
type Right = BTreeMap<Key, Advertisement>;

/// One that was right stays as it was until what is wrong with it is mended: addresses that are in use are announced on.
fn judged(all: &All<crd::L2Advertisement>, mut before: Right) -> Right {
    let judge = |(key, object): (&Key, &crd::L2Advertisement)| match Advertisement::try_from(object) {
        Ok(right) => Some((key.clone(), right)),
        Err(error) => {
            warn!(error = &error as &dyn std::error::Error, "an L2Advertisement is without effect until it is mended");
            before.remove_entry(key)
        }
    };
    all.iter().filter_map(judge).collect()
}

type Key = (Option<String>, String);

/// By namespace and name.
type All<K> = BTreeMap<Key, K>;

async fn each_state<K>(api: Api<K>, mut tell: impl FnMut(&All<K>))
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_mistake_in_an_advertisement_changes_nothing_until_it_is_mended_or_gone() {
        let all = |specs: &[(&str, serde_json::Value)]| -> All<crd::L2Advertisement> {
            let object = |(name, spec): &(&str, serde_json::Value)| {
                let object = json!({"apiVersion": "metallb.io/v1beta1", "kind": "L2Advertisement", "metadata": {"name": name}, "spec": spec});
                ((None, (*name).to_owned()), serde_json::from_value(object).unwrap())
            };
            specs.iter().map(object).collect()
        };
        let on = |device: &str| json!({"interfaces": [device]});
        let wrong = json!({"nodeSelectors": [{"matchExpressions": [{"key": "a", "operator": "Nearly"}]}]});
        let devices =
            |right: &Right| -> Vec<String> { right.values().flat_map(|one| one.interfaces.iter().cloned()).collect() };
        let first = judged(&all(&[("one", on("eth0")), ("two", wrong.clone())]), Right::new());
        assert_eq!(devices(&first), ["eth0"]);
        let second = judged(&all(&[("one", wrong.clone()), ("two", on("eth1"))]), first);
        assert_eq!(devices(&second), ["eth0", "eth1"], "the first stays as it was");
        assert_eq!(devices(&judged(&all(&[("two", wrong)]), second)), ["eth1"]);
    }
}
