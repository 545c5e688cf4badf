//! `service.kubernetes.io/topology-mode: Auto`: each zone gets endpoints in proportion to its nodes' CPUs (KEP-2433, "Topology Aware
//! Routing"), and none where that cannot be done safely: then no endpoint has a hint, and every client may go to each of them.

use std::collections::BTreeMap;

use k8s_openapi::api::{
    core::v1::{Node, Service},
    discovery::v1::{Endpoint, EndpointHints, ForZone},
};
use kube::ResourceExt;

use super::{collect::Group, lookup::zone};
use crate::{admission::quantity, controllers::scheduler::is_node_ready};

/// The annotations that ask for it: the second one is of before Kubernetes 1.27.
const ANNOTATIONS: [&str; 2] = ["service.kubernetes.io/topology-mode", "service.kubernetes.io/topology-aware-hints"];
/// Nodes with these labels carry no Services' load.
const EXCLUDED: [&str; 2] = ["node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master"];
/// No zone's endpoints may get more of the load than this beyond their share.
const OVERLOAD: f64 = 0.2;

/// Why a Service's endpoints have no hints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unsafe {
    /// Nobody knows how large zones are.
    #[error("a ready node says no zone (topology.kubernetes.io/zone) or no allocatable CPU")]
    UnknownNode,
    /// There is nothing to choose.
    #[error("ready nodes are in fewer than two zones")]
    OneZone,
    /// An endpoint is nowhere.
    #[error("an endpoint is on a node without a zone (topology.kubernetes.io/zone)")]
    UnknownEndpoint,
    /// Some would have to do far more than their share.
    #[error("too few endpoints to give each zone its share with at most 20 % more load")]
    TooFew,
}

/// The share of each zone, all together 1.
pub(super) type Shares = BTreeMap<String, f64>;

/// Whether the Service asks for it.
pub(super) fn is_auto(service: &Service) -> bool {
    let asked = ANNOTATIONS.iter().find_map(|name| service.annotations().get(*name));
    asked.is_some_and(|mode| mode == "Auto" || mode == "auto")
}

/// What of a node counts for the shares: its zone and its CPUs; none where it has no part.
pub(super) fn part(node: &Node) -> Option<(Option<String>, i128)> {
    let excluded = EXCLUDED.iter().any(|label| node.labels().contains_key(*label));
    let counts = !excluded && is_node_ready(node);
    let allocatable = node.status.as_ref().and_then(|status| status.allocatable.as_ref());
    let cpu = allocatable.and_then(|amounts| quantity::milli(&amounts.get("cpu")?.0));
    counts.then(|| (zone(node), cpu.unwrap_or(0)))
}

/// The shares of zones by the nodes' CPUs.
pub(super) fn shares<'n>(nodes: impl Iterator<Item = &'n Node>) -> Result<Shares, Unsafe> {
    let mut by_zone = Shares::new();
    for (zone, cpu) in nodes.filter_map(part) {
        let zone = zone.filter(|_| cpu > 0).ok_or(Unsafe::UnknownNode)?;
        // Thousandths of cores: exact far beyond any cluster.
        #[allow(clippy::cast_precision_loss, reason = "a share need not be exact")]
        let cpu = cpu as f64;
        *by_zone.entry(zone).or_default() += cpu;
    }
    let total: f64 = by_zone.values().sum();
    if by_zone.len() < 2 {
        return Err(Unsafe::OneZone);
    }
    by_zone.values_mut().for_each(|cpu| *cpu /= total);
    Ok(by_zone)
}

/// Gives the ready endpoints of a family their hints: each its own zone, but so many of zones with too many go to others that each has its
/// share. Others have none.
pub(super) fn assign(groups: &mut [Group], shares: &Result<Shares, Unsafe>) -> Result<(), Unsafe> {
    let mut all: Vec<_> = groups.iter_mut().flat_map(|group| &mut group.endpoints).collect();
    all.iter_mut().for_each(|endpoint| endpoint.hints = None);
    let mut ready: Vec<_> = all.into_iter().filter(|endpoint| is_ready(endpoint)).collect();
    if ready.is_empty() {
        return Ok(());
    }
    let shares = shares.as_ref().map_err(|why| *why)?;
    let zones = ready.iter().map(|endpoint| endpoint.zone.clone().ok_or(Unsafe::UnknownEndpoint));
    let mut zones = zones.collect::<Result<Vec<_>, _>>()?;
    for (from, to) in moves(&zones, &needs(shares, ready.len())?) {
        // The last one that is still where it was: those before it stay when others come.
        if let Some(moved) = zones.iter_mut().rev().find(|zone| **zone == from) {
            *moved = to;
        }
    }
    for (endpoint, name) in ready.iter_mut().zip(zones) {
        endpoint.hints = Some(EndpointHints { for_zones: Some(vec![ForZone { name }]), for_nodes: None });
    }
    Ok(())
}

