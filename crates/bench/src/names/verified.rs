//! What it costs cluster DNS to know every pod (`pods verified`): it watches all of them.

use std::{fs, net::Ipv4Addr, process::Command, time::Instant};

use serde::Serialize;
use serde_json::{Value, json};

use super::{
    Generations, SERVICES,
    asking::until_answered,
    records::{dashed, endpoints, name},
    spawn, updates,
};
use crate::{Result, figures::Times, lab::Place, stand_in::StandIn};

const PORT: u16 = 5302;

/// The same cluster, with its pods.
#[derive(Serialize)]
pub(super) struct Verified {
    pub(super) pods: usize,
    /// From the process' start until it answers for the last Service and the last pod, in seconds.
    pub(super) load_s: f64,
    /// Memory of its own then, and at its most, in MiB.
    pub(super) memory_mib: f64,
    pub(super) peak_mib: f64,
    /// From the watch event of a changed slice until a question has the new address.
    pub(super) update: Times,
}

/// The pods behind the Services' endpoints: the Service's number, the endpoint's place, and the address.
pub(super) fn pods() -> Vec<(usize, usize, Ipv4Addr)> {
    (0..SERVICES)
        .flat_map(|number| endpoints(number).into_iter().enumerate().map(move |(at, addr)| (number, at, addr)))
        .collect()
}

/// A pod, with what the API tells of one that has a container and nothing special.
pub(super) fn pod((number, at, addr): (usize, usize, Ipv4Addr)) -> Value {
    let (name, uid) = (format!("application-{number}-{at}"), format!("00000000-0000-{at:04}-0003-{number:012}"));
    let is = |kind: &str| json!({"type": kind, "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"});
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name, "namespace": "default", "uid": uid, "resourceVersion": "1", "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"app": format!("application-{number}"), "pod-template-hash": "5d9c7b8f6"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("application-{number}-5d9c7b8f6"),
                                 "uid": format!("00000000-0000-0000-0005-{number:012}"), "controller": true}],
        },
        "spec": {
            "nodeName": format!("node{}", 1 + (number + at) % 100), "dnsPolicy": "ClusterFirst", "serviceAccountName": "default",
            "containers": [{"name": "main", "image": "registry.example/application:1", "ports": [{"containerPort": 8080}],
                            "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}}}],
        },
        "status": {
            "phase": "Running", "podIP": addr, "podIPs": [{"ip": addr}], "hostIP": "192.0.2.1", "qosClass": "Burstable",
            "conditions": [is("PodScheduled"), is("Initialized"), is("ContainersReady"), is("Ready")],
            "containerStatuses": [{"name": "main", "ready": true, "restartCount": 0, "image": "registry.example/application:1",
                                   "imageID": "", "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}}],
        },
    })
}

/// Starts another one before the same API, and ends it. `generations` are changes that nobody was told of yet.
pub(super) fn measure(place: &Place, api: &StandIn, podnet: &str, generations: Generations) -> Result<Verified> {
    let corefile = format!(".:{PORT} {{\n kubernetes cluster.local in-addr.arpa {{\n pods verified\n }}\n}}\n");
    fs::write(place.path("Corefile-verified"), corefile)?;
    let pods = pods();
    let last = pods.last().map(|(.., addr)| format!("{}.default.pod.cluster.local", dashed(*addr)));
    let started = Instant::now();
    let mut command = Command::new("taskset");
    command.args(["-c", "0", podnet, "dns", "--conf"]).arg(place.path("Corefile-verified"));
    command.arg("--kubeconfig").arg(place.path("kubeconfig"));
    let running = spawn(place, command, "podnet-verified")?;
    until_answered(place, PORT, &name(SERVICES - 2))?;
    until_answered(place, PORT, &last.unwrap_or_default())?;
    let load_s = started.elapsed().as_secs_f64();
    let (memory_mib, peak_mib) = (running.memory_mib()?, running.peak_mib()?);
    let update = updates(place, api, PORT, generations)?;
    Ok(Verified { pods: pods.len(), load_s, memory_mib, peak_mib, update })
}
