//! Requests to the plugin, as a runtime sends them, for a pod of the cluster.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use serde_json::Value;

/// A sandbox's namespace on node1, for the pod `plain`.
pub(crate) struct Namespace(&'static str);

impl Namespace {
    pub(crate) fn make(name: &'static str) -> Self {
        assert!(Command::new("ip").args(["netns", "add", name]).status().unwrap().success());
        Self(name)
    }

    pub(crate) fn cni(&self, command: &str) -> Result<String, String> {
        self.cni_with(command, |_| {})
    }

    /// With a network configuration that is the agent's but for what `change` does to it.
    pub(crate) fn cni_with(&self, command: &str, change: impl FnOnce(&mut Value)) -> Result<String, String> {
        let conflist = std::fs::read_to_string("/run/podnet/nodes/node1/net.d/10-podnet.conflist").unwrap();
        let conflist: Value = serde_json::from_str(&conflist).unwrap();
        let mut config = conflist["plugins"][0].clone();
        config["name"] = conflist["name"].clone();
        config["cniVersion"] = conflist["cniVersion"].clone();
        change(&mut config);
        let plugin = std::path::Path::new(env!("CARGO_BIN_EXE_podnet")).with_file_name("podnet-cni");
        let mut child = Command::new(plugin)
            .env_clear()
            .envs([
                ("CNI_COMMAND", command),
                ("CNI_CONTAINERID", "without-api"),
                ("CNI_IFNAME", "eth0"),
                ("CNI_PATH", "/"),
            ])
            .env("CNI_NETNS", format!("/run/netns/{}", self.0))
            .env("CNI_ARGS", "K8S_POD_NAMESPACE=default;K8S_POD_NAME=plain")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(config.to_string().as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() { Ok(text) } else { Err(text) }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", self.0]).status();
    }
}
