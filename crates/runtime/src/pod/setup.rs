//! From nothing to a sandbox in which containers can start, and which container is next.

use std::{
    fs, io,
    time::{Duration, Instant},
};

use k8s_openapi::{
    api::core::v1::{Container, PodSpec},
    jiff::Timestamp,
};

use super::{
    NetworkState, container_spec, fields, names, network_wishes, status,
    volumes::{self, VolumeMaker},
    worker::{Wake, Worker, sooner},
};
use crate::{
    cni::Attachment,
    pause::{spec::SandboxSpec, wire::write_atomically},
    sandbox::{Sandbox, SandboxError, make_directory},
};

/// How often config maps and secrets in volumes are looked at (kubelet's `syncFrequency` is one minute). A changed Corefile has to be in force
/// within 30 s, of which cluster DNS waits up to 7 s for its replicas' sake.
const REFRESH: Duration = Duration::from_secs(15);
/// Where a pod's directory has the files that its containers see in `/etc`.
const ETC: &str = "etc";

impl Worker {
    /// Does the next thing that is missing; answers when to look again if nothing happens.
    pub(super) async fn sync(&mut self) -> Wake {
        if self.is_over() {
            if self.sandbox.is_some() {
                self.drop_sandbox().await;
                tracing::info!("pod is over");
            }
            return None;
        }
        if let Err(wake) = self.have_sandbox().await {
            return wake;
        }
        self.refresh_volumes().await;
        self.start_containers().await
    }

    /// Nothing of the pod will run again.
    pub(super) fn is_over(&self) -> bool {
        self.failure.is_some() || matches!(self.view().phase(), "Succeeded" | "Failed")
    }

    async fn have_sandbox(&mut self) -> Result<(), Wake> {
        if self.sandbox.is_some() {
            return Ok(());
        }
        if let Some((_, until)) = self.setup_backoff.until(Instant::now()) {
            return Err(Some(until));
        }
        if let Err(name) = network_wishes::sysctls(&self.pod) {
            let message = format!("forbidden sysctl: {name:?} is not one of the pod's own namespaces");
            self.tell(true, "SysctlForbidden", message.clone(), None);
            self.failure = Some(("SysctlForbidden".to_owned(), message));
            return Err(None);
        }
        if let Some(field) = self.unsupported() {
            let message = format!("Failed to create pod sandbox: {field} is not supported by podnet nodes");
            self.tell(true, "FailedCreatePodSandBox", message, None);
            return Err(Some(self.setup_failed()));
        }
        let network = self.context.network.borrow().clone();
        if let (NetworkState::NotReady(reason), false) = (&network, self.on_host_network()) {
            self.tell(true, "NetworkNotReady", format!("network is not ready: {reason}"), None);
            // The worker is woken when it is.
            return Err(None);
        }
        let context = self.context.clone();
        let Ok(_permit) = context.setups.acquire().await else { return Err(None) };
        if let Err(error) = self.make_volumes().await {
            self.tell(true, "FailedMount", error, None);
            return Err(Some(self.setup_failed()));
        }
        match self.make_sandbox(&network).await {
            Ok(sandbox) => {
                self.addresses = self.addresses_of(&sandbox);
                tracing::info!(id = %sandbox.spec.id, addresses = ?self.addresses, "sandbox made");
                self.sandbox = Some(sandbox);
                self.setup_backoff.reset();
            }
            Err(error) => {
                tracing::warn!(%error, "no sandbox");
                self.tell(true, "FailedCreatePodSandBox", format!("Failed to create pod sandbox: {error}"), None);
                return Err(Some(self.setup_failed()));
            }
        }
        if !self.have_etc().await {
            return Err(Some(self.setup_failed()));
        }
        // What was written before the addresses were known may name them.
        self.volumes_due = self.names_addresses().then(Instant::now).or(self.volumes_due);
        Ok(())
    }

    fn setup_failed(&mut self) -> Instant {
        let now = Instant::now();
        now + self.setup_backoff.failed(now, now)
    }

