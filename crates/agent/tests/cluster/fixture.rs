//! An embedded API without controllers, and agents that give addresses.

use std::{
    convert::Infallible,
    fmt::Debug,
    future::Future,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{body::Body, response::Response};
use http::Request;
use k8s_openapi::api::{
    coordination::v1::{Lease, LeaseSpec},
    core::v1::Service,
};
use kube::{Api, Client, Resource, api::PostParams, core::NamespaceResourceScope};
use podnet_agent::balancers::{Standing, stand_with};
use podnet_apiserver::{
    Config, Pki,
    auth::Identity,
    http::{query::Query, target::Target},
};
use podnet_client::apply;
use podnet_model::{balancer::LEASE, crd};
use podnet_planner::election::Timing;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::roles::Roles;

/// How long anything may take.
const DEADLINE: Duration = Duration::from_secs(60);
/// Short enough for a test, and long enough for a machine that does other things as well.
const TIMING: Timing = Timing {
    lasts: Duration::from_secs(6),
    give_up: Duration::from_secs(5),
    pause: Duration::from_millis(200),
    between_looks: Duration::from_millis(50),
    farewell: Duration::from_secs(30),
};

/// An API, and what agents asked of it that they may not.
pub(crate) struct Fixture {
    api: podnet_apiserver::Api,
    pub(crate) client: Client,
    refused: Arc<Mutex<Vec<String>>>,
    stop: CancellationToken,
    _directory: TempDir,
}

/// An agent that stands for election. Dropped without [`Standing::end`] it is as if it was killed.
pub(crate) struct Agent {
    pub(crate) standing: Standing,
    cut: Arc<AtomicBool>,
}

impl Agent {
    /// From now on nothing that it asks is answered, or is again.
    pub(crate) fn cut_off(&self, cut: bool) {
        self.cut.store(cut, Ordering::Relaxed);
    }
}

impl Fixture {
    pub(crate) async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = Config {
            service_cidr_v6: Some("fd00:10:96::/108".parse().unwrap()),
            ..Config::in_directory(
                directory.path(),
                "172.29.0.254:6443".parse().unwrap(),
                "10.233.0.0/18".parse().unwrap(),
            )
        };
        let pki = Pki::load_or_create(&config.pki_dir).unwrap();
        let stop = CancellationToken::new();
        let api = podnet_apiserver::Api::start(&config, &pki, stop.clone()).await.unwrap();
        let client = api.in_process_client();
        for definition in crd::balancer_definitions() {
            apply::create_or_replace_definition(&client, definition).await.unwrap();
        }
        Self { api, client, refused: Arc::default(), stop, _directory: directory }
    }

    /// An agent of that name, of as many.
    pub(crate) fn agent(&self, name: &str) -> Agent {
        let cut = Arc::<AtomicBool>::default();
        let client = self.restricted(Arc::clone(&cut));
        Agent { standing: stand_with(client, &name.into(), || 2, TIMING), cut }
    }

    /// A client of the account that `podnet manifests` makes.
    pub(crate) fn restricted(&self, cut: Arc<AtomicBool>) -> Client {
        let (router, roles, refused) = (self.api.router(), Arc::new(Roles::shipped()), Arc::clone(&self.refused));
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let (router, roles, refused) = (router.clone(), Arc::clone(&roles), Arc::clone(&refused));
            let cut = Arc::clone(&cut);
            async move {
                if cut.load(Ordering::Relaxed) {
                    std::future::pending::<()>().await;
                }
                let mut request = request.map(Body::new);
                let query = Query::parse(request.uri()).unwrap();
                let (target, method) = (Target::parse(request.uri().path()), request.method().clone());
                let mut attempt = target.attempt(&method, query.flag("watch"));
                if matches!(attempt.verb, "list" | "watch") && attempt.name.is_empty() {
                    attempt.name = query.only_name().unwrap_or_default();
                }
                if !roles.allow(&attempt) {
                    refused.lock().unwrap().push(format!("{attempt:?}"));
                    let status = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 403,
                        "reason": "Forbidden", "message": format!("{attempt:?}") });
                    let response = Response::builder().status(403).header("content-type", "application/json");
                    return Ok::<_, Infallible>(response.body(Body::from(status.to_string())).unwrap());
                }
                request.extensions_mut().insert(Identity::in_process());
                router.oneshot(request).await
            }
        });
        Client::new(service, "default")
    }

    /// Nothing was refused to the agents.
    pub(crate) fn assert_nothing_refused(&self) {
        let refused = self.refused.lock().unwrap();
        assert!(refused.is_empty(), "the shipped roles lack {refused:#?}");
    }

    /// The API of a kind in the namespace `default`.
    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), "default")
    }

    /// Creates an object in the namespace `default`.
    pub(crate) async fn create<K>(&self, object: Value) -> K
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + Serialize + DeserializeOwned,
    {
        let object: K = serde_json::from_value(object).unwrap();
        self.api::<K>().create(&PostParams::default(), &object).await.unwrap()
    }

    pub(crate) async fn create_pool(&self, name: &str, addresses: Value) {
        // A kind is served a moment after it is defined.
        self.wait("the definition of pools", || async {
            let pool = json!({ "metadata": { "name": name }, "spec": { "addresses": addresses } });
            let pool: crd::IPAddressPool = serde_json::from_value(pool).unwrap();
            self.api::<crd::IPAddressPool>().create(&PostParams::default(), &pool).await.ok()
        })
        .await;
    }

    pub(crate) async fn balanced(&self, name: &str) -> Service {
        let spec = json!({ "type": "LoadBalancer", "ports": [{ "port": 80 }] });
        self.create(json!({ "metadata": { "name": name }, "spec": spec })).await
    }

    pub(crate) async fn until_it_has(&self, name: &str, wanted: &[&str]) {
        self.until::<Service>(name, &format!("{name} at {wanted:?}"), |service| addresses(service) == wanted).await;
    }

    /// Who has the Lease, and what it says.
    pub(crate) async fn lease(&self) -> LeaseSpec {
        let api = Api::<Lease>::namespaced(self.client.clone(), LEASE.0);
        api.get_opt(LEASE.1).await.unwrap().and_then(|lease| lease.spec).unwrap_or_default()
    }

    /// Waits until this one has the Lease; the empty name: nobody.
    pub(crate) async fn until_leads(&self, name: &str) {
        self.wait(&format!("{name:?} has the lease"), || async {
            (self.lease().await.holder_identity.unwrap_or_default() == name).then_some(())
        })
        .await;
    }

    /// Waits until the answer is there.
    pub(crate) async fn wait<T, F: Future<Output = Option<T>>>(&self, what: &str, probe: impl Fn() -> F) -> T {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(answer) = probe().await {
                return answer;
            }
            assert!(Instant::now() < deadline, "not in time: {what}; refused: {:?}", self.refused.lock().unwrap());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until an object is as wanted.
    pub(crate) async fn until<K>(&self, name: &str, what: &str, wanted: impl Fn(&K) -> bool) -> K
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
    {
        let api = self.api::<K>();
        self.wait(what, || async { api.get_opt(name).await.unwrap().filter(&wanted) }).await
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// `address ipMode` of each.
pub(crate) fn addresses(service: &Service) -> Vec<String> {
    let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = status.iter().flat_map(|status| status.ingress.iter().flatten());
    ingress
        .map(|ingress| {
            format!("{} {}", ingress.ip.as_deref().unwrap_or_default(), ingress.ip_mode.as_deref().unwrap_or_default())
        })
        .collect()
}
