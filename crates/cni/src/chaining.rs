//! podnet's place in a chain of plugins: what those before it did stays in the result.

use podnet_kernel::cni_wire::Failure;
use serde_json::{Map, Value, json};

/// The results of the plugins before, where there are any (`prevResult`).
///
/// # Errors
///
/// When it has not the form of a result.
pub(crate) fn previous(config: &Value) -> Result<Option<&Map<String, Value>>, Failure> {
    let wrong = |what: &str| Failure::new(Failure::DECODING, format!("prevResult in the network configuration {what}"));
    let previous = match config.get("prevResult") {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Object(previous)) => previous,
        Some(other) => return Err(wrong(&format!("is {other}; it is a JSON object"))),
    };
    for key in ["interfaces", "ips", "routes"] {
        match previous.get(key) {
            None | Some(Value::Null | Value::Array(_)) => {}
            Some(other) => return Err(wrong(&format!("has {other} as {key:?}; it is a list"))),
        }
    }
    Ok(Some(previous))
}

/// What went before, and then what podnet did. Addresses name their interface by its place in the list, so podnet's move.
pub(crate) fn appended(previous: &Map<String, Value>, mut own: Value) -> Value {
    let mut list = |key: &str| own[key].as_array_mut().map(std::mem::take).unwrap_or_default();
    let before = |key: &str| previous.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
    let (mut interfaces, mut ips, mut routes) = (before("interfaces"), before("ips"), before("routes"));
    for mut ip in list("ips") {
        if let Some(place) = ip["interface"].as_u64() {
            ip["interface"] = json!(place + interfaces.len() as u64);
        }
        ips.push(ip);
    }
    interfaces.extend(list("interfaces"));
    routes.extend(list("routes"));
    let says_something = |dns: &&Value| dns.as_object().is_some_and(|dns| !dns.is_empty());
    let dns = Some(&own["dns"]).filter(says_something).or(previous.get("dns")).cloned().unwrap_or_else(|| json!({}));
    json!({"interfaces": interfaces, "ips": ips, "routes": routes, "dns": dns})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> Value {
        json!({
            "interfaces": [{"name": "pn1"}, {"name": "eth0", "sandbox": "/n"}],
            "ips": [{"address": "10.0.0.1/32", "interface": 1}],
            "routes": [{"dst": "0.0.0.0/0"}],
            "dns": {},
        })
    }

    #[test]
    fn what_went_before_stays_and_indices_move() {
        let config = json!({"prevResult": {
            "interfaces": [{"name": "lo", "sandbox": "/n"}],
            "ips": [{"address": "127.0.0.1/8", "interface": 0}],
            "dns": {"nameservers": ["10.0.0.53"]},
        }});
        let all = appended(previous(&config).unwrap().unwrap(), own());
        assert_eq!(all["interfaces"].as_array().unwrap().len(), 3);
        assert_eq!(all["ips"][0], json!({"address": "127.0.0.1/8", "interface": 0}));
        assert_eq!(all["ips"][1], json!({"address": "10.0.0.1/32", "interface": 2}));
        assert_eq!(all["routes"], own()["routes"]);
        assert_eq!(all["dns"]["nameservers"][0], "10.0.0.53");
    }

    #[test]
    fn what_is_no_result_is_refused() {
        assert!(previous(&json!({})).unwrap().is_none());
        assert!(previous(&json!({"prevResult": null})).unwrap().is_none());
        for wrong in [json!([]), json!("x"), json!({"ips": {}}), json!({"interfaces": "eth0"})] {
            let failure = previous(&json!({"prevResult": wrong})).unwrap_err();
            assert_eq!(failure.code, Failure::DECODING, "{}", failure.msg);
        }
    }
}
