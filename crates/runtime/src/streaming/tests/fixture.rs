//! A server with its certificates, and a node whose one container runs commands of this machine.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
};

use futures::{FutureExt, future::BoxFuture};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
    server::WebPkiClientVerifier,
};
use tokio::{
    io::AsyncWriteExt,
    net::TcpListener,
    process::Command,
    sync::{mpsc, oneshot, watch},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    access::{AccessError, ContainerAccess, ContainerRef, ExecRequest, ExecSession, LogFile},
    streaming::serve,
};

/// A running server. It ends with this value.
pub(super) struct Fixture {
    pub(super) address: SocketAddr,
    pub(super) node: Arc<Node>,
    authority: Authority,
    pub(super) stop: CancellationToken,
    _guard: DropGuard,
}

impl Fixture {
    pub(super) async fn start() -> Fixture {
        let authority = Authority::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tls = authority.server();
        let directory = tempfile::tempdir().unwrap();
        let (ended, _) = watch::channel(false);
        let node = Arc::new(Node { log: directory.path().join("0.log"), ended, _directory: directory });
        let (stop, access) = (CancellationToken::new(), node.clone());
        let stopped = stop.clone();
        tokio::spawn(async move { serve(listener, tls, access, stopped.cancelled_owned()).await.unwrap() });
        Fixture { address, node, authority, _guard: stop.clone().drop_guard(), stop }
    }

    /// The TLS settings of a client of this organisation.
    pub(super) fn client(&self, organisation: &str) -> ClientConfig {
        self.authority.client(organisation)
    }

    pub(super) fn log(&self) -> &Path {
        &self.node.log
    }
}

/// The node: pod `default/web` with the container `main`.
pub(super) struct Node {
    log: PathBuf,
    /// Whether the container has ended.
    pub(super) ended: watch::Sender<bool>,
    _directory: tempfile::TempDir,
}

impl Node {
    fn check(target: &ContainerRef) -> Result<(), AccessError> {
        let ContainerRef { namespace, pod, container } = target.clone();
        match container.as_deref() {
            _ if pod != "web" => Err(AccessError::NoPod { namespace, pod }),
            None | Some("main") => Ok(()),
            Some("sleeping") => Err(AccessError::NotRunning {
                namespace,
                pod,
                container: "sleeping".into(),
                state: "waiting to start: ContainerCreating".into(),
            }),
            Some(other) => {
                Err(AccessError::NoContainer { namespace, pod, container: other.to_owned(), known: "main".into() })
            }
        }
    }
}

impl ContainerAccess for Node {
    fn exec(&self, target: ContainerRef, request: ExecRequest) -> BoxFuture<'_, Result<ExecSession, AccessError>> {
        async move {
            Node::check(&target)?;
            if request.tty { Ok(terminal()) } else { process(&request) }
        }
        .boxed()
    }

    fn log(&self, target: ContainerRef, _previous: bool) -> BoxFuture<'_, Result<LogFile, AccessError>> {
        async move {
            Node::check(&target)?;
            Ok(LogFile { path: self.log.clone(), ended: self.ended.subscribe() })
        }
        .boxed()
    }
}

fn process(request: &ExecRequest) -> Result<ExecSession, AccessError> {
    let mut child = Command::new(&request.command[0])
        .args(&request.command[1..])
        .stdin(if request.stdin { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| AccessError::Start { command: request.command.clone(), reason: error.to_string() })?;
    let (exited, exit) = oneshot::channel();
    let session = ExecSession {
        stdin: child.stdin.take().map(|stdin| Box::new(stdin) as _),
        stdout: Box::new(child.stdout.take().unwrap()),
        stderr: child.stderr.take().map(|stderr| Box::new(stderr) as _),
        resize: None,
        exit,
    };
    tokio::spawn(async move {
        let mut exited = exited;
        tokio::select! {
            status = child.wait() => drop(exited.send(status.unwrap().code().unwrap_or(137))),
            () = exited.closed() => {}
        }
    });
    Ok(session)
}

/// A stand-in for a terminal: it prints each size that it gets and ends, with code 7, after the second.
fn terminal() -> ExecSession {
    let (mut terminal, stdout) = tokio::io::duplex(1024);
    let (resize, mut sizes) = mpsc::channel(1);
    let (exited, exit) = oneshot::channel();
    tokio::spawn(async move {
        for _ in 0..2 {
            let (columns, rows): (u16, u16) = sizes.recv().await.unwrap();
            terminal.write_all(format!("{columns}x{rows}\n").as_bytes()).await.unwrap();
        }
        exited.send(7).unwrap();
    });
    ExecSession { stdin: None, stdout: Box::new(stdout), stderr: None, resize: Some(resize), exit }
}

struct Authority {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Authority {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap().der().clone();
        Authority { certificate, issuer: Issuer::new(params, key) }
    }

    fn issue(&self, organisation: &str) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::OrganizationName, organisation);
        let certificate = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        (vec![certificate], PrivatePkcs8KeyDer::from(key.serialize_der()).into())
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        roots
    }

    fn server(&self) -> Arc<ServerConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(self.roots()), provider.clone()).build().unwrap();
        let (chain, key) = self.issue("podnet");
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        Arc::new(config.with_client_cert_verifier(verifier).with_single_cert(chain, key).unwrap())
    }

    fn client(&self, organisation: &str) -> ClientConfig {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let (chain, key) = self.issue(organisation);
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        config.with_root_certificates(self.roots()).with_client_auth_cert(chain, key).unwrap()
    }
}