fn is_ready(endpoint: &Endpoint) -> bool {
    endpoint.conditions.as_ref().is_some_and(|conditions| conditions.ready == Some(true))
}

/// What a zone should have.
#[derive(Clone, Copy, Debug, Default)]
struct Need {
    /// With fewer its endpoints would have too much to do.
    least: f64,
    /// Its share.
    desired: f64,
}

fn needs(shares: &Shares, endpoints: usize) -> Result<BTreeMap<&str, Need>, Unsafe> {
    let endpoints = count(endpoints);
    let need = |share: &f64| {
        let least = (share * endpoints / (1.0 + OVERLOAD)).ceil();
        Need { least, desired: (share * endpoints).max(least) }
    };
    let needs: BTreeMap<_, _> = shares.iter().map(|(zone, share)| (&**zone, need(share))).collect();
    let least: f64 = needs.values().map(|need| need.least).sum();
    if least > endpoints { Err(Unsafe::TooFew) } else { Ok(needs) }
}

/// Which zone gives an endpoint to which, so that each has what it needs at least and about its share.
fn moves(zones: &[String], needs: &BTreeMap<&str, Need>) -> Vec<(String, String)> {
    // Zones where no ready node is need none.
    let need = |zone: &str| needs.get(zone).copied().unwrap_or_default();
    let mut have: BTreeMap<&str, f64> = needs.keys().map(|zone| (*zone, 0.0)).collect();
    zones.iter().for_each(|zone| *have.entry(zone).or_default() += 1.0);
    let mut moves = Vec::new();
    loop {
        let surplus = |zone: &str| have[zone] - need(zone).desired;
        let lacking = have.keys().copied().filter(|zone| have[zone] < need(zone).least);
        let urgent = lacking.max_by(|one, other| surplus(other).total_cmp(&surplus(one)));
        let spare = have.keys().copied().filter(|zone| have[zone] > need(zone).least);
        let by_surplus = |one: &&str, other: &&str| surplus(one).total_cmp(&surplus(other));
        let (from, to) = match (spare.max_by(by_surplus), urgent, have.keys().copied().min_by(by_surplus)) {
            (Some(from), Some(to), _) => (from, to),
            // Where it would only change sides nothing is won.
            (Some(from), None, Some(to)) if surplus(from) - surplus(to) > 1.0 => (from, to),
            _ => return moves,
        };
        *have.entry(from).or_default() -= 1.0;
        *have.entry(to).or_default() += 1.0;
        moves.push((from.to_owned(), to.to_owned()));
    }
}

