//! `podnet dns`: what `--check` says of a Corefile, and which signals have one read again.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    fs::File,
    net::Ipv4Addr,
    path::Path,
    process::{Child, Command},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

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

/// A server that ends with the test.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn until(what: &str, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn sigusr1_has_a_corefile_without_reload_read_again_and_sighup_and_sigusr2_do_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let [corefile, log] = ["Corefile", "log"].map(|name| directory.path().join(name));
    // An address of the loopback that no other test has.
    let [_, second, third, fourth] = std::process::id().to_be_bytes();
    let (address, port) = (Ipv4Addr::new(127, 100 + second % 100, third, fourth), 10_053);
    let write = |plugin: &str| {
        std::fs::write(&corefile, format!(".:{port} {{\n bind {address}\n {plugin}\n}}\n")).unwrap();
    };
    let host = |host: &str| write(&format!("hosts /nowhere {{\n  {host} www.test\n }}"));
    let answers = |wanted: &str| {
        let (server, port) = (format!("@{address}"), port.to_string());
        let asked = [server.as_str(), "-p", &port, "+tries=1", "+time=2", "+short", "www.test", "A"];
        Command::new("dig").args(asked).output().unwrap().stdout == format!("{wanted}\n").as_bytes()
    };
    let says = |text: &str| std::fs::read_to_string(&log).unwrap().contains(text);
    host("192.0.2.1");
    let out = File::create(&log).unwrap();
    let mut command = Command::new(PODNET);
    command.args(["dns", "--conf"]).arg(&corefile).env_remove("PODNET_LOG");
    let mut server = Server(command.stdout(out.try_clone().unwrap()).stderr(out).spawn().unwrap());
    let pid = Pid::from_child(&server.0);
    until("it does not answer", || answers("192.0.2.1"));
    for (signal, name) in [(Signal::HUP, "SIGHUP does nothing"), (Signal::USR2, "SIGUSR2 does nothing")] {
        kill_process(pid, signal).unwrap();
        until(name, || says(name));
    }
    host("192.0.2.2");
    assert!(answers("192.0.2.1"), "the Corefile has no reload");
    kill_process(pid, Signal::USR1).unwrap();
    until("the Corefile is not read again", || answers("192.0.2.2"));
    write("bogus");
    kill_process(pid, Signal::USR1).unwrap();
    until("nothing is said of the mistake", || says("Corefile:3:2: unknown plugin"));
    assert!(answers("192.0.2.2"), "the Corefile before stays in force");
    assert_eq!(server.0.try_wait().unwrap(), None, "it is the same process");
    kill_process(pid, Signal::TERM).unwrap();
    assert!(server.0.wait().unwrap().success());
}
