//! What of the overlay is not as planned, object by object.

use std::{collections::BTreeMap, fmt::Debug, net::IpAddr};

use podnet_model::LinkName;

use super::{Overlay, State};
use crate::{
    repair::{Damage, Object},
    step::{RouteTarget, Vxlan},
};

impl Overlay {
    /// How what was found differs from what is planned: what [`Overlay::repair`] mends, in words.
    #[must_use]
    pub fn damages(&self, observed: &State) -> Vec<Damage> {
        let (planned, found) = (&self.planned, self.ours(observed));
        let mut damages = Vec::new();
        for name in self.config.vxlan_names() {
            let (planned, found) = (planned.vxlans.get(name), found.vxlans.get(name));
            damages.extend(if planned == found { None } else { vxlan(planned, found) });
        }
        let tunnel = |name: &LinkName| Object::Device(name.clone());
        compare(&planned.tunnels, &found.tunnels, tunnel, |tunnel| format!("{tunnel:?}"), &mut damages);
        compare(&planned.routes, &found.routes, |dst| Object::Route(*dst), describe, &mut damages);
        let neighbour = |(device, addr): &(LinkName, IpAddr)| Object::Neighbour(device.clone(), *addr);
        compare(&planned.neighbours, &found.neighbours, neighbour, ToString::to_string, &mut damages);
        let entry = |(device, mac): &_| Object::Fdb(LinkName::clone(device), *mac);
        compare(&planned.fdb, &found.fdb, entry, ToString::to_string, &mut damages);
        let peer = |(device, key): &_| Object::Peer(LinkName::clone(device), *key);
        compare(
            &planned.peers,
            &found.peers,
            peer,
            |end| format!("{} with {:?}", end.endpoint, end.ranges),
            &mut damages,
        );
        damages
    }
}

fn vxlan(planned: Option<&Vxlan>, found: Option<&Vxlan>) -> Option<Damage> {
    let name = planned.or(found)?.name.clone();
    let what = match (planned, found) {
        (Some(_), None) => "is gone, down or of another kind".to_owned(),
        (None, Some(_)) => "is there and should not be".to_owned(),
        (Some(planned), Some(found)) => {
            let mut differences = Vec::new();
            let mut differ = |name: &str, planned: &dyn Debug, found: &dyn Debug| {
                let (planned, found) = (format!("{planned:?}"), format!("{found:?}"));
                if planned != found {
                    differences.push(format!("has {name} {found} and not {planned}"));
                }
            };
            differ("VNI", &planned.vni, &found.vni);
            differ("port", &planned.port, &found.port);
            differ("local address", &planned.local, &found.local);
            differ("MAC", &planned.mac, &found.mac);
            differ("MTU", &planned.mtu, &found.mtu);
            differ("addresses", &planned.addrs, &found.addrs);
            differences.join(", ")
        }
        (None, None) => return None,
    };
    Some(Damage::new(Object::Device(name), what))
}

fn compare<K: Ord, V: PartialEq>(
    planned: &BTreeMap<K, V>,
    found: &BTreeMap<K, V>,
    object: impl Fn(&K) -> Object,
    describe: impl Fn(&V) -> String,
    damages: &mut Vec<Damage>,
) {
    for (key, value) in planned {
        match found.get(key) {
            None => damages.push(Damage::new(object(key), "was removed or replaced")),
            Some(other) if other != value => {
                let what = format!("leads to {} and not to {}", describe(other), describe(value));
                damages.push(Damage::new(object(key), what));
            }
            Some(_) => {}
        }
    }
    let strange = found.keys().filter(|key| !planned.contains_key(key));
    damages.extend(strange.map(|key| Damage::new(object(key), "is there and should not be")));
}

fn describe(target: &RouteTarget) -> String {
    match target {
        RouteTarget::Device(device) => device.to_string(),
        RouteTarget::OnLink { device, via, source: None } => format!("{via} on {device}"),
        RouteTarget::OnLink { device, via, source: Some(source) } => format!("{via} on {device} from {source}"),
        RouteTarget::Via(via) => via.to_string(),
        RouteTarget::Blackhole => "nowhere".to_owned(),
    }
}
