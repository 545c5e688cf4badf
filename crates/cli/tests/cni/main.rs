//! The CNI plugin as runtimes execute it, with the agent of a running node.
#![allow(clippy::unwrap_used, missing_docs)]

mod faults;
mod ports;
mod shortage;
mod specification;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use podnet_testnet::cni::Conflist;
use serde_json::Value;

const PODNET: &str = env!("CARGO_BIN_EXE_podnet");
/// The namespace of the node that the plugins run on.
const NODE: &str = "podnet-node1";
const SOON: Duration = Duration::from_secs(30);

/// The configuration that the agent of `node1` wrote, as a runtime reads it.
fn conflist(version: &str) -> Conflist {
    conflist_of("node1", version)
}

fn conflist_of(node: &str, version: &str) -> Conflist {
    let text = fs::read(format!("/run/podnet/nodes/{node}/net.d/10-podnet.conflist")).unwrap();
    let written: Value = serde_json::from_slice(&text).unwrap();
    let plugins = written["plugins"].as_array().unwrap().clone();
    let mut list = Conflist::new(Path::new(PODNET), version, written["name"].as_str().unwrap(), plugins);
    list.node = Some(format!("podnet-{node}"));
    list
}

fn plugin() -> PathBuf {
    Path::new(PODNET).with_file_name("podnet-cni")
}

/// A sandbox of a runtime's own: a network namespace that goes with the value.
struct Sandbox {
    name: String,
}

impl Sandbox {
    fn new(tag: &str) -> Self {
        let name = format!("podnet-test-{tag}");
        let _ = Command::new("ip").args(["netns", "del", &name]).output();
        run("ip", &["netns", "add", &name]);
        Self { name }
    }

    fn path(&self) -> String {
        format!("/run/netns/{}", self.name)
    }

    /// Runs a command inside; what it printed.
    fn try_run(&self, command: &[&str]) -> Result<String, String> {
        try_run("ip", &[&["netns", "exec", &self.name], command].concat())
    }

    fn run(&self, command: &[&str]) -> String {
        self.try_run(command).unwrap_or_else(|error| panic!("{command:?} in {}: {error}", self.name))
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).output();
    }
}

fn kill(pid: i32) {
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), rustix::process::Signal::KILL).unwrap();
}

fn try_run(program: &str, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(arguments).output().map_err(|error| error.to_string())?;
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.success() { Ok(said) } else { Err(said) }
}

fn run(program: &str, arguments: &[&str]) -> String {
    try_run(program, arguments).unwrap_or_else(|error| panic!("{program} {arguments:?}: {error}"))
}

/// Runs a command in the namespace of `node1`.
fn on_node(command: &[&str]) -> String {
    run("ip", &[&["netns", "exec", NODE], command].concat())
}

/// The last address of a result.
fn address(result: &Value) -> String {
    addresses(result).pop().unwrap()
}

fn addresses(result: &Value) -> Vec<String> {
    let ips = result["ips"].as_array().unwrap();
    ips.iter().map(|ip| ip["address"].as_str().unwrap().split('/').next().unwrap().to_owned()).collect()
}

/// What the agent of a node holds for a sandbox, once removals that DEL was answered for are done.
fn held(id: &str) -> Vec<String> {
    held_on("node1", id)
}

fn held_on(node: &str, id: &str) -> Vec<String> {
    let deadline = std::time::Instant::now() + Duration::from_secs(5);
    loop {
        // A removal is under way for some tens of milliseconds; what is held for longer stays. It is looked at first: what was held
        // before it ended says nothing.
        let under_way = fs::exists(format!("/var/lib/podnet/nodes/{node}/agent/tombstones/{id}@eth0")).unwrap();
        let held = held_now(node, id);
        if !under_way || std::time::Instant::now() > deadline {
            return held;
        }
        std::thread::yield_now();
    }
}

fn held_now(node: &str, id: &str) -> Vec<String> {
    let state = format!("/var/lib/podnet/nodes/{node}/agent");
    let journal = fs::read_to_string(format!("{state}/addresses.journal")).unwrap();
    let mut given = std::collections::BTreeSet::new();
    for line in journal.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        match fields[..] {
            [_, "assigned", addr, handle, ..] if handle.starts_with(&format!("{id}/")) => given.insert(addr.to_owned()),
            [_, "released", addr, handle, ..] if handle.starts_with(&format!("{id}/")) => given.remove(addr),
            _ => false,
        };
    }
    let mut held: Vec<String> = given.into_iter().map(|addr| format!("address {addr}")).collect();
    for entry in fs::read_dir(format!("{state}/attachments")).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.contains(&format!("{id}@")) {
            held.push(format!("record {name}"));
        }
    }
    held
}
