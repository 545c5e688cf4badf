//! What a Service asks for and what it has.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;
use serde_json::{Value, json};

use super::{
    super::{
        FieldError, FieldErrorKind,
        tree::{Object, copy, each, list, text},
    },
    ranges::Ranges,
};

/// A port of every node, for one transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct NodePort {
    pub(super) protocol: Transport,
    pub(super) number: u16,
}

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Transport {
    Tcp,
    Udp,
    Sctp,
}

impl Transport {
    fn of(port: &Value) -> Self {
        match text(&port["protocol"]) {
            "UDP" => Self::Udp,
            "SCTP" => Self::Sctp,
            _ => Self::Tcp,
        }
    }
}

/// What one Service has of the ranges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Holdings {
    pub(super) addresses: BTreeSet<IpAddr>,
    pub(super) ports: BTreeSet<NodePort>,
}

impl Holdings {
    /// What a Service that went through [`fill`] has.
    pub(super) fn of(service: &Value) -> Self {
        let spec = &service["spec"];
        let mut holdings = Self::default();
        if needs_address(spec) {
            let named = list(&spec["clusterIPs"]).iter().chain([&spec["clusterIP"]]);
            holdings.addresses = named.filter_map(|address| text(address).parse().ok()).collect();
        }
        if takes_node_ports(spec) {
            let ports = list(&spec["ports"]).iter();
            holdings.ports = ports
                .filter_map(|port| Some(NodePort { protocol: Transport::of(port), number: number(port)? }))
                .collect();
        }
        if let Some(number) =
            spec["healthCheckNodePort"].as_u64().and_then(|n| u16::try_from(n).ok()).filter(|n| *n > 0)
        {
            holdings.ports.insert(NodePort { protocol: Transport::Tcp, number });
        }
        holdings
    }
}

/// A port's node port; none where it has none yet or an impossible one.
fn number(port: &Value) -> Option<u16> {
    port["nodePort"].as_u64().and_then(|number| u16::try_from(number).ok()).filter(|number| *number > 0)
}

fn needs_address(spec: &Value) -> bool {
    spec["type"] != "ExternalName"
}

/// Whether the Service's ports may have node ports.
fn takes_node_ports(spec: &Value) -> bool {
    matches!(text(&spec["type"]), "NodePort" | "LoadBalancer")
}

/// Whether they get one without asking.
fn wants_node_ports(spec: &Value) -> bool {
    spec["type"] == "NodePort" || (spec["type"] == "LoadBalancer" && spec["allocateLoadBalancerNodePorts"] != false)
}

/// Takes over from the Service as it was what a client that replaces it leaves out, and drops what the new type has not.
pub(in crate::admission) fn inherit(old: &Value, service: &mut Object) {
    let was = &old["spec"];
    let Some(spec) = service.get_mut("spec") else { return };
    let (address, ports) = (needs_address(spec), takes_node_ports(spec));
    let Some(fields) = spec.as_object_mut() else { return };
    drop_what_was_kept(was, fields, address, ports);
    if address && needs_address(was) {
        inherit_address(was, fields);
    }
    if ports && takes_node_ports(was) {
        inherit_ports(was, fields);
    }
}

/// A patch that changes the type leaves the old type's values in place. They were not asked for.
fn drop_what_was_kept(was: &Value, fields: &mut Object, address: bool, ports: bool) {
    if !ports && takes_node_ports(was) {
        let kept = list(&was["ports"]).iter().filter_map(number).collect::<BTreeSet<_>>();
        for port in each(fields, "ports") {
            if port.get("nodePort").and_then(Value::as_u64).is_some_and(|n| kept.iter().any(|k| u64::from(*k) == n)) {
                port.shift_remove("nodePort");
            }
        }
        let no_external = fields.get("externalIPs").is_none_or(|addresses| list(addresses).is_empty());
        if no_external && fields.get("externalTrafficPolicy") == was.get("externalTrafficPolicy") {
            fields.shift_remove("externalTrafficPolicy");
        }
    }
    if fields.get("type").is_none_or(|kind| kind != "LoadBalancer") && was["type"] == "LoadBalancer" {
        for field in ["allocateLoadBalancerNodePorts", "healthCheckNodePort"] {
            if fields.get(field) == was.get(field) {
                fields.shift_remove(field);
            }
        }
    }
    if !address && needs_address(was) {
        for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"] {
            if fields.get(field) == was.get(field) {
                fields.shift_remove(field);
            }
        }
    }
    if address && was["type"] == "ExternalName" && fields.get("externalName") == was.get("externalName") {
        fields.shift_remove("externalName");
    }
}

