//! Namespaces for tests. They need root, and fail loudly without it.

use std::{
    ops::Deref,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use podnet_model::Mac;

use crate::netns::NetNs;

/// A namespace `/run/netns/pntest-<tag>-<pid>` that goes with the value.
pub(crate) struct TestNs {
    netns: NetNs,
    pub(crate) path: PathBuf,
}

impl TestNs {
    pub(crate) fn new(tag: &str) -> Self {
        let path = path(tag);
        NetNs::remove(&path).unwrap();
        Self { netns: NetNs::create(&path).unwrap(), path }
    }

    /// Runs a command inside and returns what it printed; panics where it fails.
    pub(crate) fn command(&self, line: &str) -> String {
        let mut words = line.split_whitespace();
        let mut command = Command::new(words.next().unwrap());
        command.args(words);
        let output = self.run(move || command.output()).unwrap().unwrap();
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Deref for TestNs {
    type Target = NetNs;

    fn deref(&self) -> &NetNs {
        &self.netns
    }
}

impl Drop for TestNs {
    fn drop(&mut self) {
        let _ = NetNs::remove(&self.path);
    }
}

/// The name of a namespace of this test run.
pub(crate) fn path(tag: &str) -> PathBuf {
    PathBuf::from(format!("/run/netns/pntest-{tag}-{}", std::process::id()))
}

/// A locally administered address that ends with these two numbers.
pub(crate) fn mac(group: u8, number: u8) -> Mac {
    Mac([0x02, 0, 0, 0, group, number])
}

/// Waits until something holds; panics when it takes longer than five seconds.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while !holds() {
        assert!(Instant::now() < deadline, "not within 5 s: {what}");
        std::thread::yield_now();
    }
}
