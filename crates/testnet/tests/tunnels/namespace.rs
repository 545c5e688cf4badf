//! Namespaces that nodes, pods and routers are in.

use std::process::Command;

use podnet_kernel::{netns::NetNs, sysctl};

/// A namespace that forwards and goes with the value.
pub(crate) struct Namespace {
    pub(crate) netns: NetNs,
    path: String,
}

impl Namespace {
    pub(crate) fn new(tag: &str) -> Self {
        let path = format!("/run/netns/pntest-tun-{tag}-{}", std::process::id());
        NetNs::remove(&path).unwrap();
        let namespace = Self { netns: NetNs::create(&path).unwrap(), path };
        namespace.command("ip link set lo up");
        for (key, value) in [("ip_forward", "1"), ("conf.all.rp_filter", "0"), ("conf.default.rp_filter", "0")] {
            sysctl::set(&namespace.netns, &format!("net.ipv4.{key}"), value).unwrap();
        }
        // Addresses are in force at once, without duplicate address detection.
        for (key, value) in [("all.forwarding", "1"), ("default.accept_dad", "0")] {
            sysctl::set(&namespace.netns, &format!("net.ipv6.conf.{key}"), value).unwrap();
        }
        namespace
    }

    /// Runs a command inside and returns what it printed; panics where it fails.
    pub(crate) fn command(&self, line: &str) -> String {
        let mut words = line.split_whitespace();
        let mut command = Command::new(words.next().unwrap());
        command.args(words);
        let output = self.netns.run(move || command.output()).unwrap().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "{line}: {}{}", text(&output.stdout), text(&output.stderr));
        text(&output.stdout)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = NetNs::remove(&self.path);
    }
}
