//! Looking at, and damaging, what is inside a node's or a pod's namespace.

use std::{process::Command, time::Duration};

use podnet_testnet::{Cluster, eventually};

use crate::mending;

/// A network namespace by its name in `/run/netns`.
pub(crate) struct Inside(pub(crate) String);

impl Inside {
    pub(crate) fn node(name: &str) -> Self {
        Self(format!("podnet-{name}"))
    }

    /// The namespace of the pod that has this address.
    pub(crate) fn pod(address: &str) -> Self {
        let names = std::fs::read_dir("/run/netns").unwrap().flatten();
        let mut names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let has = |name: &String| {
            name.starts_with("podnet-pod-")
                && Self(name.clone()).run("ip -4 -o addr").is_ok_and(|text| text.contains(&format!("inet {address}/")))
        };
        Self(names.find(has).unwrap_or_else(|| panic!("no pod has {address}")))
    }

    /// What a shell command prints.
    pub(crate) fn run(&self, command: &str) -> Result<String, String> {
        let output = Command::new("ip").args(["netns", "exec", &self.0, "sh", "-c", command]).output().unwrap();
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        if output.status.success() { Ok(text) } else { Err(format!("{command}: {text}")) }
    }

    pub(crate) fn must(&self, command: &str) -> String {
        self.run(command).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Does the damage, and waits until `whole` succeeds, which has to be within a second.
    pub(crate) fn is_mended_in_time(&self, damage: &str, whole: &str) {
        mending::is_mended_in_time(damage, || drop(self.must(damage)), || self.run(whole));
    }

    /// The sum of a counter of the node's agent.
    pub(crate) fn counter(&self, name: &str) -> u64 {
        let metrics = self.must("curl -s 127.0.0.1:9099/metrics");
        let ours = metrics.lines().filter(|line| line.starts_with(name));
        ours.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    }
}

pub(crate) fn address(cluster: &Cluster, pod: &str) -> String {
    eventually(&format!("address of {pod}"), Duration::from_secs(30), || {
        let pod = cluster.json(&["pod", pod]);
        pod["status"]["podIP"].as_str().map(str::to_owned).ok_or("none yet")
    })
}

/// A pod with the host's tools on a node.
pub(crate) fn pod(name: &str, node: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: {name}}}}}\nspec: {{nodeName: {node}, terminationGracePeriodSeconds: 0, containers: [{{name: c, image: podnet.local/demoapp}}]}}\n"
    )
}

pub(crate) fn await_mtu(inside: &Inside, device: &str, mtu: u32) {
    eventually(&format!("MTU {mtu} of {device} in {}", inside.0), Duration::from_secs(5), || {
        let shown = inside.run(&format!("ip link show {device}"))?;
        if shown.contains(&format!("mtu {mtu} ")) { Ok(()) } else { Err(shown) }
    });
}
