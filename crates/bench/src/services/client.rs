//! A client: a process of its own in the client pod's namespaces and control group, and what it does there.

use std::{
    fs,
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpStream},
    os::unix::process::CommandExt,
    process::Command,
    time::{Duration, Instant},
};

use podnet_kernel::{cgroup::Cgroup, netns::NetNs};
use serde::{Deserialize, Serialize};

use super::{ANSWER, CLOSE, Figures, STREAM};
use crate::{
    Result,
    traffic::{End, ask, send},
};

/// What a client does, each for as long as it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Load {
    /// Sends, asks on one connection, and opens connections.
    All,
    /// The first two of these.
    Established,
    /// The last one.
    Connections,
}

/// One round, by a process in the client's pod, which does each thing for so long.
pub(crate) fn ask_client(client: &End, server: IpAddr, load: Load, span: Duration) -> Result<Figures> {
    let pid = client.process.ok_or("the client is no pod")?;
    let mut command = Command::new("/proc/self/exe");
    let work = serde_json::to_string(&(load, span))?;
    command.args([CLIENT, &pid.to_string(), &server.to_string(), &work]).process_group(0);
    let output = command.stderr(std::process::Stdio::inherit()).output()?;
    if !output.status.success() {
        return Err(format!("the client: {}", output.status).into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// The first argument of a client: its pod's process, the server's address, and what it does and for how long follow.
pub(crate) const CLIENT: &str = "as-client-of";

/// What a client does.
pub(crate) fn client(args: &[String]) -> Result<()> {
    let [pid, server, work] = args else { return Err("a client takes a process, an address and its work".into()) };
    let (load, span): (Load, Duration) = serde_json::from_str(work)?;
    let cgroup = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let cgroup = cgroup.lines().find_map(|line| line.strip_prefix("0::")).ok_or("the pod is in no cgroup")?;
    Cgroup::v2(cgroup.trim_start_matches('/'))?.add_self()?;
    let server: IpAddr = server.parse()?;
    let figures = NetNs::of_process(pid.parse()?)?.run(move || -> std::io::Result<_> {
        let to = |port| TcpStream::connect_timeout(&SocketAddr::from((server, port)), Duration::from_secs(5));
        let (mut gbit_s, mut requests, mut connections) = (0.0, Vec::new(), Vec::new());
        if load != Load::Connections {
            gbit_s = send(to(STREAM)?, span)?;
            requests = ask(to(ANSWER)?, span)?;
        }
        if load != Load::Established {
            connections = connect_ask_close(|| to(CLOSE), span)?;
        }
        let a_second = |times: &[Duration]| times.len() as f64 / span.as_secs_f64();
        Ok(Figures {
            gbit_s,
            requests_s: a_second(&requests),
            connections_s: a_second(&connections),
            request_p99_us: p99_us(requests),
            connection_p99_us: p99_us(connections),
        })
    })??;
    println!("{}", serde_json::to_string(&figures)?);
    Ok(())
}

fn p99_us(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times.get(times.len() * 99 / 100).map_or(0.0, |time| time.as_secs_f64() * 1e6)
}

fn connect_ask_close(
    connect: impl Fn() -> std::io::Result<TcpStream>,
    span: Duration,
) -> std::io::Result<Vec<Duration>> {
    let (started, mut times, mut byte) = (Instant::now(), Vec::new(), [1]);
    while started.elapsed() < span {
        let began = Instant::now();
        let mut stream = connect()?;
        stream.write_all(&byte)?;
        stream.read_exact(&mut byte)?;
        // Closed by a reset: of so many connections neither side nor connection tracking could remember each for a minute.
        rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO))?;
        drop(stream);
        times.push(began.elapsed());
    }
    Ok(times)
}
