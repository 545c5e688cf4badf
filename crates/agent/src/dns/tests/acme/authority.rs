//! An authority: as much of RFC 8555 as a client sees of it that makes no mistakes. Where an order is to be proved it asks, by dig.

use std::{
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use data_encoding::BASE64URL_NOPAD;
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Request, Response,
    body::{Bytes, Incoming},
    header::LOCATION,
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto::Builder,
};
use podnet_dns::{
    Scheme,
    chain::{ClientAuth, TlsFiles, TlsOptions},
};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, CertifiedIssuer, DnType, IsCa, KeyPair,
};
use ring::digest::{SHA256, digest};
use rustls::pki_types::CertificateSigningRequestDer;
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_rustls::TlsAcceptor;

use super::{Directory, dig};
use crate::dns::identity::Identity;

/// What it is called.
pub(super) const HOST: &str = "ca.example.org";

/// The authority, as long as it is there.
pub(super) struct Authority {
    pub(super) port: u16,
    desk: Arc<Desk>,
    task: JoinHandle<()>,
}

struct Desk {
    base: String,
    /// Where it asks for proofs.
    dns: u16,
    open: AtomicBool,
    issuer: CertifiedIssuer<'static, KeyPair>,
    book: Mutex<Book>,
}

/// What it wrote down; there is one order at a time.
#[derive(Default)]
struct Book {
    asked: usize,
    refused: usize,
    /// The first contact of each account.
    accounts: Vec<String>,
    /// Of the last account's key (RFC 7638).
    thumbprint: String,
    /// What the order is for, and whether it is proved; none: it was not looked at.
    names: Vec<(String, Option<bool>)>,
    certificate: Option<String>,
}

