//! The objects that every cluster has from its start.

use std::net::SocketAddr;

use podnet_model::balancer::LEASE;
use serde_json::{Value, json};

use super::{Api, Part, Place, StartError, WriteOptions, first_service_address};
use crate::config::Config;
use crate::errors::ApiError;

const NAMESPACES: [&str; 5] = ["default", "kube-system", "kube-public", "kube-node-lease", LEASE.0];

impl Api {
    /// Makes what is missing and corrects what has another address than before.
    pub(super) async fn bootstrap(&self, config: &Config) -> Result<(), StartError> {
        for name in NAMESPACES {
            self.ensure("", "namespaces", "", json!({ "metadata": { "name": name } })).await?;
        }
        self.ensure("", "services", "default", kubernetes_service(config)).await?;
        if config.advertise.ip().is_loopback() {
            // Nobody but this host can reach it there, so the Service leads nowhere.
            return Ok(());
        }
        self.ensure("", "endpoints", "default", kubernetes_endpoints(config.advertise)).await?;
        self.ensure("discovery.k8s.io", "endpointslices", "default", kubernetes_slice(config.advertise)).await
    }

    async fn ensure(&self, group: &str, plural: &str, namespace: &str, object: Value) -> Result<(), StartError> {
        let resource = self.registry().builtin(group, plural);
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let what = format!("{} {name}", resource.singular);
        let failed = |source: ApiError| StartError::Bootstrap { what, source };
        let created = self.create(&resource, namespace, object.clone(), WriteOptions::default()).await;
        let at = Place { resource: &resource, namespace, name: &name };
        match created {
            Err(error) if error.reason == "AlreadyExists" => {
                let corrected =
                    self.modify(&at, Part::Main, WriteOptions::default(), false, |found| Ok(corrected(found, &object)));
                corrected.await.map(drop).map_err(failed)
            }
            created => created.map(drop).map_err(failed),
        }
    }
}

/// What was found, with the addresses that hold now.
fn corrected(found: &Value, wanted: &Value) -> Value {
    let mut object = found.clone();
    for field in ["subsets", "endpoints", "ports"] {
        if let Some(value) = wanted.get(field) {
            object[field] = value.clone();
        }
    }
    object
}

fn labels() -> Value {
    json!({ "component": "apiserver", "provider": "kubernetes" })
}

fn kubernetes_service(config: &Config) -> Value {
    json!({
        "metadata": { "name": "kubernetes", "labels": labels() },
        "spec": {
            "type": "ClusterIP",
            "clusterIP": first_service_address(config.service_cidr).to_string(),
            "ports": [{ "name": "https", "port": 443, "protocol": "TCP", "targetPort": config.advertise.port() }],
        },
    })
}

fn kubernetes_endpoints(advertise: SocketAddr) -> Value {
    json!({
        "metadata": { "name": "kubernetes", "labels": { "endpointslice.kubernetes.io/skip-mirror": "true" } },
        "subsets": [{
            "addresses": [{ "ip": advertise.ip().to_string() }],
            "ports": [{ "name": "https", "port": advertise.port(), "protocol": "TCP" }],
        }],
    })
}

fn kubernetes_slice(advertise: SocketAddr) -> Value {
    json!({
        "metadata": { "name": "kubernetes", "labels": { "kubernetes.io/service-name": "kubernetes" } },
        "addressType": if advertise.is_ipv4() { "IPv4" } else { "IPv6" },
        "endpoints": [{ "addresses": [advertise.ip().to_string()], "conditions": { "ready": true } }],
        "ports": [{ "name": "https", "port": advertise.port(), "protocol": "TCP" }],
    })
}
