//! The cluster through the Kubernetes API.

use futures::future::{BoxFuture, FutureExt};
use k8s_openapi::{
    api::{
        authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec},
        core::v1::{ConfigMap, Pod, PodStatus, Secret, Service, ServiceAccount},
    },
    serde_json::{Value, json},
};
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
};
use tokio::sync::OnceCell;

use super::{Asked, Cluster, ClusterError, PodEvent, PodKey, Token, TokenWish, events::EventSink};

/// The real cluster.
pub(crate) struct ApiCluster {
    client: Client,
    events: EventSink,
    kubernetes: OnceCell<(String, u16)>,
}

impl ApiCluster {
    pub(crate) fn new(client: Client, events: EventSink) -> Self {
        Self { client, events, kubernetes: OnceCell::new() }
    }
}

fn failed(action: impl FnOnce() -> String) -> impl FnOnce(kube::Error) -> ClusterError {
    move |error| ClusterError { action: action(), reason: said(&error) }
}

/// What the server said, without the client's wrapping.
pub(crate) fn said(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

fn is_missing(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}

/// The status as a strategic merge patch: what is absent goes, addresses are replaced as a whole, conditions are merged by type.
fn as_patch(status: &PodStatus) -> Value {
    let mut patch = json!(status);
    for field in ["reason", "message", "podIP", "podIPs", "containerStatuses", "initContainerStatuses"] {
        if patch.get(field).is_none() {
            patch[field] = Value::Null;
        }
    }
    for field in ["podIPs", "hostIPs"] {
        if let Some(list) = patch[field].as_array_mut() {
            list.insert(0, json!({ "$patch": "replace" }));
        }
    }
    // Conditions are merged by type, so that others' stay: what one of ours no longer says has to be taken away.
    for condition in patch["conditions"].as_array_mut().into_iter().flatten() {
        for field in ["reason", "message"] {
            if condition.get(field).is_none() {
                condition[field] = Value::Null;
            }
        }
    }
    patch
}

impl Cluster for ApiCluster {
    fn config_map<'a>(&'a self, namespace: &'a str, name: &'a str) -> Asked<'a, Option<ConfigMap>> {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), namespace);
        async move { api.get_opt(name).await.map_err(failed(|| format!("read configmap {namespace}/{name}"))) }.boxed()
    }

    fn secret<'a>(&'a self, namespace: &'a str, name: &'a str) -> Asked<'a, Option<Secret>> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        async move { api.get_opt(name).await.map_err(failed(|| format!("read secret {namespace}/{name}"))) }.boxed()
    }

    fn token<'a>(&'a self, pod: &'a PodKey, wish: &'a TokenWish) -> Asked<'a, Token> {
        let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), &pod.namespace);
        let request = TokenRequest {
            spec: Some(TokenRequestSpec {
                audiences: Some(wish.audiences.clone()).filter(|audiences| !audiences.is_empty()),
                expiration_seconds: Some(wish.seconds),
                bound_object_ref: Some(BoundObjectReference {
                    api_version: Some("v1".into()),
                    kind: Some("Pod".into()),
                    name: Some(pod.name.clone()),
                    uid: Some(pod.uid.clone()),
                }),
            }),
            ..TokenRequest::default()
        };
        async move {
            let account = &wish.service_account;
            let action = || format!("get a token of service account {}/{account}", pod.namespace);
            let answer =
                api.create_token_request(account, &PostParams::default(), &request).await.map_err(failed(action))?;
            let issued = answer
                .status
                .and_then(|status| Some(Token { token: status.token?, expires: status.expiration_timestamp?.0 }));
            issued.ok_or_else(|| ClusterError { action: action(), reason: "the answer has no token".into() })
        }
        .boxed()
    }

    fn publish_status<'a>(&'a self, pod: &'a PodKey, status: &'a PodStatus) -> Asked<'a, Option<String>> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &pod.namespace);
        async move {
            // The uid makes the server refuse a namesake.
            let patch = json!({ "metadata": { "uid": pod.uid }, "status": as_patch(status) });
            match api.patch_status(&pod.name, &PatchParams::default(), &Patch::Strategic(&patch)).await {
                Ok(written) => Ok(written.metadata.resource_version),
                Err(error) if is_missing(&error) || is_conflict(&error) => Ok(None),
                Err(error) => Err(failed(|| format!("write the status of pod {pod}"))(error)),
            }
        }
        .boxed()
    }

    fn remove<'a>(&'a self, pod: &'a PodKey) -> Asked<'a, ()> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &pod.namespace);
        async move {
            let same = Preconditions { uid: Some(pod.uid.clone()), resource_version: None };
            let how =
                DeleteParams { grace_period_seconds: Some(0), preconditions: Some(same), ..DeleteParams::default() };
            match api.delete(&pod.name, &how).await {
                Ok(_) => Ok(()),
                Err(error) if is_missing(&error) || is_conflict(&error) => Ok(()),
                Err(error) => Err(failed(|| format!("delete pod {pod}"))(error)),
            }
        }
        .boxed()
    }

    fn event(&self, pod: &PodKey, event: PodEvent) {
        self.events.send(pod, event);
    }

    fn kubernetes_service(&self) -> BoxFuture<'_, Option<(String, u16)>> {
        let read = async {
            let service =
                Api::<Service>::namespaced(self.client.clone(), "default").get("kubernetes").await.map_err(drop)?;
            let spec = service.spec.ok_or(())?;
            let port =
                spec.ports.unwrap_or_default().first().and_then(|port| u16::try_from(port.port).ok()).ok_or(())?;
            Ok::<_, ()>((spec.cluster_ip.ok_or(())?, port))
        };
        async move { self.kubernetes.get_or_try_init(|| read).await.ok().cloned() }.boxed()
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::serde_json::from_value;

    use super::*;

    #[test]
    fn a_status_patch_leaves_conditions_of_others_and_replaces_addresses() {
        let status: PodStatus = from_value(json!({
            "phase": "Running", "podIP": "10.0.0.2", "podIPs": [{ "ip": "10.0.0.2" }], "conditions": [{ "type": "Ready", "status": "True" }],
        }))
        .unwrap();
        let patch = as_patch(&status);
        assert_eq!(patch["podIPs"], json!([{ "$patch": "replace" }, { "ip": "10.0.0.2" }]));
        assert_eq!(
            patch["conditions"],
            json!([{ "type": "Ready", "status": "True", "reason": null, "message": null }])
        );
        assert!(patch["reason"].is_null() && patch.get("reason").is_some(), "a reason of before goes");
    }
}
