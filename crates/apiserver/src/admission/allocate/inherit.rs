//! What a changed Service has from the one that it was.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    super::tree::{Object, copy, each, list, text},
    holdings::{is_external, needs_address, needs_health_check, number, takes_node_ports, wants_node_ports},
};

/// Takes over from the Service as it was what a client that replaces it leaves out, and drops what the new type has not. (What a
/// client sets for itself is not dropped: it is for validation to say that it does not fit.)
pub(in crate::admission) fn inherit(old: &Value, service: &mut Object) {
    let was = &old["spec"];
    let Some(is) = service.get("spec").cloned() else { return };
    if is["type"] != "LoadBalancer"
        && let Some(status) = service.get_mut("status").and_then(Value::as_object_mut)
    {
        // Nobody balances load for it any more, and what was said of that would be believed.
        status.insert("loadBalancer".to_owned(), Value::Object(Object::new()));
    }
    let Some(fields) = service.get_mut("spec").and_then(Value::as_object_mut) else { return };
    drop_what_was_kept(was, &is, fields);
    if needs_address(&is) && needs_address(was) {
        inherit_address(was, fields);
    }
    // Where none are allocated, a port that is left out is given back; one that is named stays.
    if wants_node_ports(&is) && takes_node_ports(was) {
        inherit_ports(was, fields);
    }
    if needs_health_check(&is) && needs_health_check(was) && fields.get("healthCheckNodePort").is_none_or(is_unset) {
        copy(was, fields, "healthCheckNodePort");
    }
}

/// A patch that changes the type leaves the old type's values in place. They were not asked for.
fn drop_what_was_kept(was: &Value, is: &Value, fields: &mut Object) {
    let mut drop_kept = |names: &[&str]| {
        for name in names {
            if fields.get(*name) == was.get(*name) {
                fields.shift_remove(*name);
            }
        }
    };
    if is_external(was) && !is_external(is) {
        drop_kept(&["externalTrafficPolicy"]);
    }
    if was["type"] == "LoadBalancer" && is["type"] != "LoadBalancer" {
        drop_kept(&["allocateLoadBalancerNodePorts", "loadBalancerClass"]);
    }
    if needs_health_check(was) && !needs_health_check(is) {
        drop_kept(&["healthCheckNodePort"]);
    }
    if needs_address(was) && !needs_address(is) {
        drop_kept(&["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"]);
    }
    if !needs_address(was) && needs_address(is) {
        drop_kept(&["externalName"]);
    }
    if takes_node_ports(was) && !takes_node_ports(is) {
        let kept = list(&was["ports"]).iter().filter_map(|port| number(&port["nodePort"])).collect::<BTreeSet<_>>();
        for port in each(fields, "ports") {
            if port.get("nodePort").and_then(number).is_some_and(|number| kept.contains(&number)) {
                port.shift_remove("nodePort");
            }
        }
    }
}

fn is_unset(value: &Value) -> bool {
    value.is_null() || value == "" || value == 0 || value.as_array().is_some_and(Vec::is_empty)
}

fn inherit_address(was: &Value, fields: &mut Object) {
    let (one, all) = (fields.get("clusterIP").cloned(), fields.get("clusterIPs").cloned());
    let unset = |value: &Option<Value>| value.as_ref().is_none_or(is_unset);
    match (unset(&one), unset(&all)) {
        (true, true) => {
            copy(was, fields, "clusterIP");
            copy(was, fields, "clusterIPs");
        }
        // The client knows one of the two, and not that there may be more.
        (false, true) if one.as_ref() == was.get("clusterIP") => copy(was, fields, "clusterIPs"),
        // It changed the one that it knows.
        (false, false) if one.as_ref() != was.get("clusterIP") && all.as_ref() == was.get("clusterIPs") => {
            fields.shift_remove("clusterIPs");
        }
        _ => {}
    }
    for field in ["ipFamilies", "ipFamilyPolicy"] {
        if fields.get(field).is_none_or(is_unset) {
            copy(was, fields, field);
        }
    }
    if was["ipFamilyPolicy"] != "SingleStack" && fields.get("ipFamilyPolicy").map(text) == Some("SingleStack") {
        keep_first(was, fields);
    }
}

/// A Service that is to have one family only keeps its first one, where the client does not say which.
fn keep_first(was: &Value, fields: &mut Object) {
    for field in ["clusterIPs", "ipFamilies"] {
        if fields.get(field) == was.get(field)
            && let Some(Value::Array(values)) = fields.get_mut(field)
        {
            values.truncate(1);
        }
    }
}

/// Ports are the same ones where their names are.
fn inherit_ports(was: &Value, fields: &mut Object) {
    let asked: BTreeSet<u16> = fields
        .get("ports")
        .map(|ports| list(ports).iter().filter_map(|port| number(&port["nodePort"])).collect())
        .unwrap_or_default();
    for port in each(fields, "ports") {
        if port.get("nodePort").is_some_and(|number| !is_unset(number)) {
            continue;
        }
        let name = port.get("name").map(text).unwrap_or_default();
        let before = list(&was["ports"]).iter().find(|before| text(&before["name"]) == name);
        if let Some(number) = before.and_then(|before| number(&before["nodePort"]))
            && !asked.contains(&number)
        {
            port.insert("nodePort".to_owned(), number.into());
        }
    }
}
