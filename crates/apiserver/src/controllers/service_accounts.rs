//! What every namespace has from its first moment: the ServiceAccount `default` and the certificate by which pods know the API server.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::core::v1::{ConfigMap, ServiceAccount};
use kube::{
    Api, Client,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
};
use serde_json::json;
use tracing::info;

use super::{
    cache::Change,
    caches::Caches,
    key::Key,
    queue::Queue,
    worker::{During, Failure, Outcome, work},
};

/// The ServiceAccount of pods that name none.
pub(crate) const ACCOUNT: &str = "default";
/// The ConfigMap with the certificate, mounted into every pod.
pub(crate) const ROOT_CERTIFICATE: &str = "kube-root-ca.crt";
/// The certificate's key in the ConfigMap.
const CERTIFICATE_KEY: &str = "ca.crt";

/// The controller of what namespaces have.
pub(crate) struct NamespaceContents {
    client: Client,
    caches: Arc<Caches>,
    ca_pem: String,
    queue: Queue<Key>,
}

impl NamespaceContents {
    /// Listens to the caches from now on.
    pub(crate) fn new(client: Client, caches: &Arc<Caches>, ca_pem: String) -> Arc<Self> {
        let controller = Arc::new(Self { client, caches: Arc::clone(caches), ca_pem, queue: Queue::default() });
        let listener = Arc::clone(&controller);
        caches.namespaces.listen(move |change| {
            if let Change::Set { new, .. } = change {
                listener.queue.add(Key::of(&new.metadata));
            }
        });
        let listener = Arc::clone(&controller);
        caches.default_accounts.listen(move |change| {
            if let Change::Removed(account) = change {
                listener.queue.add(Key::cluster(account.metadata.namespace.clone().unwrap_or_default()));
            }
        });
        let listener = Arc::clone(&controller);
        caches.root_certificates.listen(move |change| {
            for map in change.states() {
                listener.queue.add(Key::cluster(map.metadata.namespace.clone().unwrap_or_default()));
            }
        });
        controller
    }

    /// Works for ever.
    pub(crate) async fn run(self: Arc<Self>) {
        work("service-accounts", &self.queue, |key| Box::pin(self.reconcile(key))).await;
    }

    async fn reconcile(&self, key: Key) -> Result<Outcome, Failure> {
        let namespace = self.caches.namespaces.find(&key);
        if namespace.is_none_or(|namespace| namespace.metadata.deletion_timestamp.is_some()) {
            return Ok(Outcome::Done);
        }
        let namespace = key.name;
        if self.caches.default_accounts.find(&Key::new(&*namespace, ACCOUNT)).is_none() {
            let account = ServiceAccount { metadata: metadata(&namespace, ACCOUNT), ..ServiceAccount::default() };
            let api = Api::<ServiceAccount>::namespaced(self.client.clone(), &namespace);
            let created = api.create(&PostParams::default(), &account).await;
            existing_is_fine(created).during(|| format!("creating serviceaccount {namespace}/{ACCOUNT}"))?;
        }
        self.provide_certificate(&namespace).await?;
        Ok(Outcome::Done)
    }

    async fn provide_certificate(&self, namespace: &str) -> Result<(), Failure> {
        let api = Api::<ConfigMap>::namespaced(self.client.clone(), namespace);
        let action = || format!("providing configmap {namespace}/{ROOT_CERTIFICATE}");
        let data = BTreeMap::from([(CERTIFICATE_KEY.to_owned(), self.ca_pem.clone())]);
        match self.caches.root_certificates.find(&Key::new(namespace, ROOT_CERTIFICATE)) {
            None => {
                let map = ConfigMap {
                    metadata: metadata(namespace, ROOT_CERTIFICATE),
                    data: Some(data),
                    ..ConfigMap::default()
                };
                existing_is_fine(api.create(&PostParams::default(), &map).await).during(action)
            }
            Some(map) if map.data.as_ref() == Some(&data) => Ok(()),
            Some(map) => {
                info!(namespace, "the namespace's copy of the CA certificate is mended");
                let mut patch = json!({ "data": data });
                // Keys that do not belong there go.
                for key in map.data.iter().flatten().map(|(key, _)| key).filter(|key| *key != CERTIFICATE_KEY) {
                    patch["data"][key] = serde_json::Value::Null;
                }
                let patched = api.patch(ROOT_CERTIFICATE, &PatchParams::default(), &Patch::Merge(patch)).await;
                patched.map(|_| ()).during(action)
            }
        }
    }
}

fn metadata(namespace: &str, name: &str) -> ObjectMeta {
    ObjectMeta { name: Some(name.to_owned()), namespace: Some(namespace.to_owned()), ..ObjectMeta::default() }
}

fn existing_is_fine<T>(result: kube::Result<T>) -> kube::Result<()> {
    match result {
        Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
        other => other.map(|_| ()),
    }
}
