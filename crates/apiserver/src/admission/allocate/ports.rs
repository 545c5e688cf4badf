//! The ports of every node that a Service has: one for each of its own, and the one that says whether the node has endpoints.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    super::{FieldError, FieldErrorKind, tree::list},
    holdings::{Holdings, NodePort, Transport, health_check_port, needs_health_check, number},
    ranges::Ranges,
};

const HEALTH_CHECK: &str = "spec.healthCheckNodePort";

/// A Service's ports in the making.
pub(super) struct Ports<'r> {
    ranges: &'r Ranges,
    /// What the Service had before.
    held: &'r Holdings,
    /// What it has now.
    taken: BTreeSet<NodePort>,
}

impl<'r> Ports<'r> {
    pub(super) fn new(ranges: &'r Ranges, held: &'r Holdings) -> Self {
        Self { ranges, held, taken: BTreeSet::new() }
    }

    /// Checks the ports that were asked for.
    pub(super) fn check(&mut self, spec: &Value, errors: &mut Vec<FieldError>) {
        for (i, port) in list(&spec["ports"]).iter().enumerate() {
            let field = format!("spec.ports[{i}].nodePort");
            self.check_one(field, &port["nodePort"], Transport::of(port), errors);
        }
        if needs_health_check(spec) {
            self.check_one(HEALTH_CHECK.to_owned(), &spec["healthCheckNodePort"], Transport::Tcp, errors);
        }
    }

    fn check_one(&mut self, field: String, asked: &Value, protocol: Transport, errors: &mut Vec<FieldError>) {
        let Some(asked) = asked.as_i64().filter(|number| *number != 0) else { return };
        let valid = self.ranges.node_ports();
        match u16::try_from(asked).ok().map(|number| NodePort { protocol, number }) {
            Some(wanted) if self.held.ports.contains(&wanted) => drop(self.taken.insert(wanted)),
            Some(wanted) if valid.contains(&wanted.number) => {
                if self.is_free(wanted) {
                    self.taken.insert(wanted);
                } else {
                    errors.push(FieldError::invalid(field, asked, "provided port is already allocated"));
                }
            }
            _ => {
                let (from, to) = (valid.start(), valid.end());
                let message =
                    format!("provided port is not in the valid range. The range of valid ports is {from}-{to}");
                errors.push(FieldError::invalid(field, asked, message));
            }
        }
    }

    /// Gives a node port to the ports that have none. Ports of the same number and another protocol share theirs.
    pub(super) fn fill(&mut self, spec: &mut Value, errors: &mut Vec<FieldError>) {
        let ports = list(&spec["ports"]).to_vec();
        let mut given: Vec<(Value, u16)> =
            ports.iter().filter_map(|port| Some((port["port"].clone(), number(&port["nodePort"])?))).collect();
        let Some(Value::Array(filled)) = spec.get_mut("ports") else { return };
        for (i, (port, filled)) in ports.iter().zip(filled).enumerate() {
            if number(&port["nodePort"]).is_some() {
                continue;
            }
            let protocol = Transport::of(port);
            let protocols: Vec<Transport> =
                ports.iter().filter(|other| other["port"] == port["port"]).map(Transport::of).collect();
            let shared = given.iter().filter(|(number, _)| *number == port["port"]).map(|(_, shared)| *shared);
            let mut shared = shared.filter(|number| self.is_free(NodePort { protocol, number: *number }));
            let free_for_all =
                |number| protocols.iter().all(|protocol| self.is_free(NodePort { protocol: *protocol, number }));
            let Some(number) = shared.next().or_else(|| self.ranges.next_port(free_for_all)) else {
                let message = "failed to allocate a nodePort: range is full";
                errors.push(internal(&format!("spec.ports[{i}].nodePort"), message));
                return;
            };
            self.taken.insert(NodePort { protocol, number });
            given.push((port["port"].clone(), number));
            if let Some(filled) = filled.as_object_mut() {
                filled.insert("nodePort".to_owned(), number.into());
            }
        }
    }

    /// Gives the port where load balancers ask whether a node has endpoints, where the Service needs one and has none.
    pub(super) fn fill_health_check(&mut self, spec: &mut Value, errors: &mut Vec<FieldError>) {
        if !needs_health_check(spec) || health_check_port(spec).is_some() {
            return;
        }
        let is_free = |number| self.is_free(NodePort { protocol: Transport::Tcp, number });
        match self.ranges.next_port(is_free) {
            Some(number) => spec["healthCheckNodePort"] = number.into(),
            None => errors.push(internal(HEALTH_CHECK, "failed to allocate a HealthCheck NodePort: range is full")),
        }
    }

    fn is_free(&self, port: NodePort) -> bool {
        !self.taken.contains(&port) && (!self.ranges.port_taken(&port) || self.held.ports.contains(&port))
    }
}

pub(super) fn internal(field: &str, message: &str) -> FieldError {
    FieldError { field: field.to_owned(), kind: FieldErrorKind::Internal, message: message.to_owned() }
}
