use std::process::{Child, Command};

use super::*;
use crate::testing::eventually;

struct TestGroup(Cgroup);

impl TestGroup {
    fn new(tag: &str) -> Self {
        let group = Cgroup::v2(format!("pntest-{tag}-{}", std::process::id())).unwrap();
        group.create().unwrap();
        Self(group)
    }
}

impl Drop for TestGroup {
    fn drop(&mut self) {
        let _ = self.0.remove_tree(Duration::from_secs(5));
    }
}

fn sleeper(group: &Cgroup) -> Child {
    let child = Command::new("sleep").arg("600").spawn().unwrap();
    group.add(child.id()).unwrap();
    child
}

#[test]
fn a_tree_of_groups_ends_with_all_its_processes() {
    let group = TestGroup::new("tree");
    let inner = group.0.child("pod").child("container");
    inner.create().unwrap();
    let mut children = [sleeper(&group.0), sleeper(&inner)];
    assert_eq!(inner.pids().unwrap(), [children[1].id()]);
    assert_eq!(group.0.all_pids().unwrap().len(), 2);
    // Killed processes leave their group when they end, before anyone waits for them.
    group.0.remove_tree(Duration::from_secs(5)).unwrap();
    assert!(!group.0.exists());
    for child in &mut children {
        assert!(!child.wait().unwrap().success());
    }
    group.0.remove_tree(Duration::ZERO).unwrap();
}

#[test]
fn processes_whose_threads_are_in_groups_of_their_own_are_known_by_the_group_above() {
    let group = TestGroup::new("threads");
    let threads = group.0.child("some");
    threads.create().unwrap();
    let mut child = sleeper(&group.0);
    threads.write("cgroup.type", "threaded").unwrap();
    threads.write("cgroup.threads", &child.id().to_string()).unwrap();
    assert_eq!(threads.pids().unwrap(), Vec::<u32>::new());
    assert_eq!(group.0.all_pids().unwrap(), [child.id()]);
    group.0.remove_tree(Duration::from_secs(5)).unwrap();
    assert!(!child.wait().unwrap().success());
}

#[test]
fn killing_leaves_the_groups() {
    let group = TestGroup::new("kill");
    let mut child = sleeper(&group.0);
    group.0.kill().unwrap();
    child.wait().unwrap();
    eventually("the group is empty", || group.0.pids().unwrap().is_empty());
    assert!(group.0.exists());
}

#[test]
fn a_group_that_is_not_there_is_empty_and_gone() {
    let group = Cgroup::v2("pntest-none").unwrap();
    assert_eq!(group.pids().unwrap(), Vec::<u32>::new());
    group.kill().unwrap();
    group.remove_tree(Duration::ZERO).unwrap();
    let error = group.add_self().unwrap_err().to_string();
    assert!(error.starts_with("cannot enter cgroup /sys/fs/cgroup/") && error.ends_with("/pntest-none"), "{error}");
}
