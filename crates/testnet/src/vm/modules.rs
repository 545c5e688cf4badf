//! Kernel modules and what they depend on.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// A module's name, with underscores, and its object file.
pub(super) struct Module {
    pub(super) name: String,
    pub(super) bytes: Vec<u8>,
}

/// The modules and all that they depend on, in an order in which they can be loaded. Modules say themselves what they need, so that
/// no index (`depmod(8)`) is needed. One that the kernel has built in is no file, and is left out.
pub(super) fn in_order(directory: &Path, wanted: &[&str]) -> Vec<Module> {
    let mut files = BTreeMap::new();
    collect(directory, &mut files);
    assert!(!files.is_empty(), "there are no kernel modules in {}", directory.display());
    let (mut seen, mut modules) = (BTreeSet::new(), Vec::new());
    for name in wanted {
        load(&normal(name), &files, &mut seen, &mut modules);
    }
    modules
}

fn load(name: &str, files: &BTreeMap<String, PathBuf>, seen: &mut BTreeSet<String>, modules: &mut Vec<Module>) {
    if !seen.insert(name.to_owned()) {
        return;
    }
    let Some(path) = files.get(name) else { return };
    let bytes = read(path);
    for dependency in dependencies(&bytes) {
        load(&dependency, files, seen, modules);
    }
    modules.push(Module { name: name.to_owned(), bytes });
}

fn collect(directory: &Path, files: &mut BTreeMap<String, PathBuf>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect(&path, files);
        } else if let Some((name, "ko" | "ko.xz")) = entry.file_name().to_string_lossy().split_once('.') {
            files.insert(normal(name), path);
        }
    }
}

/// Files have hyphens where modules have underscores.
fn normal(name: &str) -> String {
    name.replace('-', "_")
}

/// Debian compresses modules since its release 13.
fn read(path: &Path) -> Vec<u8> {
    if path.extension().is_some_and(|extension| extension == "xz") {
        let output = Command::new("xz").arg("-dc").arg(path).output().expect("xz can be started");
        assert!(output.status.success(), "cannot unpack {}", path.display());
        return output.stdout;
    }
    fs::read(path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()))
}

/// What the section `.modinfo` says: `depends=a,b`, between zeros.
fn dependencies(object: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = object.windows(KEY.len()).position(|window| window == KEY) else { return Vec::new() };
    let value = object[at + KEY.len()..].split(|byte| *byte == 0).next().unwrap_or_default();
    let text = String::from_utf8_lossy(value);
    text.split(',').filter(|name| !name.is_empty()).map(normal).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_names_what_it_needs() {
        assert_eq!(
            dependencies(b"x\0license=GPL\0depends=udp_tunnel,curve25519-x86_64\0retpoline=Y\0"),
            ["udp_tunnel", "curve25519_x86_64"]
        );
        assert_eq!(dependencies(b"\0depends=\0"), [""; 0]);
        assert_eq!(dependencies(b"nothing"), [""; 0]);
    }
}
