//! From a container of the API to what pause runs: everything is resolved here.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use k8s_openapi::api::core::v1::{Container, Pod, PodSecurityContext, PodSpec, SecurityContext};
use podnet_kernel::process::{CapabilitySet, capability_named, default_capabilities};

use super::{
    environment::{ConfigError, Objects, environment},
    expand::expand,
    fields::{self, Placed},
    volumes,
};
use crate::{
    images::{Image, Rootfs},
    pause::spec::{ContainerSpec, Mount, RootFs, RunFiles, User},
};

/// Where a container leaves its last words, unless it says otherwise (Kubernetes API, `terminationMessagePath`).
const TERMINATION_LOG: &str = "/dev/termination-log";

/// Microseconds in which a container gets its share of the processors, the kernel's and kubelet's default.
const CPU_PERIOD: u32 = 100_000;

/// What a container is made from.
pub(crate) struct ContainerPlan<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) container: &'a Container,
    pub(crate) attempt: u32,
    pub(crate) image: &'a Image,
    pub(crate) placed: &'a Placed,
    /// The sandbox's directory and cgroup.
    pub(crate) dir: &'a Path,
    pub(crate) cgroup: &'a Path,
    pub(crate) sandbox: &'a str,
    pub(crate) podnet_binary: &'a Path,
}

/// A container's log file.
pub(crate) fn log_path(dir: &Path, container: &str, attempt: u32) -> PathBuf {
    dir.join("logs").join(container).join(format!("{attempt}.log"))
}

/// Where a container's last words are kept outside.
pub(crate) fn termination_log(dir: &Path, container: &str, attempt: u32) -> PathBuf {
    dir.join("containers").join(container).join(format!("{attempt}.message"))
}

impl ContainerPlan<'_> {
    /// Resolves all references.
    pub(crate) async fn resolve(&self, objects: &mut Objects<'_>) -> Result<ContainerSpec, ConfigError> {
        let (pod, container, image) = (self.pod, self.container, self.image);
        let empty = PodSpec::default();
        let spec = pod.spec.as_ref().unwrap_or(&empty);
        let env = environment(pod, container, &image.config.env, self.placed, objects).await?;
        let (own, of_pod) =
            (container.security_context.clone().unwrap_or_default(), spec.security_context.clone().unwrap_or_default());
        let privileged = own.privileged.unwrap_or(false);
        let scratch = self.dir.join("containers").join(&container.name).join(format!("{}.scratch", self.attempt));
        let message = termination_log(self.dir, &container.name, self.attempt);
        let message_path = container.termination_message_path.clone().unwrap_or_else(|| TERMINATION_LOG.to_owned());
        Ok(ContainerSpec {
            name: container.name.clone(),
            attempt: self.attempt,
            id: uuid::Uuid::new_v4().simple().to_string(),
            sandbox: self.sandbox.to_owned(),
            rootfs: match &image.rootfs {
                Rootfs::Host => RootFs::Host,
                Rootfs::Layers(layers) => RootFs::Layers { layers: layers.clone(), scratch },
            },
            mounts: self.mounts(&env)?,
            args: command_line(container, image, &env),
            working_dir: working_dir(container, image),
            user: user(&own, &of_pod, image),
            capabilities: capabilities(&own)?.bits(),
            privileged,
            no_new_privileges: own.allow_privilege_escalation == Some(false) && !privileged,
            read_only_root: own.read_only_root_filesystem.unwrap_or(false),
            tty: container.tty.unwrap_or(false),
            stdin: container.stdin.unwrap_or(false),
            log: log_path(self.dir, &container.name, self.attempt),
            cgroup: self.cgroup.join(&container.name),
            limits: limits(container),
            podnet_binary: self.podnet_binary.to_owned(),
            termination_log: (message, message_path),
            env,
        })
    }

    fn mounts(&self, env: &[(String, String)]) -> Result<Vec<Mount>, ConfigError> {
        let etc = |name: &str| Mount {
            source: self.dir.join("etc").join(name),
            sub_path: None,
            destination: Path::new("/etc").join(name),
            read_only: false,
            trusted: false,
        };
        let wanted = self.container.volume_mounts.as_deref().unwrap_or_default();
        let is_taken = |mount: &Mount| wanted.iter().any(|wanted| Path::new(&wanted.mount_path) == mount.destination);
        let mut mounts: Vec<Mount> =
            ["hosts", "hostname", "resolv.conf"].into_iter().map(etc).filter(|mount| !is_taken(mount)).collect();
        for mount in wanted {
            let source = volumes::path_of(self.dir, self.pod, &mount.name).ok_or_else(|| ConfigError::Unsupported {
                field: format!("volumeMounts[{}]", mount.name),
                reason: "the pod has no such volume".into(),
            })?;
            let known = |name: &str| env.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
            let sub_path = match (&mount.sub_path_expr, &mount.sub_path) {
                (Some(expression), _) => Some(expand(expression, known)),
                (None, sub_path) => sub_path.clone(),
            };
            mounts.push(Mount {
                source,
                sub_path: sub_path.filter(|path| !path.is_empty()).map(PathBuf::from),
                destination: PathBuf::from(&mount.mount_path),
                // The runtime keeps writing there, so the container may not.
                read_only: mount.read_only.unwrap_or(false) || volumes::is_projected(self.pod, &mount.name),
                trusted: self
                    .container
                    .security_context
                    .as_ref()
                    .is_some_and(|security| security.privileged == Some(true)),
            });
        }
        Ok(mounts)
    }
}

