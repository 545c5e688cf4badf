//! A container's environment variables.

use std::collections::BTreeMap;

use k8s_openapi::{
    ByteString,
    api::core::v1::{ConfigMap, Container, EnvVarSource, Pod, Secret},
};

use super::{
    expand::expand,
    fields::{self, Placed},
};
use crate::cluster::{Cluster, ClusterError};

/// The search path of containers whose image has none; podnet's own directory comes first, always.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const PODNET_DIR: &str = "/opt/podnet/bin";

/// A container's configuration cannot be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error("{kind} {name:?} not found")]
    NoObject { kind: &'static str, name: String },
    #[error("couldn't find key {key} in {kind} {namespace}/{name}")]
    NoKey { key: String, kind: &'static str, namespace: String, name: String },
    #[error("environment variable {name}: there is no field {path:?}")]
    NoField { name: String, path: String },
    #[error("{field} is not supported here: {reason}")]
    Unsupported { field: String, reason: String },
    #[error("unknown capability {name:?} in securityContext.capabilities")]
    NoCapability { name: String },
}

/// Reads the objects of one namespace, each at most once.
pub(crate) struct Objects<'a> {
    cluster: &'a dyn Cluster,
    namespace: String,
    config_maps: BTreeMap<String, Option<ConfigMap>>,
    secrets: BTreeMap<String, Option<Secret>>,
}

impl<'a> Objects<'a> {
    pub(crate) fn new(cluster: &'a dyn Cluster, namespace: &str) -> Self {
        Self { cluster, namespace: namespace.to_owned(), config_maps: BTreeMap::new(), secrets: BTreeMap::new() }
    }

    /// A config map's values; none where there is no such object and that is allowed.
    pub(crate) async fn config_map(
        &mut self,
        name: &str,
        optional: bool,
    ) -> Result<Option<BTreeMap<String, Vec<u8>>>, ConfigError> {
        if !self.config_maps.contains_key(name) {
            let found = self.cluster.config_map(&self.namespace, name).await?;
            self.config_maps.insert(name.to_owned(), found);
        }
        match self.config_maps.get(name).and_then(Option::as_ref) {
            Some(found) => Ok(Some(values(found.data.as_ref(), found.binary_data.as_ref()))),
            None if optional => Ok(None),
            None => Err(ConfigError::NoObject { kind: "configmap", name: name.to_owned() }),
        }
    }

    /// A secret's values; none where there is no such object and that is allowed.
    pub(crate) async fn secret(
        &mut self,
        name: &str,
        optional: bool,
    ) -> Result<Option<BTreeMap<String, Vec<u8>>>, ConfigError> {
        if !self.secrets.contains_key(name) {
            let found = self.cluster.secret(&self.namespace, name).await?;
            self.secrets.insert(name.to_owned(), found);
        }
        match self.secrets.get(name).and_then(Option::as_ref) {
            Some(found) => Ok(Some(values(found.string_data.as_ref(), found.data.as_ref()))),
            None if optional => Ok(None),
            None => Err(ConfigError::NoObject { kind: "secret", name: name.to_owned() }),
        }
    }
}

fn values(
    text: Option<&BTreeMap<String, String>>,
    binary: Option<&BTreeMap<String, ByteString>>,
) -> BTreeMap<String, Vec<u8>> {
    let text = text.into_iter().flatten().map(|(key, value)| (key.clone(), value.clone().into_bytes()));
    text.chain(binary.into_iter().flatten().map(|(key, value)| (key.clone(), value.0.clone()))).collect()
}

