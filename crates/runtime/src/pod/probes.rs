//! Probes of a running container, one task each (Kubernetes API, `Probe`).

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use k8s_openapi::{
    api::core::v1::{Container, ExecAction, HTTPGetAction, Probe},
    apimachinery::pkg::util::intstr::IntOrString,
};
use tokio::{io::AsyncReadExt, net::TcpStream, sync::mpsc, task::JoinHandle};

use crate::{
    access::{ContainerAccess, ContainerRef, ExecRequest},
    containers::Containers,
};

/// Output of a probe command that an event quotes at most.
const QUOTED: u64 = 1024;

/// What a probe is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProbeKind {
    Startup,
    Readiness,
    Liveness,
}

impl ProbeKind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Readiness => "Readiness",
            Self::Liveness => "Liveness",
        }
    }
}

/// What a probe found.
#[derive(Clone, Debug)]
pub(crate) struct ProbeOutcome {
    pub(crate) container: String,
    pub(crate) attempt: u32,
    pub(crate) kind: ProbeKind,
    /// None: it failed, but not often enough to mean anything.
    pub(crate) verdict: Option<bool>,
    /// Why it failed.
    pub(crate) failure: Option<String>,
}

/// Where a container is to be probed.
#[derive(Clone, Debug)]
pub(crate) struct ProbeTarget {
    pub(crate) containers: Containers,
    pub(crate) container: ContainerRef,
    pub(crate) name: String,
    pub(crate) attempt: u32,
    pub(crate) address: IpAddr,
    pub(crate) outcomes: mpsc::Sender<ProbeOutcome>,
}

/// A probe that ends with this value.
#[derive(Debug)]
pub(crate) struct RunningProbe {
    kind: ProbeKind,
    task: JoinHandle<()>,
}

impl RunningProbe {
    /// Whether it says for how long its container is to be asked.
    pub(crate) fn is_of_readiness(&self) -> bool {
        self.kind == ProbeKind::Readiness
    }
}