/// The container's limits as settings of its cgroup (kernel documentation, "Control Group v2").
fn limits(container: &Container) -> Vec<(String, String)> {
    let limits = container.resources.as_ref().and_then(|resources| resources.limits.as_ref());
    let of = |name: &str| limits.and_then(|limits| limits.get(name)).and_then(fields::quantity);
    let memory = of("memory").map(|bytes| ("memory.max".to_owned(), format!("{}", bytes as u64)));
    let cpu =
        of("cpu").map(|cpus| ("cpu.max".to_owned(), format!("{} {CPU_PERIOD}", (cpus * f64::from(CPU_PERIOD)) as u64)));
    memory.into_iter().chain(cpu).collect()
}

/// Puts a run's files on disk; its specification comes last, so that a run that has one is complete.
pub(crate) fn save(dir: &Path, spec: &ContainerSpec) -> io::Result<()> {
    let files = RunFiles::new(dir, &spec.name, spec.attempt);
    if let Some(parent) = files.spec.parent() {
        fs::create_dir_all(parent)?;
    }
    if let Some(parent) = spec.log.parent() {
        fs::create_dir_all(parent)?;
    }
    let message = &spec.termination_log.0;
    fs::write(message, b"")?;
    fs::set_permissions(message, std::os::unix::fs::PermissionsExt::from_mode(0o666))?;
    crate::pause::wire::write_atomically(&files.spec, &serde_json::to_vec(spec)?)
}

/// `command` replaces the image's entrypoint and, with it, its arguments; `args` replaces the arguments alone.
fn command_line(container: &Container, image: &Image, env: &[(String, String)]) -> Vec<String> {
    let known = |name: &str| env.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    let own = |words: &Option<Vec<String>>| {
        words
            .as_ref()
            .filter(|words| !words.is_empty())
            .map(|words| words.iter().map(|word| expand(word, known)).collect::<Vec<_>>())
    };
    let (command, args) = (own(&container.command), own(&container.args));
    match (command, args) {
        (Some(command), args) => [command, args.unwrap_or_default()].concat(),
        (None, Some(args)) => [image.config.entrypoint.clone(), args].concat(),
        (None, None) => [image.config.entrypoint.clone(), image.config.cmd.clone()].concat(),
    }
}

fn working_dir(container: &Container, image: &Image) -> String {
    let own = container.working_dir.clone().filter(|dir| !dir.is_empty());
    own.or_else(|| image.config.working_dir.clone()).filter(|dir| !dir.is_empty()).unwrap_or_else(|| "/".into())
}

fn user(own: &SecurityContext, of_pod: &PodSecurityContext, image: &Image) -> User {
    let id = |value: Option<i64>| value.and_then(|value| u32::try_from(value).ok());
    let mut groups: Vec<u32> =
        of_pod.supplemental_groups.iter().flatten().filter_map(|group| id(Some(*group))).collect();
    groups.extend(id(of_pod.fs_group));
    User {
        image: image.config.user.clone(),
        uid: id(own.run_as_user.or(of_pod.run_as_user)),
        gid: id(own.run_as_group.or(of_pod.run_as_group)),
        groups,
        must_not_be_root: own.run_as_non_root.or(of_pod.run_as_non_root).unwrap_or(false),
    }
}

fn capabilities(own: &SecurityContext) -> Result<CapabilitySet, ConfigError> {
    let mut set = default_capabilities();
    let Some(wanted) = &own.capabilities else { return Ok(set) };
    let named = |name: &str| {
        if name.eq_ignore_ascii_case("ALL") {
            return Ok(CapabilitySet::all());
        }
        capability_named(name).ok_or_else(|| ConfigError::NoCapability { name: name.to_owned() })
    };
    // What is added wins over `drop: [ALL]`, and a single dropped one over `add: [ALL]`, as in container engines.
    let (add, drop) = (wanted.add.as_deref().unwrap_or_default(), wanted.drop.as_deref().unwrap_or_default());
    if add.iter().any(|name| name.eq_ignore_ascii_case("ALL")) {
        set = CapabilitySet::all();
    }
    if drop.iter().any(|name| name.eq_ignore_ascii_case("ALL")) {
        set = CapabilitySet::empty();
    }
    for name in add.iter().filter(|name| !name.eq_ignore_ascii_case("ALL")) {
        set |= named(name)?;
    }
    for name in drop.iter().filter(|name| !name.eq_ignore_ascii_case("ALL")) {
        set &= !named(name)?;
    }
    Ok(set)
}

#[cfg(test)]
mod tests;
