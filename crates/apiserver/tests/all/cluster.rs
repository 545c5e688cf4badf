//! An API for a test: with its own directory, called without sockets or over TLS.

use std::net::SocketAddr;
use std::path::Path;

use axum::body::Body;
use http::{Method, Request, StatusCode, header};
use podnet_apiserver::auth::Identity;
use podnet_apiserver::server::Server;
use podnet_apiserver::{Api, Config, Pki, kubeconfig};
use serde_json::Value;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tower::ServiceExt;

/// A running API server; stopped by [`Cluster::stop`] or when the test's runtime ends.
pub(crate) struct Cluster {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) address: SocketAddr,
    pub(crate) api: Api,
    pub(crate) pki: Pki,
    stop: oneshot::Sender<()>,
    running: JoinHandle<()>,
}

pub(crate) fn config(directory: &Path) -> Config {
    Config {
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        ..Config::in_directory(directory, "172.29.0.254:6443".parse().unwrap(), "10.233.0.0/18".parse().unwrap())
    }
}

impl Cluster {
    pub(crate) async fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap()).await
    }

    pub(crate) async fn start_in(directory: tempfile::TempDir) -> Self {
        let server = Server::start(&config(directory.path())).await.unwrap();
        let (address, api) = (server.addresses()[0], server.api().clone());
        let pki = Pki::load_or_create(&directory.path().join("pki")).unwrap();
        let (stop, stopped) = oneshot::channel();
        let running = tokio::spawn(server.run(async {
            let _ = stopped.await;
        }));
        Self { directory, address, api, pki, stop, running }
    }

    /// Stops the server; its files stay.
    pub(crate) async fn stop(self) -> tempfile::TempDir {
        let Self { directory, api, stop, running, .. } = self;
        stop.send(()).unwrap();
        running.await.unwrap();
        drop(api);
        directory
    }

    /// A kubeconfig for a user.
    pub(crate) fn kubeconfig(&self, user: &str, groups: &[&str]) -> String {
        let issued = self.pki.issue_client(user, groups).unwrap();
        let url = format!("https://{}", self.address);
        kubeconfig(&url, self.pki.ca_pem(), &issued.cert_pem, &issued.key_pem)
    }

    /// A kube-rs client of a user, over TLS.
    pub(crate) async fn client(&self, user: &str, groups: &[&str]) -> kube::Client {
        let text = self.kubeconfig(user, groups);
        let kubeconfig = kube::config::Kubeconfig::from_yaml(&text).unwrap();
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await.unwrap();
        kube::Client::try_from(config).unwrap()
    }

    pub(crate) async fn admin(&self) -> kube::Client {
        self.client("admin", &["system:masters"]).await
    }

    /// A request of the admin without a socket; the body's type is JSON, or a patch's for PATCH.
    pub(crate) async fn call(&self, method: Method, path: &str, body: Option<Value>) -> (StatusCode, Value) {
        let content_type = if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::CONTENT_TYPE, content_type)
            .extension(Identity::in_process())
            .body(body.map_or_else(Body::empty, |body| Body::from(body.to_string())))
            .unwrap();
        self.send(request).await
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> (StatusCode, Value) {
        let response = self.api.router().oneshot(request).await.unwrap();
        let status = response.status();
        let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
        let value = serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| Value::from(String::from_utf8_lossy(&bytes).into_owned()));
        (status, value)
    }

    pub(crate) async fn get(&self, path: &str) -> (StatusCode, Value) {
        self.call(Method::GET, path, None).await
    }

    /// Creates an object that has to be accepted.
    pub(crate) async fn create(&self, path: &str, object: Value) -> Value {
        let (status, created) = self.call(Method::POST, path, Some(object)).await;
        assert_eq!(status, StatusCode::CREATED, "{created}");
        created
    }
}
