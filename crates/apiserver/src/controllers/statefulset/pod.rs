//! A set's pods: their names, and what makes each one itself.

use k8s_openapi::api::{
    apps::v1::StatefulSet,
    core::v1::{HostPathVolumeSource, Pod, PodTemplateSpec, Volume},
};
use kube::{ResourceExt, api::ObjectMeta};

use crate::controllers::ownership;

/// The label that tells the revision of a pod's template.
pub(super) const REVISION: &str = "controller-revision-hash";
/// Where the directories are that stand for volumes.
pub(super) const VOLUMES: &str = "/var/lib/podnet/volumes";

/// The name of the set that a pod could be of, and its number there.
pub(super) fn parts(pod: &Pod) -> Option<(&str, i32)> {
    let (set, number) = pod.metadata.name.as_deref()?.rsplit_once('-')?;
    // `web-01` and `web-+1` are other people's.
    let ordinal: i32 = number.parse().ok()?;
    (number == ordinal.to_string()).then_some((set, ordinal))
}

/// The set's volume claims, in words; none where it has none.
pub(super) fn claims(set: &StatefulSet) -> Option<String> {
    let claims = set.spec.as_ref()?.volume_claim_templates.as_deref().unwrap_or_default();
    let names: Vec<String> = claims.iter().map(ResourceExt::name_any).collect();
    (!names.is_empty()).then(|| format!("volume claim {}", names.join(", ")))
}

/// The pod of that number, of this template.
pub(super) fn make(set: &StatefulSet, template: PodTemplateSpec, ordinal: i32, revision: &str) -> Pod {
    let name = format!("{}-{ordinal}", set.name_any());
    let metadata = template.metadata.unwrap_or_default();
    let mut labels = metadata.labels.unwrap_or_default();
    labels.insert("statefulset.kubernetes.io/pod-name".to_owned(), name.clone());
    labels.insert("apps.kubernetes.io/pod-index".to_owned(), ordinal.to_string());
    labels.insert(REVISION.to_owned(), revision.to_owned());
    let mut spec = template.spec.unwrap_or_default();
    spec.hostname = Some(name.clone());
    spec.subdomain = set.spec.as_ref().and_then(|spec| spec.service_name.clone()).filter(|name| !name.is_empty());
    let claims = set.spec.as_ref().and_then(|spec| spec.volume_claim_templates.as_deref()).unwrap_or_default();
    let volumes = spec.volumes.get_or_insert_default();
    for claim in claims.iter().map(ResourceExt::name_any) {
        let namespace = set.namespace().unwrap_or_default();
        let directory = HostPathVolumeSource {
            path: format!("{VOLUMES}/{namespace}/{claim}-{name}"),
            type_: Some("DirectoryOrCreate".to_owned()),
        };
        // A claim stands in the place of a volume of its name.
        volumes.retain(|volume| volume.name != claim);
        volumes.push(Volume { name: claim, host_path: Some(directory), ..Volume::default() });
    }
    Pod {
        metadata: ObjectMeta {
            name: Some(name),
            generate_name: Some(format!("{}-", set.name_any())),
            namespace: set.namespace(),
            labels: Some(labels),
            annotations: metadata.annotations,
            finalizers: metadata.finalizers,
            owner_references: Some(vec![ownership::reference_to(set)]),
            ..ObjectMeta::default()
        },
        spec: Some(spec),
        status: None,
    }
}
