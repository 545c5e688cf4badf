//! A node without a cluster: a fake CNI plugin, objects in memory, real processes.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use k8s_openapi::{
    api::core::v1::{Pod, PodStatus},
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
    serde_json::{Value, from_value, json},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::{Semaphore, watch},
};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    access::{ContainerAccess, ContainerRef, ExecRequest},
    cluster::PodKey,
    cni::{Cni, conflist},
    containers::Containers,
    images::ImageStore,
    pod::{Desired, NetworkState, PodContext, Worker, key_of, names::DnsSettings},
    sandbox::SandboxMaker,
};

use super::memory_cluster::MemoryCluster;

const PATIENCE: Duration = Duration::from_secs(40);
const PLUGIN: &str = r#"#!/bin/sh
dir=$(dirname "$0")
echo "$CNI_COMMAND" >> "$dir/log"
if [ "$CNI_COMMAND" = ADD ]; then
    if [ -e "$dir/broken" ]; then echo '{"cniVersion":"1.0.0","code":11,"msg":"no address left"}'; exit 1; fi
    echo '{"cniVersion":"1.0.0","ips":[{"address":"10.99.0.5/32"}]}'
fi
"#;

/// Waits until something is so.
pub(super) async fn eventually(what: &str, mut so: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !so().await {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A node for one test.
pub(super) struct Fixture {
    dir: tempfile::TempDir,
    cgroup: podnet_kernel::cgroup::Cgroup,
    netns_dir: PathBuf,
    context: Arc<PodContext>,
    pub(super) cluster: Arc<MemoryCluster>,
}

impl Fixture {
    pub(super) fn new() -> Self {
        assert!(rustix::process::geteuid().is_root(), "these tests need root: they make namespaces");
        let dir = tempfile::tempdir().unwrap();
        let id = uuid::Uuid::new_v4().simple().to_string();
        let cgroup = podnet_kernel::cgroup::Cgroup::v2(format!("pntest-{id}")).unwrap();
        cgroup.create().unwrap();
        let netns_dir = PathBuf::from(format!("/run/netns/pntest-{id}"));
        let (bin, net_d) = (dir.path().join("bin"), dir.path().join("net.d"));
        for made in [&bin, &net_d, &dir.path().join("state"), &netns_dir] {
            fs::create_dir_all(made).unwrap();
        }
        fs::write(bin.join("fake"), PLUGIN).unwrap();
        fs::set_permissions(bin.join("fake"), fs::Permissions::from_mode(0o755)).unwrap();
        let list = json!({ "cniVersion": "1.0.0", "name": "testnet", "plugins": [{ "type": "fake" }] });
        fs::write(net_d.join("10.conflist"), list.to_string()).unwrap();
        let cluster = Arc::new(MemoryCluster::default());
        let cni = Cni { bin_dirs: vec![bin, "/usr/bin".into()], conf_dir: net_d };
        let pause = pause_binary();
        let network = NetworkState::Ready(Arc::new(conflist::first(&cni.conf_dir).unwrap()));
        let context = Arc::new(PodContext {
            cluster: cluster.clone(),
            images: ImageStore::open(&dir.path().join("images")).unwrap(),
            sandboxes: SandboxMaker { cni, podnet_binary: pause.clone(), pause_arguments: vec![] },
            containers: Containers::default(),
            network: watch::channel(network).1,
            dns: DnsSettings {
                cluster_dns: "10.233.0.10".parse().unwrap(),
                cluster_domain: "cluster.local".into(),
                node_resolv_conf: String::new(),
            },
            node_addresses: vec!["172.29.0.11".parse().unwrap()],
            state_dir: dir.path().join("state"),
            cgroup_root: cgroup.path().to_owned(),
            netns_dir: netns_dir.clone(),
            podnet_binary: pause,
            setups: Semaphore::new(4),
        });
        Self { dir, cgroup, netns_dir, context, cluster }
    }

    #[expect(clippy::needless_pass_by_value, reason = "it reads like the manifest")]
    pub(super) fn start(&self, spec: Value) -> RunningPod<'_> {
        let pod: Pod = from_value(json!({
            "metadata": { "name": "web", "namespace": "shop", "uid": uuid::Uuid::new_v4().to_string() }, "spec": spec }))
        .unwrap();
        self.run(pod)
    }

    fn run(&self, pod: Pod) -> RunningPod<'_> {
        let key = key_of(&pod).unwrap();
        let (desired, receiver) = watch::channel(Desired { pod: Arc::new(pod), gone: false });
        let worker = Box::pin(Worker::new(self.context.clone(), key.clone(), receiver).run());
        let worker = AbortOnDropHandle::new(tokio::spawn(worker));
        RunningPod { fixture: self, key, desired, worker }
    }

    pub(super) fn containers(&self) -> &Containers {
        &self.context.containers
    }

    /// How many network namespaces there are.
    pub(super) fn namespaces(&self) -> usize {
        fs::read_dir(&self.netns_dir).unwrap().count()
    }

    pub(super) fn plugin_log(&self) -> Vec<String> {
        let log = fs::read_to_string(self.dir.path().join("bin/log")).unwrap_or_default();
        log.lines().map(Into::into).collect()
    }

    pub(super) fn break_plugin(&self) {
        fs::write(self.dir.path().join("bin/broken"), "").unwrap();
    }

    pub(super) fn mend_plugin(&self) {
        fs::remove_file(self.dir.path().join("bin/broken")).unwrap();
    }

    fn target() -> ContainerRef {
        ContainerRef { namespace: "shop".into(), pod: "web".into(), container: None }
    }

    pub(super) async fn try_exec(&self, command: &[&str]) -> bool {
        let command = command.iter().map(|word| (*word).to_owned()).collect();
        let request = ExecRequest { command, tty: false, stdin: false };
        match self.context.containers.exec(Self::target(), request).await {
            Ok(session) => session.exit.await == Ok(0),
            Err(_) => false,
        }
    }

    pub(super) async fn exec(&self, command: &[&str], input: Option<&str>) -> (i32, String, String) {
        let command = command.iter().map(|word| (*word).to_owned()).collect();
        let request = ExecRequest { command, tty: false, stdin: input.is_some() };
        let mut session = self.context.containers.exec(Self::target(), request).await.unwrap();
        if let (Some(mut stdin), Some(input)) = (session.stdin.take(), input) {
            stdin.write_all(input.as_bytes()).await.unwrap();
            stdin.shutdown().await.unwrap();
        }
        let (mut out, mut err) = (String::new(), String::new());
        session.stdout.read_to_string(&mut out).await.unwrap();
        session.stderr.unwrap().read_to_string(&mut err).await.unwrap();
        (session.exit.await.unwrap(), out, err)
    }

    pub(super) async fn exec_terminal(&self, command: &[&str], input: &str) -> (i32, String) {
        let command = command.iter().map(|word| (*word).to_owned()).collect();
        let request = ExecRequest { command, tty: true, stdin: true };
        let mut session = self.context.containers.exec(Self::target(), request).await.unwrap();
        session.resize.as_ref().unwrap().send((100, 40)).await.unwrap();
        session.stdin.as_mut().unwrap().write_all(input.as_bytes()).await.unwrap();
        let mut out = String::new();
        session.stdout.read_to_string(&mut out).await.unwrap();
        (session.exit.await.unwrap(), out)
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        let removed = self.cgroup.remove_tree(Duration::from_secs(10));
        for entry in fs::read_dir(&self.netns_dir).into_iter().flatten().flatten() {
            let _ = podnet_kernel::netns::NetNs::remove(entry.path());
        }
        // The directory was made a mount point, as `ip netns` does it.
        let _ = rustix::mount::unmount(&self.netns_dir, rustix::mount::UnmountFlags::DETACH);
        let _ = fs::remove_dir(&self.netns_dir);
        if !std::thread::panicking() {
            removed.unwrap();
        }
    }
}

