//! Clients for the API server.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client, Config,
    client::ClientBuilder,
    config::{AuthInfo, Cluster, Context, KubeConfigOptions, Kubeconfig, NamedAuthInfo, NamedCluster, NamedContext},
};
use x509_parser::pem::Pem;

use crate::requests::{Gate, Limits, Listener};

/// The token of a pod's service account.
pub const TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// Namespace and name of the ConfigMap with the certificate that all agents of a cluster show where `podnet manifests` made it one, under the key
/// [`AGENTS_CERTIFICATE`]. That name is also the one that the certificate is of.
pub const AGENTS: (&str, &str) = ("podnet-system", "podnet-agents");
/// Its key there.
pub const AGENTS_CERTIFICATE: &str = "tls.crt";
/// An API server that takes connections and says nothing for so long does not answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The kubeconfig cannot be read or used.
    #[error("cannot use the kubeconfig {path}")]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: kube::config::KubeconfigError,
    },
    /// The API server cannot be reached with what is said of it.
    #[error("cannot use the API server {url} with these certificates")]
    Endpoint {
        /// Its URL.
        url: String,
        /// What is wrong.
        #[source]
        source: kube::config::KubeconfigError,
    },
    /// This is not a pod, or it has no service account.
    #[error("no service account is mounted here (expected below /var/run/secrets/kubernetes.io/serviceaccount)")]
    InCluster(#[source] kube::config::InClusterError),
    /// The certificates cannot be used.
    #[error("cannot set up TLS towards the API server")]
    Tls(#[source] kube::Error),
    /// The API server does not say which certificate agents show.
    #[error("cannot read the certificate of agents (ConfigMap podnet-agents in podnet-system)")]
    Agents(#[source] kube::Error),
    /// What it says is no certificate.
    #[error(
        "the ConfigMap podnet-agents in podnet-system has no certificate (PEM) under the key tls.crt; apply what `podnet manifests` prints"
    )]
    Certificate,
}

/// Where the API server is, and who asks it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// As the pod's service account says.
    #[default]
    InCluster,
    /// As a kubeconfig says, by a context of it; by the current one where none is named.
    Kubeconfig(PathBuf, Option<String>),
    /// At a URL.
    Endpoint {
        /// The URL.
        url: String,
        /// The own certificate, and its key.
        identity: Option<(PathBuf, PathBuf)>,
        /// The authority that vouches for the server; none: the system's.
        authority: Option<PathBuf>,
    },
}

impl Access {
    /// A client that keeps to `limits` and tells `listener` of each request. The server is not contacted.
    ///
    /// # Errors
    ///
    /// When the files that are named cannot be read or used, or there is no service account here.
    pub async fn client(&self, limits: Limits, listener: Listener) -> Result<Client, ConnectError> {
        let config = self.config().await?;
        let host = config.cluster_url.authority().map(ToString::to_string).unwrap_or_default();
        let gate = Gate::new(host, limits, Some(listener));
        let builder = ClientBuilder::try_from(patient(config)).map_err(ConnectError::Tls)?;
        Ok(builder.with_layer(&gate).build())
    }

    async fn config(&self) -> Result<Config, ConnectError> {
        match self {
            Self::InCluster => Config::incluster().map_err(ConnectError::InCluster),
            Self::Kubeconfig(path, context) => {
                let unusable = |source| ConnectError::Kubeconfig { path: path.clone(), source };
                let kubeconfig = Kubeconfig::read_from(path).map_err(unusable)?;
                let options = KubeConfigOptions { context: context.clone(), ..KubeConfigOptions::default() };
                Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(unusable)
            }
            Self::Endpoint { url, identity, authority } => {
                let kubeconfig = endpoint(url, identity.as_ref(), authority.as_ref());
                let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
                config.map_err(|source| ConnectError::Endpoint { url: url.clone(), source })
            }
        }
    }
}

/// The kubeconfig that says as much.
fn endpoint(url: &str, identity: Option<&(PathBuf, PathBuf)>, authority: Option<&PathBuf>) -> Kubeconfig {
    let text = |path: &PathBuf| path.display().to_string();
    let name = || "endpoint".to_owned();
    let cluster =
        Cluster { server: Some(url.to_owned()), certificate_authority: authority.map(text), ..Cluster::default() };
    let user = AuthInfo {
        client_certificate: identity.map(|(certificate, _)| text(certificate)),
        client_key: identity.map(|(_, key)| text(key)),
        ..AuthInfo::default()
    };
    let context = Context { cluster: name(), user: Some(name()), ..Context::default() };
    Kubeconfig {
        clusters: vec![NamedCluster { name: name(), cluster: Some(cluster), ..NamedCluster::default() }],
        auth_infos: vec![NamedAuthInfo { name: name(), auth_info: Some(user), ..NamedAuthInfo::default() }],
        contexts: vec![NamedContext { name: name(), context: Some(context), ..NamedContext::default() }],
        current_context: Some(name()),
        ..Kubeconfig::default()
    }
}

