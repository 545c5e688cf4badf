//! `podnet status`.

use std::{fs, path::Path, time::Duration};

use comfy_table::{Table, presets};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{Api, Client, ResourceExt, api::ListParams};
use serde::Serialize;

use crate::{
    arguments::{Output, StatusOptions},
    cluster::Cluster,
    layout, lock,
    report::{Doing, Failure, require_root},
    supervisor,
};

/// How long the API server may take before it counts as away.
const PATIENCE: Duration = Duration::from_secs(3);

const SUPERVISOR: &str = "supervisor";

/// Everything that is shown; its JSON form is an interface.
#[derive(Serialize)]
struct Status {
    nodes: Vec<NodeStatus>,
    processes: Vec<ProcessStatus>,
    /// Why the API server told nothing; the processes are known without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    api_error: Option<String>,
    pod_cidr: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod_cidr_v6: Option<String>,
    service_cidr: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    service_cidr_v6: Option<String>,
    kubeconfig: String,
}

#[derive(Serialize)]
struct NodeStatus {
    name: String,
    address: String,
    ready: bool,
    pods: usize,
    pods_running: usize,
}

#[derive(Serialize)]
struct ProcessStatus {
    name: String,
    /// None: it does not run.
    pid: Option<u32>,
    memory_bytes: Option<u64>,
    /// The most that it ever used.
    peak_memory_bytes: Option<u64>,
}

pub(crate) fn run(options: &StatusOptions) -> Result<(), Failure> {
    require_root("status")?;
    let cluster = Cluster::require()?;
    let status = gather(&cluster)?;
    match options.output {
        Output::Json => {
            println!("{}", serde_json::to_string_pretty(&status).doing(|| "cannot print the status".into())?);
        }
        Output::Table => print_tables(&status),
    }
    match verdict(&status) {
        None => Ok(()),
        Some(failure) => Err(failure),
    }
}

/// What is wrong with the cluster, the gravest first.
fn verdict(status: &Status) -> Option<Failure> {
    let stopped: Vec<&str> = status.processes.iter().filter(|p| p.pid.is_none()).map(|p| p.name.as_str()).collect();
    if stopped.contains(&SUPERVISOR) {
        let failure = Failure::new(format!(
            "THE SUPERVISOR DOES NOT RUN: nobody restarts what dies (not running: {})",
            stopped.join(", ")
        ));
        return Some(failure.remedy("`podnet up` heals the cluster"));
    }
    if !stopped.is_empty() {
        let failure = Failure::new(format!("not running: {}", stopped.join(", ")));
        return Some(failure.remedy("the supervisor starts it again; why it ended: podnet logs supervisor"));
    }
    let error = status.api_error.as_ref()?;
    Some(Failure::new(error.clone()).remedy("look at: podnet logs apiserver"))
}

fn gather(cluster: &Cluster) -> Result<Status, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().doing(|| "cannot start".into())?;
    let nodes = runtime.block_on(async { tokio::time::timeout(PATIENCE, nodes()).await });
    let (nodes, api_error) = match nodes {
        Ok(Ok(nodes)) => (nodes, None),
        Ok(Err(failure)) => (Vec::new(), Some(failure.to_string())),
        Err(_) => (Vec::new(), Some(format!("the API server does not answer within {} s", PATIENCE.as_secs()))),
    };
    let names =
        std::iter::once(SUPERVISOR.to_owned()).chain(supervisor::specs(cluster).into_iter().map(|spec| spec.name));
    Ok(Status {
        nodes,
        processes: names.map(process).collect(),
        api_error,
        pod_cidr: cluster.pod_cidr.to_string(),
        pod_cidr_v6: cluster.pod_cidr_v6.map(|cidr| cidr.to_string()),
        service_cidr: cluster.service_cidr.to_string(),
        service_cidr_v6: cluster.service_cidr_v6.map(|cidr| cidr.to_string()),
        kubeconfig: layout::kubeconfig().display().to_string(),
    })
}

async fn nodes() -> Result<Vec<NodeStatus>, Failure> {
    let client: Client = podnet_client::connect::from_kubeconfig(&layout::kubeconfig())
        .await
        .doing(|| "cannot use the admin's kubeconfig".into())?;
    let everything = ListParams::default();
    let nodes = Api::<Node>::all(client.clone()).list(&everything).await.doing(|| "cannot list the nodes".into())?;
    let pods = Api::<Pod>::all(client).list(&everything).await.doing(|| "cannot list the pods".into())?;
    Ok(nodes.iter().map(|node| node_status(node, &pods.items)).collect())
}

