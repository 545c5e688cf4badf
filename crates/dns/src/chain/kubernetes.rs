//! `kubernetes`.

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use podnet_model::Namespace;

use super::{Fallthrough, Selector, TlsFiles, read, scope::Scope, selector, tls};
use crate::{
    corefile::{CorefileError, Directive},
    name::Name,
};

/// What the `kubernetes` plugin serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KubernetesOptions {
    /// The zones of Services.
    pub zones: Vec<Name>,
    /// The reverse zones.
    pub reverse_zones: Vec<Name>,
    /// Which pod names exist.
    pub pods: PodNames,
    /// The time to live of its records, in seconds (0–3600).
    pub ttl: u32,
    /// The names that go on to the next plugin when they do not exist.
    pub fallthrough: Fallthrough,
    /// Endpoints without a hostname are called as their pod rather than as their address.
    pub endpoint_pod_names: bool,
    /// Endpoints have no names, and headless Services do not exist.
    pub no_endpoints: bool,
    /// Only these namespaces exist, where it says so.
    pub namespaces: Option<BTreeSet<Namespace>>,
    /// A Service without ready endpoints does not exist.
    pub ignore_empty: bool,
    /// The API server.
    pub api: ApiAccess,
    /// Only objects with such labels exist.
    pub labels: Option<Selector>,
    /// Only namespaces with such labels exist.
    pub namespace_labels: Option<Selector>,
    /// Those of its zones in which the Services of the cluster set have names, and the cluster's own have none (the Multi-Cluster
    /// Services API).
    pub multicluster: Vec<Name>,
    /// How long answers wait for the first whole state of the cluster; 5 s by default.
    pub startup_timeout: Duration,
    /// Headless Services have names for their endpoints in each zone of the topology.
    pub zonal: bool,
}

/// How the API server is reached; where nothing is said, by the pod's service account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApiAccess {
    /// Its URL.
    pub endpoint: Option<String>,
    /// Certificate, key and authority for it.
    pub tls: Option<TlsFiles>,
    /// A kubeconfig, and the context in it.
    pub kubeconfig: Option<(String, Option<String>)>,
    /// The most requests in a second, on average.
    pub qps: Option<u32>,
    /// The most requests at once, beyond the average.
    pub burst: Option<u32>,
    /// The most requests that wait for an answer.
    pub max_inflight: Option<u32>,
}

/// Which names `10-244-1-2.ns.pod.zone` exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodNames {
    /// None.
    Disabled,
    /// Every address in a namespace that exists.
    Insecure,
    /// Those of pods.
    Verified,
}

const KNOWN: [&str; 19] = [
    "pods",
    "ttl",
    "fallthrough",
    "endpoint_pod_names",
    "noendpoints",
    "namespaces",
    "namespace_labels",
    "labels",
    "ignore",
    "endpoint",
    "tls",
    "kubeconfig",
    "multicluster",
    "startup_timeout",
    "apiserver_qps",
    "apiserver_burst",
    "apiserver_max_inflight",
    "zonal",
    "upstream",
];

/// `kubernetes [ZONES…]`.
pub(super) fn parse(directive: &Directive, scope: &mut Scope<'_>) -> Result<KubernetesOptions, CorefileError> {
    let zones = scope.zones_or(read::zones(&directive.arguments, "a zone of kubernetes")?);
    let (reverse_zones, zones): (Vec<_>, Vec<_>) = zones.into_iter().partition(is_reverse);
    let Some(_) = zones.first() else {
        return Err(directive.missing("a zone for Services, such as cluster.local, beside the reverse zones"));
    };
    let mut options = KubernetesOptions {
        zones,
        reverse_zones,
        pods: PodNames::Disabled,
        ttl: 5,
        fallthrough: Fallthrough::default(),
        endpoint_pod_names: false,
        no_endpoints: false,
        namespaces: None,
        ignore_empty: false,
        api: ApiAccess::default(),
        labels: None,
        namespace_labels: None,
        multicluster: Vec::new(),
        startup_timeout: Duration::from_secs(5),
        zonal: false,
    };
    scope.options(directive, |scope, option| apply(&mut options, option, scope));
    if options.labels.is_some() && options.pods == PodNames::Verified {
        let at = &directive.name.place;
        scope.warnings.push(format!("{at}: labels choose Services; pods have names whatever their labels are"));
    }
    let both = directive.options.iter().find(|option| option.name.text == "namespace_labels");
    if let Some(option) = both.filter(|_| options.namespaces.is_some() && options.namespace_labels.is_some()) {
        return Err(option.name.bad("an option beside namespaces", "one of namespaces and namespace_labels"));
    }
    Ok(options)
}

