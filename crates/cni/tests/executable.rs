//! The executable as a runtime starts it, where no agent is.
#![allow(clippy::unwrap_used)]

use std::{
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use podnet_testnet::cni::{Answer, execute};
use serde_json::{Value, json};

const PLUGIN: &str = env!("CARGO_BIN_EXE_podnet-cni");

fn config() -> Value {
    json!({
        "cniVersion": "1.1.0", "name": "podnet", "type": "podnet-cni",
        "socket": "/nonexistent/agent.sock", "tombstones": "/nonexistent/tombstones",
    })
}

fn call(verb: &str, variables: &[(&str, &str)], input: &str) -> Answer {
    execute(Path::new(PLUGIN), &[&[("CNI_COMMAND", verb)], variables].concat(), input)
}

/// A complete ADD but for what `changed` says; the code and the message.
fn add(changed: &[(&str, &str)], input: &str) -> (u64, String) {
    let base = [("CNI_CONTAINERID", "a"), ("CNI_NETNS", "/proc/self/ns/net"), ("CNI_IFNAME", "eth0")];
    let variables = [&base[..], changed].concat();
    call("ADD", &variables, input).refused()
}

#[test]
fn version_is_answered_in_the_version_that_was_asked_for() {
    let versions = |input: &str| call("VERSION", &[], input).done();
    let all = json!(["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]);
    assert_eq!(versions("{\"cniVersion\": \"0.4.0\"}"), json!({"cniVersion": "0.4.0", "supportedVersions": all}));
    for other in ["", "{}", "no JSON", "{\"cniVersion\": \"7.0.0\"}"] {
        assert_eq!(versions(other)["cniVersion"], "1.1.0", "{other}");
    }
}

#[test]
fn malformed_input_is_refused_as_such() {
    for (input, code, named) in [
        ("", 6, "not JSON"),
        ("{\"cniVersion\": ", 6, "not JSON"),
        ("[]", 6, "not a JSON object"),
        ("\u{0}\u{1}", 6, "not JSON"),
    ] {
        let (found, message) = add(&[], input);
        assert!(found == code && message.contains(named), "{input:?}: {found} {message}");
    }
    // A mebibyte and more is cut off, and so no JSON.
    assert_eq!(add(&[], &format!("{{\"name\": \"{}\"}}", "x".repeat(2 << 20))).0, 6);
}

#[test]
fn what_the_configuration_cannot_say_is_refused_by_key_and_value() {
    let with = |key: &str, value: Value| {
        let mut config = config();
        config[key] = value;
        config.to_string()
    };
    for (input, code, named) in [
        (with("cniVersion", json!("2.0.0")), 1, "\"2.0.0\""),
        (with("soket", json!("/x")), 2, "\"soket\" (value \"/x\")"),
        (with("name", json!("two words")), 7, "\"two words\""),
        (with("name", Value::Null), 7, "\"name\""),
        (with("socket", Value::Null), 7, "\"socket\""),
        (with("prevResult", json!("x")), 6, "prevResult"),
        (with("prevResult", json!({"ips": 1})), 6, "\"ips\""),
    ] {
        let (found, message) = add(&[], &input);
        assert!(found == code && message.contains(named), "{input}: {found} {message}");
    }
    let old = with("cniVersion", json!("0.3.1"));
    let variables = [("CNI_CONTAINERID", "a"), ("CNI_NETNS", "/proc/self/ns/net"), ("CNI_IFNAME", "eth0")];
    assert_eq!(call("CHECK", &variables, &old).refused().0, 1);
    assert_eq!(call("GC", &[], &old).refused().0, 1);
    assert_eq!(call("STATUS", &[], &old).refused().0, 1);
}

#[test]
fn variables_that_are_missing_or_wrong_are_named() {
    let input = config().to_string();
    for (variable, value, code) in [
        ("CNI_CONTAINERID", "", 4),
        ("CNI_CONTAINERID", "../x", 4),
        ("CNI_NETNS", "", 4),
        ("CNI_NETNS", "/nonexistent/ns", 4),
        ("CNI_NETNS", "/etc/hostname", 8),
        ("CNI_NETNS", "/proc/self/ns/net", 8),
        ("CNI_IFNAME", "", 4),
        ("CNI_IFNAME", "sixteen-letters1", 4),
        ("CNI_IFNAME", "a/b", 4),
        ("CNI_ARGS", "x", 4),
    ] {
        let (found, message) = add(&[(variable, value)], &input);
        assert!(found == code && message.contains(variable), "{variable}={value}: {found} {message}");
    }
    assert_eq!(call("PLUG", &[], &input).refused().0, 4);
    assert_eq!(execute(Path::new(PLUGIN), &[], &input).refused().0, 4);
}

#[test]
fn an_absent_agent_is_a_passing_condition() {
    let input = config().to_string();
    assert_eq!(call("STATUS", &[], &input).refused().0, 50);
    assert_eq!(call("GC", &[], &input).refused().0, 11);
}

#[test]
fn a_runtime_that_reads_no_answer_gets_an_exit_code_and_no_panic() {
    let mut child = Command::new("sh")
        .args(["-c", &format!("CNI_COMMAND=VERSION {PLUGIN} >/dev/full </dev/null")])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    assert!(!child.wait().unwrap().success());
    let mut said = String::new();
    std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut said).unwrap();
    assert_eq!(said, "");
}

/// A runtime waits for this with each pod. The best of many is what the program itself takes; the benchmark has the median of the
/// optimised one.
#[test]
fn it_starts_within_milliseconds() {
    let once = || {
        let started = Instant::now();
        let mut command = Command::new(PLUGIN);
        command.env_clear().env("CNI_COMMAND", "VERSION").stdin(Stdio::null()).stdout(Stdio::null());
        assert!(command.status().unwrap().success());
        started.elapsed()
    };
    let best = (0..40).map(|_| once()).min().unwrap();
    assert!(best < Duration::from_millis(5), "{best:?}");
}
