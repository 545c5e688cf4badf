//! Connections from a pod through a Service, new ones and lasting ones, or to a pod, all the time.

use std::time::Duration;

use podnet_testnet::eventually;

use crate::{SOON, Scene};

/// Where the clients in the pod write how each request went: how many connections were made for it, the answer's number, and how long it took.
const NEW: &str = "/tmp/new";
const LASTING: &[&str] = &["/tmp/lasting1", "/tmp/lasting2"];
const ALL: &[&str] = &[NEW, LASTING[0], LASTING[1]];

/// At work.
pub(crate) struct Load<'a> {
    scene: &'a Scene<'a>,
    clients: &'static [&'static str],
}

impl<'a> Load<'a> {
    /// So many requests a second of each client. Returns when all are connected.
    pub(crate) fn begin(scene: &'a Scene<'a>, rate: u32) -> Self {
        Self::of(ALL, scene, &scene.service, rate)
    }

    /// Of lasting connections alone.
    pub(crate) fn of_lasting(scene: &'a Scene<'a>, rate: u32) -> Self {
        Self::of(LASTING, scene, &scene.service, rate)
    }

    /// The same to one of the pods at its own address: of Services it needs nothing.
    pub(crate) fn of_lasting_to_a_pod(scene: &'a Scene<'a>, rate: u32) -> Self {
        let pod = scene.pods.first().unwrap();
        Self::of(LASTING, scene, pod, rate)
    }

    fn of(clients: &'static [&'static str], scene: &'a Scene<'a>, at: &str, rate: u32) -> Self {
        let client = |to: &str, header: &str| {
            let form = "%{num_connects} %{http_code} %{time_total} %{exitcode} %{errormsg}\\n";
            let command = format!(
                "stdbuf -oL curl -sS --rate {rate}/s --max-time 30 {header} -o /dev/null -w '{form}' 'http://{at}/hostname?[1-1000000]' > {to} 2> /dev/null < /dev/null &"
            );
            scene.client.run(&command).unwrap();
        };
        clients.iter().for_each(|to| client(to, if *to == NEW { "-H 'Connection: close'" } else { "" }));
        let load = Self { scene, clients };
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

    /// Every request was answered, and lasting connections were made once.
    pub(crate) fn end(self) {
        self.scene.client.run("pkill -x curl").unwrap();
        for of in self.clients {
            let mut requests = self.requests(of);
            // What was under way when the clients were stopped.
            requests.pop();
            let mut slowest = Duration::ZERO;
            for (number, request) in requests.iter().enumerate() {
                let words: Vec<&str> = request.split(' ').collect();
                let connects = if *of == NEW || number == 0 { "1" } else { "0" };
                let took = words.get(2).and_then(|took| took.parse().ok()).map(Duration::from_secs_f64);
                assert!(
                    words[..2] == [connects, "200"] && took.is_some(),
                    "request {number} of {} in {of}: {request:?}\n{}",
                    requests.len(),
                    self.scene.cluster.logs()
                );
                slowest = slowest.max(took.unwrap_or_default());
            }
            println!("{} requests in {of}, the slowest took {slowest:?}", requests.len());
        }
    }
}
