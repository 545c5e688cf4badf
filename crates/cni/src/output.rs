//! What the plugin prints (CNI specification, section 5) and how it exits.

use std::process::ExitCode;

use podnet_kernel::cni_wire::Failure;
use serde_json::{Value, json};

/// Assumed where a configuration names no version, as the specification's library does.
pub(crate) const OLDEST: &str = "0.3.1";
/// The newest version that the plugin speaks.
pub(crate) const LATEST: &str = "1.1.0";
/// Results of these versions have the same form: `interfaces`, `ips` without `version` since 1.0.0, `routes`, `dns`.
const SUPPORTED: [&str; 5] = ["0.3.1", "0.4.0", "1.0.0", "1.1.0", "0.3.0"];

pub(crate) fn check_version(version: &str) -> Result<(), Failure> {
    if SUPPORTED.contains(&version) {
        return Ok(());
    }
    let supported = SUPPORTED.join(", ");
    Err(Failure::new(1, format!("cniVersion {version:?} is not supported; podnet-cni speaks {supported}")))
}

pub(crate) fn versions() -> ExitCode {
    print(&json!({"cniVersion": LATEST, "supportedVersions": SUPPORTED}));
    ExitCode::SUCCESS
}

pub(crate) fn result(version: &str, result: Option<Value>) -> ExitCode {
    if let Some(mut result) = result {
        result["cniVersion"] = version.into();
        if version.starts_with("0.") {
            add_address_versions(&mut result);
        }
        print(&result);
    }
    ExitCode::SUCCESS
}

pub(crate) fn failure(version: &str, failure: &Failure) -> ExitCode {
    print(&json!({"cniVersion": version, "code": failure.code, "msg": failure.msg, "details": failure.details}));
    ExitCode::FAILURE
}

/// Before 1.0.0 each address said "4" or "6" in `version`.
fn add_address_versions(result: &mut Value) {
    for ip in result.get_mut("ips").and_then(Value::as_array_mut).into_iter().flatten() {
        let six = ip.get("address").and_then(Value::as_str).is_some_and(|address| address.contains(':'));
        ip["version"] = if six { "6" } else { "4" }.into();
    }
}

fn print(value: &Value) {
    println!("{value:#}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_results_name_the_address_family() {
        let mut result = json!({"ips": [{"address": "10.0.0.1/32"}, {"address": "fd00::1/128"}]});
        add_address_versions(&mut result);
        assert_eq!(result["ips"][0]["version"], "4");
        assert_eq!(result["ips"][1]["version"], "6");
    }

    #[test]
    fn an_unknown_version_is_refused_with_the_known_ones() {
        let failure = check_version("9.9.9").err().unwrap();
        assert_eq!(failure.code, 1);
        assert!(failure.msg.contains("1.1.0"));
    }
}