impl Authority {
    /// An authority that is closed. Its own certificate is in `ca.pem`.
    pub(super) async fn start(directory: &Directory, dns: u16) -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        directory.write("ca.pem", &issuer.pem());
        let key = KeyPair::generate().unwrap();
        let own = CertificateParams::new(vec![HOST.to_owned()]).unwrap().signed_by(&key, &*issuer).unwrap();
        let path = |name: &str, text: &str| Some(directory.write(name, text).display().to_string());
        let files = TlsFiles {
            certificate: path("authority.pem", &own.pem()),
            key: path("authority.key", &key.serialize_pem()),
            authorities: None,
        };
        let options = TlsOptions { files, acme: None, client_auth: ClientAuth::NoCertificate, keylog: None };
        let identity = Identity::read(&options, Scheme::Https).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let base = format!("https://{HOST}:{port}");
        let desk = Arc::new(Desk { base, dns, open: AtomicBool::new(false), issuer, book: Mutex::default() });
        let task = tokio::spawn(serve(listener, identity, Arc::clone(&desk)));
        Self { port, desk, task }
    }

    pub(super) fn url(&self) -> String {
        format!("{}/dir", self.desk.base)
    }

    pub(super) fn open(&self) {
        self.desk.open.store(true, Ordering::Relaxed);
    }

    pub(super) fn close(&self) {
        self.desk.open.store(false, Ordering::Relaxed);
    }

    /// How many requests there were.
    pub(super) fn asked(&self) -> usize {
        self.desk.book.lock().unwrap().asked
    }

    /// How many proofs were none.
    pub(super) fn refused(&self) -> usize {
        self.desk.book.lock().unwrap().refused
    }

    /// The contacts of all accounts.
    pub(super) fn accounts(&self) -> Vec<String> {
        self.desk.book.lock().unwrap().accounts.clone()
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, identity: Arc<Identity>, desk: Arc<Desk>) {
    while let Ok((stream, _)) = listener.accept().await {
        let acceptor = TlsAcceptor::from(identity.config().await);
        let desk = Arc::clone(&desk);
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let service = service_fn(move |request: Request<Incoming>| {
                let desk = Arc::clone(&desk);
                async move { Ok::<_, Infallible>(desk.answer(request).await) }
            });
            let _ = Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// A part of what was sent, signed: without a payload it is null.
fn part(jws: &Value, name: &str) -> Value {
    let text = BASE64URL_NOPAD.decode(jws[name].as_str().unwrap().as_bytes()).unwrap();
    if text.is_empty() { Value::Null } else { serde_json::from_slice(&text).unwrap() }
}

fn hashed(text: &str) -> String {
    BASE64URL_NOPAD.encode(digest(&SHA256, text.as_bytes()).as_ref())
}

fn respond(status: u16, place: &str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let response = Response::builder().status(status).header("Replay-Nonce", "once").header(LOCATION, place);
    response.body(Full::new(body.into())).unwrap()
}

impl Desk {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        self.book.lock().unwrap().asked += 1;
        let path = request.uri().path().to_owned();
        let body = request.into_body().collect().await.unwrap().to_bytes();
        if !self.open.load(Ordering::Relaxed) {
            return respond(503, "", "closed");
        }
        let base = &self.base;
        let jws: Value = serde_json::from_slice(&body).unwrap_or_default();
        let (kind, number) = path[1..].split_once('/').unwrap_or((&path[1..], ""));
        let number: usize = number.parse().unwrap_or(0);
        let told = match kind {
            "dir" => json!({
                "newNonce": format!("{base}/nonce"),
                "newAccount": format!("{base}/account"),
                "newOrder": format!("{base}/new"),
            }),
            "nonce" => Value::Null,
            "account" => {
                let (head, payload) = (part(&jws, "protected"), part(&jws, "payload"));
                let field = |name: &str| head["jwk"][name].as_str().unwrap().to_owned();
                let [crv, kty, x, y] = ["crv", "kty", "x", "y"].map(field);
                let mut book = self.book.lock().unwrap();
                book.thumbprint = hashed(&format!(r#"{{"crv":"{crv}","kty":"{kty}","x":"{x}","y":"{y}"}}"#));
                book.accounts.push(payload["contact"][0].as_str().unwrap().to_owned());
                return respond(201, &format!("{base}/account/1"), json!({"status": "valid"}).to_string());
            }
            "new" => {
                let payload = part(&jws, "payload");
                let names = payload["identifiers"].as_array().unwrap().iter();
                let names = names.map(|name| (name["value"].as_str().unwrap().to_owned(), None)).collect();
                let mut book = self.book.lock().unwrap();
                (book.names, book.certificate) = (names, None);
                return respond(201, &format!("{base}/order/1"), book.order(base).to_string());
            }
            "order" => self.book.lock().unwrap().order(base),
            "authz" => self.book.lock().unwrap().authorization(base, number),
            "challenge" => {
                self.look(number).await;
                self.book.lock().unwrap().challenge(base, number)
            }
            "finalize" => {
                let request = part(&jws, "payload")["csr"].as_str().unwrap().to_owned();
                let request = CertificateSigningRequestDer::from(BASE64URL_NOPAD.decode(request.as_bytes()).unwrap());
                let mut request = CertificateSigningRequestParams::from_der(&request).unwrap();
                // kdig takes no certificate whose subject is empty.
                request.params.distinguished_name.push(DnType::CommonName, HOST);
                let mut book = self.book.lock().unwrap();
                book.certificate = Some(request.signed_by(&*self.issuer).unwrap().pem());
                book.order(base)
            }
            "certificate" => return respond(200, "", self.book.lock().unwrap().certificate.clone().unwrap()),
            other => panic!("nobody asks for {other:?}"),
        };
        respond(200, "", told.to_string())
    }

    /// Asks for the proof of a name.
    async fn look(&self, number: usize) {
        let (name, wanted) = {
            let book = self.book.lock().unwrap();
            let name = book.names[number].0.trim_start_matches("*.").to_owned();
            (name, format!("\"{}\"", hashed(&format!("token{number}.{}", book.thumbprint))))
        };
        let proved = dig(self.dns, &format!("_acme-challenge.{name} TXT +short")).await.contains(&wanted);
        let mut book = self.book.lock().unwrap();
        book.names[number].1 = Some(proved);
        book.refused += usize::from(!proved);
    }
}

impl Book {
    fn order(&self, base: &str) -> Value {
        let proved: Vec<Option<bool>> = self.names.iter().map(|(_, proved)| *proved).collect();
        let status = match &self.certificate {
            Some(_) => "valid",
            None if proved.contains(&Some(false)) => "invalid",
            None if !proved.contains(&None) => "ready",
            None => "pending",
        };
        let authorizations = 0..self.names.len();
        let authorizations: Vec<String> = authorizations.map(|number| format!("{base}/authz/{number}")).collect();
        json!({
            "status": status,
            "authorizations": authorizations,
            "finalize": format!("{base}/finalize"),
            "certificate": format!("{base}/certificate"),
        })
    }

    fn authorization(&self, base: &str, number: usize) -> Value {
        let (name, proved) = &self.names[number];
        let mut challenge = self.challenge(base, number);
        if *proved == Some(false) {
            challenge["error"] = json!({"type": "urn:ietf:params:acme:error:dns", "detail": "there is no such text"});
        }
        json!({
            "identifier": {"type": "dns", "value": name.trim_start_matches("*.")},
            "wildcard": name.starts_with("*."),
            "status": self.status(number),
            "challenges": [challenge],
        })
    }

    fn challenge(&self, base: &str, number: usize) -> Value {
        json!({
            "type": "dns-01",
            "url": format!("{base}/challenge/{number}"),
            "token": format!("token{number}"),
            "status": self.status(number),
        })
    }

    fn status(&self, number: usize) -> &'static str {
        match self.names[number].1 {
            None => "pending",
            Some(true) => "valid",
            Some(false) => "invalid",
        }
    }
}
