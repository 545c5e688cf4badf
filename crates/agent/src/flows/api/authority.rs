//! The authority whose certificates of clients the API server believes, as it publishes it for those who serve beside it (since Kubernetes 1.10).

use std::{fs, io, path::Path, path::PathBuf, time::Duration};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client};
use podnet_model::errors::chain;
use tokio::time::sleep;
use tracing::warn;

/// Namespace and name of what it publishes, and the key of the authority there (PEM).
const PUBLISHED: (&str, &str) = ("kube-system", "extension-apiserver-authentication");
const KEY: &str = "client-ca-file";
/// Between two looks: authorities are renewed in years, with both of them published for a time.
const LOOK: Duration = Duration::from_mins(5);
/// Before what failed is tried again.
const AGAIN: Duration = if cfg!(test) { Duration::from_millis(20) } else { Duration::from_secs(10) };

/// Why it is not there.
#[derive(Debug, thiserror::Error)]
enum AuthorityError {
    #[error(
        "cannot read ConfigMap extension-apiserver-authentication in kube-system, with the authority of clients; name one by --flow-client-ca"
    )]
    Unread(#[source] kube::Error),
    #[error("the API server publishes no authority of clients; name one by --flow-client-ca")]
    Missing,
    #[error("cannot keep the authority of clients in {}", path.display())]
    Unwritten {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// Until the file has it; what is in the way is told once. What an agent wrote before will do where the API server does not answer.
pub(super) async fn first(client: &Client, path: &Path, tell: impl Fn(io::Error)) {
    let mut told = false;
    while let Err(error) = copied(client, path).await {
        if path.exists() {
            return;
        }
        if !std::mem::replace(&mut told, true) {
            tell(io::Error::other(error));
        }
        sleep(AGAIN).await;
    }
}

/// Keeps the file up to date.
pub(super) async fn follow(client: Client, path: PathBuf) {
    loop {
        sleep(LOOK).await;
        if let Err(error) = copied(&client, &path).await {
            warn!(error = %chain(&error), "the authority of clients who read flows may be an old one");
        }
    }
}

async fn copied(client: &Client, path: &Path) -> Result<(), AuthorityError> {
    let published = Api::<ConfigMap>::namespaced(client.clone(), PUBLISHED.0);
    let published = published.get(PUBLISHED.1).await.map_err(AuthorityError::Unread)?;
    let pem = published.data.and_then(|mut data| data.remove(KEY)).ok_or(AuthorityError::Missing)?;
    written(path, &pem).map_err(|source| AuthorityError::Unwritten { path: path.to_path_buf(), source })
}

/// Whole, and only where it is another one: who reads it looks at whether it changed.
fn written(path: &Path, pem: &str) -> io::Result<()> {
    if fs::read_to_string(path).is_ok_and(|before| before == pem) {
        return Ok(());
    }
    let new = path.with_extension("new");
    fs::write(&new, pem)?;
    fs::rename(&new, path)
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

    use axum::http::{Request, Response};
    use kube::client::Body;
    use serde_json::json;

    use super::*;

    /// An API server that publishes these, one after the other, and then nothing more.
    fn api_server(published: &'static [Option<&'static str>]) -> Client {
        let asked = Arc::new(AtomicUsize::new(0));
        let service = tower::service_fn(move |request: Request<Body>| {
            assert_eq!(
                request.uri().path(),
                "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication"
            );
            let (code, body) = match published.get(asked.fetch_add(1, Ordering::SeqCst)) {
                Some(Some(authority)) => (200_u16, json!({"metadata": {}, "data": {"client-ca-file": authority}})),
                Some(None) => (200, json!({"metadata": {}, "data": {"requestheader-client-ca-file": "proxy"}})),
                None => (503, json!({"status": "Failure", "message": "no", "code": 503})),
            };
            let response = Response::builder().status(code).body(Body::from(body.to_string().into_bytes())).unwrap();
            async { Ok::<_, Infallible>(response) }
        });
        Client::new(service, "default")
    }

    #[tokio::test]
    async fn the_authority_of_clients_is_the_published_one_and_what_is_in_the_way_is_told_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("flow-client-ca.crt");
        let told = AtomicUsize::new(0);
        let tell = |error: io::Error| {
            assert!(chain(&error).contains("--flow-client-ca"), "{error:?}");
            told.fetch_add(1, Ordering::SeqCst);
        };
        first(&api_server(&[None, None, Some("one")]), &path, tell).await;
        assert_eq!((fs::read_to_string(&path).unwrap().as_str(), told.load(Ordering::SeqCst)), ("one", 1));
        copied(&api_server(&[Some("two")]), &path).await.unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "two");
        // Where the API server does not answer, the one of before stays.
        first(&api_server(&[]), &path, |error| panic!("{error:?}")).await;
        assert_eq!(fs::read_to_string(&path).unwrap(), "two");
    }
}