/// A client with the identity that the kubeconfig's current context names.
///
/// # Errors
///
/// When the file cannot be read or its certificates cannot be used; the server is not contacted.
pub async fn from_kubeconfig(path: &Path) -> Result<Client, ConnectError> {
    let unusable = |source| ConnectError::Kubeconfig { path: path.to_path_buf(), source };
    let kubeconfig = Kubeconfig::read_from(path).map_err(unusable)?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.map_err(unusable)?;
    client(config)
}

/// A client with the identity of the pod's service account.
///
/// # Errors
///
/// When there is no service account here.
pub fn in_cluster() -> Result<Client, ConnectError> {
    client(Config::incluster().map_err(ConnectError::InCluster)?)
}

/// How agents are asked with one identity. The API server tells once, for all of them, what they show.
pub struct Agents {
    config: Config,
    shown: Option<Vec<Vec<u8>>>,
    is_told: bool,
}

impl Agents {
    /// By the identity of a kubeconfig, or of the pod's service account. Where the cluster has a certificate of its agents ([`AGENTS`]), agents
    /// have to show that one.
    ///
    /// # Errors
    ///
    /// As [`from_kubeconfig`] and [`in_cluster`]; and where the API server refuses to tell whether there is such a certificate.
    pub async fn known_to(kubeconfig: Option<&Path>) -> Result<Self, ConnectError> {
        let access = kubeconfig.map_or(Access::InCluster, |path| Access::Kubeconfig(path.to_path_buf(), None));
        let config = access.config().await?;
        let mut asked = config.clone();
        asked.read_timeout = Some(PATIENCE);
        let told = shown_by_agents(Client::try_from(asked).map_err(ConnectError::Tls)?).await?;
        Ok(Self { config, is_told: told.is_some(), shown: told.flatten() })
    }

    /// Whether the API server answered: else the cluster may have a certificate of its agents that is not known here.
    #[must_use]
    pub const fn is_told(&self) -> bool {
        self.is_told
    }

    /// A client for the agent at an address, which is not contacted yet. Where the cluster has no certificate of its agents, it has to show one that
    /// the API server's authority vouches for, of `name`, or, without one, of the address.
    ///
    /// # Errors
    ///
    /// Where the certificates cannot be used.
    pub fn at(&self, address: SocketAddr, name: Option<String>) -> Result<Client, ConnectError> {
        let mut config = self.config.clone();
        // An address is always an authority.
        if let Ok(url) = format!("https://{address}").parse() {
            config.cluster_url = url;
        }
        config.tls_server_name = name;
        if let Some(certificates) = &self.shown {
            config.root_cert = Some(certificates.clone());
            config.tls_server_name = Some(AGENTS.1.to_owned());
        }
        client(config)
    }
}

/// What all agents show (DER); none where the cluster has no such certificate, or who asks may not read it. Nothing is told where nobody answers.
async fn shown_by_agents(api_server: Client) -> Result<Option<Option<Vec<Vec<u8>>>>, ConnectError> {
    let found = match Api::<ConfigMap>::namespaced(api_server, AGENTS.0).get_opt(AGENTS.1).await {
        Err(kube::Error::Api(status)) if status.code == 403 => None,
        // While the API server is away, agents that the cluster's authority certifies can be asked all the same.
        Err(kube::Error::Service(_) | kube::Error::HyperError(_)) => return Ok(None),
        found => found.map_err(ConnectError::Agents)?,
    };
    let Some(found) = found else { return Ok(Some(None)) };
    let pem = found.data.and_then(|mut data| data.remove(AGENTS_CERTIFICATE)).ok_or(ConnectError::Certificate)?;
    let blocks: Result<Vec<_>, _> = Pem::iter_from_buffer(pem.as_bytes()).collect();
    let certificates: Vec<_> =
        blocks.map_err(|_| ConnectError::Certificate)?.into_iter().map(|pem| pem.contents).collect();
    if certificates.is_empty() { Err(ConnectError::Certificate) } else { Ok(Some(Some(certificates))) }
}

/// The name of the node that this pod is on, as the token of its service account says (Kubernetes 1.30 and later, and podnet's own API server);
/// none where this is no pod, or the token does not say it.
#[must_use]
pub fn own_node() -> Option<String> {
    node_of_token(&std::fs::read_to_string(TOKEN).ok()?)
}

/// What a JWT (RFC 7519) tells its own bearer needs no check: whoever it leads to has to show a certificate.
fn node_of_token(token: &str) -> Option<String> {
    let claims = URL_SAFE_NO_PAD.decode(token.trim().split('.').nth(1)?).ok()?;
    let claims: serde_json::Value = serde_json::from_slice(&claims).ok()?;
    claims["kubernetes.io"]["node"]["name"].as_str().map(str::to_owned)
}

