//! Which lists of the built-in kinds are maps in disguise, and by which field: the `x-kubernetes-patch-merge-key` and
//! `x-kubernetes-patch-strategy` of the Kubernetes API's own OpenAPI description.
//!
//! Only what differs from the rule is in the tables. The rule: objects are merged, lists and scalars are replaced.

use Field::{Keyed, Object, Primitives};

/// The fields of a type that do not follow the rule, and the ones below which such fields are.
#[derive(Debug)]
pub(super) struct Type(&'static [(&'static str, Field)]);

/// How a field is merged.
#[derive(Debug)]
pub(super) enum Field {
    /// An object with such fields further down.
    Object(&'static Type),
    /// A list of objects that are told apart by a field, and their type.
    Keyed(&'static str, &'static Type),
    /// A list of scalars that is a set.
    Primitives,
}

impl Type {
    /// How the field is merged where it differs from the rule.
    pub(super) fn field(&self, name: &str) -> Option<&'static Field> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, field)| field)
    }
}

/// A type that follows the rule all the way down.
pub(super) static PLAIN: Type = Type(&[]);

/// The schema of a built-in kind; none for custom resources.
pub(super) fn root(group: &str, kind: &str) -> Option<&'static Type> {
    Some(match (group, kind) {
        ("", "Pod") => &POD,
        ("", "PodTemplate") => &POD_TEMPLATE_OBJECT,
        ("", "Service") => &SERVICE,
        ("", "ServiceAccount") => &SERVICE_ACCOUNT,
        ("", "Node") => &NODE,
        ("", "Namespace" | "PersistentVolumeClaim") => &WITH_CONDITIONS,
        ("apps", _) => &WORKLOAD,
        ("batch", "Job") => &WORKLOAD,
        ("batch", "CronJob") => &CRON_JOB,
        ("policy", "PodDisruptionBudget") => &WITH_CONDITIONS,
        _ if BUILT_IN_GROUPS.contains(&group) => &WITH_METADATA,
        _ => return None,
    })
}

/// Groups whose kinds the API server itself defines. A name below `k8s.io` is not enough: `gateway.networking.k8s.io` is made
/// of custom resources.
const BUILT_IN_GROUPS: [&str; 16] = [
    "",
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "apiregistration.k8s.io",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "coordination.k8s.io",
    "discovery.k8s.io",
    "events.k8s.io",
    "networking.k8s.io",
    "node.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "scheduling.k8s.io",
    "storage.k8s.io",
];

static METADATA: Type = Type(&[("ownerReferences", Keyed("uid", &PLAIN)), ("finalizers", Primitives)]);
static WITH_METADATA: Type = Type(&[("metadata", Object(&METADATA))]);
static CONDITIONS: Type = Type(&[("conditions", Keyed("type", &PLAIN))]);
static WITH_CONDITIONS: Type = Type(&[("metadata", Object(&METADATA)), ("status", Object(&CONDITIONS))]);

static POD: Type =
    Type(&[("metadata", Object(&METADATA)), ("spec", Object(&POD_SPEC)), ("status", Object(&POD_STATUS))]);
static POD_TEMPLATE: Type = Type(&[("metadata", Object(&METADATA)), ("spec", Object(&POD_SPEC))]);
static POD_TEMPLATE_OBJECT: Type = Type(&[("metadata", Object(&METADATA)), ("template", Object(&POD_TEMPLATE))]);
static POD_SPEC: Type = Type(&[
    ("containers", Keyed("name", &CONTAINER)),
    ("initContainers", Keyed("name", &CONTAINER)),
    ("ephemeralContainers", Keyed("name", &CONTAINER)),
    ("volumes", Keyed("name", &PLAIN)),
    ("imagePullSecrets", Keyed("name", &PLAIN)),
    ("hostAliases", Keyed("ip", &PLAIN)),
    ("topologySpreadConstraints", Keyed("topologyKey", &PLAIN)),
    ("resourceClaims", Keyed("name", &PLAIN)),
    ("schedulingGates", Keyed("name", &PLAIN)),
]);
static CONTAINER: Type = Type(&[
    ("env", Keyed("name", &PLAIN)),
    ("ports", Keyed("containerPort", &PLAIN)),
    ("volumeMounts", Keyed("mountPath", &PLAIN)),
    ("volumeDevices", Keyed("devicePath", &PLAIN)),
]);
static POD_STATUS: Type = Type(&[
    ("conditions", Keyed("type", &PLAIN)),
    ("podIPs", Keyed("ip", &PLAIN)),
    ("hostIPs", Keyed("ip", &PLAIN)),
    ("resourceClaimStatuses", Keyed("name", &PLAIN)),
]);

static SERVICE: Type =
    Type(&[("metadata", Object(&METADATA)), ("spec", Object(&SERVICE_SPEC)), ("status", Object(&CONDITIONS))]);
static SERVICE_SPEC: Type = Type(&[("ports", Keyed("port", &PLAIN))]);
static SERVICE_ACCOUNT: Type = Type(&[("metadata", Object(&METADATA)), ("secrets", Keyed("name", &PLAIN))]);

// `spec.taints` is replaced as a whole: clients send the complete list.
static NODE: Type =
    Type(&[("metadata", Object(&METADATA)), ("spec", Object(&NODE_SPEC)), ("status", Object(&NODE_STATUS))]);
static NODE_SPEC: Type = Type(&[("podCIDRs", Primitives)]);
static NODE_STATUS: Type = Type(&[("conditions", Keyed("type", &PLAIN)), ("addresses", Keyed("type", &PLAIN))]);

static WORKLOAD: Type =
    Type(&[("metadata", Object(&METADATA)), ("spec", Object(&WORKLOAD_SPEC)), ("status", Object(&CONDITIONS))]);
static WORKLOAD_SPEC: Type = Type(&[("template", Object(&POD_TEMPLATE))]);
static CRON_JOB: Type = Type(&[("metadata", Object(&METADATA)), ("spec", Object(&CRON_JOB_SPEC))]);
static CRON_JOB_SPEC: Type = Type(&[("jobTemplate", Object(&JOB_TEMPLATE))]);
static JOB_TEMPLATE: Type = Type(&[("metadata", Object(&METADATA)), ("spec", Object(&WORKLOAD_SPEC))]);
