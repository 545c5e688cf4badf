//! A Service's ports.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{
    super::{
        super::{
            FieldError, names,
            tree::{list, text},
        },
        MUST_BE_PORT, named, one_of, port_number, port_reference,
    },
    is_headless,
};

/// The port of kubelet's own server, which must not be led elsewhere by a load balancer.
const KUBELET_PORT: i64 = 10_250;

pub(super) fn validate(spec: &Value, errors: &mut Vec<FieldError>) {
    let ports = list(&spec["ports"]);
    let mut seen_names = BTreeSet::new();
    let mut seen = Vec::new();
    for (i, port) in ports.iter().enumerate() {
        let at = format!("spec.ports[{i}]");
        validate_name(&at, text(&port["name"]), ports.len() > 1, &mut seen_names, errors);
        validate_numbers(&at, port, spec, errors);
        match text(&port["protocol"]) {
            "" => errors.push(FieldError::required(format!("{at}.protocol"), "")),
            _ => one_of(&format!("{at}.protocol"), &port["protocol"], &["SCTP", "TCP", "UDP"], errors),
        }
        if let Some(protocol) = port["appProtocol"].as_str() {
            named(&format!("{at}.appProtocol"), protocol, names::qualified_name, errors);
        }
        let key = (&port["port"], &port["protocol"]);
        if seen.contains(&key) {
            errors.push(FieldError::duplicate(at, json!({ "port": port["port"], "protocol": port["protocol"] })));
        }
        seen.push(key);
    }
    validate_node_ports(ports, errors);
}

fn validate_name<'s>(
    at: &str,
    name: &'s str,
    required: bool,
    seen: &mut BTreeSet<&'s str>,
    errors: &mut Vec<FieldError>,
) {
    match name {
        "" if required => errors.push(FieldError::required(format!("{at}.name"), "")),
        "" => {}
        name => {
            named(&format!("{at}.name"), name, names::label, errors);
            if !seen.insert(name) {
                errors.push(FieldError::duplicate(format!("{at}.name"), name));
            }
        }
    }
}

fn validate_numbers(at: &str, port: &Value, spec: &Value, errors: &mut Vec<FieldError>) {
    match &port["port"] {
        Value::Null => errors.push(FieldError::invalid(format!("{at}.port"), 0, MUST_BE_PORT)),
        number => port_number(&format!("{at}.port"), number, errors),
    }
    if spec["type"] == "LoadBalancer" && port["port"] == KUBELET_PORT {
        let message = format!("may not expose port {KUBELET_PORT} externally since it is used by kubelet");
        errors.push(FieldError::invalid(at, KUBELET_PORT, message));
    }
    // Nobody translates to the ports of headless Services, and clients put anything there.
    if spec["type"] != "ExternalName" && !is_headless(spec) {
        port_reference(&format!("{at}.targetPort"), &port["targetPort"], errors);
    }
    let asks_node_port = port["nodePort"].as_i64().is_some_and(|number| number != 0);
    if asks_node_port && matches!(text(&spec["type"]), "ClusterIP" | "ExternalName") {
        let message = format!("may not be used when `type` is '{}'", text(&spec["type"]));
        errors.push(FieldError::forbidden(format!("{at}.nodePort"), message));
    }
}

/// Two ports of one Service cannot have the same node port.
fn validate_node_ports(ports: &[Value], errors: &mut Vec<FieldError>) {
    let mut seen = Vec::new();
    for (i, port) in ports.iter().enumerate() {
        let Some(number) = port["nodePort"].as_i64().filter(|number| *number != 0) else { continue };
        let key = (number, &port["protocol"]);
        if seen.contains(&key) {
            errors.push(FieldError::duplicate(format!("spec.ports[{i}].nodePort"), number));
        }
        seen.push(key);
    }
}