fn apply(options: &mut KubernetesOptions, option: &Directive, scope: &mut Scope<'_>) -> Result<(), CorefileError> {
    match option.name.text.as_str() {
        "pods" => {
            let allowed = "disabled, insecure or verified";
            let word = read::one(option, allowed)?;
            options.pods = match word.text.as_str() {
                "disabled" => PodNames::Disabled,
                "insecure" => PodNames::Insecure,
                "verified" => PodNames::Verified,
                _ => return Err(word.bad("pods", allowed)),
            };
        }
        "ttl" => options.ttl = read::number(read::one(option, "seconds")?, "ttl", 0, 3600)? as u32,
        "fallthrough" => options.fallthrough = read::fallthrough(option)?,
        "endpoint_pod_names" => options.endpoint_pod_names = read::nothing(option).map(|()| true)?,
        "noendpoints" => options.no_endpoints = read::nothing(option).map(|()| true)?,
        "namespaces" => {
            if option.arguments.is_empty() {
                return Err(option.missing("at least one namespace"));
            }
            let names = options.namespaces.get_or_insert_default();
            names.extend(option.arguments.iter().map(|word| Namespace::from(word.text.as_str())));
        }
        "labels" => options.labels = Some(selector::parse(option)?),
        "namespace_labels" => options.namespace_labels = Some(selector::parse(option)?),
        "ignore" => {
            let word = read::one(option, "empty_service")?;
            if word.text != "empty_service" {
                return Err(word.bad("ignore", "empty_service"));
            }
            options.ignore_empty = true;
        }
        "multicluster" => {
            options.multicluster.clear();
            for word in &option.arguments {
                let zones = read::zones(std::slice::from_ref(word), "a zone of multicluster")?;
                if zones.iter().any(|zone| !options.zones.contains(zone)) {
                    let allowed = "one of the plugin's own zones, which stand behind its name";
                    return Err(word.bad("a zone of multicluster", allowed));
                }
                options.multicluster.extend(zones);
            }
            if option.arguments.is_empty() {
                // As in CoreDNS.
                scope.warnings.push(format!("{}: multicluster without zones has no effect", option.name.place));
            }
        }
        "startup_timeout" => {
            options.startup_timeout = read::duration(read::one(option, "a duration")?, "startup_timeout")?;
        }
        "zonal" => options.zonal = read::nothing(option).map(|()| true)?,
        // It was an option once; Corefiles still have it, and CoreDNS ignores it.
        "upstream" => {}
        _ => return access(&mut options.api, option, scope),
    }
    Ok(())
}

/// The options about the API server.
fn access(api: &mut ApiAccess, option: &Directive, scope: &mut Scope<'_>) -> Result<(), CorefileError> {
    let limit =
        || Ok(Some(read::number(read::one(option, "a number")?, &option.name.text, 1, u32::MAX.into())? as u32));
    match option.name.text.as_str() {
        "endpoint" => {
            let word = option.arguments.first().ok_or_else(|| option.missing("the API server's URL"))?;
            if !word.text.starts_with("https://") && !word.text.starts_with("http://") {
                return Err(word.bad("endpoint", "a URL such as https://10.0.0.1:6443"));
            }
            if let Some(second) = option.arguments.get(1) {
                scope.warnings.push(format!("{}: only the first endpoint is used", second.place));
            }
            api.endpoint = Some(word.text.clone());
        }
        "tls" => {
            if option.arguments.len() != 3 {
                return Err(option.missing("a certificate, its key and the authority's certificate"));
            }
            api.tls = Some(tls::of_client(option, scope)?);
        }
        "kubeconfig" => {
            read::at_most(option, 2)?;
            let path = option.arguments.first().ok_or_else(|| option.missing("the path of a kubeconfig"))?;
            let path = scope.path(&path.text);
            scope.files.push(PathBuf::from(&path));
            api.kubeconfig = Some((path, option.arguments.get(1).map(|context| context.text.clone())));
        }
        "apiserver_qps" => api.qps = limit()?,
        "apiserver_burst" => api.burst = limit()?,
        "apiserver_max_inflight" => api.max_inflight = limit()?,
        _ => return Err(read::unknown("kubernetes", option, &KNOWN)),
    }
    Ok(())
}

/// Whether a zone is one of addresses.
pub(crate) fn is_reverse(zone: &Name) -> bool {
    let roots = ["in-addr.arpa", "ip6.arpa"];
    roots.iter().filter_map(|root| Name::parse(root).ok()).any(|root| zone.within(&root))
}
