//! A node that echoes: what goes through the tunnel comes back.

use std::sync::Arc;

use axum::body::Body;
use http::{Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use podnet_apiserver::Pki;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::cluster::Cluster;

/// Not 127.0.0.1, so that the fixed port of nodes is not taken from anybody.
const NODE: &str = "127.0.77.1";

const PODS: &str = "/api/v1/namespaces/default/pods";

async fn node_answer(mut request: Request<Incoming>) -> Result<Response<Body>, std::convert::Infallible> {
    let upgrade = request.headers().contains_key(header::UPGRADE);
    let target = request.uri().to_string();
    let mut response = Response::new(Body::from(format!("answer to {target}")));
    if upgrade && target.contains("refuse") {
        *response.status_mut() = StatusCode::FORBIDDEN;
    } else if upgrade {
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        response.headers_mut().insert(header::UPGRADE, "echo".parse().unwrap());
        response.headers_mut().insert(header::CONNECTION, "Upgrade".parse().unwrap());
        *response.body_mut() = Body::empty();
        let upgraded = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let (mut read, mut write) = tokio::io::split(TokioIo::new(upgraded.await.unwrap()));
            let _ = tokio::io::copy(&mut read, &mut write).await;
            let _ = write.shutdown().await;
        });
    }
    Ok(response)
}

async fn start_node(pki: &Pki) {
    let issued = pki.issue_server(&["node1".to_owned()], &[NODE.parse().unwrap()]).unwrap();
    let certificate = CertificateDer::from_pem_slice(issued.cert_pem.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_no_client_auth().with_single_cert(vec![certificate], key).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind((NODE, 10250)).await.unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let service = hyper::service::service_fn(node_answer);
                let connection =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                let _ = connection.with_upgrades().await;
            });
        }
    });
}

async fn cluster_with_node() -> Cluster {
    let cluster = Cluster::start().await;
    let status = json!({"addresses": [{"type": "InternalIP", "address": NODE}]});
    cluster.create("/api/v1/nodes", json!({"metadata": {"name": "node1"}, "status": status})).await;
    let pod =
        json!({"metadata": {"name": "p"}, "spec": {"nodeName": "node1", "containers": [{"name": "c", "image": "i"}]}});
    cluster.create(PODS, pod).await;
    cluster
}

/// Asks for an upgrade over TLS as the admin and answers the response's status with the connection behind it.
async fn upgrade(cluster: &Cluster, path: &str) -> Response<Incoming> {
    let issued = cluster.pki.issue_client("admin", &["system:masters"]).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(cluster.pki.ca_pem().as_bytes()).unwrap()).unwrap();
    let certificate = CertificateDer::from_pem_slice(issued.cert_pem.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(roots).with_client_auth_cert(vec![certificate], key).unwrap();
    let stream = TcpStream::connect(cluster.address).await.unwrap();
    let name = ServerName::try_from("kubernetes").unwrap();
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection.with_upgrades());
    let request = Request::get(path)
        .header(header::HOST, "kubernetes")
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "echo")
        .body(Body::empty())
        .unwrap();
    sender.send_request(request).await.unwrap()
}

#[tokio::test]
async fn exec_attach_and_logs_go_to_the_pods_node() {
    let cluster = cluster_with_node().await;
    let (status, refusal) = cluster.get(&format!("{PODS}/p/log")).await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(refusal["message"].as_str().unwrap().contains("error dialing backend: node node1 at 127.0.77.1:10250"));

    start_node(&cluster.pki).await;
    let (_, log) = cluster.get(&format!("{PODS}/p/log?tailLines=5")).await;
    assert_eq!(log, "answer to /containerLogs/default/p/c?tailLines=5");

    let mut response = upgrade(&cluster, &format!("{PODS}/p/exec?command=ls")).await;
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    let mut echo = TokioIo::new(hyper::upgrade::on(&mut response).await.unwrap());
    echo.write_all(b"there and back").await.unwrap();
    let mut back = [0; 14];
    echo.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"there and back");

    let refused = upgrade(&cluster, &format!("{PODS}/p/exec?command=refuse")).await;
    assert_eq!(refused.status(), StatusCode::FORBIDDEN);
    let body = axum::body::to_bytes(Body::new(refused.into_body()), 1000).await.unwrap();
    assert_eq!(&body[..], b"answer to /exec/default/p/c?command=refuse");
}
