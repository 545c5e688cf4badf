use std::{os::unix::fs::PermissionsExt, process::Command};

use super::*;
use crate::testing::{TestNs, path};

#[test]
fn a_new_namespace_has_a_name_and_a_loopback_that_is_up() {
    let namespace = TestNs::new("netns-new");
    assert!(names::is_mounted(&namespace.path));
    let inside = namespace.command("ping -c 1 -W 1 127.0.0.1");
    assert!(inside.contains("1 received"), "{inside}");
    let mode = std::fs::metadata("/run/netns").unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o755);
}

#[test]
fn the_name_is_the_one_that_ip_netns_uses() {
    let namespace = TestNs::new("netns-ip");
    let name = namespace.path.file_name().unwrap().to_str().unwrap();
    let output = Command::new("ip").args(["netns", "exec", name, "ip", "-br", "link"]).output().unwrap();
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("lo"));
}

#[test]
fn a_name_that_is_taken_is_refused_and_stays() {
    let namespace = TestNs::new("netns-taken");
    assert!(matches!(NetNs::create(&namespace.path), Err(NetNsError::Exists { .. })));
    assert!(names::is_mounted(&namespace.path));
}

#[test]
fn work_runs_inside_and_the_caller_stays_outside() {
    let namespace = TestNs::new("netns-run");
    let outside = NetNs::current().unwrap().inode().unwrap();
    let inside = namespace.run(|| NetNs::current().unwrap().inode().unwrap()).unwrap();
    assert_eq!(inside, namespace.inode().unwrap());
    assert_ne!(inside, outside);
    assert_eq!(NetNs::current().unwrap().inode().unwrap(), outside);
}

#[test]
fn a_process_tells_the_namespace_that_it_is_in() {
    let own = NetNs::of_process(std::process::id()).unwrap();
    assert_eq!(own.inode().unwrap(), NetNs::current().unwrap().inode().unwrap());
}

#[test]
fn removing_is_done_also_where_there_is_nothing_or_half_of_it() {
    let path = path("netns-gone");
    NetNs::remove(&path).unwrap();
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, "").unwrap();
    NetNs::remove(&path).unwrap();
    assert!(!path.exists());
    NetNs::create(&path).unwrap();
    NetNs::remove(&path).unwrap();
    NetNs::remove(&path).unwrap();
    assert!(NetNs::open(&path).unwrap_err().is_missing());
}

#[test]
fn a_file_that_is_no_namespace_cannot_be_entered() {
    let file = File::open("/proc/self/status").unwrap();
    let error = NetNs::from_fd(file.into()).run(|| ()).unwrap_err();
    assert_eq!(error.to_string(), "cannot enter the network namespace");
}

#[test]
fn a_namespace_is_told_from_what_is_none() {
    let namespace = TestNs::new("netns-kind");
    assert!(namespace.is_network());
    assert!(!NetNs::open("/proc/self/ns/uts").unwrap().is_network());
    assert!(!NetNs::open("/etc/hostname").unwrap().is_network());
}
