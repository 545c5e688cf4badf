//! Peak memory of each process of the cluster, after the pods came and went.

use std::{collections::BTreeMap, fmt, fs};

use podnet_testnet::Cluster;
use serde::Serialize;
use serde_json::Value;

use crate::Result;

#[derive(Serialize)]
pub(crate) struct Memory {
    /// Peak resident size in MiB, by process; of `podnet pause` the largest.
    peak_mib: BTreeMap<String, f64>,
}

pub(crate) fn measure(cluster: &Cluster) -> Result<Memory> {
    let status: Value = serde_json::from_slice(&cluster.podnet(&["status", "-o", "json"]).stdout)?;
    let mebibytes = |bytes: f64| (bytes / 104_857.6).round() / 10.0;
    let mut peak_mib = BTreeMap::new();
    for process in status["processes"].as_array().into_iter().flatten() {
        let name = process["name"].as_str().unwrap_or_default().to_owned();
        peak_mib.insert(name, mebibytes(process["peak_memory_bytes"].as_f64().unwrap_or_default()));
    }
    for command in ["pause", "dns"] {
        if let Some(kibibytes) = largest(command) {
            peak_mib.insert(format!("podnet {command}"), mebibytes(kibibytes * 1024.0));
        }
    }
    Ok(Memory { peak_mib })
}

/// The largest peak of all processes that were started as `podnet <command>`.
fn largest(command: &str) -> Option<f64> {
    let entries = fs::read_dir("/proc").ok()?.flatten();
    let peak = |entry: fs::DirEntry| {
        let line = fs::read_to_string(entry.path().join("cmdline")).ok()?;
        let mut words = line.split('\0');
        let is_it = words.next()?.ends_with("podnet") && words.next()? == command;
        let status = fs::read_to_string(entry.path().join("status")).ok()?;
        let peak = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))?
            .trim()
            .strip_suffix(" kB")?
            .parse::<f64>()
            .ok();
        is_it.then_some(peak).flatten()
    };
    entries.filter_map(peak).reduce(f64::max)
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "peak memory")?;
        self.peak_mib.iter().try_for_each(|(name, mib)| write!(f, "\n  {name:<16} {mib:6.1} MiB"))
    }
}