fn inherit_address(was: &Value, fields: &mut Object) {
    let unset =
        |value: Option<&Value>| value.is_none_or(|v| v.is_null() || v == "" || list(v).is_empty() && v.is_array());
    match (unset(fields.get("clusterIP")), unset(fields.get("clusterIPs"))) {
        (true, true) => {
            copy(was, fields, "clusterIP");
            copy(was, fields, "clusterIPs");
        }
        // The client changed the one that it knows.
        (false, false)
            if fields.get("clusterIP") != was.get("clusterIP") && fields.get("clusterIPs") == was.get("clusterIPs") =>
        {
            fields.shift_remove("clusterIPs");
        }
        _ => {}
    }
    for field in ["ipFamilies", "ipFamilyPolicy"] {
        if unset(fields.get(field)) {
            copy(was, fields, field);
        }
    }
}

/// Ports are the same ones where their names are.
fn inherit_ports(was: &Value, fields: &mut Object) {
    let asked: BTreeSet<u64> = fields
        .get("ports")
        .map(|ports| list(ports).iter().filter_map(|port| port["nodePort"].as_u64()).filter(|n| *n > 0).collect())
        .unwrap_or_default();
    for port in each(fields, "ports") {
        if port.get("nodePort").is_some_and(|number| !number.is_null() && number != 0) {
            continue;
        }
        let name = port.get("name").map(text).unwrap_or_default();
        let before = list(&was["ports"]).iter().find(|before| text(&before["name"]) == name);
        if let Some(number) = before.and_then(number)
            && !asked.contains(&u64::from(number))
        {
            port.insert("nodePort".to_owned(), number.into());
        }
    }
}

/// Completes a Service from what is free or its own already; says what it then has.
pub(super) fn fill(service: &mut Value, ranges: &Ranges, held: &Holdings) -> Result<Holdings, Vec<FieldError>> {
    let Some(spec) = service.get_mut("spec") else { return Ok(Holdings::default()) };
    let mut errors = Vec::new();
    if needs_address(spec) {
        fill_families(spec, ranges.cidr(), &mut errors);
        fill_address(spec, ranges, held, &mut errors);
    }
    let mut taken = BTreeSet::new();
    if takes_node_ports(spec) {
        check_ports(spec, ranges, held, &mut taken, &mut errors);
        if wants_node_ports(spec) && errors.is_empty() {
            fill_ports(spec, ranges, held, &mut taken, &mut errors);
        }
    }
    if errors.is_empty() { Ok(Holdings::of(service)) } else { Err(errors) }
}

fn fill_families(spec: &mut Value, cidr: &IpNet, errors: &mut Vec<FieldError>) {
    let family = if matches!(cidr, IpNet::V4(_)) { "IPv4" } else { "IPv6" };
    for (i, other) in list(&spec["ipFamilies"]).iter().enumerate().filter(|(_, asked)| **asked != family) {
        let field = format!("spec.ipFamilies[{i}]");
        errors.push(FieldError::invalid(field, other.clone(), "not configured on this cluster"));
    }
    if spec["ipFamilyPolicy"] == "RequireDualStack" {
        let message = "this cluster is not configured for dual-stack services";
        errors.push(FieldError::invalid("spec.ipFamilyPolicy", "RequireDualStack", message));
    }
    let Some(spec) = spec.as_object_mut() else { return };
    if spec.get("ipFamilies").is_none_or(|families| list(families).is_empty()) {
        spec.insert("ipFamilies".to_owned(), json!([family]));
    }
    super::super::tree::set_default_text(spec, "ipFamilyPolicy", "SingleStack");
}

fn fill_address(spec: &mut Value, ranges: &Ranges, held: &Holdings, errors: &mut Vec<FieldError>) {
    let asked = match (text(&spec["clusterIP"]), text(&spec["clusterIPs"][0])) {
        ("", first) => first,
        (one, "") => one,
        (one, first) if one == first => one,
        (_, _) => {
            let message = "first value must match `clusterIP`";
            errors.push(FieldError::invalid("spec.clusterIPs", spec["clusterIPs"].clone(), message));
            return;
        }
    };
    let address = match asked {
        "None" => "None".to_owned(),
        "" => match ranges.next_address() {
            Some(address) => address.to_string(),
            None => {
                errors.push(internal("spec.clusterIPs", "failed to allocate a serviceIP: range is full"));
                return;
            }
        },
        asked => match check_address(asked, ranges, held) {
            Ok(address) => address.to_string(),
            Err(message) => {
                errors.push(FieldError::invalid("spec.clusterIPs", json!([asked]), message));
                return;
            }
        },
    };
    if let Some(spec) = spec.as_object_mut() {
        spec.insert("clusterIP".to_owned(), json!(address));
        spec.insert("clusterIPs".to_owned(), json!([address]));
    }
}

