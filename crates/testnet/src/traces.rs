//! What a cluster could leave behind on a machine, counted.

use std::{collections::BTreeSet, fs, process::Command};

/// Everything on the machine that a cluster might have made, by name. Two of them can be compared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traces {
    /// Processes whose program is podnet.
    pub processes: BTreeSet<String>,
    /// Names in `/run/netns`, less those of tests.
    pub namespaces: BTreeSet<String>,
    /// Links of the machine's own namespace.
    pub links: BTreeSet<String>,
    /// Routes of the machine's own namespace.
    pub routes: BTreeSet<String>,
    /// nftables tables of the machine's own namespace.
    pub tables: BTreeSet<String>,
    /// Mount points, less those of the test's own.
    pub mounts: BTreeSet<String>,
    /// cgroups below `podnet`.
    pub cgroups: BTreeSet<String>,
    /// Our directories that exist.
    pub directories: BTreeSet<String>,
}

impl Traces {
    /// What is there now.
    ///
    /// # Panics
    ///
    /// When the machine cannot be asked.
    #[must_use]
    pub fn now() -> Self {
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("the mount table can be read");
        let point = |line: &str| line.split(' ').nth(4).unwrap_or_default().to_owned();
        Self {
            processes: processes(),
            namespaces: names("/run/netns").into_iter().filter(|name| !of_a_test(name)).collect(),
            links: lines(&["ip", "-o", "link"])
                .iter()
                .map(|line| line.split(':').nth(1).unwrap_or_default().trim().to_owned())
                .collect(),
            routes: lines(&["ip", "route", "show", "table", "all"]),
            tables: tables(),
            mounts: mounts
                .lines()
                .map(point)
                .filter(|point| point.contains("podnet") || point.starts_with("/run/netns/"))
                .filter(|point| !point.strip_prefix("/run/netns/").is_some_and(of_a_test))
                .collect(),
            cgroups: cgroups(),
            directories: ["/var/lib/podnet", "/run/podnet"]
                .into_iter()
                .filter(|path| fs::exists(path).unwrap_or(true))
                .map(str::to_owned)
                .collect(),
        }
    }
}

/// Tests that bring no cluster up name their namespaces so: they may run at the same time, from another checkout.
fn of_a_test(namespace: &str) -> bool {
    namespace.starts_with("pntest-")
}

/// None where the kernel has no netfilter, of which the program says no more.
fn tables() -> BTreeSet<String> {
    let listed = Command::new("nft").args(["list", "tables"]).output().expect("nft can be started");
    let said = String::from_utf8_lossy(&listed.stderr);
    if said.contains("Protocol not supported") {
        return BTreeSet::new();
    }
    assert!(listed.status.success(), "nft list tables: {said}");
    String::from_utf8_lossy(&listed.stdout).lines().map(str::to_owned).collect()
}

fn names(directory: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn lines(command: &[&str]) -> BTreeSet<String> {
    let output =
        Command::new(command[0]).args(&command[1..]).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

fn processes() -> BTreeSet<String> {
    let entries = fs::read_dir("/proc").expect("/proc can be listed").flatten();
    entries
        .filter_map(|entry| {
            let pid = entry.file_name().to_string_lossy().parse::<u32>().ok()?;
            let name = fs::read_to_string(entry.path().join("comm")).ok()?;
            ["podnet", "podnet-cni"].contains(&name.trim()).then(|| format!("{pid} {}", name.trim()))
        })
        .collect()
}

fn cgroups() -> BTreeSet<String> {
    let roots = ["/sys/fs/cgroup/podnet", "/sys/fs/cgroup/unified/podnet"];
    let mut found = BTreeSet::new();
    let mut open: Vec<std::path::PathBuf> =
        roots.iter().map(Into::into).filter(|path: &std::path::PathBuf| path.exists()).collect();
    while let Some(directory) = open.pop() {
        open.extend(
            fs::read_dir(&directory)
                .into_iter()
                .flatten()
                .flatten()
                .map(|entry| entry.path())
                .filter(|path| path.is_dir()),
        );
        found.insert(directory.display().to_string());
    }
    found
}
