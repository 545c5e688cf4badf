//! Connections from a pod through a Service, new ones and lasting ones, or to a pod, all the time.

use std::time::Duration;

use podnet_testnet::{eventually, vm};

use crate::{NODES, SOON, Scene, on_node};

/// Where the clients in the pod write how each request went: how many connections were made for it, the answer's number, and how long it took.
const NEW: &str = "/tmp/new";
const LASTING: &[&str] = &["/tmp/lasting1", "/tmp/lasting2"];
const ALL: &[&str] = &[NEW, LASTING[0], LASTING[1]];

/// A pod is asked at its own address from ports that the kernel gives nobody by itself (`ip_local_port_range`). Virtual servers take what a pod
/// answers to a port that they remember with it for theirs, until minutes after the end, and give it the frontend's address: a connection to
/// the pod itself from such a port is never made (kubernetes/kubernetes#90042).
const UNREMEMBERED: &str = "--local-port 10000-10999";

/// The longest that one request of a lasting connection may take; one in a hundred may take longer than the other.
const LONGEST: Duration = Duration::from_secs(5);
const SLOW: Duration = Duration::from_millis(500);
/// A first packet that is lost is sent again after that long: so may it be of a few new connections.
const AGAIN: Duration = Duration::from_secs(1);
const FEW: usize = 5;
/// Where half of all requests take longer than that, the machine is a slow one: all bounds grow as much as they do, up to so many times.
const USUAL: Duration = Duration::from_millis(2);
const SLOWER: f64 = 8.0;

/// At work.
pub(crate) struct Load<'a> {
    scene: &'a Scene<'a>,
    at: &'a str,
    clients: &'static [&'static str],
}

impl<'a> Load<'a> {
    /// So many requests a second of each client. Returns when all are connected.
    pub(crate) fn begin(scene: &'a Scene<'a>, rate: u32) -> Self {
        Self::of(ALL, scene, &scene.service, "", rate)
    }

    /// Of lasting connections alone.
    pub(crate) fn of_lasting(scene: &'a Scene<'a>, rate: u32) -> Self {
        Self::of(LASTING, scene, &scene.service, "", rate)
    }

    /// The same to one of the pods at its own address: of Services it needs nothing.
    pub(crate) fn of_lasting_to_a_pod(scene: &'a Scene<'a>, rate: u32) -> Self {
        let pod = scene.pods.first().unwrap();
        Self::of(LASTING, scene, pod, UNREMEMBERED, rate)
    }

    fn of(clients: &'static [&'static str], scene: &'a Scene<'a>, at: &'a str, from: &str, rate: u32) -> Self {
        let client = |to: &str, header: &str| {
            let form = "%{num_connects} %{http_code} %{time_total} %{exitcode} %{errormsg}\\n";
            let command = format!(
                "stdbuf -oL curl -sS --rate {rate}/s --max-time 30 {from} {header} -o /dev/null -w '{form}' 'http://{at}/hostname?[1-1000000]' > {to} 2> /dev/null < /dev/null &"
            );
            scene.client.run(&command).unwrap();
        };
        clients.iter().for_each(|to| client(to, if *to == NEW { "-H 'Connection: close'" } else { "" }));
        let load = Self { scene, at, clients };
        load.goes_on();
        load
    }

    fn requests(&self, of: &str) -> Vec<String> {
        self.scene.client.read(of).lines().map(str::to_owned).collect()
    }

    /// Until so many more requests were made on all of them.
    pub(crate) fn goes_on(&self) {
        const MORE: usize = 10;
        let counts = || self.clients.iter().map(|of| self.requests(of).len()).collect::<Vec<_>>();
        let before = counts();
        eventually("requests go on", SOON, || match counts() {
            now if now.iter().zip(&before).all(|(now, before)| *now >= before + MORE) => Ok(()),
            now => Err(format!("{now:?} requests, {before:?} before")),
        });
    }

    /// Every request was answered, hardly any of them late, and lasting connections were made once.
    pub(crate) fn end(self) {
        self.scene.client.run("pkill -x curl").unwrap();
        for of in self.clients {
            let mut requests = self.requests(of);
            // What was under way when the clients were stopped.
            requests.pop();
            let mut times = Vec::with_capacity(requests.len());
            for (number, request) in requests.iter().enumerate() {
                let words: Vec<&str> = request.split(' ').collect();
                let connects = if *of == NEW || number == 0 { "1" } else { "0" };
                let took = words.get(2).and_then(|took| took.parse().ok()).map(Duration::from_secs_f64);
                assert!(
                    words[..2] == [connects, "200"] && took.is_some(),
                    "request {number} of {} to {} in {of}: {request:?}\n{}\n{}",
                    requests.len(),
                    self.at,
                    connections(),
                    self.scene.cluster.logs()
                );
                times.extend(took);
            }
            let slowest = times.iter().max().copied().unwrap_or_default();
            println!("{} requests in {of}, the slowest took {slowest:?}", times.len());
            // Where the processor is emulated, all is late.
            if let Some(late) = late(*of == NEW, &times).filter(|_| !vm::is_here()) {
                panic!("of {} requests in {of}, {late}\n{}", times.len(), self.scene.cluster.logs());
            }
        }
    }
}

/// What each node knows of connections, where there are tools to ask.
fn connections() -> String {
    let of_node = |node| {
        let told = on_node(node, "ipvsadm -Lnc; conntrack -L -p tcp; true").unwrap_or_else(|error| error);
        format!("--- connections of {node}\n{told}")
    };
    NODES.map(of_node).join("\n")
}

/// What of the times of requests, of new connections or of a lasting one, says that it stood still for a while.
fn late(of_new: bool, times: &[Duration]) -> Option<String> {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let half = sorted.get(sorted.len() / 2).copied().unwrap_or_default();
    let here = |bound: Duration| bound.mul_f64((half.as_secs_f64() / USUAL.as_secs_f64()).clamp(1.0, SLOWER));
    let (bound, most) = if of_new { (here(AGAIN), FEW) } else { (here(SLOW), times.len().div_ceil(100)) };
    let beyond: Vec<Duration> = times.iter().copied().filter(|time| *time > bound).collect();
    let stood_still = !of_new && beyond.iter().any(|time| *time > here(LONGEST));
    (stood_still || beyond.len() > most).then(|| format!("{} took longer than {bound:?}: {beyond:?}", beyond.len()))
}

#[test]
fn a_connection_that_stands_still_is_told_and_a_late_request_now_and_then_is_not() {
    let ms = Duration::from_millis;
    for (of_new, usual, beyond, is_late) in [
        (false, 2, vec![], false),
        (false, 2, vec![ms(600), ms(4000)], false),
        (false, 2, vec![ms(600); 4], true),
        (false, 2, vec![ms(5001)], true),
        (true, 2, vec![ms(1100); 5], false),
        (true, 2, vec![ms(1100); 6], true),
        (true, 2, vec![ms(900); 50], false),
        // A machine that takes five times as long, and one that has no excuse any more.
        (false, 10, vec![ms(2400); 4], false),
        (false, 10, vec![ms(2600); 4], true),
        (true, 10, vec![ms(5100); 6], true),
        (false, 100, vec![ms(4100); 4], true),
    ] {
        let times = [&[ms(usual); 200][..], &beyond[..]].concat();
        assert_eq!(late(of_new, &times).is_some(), is_late, "{usual} ms: {beyond:?}");
    }
}
