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
mod ratios;
mod recording;
mod services;
mod stand_in;
mod targets;
mod traffic;
mod up;
mod wire;

use std::{
    error::Error,
    fmt::Display,
    fs, io,
    path::Path,
    process::ExitCode,
    time::{SystemTime, UNIX_EPOCH},
};

use podnet_testnet::Cluster;
use serde::Serialize;
use serde_json::{Map, Value, json};

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

/// Where figures are kept.
const RESULTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../bench/results");
/// The files there, without their ending.
const FILES: [&str; 5] = ["pod-network", "services", "dns", "first-slice", "flows"];

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
    // A file that cannot be read is told now, and not when there are figures to put into it.
    for file in FILES {
        figures_in(file)?;
    }
    let wanted = |part: &str| only.is_empty() || only.iter().any(|one| one == part);
    let planning = wanted("planning").then(|| planning::measure(podnet)).transpose()?;
    record("pod-network", "planning", planning.as_ref())?;
    let programming = wanted("programming").then(|| programming::measure(podnet)).transpose()?;
    record("services", "programming", programming.as_ref())?;
    let names = wanted("dns").then(|| names::measure(podnet)).transpose()?;
    record("dns", "names", names.as_ref())?;
    // What was measured is shown and written all the same, as soon as it is: whatever comes later may fail.
    let answered = names.as_ref().map_or(Ok(()), names::Names::check);
    let emulated = wanted("virtual-servers").then(|| emulated::measure(podnet)).transpose()?;
    record("services", "emulated", emulated.as_ref())?;
    if !only.is_empty() && only.iter().all(|part| WITHOUT_CLUSTER.contains(&part.as_str())) {
        return answered;
    }
    let up = wanted("up").then(|| up::measure(podnet)).transpose()?;
    record("first-slice", "up", up.as_ref())?;
    let cluster = Cluster::up(podnet, &[]);
    let pods = wanted("pods").then(pods::measure).transpose()?;
    record("first-slice", "pods", pods.as_ref())?;
    let memory = wanted("memory").then(|| memory::measure(&cluster)).transpose()?;
    record("first-slice", "memory", memory.as_ref())?;
    let cni = wanted("cni").then(|| cni::measure(Path::new(podnet))).transpose()?;
    record("pod-network", "cni", cni.as_ref())?;
    let wire = wanted("wire").then(|| wire::measure(&cluster)).transpose()?;
    record("pod-network", "wire", wire.as_ref())?;
    let services = wanted("services").then(|| services::measure(&cluster)).transpose()?;
    record("services", "through", services.as_ref())?;
    let mut flows = wanted("flows").then(|| recording::measure(podnet, &cluster)).transpose()?;
    record("flows", "flows", flows.as_ref())?;
    let full_node = wanted("full-node").then(pods::fill_node).transpose()?;
    record("pod-network", "full_node", full_node.as_ref())?;
    drop(cluster);
    let Some(flows) = &mut flows else { return answered };
    let with_room = flows.with_room(podnet);
    record("flows", "flows", Some(&*flows))?;
    answered.and(flows.check()).and(with_room)
}

/// Shows a part where it was measured, and writes its figures to a file, in which the other parts stay as they are.
fn record(file: &str, part: &str, measured: Option<&(impl Display + Serialize)>) -> Result<()> {
    let Some(measured) = measured else { return Ok(()) };
    println!("{measured}\n");
    let after = with_part(figures_in(file)?, part, serde_json::to_value(measured)?, machine());
    put(Path::new(RESULTS), file, &(serde_json::to_string_pretty(&after)? + "\n"))?;
    println!("written to bench/results/{file}.json: {part}");
    Ok(())
}

/// What a file has; nothing where it is not there.
fn figures_in(file: &str) -> Result<Map<String, Value>> {
    let path = Path::new(RESULTS).join(format!("{file}.json"));
    match fs::read(&path) {
        Ok(text) => serde_json::from_slice(&text)
            .map_err(|error| format!("{} holds no figures ({error}); mend it or remove it", path.display()).into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Map::new()),
        Err(error) => Err(format!("{} cannot be read: {error}", path.display()).into()),
    }
}

/// Puts a whole file in the place of another: who is stopped meanwhile, or has no room, keeps the one before.
fn put(directory: &Path, file: &str, text: &str) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let new = directory.join(format!("{file}.json.new"));
    fs::write(&new, text)?;
    fs::rename(&new, directory.join(format!("{file}.json")))
}

/// Where and when each part was measured, by its name.
const MEASURED_ON: &str = "measured_on";
/// The machine of all parts, as files had it before.
const MACHINE: &str = "machine";

/// A file's figures with others of this part, and where these were measured.
fn with_part(mut file: Map<String, Value>, part: &str, figures: Value, machine: Value) -> Map<String, Value> {
    let mut machines = match file.remove(MEASURED_ON) {
        Some(Value::Object(machines)) => machines,
        _ => Map::new(),
    };
    if let Some(of_all) = file.remove(MACHINE) {
        for part in file.keys() {
            machines.entry(part.clone()).or_insert_with(|| of_all.clone());
        }
    }
    machines.insert(part.to_owned(), machine);
    file.insert(part.to_owned(), figures);
    file.insert(MEASURED_ON.to_owned(), machines.into());
    file
}

fn machine() -> Value {
    let line = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let processors = std::thread::available_parallelism().map_or(0, usize::from);
    // In seconds since 1970.
    let at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    json!({"kernel": line("/proc/sys/kernel/osrelease"), "processors": processors, "unix_time": at})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("results");
        put(&directory, "dns", "a long one").unwrap();
        // One that cannot be written whole: there is a directory where it would be.
        let new = directory.join("dns.json.new");
        fs::create_dir(&new).unwrap();
        put(&directory, "dns", "short").unwrap_err();
        let told = || fs::read_to_string(directory.join("dns.json")).unwrap();
        assert_eq!(told(), "a long one");
        fs::remove_dir(&new).unwrap();
        put(&directory, "dns", "short").unwrap();
        assert_eq!((told().as_str(), fs::read_dir(&directory).unwrap().count()), ("short", 1));
    }

    #[test]
    fn a_part_that_was_not_measured_keeps_its_figures_and_its_machine() {
        let of = |value: Value| value.as_object().cloned().unwrap();
        let [one, other, third] = ["one", "other", "third"].map(|kernel| json!({"kernel": kernel}));
        let before = of(json!({"machine": one, "wire": {"ratio": 0.9}, "cni": 1}));
        let after = with_part(before, "wire", json!({"ratio": 0.95}), other.clone());
        let expected = json!({"wire": {"ratio": 0.95}, "cni": 1, "measured_on": {"wire": other, "cni": one}});
        assert_eq!(after, of(expected));
        let after = with_part(after, "planning", json!([2]), third.clone());
        let expected = json!({
            "wire": {"ratio": 0.95}, "cni": 1, "planning": [2],
            "measured_on": {"wire": other, "cni": one, "planning": third},
        });
        assert_eq!(after, of(expected));
        let first = with_part(Map::new(), "names", json!(3), one.clone());
        assert_eq!(first, of(json!({"names": 3, "measured_on": {"names": one}})));
    }
}
