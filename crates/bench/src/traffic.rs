//! Traffic between two ends, by threads of this program inside their namespaces.

use std::{
    io::{ErrorKind, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use podnet_kernel::{cgroup::Cgroup, netns::NetNs};
use podnet_testnet::Cluster;

use crate::Result;

/// How long one measurement lasts where there are few.
pub(crate) const SPAN: Duration = Duration::from_millis(400);
const CHUNK: usize = 128 << 10;

/// Where one end is.
pub(crate) struct End {
    pub(crate) netns: NetNs,
    pub(crate) addr: IpAddr,
    /// A process that is there, where it is a pod.
    pub(crate) process: Option<u32>,
}

/// Makes a pod, with a label of its name, and waits until it is ready.
pub(crate) fn pod(cluster: &Cluster, name: &str, node: &str) -> Result<End> {
    cluster.apply(&format!(
        r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"{name}","labels":{{"bench":"{name}"}}}},"spec":{{"nodeName":"{node}","containers":[
           {{"name":"tools","image":"podnet.local/tools","command":["sleep","infinity"]}}]}}}}"#
    ));
    cluster.await_ready(&[name], Duration::from_secs(30));
    let pod = cluster.json(&["pod", name]);
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let processes = Cgroup::v2(format!("podnet/{node}/{}", text(&pod["metadata"]["uid"])))?.pids()?;
    let pid = *processes.first().ok_or("no process in the pod")?;
    Ok(End { netns: NetNs::of_process(pid)?, addr: text(&pod["status"]["podIP"]).parse()?, process: Some(pid) })
}

/// The middle one, to three digits.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    (values[values.len() / 2] * 1000.0).round() / 1000.0
}

/// Connects two ends and answers what the client's side says.
pub(crate) fn between<T: Send>(
    client: &End,
    server: &End,
    serve: fn(TcpStream) -> std::io::Result<()>,
    use_it: fn(TcpStream) -> std::io::Result<T>,
) -> Result<T> {
    let (ready, listening) = mpsc::channel();
    let addr = server.addr;
    thread::scope(|scope| {
        let serving = scope.spawn(move || {
            server.netns.run(move || -> std::io::Result<()> {
                let listener = TcpListener::bind((addr, 0))?;
                let _ = ready.send(listener.local_addr()?);
                serve(listener.accept()?.0)
            })
        });
        let to: SocketAddr = listening.recv_timeout(Duration::from_secs(5))?;
        let used =
            client.netns.run(move || TcpStream::connect_timeout(&to, Duration::from_secs(5)).and_then(use_it))??;
        serving.join().map_err(|_| "the receiver panicked")???;
        Ok(used)
    })
}

/// Sends for so long; answers with Gbit/s.
pub(crate) fn send(mut stream: TcpStream, span: Duration) -> std::io::Result<f64> {
    let (chunk, started, mut sent) = (vec![0; CHUNK], Instant::now(), 0_u64);
    while started.elapsed() < span {
        stream.write_all(&chunk)?;
        sent += CHUNK as u64;
    }
    Ok(sent as f64 * 8.0 / 1e9 / started.elapsed().as_secs_f64())
}

pub(crate) fn drain(mut stream: TcpStream) -> std::io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    while stream.read(&mut chunk)? > 0 {}
    Ok(())
}

/// Asks for so long; answers with how long each answer took.
pub(crate) fn ask(mut stream: TcpStream, span: Duration) -> std::io::Result<Vec<Duration>> {
    stream.set_nodelay(true)?;
    let (started, mut waits, mut byte) = (Instant::now(), Vec::new(), [1]);
    while started.elapsed() < span {
        let asked = Instant::now();
        stream.write_all(&byte)?;
        stream.read_exact(&mut byte)?;
        waits.push(asked.elapsed());
    }
    Ok(waits)
}

pub(crate) fn echo(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut byte = [0];
    loop {
        match stream.read_exact(&mut byte) {
            Ok(()) => stream.write_all(&byte)?,
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}
