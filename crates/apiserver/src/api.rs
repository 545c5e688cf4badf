//! The API without sockets: its state, and the verbs with Kubernetes' rules for what they do to objects.

use std::sync::Arc;

use chrono::{SecondsFormat, Utc};
use ipnet::{IpNet, Ipv4Net};
use serde_json::Value;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::admission::allocate::ServiceAllocator;
use crate::auth::{TokenError, Tokens};
use crate::config::Config;
use crate::errors::ApiError;
use crate::nodeproxy::{NodeProxy, NodeProxyError};
use crate::pki::{Pki, PkiError};
use crate::registry::{Registry, Resource, from_view};
use crate::shape::MAX_BYTES;
use crate::store::{Key, Object, OpenError, Store, WriteError};

mod accounts;
mod admit;
mod bootstrap;
mod claims;
mod client;
mod create;
mod definitions;
mod delete;
mod metadata;
mod modify;
mod options;
mod pod_uses;
mod pods;
mod scale;

pub use delete::Deletion;
pub use modify::Part;
pub use options::{DeleteOptions, FieldValidation, WriteOptions};

/// Why the API could not be put together.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store does not open.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// Keys or certificates are missing or wrong.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// The key that signs tokens is wrong.
    #[error(transparent)]
    Tokens(#[from] TokenError),
    /// Nodes cannot be talked to.
    #[error(transparent)]
    NodeProxy(#[from] NodeProxyError),
    /// A task that was to open the store died.
    #[error("opening the store")]
    Task(#[from] tokio::task::JoinError),
    /// An object that every cluster has could not be made.
    #[error("creating {what}")]
    Bootstrap {
        /// Which object.
        what: String,
        /// Why not.
        #[source]
        source: ApiError,
    },
}

/// The embedded Kubernetes API. Clones are the same API.
#[derive(Debug, Clone)]
pub struct Api {
    core: Arc<Core>,
}

#[derive(Debug)]
struct Core {
    store: Store,
    registry: Registry,
    /// Revision of the latest commit that touched a definition.
    defined: watch::Receiver<u64>,
    services: ServiceAllocator,
    /// Held while a pool is created.
    pools: tokio::sync::Mutex<()>,
    tokens: Tokens,
    nodes: NodeProxy,
    stopping: CancellationToken,
}

impl Api {
    /// Opens the store, serves the custom kinds that are defined in it, and makes the objects that every cluster has.
    /// `stopping` ends watches and background work.
    pub async fn start(config: &Config, pki: &Pki, stopping: CancellationToken) -> Result<Self, StartError> {
        let path = config.store_path.clone();
        let store = tokio::task::spawn_blocking(move || Store::open(&path)).await??;
        let networks = [Some(IpNet::V4(config.service_cidr)), config.service_cidr_v6.map(IpNet::V6)];
        let services = ServiceAllocator::new(networks.into_iter().flatten(), config.node_port_range.clone());
        for service in store.list("services", None).objects {
            services.restore(&service.value);
        }
        let tokens = Tokens::new(pki.token_key())?;
        let nodes = NodeProxy::new(pki)?;
        let registry = Registry::default();
        let defined = store.subscribe(definitions::DEFINITIONS);
        let pools = tokio::sync::Mutex::default();
        let api = Self { core: Arc::new(Core { store, registry, defined, services, pools, tokens, nodes, stopping }) };
        api.resume_cleanups();
        api.bootstrap(config).await?;
        Ok(api)
    }

    /// Objects, revisions and events.
    pub fn store(&self) -> &Store {
        &self.core.store
    }

    /// The built-in kinds. Which custom ones are served beside them says [`Api::catalog`].
    pub fn registry(&self) -> &Registry {
        &self.core.registry
    }

    /// Ended when the API is to stop.
    pub fn stopping(&self) -> &CancellationToken {
        &self.core.stopping
    }

    /// The way to the nodes' streaming servers.
    pub fn nodes(&self) -> &NodeProxy {
        &self.core.nodes
    }

    /// Service account tokens.
    pub fn tokens(&self) -> &Tokens {
        &self.core.tokens
    }

    fn services(&self) -> &ServiceAllocator {
        &self.core.services
    }

    /// The stored object, or 404.
    pub fn existing(&self, at: &Place<'_>) -> Result<Arc<Object>, ApiError> {
        let found = self.store().object(&at.resource.storage, at.namespace, at.name);
        found.ok_or_else(|| ApiError::not_found(at.resource, at.name))
    }
}

/// Where an object is, in the API's words.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// Its resource.
    pub resource: &'a Resource,
    /// Its namespace; empty for cluster-wide ones.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
}

impl Place<'_> {
    /// The same in the store's words.
    pub fn key(&self) -> Key {
        Key {
            resource: Arc::clone(&self.resource.storage),
            namespace: self.namespace.to_owned(),
            name: self.name.to_owned(),
        }
    }

    fn refused(&self, error: WriteError) -> ApiError {
        match error {
            WriteError::Exists => ApiError::already_exists(self.resource, self.name),
            WriteError::Missing => ApiError::not_found(self.resource, self.name),
            WriteError::Changed => ApiError::modified(self.resource, self.name),
            WriteError::TooLarge => ApiError::too_large(MAX_BYTES),
            WriteError::TooDeep => ApiError::bad_request(error.to_string()),
            WriteError::Storage(_) => ApiError::internal(error),
            WriteError::Closed => ApiError::unavailable("the server is stopping"),
        }
    }
}

/// What a write left behind.
#[derive(Debug)]
pub struct Saved {
    /// The object.
    pub object: SavedObject,
    /// Sentences for the `Warning` header.
    pub warnings: Vec<String>,
}

impl Saved {
    fn stored(object: Arc<Object>, warnings: Vec<String>) -> Self {
        Self { object: SavedObject::Stored(object), warnings }
    }

    fn draft(value: Value, warnings: Vec<String>) -> Self {
        Self { object: SavedObject::Draft(value), warnings }
    }
}

/// An object that was stored, or would have been.
#[derive(Debug)]
pub enum SavedObject {
    /// It is in the store; after a deletion: it was.
    Stored(Arc<Object>),
    /// A dry run's.
    Draft(Value),
}

impl SavedObject {
    /// The object as it is stored.
    pub fn value(&self) -> &Value {
        match self {
            Self::Stored(object) => &object.value,
            Self::Draft(value) => value,
        }
    }
}

/// A timestamp as Kubernetes writes it: RFC 3339 in seconds.
pub(crate) fn now() -> String {
    Utc::now().to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// A body in the spelling that is stored, with its type filled in.
fn stored_spelling(resource: &Resource, body: Value) -> Value {
    let mut object = from_view(resource, body);
    if let Some(fields) = object.as_object_mut() {
        let version = fields.get("apiVersion").and_then(Value::as_str).map(str::to_owned);
        let version = version.filter(|v| !v.is_empty()).unwrap_or_else(|| resource.api_version());
        fields.insert("apiVersion".to_owned(), Value::from(version));
        fields.insert("kind".to_owned(), Value::from(resource.kind.as_str()));
    }
    object
}

/// First usable address of the service network: that of the `kubernetes` Service.
pub(crate) fn first_service_address(network: Ipv4Net) -> std::net::Ipv4Addr {
    network.hosts().next().unwrap_or_else(|| network.network())
}