/// Exact far beyond any cluster.
fn count(of: usize) -> f64 {
    u32::try_from(of).map_or(f64::MAX, f64::from)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::discovery::v1::EndpointConditions;
    use serde_json::{Value, json};

    use super::*;

    fn node(zone: &str, cpu: &str, change: impl FnOnce(&mut Value)) -> Node {
        let mut node = json!({
            "metadata": { "name": "n", "labels": { "topology.kubernetes.io/zone": zone } },
            "status": { "allocatable": { "cpu": cpu }, "conditions": [{ "type": "Ready", "status": "True" }] },
        });
        change(&mut node);
        serde_json::from_value(node).unwrap()
    }

    fn shares_of(zones: &[(&str, f64)]) -> Result<Shares, Unsafe> {
        Ok(zones.iter().map(|(zone, share)| ((*zone).to_owned(), *share)).collect())
    }

    fn group(zones: &[&str]) -> Group {
        let endpoint = |zone: &&str| Endpoint {
            zone: (!zone.is_empty()).then(|| (*zone).to_owned()),
            conditions: Some(EndpointConditions { ready: Some(true), ..EndpointConditions::default() }),
            ..Endpoint::default()
        };
        Group { ports: Vec::new(), endpoints: zones.iter().map(endpoint).collect() }
    }

    /// The zones that endpoints in these zones are for.
    fn hinted(zones: &[&str], shares: &[(&str, f64)]) -> Result<String, Unsafe> {
        let mut groups = [group(zones)];
        assign(&mut groups, &shares_of(shares))?;
        let hint = |endpoint: &Endpoint| endpoint.hints.clone().unwrap().for_zones.unwrap()[0].name.clone();
        Ok(groups[0].endpoints.iter().map(hint).collect())
    }

    #[test]
    fn shares_are_those_of_the_cpus_of_ready_nodes_that_carry_load() {
        let plain = |_: &mut Value| {};
        let nodes = [
            node("a", "2", plain),
            node("b", "500m", plain),
            node("b", "5500m", plain),
            node("c", "64", |node| node["status"]["conditions"][0]["status"] = "False".into()),
            node("c", "64", |node| node["metadata"]["labels"]["node-role.kubernetes.io/control-plane"] = "".into()),
        ];
        assert_eq!(shares(nodes.iter()), shares_of(&[("a", 0.25), ("b", 0.75)]));
        assert_eq!(shares(nodes[..1].iter()), Err(Unsafe::OneZone));
        for unknown in [node("", "1", plain), node("a", "0", plain)] {
            assert_eq!(shares(nodes.iter().chain([&unknown])), Err(Unsafe::UnknownNode));
        }
    }

    #[test]
    fn endpoints_are_for_their_own_zone_where_each_zone_has_its_share() {
        assert_eq!(hinted(&["a", "b", "a", "b"], &[("a", 0.5), ("b", 0.5)]).unwrap(), "abab");
        let uneven = ["a", "a", "a", "a", "a", "b", "b", "b", "b"];
        assert_eq!(hinted(&uneven, &[("a", 0.5), ("b", 0.5)]).unwrap(), "aaaaabbbb", "half an endpoint is none");
    }

    #[test]
    fn zones_with_too_many_endpoints_give_their_last_ones_to_those_with_too_few() {
        assert_eq!(hinted(&["a", "a", "a", "a"], &[("a", 0.5), ("b", 0.5)]).unwrap(), "aabb");
        let thirds = [("a", 1.0 / 3.0), ("b", 1.0 / 3.0), ("c", 1.0 / 3.0)];
        assert_eq!(hinted(&["a", "b", "b", "b", "b", "a"], &thirds).unwrap(), "abbcca");
        assert_eq!(hinted(&["z", "a", "z", "b"], &[("a", 0.5), ("b", 0.5)]).unwrap(), "aabb", "z has no nodes");
    }

    #[test]
    fn there_are_no_hints_where_they_would_overload_some() {
        assert_eq!(
            hinted(&["a", "a", "b"], &[("a", 0.5), ("b", 0.5)]),
            Err(Unsafe::TooFew),
            "half of the load for one of three"
        );
        let uneven = [("a", 0.9), ("b", 0.1)];
        assert_eq!(hinted(&["a", "b"], &uneven), Err(Unsafe::TooFew));
        assert_eq!(hinted(&["a"], &[("a", 0.5), ("b", 0.5)]), Err(Unsafe::TooFew));
        assert_eq!(hinted(&["a", "", "b"], &[("a", 0.5), ("b", 0.5)]), Err(Unsafe::UnknownEndpoint));
        let mut groups = [group(&["a", "b"])];
        assign(&mut groups, &shares_of(&[("a", 0.5), ("b", 0.5)])).unwrap();
        assert_eq!(assign(&mut groups, &Err(Unsafe::OneZone)), Err(Unsafe::OneZone));
        assert!(groups[0].endpoints.iter().all(|endpoint| endpoint.hints.is_none()));
    }

    #[test]
    fn no_zone_is_without_endpoints_and_none_gets_more_than_a_fifth_beyond_its_share() {
        for count in 2..60_u32 {
            for percent in (5..=50).step_by(5) {
                let share = f64::from(percent) / 100.0;
                let zones: Vec<_> = (0..count).map(|n| if n % 3 == 0 { "a" } else { "b" }).collect();
                let Ok(hints) = hinted(&zones, &[("a", share), ("b", 1.0 - share)]) else { continue };
                for (zone, share) in [('a', share), ('b', 1.0 - share)] {
                    let have = f64::from(u32::try_from(hints.matches(zone).count()).unwrap());
                    assert!(share * f64::from(count) <= have * 1.2 + 1e-9, "{count} {percent}: {hints}");
                }
            }
        }
    }
}
