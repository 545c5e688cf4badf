//! Where a probe can be watched on its way.

use podnet_flow::{capture::Captured, probe::Point};
use podnet_model::{NodeName, PodKey, proxy::Mode};
use podnet_planner::{
    step::Step,
    trace::{Cluster, Hop, Kind, Path, Place},
};

/// Where a packet is seen if it passes a hop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Spot {
    pub(super) node: NodeName,
    pub(super) point: Point,
    /// It leaves by the device there; else it comes in.
    pub(super) outbound: bool,
}

/// For each hop of a path where it is watched; none where a packet is at no device, or encrypted, or is another one: an agent that takes
/// connections opens others.
pub(super) fn along(cluster: &Cluster, path: &Path) -> Vec<Option<Spot>> {
    let (mut encrypted, mut is_over) = (false, false);
    let spot = |hop: &Hop| {
        let planned = hop.place.node().and_then(|node| cluster.planned(node));
        // By a port of the node it goes on to the pod as it is.
        let is_to_pod = hop.object.as_ref().is_some_and(|object| object.kind == "pod");
        let is_taken = hop.kind == Kind::Translated && !is_to_pod;
        is_over |= is_taken && planned.is_some_and(|planned| planned.facts.mode == Mode::Userspace);
        let is_wireguard = hop.stands.iter().any(|step| matches!(step, Step::SetPeer(_)));
        encrypted = match hop.kind {
            Kind::Encapsulated => is_wireguard,
            Kind::Decapsulated => false,
            _ => encrypted,
        };
        if encrypted || is_over { None } else { of(cluster, hop) }
    };
    path.hops.iter().map(spot).collect()
}

fn of(cluster: &Cluster, hop: &Hop) -> Option<Spot> {
    let outbound = match hop.kind {
        Kind::Sent | Kind::Routed | Kind::Encapsulated => true,
        Kind::Received | Kind::Decapsulated | Kind::Delivered => false,
        Kind::Chosen | Kind::Translated | Kind::Masqueraded | Kind::Judged => return None,
    };
    let (node, point) = match &hop.place {
        Place::Pod(pod, node) => {
            (node, Point::Inside(captured(cluster, pod)?, hop.device.as_ref()?.as_str().to_owned()))
        }
        Place::Node(node) => (node, of_node(cluster, node, hop)?),
        Place::Underlay => return None,
    };
    Some(Spot { node: node.clone(), point, outbound })
}

fn of_node(cluster: &Cluster, node: &NodeName, hop: &Hop) -> Option<Point> {
    let planned = cluster.planned(node);
    let is_bridge = |device| {
        let mut links = planned.into_iter().flat_map(|planned| planned.facts.links.values());
        links.any(|link| link.bridge.as_ref() == Some(device))
    };
    // The link of a pod, whose device only its agent knows for certain.
    let of_pod = hop.object.as_ref().filter(|object| object.kind == "pod");
    if let Some(pod) = of_pod.filter(|_| !hop.device.as_ref().is_some_and(is_bridge)) {
        let key = PodKey::new(pod.namespace.as_deref()?, &pod.name);
        return Some(Point::Outside(captured(cluster, &key)?));
    }
    let device = hop.device.as_ref()?;
    let is_underlay = planned.is_some_and(|planned| planned.facts.device == *device);
    Some(if is_underlay { Point::Underlay } else { Point::Device(device.as_str().to_owned()) })
}

/// A pod as agents are told of it.
pub(in crate::forwarding) fn captured(cluster: &Cluster, key: &PodKey) -> Option<Captured> {
    let pod = cluster.pods().get(key)?;
    let (namespace, name) = (key.namespace.as_str().to_owned(), key.name.to_string());
    Some(Captured { namespace, name, uid: pod.uid.to_string() })
}

#[cfg(test)]
mod tests {
    use podnet_model::{Change, Mac, Node, NodeAddr};
    use podnet_planner::{
        ruleset::BackendAddress,
        step::{FdbEntry, Peer},
        trace::{End, Facts, Link, Object, Verdict},
    };

    use super::*;

    fn node(kind: Kind, device: Option<&str>) -> Hop {
        let hop = Hop::new(Place::Node("node1".into()), kind, "");
        device.map_or_else(|| hop.clone(), |device| hop.clone().at(device.into(), 1500))
    }

    fn spots(hops: Vec<Hop>) -> Vec<Option<(Point, bool)>> {
        spots_in(&Cluster::new(Vec::new(), [].into()), hops)
    }

