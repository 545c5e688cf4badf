//! `kubernetes`.

use std::collections::BTreeSet;

use podnet_model::Namespace;

use super::{Fallthrough, read};
use crate::{
    corefile::{CorefileError, Directive, Fault},
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

const KNOWN: [&str; 8] =
    ["pods", "ttl", "fallthrough", "endpoint_pod_names", "noendpoints", "namespaces", "ignore", "upstream"];
/// What the plugin documents beside those, which cannot be honoured here.
const ELSEWHERE: [&str; 9] = [
    "endpoint",
    "kubeconfig",
    "tls",
    "labels",
    "namespace_labels",
    "multicluster",
    "startup_timeout",
    "apiserver_qps",
    "zonal",
];

pub(super) fn parse(directive: &Directive, zones: Vec<Name>) -> Result<KubernetesOptions, CorefileError> {
    let own = read::zones(&directive.arguments, "a zone of kubernetes")?;
    let zones = if own.is_empty() { zones } else { own };
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
    };
    for option in &directive.options {
        apply(&mut options, option)?;
    }
    Ok(options)
}

fn apply(options: &mut KubernetesOptions, option: &Directive) -> Result<(), CorefileError> {
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
        "endpoint_pod_names" => {
            read::nothing(option)?;
            options.endpoint_pod_names = true;
        }
        "noendpoints" => {
            read::nothing(option)?;
            options.no_endpoints = true;
        }
        "namespaces" => {
            if option.arguments.is_empty() {
                return Err(option.missing("at least one namespace"));
            }
            let names = options.namespaces.get_or_insert_default();
            names.extend(option.arguments.iter().map(|word| Namespace::from(word.text.as_str())));
        }
        "ignore" => {
            let word = read::one(option, "empty_service")?;
            if word.text != "empty_service" {
                return Err(word.bad("ignore", "empty_service"));
            }
            options.ignore_empty = true;
        }
        // It was an option once; Corefiles still have it, and CoreDNS ignores it.
        "upstream" => {}
        name if ELSEWHERE.contains(&name) => {
            return Err(option.name.error(Fault::Unexpected {
                found: name.to_owned(),
                allowed: format!("{} (this server does not support {name:?})", KNOWN.join(", ")),
            }));
        }
        _ => return Err(read::unknown("kubernetes", option, &KNOWN)),
    }
    Ok(())
}

fn is_reverse(zone: &Name) -> bool {
    let roots = ["in-addr.arpa", "ip6.arpa"];
    roots.iter().filter_map(|root| Name::parse(root).ok()).any(|root| zone.within(&root))
}
