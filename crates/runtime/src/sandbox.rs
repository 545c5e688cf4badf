//! Sandboxes as the runtime sees them: made, found again, torn down.
//!
//! A sandbox is a directory, `<state>/<pod uid>/`. What is to be undone is in it before it is done: `sandbox.json` (namespace, cgroup)
//! before the namespace is made, `cni.json` before the network is asked for. So whatever a crash leaves, [`tear_down`] finds it all.

use std::{
    fs, io,
    net::IpAddr,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use podnet_kernel::{cgroup::Cgroup, netns::NetNs};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    sync::watch,
};
use tracing::{debug, warn};

use crate::{
    cni::{self, Attachment, Cni, CniError},
    pause::{
        protocol::{ContainerState, Reply, Request},
        spec::SandboxSpec,
        wire,
    },
};

mod client;

pub(crate) use client::{ClientError, ExecStreams, PauseClient};

/// Killed processes are gone in milliseconds; one in an uninterruptible wait may take longer.
const KILL_PATIENCE: Duration = Duration::from_secs(20);

/// Pause is ready in milliseconds; one that hangs may not hold the other pods up.
const START_PATIENCE: Duration = Duration::from_secs(30);

/// How the runtime makes sandboxes.
#[derive(Clone, Debug)]
pub(crate) struct SandboxMaker {
    pub(crate) cni: Cni,
    pub(crate) podnet_binary: PathBuf,
    /// What comes before `--dir` on its command line.
    pub(crate) pause_arguments: Vec<String>,
}

