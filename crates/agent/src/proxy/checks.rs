//! Ports at which load balancers ask whether a Service has endpoints on this node (`spec.healthCheckNodePort`), answered as kube-proxy
//! answers them.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    Router,
    http::{HeaderName, HeaderValue, StatusCode},
    response::{IntoResponse, Response},
    routing::any,
};
use k8s_openapi::api::core::v1::Service;
use podnet_client::events::Complaints;
use podnet_model::ServiceKey;
use tokio::{sync::watch, task::AbortHandle, time::sleep};
use tracing::warn;

use super::{
    guests::Guests,
    ports,
    programming::{Moment, Programming},
    status::headers,
};

/// Between attempts at a port that somebody else has.
const PAUSE: Duration = Duration::from_secs(2);
/// How many endpoints of its own a node has: load balancers may send accordingly.
const WEIGHT: HeaderName = HeaderName::from_static("x-load-balancing-endpoint-weight");

/// What is asked for at a port of one of the node's addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// The Service.
    pub service: ServiceKey,
    /// How many of its endpoints are ready and here.
    pub local: usize,
}

/// By address and port.
pub type Checks = BTreeMap<SocketAddr, Check>;

/// Serves the ports as they come and go, for good.
pub async fn serve(
    mut wanted: watch::Receiver<Checks>,
    programming: Arc<Programming>,
    complaints: Option<Complaints>,
    guests: Guests,
) {
    let mut served = Served { ports: HashMap::new() };
    let known = Arc::new(Mutex::new(Checks::new()));
    loop {
        let checks = wanted.borrow_and_update().clone();
        served.ports.retain(|address, task| {
            let stays = checks.contains_key(address);
            if !stays {
                task.abort();
            }
            stays
        });
        let addresses: Vec<SocketAddr> = checks.keys().copied().collect();
        *known.lock().unwrap_or_else(PoisonError::into_inner) = checks;
        for address in addresses {
            served.ports.entry(address).or_insert_with(|| {
                let (known, programming) = (known.clone(), programming.clone());
                let port = Port { address, known, programming, guests: guests.clone() };
                tokio::spawn(port.serve(complaints.clone())).abort_handle()
            });
        }
        if wanted.changed().await.is_err() {
            return;
        }
    }
}

/// Ports are given up with it.
struct Served {
    ports: HashMap<SocketAddr, AbortHandle>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.ports.values().for_each(AbortHandle::abort);
    }
}

#[derive(Clone)]
struct Port {
    address: SocketAddr,
    known: Arc<Mutex<Checks>>,
    programming: Arc<Programming>,
    guests: Guests,
}

impl Port {
    async fn serve(self, complaints: Option<Complaints>) {
        let mut told = None;
        loop {
            let this = self.clone();
            let router = Router::new().fallback(any(move || async move { this.answer() }));
            if let Err(error) = ports::serve(self.address, router, self.guests.clone()).await
                && let Some(check) = self.check()
                && told.as_ref() != Some(&check.service)
            {
                let (address, service) = (self.address, &check.service);
                warn!(%service, %address, %error, "health check port cannot be had; it is tried again");
                if let Some(complaints) = &complaints {
                    let message = format!(
                        "spec.healthCheckNodePort: the node cannot listen on {address} ({error}), so load balancers take it for having no \
                         endpoints; it is tried again. Free the port, or let the Service have another one"
                    );
                    complaints.tell_of::<Service>(&service.namespace, &service.name, "HealthCheckPort", message);
                }
                told = Some(check.service);
            }
            sleep(PAUSE).await;
        }
    }

    fn check(&self) -> Option<Check> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&self.address).cloned()
    }

    fn answer(&self) -> Response {
        let Some(Check { service, local }) = self.check() else { return StatusCode::NOT_FOUND.into_response() };
        let healthy = self.programming.health(Moment::now()).healthy;
        let code = if healthy && local > 0 { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        let body = serde_json::json!({
            "service": {"namespace": service.namespace.as_str(), "name": &*service.name},
            "localEndpoints": local,
            "serviceProxyHealthy": healthy,
        });
        let weight = [(WEIGHT, HeaderValue::from(local))];
        (code, weight, headers(), body.to_string()).into_response()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::{TcpListener, TcpStream},
        time::Instant,
    };

    use super::*;

    /// The answer, until there is one of that beginning.
    async fn await_answer(address: SocketAddr, begins: &str) -> String {
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            let answer = tokio::task::spawn_blocking(move || {
                let mut text = String::new();
                let mut stream = TcpStream::connect(address)?;
                stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")?;
                stream.read_to_string(&mut text).map(|_| text)
            });
            let answer = answer.await.unwrap();
            match answer {
                Ok(text) if text.starts_with(begins) => return text,
                other if Instant::now() > until => panic!("{address}: {other:?}"),
                _ => sleep(Duration::from_millis(10)).await,
            }
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_port_tells_how_many_endpoints_are_here_as_they_come_and_go() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let (wanted, seen) = watch::channel(Checks::new());
        let server = tokio::spawn(serve(seen, Arc::new(Programming::new(Moment::now())), None, Guests::default()));
        let set = |local| {
            let check = Check { service: ServiceKey::new("shop", "web"), local };
            wanted.send_replace([(address, check)].into());
        };
        set(2);
        // Somebody may have the port still when it is tried first.
        drop(taken);
        let text = await_answer(address, "HTTP/1.1 200").await;
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains("\r\nx-load-balancing-endpoint-weight: 2\r\n"), "{head}");
        assert!(head.contains("\r\ncontent-type: application/json\r\n"), "{head}");
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        let service = serde_json::json!({"namespace": "shop", "name": "web"});
        assert_eq!(body, serde_json::json!({"service": service, "localEndpoints": 2, "serviceProxyHealthy": true}));
        set(0);
        let text = await_answer(address, "HTTP/1.1 503").await;
        assert!(text.contains("\r\nx-load-balancing-endpoint-weight: 0\r\n"), "{text}");
        wanted.send_replace(Checks::new());
        let until = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(address).is_ok() {
            assert!(Instant::now() < until, "the port is given up");
            sleep(Duration::from_millis(10)).await;
        }
        server.abort();
    }
}
