//! Edges point down, and pure crates stay pure.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

/// The house, lowest floor first. A crate may depend on crates of lower floors only.
const FLOORS: [&[&str]; 5] = [
    &["podnet-model"],
    &["podnet-planner", "podnet-dns"],
    &["podnet-kernel", "podnet-client"],
    &["podnet-agent", "podnet-apiserver", "podnet-runtime"],
    &["podnet-cli", "podnet-cni"],
];
/// Beside the house: they may depend on everything, and only each other's tests on them.
const ASIDE: [&str; 3] = ["podnet-testnet", "podnet-bench", "xtask"];
/// No effects: no runtime, sockets, files or clock.
const PURE: [&str; 3] = ["podnet-model", "podnet-planner", "podnet-dns"];
/// Crates whose only use is an effect.
const EFFECTS: [&str; 9] = ["tokio", "rustix", "libc", "nix", "kube", "kube-client", "hyper", "axum", "netlink-sys"];
/// Paths of the standard library that are effects.
const EFFECT_PATHS: [&str; 10] = [
    "std::fs",
    "std::process",
    "std::thread",
    "std::env",
    "SystemTime::now",
    "Instant::now",
    "Utc::now",
    "TcpStream",
    "UdpSocket",
    "unsafe {",
];

struct Package {
    directory: PathBuf,
    dependencies: Vec<String>,
}

pub(crate) fn check() -> Result<String, Vec<String>> {
    let packages = workspace().map_err(|error| vec![error])?;
    let mut faults = Vec::new();
    for (name, package) in &packages {
        faults.extend(edges(name, package));
        if PURE.contains(&name.as_str()) {
            faults.extend(effects(name, package));
        }
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

fn effects(name: &str, package: &Package) -> Vec<String> {
    let mut faults: Vec<String> = package
        .dependencies
        .iter()
        .filter(|dependency| EFFECTS.contains(&dependency.as_str()))
        .map(|dependency| format!("pure crate {name} depends on {dependency}"))
        .collect();
    for file in sources(&package.directory.join("src")) {
        let text = fs::read_to_string(&file).unwrap_or_default();
        // Tests may measure and read files; they stand at the end of a file or in a file of their own.
        let code = text.split("#[cfg(test)]\nmod").next().unwrap_or_default();
        for (number, line) in code.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//")) {
            if let Some(path) = EFFECT_PATHS.iter().find(|path| line.contains(**path)) {
                faults.push(format!("pure crate {name} uses {path} at {}:{}", file.display(), number + 1));
            }
        }
    }
    faults
}

/// The crate's source files, less those of modules that only tests compile.
fn sources(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    walk(directory, &mut files);
    let tests: Vec<PathBuf> = files.iter().flat_map(|file| test_modules(file)).collect();
    files.retain(|file| !tests.iter().any(|test| file.starts_with(test) || file.with_extension("") == *test));
    files
}

fn walk(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            walk(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// Where the modules lie that a file declares under `#[cfg(test)]`, each as its path without the ending.
fn test_modules(file: &Path) -> Vec<PathBuf> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let directory = if file.ends_with("lib.rs") { file.with_file_name("") } else { file.with_extension("") };
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let declared = lines.windows(2).filter(|pair| pair[0].starts_with("#[cfg(") && pair[0].contains("test"));
    declared.filter_map(|pair| Some(directory.join(pair[1].split_once("mod ")?.1.strip_suffix(';')?))).collect()
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
