//! The node's running containers, as the streaming server and probes reach them: what workers publish and what [`ContainerAccess`]
//! answers from.

use std::{
    collections::{BTreeMap, HashMap},
    os::fd::AsFd,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use futures::future::{BoxFuture, FutureExt};
use rustix::{
    fd::OwnedFd,
    pipe::{PipeFlags, pipe_with},
};
use tokio::{
    net::unix::pipe,
    sync::{mpsc, oneshot, watch},
};

use crate::{
    access::{AccessError, ContainerAccess, ContainerRef, ExecRequest, ExecSession, LogFile},
    sandbox::{ExecStreams, PauseClient},
};

mod terminal;

use terminal::Terminal;

/// A container as others see it.
#[derive(Clone, Debug)]
pub(crate) struct ContainerHandle {
    pub(crate) client: PauseClient,
    /// The first process in the host's pid namespace; none where it does not run.
    pub(crate) pid: Option<i32>,
    /// Its state in a word or two.
    pub(crate) state: String,
    pub(crate) log: Option<PathBuf>,
    pub(crate) previous_log: Option<PathBuf>,
    /// Turns true when the run has ended.
    pub(crate) ended: watch::Receiver<bool>,
}

#[derive(Clone, Debug, Default)]
struct PodHandle {
    uid: String,
    /// In the order of the pod's specification, the first being the default.
    order: Vec<String>,
    containers: BTreeMap<String, ContainerHandle>,
}

/// All containers of this node.
#[derive(Clone, Debug, Default)]
pub(crate) struct Containers {
    pods: Arc<Mutex<HashMap<(String, String), PodHandle>>>,
}

impl Containers {
    /// Says what a pod's containers are now.
    pub(crate) fn publish(
        &self,
        key: &crate::cluster::PodKey,
        order: Vec<String>,
        containers: BTreeMap<String, ContainerHandle>,
    ) {
        let handle = PodHandle { uid: key.uid.clone(), order, containers };
        self.pods
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert((key.namespace.clone(), key.name.clone()), handle);
    }

    /// Forgets a pod, unless a namesake took its place.
    pub(crate) fn forget(&self, key: &crate::cluster::PodKey) {
        let mut pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        let name = (key.namespace.clone(), key.name.clone());
        if pods.get(&name).is_some_and(|known| known.uid == key.uid) {
            pods.remove(&name);
        }
    }

    fn find(&self, target: &ContainerRef) -> Result<(String, ContainerHandle), AccessError> {
        let (namespace, pod) = (target.namespace.clone(), target.pod.clone());
        let pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(found) = pods.get(&(namespace.clone(), pod.clone())) else {
            return Err(AccessError::NoPod { namespace, pod });
        };
        let container = target.container.clone().or_else(|| found.order.first().cloned()).unwrap_or_default();
        match found.containers.get(&container) {
            Some(handle) => Ok((container, handle.clone())),
            None if found.order.contains(&container) => {
                Err(AccessError::NotRunning { namespace, pod, container, state: "it has not started yet".into() })
            }
            None => Err(AccessError::NoContainer { namespace, pod, container, known: found.order.join(", ") }),
        }
    }

    async fn start(&self, target: ContainerRef, request: ExecRequest) -> Result<ExecSession, AccessError> {
        let (container, handle) = self.find(&target)?;
        let Some(pid) = handle.pid else {
            let (namespace, pod) = (target.namespace, target.pod);
            return Err(AccessError::NotRunning { namespace, pod, container, state: handle.state });
        };
        let command = request.command.clone();
        let failed = |reason: String| AccessError::Start { command, reason };
        let started = if request.tty {
            with_terminal(&handle.client, &container, pid, request).await
        } else {
            with_pipes(&handle.client, &container, request).await
        };
        started.map_err(failed)
    }
}

async fn with_pipes(client: &PauseClient, container: &str, request: ExecRequest) -> Result<ExecSession, String> {
    let make = || pipe_with(PipeFlags::CLOEXEC).map_err(|error| format!("cannot make a pipe: {error}"));
    let (stdout, stdout_end) = make()?;
    let (stderr, stderr_end) = make()?;
    let (stdin_end, stdin) = if request.stdin {
        let (end, stdin) = make()?;
        (end, Some(stdin))
    } else {
        let null = std::fs::File::open("/dev/null").map_err(|error| format!("cannot open /dev/null: {error}"))?;
        (OwnedFd::from(null), None)
    };
    let streams = ExecStreams { stdin: stdin_end.as_fd(), stdout: stdout_end.as_fd(), stderr: stderr_end.as_fd() };
    let execution = client.exec(container, request.command, false, streams).await.map_err(|error| error.to_string())?;
    let (report, exit) = oneshot::channel();
    tokio::spawn(execution.report(report));
    let receiver =
        |end| pipe::Receiver::from_owned_fd(end).map_err(|error| format!("cannot read from a pipe: {error}"));
    let sender = |end| pipe::Sender::from_owned_fd(end).map_err(|error| format!("cannot write to a pipe: {error}"));
    Ok(ExecSession {
        stdin: stdin.map(sender).transpose()?.map(|stdin| Box::new(stdin) as Box<_>),
        stdout: Box::new(receiver(stdout)?),
        stderr: Some(Box::new(receiver(stderr)?)),
        resize: None,
        exit,
    })
}

async fn with_terminal(
    client: &PauseClient,
    container: &str,
    pid: i32,
    request: ExecRequest,
) -> Result<ExecSession, String> {
    let (terminal, end) = Terminal::open_in(pid).map_err(|error| format!("cannot open a terminal: {error}"))?;
    let streams = ExecStreams { stdin: end.as_fd(), stdout: end.as_fd(), stderr: end.as_fd() };
    let execution = client.exec(container, request.command, true, streams).await.map_err(|error| error.to_string())?;
    drop(end);
    let (report, exit) = oneshot::channel();
    tokio::spawn(execution.report(report));
    let (resize, mut sizes) = mpsc::channel(4);
    let resized = terminal.clone();
    tokio::spawn(async move {
        while let Some((columns, rows)) = sizes.recv().await {
            resized.resize(columns, rows);
        }
    });
    Ok(ExecSession {
        stdin: request.stdin.then(|| Box::new(terminal.clone()) as Box<_>),
        stdout: Box::new(terminal),
        stderr: None,
        resize: Some(resize),
        exit,
    })
}

impl ContainerAccess for Containers {
    fn exec(&self, target: ContainerRef, request: ExecRequest) -> BoxFuture<'_, Result<ExecSession, AccessError>> {
        self.start(target, request).boxed()
    }

    fn log(&self, target: ContainerRef, previous: bool) -> BoxFuture<'_, Result<LogFile, AccessError>> {
        let found = self.find(&target).and_then(|(container, handle)| {
            let path = if previous { handle.previous_log } else { handle.log };
            let ended = if previous { watch::channel(true).1 } else { handle.ended };
            path.map(|path| LogFile { path, ended }).ok_or_else(|| AccessError::NotRunning {
                namespace: target.namespace.clone(),
                pod: target.pod.clone(),
                container,
                state: if previous { "it has no run before this one".into() } else { handle.state },
            })
        });
        futures::future::ready(found).boxed()
    }
}