/// A pod with its worker.
pub(super) struct RunningPod<'a> {
    fixture: &'a Fixture,
    key: PodKey,
    desired: watch::Sender<Desired>,
    /// It ends with the test: otherwise it would make a new sandbox of the one that the fixture removes.
    worker: AbortOnDropHandle<()>,
}

/// A pod whose runtime has ended.
pub(super) struct Stopped<'a> {
    fixture: &'a Fixture,
    pod: Pod,
}

impl<'a> Stopped<'a> {
    pub(super) fn start_runtime(self) -> RunningPod<'a> {
        self.fixture.run(self.pod)
    }
}

impl<'a> RunningPod<'a> {
    pub(super) fn dir(&self) -> PathBuf {
        self.fixture.context.state_dir.join(&self.key.uid)
    }

    pub(super) fn cgroup(&self) -> PathBuf {
        self.fixture.context.cgroup_root.join(&self.key.uid)
    }

    pub(super) async fn status_where(&self, so: impl Fn(&PodStatus) -> bool) -> PodStatus {
        let mut status = self.fixture.cluster.status.subscribe();
        let found = status.wait_for(|status| status.as_ref().is_some_and(&so));
        match tokio::time::timeout(PATIENCE, found).await {
            Ok(found) => found.unwrap().clone().unwrap(),
            Err(_) => panic!("last: {:#?}\n{:#?}", self.fixture.cluster.last_status(), self.fixture.cluster.messages()),
        }
    }

    pub(super) async fn running(&self) -> PodStatus {
        self.status_where(|status| {
            status.container_statuses.as_ref().is_some_and(|list| list.iter().all(|one| one.ready))
        })
        .await
    }

    pub(super) fn pause_pid(&self) -> u32 {
        let pids = fs::read_to_string(self.cgroup().join("cgroup.procs")).unwrap();
        pids.lines().next().unwrap().parse().unwrap()
    }

    pub(super) fn kill_pause(&self) {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.pause_pid()).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }

    /// Lets the watch show the pod with this status, as of so many writes.
    pub(super) fn show(&self, status: PodStatus, version: u64) {
        self.desired.send_modify(|desired| {
            let mut pod = desired.pod.as_ref().clone();
            pod.metadata.resource_version = Some(version.to_string());
            pod.status = Some(status);
            desired.pod = Arc::new(pod);
        });
    }

    pub(super) fn delete(&self, grace: i64) {
        self.desired.send_modify(|desired| {
            let mut pod = desired.pod.as_ref().clone();
            pod.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
            pod.metadata.deletion_grace_period_seconds = Some(grace);
            desired.pod = Arc::new(pod);
        });
    }

    /// Ends the worker as a killed runtime would end it.
    pub(super) async fn stop_runtime(self) -> Stopped<'a> {
        self.worker.abort();
        let _ = self.worker.await;
        self.fixture.cluster.status.send_replace(None);
        let pod = self.desired.borrow().pod.as_ref().clone();
        Stopped { fixture: self.fixture, pod }
    }

    pub(super) async fn restart_runtime(self) -> RunningPod<'a> {
        self.stop_runtime().await.start_runtime()
    }
}

/// The example that `cargo test` builds beside the tests.
fn pause_binary() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let path = own.parent().and_then(|deps| deps.parent()).unwrap().join("examples/pause");
    assert!(path.exists(), "{} is missing: run `cargo build --examples` or the whole `cargo test`", path.display());
    path
}
