//! Which files are read again, and when: each plugin's by itself, the Corefile only with `reload`.

use std::fmt::Display;

use super::{Directory, Process, dig, dig_until, free_port};

/// A Corefile with a file that is looked at each second, one that never is, and a host of its own.
fn corefile(directory: &Directory, port: u16, reload: &str, own: &dyn Display) -> String {
    let home = directory.0.display();
    format!(
        "a.test:{port} {{\n {reload}\n hosts {home}/a {{\n  reload 1s\n }}\n}}\n\
         b.test:{port} {{\n hosts {home}/b {{\n  reload 0\n }}\n}}\n\
         c.test:{port} {{\n hosts /nowhere {{\n  {own} c.test\n  reload 0\n }}\n}}\n"
    )
}

/// Starts a process whose three names have their first addresses.
async fn started(directory: &Directory, port: u16, reload: &str) -> Process {
    directory.write("a", "192.0.2.1 a.test\n");
    directory.write("b", "192.0.2.1 b.test\n");
    let text = corefile(directory, port, reload, &"192.0.2.1");
    let process = Process::start(&directory.write("Corefile", &text), None);
    dig_until(port, "a.test A +short", "192.0.2.1\n").await;
    process
}

#[tokio::test(flavor = "multi_thread")]
async fn without_reload_a_changed_corefile_is_not_taken_over_whatever_plugins_look_at() {
    let (directory, port) = (Directory::new("files"), free_port().await);
    let process = started(&directory, port, "").await;
    directory.write("Corefile", &corefile(&directory, port, "", &"192.0.2.2"));
    for version in 2..=3 {
        directory.write("b", &format!("192.0.2.{version} b.test\n"));
        directory.write("a", &format!("192.0.2.{version} a.test\n"));
        dig_until(port, "a.test A +short", &format!("192.0.2.{version}\n")).await;
        // What was written before it has been passed over.
        assert_eq!(dig(port, "b.test A +short").await, "192.0.2.1\n");
        assert_eq!(dig(port, "c.test A +short").await, "192.0.2.1\n");
    }
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_has_the_corefile_and_all_files_read_again_without_reload() {
    let (directory, port) = (Directory::new("files-asked"), free_port().await);
    let process = started(&directory, port, "").await;
    directory.write("b", "192.0.2.2 b.test\n");
    directory.write("Corefile", &corefile(&directory, port, "", &"192.0.2.2"));
    process.reload.notify_one();
    dig_until(port, "c.test A +short", "192.0.2.2\n").await;
    assert_eq!(dig(port, "b.test A +short").await, "192.0.2.2\n");
    // The Corefile is the same: the file that is never looked at is read all the same.
    directory.write("b", "192.0.2.3 b.test\n");
    process.reload.notify_one();
    dig_until(port, "b.test A +short", "192.0.2.3\n").await;
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_corefile_has_all_files_read_again() {
    let (directory, port) = (Directory::new("files-all"), free_port().await);
    let reload = "reload 10h";
    let process = started(&directory, port, reload).await;
    directory.write("b", "192.0.2.2 b.test\n");
    directory.write("a", "192.0.2.2 a.test\n");
    dig_until(port, "a.test A +short", "192.0.2.2\n").await;
    assert_eq!(dig(port, "b.test A +short").await, "192.0.2.1\n");
    directory.write("Corefile", &corefile(&directory, port, reload, &"192.0.2.2"));
    dig_until(port, "c.test A +short", "192.0.2.2\n").await;
    assert_eq!(dig(port, "b.test A +short").await, "192.0.2.2\n");
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_wrong_leaves_what_was_read_before_until_it_is_right() {
    let (directory, port) = (Directory::new("files-wrong"), free_port().await);
    let zone = |addr: &str| format!("@ 300 IN SOA ns admin 1 3600 600 86400 60\n@ 300 NS ns\nns 300 A {addr}\n");
    let db = directory.write("db", &zone("192.0.2.1"));
    directory.write("a", "192.0.2.1 a.test\n");
    let (home, db) = (directory.0.display(), db.display());
    let text = format!(
        "d.test:{port} {{\n file {db} {{\n  reload 1s\n }}\n}}\na.test:{port} {{\n hosts {home}/a {{\n  reload 2s\n }}\n}}\n"
    );
    let process = Process::start(&directory.write("Corefile", &text), None);
    dig_until(port, "ns.d.test A +short", "192.0.2.1\n").await;
    directory.write("db", "no zone");
    // Between two looks at this one there is one at the other.
    for version in 2..=3 {
        directory.write("a", &format!("192.0.2.{version} a.test\n"));
        dig_until(port, "a.test A +short", &format!("192.0.2.{version}\n")).await;
    }
    assert_eq!(dig(port, "ns.d.test A +short").await, "192.0.2.1\n");
    directory.write("db", &zone("192.0.2.3"));
    dig_until(port, "ns.d.test A +short", "192.0.2.3\n").await;
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_files_that_are_looked_at_together_those_that_are_right_are_taken_over_beside_one_that_is_wrong() {
    let (directory, port) = (Directory::new("files-many"), free_port().await);
    let zone = |addr: &str| format!("@ 300 IN SOA ns admin 1 3600 600 86400 60\n@ 300 NS ns\nns 300 A {addr}\n");
    let names = ["a", "b", "c", "d", "e"];
    let block = |name: &str| {
        let db = directory.write(name, &zone("192.0.2.1"));
        format!("{name}.test:{port} {{\n file {} {{\n  reload 1s\n }}\n}}\n", db.display())
    };
    let text: String = names.iter().map(|name| block(name)).collect();
    let process = Process::start(&directory.write("Corefile", &text), None);
    dig_until(port, "ns.a.test A +short", "192.0.2.1\n").await;
    for name in names {
        directory.write(name, &if name == "c" { "no zone".to_owned() } else { zone("192.0.2.2") });
    }
    for name in names.into_iter().filter(|name| *name != "c") {
        dig_until(port, &format!("ns.{name}.test A +short"), "192.0.2.2\n").await;
    }
    assert_eq!(dig(port, "ns.c.test A +short").await, "192.0.2.1\n");
    process.stop().await;
}

/// A zone of which a file tells without saying what it is called.
const ZONE: &str = "@ 300 IN SOA ns admin 1 3600 600 86400 60\n@ 300 NS ns\nns 300 A 192.0.2.1\n";

#[test]
fn auto_goes_down_and_follows_no_link_to_a_directory() {
    let directory = Directory::new("files-below");
    let zones = directory.0.join("zones");
    std::fs::create_dir_all(zones.join("below")).unwrap();
    std::os::unix::fs::symlink(".", zones.join("loop")).unwrap();
    let zone = directory.write("zones/below/db.a.test", ZONE);
    // A file that is a link counts, as all do in a mounted ConfigMap.
    std::os::unix::fs::symlink(&zone, zones.join("db.b.test")).unwrap();
    let text = format!(".:53 {{\n auto {{\n directory {}\n }}\n}}\n", zones.display());
    let config = crate::dns::check(&text, "Corefile").config;
    assert_eq!(config.directories, [zones.clone(), zones.join("below")]);
    assert_eq!(config.files, [zone, zones.join("db.b.test")]);
    assert_eq!(config.warnings, Vec::<String>::new());
}

#[test]
fn auto_goes_down_the_directories_of_a_mounted_configmap() {
    let directory = Directory::new("files-mounted");
    let zones = directory.0.join("zones");
    // As kubelet lays it out: a version, a link to the one that holds, and one to each thing in that.
    std::fs::create_dir_all(zones.join("..v1/org")).unwrap();
    directory.write("zones/..v1/org/db.c.test", ZONE);
    for (to, link) in [("..v1", "..data"), ("..data/org", "org")] {
        std::os::unix::fs::symlink(to, zones.join(link)).unwrap();
    }
    let text = format!(".:53 {{\n auto {{\n directory {}\n }}\n}}\n", zones.display());
    let config = crate::dns::check(&text, "Corefile").config;
    assert_eq!(config.directories, [zones.clone(), zones.join("org")]);
    assert_eq!(config.files, [zones.join("org/db.c.test")]);
    assert_eq!(config.warnings, Vec::<String>::new());
}
