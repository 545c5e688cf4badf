//! What a worker knows of each container, and how it knows it again after a restart: from `containers/<name>/<attempt>.json` and
//! `<attempt>.exit.json`.

use std::{
    fs,
    io::Read,
    path::Path,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use tokio::sync::watch;

use super::{
    backoff::Backoff,
    container_spec::termination_log,
    probes::RunningProbe,
    status::{ContainerView, RunView},
};
use crate::pause::{
    log,
    spec::{ContainerSpec, Exit, RunFiles},
    wire,
};

/// Last words that a status shows at most (Kubernetes API, `terminationMessagePath`).
const MAX_MESSAGE: u64 = 4096;

/// A container in the eyes of its worker.
#[derive(Debug)]
pub(super) struct Record {
    /// The newest run.
    pub(super) run: Option<RunRecord>,
    pub(super) waiting: Option<(String, String)>,
    pub(super) backoff: Backoff,
    pub(super) image_backoff: Backoff,
    pub(super) image_id: String,
}

/// One run.
#[derive(Debug)]
pub(super) struct RunRecord {
    pub(super) attempt: u32,
    pub(super) id: String,
    /// The id of its sandbox; empty where that is not known.
    pub(super) sandbox: String,
    /// 0 until pause said it.
    pub(super) pid: i32,
    pub(super) started_ms: i64,
    pub(super) exit: Option<Exit>,
    pub(super) ready: bool,
    pub(super) started: bool,
    pub(super) probes: Vec<RunningProbe>,
    pub(super) ended: watch::Sender<bool>,
    /// Its end is wanted by a probe or hook; the reason was told.
    pub(super) condemned: bool,
    /// Started by an earlier runtime; whether it was ready then.
    pub(super) recovered: Option<bool>,
}

impl Record {
    pub(super) fn new() -> Self {
        Self {
            run: None,
            waiting: None,
            backoff: Backoff::of_crashes(),
            image_backoff: Backoff::of_crashes(),
            image_id: String::new(),
        }
    }

    /// Reads what is on disk. A run without an exit code may still be running: pause knows.
    pub(super) fn recover(dir: &Path, container: &str) -> Self {
        let mut record = Self::new();
        let Some(attempt) = newest(dir, container) else { return record };
        let files = RunFiles::new(dir, container, attempt);
        let spec: Option<ContainerSpec> = read(&files.spec);
        let exit: Option<Exit> = read(&files.exit);
        let now = now_ms();
        if let Some(exit) = &exit {
            let ago = Duration::from_millis(u64::try_from(now - exit.finished_ms).unwrap_or(0));
            record.backoff.resume(attempt, ago, Instant::now());
        }
        let (id, sandbox) = spec.map(|spec| (spec.id, spec.sandbox)).unwrap_or_default();
        record.run = Some(RunRecord {
            attempt,
            id,
            sandbox,
            pid: 0,
            started_ms: exit.as_ref().map_or(now, |exit| exit.started_ms),
            ended: watch::Sender::new(exit.is_some()),
            exit,
            ready: false,
            started: false,
            probes: Vec::new(),
            condemned: false,
            recovered: Some(false),
        });
        record
    }

    pub(super) fn running(&self) -> bool {
        self.run.as_ref().is_some_and(|run| run.exit.is_none())
    }

    pub(super) fn exit(&self) -> Option<&Exit> {
        self.run.as_ref().and_then(|run| run.exit.as_ref())
    }

    pub(super) fn next_attempt(&self) -> u32 {
        self.run.as_ref().map_or(0, |run| run.attempt + 1)
    }

    /// Whether the newest run was one in another sandbox than this.
    pub(super) fn is_outdated(&self, sandbox: &str) -> bool {
        self.run.as_ref().is_some_and(|run| !run.sandbox.is_empty() && run.sandbox != sandbox)
    }

    /// What a status shows of it, where `sandbox` is the id of the one that there is.
    pub(super) fn view(&self, dir: &Path, container: &str, sandbox: Option<&str>) -> ContainerView {
        let run = self.run.as_ref();
        let message =
            |attempt: u32, exit: Option<&Exit>| exit.map(|_| last_words(dir, container, attempt)).unwrap_or_default();
        let previous = run.and_then(|run| run.attempt.checked_sub(1)).and_then(|attempt| {
            let files = RunFiles::new(dir, container, attempt);
            let exit: Exit = read(&files.exit)?;
            let spec: ContainerSpec = read(&files.spec)?;
            let words = message(attempt, Some(&exit));
            Some((spec.id, exit, words))
        });
        ContainerView {
            run: run.map(|run| RunView {
                id: run.id.clone(),
                started_ms: run.started_ms,
                exit: run.exit.clone(),
                message: message(run.attempt, run.exit.as_ref()),
            }),
            previous,
            waiting: self.waiting.clone(),
            restarts: run.map_or(0, |run| run.attempt),
            ready: run.is_some_and(|run| run.exit.is_none() && run.ready),
            started: run.is_some_and(|run| run.exit.is_none() && run.started),
            image_id: self.image_id.clone(),
            outdated: sandbox.is_some_and(|sandbox| self.is_outdated(sandbox)),
        }
    }
}

/// Writes down that a run ended without anybody seeing how: its pause was gone.
pub(super) fn lose(dir: &Path, container: &str, run: &mut RunRecord) {
    let exit =
        Exit { code: 137, signal: Some(9), start_error: None, started_ms: run.started_ms, finished_ms: now_ms() };
    let path = RunFiles::new(dir, container, run.attempt).exit;
    if let Ok(text) = serde_json::to_vec(&exit) {
        // The status in memory is right either way; only a restart of the runtime in this moment would not know.
        let _ = wire::write_atomically(&path, &text);
    }
    run.exit = Some(exit);
    run.probes.clear();
    run.ended.send_replace(true);
}

/// Removes what runs before the previous one left.
pub(super) fn prune(dir: &Path, container: &str, attempt: u32) {
    let Some(old) = attempt.checked_sub(2) else { return };
    let files = RunFiles::new(dir, container, old);
    let log = super::container_spec::log_path(dir, container, old);
    for path in [files.spec, files.exit, termination_log(dir, container, old), log::rotated(&log), log] {
        let _ = fs::remove_file(path);
    }
    let scratch = dir.join("containers").join(container).join(format!("{old}.scratch"));
    // What a container wrote may be many files.
    tokio::task::spawn_blocking(move || drop(fs::remove_dir_all(scratch)));
}

fn newest(dir: &Path, container: &str) -> Option<u32> {
    let entries = fs::read_dir(dir.join("containers").join(container)).ok()?;
    let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.strip_suffix(".json")?.parse().ok());
    numbers.max()
}

fn last_words(dir: &Path, container: &str, attempt: u32) -> String {
    let mut text = Vec::new();
    // The container may have written any amount; what cannot be read is not said.
    let _ = fs::File::open(termination_log(dir, container, attempt))
        .and_then(|file| file.take(MAX_MESSAGE).read_to_end(&mut text));
    String::from_utf8_lossy(&text).into_owned()
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

pub(super) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