/// A sandbox could not be made or undone.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SandboxError {
    #[error(transparent)]
    Cni(#[from] CniError),
    #[error("cannot {action}: {source}")]
    System { action: String, source: io::Error },
    #[error("cannot make the network namespace: {0}")]
    Namespace(#[from] podnet_kernel::netns::NetNsError),
    #[error("cannot end the sandbox's processes: {0}")]
    Cgroup(#[from] podnet_kernel::cgroup::CgroupError),
    #[error("pause did not start: {said}")]
    Pause { said: String },
    #[error(transparent)]
    Client(#[from] ClientError),
}

fn failed(action: impl FnOnce() -> String) -> impl FnOnce(io::Error) -> SandboxError {
    move |source| SandboxError::System { action: action(), source }
}

/// What is known of a sandbox's containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SandboxState {
    /// Pause runs; the newest run of each container that was ever started.
    Alive(Vec<ContainerState>),
    /// Pause is gone: nobody is the containers' parent any more.
    Dead,
}

/// A sandbox whose pause runs.
#[derive(Debug)]
pub(crate) struct Sandbox {
    pub(crate) spec: SandboxSpec,
    /// None on the host's network.
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) state: watch::Receiver<SandboxState>,
    client: PauseClient,
}

impl SandboxMaker {
    /// Makes a sandbox in `dir`. Where it fails, what was made is undone.
    pub(crate) async fn make(
        &self,
        dir: &Path,
        spec: SandboxSpec,
        network: Option<Attachment>,
    ) -> Result<Sandbox, SandboxError> {
        let made = self.try_make(dir, spec, network).await;
        if made.is_err()
            && let Err(error) = self.tear_down(dir).await
        {
            warn!(dir = %dir.display(), %error, "a half-made sandbox could not be undone; it will be tried again");
        }
        made
    }

    async fn try_make(
        &self,
        dir: &Path,
        spec: SandboxSpec,
        network: Option<Attachment>,
    ) -> Result<Sandbox, SandboxError> {
        make_directory(dir)?;
        let text = serde_json::to_vec(&spec).map_err(|error| failed(|| "write sandbox.json".into())(error.into()))?;
        wire::write_atomically(&dir.join("sandbox.json"), &text).map_err(failed(|| "write sandbox.json".into()))?;
        fs::create_dir_all(&spec.cgroup).map_err(failed(|| format!("make the cgroup {}", spec.cgroup.display())))?;
        if let Some(path) = spec.netns.clone() {
            blocking(move || NetNs::create(path).map(drop)).await?;
        }
        // The network and pause need nothing of each other.
        let attach = async {
            match network {
                Some(attachment) => Ok(self.cni.add(dir, attachment).await?),
                None => Ok(Vec::new()),
            }
        };
        let (addresses, ()) = tokio::try_join!(attach, self.start_pause(dir))?;
        let client = PauseClient::new(dir);
        let state = client.watch().await?;
        Ok(Sandbox { spec, addresses, state, client })
    }

    async fn start_pause(&self, dir: &Path) -> Result<(), SandboxError> {
        let said = dir.join("pause.log");
        let log = fs::File::create(&said).map_err(failed(|| format!("open {}", said.display())))?;
        let mut command = tokio::process::Command::new(&self.podnet_binary);
        command.args(&self.pause_arguments).arg("--dir").arg(dir).current_dir("/").env_clear();
        // A process group of its own: a signal to the runtime's group, as a terminal sends it, is not for pods.
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().map_err(failed(|| format!("run {}", self.podnet_binary.display())))?;
        let mut ready = String::new();
        if let Some(stdout) = child.stdout.take() {
            let mut stdout = BufReader::new(stdout);
            if tokio::time::timeout(START_PATIENCE, stdout.read_line(&mut ready)).await.is_err() {
                let _ = child.start_kill();
            }
        }
        // It is reaped when it ends, whenever that is.
        tokio::spawn(async move { child.wait().await });
        if ready.trim() == "ready" {
            return Ok(());
        }
        Err(SandboxError::Pause { said: fs::read_to_string(&said).unwrap_or_default().trim().to_owned() })
    }

    /// Finds a sandbox that an earlier runtime made; none where it is half-made or its pause is gone.
    pub(crate) async fn adopt(&self, dir: &Path) -> Option<Sandbox> {
        let spec: SandboxSpec = serde_json::from_slice(&fs::read(dir.join("sandbox.json")).ok()?).ok()?;
        let addresses = match &spec.netns {
            None => Vec::new(),
            Some(_) => cni::load(dir)?.result.as_ref().map(cni::addresses).filter(|addresses| !addresses.is_empty())?,
        };
        let client = PauseClient::new(dir);
        match client.watch().await {
            Ok(state) => Some(Sandbox { spec, addresses, state, client }),
            Err(error) => {
                debug!(dir = %dir.display(), %error, "no pause to adopt");
                None
            }
        }
    }

    /// Ends all processes of a sandbox and gives back its network, namespace and cgroup. The directory stays, with logs and exit codes.
    /// Done where nothing is left to do.
    pub(crate) async fn tear_down(&self, dir: &Path) -> Result<(), SandboxError> {
        let path = dir.join("sandbox.json");
        let Ok(text) = fs::read(&path) else { return Ok(()) };
        let Ok(spec) = serde_json::from_slice::<SandboxSpec>(&text) else {
            warn!(path = %path.display(), "not a sandbox: removed");
            return fs::remove_file(&path).map_err(failed(|| format!("remove {}", path.display())));
        };
        let cgroup = Cgroup::v2(&spec.cgroup)?;
        blocking(move || cgroup.remove_tree(KILL_PATIENCE)).await?;
        self.cni.delete(dir).await?;
        if let Some(netns) = spec.netns {
            blocking(move || NetNs::remove(netns)).await?;
        }
        fs::remove_file(&path).map_err(failed(|| format!("remove {}", path.display())))
    }
}

impl Sandbox {
    /// Starts the run of a container whose specification is on disk.
    pub(crate) async fn start(&self, container: &str, attempt: u32) -> Result<(), ClientError> {
        self.client.ask(&Request::Start { container: container.to_owned(), attempt }).await.map(drop)
    }

    pub(crate) fn client(&self) -> &PauseClient {
        &self.client
    }
}

/// Makes a sandbox's directory, which only root may look into: tokens and secrets are below it.
pub(crate) fn make_directory(dir: &Path) -> Result<(), SandboxError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed(|| format!("make {}", dir.display())))
}

async fn blocking<T, E>(work: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, SandboxError>
where
    T: Send + 'static,
    E: Into<SandboxError> + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(Into::into),
        Err(error) => Err(failed(|| "run system calls".into())(io::Error::other(error))),
    }
}

/// Reads a state out of an answer.
fn state_of(reply: Reply) -> Option<Vec<ContainerState>> {
    match reply {
        Reply::State { containers } => Some(containers),
        Reply::Done | Reply::Failed { .. } | Reply::Exited { .. } => None,
    }
}