impl Drop for RunningProbe {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Starts a probe of a container.
pub(crate) fn start(target: ProbeTarget, container: &Container, kind: ProbeKind, probe: Probe) -> RunningProbe {
    let ports = named_ports(container);
    let task = tokio::spawn(async move {
        let seconds = |value: Option<i32>, default: u64| {
            Duration::from_secs(
                value.and_then(|value| u64::try_from(value).ok()).filter(|value| *value > 0).unwrap_or(default),
            )
        };
        tokio::time::sleep(Duration::from_secs(u64::try_from(probe.initial_delay_seconds.unwrap_or(0)).unwrap_or(0)))
            .await;
        let (period, timeout) = (seconds(probe.period_seconds, 10), seconds(probe.timeout_seconds, 1));
        if kind == ProbeKind::Readiness {
            let once = || async {
                tokio::time::timeout(timeout, check(&target, &ports, &probe)).await.is_ok_and(|result| result.is_ok())
            };
            await_first_success(period, once).await;
        }
        let mut ticks = tokio::time::interval(period);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let thresholds = (probe.success_threshold.unwrap_or(1).max(1), probe.failure_threshold.unwrap_or(3).max(1));
        let (mut successes, mut failures) = (0, 0);
        loop {
            ticks.tick().await;
            let result = match tokio::time::timeout(timeout, check(&target, &ports, &probe)).await {
                Ok(result) => result,
                Err(_) => Err(format!("timed out after {} s", timeout.as_secs())),
            };
            let verdict = match &result {
                Ok(()) => {
                    (successes, failures) = (successes + 1, 0);
                    (successes >= thresholds.0).then_some(true)
                }
                Err(_) => {
                    (successes, failures) = (0, failures + 1);
                    (failures >= thresholds.1).then_some(false)
                }
            };
            let (container, attempt) = (target.name.clone(), target.attempt);
            let outcome = ProbeOutcome { container, attempt, kind, verdict, failure: result.err() };
            if target.outcomes.send(outcome).await.is_err() || (kind == ProbeKind::Startup && verdict == Some(true)) {
                return;
            }
        }
    });
    RunningProbe { kind, task }
}

/// The first pause between eager looks at a container that has just started; it doubles.
const EAGER: Duration = Duration::from_millis(20);

/// Looks for a first success more often than the probe's period says, for one period: a container that is ready after 50 ms need not
/// wait for the second round of a probe that came 1 ms too early. Failures say nothing here, as the container is not ready anyway.
async fn await_first_success<F: Future<Output = bool>>(period: Duration, look: impl Fn() -> F) {
    let started = tokio::time::Instant::now();
    let mut pause = EAGER;
    while !look().await && started.elapsed() + pause < period {
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
}

type Ports = Vec<(String, u16)>;

fn named_ports(container: &Container) -> Ports {
    let ports = container.ports.iter().flatten();
    ports.filter_map(|port| Some((port.name.clone()?, u16::try_from(port.container_port).ok()?))).collect()
}

async fn check(target: &ProbeTarget, ports: &Ports, probe: &Probe) -> Result<(), String> {
    if let Some(action) = &probe.exec {
        return exec(&target.containers, target.container.clone(), action).await;
    }
    if let Some(action) = &probe.http_get {
        return http_get(target.address, ports, action).await;
    }
    if let Some(action) = &probe.tcp_socket {
        let address = socket(target.address, action.host.as_deref(), &action.port, ports)?;
        return TcpStream::connect(address).await.map(drop).map_err(|error| format!("dial tcp {address}: {error}"));
    }
    Err("the probe has none of exec, httpGet and tcpSocket".into())
}

/// Runs a command in a container; anything but exit code 0 is a failure.
pub(crate) async fn exec(containers: &Containers, container: ContainerRef, action: &ExecAction) -> Result<(), String> {
    let command = action.command.clone().unwrap_or_default();
    let request = ExecRequest { command, tty: false, stdin: false };
    let session = containers.exec(container, request).await.map_err(|error| error.to_string())?;
    let (mut output, mut errors) = (Vec::new(), Vec::new());
    let (mut stdout, stderr) = (session.stdout.take(QUOTED), session.stderr);
    let read = async {
        let read_errors = async {
            if let Some(stderr) = stderr {
                let _ = stderr.take(QUOTED).read_to_end(&mut errors).await;
            }
        };
        let _ = tokio::join!(stdout.read_to_end(&mut output), read_errors);
    };
    let (code, ()) = tokio::join!(session.exit, read);
    match code {
        Ok(0) => Ok(()),
        Ok(code) => {
            output.extend(errors);
            Err(format!("command exited with code {code}: {}", String::from_utf8_lossy(&output).trim()))
        }
        Err(_) => Err("the command was cut off".into()),
    }
}

fn socket(pod: IpAddr, host: Option<&str>, port: &IntOrString, ports: &Ports) -> Result<SocketAddr, String> {
    let address = match host.filter(|host| !host.is_empty()) {
        Some(host) => host.parse().map_err(|_| format!("host {host:?} is not an address"))?,
        None => pod,
    };
    let port = match port {
        IntOrString::Int(port) => u16::try_from(*port).ok(),
        IntOrString::String(name) => {
            ports.iter().find(|(known, _)| known == name).map(|(_, port)| *port).or_else(|| name.parse().ok())
        }
    };
    port.map(|port| SocketAddr::new(address, port))
        .ok_or_else(|| "the probe's port is not one of the container's".to_owned())
}

/// Asks for a page; codes from 200 to 399 are good.
pub(crate) async fn http_get(pod: IpAddr, ports: &[(String, u16)], action: &HTTPGetAction) -> Result<(), String> {
    if action.scheme.as_deref().is_some_and(|scheme| scheme.eq_ignore_ascii_case("https")) {
        return Err("httpGet with scheme HTTPS is not supported yet".into());
    }
    let address = socket(pod, action.host.as_deref(), &action.port, &ports.to_vec())?;
    let path = action.path.as_deref().filter(|path| !path.is_empty()).unwrap_or("/");
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let what = || format!("Get \"http://{address}{path}\"");
    let mut request = http::Request::get(&path).header("User-Agent", "kube-probe/1.32").header("Accept", "*/*");
    let headers = action.http_headers.as_deref().unwrap_or_default();
    if !headers.iter().any(|header| header.name.eq_ignore_ascii_case("host")) {
        request = request.header("Host", address.to_string());
    }
    for header in headers {
        request = request.header(&header.name, &header.value);
    }
    let request = request.body(Empty::<bytes::Bytes>::new()).map_err(|error| format!("{}: {error}", what()))?;
    let stream = TcpStream::connect(address).await.map_err(|error| format!("{}: {error}", what()))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| format!("{}: {error}", what()))?;
    let answer = async { sender.send_request(request).await };
    tokio::pin!(answer);
    let response = tokio::select! {
        response = &mut answer => response,
        _ = connection => answer.await,
    };
    let status = response.map_err(|error| format!("{}: {error}", what()))?.status();
    if (200..400).contains(&status.as_u16()) {
        Ok(())
    } else {
        Err(format!("HTTP probe failed with statuscode: {}", status.as_u16()))
    }
}
