//! Keeps the cluster's processes running.
//!
//! Every process has a cgroup of its own, so a supervisor that was restarted finds the processes that still run and adopts them. A
//! process that ends is started again, at once the first time and then with growing pauses from one start to the next.

mod output;
mod processes;

use std::{
    collections::BTreeMap,
    io::Write,
    os::fd::OwnedFd,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, pidfd_open},
};

pub(crate) use processes::{ProcessSpec, pid_of, specs};

use crate::{
    cluster::Cluster,
    layout, lock,
    report::{Doing, Failure},
};
use processes::cgroup_of;

/// The pause from the second start in a row on, counted from the start before; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// A process that ran this long is well: the pauses begin anew. What ends that seldom takes no processor's time from the others, and
/// the network of a node without its agent stands still.
const WELL_AFTER: Duration = Duration::from_secs(5);
/// How often the sizes of the logs are looked at, at least.
const LOOK_AT_LOGS: Duration = Duration::from_secs(10);

pub(crate) fn run() -> Result<(), Failure> {
    let _lock = lock::become_supervisor()?;
    let cluster = Cluster::require()?;
    let own = cgroup_of("supervisor")?;
    own.create().and_then(|()| own.add_self()).doing(|| "cannot enter the supervisor's cgroup".into())?;
    let mut watched = BTreeMap::new();
    for spec in specs(&cluster) {
        let process = Process::adopt_or_start(&cluster, spec);
        watched.insert(process.spec.name.clone(), process);
    }
    loop {
        wait(&watched);
        for process in watched.values_mut() {
            process.step(&cluster);
        }
        output::cut_long(&layout::logs(), output::LONGEST);
    }
}

/// Waits until a process ends, a pause is over, or the logs are to be looked at.
fn wait(watched: &BTreeMap<String, Process>) {
    let running: Vec<&OwnedFd> = watched.values().filter_map(Process::pidfd).collect();
    let mut fds: Vec<PollFd<'_>> = running.iter().map(|fd| PollFd::new(*fd, PollFlags::IN)).collect();
    let now = Instant::now();
    let due = watched.values().filter_map(Process::due).min().map(|due| due.saturating_duration_since(now));
    let left = due.unwrap_or(LOOK_AT_LOGS).clamp(Duration::from_millis(1), LOOK_AT_LOGS);
    let timeout =
        Timespec { tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX), tv_nsec: left.subsec_nanos().into() };
    // A signal that interrupts the wait only makes the next look come early.
    let _ = poll(&mut fds, Some(&timeout));
}

struct Process {
    spec: ProcessSpec,
    state: State,
    /// How often in a row it ended soon after its start.
    failures: u32,
}

enum State {
    Running {
        pidfd: OwnedFd,
        /// None for an adopted process: another supervisor was its parent, and init reaps it.
        child: Option<Child>,
        since: Instant,
    },
    Pausing {
        until: Instant,
    },
}

impl Process {
    fn adopt_or_start(cluster: &Cluster, spec: ProcessSpec) -> Self {
        let pid = pid_of(&spec.name);
        let pidfd = pid
            .and_then(|pid| Pid::from_raw(pid.try_into().ok()?))
            .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        let mut process = Self { spec, state: State::Pausing { until: Instant::now() }, failures: 0 };
        match pidfd {
            Some(pidfd) => {
                log(&format!("{} is running already (pid {})", process.spec.name, pid.unwrap_or_default()));
                process.state = State::Running { pidfd, child: None, since: Instant::now() };
            }
            None => process.start(cluster),
        }
        process
    }

    fn pidfd(&self) -> Option<&OwnedFd> {
        match &self.state {
            State::Running { pidfd, .. } => Some(pidfd),
            State::Pausing { .. } => None,
        }
    }

    fn due(&self) -> Option<Instant> {
        match self.state {
            State::Running { .. } => None,
            State::Pausing { until } => Some(until),
        }
    }