fn client(config: Config) -> Result<Client, ConnectError> {
    Client::try_from(patient(config)).map_err(ConnectError::Tls)
}

/// A watch is silent for as long as nothing changes; the server's bookmarks and its own time limit end a dead one.
fn patient(mut config: Config) -> Config {
    config.read_timeout = None;
    config
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
    };

    use http::{Request, Response};
    use kube::client::Body;
    use serde_json::{Value, json};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    /// What an API server that answers so says of the agents' certificate.
    async fn shown(code: u16, body: Value) -> Result<Option<Vec<Vec<u8>>>, ConnectError> {
        let service = tower::service_fn(move |request: Request<Body>| {
            assert_eq!(request.uri().path(), "/api/v1/namespaces/podnet-system/configmaps/podnet-agents");
            let answer = Response::builder().status(code).body(Body::from(body.to_string().into_bytes())).unwrap();
            async { Ok::<_, Infallible>(answer) }
        });
        shown_by_agents(Client::new(service, "default")).await.map(Option::flatten)
    }

    #[tokio::test]
    async fn of_an_api_server_that_is_away_it_is_not_taken_for_told_that_agents_show_nothing() {
        let away = || Err::<Response<Body>, _>(std::io::Error::other("away"));
        let away = tower::service_fn(move |_: Request<Body>| async move { away() });
        assert_eq!(shown_by_agents(Client::new(away, "default")).await.unwrap(), None);
    }

    #[tokio::test]
    async fn agents_show_the_certificate_that_the_cluster_has_of_them_and_where_it_is_damaged_nobody_is_trusted() {
        let failure =
            |reason: &str, code: u16| json!({"status": "Failure", "message": "no", "reason": reason, "code": code});
        assert_eq!(shown(404, failure("NotFound", 404)).await.unwrap(), None);
        assert_eq!(shown(403, failure("Forbidden", 403)).await.unwrap(), None);
        let failed = shown(500, failure("InternalError", 500)).await;
        assert!(matches!(failed, Err(ConnectError::Agents(_))), "{failed:?}");
        let of = |data: Value| json!({"metadata": {}, "data": data});
        let block = |text: &str| format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n");
        let two = shown(200, of(json!({"tls.crt": block("AQID") + &block("BAUG")}))).await.unwrap();
        assert_eq!(two, Some(vec![vec![1, 2, 3], vec![4, 5, 6]]), "while one takes the place of another");
        for damaged in
            [json!({}), json!({"tls.crt": ""}), json!({"tls.crt": block("?")}), json!({"ca.crt": block("AQID")})]
        {
            let found = shown(200, of(damaged.clone())).await;
            assert!(matches!(found, Err(ConnectError::Certificate)), "{damaged}: {found:?}");
        }
    }

    /// An API server that has nothing, and how often it was asked for something.
    async fn empty_api_server() -> (SocketAddr, Arc<AtomicUsize>) {
        const NOTHING: &str = r#"{"status": "Failure", "message": "no", "reason": "NotFound", "code": 404}"#;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, asked) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
        let count = asked.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.unwrap());
                }
                count.fetch_add(1, Ordering::SeqCst);
                let head = "HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\nConnection: close";
                let answer = format!("{head}\r\nContent-Length: {}\r\n\r\n{NOTHING}", NOTHING.len());
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        (address, asked)
    }

    #[tokio::test]
    async fn what_agents_show_is_asked_for_once_however_many_there_are() {
        let (address, asked) = empty_api_server().await;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("kubeconfig");
        let text = format!(
            "{{clusters: [{{name: a, cluster: {{server: 'http://{address}'}}}}], users: [{{name: b, user: {{}}}}], \
             contexts: [{{name: c, context: {{cluster: a, user: b}}}}], current-context: c}}"
        );
        std::fs::write(&path, text).unwrap();
        let agents = Agents::known_to(Some(&path)).await.unwrap();
        for port in 1..=3 {
            agents.at((address.ip(), port).into(), None).unwrap();
        }
        assert_eq!(asked.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_token_tells_its_pods_node_if_it_names_one() {
        let token = |claims: &str| format!("e30.{}.c2ln\n", URL_SAFE_NO_PAD.encode(claims));
        let node = |claims: &str| node_of_token(&token(claims));
        assert_eq!(
            node(r#"{"kubernetes.io":{"namespace":"a","node":{"name":"node1","uid":"u"}}}"#).as_deref(),
            Some("node1")
        );
        assert_eq!(node(r#"{"kubernetes.io":{"namespace":"a"}}"#), None);
        assert_eq!((node("[]"), node_of_token("no token"), node_of_token("")), (None, None, None));
    }
}
