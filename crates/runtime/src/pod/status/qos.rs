//! The class of a pod by what its containers ask for (Kubernetes documentation, "Pod Quality of Service Classes").

use k8s_openapi::api::core::v1::PodSpec;

/// `Guaranteed`, `Burstable` or `BestEffort`.
pub(crate) fn qos_class(spec: &PodSpec) -> &'static str {
    let containers: Vec<_> = spec.containers.iter().chain(spec.init_containers.iter().flatten()).collect();
    let asks: Vec<_> = ["cpu", "memory"]
        .into_iter()
        .flat_map(|name| {
            containers.iter().map(move |container| {
                let resources = container.resources.as_ref();
                let limit = resources.and_then(|resources| resources.limits.as_ref()?.get(name));
                let request = resources.and_then(|resources| resources.requests.as_ref()?.get(name)).or(limit);
                (request, limit)
            })
        })
        .collect();
    let nothing = asks.iter().all(|(request, limit)| request.is_none() && limit.is_none());
    let guaranteed = asks.iter().all(|(request, limit)| limit.is_some() && request == limit);
    match (nothing, guaranteed) {
        (true, _) => "BestEffort",
        (false, true) => "Guaranteed",
        (false, false) => "Burstable",
    }
}
