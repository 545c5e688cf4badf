//! A pod's namespaces and control group, entered as `kubectl exec` has it done, but without the API server: where the processor is emulated,
//! that takes longer than what is looked at.

use std::{fs, path::PathBuf, process::Command};

use podnet_kernel::cgroup::Cgroup;
use podnet_testnet::{Cluster, eventually};

use crate::{SOON, run};

/// That of a pod's first container.
pub(crate) struct Place {
    process: u32,
    group: PathBuf,
}

impl Place {
    pub(crate) fn of(cluster: &Cluster, node: &str, namespace: &str, pod: &str) -> Self {
        let pod = cluster.json(&["-n", namespace, "pod", pod]);
        let of_pod = Cgroup::v2(format!("podnet/{node}/{}", pod["metadata"]["uid"].as_str().unwrap())).unwrap();
        eventually("there is a process in the container", SOON, || {
            let groups = of_pod.children().map_err(|error| error.to_string())?;
            let inside = groups.iter().find_map(|group| Some((*group.pids().ok()?.first()?, group)));
            let found = inside.map(|(process, group)| Self { process, group: group.path().to_owned() });
            found.ok_or_else(|| format!("no process in {groups:?}"))
        })
    }

    /// Runs a command there.
    pub(crate) fn run(&self, command: &str) -> Result<String, String> {
        const ENTER: &str = "echo $$ > \"$1\" && exec nsenter --all --target \"$2\" -- sh -c \"$3\"";
        let group = self.group.join("cgroup.procs");
        let process = self.process.to_string();
        run(Command::new("sh").args(["-c", ENTER, "sh"]).arg(group).args([&process, command]))
    }

    /// A file there.
    pub(crate) fn read(&self, path: &str) -> String {
        fs::read_to_string(format!("/proc/{}/root{path}", self.process)).unwrap()
    }
}