fn check_address(asked: &str, ranges: &Ranges, held: &Holdings) -> Result<IpAddr, String> {
    let address: IpAddr = asked.parse().map_err(|_| "must be empty, 'None', or a valid IP address".to_owned())?;
    if held.addresses.contains(&address) {
        return Ok(address);
    }
    if !ranges.is_usable(address) {
        return Err(format!(
            "failed to allocate IP {asked}: provided IP is not in the valid range. The range of valid IPs is {}",
            ranges.cidr()
        ));
    }
    if ranges.address_taken(address) {
        return Err(format!("failed to allocate IP {asked}: provided IP is already allocated"));
    }
    Ok(address)
}

/// Checks the ports that were asked for.
fn check_ports(
    spec: &Value,
    ranges: &Ranges,
    held: &Holdings,
    taken: &mut BTreeSet<NodePort>,
    errors: &mut Vec<FieldError>,
) {
    let valid = ranges.node_ports();
    for (i, port) in list(&spec["ports"]).iter().enumerate() {
        let Some(asked) = port["nodePort"].as_i64().filter(|number| *number != 0) else { continue };
        let field = format!("spec.ports[{i}].nodePort");
        let number = u16::try_from(asked).ok();
        let wanted = number.map(|number| NodePort { protocol: Transport::of(port), number });
        match wanted {
            Some(wanted) if held.ports.contains(&wanted) => {
                taken.insert(wanted);
            }
            Some(wanted) if valid.contains(&wanted.number) => {
                if ranges.port_taken(&wanted) {
                    errors.push(FieldError::invalid(field, asked, "provided port is already allocated"));
                } else {
                    taken.insert(wanted);
                }
            }
            _ => {
                let (from, to) = (valid.start(), valid.end());
                let range = format!("The range of valid ports is {from}-{to}");
                errors.push(FieldError::invalid(
                    field,
                    asked,
                    format!("provided port is not in the valid range. {range}"),
                ));
            }
        }
    }
}

/// Gives a node port to the ports that have none. Ports of the same number and another protocol share theirs.
fn fill_ports(
    spec: &mut Value,
    ranges: &Ranges,
    held: &Holdings,
    taken: &mut BTreeSet<NodePort>,
    errors: &mut Vec<FieldError>,
) {
    let ports = list(&spec["ports"]).to_vec();
    let mut given: Vec<(Value, u16)> =
        ports.iter().filter_map(|port| Some((port["port"].clone(), number(port)?))).collect();
    let Some(Value::Array(filled)) = spec.get_mut("ports") else { return };
    for (i, (port, filled)) in ports.iter().zip(filled).enumerate() {
        if number(port).is_some() {
            continue;
        }
        let protocol = Transport::of(port);
        let protocols: Vec<Transport> =
            ports.iter().filter(|other| other["port"] == port["port"]).map(Transport::of).collect();
        let is_free = |wanted: NodePort| {
            !taken.contains(&wanted) && (!ranges.port_taken(&wanted) || held.ports.contains(&wanted))
        };
        let shared = given.iter().filter(|(number, _)| *number == port["port"]).map(|(_, shared)| *shared);
        let mut shared = shared.filter(|number| is_free(NodePort { protocol, number: *number }));
        let free_for_all = |number| protocols.iter().all(|protocol| is_free(NodePort { protocol: *protocol, number }));
        let Some(number) = shared.next().or_else(|| ranges.next_port(free_for_all)) else {
            let message = "failed to allocate a nodePort: range is full";
            errors.push(internal(&format!("spec.ports[{i}].nodePort"), message));
            return;
        };
        taken.insert(NodePort { protocol, number });
        given.push((port["port"].clone(), number));
        if let Some(filled) = filled.as_object_mut() {
            filled.insert("nodePort".to_owned(), number.into());
        }
    }
}

fn internal(field: &str, message: &str) -> FieldError {
    FieldError { field: field.to_owned(), kind: FieldErrorKind::Internal, message: message.to_owned() }
}