/// The environment of a container: the image's, the cluster's, then the container's own, later ones replacing earlier ones.
pub(crate) async fn environment(
    pod: &Pod,
    container: &Container,
    image: &[(String, String)],
    placed: &Placed,
    objects: &mut Objects<'_>,
) -> Result<Vec<(String, String)>, ConfigError> {
    let mut env: Vec<(String, String)> = Vec::new();
    set(&mut env, "PATH", PATH.to_owned());
    set(&mut env, "HOSTNAME", super::names::hostname(pod));
    for (name, value) in image {
        set(&mut env, name, value.clone());
    }
    let path = env.iter().find(|(name, _)| name == "PATH").map_or(PATH, |(_, path)| path.as_str());
    let path = format!("{PODNET_DIR}:{path}");
    set(&mut env, "PATH", path);
    if let Some((host, port)) = objects.cluster.kubernetes_service().await {
        service_links(&mut env, &host, port);
    }
    for source in container.env_from.iter().flatten() {
        let prefix = source.prefix.as_deref().unwrap_or_default();
        let found = match (&source.config_map_ref, &source.secret_ref) {
            (Some(wanted), _) => objects.config_map(&wanted.name, wanted.optional.unwrap_or(false)).await?,
            (None, Some(wanted)) => objects.secret(&wanted.name, wanted.optional.unwrap_or(false)).await?,
            (None, None) => None,
        };
        for (key, value) in found.into_iter().flatten() {
            set(&mut env, &format!("{prefix}{key}"), String::from_utf8_lossy(&value).into_owned());
        }
    }
    for variable in container.env.iter().flatten() {
        let value = match (&variable.value_from, &variable.value) {
            (Some(source), _) => value_from(pod, container, &variable.name, source, placed, objects).await?,
            (None, value) => {
                let known = |name: &str| env.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
                Some(expand(value.as_deref().unwrap_or_default(), known))
            }
        };
        if let Some(value) = value {
            set(&mut env, &variable.name, value);
        }
    }
    Ok(env)
}

async fn value_from(
    pod: &Pod,
    container: &Container,
    name: &str,
    source: &EnvVarSource,
    placed: &Placed,
    objects: &mut Objects<'_>,
) -> Result<Option<String>, ConfigError> {
    let no_field = |path: &str| ConfigError::NoField { name: name.to_owned(), path: path.to_owned() };
    if let Some(wanted) = &source.field_ref {
        return fields::field(pod, placed, &wanted.field_path).map(Some).ok_or_else(|| no_field(&wanted.field_path));
    }
    if let Some(wanted) = &source.resource_field_ref {
        return fields::resource(pod, &container.name, wanted).map(Some).ok_or_else(|| no_field(&wanted.resource));
    }
    let (kind, object, key, optional, found) = if let Some(wanted) = &source.config_map_key_ref {
        let optional = wanted.optional.unwrap_or(false);
        ("configmap", &wanted.name, &wanted.key, optional, objects.config_map(&wanted.name, optional).await?)
    } else if let Some(wanted) = &source.secret_key_ref {
        let optional = wanted.optional.unwrap_or(false);
        ("secret", &wanted.name, &wanted.key, optional, objects.secret(&wanted.name, optional).await?)
    } else {
        return Ok(None);
    };
    match found.and_then(|mut values| values.remove(key)) {
        Some(value) => Ok(Some(String::from_utf8_lossy(&value).into_owned())),
        None if optional => Ok(None),
        None => Err(ConfigError::NoKey {
            key: key.clone(),
            kind,
            namespace: objects.namespace.clone(),
            name: object.clone(),
        }),
    }
}

/// What containers find about the API server, as with Docker links of old.
fn service_links(env: &mut Vec<(String, String)>, host: &str, port: u16) {
    for (name, value) in [
        ("KUBERNETES_SERVICE_HOST", host.to_owned()),
        ("KUBERNETES_SERVICE_PORT", port.to_string()),
        ("KUBERNETES_SERVICE_PORT_HTTPS", port.to_string()),
        ("KUBERNETES_PORT", format!("tcp://{host}:{port}")),
        (&format!("KUBERNETES_PORT_{port}_TCP"), format!("tcp://{host}:{port}")),
        (&format!("KUBERNETES_PORT_{port}_TCP_PROTO"), "tcp".to_owned()),
        (&format!("KUBERNETES_PORT_{port}_TCP_PORT"), port.to_string()),
        (&format!("KUBERNETES_PORT_{port}_TCP_ADDR"), host.to_owned()),
    ] {
        set(env, name, value);
    }
}

fn set(env: &mut Vec<(String, String)>, name: &str, value: String) {
    match env.iter_mut().find(|(known, _)| known == name) {
        Some(known) => known.1 = value,
        None => env.push((name.to_owned(), value)),
    }
}