fn node_status(node: &Node, pods: &[Pod]) -> NodeStatus {
    let name = node.name_any();
    let status = node.status.clone().unwrap_or_default();
    let here = |pod: &&Pod| pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref()) == Some(&name);
    let running = |pod: &&Pod| pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running");
    let address = status.addresses.unwrap_or_default().into_iter().find(|address| address.type_ == "InternalIP");
    NodeStatus {
        address: address.map(|address| address.address).unwrap_or_default(),
        ready: status.conditions.unwrap_or_default().iter().any(|c| c.type_ == "Ready" && c.status == "True"),
        pods: pods.iter().filter(here).count(),
        pods_running: pods.iter().filter(here).filter(running).count(),
        name,
    }
}

fn process(name: String) -> ProcessStatus {
    let pid = if name == SUPERVISOR { lock::supervisor_pid() } else { supervisor::pid_of(&name) };
    let memory = |field| pid.and_then(|pid| memory(pid, field));
    ProcessStatus { memory_bytes: memory("VmRSS:"), peak_memory_bytes: memory("VmHWM:"), pid, name }
}

/// A size from `/proc/PID/status` (`proc_pid_status(5)`), which the kernel gives in units of 1024 bytes.
fn memory(pid: u32, field: &str) -> Option<u64> {
    let text = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status")).ok()?;
    let kibibytes: u64 =
        text.lines().find_map(|line| line.strip_prefix(field))?.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes * 1024)
}

fn print_tables(status: &Status) {
    let and = |cidr: &Option<String>| cidr.as_ref().map_or_else(String::new, |cidr| format!(" and {cidr}"));
    let (pods6, services6) = (and(&status.pod_cidr_v6), and(&status.service_cidr_v6));
    println!(
        "pods {}{pods6}   services {}{services6}   kubeconfig {}\n",
        status.pod_cidr, status.service_cidr, status.kubeconfig
    );
    let mut nodes = table(&["NODE", "READY", "ADDRESS", "PODS", "RUNNING"]);
    for node in &status.nodes {
        let ready = if node.ready { "yes" } else { "no" };
        nodes.add_row([&node.name, ready, &node.address, &node.pods.to_string(), &node.pods_running.to_string()]);
    }
    println!("{}\n", trimmed(&nodes));
    let mut processes = table(&["PROCESS", "PID", "MEMORY", "PEAK"]);
    let mebibytes = |bytes: Option<u64>| {
        bytes.map_or_else(|| "-".to_owned(), |bytes| format!("{:.1} MiB", bytes as f64 / 1048576.0))
    };
    for process in &status.processes {
        let pid = process.pid.map_or_else(|| "stopped".to_owned(), |pid| pid.to_string());
        processes.add_row([
            &process.name,
            &pid,
            &mebibytes(process.memory_bytes),
            &mebibytes(process.peak_memory_bytes),
        ]);
    }
    println!("{}", trimmed(&processes));
}

pub(crate) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(header.to_vec());
    table
}

/// Without the blanks that pad the last column.
pub(crate) fn trimmed(table: &Table) -> String {
    table.lines().map(|line| line.trim().to_owned()).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(stopped: &[&str]) -> Status {
        let process = |name: &str| ProcessStatus {
            name: name.to_owned(),
            pid: (!stopped.contains(&name)).then_some(7),
            memory_bytes: None,
            peak_memory_bytes: None,
        };
        Status {
            nodes: Vec::new(),
            processes: [SUPERVISOR, "apiserver"].map(process).into(),
            api_error: None,
            pod_cidr: String::new(),
            pod_cidr_v6: None,
            service_cidr: String::new(),
            service_cidr_v6: None,
            kubeconfig: String::new(),
        }
    }

    #[test]
    fn a_missing_supervisor_is_said_loudly_and_first() {
        assert!(verdict(&status(&[])).is_none());
        let alone = verdict(&status(&["supervisor", "apiserver"])).unwrap().to_string();
        assert!(alone.contains("SUPERVISOR DOES NOT RUN") && alone.contains("podnet up"), "{alone}");
        let watched = verdict(&status(&["apiserver"])).unwrap().to_string();
        assert!(watched.contains("not running: apiserver") && !watched.contains("SUPERVISOR"), "{watched}");
    }
}
