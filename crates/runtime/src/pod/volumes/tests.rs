use std::{fs, os::unix::fs::PermissionsExt};

use k8s_openapi::serde_json::{from_value, json};

use super::{
    projection::{ProjectedFile, write_version},
    *,
};

fn file(path: &str, text: &str) -> ProjectedFile {
    ProjectedFile { path: path.into(), bytes: text.into(), mode: None }
}

#[test]
fn all_files_of_a_version_appear_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let volume = dir.path().join("v");
    write_version(&volume, &[file("a", "1"), file("deep/b", "1")], 0o640, None).unwrap();
    assert_eq!(fs::read_to_string(volume.join("deep/b")).unwrap(), "1");
    assert_eq!(fs::metadata(volume.join("a")).unwrap().permissions().mode() & 0o777, 0o640);
    let first = fs::read_link(volume.join("..data")).unwrap();

    write_version(&volume, &[file("a", "1"), file("deep/b", "1")], 0o640, None).unwrap();
    assert_eq!(fs::read_link(volume.join("..data")).unwrap(), first, "nothing changed, so nothing is written");

    write_version(&volume, &[file("a", "2")], 0o640, None).unwrap();
    assert_eq!(fs::read_to_string(volume.join("a")).unwrap(), "2");
    assert!(!volume.join("deep").exists());
    assert!(!volume.join(first).exists(), "the version before is gone");
}

#[test]
fn a_link_that_leads_elsewhere_is_replaced_and_what_it_leads_to_stays() {
    let dir = tempfile::tempdir().unwrap();
    let (volume, other) = (dir.path().join("v"), dir.path().join("other"));
    fs::create_dir_all(&volume).unwrap();
    fs::create_dir(&other).unwrap();
    for target in ["../other", other.to_str().unwrap(), ".."] {
        let data = volume.join("..data");
        let _ = fs::remove_file(&data);
        std::os::unix::fs::symlink(target, &data).unwrap();
        write_version(&volume, &[file("a", target)], 0o644, None).unwrap();
        assert!(other.is_dir(), "{target}");
        assert_eq!(fs::read_to_string(volume.join("a")).unwrap(), target);
    }
}

#[test]
fn volumes_that_the_node_writes_are_not_for_containers_to_write() {
    let pod: Pod = from_value(json!({ "spec": { "containers": [], "volumes": [
        { "name": "settings", "configMap": { "name": "c" } }, { "name": "token", "projected": { "sources": [] } },
        { "name": "data", "emptyDir": {} }, { "name": "host", "hostPath": { "path": "/tmp" } } ] } }))
    .unwrap();
    let projected: Vec<bool> =
        ["settings", "token", "data", "host", "none"].into_iter().map(|name| is_projected(&pod, name)).collect();
    assert_eq!(projected, [true, true, false, false, false]);
}