    fn step(&mut self, cluster: &Cluster) {
        match &mut self.state {
            State::Running { pidfd, child, since } if ended(pidfd) => {
                let how = child.as_mut().and_then(|child| child.wait().ok());
                let ran = since.elapsed();
                self.failures = if ran >= WELL_AFTER { 0 } else { self.failures.saturating_add(1) };
                let left = left_of_pause(self.failures, ran);
                let how = how.map_or_else(|| "ended".to_owned(), |status| status.to_string());
                log(&format!(
                    "{}: {how} after {:.1} s; next start in {} ms",
                    self.spec.name,
                    ran.as_secs_f64(),
                    left.as_millis()
                ));
                if left.is_zero() {
                    self.start(cluster);
                } else {
                    self.state = State::Pausing { until: Instant::now() + left };
                }
            }
            State::Pausing { until } if *until <= Instant::now() => self.start(cluster),
            _ => {}
        }
    }

    fn start(&mut self, cluster: &Cluster) {
        match spawn(cluster, &self.spec) {
            Ok((pidfd, child)) => {
                log(&format!("{}: started (pid {})", self.spec.name, child.id()));
                self.state = State::Running { pidfd, child: Some(child), since: Instant::now() };
            }
            Err(failure) => {
                self.failures = self.failures.saturating_add(1);
                log(&format!("{}: {failure}", self.spec.name));
                self.state = State::Pausing { until: Instant::now() + pause(self.failures) };
            }
        }
    }
}

fn ended(pidfd: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0)
}

/// How long what ran that long has to wait: it is kept from starting often, and what did not start often waits for nothing.
fn left_of_pause(failures: u32, ran: Duration) -> Duration {
    pause(failures).saturating_sub(ran)
}

/// From one start to the next: nothing after one unlucky end, then 200 ms doubling up to 10 s.
fn pause(failures: u32) -> Duration {
    match failures {
        0 | 1 => Duration::ZERO,
        more => (FIRST_PAUSE * 2_u32.saturating_pow(more.min(10) - 2)).min(LONGEST_PAUSE),
    }
}

fn spawn(cluster: &Cluster, spec: &ProcessSpec) -> Result<(OwnedFd, Child), Failure> {
    cgroup_of(&spec.name)?.create().doing(|| format!("cannot make the cgroup of {}", spec.name))?;
    let mut child = detached(cluster, &spec.name, &spec.arguments)?;
    match pidfd_open(Pid::from_child(&child), PidfdFlags::empty()) {
        Ok(pidfd) => Ok((pidfd, child)),
        Err(error) => {
            // One that cannot be watched must not run beside the next one. Where it ended already, there is nothing to kill.
            let _ = child.kill();
            let _ = child.wait();
            Err(Failure::because(format!("cannot watch {}", spec.name), error))
        }
    }
}

/// Starts a process whose output goes to its log and which no terminal's signals reach.
pub(crate) fn detached(cluster: &Cluster, name: &str, arguments: &[String]) -> Result<Child, Failure> {
    use std::os::unix::process::CommandExt;
    let output = output::open(name)?;
    let errors = output.try_clone().doing(|| format!("cannot write the log of {name}"))?;
    podnet_kernel::process::keep_descriptors().doing(|| "cannot keep this process's files to itself".into())?;
    Command::new(&cluster.binary)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors)
        .current_dir("/")
        .process_group(0)
        .spawn()
        .doing(|| format!("cannot start {} from {}", name, cluster.binary.display()))
}

/// A full file system costs lines of the log, never the supervisor.
fn log(line: &str) {
    let now = chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
    let _ = writeln!(std::io::stdout(), "{now} {line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_restart_is_immediate_and_later_ones_wait_longer() {
        let pauses: Vec<u128> = (1..=9).map(|failures| pause(failures).as_millis()).collect();
        assert_eq!(pauses, [0, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
    }

    #[test]
    fn what_ran_for_longer_than_its_pause_is_started_again_at_once() {
        let left = |failures, ran| left_of_pause(failures, Duration::from_millis(ran)).as_millis();
        assert_eq!([left(1, 0), left(4, 0), left(4, 300), left(4, 800), left(6, 4900)], [0, 800, 500, 0, 0]);
    }
}
