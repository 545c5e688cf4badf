use super::*;

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
