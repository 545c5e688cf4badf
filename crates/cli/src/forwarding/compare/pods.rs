//! Who may send what, which ports of a node lead to pods, and what limits pods: what of the tables that all of a node's pods are in is not as it
//! is planned for those on a packet's ways.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use podnet_kernel::snapshot::{Rules, Told};
use podnet_model::{Family, limits::PodLimits};
use podnet_planner::{
    attachments,
    limits::{Step, rules as limits, shaping, steps},
    ruleset::RuleSet,
    trace::{Entry, Planned},
};

use super::Findings;

/// What of these entries differs. Of a kernel without rules that is said elsewhere.
pub(super) fn compare(told: &Told, planned: &Planned, entries: &BTreeSet<Entry>) -> Findings {
    let mut findings = Findings::default();
    of_bandwidths(told, planned, entries, &mut findings);
    let Some(rules) = &told.kernel.rules else { return findings };
    for family in Family::ALL {
        of_pods(rules, planned, family, entries, &mut findings);
        of_limits(rules, planned, family, entries, &mut findings);
    }
    findings
}

/// Nothing that a pod sends passes where it is not among those who may send; where others are as well, nothing is lost.
fn of_pods(rules: &Rules, planned: &Planned, family: Family, entries: &BTreeSet<Entry>, findings: &mut Findings) {
    let senders = entries.iter().filter_map(|entry| match entry {
        Entry::Sender(addr) if Family::of(addr) == family => Some(*addr),
        _ => None,
    });
    let is_known = |addr: &IpAddr| planned.link(*addr).is_some_and(|link| link.mac.is_some());
    let (known, unknown): (BTreeSet<IpAddr>, BTreeSet<IpAddr>) = senders.partition(is_known);
    let untold = "who tells of the node knows no Ethernet address of it";
    findings.left_out.extend(unknown.iter().map(|addr| format!("who may send with the address {addr}: {untold}")));
    let on_bridges = entries.iter().filter_map(|entry| match entry {
        Entry::Port(addr) if Family::of(addr) == family => Some(addr),
        _ => None,
    });
    findings.left_out.extend(on_bridges.map(|addr| format!("who may send with the address {addr}: it is on a bridge")));
    let asks_for_ports = entries.contains(&Entry::Ports(family));
    if known.is_empty() && !asks_for_ports {
        return;
    }
    let wanted = planned.attached(family);
    if asks_for_ports {
        let maps = RuleSet { backend_maps: wanted.backend_maps.clone(), ..RuleSet::empty(family) };
        findings.found.extend(rules.differences(attachments::TABLE, &maps));
        findings.left_out.extend(rules.unlisted(attachments::TABLE, &maps));
    }
    findings.left_out.extend(rules.unlisted(attachments::TABLE, &wanted));
    for fault in rules.differences_of(attachments::TABLE, &wanted, &known) {
        let is_surplus = !fault.is_missing && fault.what.starts_with("senders ");
        if is_surplus { findings.detours.push(fault.what) } else { findings.found.push(fault.what) }
    }
}

/// Where a limit is missing, nothing is lost; another one loses what it should not.
fn of_limits(rules: &Rules, planned: &Planned, family: Family, entries: &BTreeSet<Entry>, findings: &mut Findings) {
    let asked = entries.iter().filter_map(|entry| match entry {
        Entry::Limits(addr) if Family::of(addr) == family => Some(*addr),
        _ => None,
    });
    let (mut addrs, mut limited) = (BTreeSet::new(), BTreeMap::<IpAddr, &PodLimits>::new());
    for addr in asked {
        match planned.limits(addr) {
            // Those stay that were in force before.
            Some(Err(refused)) => {
                findings.left_out.push(format!("what limits the pod with the address {addr}: {refused}"));
                continue;
            }
            Some(Ok(limits)) => {
                limited.insert(addr, limits);
            }
            None => {}
        }
        addrs.insert(addr);
    }
    if addrs.is_empty() {
        return;
    }
    let wanted = limits::part(family, limited.iter().map(|(addr, limits)| (*addr, *limits)));
    findings.left_out.extend(rules.unlisted(limits::TABLE, &wanted));
    for fault in rules.differences_of(limits::TABLE, &wanted, &addrs) {
        if fault.is_missing { findings.detours.push(fault.what) } else { findings.found.push(fault.what) }
    }
}

/// Of those that the pod's annotations ask for; what a runtime gave it beside them its node alone knows.
fn of_bandwidths(told: &Told, planned: &Planned, entries: &BTreeSet<Entry>, findings: &mut Findings) {
    for entry in entries {
        let (Entry::Limits(addr) | Entry::Bandwidth(addr)) = entry else { continue };
        let (Some(Ok(limits)), Some(link)) = (planned.limits(*addr), planned.link(*addr)) else { continue };
        let wanted = shaping(limits, planned.overlay.pod_mtu());
        if (wanted.ingress, wanted.egress) == (None, None) {
            continue;
        }
        let Some(shaped) = &told.kernel.shaped else {
            findings.left_out.push(format!("what shapes the traffic of {}, of which nothing was told", link.device));
            continue;
        };
        let found = shaped.iter().find(|(device, _)| *device == link.device);
        let found = found.map(|(_, found)| *found).unwrap_or_default();
        for step in steps(&wanted, &found) {
            let (words, bucket, there) = match step {
                Step::SetIngress(bucket) => ("to", bucket, found.ingress),
                Step::SetEgress(bucket) => ("from", bucket, found.egress),
                // The annotations ask for no such limit.
                Step::RemoveIngress | Step::RemoveEgress => continue,
            };
            let is = match there {
                Some(other) if other.rate != bucket.rate => format!("it is {}", other.rate),
                Some(_) => "its bucket has another size".to_owned(),
                None if words == "from" && found.diverted => "what leads there is not in order".to_owned(),
                None => "there is none".to_owned(),
            };
            let what = format!("the limit {words} the pod of {} should be {} bytes/s", link.device, bucket.rate);
            let what = format!("{what} with headers: {is}");
            let is_missing = there.is_none() && !(words == "from" && found.diverted);
            if is_missing { findings.detours.push(what) } else { findings.found.push(what) }
        }
    }
}

#[cfg(test)]
mod tests;
