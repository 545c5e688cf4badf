//! What pause reads from disk: the sandbox and its containers, resolved to the last path by the runtime. Pause decides nothing.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// A sandbox: `sandbox.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SandboxSpec {
    /// Unique; the CNI container id.
    pub(crate) id: String,
    /// Namespace, name and uid of the pod.
    pub(crate) namespace: String,
    pub(crate) pod: String,
    pub(crate) uid: String,
    /// The UTS name; none shares the node's, as pods on the host's network do.
    pub(crate) hostname: Option<String>,
    /// The bound network namespace to join; none stays in the node's.
    pub(crate) netns: Option<PathBuf>,
    /// The pod's cgroup directory.
    pub(crate) cgroup: PathBuf,
    /// Settings below `/proc/sys`, dots as separators.
    pub(crate) sysctls: Vec<(String, String)>,
    /// Directories that become memory file systems, with a size in bytes.
    pub(crate) memory_volumes: Vec<(PathBuf, Option<u64>)>,
}

/// One run of a container: `containers/<name>/<attempt>.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ContainerSpec {
    pub(crate) name: String,
    pub(crate) attempt: u32,
    /// Unique among all runs of all containers.
    pub(crate) id: String,
    /// The id of the sandbox in which it runs.
    #[serde(default)]
    pub(crate) sandbox: String,
    pub(crate) rootfs: RootFs,
    pub(crate) mounts: Vec<Mount>,
    /// Program and arguments.
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) working_dir: String,
    pub(crate) user: User,
    /// Capabilities, as a bit set.
    pub(crate) capabilities: u64,
    pub(crate) privileged: bool,
    pub(crate) no_new_privileges: bool,
    pub(crate) read_only_root: bool,
    pub(crate) tty: bool,
    pub(crate) stdin: bool,
    pub(crate) log: PathBuf,
    pub(crate) cgroup: PathBuf,
    /// Files of the cgroup and what to write there, where the hierarchy has them.
    pub(crate) limits: Vec<(String, String)>,
    /// The executable that is put at [`PODNET_IN_CONTAINER`].
    pub(crate) podnet_binary: PathBuf,
    /// Where the termination message is kept outside, and where the container sees it.
    pub(crate) termination_log: (PathBuf, String),
}

/// Where a container finds podnet itself.
pub(crate) const PODNET_IN_CONTAINER: &str = "/opt/podnet/bin/podnet";

/// What a container's root directory is made of.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum RootFs {
    /// The host's programs, read-only.
    Host,
    /// An overlay: image layers, lowest first, below a scratch directory.
    Layers { layers: Vec<PathBuf>, scratch: PathBuf },
}

/// Something of the host in the container.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Mount {
    pub(crate) source: PathBuf,
    /// A path inside `source`, followed without leaving it.
    pub(crate) sub_path: Option<PathBuf>,
    pub(crate) destination: PathBuf,
    pub(crate) read_only: bool,
    /// Device nodes and set-user-id programs in it work.
    pub(crate) trusted: bool,
}

/// Who the container's process is. Names are looked up in the container's own `/etc/passwd` and `/etc/group`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct User {
    /// The image's `user[:group]`.
    pub(crate) image: Option<String>,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
    /// fsGroup and supplementalGroups.
    pub(crate) groups: Vec<u32>,
    pub(crate) must_not_be_root: bool,
}

/// How a run ended: `containers/<name>/<attempt>.exit.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Exit {
    /// 128 + signal where it was killed.
    pub(crate) code: i32,
    pub(crate) signal: Option<i32>,
    /// Why it never ran; otherwise empty.
    pub(crate) start_error: Option<String>,
    /// Milliseconds since 1970.
    pub(crate) started_ms: i64,
    pub(crate) finished_ms: i64,
}

/// The files of one run.
pub(crate) struct RunFiles {
    pub(crate) spec: PathBuf,
    pub(crate) exit: PathBuf,
}

impl RunFiles {
    pub(crate) fn new(sandbox: &Path, container: &str, attempt: u32) -> Self {
        let dir = sandbox.join("containers").join(container);
        Self { spec: dir.join(format!("{attempt}.json")), exit: dir.join(format!("{attempt}.exit.json")) }
    }
}
