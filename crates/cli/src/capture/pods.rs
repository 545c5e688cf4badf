//! Where the pods are whose packets are captured.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client};
use podnet_flow::capture::Captured;
use podnet_model::PodKey;

use crate::report::{Doing, Failure};

/// A pod that is on a node.
pub(super) struct Place {
    pub(super) pod: Captured,
    pub(super) node: String,
    /// The node's address.
    pub(super) host: IpAddr,
    pub(super) addrs: Vec<IpAddr>,
}

/// All of them.
pub(super) async fn find(client: &Client, keys: &[PodKey]) -> Result<Vec<Place>, Failure> {
    let mut places = Vec::new();
    for key in keys {
        let pods = Api::<Pod>::namespaced(client.clone(), key.namespace.as_str());
        let pod = pods.get_opt(&key.name).await.doing(|| format!("cannot ask for pod {key}"))?;
        let pod = pod.ok_or_else(|| {
            Failure::new(format!("there is no pod {key}")).remedy(format!("kubectl get pods -n {}", key.namespace))
        })?;
        places.push(place(key, &pod)?);
    }
    Ok(places)
}

fn place(key: &PodKey, pod: &Pod) -> Result<Place, Failure> {
    let spec = pod.spec.as_ref();
    if spec.is_some_and(|spec| spec.host_network == Some(true)) {
        return Err(Failure::new(format!(
            "pod {key} has its node's network: its packets are not told from the node's"
        ))
        .remedy("capture on the node, with tcpdump"));
    }
    let not_yet = || {
        Failure::new(format!("pod {key} is on no node yet, or has no address"))
            .remedy(format!("why: kubectl describe pod {} -n {}", key.name, key.namespace))
    };
    let status = pod.status.as_ref().ok_or_else(not_yet)?;
    let node = spec.and_then(|spec| spec.node_name.clone()).ok_or_else(not_yet)?;
    let host = status.host_ip.as_ref().and_then(|ip| ip.parse().ok()).ok_or_else(not_yet)?;
    let addrs: Vec<IpAddr> = status.pod_ips.iter().flatten().filter_map(|ip| ip.ip.parse().ok()).collect();
    if addrs.is_empty() {
        return Err(not_yet());
    }
    let (namespace, name) = (key.namespace.to_string(), key.name.to_string());
    let uid = pod.metadata.uid.clone().unwrap_or_default();
    Ok(Place { pod: Captured { namespace, name, uid }, node, host, addrs })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_pod_is_found_by_its_nodes_address_and_one_without_a_network_of_its_own_is_refused() {
        let placed = |spec: Value, status: Value| {
            let pod =
                serde_json::from_value(json!({"metadata": {"uid": "u"}, "spec": spec, "status": status})).unwrap();
            place(&PodKey::new("shop", "web"), &pod).map_err(|failure| failure.to_string())
        };
        let spec = json!({"containers": [], "nodeName": "node1"});
        let status = json!({"hostIP": "192.0.2.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]});
        let place = placed(spec.clone(), status.clone()).ok().unwrap();
        assert_eq!((&*place.node, place.host.to_string(), place.addrs.len()), ("node1", "192.0.2.1".to_owned(), 2));
        let of_node = json!({"containers": [], "nodeName": "node1", "hostNetwork": true});
        assert!(placed(of_node, status.clone()).err().unwrap().contains("its node's network"));
        for (spec, status) in [(json!({"containers": []}), status), (spec, json!({}))] {
            assert!(placed(spec, status).err().unwrap().contains("on no node yet"));
        }
    }
}