    fn spots_in(cluster: &Cluster, hops: Vec<Hop>) -> Vec<Option<(Point, bool)>> {
        let destination = BackendAddress { addr: "10.0.0.9".parse().unwrap(), port: 80 };
        let end = End { verdict: Verdict::Arrives, why: String::new() };
        let path = Path { share: 1.0, hops, end, destination, source: "10.0.0.5".parse().unwrap() };
        let all = along(cluster, &path).into_iter();
        all.map(|spot| spot.map(|spot| (spot.point, spot.outbound))).collect()
    }

    fn device(name: &str) -> Point {
        Point::Device(name.to_owned())
    }

    #[test]
    fn a_packet_is_watched_as_it_leaves_and_comes_in_and_not_where_it_is_at_no_device() {
        let fdb = FdbEntry { device: "v".into(), mac: Mac([2; 6]), remote: "192.0.2.2".parse().unwrap() };
        let hops = vec![
            node(Kind::Sent, None),
            node(Kind::Translated, None),
            node(Kind::Routed, Some("podnet.vxlan")),
            node(Kind::Encapsulated, Some("eth0")).standing(vec![Step::SetFdb(fdb)]),
            Hop::new(Place::Underlay, Kind::Sent, ""),
            node(Kind::Decapsulated, Some("podnet.vxlan")),
            node(Kind::Judged, None),
        ];
        let (tunnel, wire) = (device("podnet.vxlan"), device("eth0"));
        let expected =
            [None, None, Some((tunnel.clone(), true)), Some((wire, true)), None, Some((tunnel, false)), None];
        assert_eq!(spots(hops), expected);
    }

    #[test]
    fn what_is_encrypted_is_watched_before_and_after() {
        let peer = Peer {
            device: "podnet.wg".into(),
            key: podnet_model::wireguard::PublicKey([7; 32]),
            endpoint: "192.0.2.2:51820".parse().unwrap(),
            ranges: [].into(),
        };
        let hops = vec![
            node(Kind::Routed, Some("podnet.wg")),
            node(Kind::Encapsulated, Some("eth0")).standing(vec![Step::SetPeer(peer)]),
            node(Kind::Received, Some("eth0")),
            node(Kind::Decapsulated, Some("podnet.wg")),
        ];
        let tunnel = device("podnet.wg");
        assert_eq!(spots(hops), [Some((tunnel.clone(), true)), None, None, Some((tunnel, false))]);
    }

    #[test]
    fn the_nodes_own_device_is_its_agents_to_find_and_who_opens_connections_anew_ends_a_probe() {
        let node1 =
            Change::Node("node1".into(), Some(Node::new("node1".into(), NodeAddr("192.0.2.1".parse().unwrap()))));
        // By a port of the node there is no new connection.
        let pod = Some(Object::namespaced("pod", "default", "p"));
        for (mode, object, is_over) in
            [(Mode::Nftables, None, false), (Mode::Userspace, None, true), (Mode::Userspace, pod, false)]
        {
            let facts = [("node1".into(), Facts::new("ens3".into(), 1500, mode))];
            let cluster = Cluster::new(vec![node1.clone()], facts.into());
            let hops = vec![
                node(Kind::Received, Some("ens3")),
                node(Kind::Translated, None).of(object),
                node(Kind::Routed, Some("ens3")),
            ];
            let behind = (!is_over).then_some((Point::Underlay, true));
            assert_eq!(spots_in(&cluster, hops), [Some((Point::Underlay, false)), None, behind]);
        }
    }

    #[test]
    fn a_bridge_is_watched_itself_and_not_the_port_behind_it() {
        let node1 =
            Change::Node("node1".into(), Some(Node::new("node1".into(), NodeAddr("192.0.2.1".parse().unwrap()))));
        let mut facts = Facts::new("ens3".into(), 1500, Mode::Nftables);
        let port = Link { bridge: Some("cni0".into()), ..Link::routed("pn0".into()) };
        facts.links.insert("10.0.0.9".parse().unwrap(), port);
        let cluster = Cluster::new(vec![node1], [("node1".into(), facts)].into());
        let to_pod = node(Kind::Routed, Some("cni0")).of(Object::namespaced("pod", "shop", "web"));
        assert_eq!(spots_in(&cluster, vec![to_pod]), [Some((device("cni0"), true))]);
    }

    #[test]
    fn a_pod_that_is_not_known_is_not_watched() {
        let link = node(Kind::Received, Some("pn0")).of(Object::namespaced("pod", "shop", "web"));
        let inside = Hop::new(Place::Pod(PodKey::new("shop", "web"), "node1".into()), Kind::Delivered, "");
        assert_eq!(spots(vec![link, inside.at("eth0".into(), 1500)]), [None, None]);
    }
}
