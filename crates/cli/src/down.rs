//! `podnet down`: removes every trace of the cluster, whatever state it is in.
//!
//! It asks no process and reads no list: everything of ours is found by where it is (one cgroup, one prefix of namespaces, two
//! directories, one link), so it works after any crash. Every part is tried even if another one failed.

use std::{fs, io, path::Path, time::Duration};

use podnet_kernel::{cgroup::Cgroup, netns::NetNs};

use crate::{
    cluster::Cluster,
    fabric, layout,
    lock::{self, Turn},
    report::{Doing, Failure, require_root},
};

/// How long killed processes may take to be gone.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) fn run() -> Result<(), Failure> {
    require_root("down")?;
    let turn = Turn::take()?;
    // Damaged settings must not keep anybody from removing the rest.
    let datastore = Cluster::load().ok().flatten().and_then(|cluster| cluster.datastore);
    let there_was_something = Path::new(layout::DATA_DIR).exists() || Path::new(layout::RUN_DIR).exists();
    let mut failures = remove_all();
    failures.extend(turn.leave_no_trace().err());
    for failure in &failures {
        failure.print();
    }
    if !failures.is_empty() {
        return Err(
            Failure::new("not everything could be removed").remedy("mend the causes above and run `podnet down` again")
        );
    }
    match (there_was_something, datastore) {
        (false, _) => println!("Nothing to remove: no cluster was up."),
        (true, Some(path)) => println!("Removed. The datastore {} is kept.", path.display()),
        (true, None) => println!("Removed."),
    }
    Ok(())
}

fn remove_all() -> Vec<Failure> {
    let mut failures = Vec::new();
    // The supervisor of an `up` that was killed may not be in its cgroup yet. Its lock is kept until all is gone.
    let supervisor = lock::end_supervisor(PATIENCE);
    failures.extend(kill_processes().err());
    failures.extend(unmount_all());
    failures.extend(remove_namespaces());
    failures.extend(fabric::remove_host_link().err());
    failures.extend(remove_files());
    failures.extend(supervisor.err());
    failures
}

fn kill_processes() -> Result<(), Failure> {
    let cgroup = Cgroup::v2(Path::new(layout::CGROUP)).doing(|| "cannot find the cgroup v2 hierarchy".into())?;
    cgroup.remove_tree(PATIENCE).doing(|| "cannot end the cluster's processes".into())
}

/// Volumes in memory and whatever else a node mounted below our directories.
fn unmount_all() -> Vec<Failure> {
    let table = match fs::read_to_string("/proc/self/mountinfo") {
        Ok(table) => table,
        Err(error) => return vec![Failure::because("cannot read the mount table", error)],
    };
    let mut ours: Vec<&str> = table.lines().filter_map(mount_point).filter(|point| is_ours(point)).collect();
    // What was mounted last may lie on top of, or inside, what was mounted before.
    ours.reverse();
    let unmount = |point: &str| {
        let done = rustix::mount::unmount(point, rustix::mount::UnmountFlags::DETACH);
        done.doing(|| format!("cannot unmount {point}")).err()
    };
    ours.into_iter().filter_map(unmount).collect()
}

/// Field 5 of a line of mountinfo (`proc_pid_mountinfo(5)`); our paths hold no character that it would escape.
fn mount_point(line: &str) -> Option<&str> {
    line.split(' ').nth(4)
}

fn is_ours(point: &str) -> bool {
    [layout::DATA_DIR, layout::RUN_DIR].iter().any(|directory| Path::new(point).starts_with(directory))
}

fn remove_namespaces() -> Vec<Failure> {
    let entries = match fs::read_dir(layout::NETNS_DIR) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => return vec![Failure::because(format!("cannot list {}", layout::NETNS_DIR), error)],
    };
    let ours = entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(layout::NETNS_PREFIX));
    ours.filter_map(|entry| {
        let path = entry.path();
        NetNs::remove(&path).doing(|| format!("cannot remove the namespace {}", path.display())).err()
    })
    .collect()
}

fn remove_files() -> Vec<Failure> {
    let remove = |directory: &str| match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Some(Failure::because(format!("cannot remove {directory}"), error))
        }
        _ => None,
    };
    [layout::RUN_DIR, layout::DATA_DIR].into_iter().filter_map(remove).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_mounts_below_our_directories_are_ours() {
        let line = "71 28 0:45 / /var/lib/podnet/nodes/node1/x rw shared:9 - tmpfs tmpfs rw";
        assert!(mount_point(line).is_some_and(is_ours));
        assert!(!is_ours("/var/lib/podnetx") && !is_ours("/var/lib"));
    }
}
