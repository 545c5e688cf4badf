//! Taints keep pods off nodes; tolerations let some on (Kubernetes documentation, "Taints and Tolerations").

use k8s_openapi::api::core::v1::{Pod, Taint, Toleration};

/// The first of the taints that keeps the pod from being placed.
pub(super) fn untolerated<'a>(pod: &Pod, taints: &'a [Taint]) -> Option<&'a Taint> {
    let binding = |taint: &&Taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute");
    taints.iter().filter(binding).find(|taint| !tolerates(pod, taint))
}

/// How many taints would rather not have the pod.
pub(super) fn reluctance(pod: &Pod, taints: &[Taint]) -> usize {
    taints.iter().filter(|taint| taint.effect == "PreferNoSchedule" && !tolerates(pod, taint)).count()
}

/// For how long a pod may stay on a node with a `NoExecute` taint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stay {
    /// That many seconds after the taint appeared.
    Seconds(u64),
    /// For ever.
    Unlimited,
}

/// How long the pod tolerates the taint; not at all is zero seconds.
pub(crate) fn tolerated_for(pod: &Pod, taint: &Taint) -> Stay {
    let mut matching = tolerations(pod).iter().filter(|toleration| covers(toleration, taint)).peekable();
    if matching.peek().is_none() {
        return Stay::Seconds(0);
    }
    let seconds = matching.filter_map(|toleration| toleration.toleration_seconds).min();
    seconds.map_or(Stay::Unlimited, |seconds| Stay::Seconds(u64::try_from(seconds).unwrap_or_default()))
}

fn tolerates(pod: &Pod, taint: &Taint) -> bool {
    tolerations(pod).iter().any(|toleration| covers(toleration, taint))
}

fn tolerations(pod: &Pod) -> &[Toleration] {
    pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default()
}

fn covers(toleration: &Toleration, taint: &Taint) -> bool {
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    if given(&toleration.effect).is_some_and(|effect| effect != taint.effect) {
        return false;
    }
    if given(&toleration.key).is_some_and(|key| key != taint.key) {
        return false;
    }
    match given(&toleration.operator).as_deref() {
        Some("Exists") => true,
        // Without a key only Exists makes sense.
        _ => given(&toleration.key).is_some() && given(&toleration.value) == given(&taint.value),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn tolerations_cover_taints_as_documented() {
        let taint: Taint =
            serde_json::from_value(json!({ "key": "gpu", "value": "yes", "effect": "NoExecute" })).unwrap();
        let table: [(Value, Stay); 8] = [
            (json!({}), Stay::Seconds(0)),
            (json!({ "operator": "Exists" }), Stay::Unlimited),
            (json!({ "key": "gpu", "operator": "Exists" }), Stay::Unlimited),
            (json!({ "key": "gpu", "value": "yes" }), Stay::Unlimited),
            (json!({ "key": "gpu", "value": "no" }), Stay::Seconds(0)),
            (json!({ "key": "gpu", "operator": "Exists", "effect": "NoSchedule" }), Stay::Seconds(0)),
            (json!({ "key": "disk", "operator": "Exists" }), Stay::Seconds(0)),
            (json!({ "key": "gpu", "operator": "Exists", "tolerationSeconds": 300 }), Stay::Seconds(300)),
        ];
        for (toleration, wanted) in table {
            let pod = json!({ "spec": { "containers": [], "tolerations": [toleration] } });
            let pod: Pod = serde_json::from_value(pod).unwrap();
            assert_eq!(tolerated_for(&pod, &taint), wanted, "{toleration}");
            assert_eq!(untolerated(&pod, std::slice::from_ref(&taint)).is_some(), wanted == Stay::Seconds(0));
        }
    }
}
