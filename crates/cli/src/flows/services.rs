//! Who is behind a Service, for `--from service/NAMESPACE/NAME`: a record says which Service was asked, and of who asked it what their pod is. So
//! agents are asked for pods with the labels that the Service selects, whichever these are by then.

use k8s_openapi::api::core::v1::Service;
use kube::{Api, Client};
use podnet_flow::filter::{Place, Term};

use super::agents;
use crate::{
    arguments::flows::FlowsOptions,
    report::{Doing, Failure},
};

const INSTEAD: &str = "name them by pod/NAMESPACE/NAME, workload/NAMESPACE/NAME, pods/NAMESPACE/KEY=VALUE, an address or a range; what asked the Service \
                       is told by --to service/NAMESPACE/NAME";

/// The same, with pods in the place of Services that are to have begun flows.
pub(super) async fn resolved(options: &FlowsOptions) -> Result<FlowsOptions, Failure> {
    let mut resolved = options.clone();
    let unwanted =
        resolved.not.iter_mut().filter_map(|term| if let Term::From(place) = term { Some(place) } else { None });
    let is_service = |place: &&mut Place| matches!(place, Place::Service(..));
    let services: Vec<&mut Place> = resolved.from.iter_mut().chain(unwanted).filter(is_service).collect();
    if !services.is_empty() {
        let is_pod = agents::kubeconfig(options.kubeconfig.as_deref()).is_none();
        let client = agents::api_server(options, is_pod).await?;
        for place in services {
            if let Place::Service(namespace, name) = &*place {
                *place = selected(&client, namespace, name).await?;
            }
        }
    }
    Ok(resolved)
}

/// Its pods, by its selector.
async fn selected(client: &Client, namespace: &str, name: &str) -> Result<Place, Failure> {
    let unknown = || format!("cannot tell which pods are behind service/{namespace}/{name}");
    let service = match Api::<Service>::namespaced(client.clone(), namespace).get(name).await {
        Err(kube::Error::Api(status)) if status.code == 403 => {
            return Err(Failure::new(format!("{}: you may not get it", unknown())).remedy(INSTEAD));
        }
        got => got.doing(unknown)?,
    };
    let selector = service.spec.and_then(|spec| spec.selector).filter(|selector| !selector.is_empty());
    let selector = selector.ok_or_else(|| Failure::new(format!("{}: it selects none", unknown())).remedy(INSTEAD))?;
    Ok(Place::Selected(namespace.to_owned(), selector))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http::{Request, Response};
    use kube::client::Body;
    use serde_json::{Value, json};

    use super::*;

    /// An API server that has one Service, or says no.
    fn api_server(code: u16, spec: Value) -> Client {
        let service = tower::service_fn(move |request: Request<Body>| {
            assert_eq!(request.uri().path(), "/api/v1/namespaces/shop/services/cart");
            let body = match code {
                200 => json!({"metadata": {"name": "cart", "namespace": "shop"}, "spec": spec}),
                _ => json!({"status": "Failure", "message": "no", "code": code}),
            };
            let response = Response::builder().status(code).body(Body::from(body.to_string().into_bytes())).unwrap();
            async { Ok::<_, Infallible>(response) }
        });
        Client::new(service, "default")
    }

    #[tokio::test]
    async fn pods_behind_a_service_are_those_with_its_labels_and_where_that_is_not_known_it_is_said() {
        let asked = |code, spec| async move { selected(&api_server(code, spec), "shop", "cart").await };
        let place = asked(200, json!({"selector": {"app": "cart", "tier": "back"}})).await.unwrap();
        assert_eq!(place.to_string(), "pods/shop/app=cart,tier=back");
        for (code, spec, says) in [
            (200, json!({}), "it selects none"),
            (200, json!({"selector": {}}), "it selects none"),
            (403, Value::Null, "you may not get it"),
            (404, Value::Null, "cannot tell which pods are behind service/shop/cart"),
        ] {
            let error = asked(code, spec).await.unwrap_err().to_string();
            assert!(error.contains(says), "{code}: {error}");
        }
    }
}
