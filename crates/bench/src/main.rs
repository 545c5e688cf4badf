//! Measures what README states, on this machine, and writes the figures to `bench/results/`.
//!
//! Absolute times say little on a shared machine: where there is a peer, it is measured in turn with podnet in the same run, and the
//! ratio is what counts. It needs root, a release build (`PODNET`) and no cluster that is up. Arguments name the parts to measure.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod cni;
mod emulated;
mod figures;
mod lab;
mod memory;
mod names;
mod planning;
mod pods;
mod programming;
mod recording;
mod services;
mod stand_in;
mod targets;
mod traffic;
mod up;
mod wire;

use std::{error::Error, fmt::Display, fs, path::Path, process::ExitCode};

use podnet_testnet::Cluster;
use serde_json::{Value, json};

/// What a measurement may fail with: all of it ends the run.
type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// What can be asked for by name.
const PARTS: [&str; 12] = [
    "planning",
    "programming",
    "dns",
    "up",
    "pods",
    "memory",
    "cni",
    "wire",
    "services",
    "flows",
    "virtual-servers",
    "full-node",
];

/// Of these, what needs no cluster.
const WITHOUT_CLUSTER: [&str; 4] = ["planning", "programming", "dns", "virtual-servers"];

fn main() -> ExitCode {
    let podnet = std::env::var("PODNET").unwrap_or_else(|_| "target/release/podnet".to_owned());
    match run(&podnet) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(podnet: &str) -> Result<()> {
    let only: Vec<String> = std::env::args().skip(1).collect();
    if only.first().is_some_and(|first| first == services::CLIENT) {
        return services::client(&only[1..]);
    }
    if only.first().is_some_and(|first| first == emulated::INSIDE) {
        return emulated::inside(&only[1..]);
    }
    if let Some(unknown) = only.iter().find(|part| !PARTS.contains(&part.as_str())) {
        return Err(format!("{unknown:?} is no part; the parts are {}", PARTS.join(", ")).into());
    }
    let wanted = |part: &str| only.is_empty() || only.iter().any(|one| one == part);
    let planning = wanted("planning").then(|| planning::measure(podnet)).transpose()?;
    show(planning.as_ref());
    let programming = wanted("programming").then(|| programming::measure(podnet)).transpose()?;
    show(programming.as_ref());
    let names = wanted("dns").then(|| names::measure(podnet)).transpose()?;
    show(names.as_ref());
    write("dns", &json!({"machine": machine(), "names": names}))?;
    // What was measured is shown and written all the same, as soon as it is: whatever comes later may fail.
    let answered = names.as_ref().map_or(Ok(()), names::Names::check);
    let emulated = wanted("virtual-servers").then(|| emulated::measure(podnet)).transpose()?;
    show(emulated.as_ref());
    if !only.is_empty() && only.iter().all(|part| WITHOUT_CLUSTER.contains(&part.as_str())) {
        return answered;
    }
    let up = wanted("up").then(|| up::measure(podnet)).transpose()?;
    show(up.as_ref());
    let cluster = Cluster::up(podnet, &[]);
    let pods = wanted("pods").then(pods::measure).transpose()?;
    show(pods.as_ref());
    let memory = wanted("memory").then(|| memory::measure(&cluster)).transpose()?;
    show(memory.as_ref());
    write("first-slice", &json!({"machine": machine(), "up": up, "pods": pods, "memory": memory}))?;
    let cni = wanted("cni").then(|| cni::measure(Path::new(podnet))).transpose()?;
    show(cni.as_ref());
    let wire = wanted("wire").then(|| wire::measure(&cluster)).transpose()?;
    show(wire.as_ref());
    let services = wanted("services").then(|| services::measure(&cluster)).transpose()?;
    show(services.as_ref());
    write(
        "services",
        &json!({"machine": machine(), "programming": programming, "through": services, "emulated": emulated}),
    )?;
    let mut flows = wanted("flows").then(|| recording::measure(podnet, &cluster)).transpose()?;
    show(flows.as_ref());
    write("flows", &json!({"machine": machine(), "flows": flows}))?;
    let full_node = wanted("full-node").then(pods::fill_node).transpose()?;
    show(full_node.as_ref());
    write(
        "pod-network",
        &json!({"machine": machine(), "cni": cni, "wire": wire, "full_node": full_node, "planning": planning}),
    )?;
    drop(cluster);
    let Some(flows) = &mut flows else { return answered };
    let with_room = flows.with_room(podnet);
    show(Some(&*flows));
    write("flows", &json!({"machine": machine(), "flows": flows}))?;
    answered.and(flows.check()).and(with_room)
}

fn show(part: Option<&impl Display>) {
    if let Some(part) = part {
        println!("{part}\n");
    }
}

/// Writes a file's figures where all its parts were measured.
fn write(name: &str, results: &Value) -> Result<()> {
    if results.as_object().is_some_and(|parts| parts.values().any(Value::is_null)) {
        return Ok(());
    }
    let directory = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../bench/results"));
    fs::create_dir_all(directory)?;
    fs::write(directory.join(format!("{name}.json")), serde_json::to_string_pretty(results)? + "\n")?;
    println!("written to bench/results/{name}.json");
    Ok(())
}

fn machine() -> Value {
    let line = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let processors = std::thread::available_parallelism().map_or(0, usize::from);
    json!({"kernel": line("/proc/sys/kernel/osrelease"), "processors": processors})
}
