//! `podnet dns --check`: what it says of a Corefile, and how it ends.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{path::Path, process::Command};

const PODNET: &str = env!("CARGO_BIN_EXE_podnet");

/// What came of a check: whether nothing is wrong, and what was said of that and of mistakes.
struct Said {
    right: bool,
    out: String,
    errors: String,
}

/// Has a Corefile in a directory checked, its path being the argument behind `before`.
fn checked(directory: &Path, before: &[&str], text: &str) -> Said {
    let path = directory.join("Corefile");
    std::fs::write(&path, text).unwrap();
    let output = Command::new(PODNET).args(["dns", "--check"]).args(before).arg(&path).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    assert!(matches!(output.status.code(), Some(0 | 1)), "{}", text(output.stderr.clone()));
    Said { right: output.status.success(), out: text(output.stdout), errors: text(output.stderr) }
}

#[test]
fn a_corefile_without_mistakes_is_right_and_what_has_no_effect_is_said() {
    let directory = tempfile::tempdir().unwrap();
    for before in [&[][..], &["--conf"], &["--corefile"]] {
        let said = checked(directory.path(), before, ". {\n k8s_external k8s.example\n whoami\n}\n");
        assert!(said.right && said.out.contains("no mistake found"), "{before:?}: {}{}", said.out, said.errors);
        assert!(
            said.errors.contains("warning: ") && said.errors.contains("Corefile:2:2: k8s_external has no effect"),
            "{}",
            said.errors
        );
    }
}

#[test]
fn all_mistakes_are_told_with_their_places() {
    let directory = tempfile::tempdir().unwrap();
    let said = checked(directory.path(), &[], ". {\n bogus\n cache x..y\n kubernetes c.local {\n  ttl 5000\n }\n}\n");
    assert!(!said.right && said.errors.contains("has 3 mistakes"), "{}", said.errors);
    for place in ["Corefile:2:2: ", "Corefile:3:8: ", "Corefile:5:7: "] {
        assert!(said.errors.contains(place), "{place}: {}", said.errors);
    }
    assert!(!said.out.contains("no mistake"), "{}", said.out);
}

#[test]
fn what_the_start_would_refuse_is_a_mistake() {
    let directory = tempfile::tempdir().unwrap();
    let kubernetes =
        |api: &str| format!("{api}.local {{\n kubernetes {api}.local {{\n  endpoint http://{api}.test\n }}\n}}\n");
    for (corefile, wanted) in [
        ("tls://. {\n tls /nowhere/cert.pem /nowhere/key.pem\n whoami\n}\n".to_owned(), "/nowhere/cert.pem"),
        (
            ". {\n forward . tls://192.0.2.1 tls://192.0.2.2 {\n  tls /nowhere/ca.pem\n }\n}\n".to_owned(),
            "/nowhere/ca.pem",
        ),
        (kubernetes("a") + &kubernetes("b"), "different API servers"),
    ] {
        let said = checked(directory.path(), &[], &corefile);
        assert!(!said.right && said.errors.contains(wanted), "{corefile}{}{}", said.out, said.errors);
        assert!(!said.errors.contains("mistakes"), "it is one: {}", said.errors);
    }
}
