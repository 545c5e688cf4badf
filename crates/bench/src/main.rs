//! Measures what README states, on this machine, and writes the figures to `bench/results/`.
//!
//! Absolute times say little on a shared machine: where there is a peer, it is measured in turn with podnet in the same run, and the
//! ratio is what counts. It needs root, a release build (`PODNET`) and no cluster that is up.

mod cni;
mod figures;
mod memory;
mod pods;
mod up;

use std::{error::Error, fs, path::Path, process::ExitCode};

use podnet_testnet::Cluster;
use serde_json::{Value, json};

/// What a measurement may fail with: all of it ends the run.
type Result<T> = std::result::Result<T, Box<dyn Error>>;

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
    let up = up::measure(podnet)?;
    println!("{up}\n");
    let cluster = Cluster::up(podnet, &[]);
    let pods = pods::measure()?;
    println!("{pods}\n");
    let memory = memory::measure(&cluster)?;
    println!("{memory}\n");
    let cni = cni::measure(Path::new(podnet))?;
    println!("{cni}");
    drop(cluster);
    let results = json!({
        "machine": machine(),
        "up": up,
        "pods": pods,
        "memory": memory,
        "cni": cni,
    });
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../bench/results/first-slice.json"));
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    fs::write(path, serde_json::to_string_pretty(&results)? + "\n")?;
    println!("\nwritten to bench/results/first-slice.json");
    Ok(())
}

fn machine() -> Value {
    let line = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let processors = std::thread::available_parallelism().map_or(0, usize::from);
    json!({"kernel": line("/proc/sys/kernel/osrelease"), "processors": processors})
}
