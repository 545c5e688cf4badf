//! Which address families a Service has, and its addresses (Kubernetes documentation, "IPv4/IPv6 dual-stack").

use std::net::IpAddr;

use serde_json::{Value, json};

use super::{
    super::{
        FieldError,
        tree::{list, text},
    },
    holdings::{Family, Holdings},
    ports::internal,
    ranges::Ranges,
};

/// Works out the families and the policy; what is asked for stays as it is or is refused.
pub(super) fn fill_families(spec: &mut Value, old: Option<&Value>, ranges: &Ranges, errors: &mut Vec<FieldError>) {
    if is_settled(spec, old) {
        return;
    }
    let mut families: Vec<Family> = list(&spec["ipFamilies"]).iter().filter_map(Family::named).collect();
    families.extend(families_of_addresses(spec, families.len(), ranges, errors));
    if asked_addresses(spec).first() == Some(&"None")
        && spec["selector"].as_object().is_none_or(serde_json::Map::is_empty)
    {
        return fill_families_by_hand(spec, families, ranges);
    }
    refuse_families(spec, &families, ranges, errors);
    if !errors.is_empty() {
        return;
    }
    let policy = match text(&spec["ipFamilyPolicy"]) {
        "" => "SingleStack",
        policy => policy,
    }
    .to_owned();
    let cluster = ranges.families();
    if families.is_empty() {
        families.extend(cluster.first());
    }
    if policy != "SingleStack"
        && let [only] = families[..]
    {
        families.extend(cluster.into_iter().filter(|family| *family != only));
    }
    set(spec, &families, &policy);
}

/// A Service that prefers two families, has what it had and is told nothing else stays as it is, also where the cluster has got
/// another family since.
fn is_settled(spec: &Value, old: Option<&Value>) -> bool {
    let same =
        |old: &Value| ["ipFamilyPolicy", "ipFamilies", "clusterIPs"].iter().all(|field| spec[*field] == old[*field]);
    spec["ipFamilyPolicy"] == "PreferDualStack"
        && old.is_some_and(|old| !list(&old["spec"]["ipFamilies"]).is_empty() && same(&old["spec"]))
}

/// The families of the addresses beyond those whose family is named.
fn families_of_addresses(spec: &Value, named: usize, ranges: &Ranges, errors: &mut Vec<FieldError>) -> Vec<Family> {
    let asked = asked_addresses(spec);
    let addresses = asked.iter().enumerate().skip(named).filter_map(|(i, one)| Some((i, one.parse::<IpAddr>().ok()?)));
    let mut families = Vec::new();
    for (i, address) in addresses {
        let family = Family::of_address(address);
        if ranges.of(family).is_none() {
            let message = format!("{} is not configured on this cluster", family.name());
            errors.push(FieldError::invalid(format!("spec.clusterIPs[{i}]"), json!(asked), message));
        } else {
            families.push(family);
        }
    }
    families
}

/// A headless Service without a selector has whatever endpoints somebody writes, so it may name families that the cluster has not.
fn fill_families_by_hand(spec: &mut Value, mut families: Vec<Family>, ranges: &Ranges) {
    if families.is_empty() {
        families.extend(ranges.families().first());
    }
    let policy = match text(&spec["ipFamilyPolicy"]) {
        "" => "RequireDualStack",
        policy => policy,
    }
    .to_owned();
    if policy != "SingleStack"
        && let [only] = families[..]
    {
        families.push(only.other());
    }
    set(spec, &families, &policy);
}

fn refuse_families(spec: &Value, families: &[Family], ranges: &Ranges, errors: &mut Vec<FieldError>) {
    let policy = &spec["ipFamilyPolicy"];
    if matches!(text(policy), "" | "SingleStack") {
        for (several, field) in
            [(list(&spec["clusterIPs"]).len() > 1, "clusterIPs"), (list(&spec["ipFamilies"]).len() > 1, "ipFamilies")]
        {
            if several {
                let message =
                    format!("must be RequireDualStack or PreferDualStack when multiple {field} are specified");
                errors.push(FieldError::invalid("spec.ipFamilyPolicy", policy.clone(), message));
            }
        }
    }
    for (i, family) in families.iter().enumerate().filter(|(_, family)| ranges.of(**family).is_none()) {
        let field = format!("spec.ipFamilies[{i}]");
        errors.push(FieldError::invalid(field, family.name(), "not configured on this cluster"));
    }
    if *policy == "RequireDualStack" && ranges.families().len() < 2 {
        let message = "this cluster is not configured for dual-stack services";
        errors.push(FieldError::invalid("spec.ipFamilyPolicy", policy.clone(), message));
    }
}

fn set(spec: &mut Value, families: &[Family], policy: &str) {
    let names: Vec<&str> = families.iter().map(|family| family.name()).collect();
    spec["ipFamilies"] = json!(names);
    spec["ipFamilyPolicy"] = json!(policy);
}

/// The addresses that are asked for, in order.
fn asked_addresses(spec: &Value) -> Vec<&str> {
    let all: Vec<&str> = list(&spec["clusterIPs"]).iter().map(text).filter(|one| !one.is_empty()).collect();
    match text(&spec["clusterIP"]) {
        one if all.is_empty() && !one.is_empty() => vec![one],
        _ => all,
    }
}

/// Gives the Service an address of each of its families; those that are asked for are checked.
pub(super) fn fill_addresses(spec: &mut Value, ranges: &Ranges, held: &Holdings, errors: &mut Vec<FieldError>) {
    let asked = asked_addresses(spec);
    let one = text(&spec["clusterIP"]);
    if asked.first().is_some_and(|first| !one.is_empty() && *first != one) {
        let message = "first value must match `clusterIP`";
        errors.push(FieldError::invalid("spec.clusterIPs", spec["clusterIPs"].clone(), message));
        return;
    }
    let mut addresses: Vec<String> = asked.iter().map(|one| (*one).to_owned()).collect();
    if addresses.first().is_none_or(|first| first != "None") {
        for one in &addresses {
            if let Err(message) = check_address(one, ranges, held) {
                errors.push(FieldError::invalid("spec.clusterIPs", json!(addresses), message));
            }
        }
        for family in list(&spec["ipFamilies"]).iter().skip(addresses.len()).filter_map(Family::named) {
            match ranges.of(family).and_then(super::addresses::AddressRange::next) {
                Some(address) => addresses.push(address.to_string()),
                None => errors.push(internal("spec.clusterIPs", "failed to allocate a serviceIP: range is full")),
            }
        }
    }
    spec["clusterIP"] = json!(addresses.first());
    spec["clusterIPs"] = json!(addresses);
}

fn check_address(asked: &str, ranges: &Ranges, held: &Holdings) -> Result<(), String> {
    let address: IpAddr = asked.parse().map_err(|_| "must be empty, 'None', or a valid IP address".to_owned())?;
    if held.addresses.contains(&address) {
        return Ok(());
    }
    let family = Family::of_address(address);
    let range = ranges
        .of(family)
        .ok_or_else(|| format!("failed to allocate IP {asked}: {} is not configured on this cluster", family.name()))?;
    if !range.is_usable(address) {
        return Err(format!(
            "failed to allocate IP {asked}: provided IP is not in the valid range. The range of valid IPs is {}",
            range.cidr()
        ));
    }
    if range.is_taken(address) {
        return Err(format!("failed to allocate IP {asked}: provided IP is already allocated"));
    }
    Ok(())
}
