//! Services, Endpoints and EndpointSlices.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::{
    AGE, Column, NAME, Printer, age,
    cells::{joined, list, name, number, or_none, pairs, text},
};

pub(super) static SERVICES: Printer = Printer {
    columns: &[
        NAME,
        Column::text("Type"),
        Column::text("Cluster-IP"),
        Column::text("External-IP"),
        Column::text("Port(s)"),
        AGE,
        Column::text("Selector").wide(),
    ],
    cells: service,
};

pub(super) static ENDPOINTS: Printer = Printer { columns: &[NAME, Column::text("Endpoints"), AGE], cells: endpoints };

pub(super) static ENDPOINT_SLICES: Printer = Printer {
    columns: &[NAME, Column::text("AddressType"), Column::text("Ports"), Column::text("Endpoints"), AGE],
    cells: endpoint_slice,
};

/// How many endpoints are named before the rest is only counted.
const NAMED_ENDPOINTS: usize = 3;

fn service(service: &Value, now: DateTime<Utc>) -> Vec<Value> {
    let spec = &service["spec"];
    vec![
        name(service),
        spec["type"].clone(),
        or_none(text(&spec["clusterIP"])),
        json!(external_addresses(service)),
        joined(list(&spec["ports"]).iter().map(service_port)),
        age::of(service, now),
        pairs(&spec["selector"]),
    ]
}

fn service_port(port: &Value) -> String {
    let (number, node_port) = (number(&port["port"]), number(&port["nodePort"]));
    let protocol = text(&port["protocol"]);
    if node_port == 0 { format!("{number}/{protocol}") } else { format!("{number}:{node_port}/{protocol}") }
}

fn external_addresses(service: &Value) -> String {
    let spec = &service["spec"];
    let external: Vec<&str> = list(&spec["externalIPs"]).iter().map(text).collect();
    match text(&spec["type"]) {
        "ExternalName" => text(&spec["externalName"]).to_owned(),
        "LoadBalancer" => {
            let ingress = list(&service["status"]["loadBalancer"]["ingress"]).iter();
            let assigned = ingress.map(|i| if i["ip"].is_string() { text(&i["ip"]) } else { text(&i["hostname"]) });
            let all: Vec<&str> = assigned.filter(|address| !address.is_empty()).chain(external).collect();
            if all.is_empty() { "<pending>".to_owned() } else { all.join(",") }
        }
        _ if external.is_empty() => "<none>".to_owned(),
        _ => external.join(","),
    }
}

fn endpoints(endpoints: &Value, now: DateTime<Utc>) -> Vec<Value> {
    let all = list(&endpoints["subsets"]).iter().flat_map(|subset| {
        let addresses = list(&subset["addresses"]).iter().map(|address| text(&address["ip"]));
        let ports = list(&subset["ports"]);
        addresses.flat_map(move |ip| {
            let without_port = ports.is_empty().then(|| ip.to_owned());
            ports.iter().map(move |port| with_port(ip, number(&port["port"]))).chain(without_port)
        })
    });
    vec![name(endpoints), json!(shortened(&all.collect::<Vec<_>>(), ",")), age::of(endpoints, now)]
}

fn with_port(ip: &str, port: i64) -> String {
    if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
}

fn endpoint_slice(slice: &Value, now: DateTime<Utc>) -> Vec<Value> {
    let ports: Vec<String> = list(&slice["ports"])
        .iter()
        .map(|port| match (&port["port"], text(&port["name"])) {
            (Value::Null, "") => "*".to_owned(),
            (Value::Null, name) => name.to_owned(),
            (number, _) => number.to_string(),
        })
        .collect();
    let ports = if ports.is_empty() { "<unset>".to_owned() } else { shortened(&ports, ",") };
    let endpoints = list(&slice["endpoints"]).iter().flat_map(|endpoint| list(&endpoint["addresses"]));
    let endpoints: Vec<String> = endpoints.map(|address| text(address).to_owned()).collect();
    let endpoints = if endpoints.is_empty() { "<unset>".to_owned() } else { shortened(&endpoints, ",") };
    vec![name(slice), slice["addressType"].clone(), json!(ports), json!(endpoints), age::of(slice, now)]
}

fn shortened(all: &[String], separator: &str) -> String {
    if all.is_empty() {
        return "<none>".to_owned();
    }
    let named = all.iter().take(NAMED_ENDPOINTS).map(String::as_str).collect::<Vec<_>>().join(separator);
    match all.len().saturating_sub(NAMED_ENDPOINTS) {
        0 => named,
        more => format!("{named} + {more} more..."),
    }
}
