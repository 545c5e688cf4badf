//! Edges point down, and pure crates stay pure.

mod purity;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

/// The house, lowest floor first. A crate may depend on crates of lower floors only.
const FLOORS: [&[&str]; 5] = [
    &["podnet-model", "podnet-ebpf"],
    &["podnet-planner", "podnet-dns", "podnet-flow"],
    &["podnet-kernel", "podnet-client"],
    &["podnet-agent", "podnet-apiserver", "podnet-runtime"],
    &["podnet-cli", "podnet-cni"],
];
/// Beside the house: they may depend on everything, and only each other's tests on them.
const ASIDE: [&str; 3] = ["podnet-testnet", "podnet-bench", "xtask"];
struct Package {
    directory: PathBuf,
    dependencies: Vec<String>,
}

pub(crate) fn check() -> Result<String, Vec<String>> {
    let packages = workspace().map_err(|error| vec![error])?;
    let mut faults = Vec::new();
    for (name, package) in &packages {
        faults.extend(edges(name, package));
        faults.extend(purity::faults(name, package));
    }
    if faults.is_empty() {
        Ok(format!("{} crates: edges point down, pure crates are pure", packages.len()))
    } else {
        Err(faults)
    }
}

fn workspace() -> Result<BTreeMap<String, Package>, String> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .output()
        .map_err(|error| format!("cannot run cargo metadata: {error}"))?;
    let metadata: Value =
        serde_json::from_slice(&output.stdout).map_err(|error| format!("cargo metadata printed no JSON: {error}"))?;
    let packages = metadata["packages"].as_array().into_iter().flatten();
    Ok(packages
        .map(|package| {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let directory =
                Path::new(&text(&package["manifest_path"])).parent().unwrap_or(Path::new(".")).to_path_buf();
            // Development dependencies may point anywhere: they are not in the product.
            let dependencies = package["dependencies"].as_array().into_iter().flatten();
            let dependencies = dependencies.filter(|d| d["kind"] != "dev").map(|d| text(&d["name"])).collect();
            (text(&package["name"]), Package { directory, dependencies })
        })
        .collect())
}

fn floor(name: &str) -> Option<usize> {
    FLOORS.iter().position(|crates| crates.contains(&name))
}

fn edges(name: &str, package: &Package) -> Vec<String> {
    if ASIDE.contains(&name) {
        return Vec::new();
    }
    let Some(own) = floor(name) else {
        return vec![format!("crate {name} has no floor; give it one in xtask/src/layers.rs and in ARCHITECTURE.md")];
    };
    let upward = |dependency: &&String| {
        ASIDE.contains(&dependency.as_str()) || floor(dependency).is_some_and(|floor| floor >= own)
    };
    package
        .dependencies
        .iter()
        .filter(upward)
        .map(|dependency| format!("{name} depends on {dependency}, which is not below it"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(dependencies: &[&str]) -> Package {
        Package { directory: PathBuf::new(), dependencies: dependencies.iter().map(|d| (*d).to_owned()).collect() }
    }

    #[test]
    fn an_edge_that_points_up_or_sideways_is_a_fault() {
        assert!(edges("podnet-planner", &package(&["podnet-model", "serde"])).is_empty());
        assert_eq!(edges("podnet-planner", &package(&["podnet-kernel"])).len(), 1);
        assert_eq!(edges("podnet-agent", &package(&["podnet-runtime"])).len(), 1);
        assert_eq!(edges("podnet-agent", &package(&["podnet-testnet"])).len(), 1);
        assert_eq!(edges("podnet-new", &package(&[])).len(), 1);
    }
}
