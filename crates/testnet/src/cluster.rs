//! A cluster for a test.

use std::{
    fs::File,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Duration,
};

use serde_json::Value;

use crate::{Traces, vm, wait::eventually};

/// Where the project's root is, from any crate of the workspace.
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
/// Test processes take turns by this file.
const LOCK: &str = "/tmp/podnet-test-cluster.lock";

/// There while the cluster that is up is a test's. A test that was killed leaves both, and the next one removes both.
const MARKER: &str = "/run/podnet-test";
/// There while a cluster is up.
const SETTINGS: &str = "/var/lib/podnet/cluster.json";

/// The control groups of a cluster's processes are in there, wherever the second version of control groups is.
const SYSTEM: [&str; 2] = ["/sys/fs/cgroup/unified/podnet/system", "/sys/fs/cgroup/podnet/system"];

/// A running cluster; dropping it removes it.
pub struct Cluster {
    podnet: PathBuf,
    kubeconfig: PathBuf,
    _turn: File,
}

impl Cluster {
    /// Brings a cluster up with the binary `podnet` (`env!("CARGO_BIN_EXE_podnet")`), once it is this test's turn.
    ///
    /// # Panics
    ///
    /// When it does not come up.
    #[must_use]
    pub fn up(podnet: &str, arguments: &[&str]) -> Self {
        let cluster = Self::none(podnet);
        // It may take as long as the virtual machine has, in there.
        let patience: &[&str] = if vm::is_here() { &["--timeout", "600"] } else { &[] };
        let output = cluster.podnet(&[&["up"], arguments, patience].concat());
        assert!(output.status.success(), "podnet up: {}\n{}", text(&output), cluster.logs());
        cluster
    }

    /// Takes the turn, with no cluster up. What an earlier test left is removed; a user's cluster is not.
    ///
    /// # Panics
    ///
    /// When a user's cluster is up, the turn cannot be taken, or what an earlier test left cannot be removed.
    #[must_use]
    pub fn none(podnet: &str) -> Self {
        let turn = File::create(LOCK).expect("the lock file can be made");
        turn.lock().expect("the lock can be taken");
        assert!(
            !Path::new(SETTINGS).exists() || Path::new(MARKER).exists(),
            "a cluster is up: run `podnet down` first (tests need this machine's place for one)"
        );
        File::create(MARKER).expect("the marker can be made");
        let cluster = Self { podnet: podnet.into(), kubeconfig: "/var/lib/podnet/kubeconfig".into(), _turn: turn };
        let output = cluster.podnet(&["down"]);
        assert!(output.status.success(), "podnet down: {}", text(&output));
        eventually("the processes of an earlier cluster are gone", Duration::from_secs(10), || {
            let left = Traces::now().processes;
            if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
        });
        cluster
    }

    /// Runs the podnet command.
    ///
    /// # Panics
    ///
    /// When it cannot be started.
    pub fn podnet(&self, arguments: &[&str]) -> Output {
        Command::new(&self.podnet).args(arguments).stdin(Stdio::null()).output().expect("podnet can be started")
    }

    /// Runs kubectl and returns what it printed.
    ///
    /// # Panics
    ///
    /// When it fails.
    pub fn kubectl(&self, arguments: &[&str]) -> String {
        self.try_kubectl(arguments)
            .unwrap_or_else(|error| panic!("kubectl {}: {error}\n{}", arguments.join(" "), self.logs()))
    }

    /// Asks for a mode of Services as `kubectl edit` does, and waits until these nodes say that it serves.
    ///
    /// # Panics
    ///
    /// When one does not say so in time.
    pub fn take_proxy_mode(&self, mode: &str, nodes: &[&str], patience: Duration) {
        let config =
            format!("apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nmode: {mode}\n");
        let patch = serde_json::json!({"data": {"config.conf": config}}).to_string();
        self.kubectl(&["-n", "kube-system", "patch", "configmap", "kube-proxy", "--type=merge", "-p", &patch]);
        let theirs = format!("podnet_proxy_mode{{mode=\"{mode}\"}} 1");
        for node in nodes {
            eventually(&format!("{node} is in mode {mode}"), patience, || {
                let ask = ["netns", "exec", &format!("podnet-{node}"), "curl", "-s", "http://127.0.0.1:10249/metrics"];
                let output = Command::new("ip").args(ask).output().map_err(|error| error.to_string())?;
                let told = String::from_utf8_lossy(&output.stdout);
                let told: Vec<_> = told.lines().filter(|line| line.starts_with("podnet_proxy_mode")).collect();
                let is_theirs = told.contains(&theirs.as_str());
                if is_theirs { Ok(()) } else { Err(format!("{}\n{}", told.join("\n"), self.logs())) }
            });
        }
    }

    /// Runs kubectl; what it printed, or both of its outputs where it failed.
    ///
    /// # Errors
    ///
    /// When it exits with another code than 0.
    pub fn try_kubectl(&self, arguments: &[&str]) -> Result<String, String> {
        with_patience(|| {
            let output =
                self.kubectl_command(arguments).stdin(Stdio::null()).output().map_err(|error| error.to_string())?;
            if output.status.success() {
                Ok(String::from_utf8_lossy(&output.stdout).into_owned())
            } else {
                Err(text(&output))
            }
        })
    }

