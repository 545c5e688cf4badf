//! What the plugin prints (CNI specification, section 5) and how it exits.

use std::process::ExitCode;

use podnet_kernel::cni_wire::{Failure, Verb};
use serde_json::{Value, json};

/// Assumed where a configuration names no version, as the specification's library does.
pub(crate) const OLDEST: &str = "0.3.1";
/// The newest version that the plugin speaks.
pub(crate) const LATEST: &str = "1.1.0";
const SUPPORTED: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// Whether the plugin speaks the version, and the version has the verb.
pub(crate) fn check_version(version: &str, verb: Verb) -> Result<(), Failure> {
    let place = |version: &str| SUPPORTED.iter().position(|known| *known == version);
    let Some(asked) = place(version) else {
        let supported = SUPPORTED.join(", ");
        let what = format!("cniVersion {version:?} is not supported; podnet-cni speaks {supported}");
        return Err(Failure::new(Failure::INCOMPATIBLE_VERSION, what));
    };
    let (name, since) = match verb {
        Verb::Add | Verb::Del => return Ok(()),
        Verb::Check => ("CHECK", "0.4.0"),
        Verb::Status => ("STATUS", "1.1.0"),
        Verb::Gc => ("GC", "1.1.0"),
    };
    if place(since).is_some_and(|since| asked >= since) {
        return Ok(());
    }
    let what = format!("cniVersion {version:?} has no {name}; it came with {since}");
    Err(Failure::new(Failure::INCOMPATIBLE_VERSION, what))
}

/// Answers VERSION in the version that was asked for.
pub(crate) fn versions(asked: Option<&str>) -> ExitCode {
    let version = asked.filter(|asked| SUPPORTED.contains(asked)).unwrap_or(LATEST);
    print(&json!({"cniVersion": version, "supportedVersions": SUPPORTED}))
}

pub(crate) fn result(version: &str, result: Option<Value>) -> ExitCode {
    match result {
        None => ExitCode::SUCCESS,
        Some(mut result) => {
            result["cniVersion"] = version.into();
            print(&result)
        }
    }
}

pub(crate) fn failure(version: &str, failure: &Failure) -> ExitCode {
    print(&json!({"cniVersion": version, "code": failure.code, "msg": failure.msg, "details": failure.details}));
    ExitCode::FAILURE
}

/// Says a result of the newest version in the words of an older one.
pub(crate) fn in_version(result: &mut Value, version: &str) {
    let entries = |value: &mut Value| value.as_array_mut().map(std::mem::take).unwrap_or_default();
    if version != LATEST {
        // 1.1.0 brought `mtu`; strict decoders of older versions take no unknown key.
        let mut interfaces = entries(&mut result["interfaces"]);
        for interface in interfaces.iter_mut().filter_map(Value::as_object_mut) {
            interface.remove("mtu");
        }
        result["interfaces"] = interfaces.into();
    }
    if version.starts_with("0.") {
        // Before 1.0.0 each address said "4" or "6".
        let mut ips = entries(&mut result["ips"]);
        for ip in &mut ips {
            let six = ip["address"].as_str().is_some_and(|address| address.contains(':'));
            ip["version"] = if six { "6" } else { "4" }.into();
        }
        result["ips"] = ips.into();
    }
}

/// A runtime that went away reads nothing more: that is no reason to panic.
fn print(value: &Value) -> ExitCode {
    use std::io::Write;
    match writeln!(std::io::stdout(), "{value:#}") {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_results_name_the_address_family_and_no_mtu() {
        let new = json!({
            "interfaces": [{"name": "a", "mac": "m"}, {"name": "eth0", "mtu": 1450, "sandbox": "/n"}],
            "ips": [{"address": "10.0.0.1/32"}, {"address": "fd00::1/128"}],
        });
        let said = |version| {
            let mut result = new.clone();
            in_version(&mut result, version);
            result
        };
        assert_eq!(said("1.1.0"), new);
        assert_eq!(said("1.0.0")["interfaces"][1], json!({"name": "eth0", "sandbox": "/n"}));
        assert_eq!(said("1.0.0")["ips"], new["ips"]);
        for old in ["0.3.1", "0.4.0"] {
            assert_eq!(said(old)["ips"][0]["version"], "4");
            assert_eq!(said(old)["ips"][1]["version"], "6");
            assert_eq!(said(old)["interfaces"], said("1.0.0")["interfaces"]);
        }
    }

    #[test]
    fn an_unknown_version_is_refused_with_the_known_ones() {
        let failure = check_version("9.9.9", Verb::Add).err().unwrap();
        assert_eq!(failure.code, 1);
        assert!(failure.msg.contains("0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0"), "{}", failure.msg);
    }

    #[test]
    fn a_version_has_only_the_verbs_that_it_has() {
        for (version, verb, has) in [
            ("0.3.1", Verb::Add, true),
            ("0.3.1", Verb::Check, false),
            ("0.4.0", Verb::Check, true),
            ("1.0.0", Verb::Status, false),
            ("1.0.0", Verb::Gc, false),
            ("1.1.0", Verb::Gc, true),
            ("1.1.0", Verb::Status, true),
        ] {
            assert_eq!(check_version(version, verb).is_ok(), has, "{version} {verb:?}");
        }
    }
}