    fn unsupported(&self) -> Option<&'static str> {
        let spec = self.pod.spec.as_ref()?;
        [
            (spec.share_process_namespace, "spec.shareProcessNamespace"),
            (spec.host_pid, "spec.hostPID"),
            (spec.host_ipc, "spec.hostIPC"),
        ]
        .into_iter()
        .find_map(|(set, field)| (set == Some(true)).then_some(field))
        .or_else(|| {
            (!names_are_plain(spec)).then_some("a container's or volume's name with more than a DNS label in it")
        })
    }

    async fn make_sandbox(&self, network: &NetworkState) -> Result<Sandbox, SandboxError> {
        // Something may be left of one whose end failed.
        self.context.sandboxes.tear_down(&self.dir).await?;
        // Files of another sandbox name its addresses.
        match fs::remove_dir_all(self.dir.join(ETC)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, "the /etc files of an earlier sandbox stay");
            }
            _ => {}
        }
        let id = uuid::Uuid::new_v4();
        let on_host = self.on_host_network();
        let cgroup = self.context.cgroup_root.join(&self.key.uid);
        let netns = (!on_host).then(|| self.context.netns_dir.join(format!("podnet-pod-{id}")));
        let spec = SandboxSpec {
            id: id.simple().to_string(),
            namespace: self.key.namespace.clone(),
            pod: self.key.name.clone(),
            uid: self.key.uid.clone(),
            hostname: (!on_host).then(|| names::hostname(&self.pod)),
            netns: netns.clone(),
            cgroup,
            sysctls: network_wishes::sysctls(&self.pod).unwrap_or_default(),
            memory_volumes: volumes::memory_volumes(&self.dir, &self.pod),
        };
        let attachment = match (network, netns) {
            (NetworkState::Ready(conflist), Some(netns)) => Some(Attachment {
                conflist: conflist.as_ref().clone(),
                container_id: spec.id.clone(),
                netns,
                args: self.cni_args(&spec.id),
                capabilities: network_wishes::capabilities(&self.pod),
                result: None,
            }),
            _ => None,
        };
        self.context.sandboxes.make(&self.dir, spec, attachment).await
    }

    fn cni_args(&self, id: &str) -> String {
        let key = &self.key;
        format!(
            "IgnoreUnknown=1;K8S_POD_NAMESPACE={};K8S_POD_NAME={};K8S_POD_INFRA_CONTAINER_ID={id};K8S_POD_UID={}",
            key.namespace, key.name, key.uid
        )
    }

    fn placed(&self) -> fields::Placed {
        fields::Placed { pod_ips: self.addresses.clone(), host_ips: self.context.node_addresses.clone() }
    }

    async fn make_volumes(&mut self) -> Result<(), String> {
        make_directory(&self.dir).map_err(|error| error.to_string())?;
        let text = serde_json::to_vec(self.pod.as_ref()).map_err(|error| error.to_string())?;
        // What the pod was, for a runtime that finds the directory and not the object.
        write_atomically(&self.dir.join("pod.json"), &text)
            .map_err(|error| format!("cannot write pod.json: {error}"))?;
        let maker = VolumeMaker {
            cluster: self.context.cluster.as_ref(),
            pod: &self.pod,
            key: &self.key,
            dir: &self.dir,
            placed: &self.placed(),
        };
        let mut tokens = std::mem::take(&mut self.tokens);
        let made = maker.make(&mut tokens).await;
        self.tokens = tokens;
        made.map_err(|error| error.to_string())?;
        let mut volumes = self.pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
        let refresh = volumes.any(volumes::comes_from_api).then(|| Instant::now() + REFRESH);
        self.volumes_due = sooner(refresh, self.tokens.due().map(instant_of));
        Ok(())
    }

    fn names_addresses(&self) -> bool {
        let volumes = self.pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
        let mut items = volumes.flat_map(|volume| {
            let projected = volume.projected.iter().flat_map(|source| source.sources.iter().flatten());
            let own = volume.downward_api.iter().flat_map(|source| source.items.iter().flatten());
            own.chain(
                projected.flat_map(|part| part.downward_api.iter().flat_map(|source| source.items.iter().flatten())),
            )
        });
        items.any(|item| item.field_ref.as_ref().is_some_and(|field| field.field_path.starts_with("status.")))
    }

    async fn refresh_volumes(&mut self) {
        let now = Instant::now();
        if self.volumes_due.is_none_or(|due| due > now) {
            return;
        }
        if let Err(error) = self.make_volumes().await {
            tracing::debug!(%error, "volumes could not be brought up to date");
            self.volumes_due = Some(now + REFRESH);
        }
    }

    /// Sees to it that the sandbox's `/etc` files are there: a runtime that was killed may have made the one without the others.
    /// Without them the sandbox is given up, and the answer is false.
    pub(super) async fn have_etc(&mut self) -> bool {
        let Err(error) = self.write_etc() else { return true };
        self.tell(true, "FailedMount", format!("cannot write the pod's /etc files: {error}"), None);
        self.drop_sandbox().await;
        false
    }

    /// Files that are there stay: containers have them mounted, and may have changed them.
    fn write_etc(&self) -> io::Result<()> {
        let etc = self.dir.join(ETC);
        fs::create_dir_all(&etc)?;
        let (hosts, hostname) = if self.on_host_network() {
            let hosts = fs::read_to_string("/etc/hosts").unwrap_or_default() + &names::host_aliases(&self.pod);
            (hosts, fs::read_to_string("/etc/hostname").unwrap_or_default())
        } else {
            let domain = &self.context.dns.cluster_domain;
            (names::hosts(&self.pod, &self.addresses, domain), names::hostname(&self.pod) + "\n")
        };
        let resolv_conf = names::resolv_conf(&self.pod, &self.context.dns);
        for (name, text) in [("hosts", hosts), ("hostname", hostname), ("resolv.conf", resolv_conf)] {
            let path = etc.join(name);
            if !path.exists() {
                write_atomically(&path, text.as_bytes())?;
            }
            fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
        }
        Ok(())
    }

    /// Starts what should run and does not: init containers one after the other, then all others.
    async fn start_containers(&mut self) -> Wake {
        let spec = self.spec();
        let mut wake = None;
        for container in spec.init_containers.iter().flatten() {
            let view = self.view_of(&container.name);
            if status::initialized(container, &view) && !status::is_sidecar(container) {
                continue;
            }
            wake = sooner(wake, self.keep_running(container, status::is_sidecar(container)).await);
            let view = self.view_of(&container.name);
            if !status::initialized(container, &view) {
                self.wait_for_init(&spec.containers);
                return wake;
            }
        }
        for container in &spec.containers {
            wake = sooner(wake, self.keep_running(container, false).await);
        }
        wake
    }

    fn wait_for_init(&mut self, containers: &[Container]) {
        for container in containers {
            let record = self.record(&container.name);
            if !record.running() {
                record.waiting = Some(("PodInitializing".to_owned(), String::new()));
            }
        }
    }

    pub(super) fn view_of(&self, name: &str) -> status::ContainerView {
        let sandbox = self.sandbox.as_ref().map(|sandbox| sandbox.spec.id.as_str());
        self.records
            .get(name)
            .map_or_else(status::ContainerView::default, |record| record.view(&self.dir, name, sandbox))
    }

    pub(super) fn record(&mut self, name: &str) -> &mut super::runs::Record {
        self.records.entry(name.to_owned()).or_insert_with(super::runs::Record::new)
    }

    pub(super) fn plan<'a>(
        &'a self,
        container: &'a Container,
        attempt: u32,
        image: &'a crate::images::Image,
        placed: &'a fields::Placed,
        sandbox: &'a Sandbox,
    ) -> container_spec::ContainerPlan<'a> {
        container_spec::ContainerPlan {
            pod: &self.pod,
            container,
            attempt,
            image,
            placed,
            dir: &self.dir,
            cgroup: &sandbox.spec.cgroup,
            sandbox: &sandbox.spec.id,
            podnet_binary: &self.context.podnet_binary,
        }
    }
}

/// Names become names of directories.
fn names_are_plain(spec: &PodSpec) -> bool {
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten()).map(|one| &one.name);
    containers.chain(spec.volumes.iter().flatten().map(|one| &one.name)).all(|name| super::is_plain(name))
}

fn instant_of(time: Timestamp) -> Instant {
    let now = crate::cluster::events::timestamp(std::time::SystemTime::now()).as_second();
    Instant::now() + Duration::from_secs(u64::try_from(time.as_second() - now).unwrap_or(0))
}