    /// A kubectl that has yet to be started.
    #[must_use]
    pub fn kubectl_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        command.env("KUBECONFIG", &self.kubeconfig).args(arguments);
        command
    }

    /// An object, or a list of them, as JSON.
    ///
    /// # Panics
    ///
    /// When kubectl fails.
    #[must_use]
    pub fn json(&self, arguments: &[&str]) -> Value {
        let text = self.kubectl(&[&["get", "-o", "json"], arguments].concat());
        serde_json::from_str(&text).expect("kubectl prints JSON")
    }

    /// Applies a manifest's text.
    ///
    /// # Panics
    ///
    /// When kubectl fails.
    pub fn apply(&self, manifest: &str) {
        self.try_apply(manifest).unwrap_or_else(|error| panic!("kubectl apply: {error}"));
    }

    /// Applies a manifest's text; what kubectl printed, or both of its outputs where it failed.
    ///
    /// # Errors
    ///
    /// When it exits with another code than 0.
    ///
    /// # Panics
    ///
    /// When kubectl cannot be run.
    pub fn try_apply(&self, manifest: &str) -> Result<String, String> {
        with_patience(|| self.apply_once(manifest))
    }

    fn apply_once(&self, manifest: &str) -> Result<String, String> {
        let mut kubectl = self.kubectl_command(&["apply", "-f", "-"]);
        let mut child = kubectl
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("kubectl starts");
        child.stdin.take().expect("stdin is piped").write_all(manifest.as_bytes()).expect("kubectl reads");
        let output = child.wait_with_output().expect("kubectl ends");
        if output.status.success() { Ok(text(&output)) } else { Err(text(&output)) }
    }

    /// Applies a file of the project, for example `examples/web.yaml`.
    ///
    /// # Panics
    ///
    /// When kubectl fails.
    pub fn apply_file(&self, path: &str) {
        let path = Path::new(ROOT).join(path);
        let _ = self.kubectl(&["apply", "-f", &path.to_string_lossy()]);
    }

    /// Runs a command in a pod's first container.
    ///
    /// # Errors
    ///
    /// What it printed, when it exits with another code than 0.
    pub fn exec(&self, namespace: &str, pod: &str, command: &[&str]) -> Result<String, String> {
        self.try_kubectl(&[&["-n", namespace, "exec", pod, "--"], command].concat())
    }

    /// Waits until all pods that the arguments select are Ready.
    ///
    /// # Panics
    ///
    /// When they are not in time.
    pub fn await_ready(&self, arguments: &[&str], patience: Duration) {
        let timeout = format!("--timeout={}s", patience.as_secs());
        eventually(&format!("pods {arguments:?}"), patience, || {
            self.try_kubectl(&[&["wait", "--for=condition=Ready", "pod", timeout.as_str()], arguments].concat())
        });
    }

    /// The process id of one of the cluster's processes, for example `apiserver` or `node1-agent`. One that has just ended is waited for.
    ///
    /// # Panics
    ///
    /// When it does not run.
    #[must_use]
    pub fn pid(&self, process: &str) -> i32 {
        eventually(&format!("process {process}"), Duration::from_secs(10), || {
            self.running(process).ok_or_else(|| format!("it does not run\n{}", self.logs()))
        })
    }

    /// The process id of one of the cluster's processes where it runs, as `podnet status` tells it, by its control group.
    #[must_use]
    pub fn running(&self, process: &str) -> Option<i32> {
        SYSTEM.iter().find_map(|system| {
            let pids = std::fs::read_to_string(format!("{system}/{process}/cgroup.procs")).ok()?;
            pids.lines().next()?.parse::<i32>().ok()
        })
    }

    /// The ends of all logs, for a failed test's message.
    #[must_use]
    pub fn logs(&self) -> String {
        let mut all = String::new();
        for entry in std::fs::read_dir("/run/podnet/log").into_iter().flatten().flatten() {
            let log = std::fs::read_to_string(entry.path()).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let end = lines[lines.len().saturating_sub(25)..].join("\n");
            all.push_str(&format!("--- {}\n{end}\n", entry.file_name().to_string_lossy()));
        }
        all
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let output = self.podnet(&["down"]);
        if !output.status.success() && !std::thread::panicking() {
            panic!("podnet down: {}", text(&output));
        }
        if output.status.success() {
            // Where it stays, the next test removes it.
            let _ = std::fs::remove_file(MARKER);
        }
    }
}

/// kubectl gives up a connection to the API server that is not there after 10 s, which is little in the virtual machine: nothing was asked by
/// then.
fn with_patience(ask: impl Fn() -> Result<String, String>) -> Result<String, String> {
    const TIMES: usize = 10;
    let gave_up =
        |told: &Result<String, String>| told.as_ref().is_err_and(|told| told.contains("TLS handshake timeout"));
    let mut told = ask();
    for _ in 1..TIMES {
        if !(vm::is_here() && gave_up(&told)) {
            break;
        }
        told = ask();
    }
    told
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
