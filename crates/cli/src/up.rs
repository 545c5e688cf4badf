//! `podnet up`: from nothing, or from whatever an earlier run left, to a cluster whose nodes are Ready and whose DNS answers.
//!
//! Each step makes sure of something and finds it done if it is: that is why `up` over a half-finished or a killed `up` works.

mod certificates;
mod dns_probe;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::Node;
use kube::{Api, Client, ResourceExt, api::ListParams};

use crate::{
    addons,
    arguments::UpOptions,
    cluster::Cluster,
    fabric, layout,
    report::{Doing, Failure, require_root},
    supervisor,
};

/// Between two looks at something that is awaited.
const LOOK_EVERY: Duration = Duration::from_millis(50);

pub(crate) fn run(options: &UpOptions) -> Result<(), Failure> {
    require_root("up")?;
    let started = Instant::now();
    let cluster = settle(options)?;
    let mut progress = Progress { last: started };
    certificates::ensure(&cluster)?;
    progress.done("keys and certificates", layout::DATA_DIR);
    fabric::ensure(&cluster)?;
    progress.done("underlay", &underlay(&cluster));
    ensure_supervisor(&cluster)?;
    progress.done("processes", &format!("API server, {} nodes with their agents", cluster.nodes));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().doing(|| "cannot start".into())?;
    let deadline = Deadline(started + Duration::from_secs(options.timeout));
    runtime.block_on(await_cluster(&cluster, &deadline, &mut progress))?;
    println!("{}", summary(&cluster, started.elapsed()));
    Ok(())
}

/// The settings to use: new ones, or those of the cluster that is there, which must be the same.
fn settle(options: &UpOptions) -> Result<Cluster, Failure> {
    let asked = Cluster::from_options(options)?;
    match Cluster::load()? {
        Some(present) if !present.same_as(&asked) => Err(Failure::new("a cluster with other settings is up")
            .remedy("remove it first with `podnet down`, or use it: eval \"$(podnet env)\"")),
        _ => {
            for directory in [layout::DATA_DIR, layout::RUN_DIR] {
                make_private(Path::new(directory))?;
            }
            asked.save()?;
            Ok(asked)
        }
    }
}

/// Others may pass through (a pod's user reads its volumes there), but not list.
fn make_private(directory: &Path) -> Result<(), Failure> {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    let what = || format!("cannot make {}", directory.display());
    std::fs::DirBuilder::new().recursive(true).mode(0o711).create(directory).doing(what)?;
    std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o711)).doing(what)
}

fn ensure_supervisor(cluster: &Cluster) -> Result<(), Failure> {
    let running = supervisor::cgroup_of("supervisor")?.pids().unwrap_or_default();
    if running.is_empty() {
        supervisor::detached(cluster, "supervisor", &["supervisor".to_owned()])?;
    }
    Ok(())
}

async fn await_cluster(cluster: &Cluster, deadline: &Deadline, progress: &mut Progress) -> Result<(), Failure> {
    let client = podnet_client::connect::from_kubeconfig(&layout::kubeconfig())
        .await
        .doing(|| "cannot use the admin's kubeconfig".into())?;
    await_api(&client, deadline).await?;
    progress.done("API server", &format!("https://{}", cluster.api_addresses()[0]));
    addons::install(&client, cluster).await?;
    progress.done("cluster objects", "CRDs, default pool, cluster DNS");
    await_nodes(&client, cluster, deadline).await?;
    progress.done("nodes Ready", &cluster.nodes.to_string());
    await_dns(cluster, deadline).await?;
    progress.done("cluster DNS answers", &cluster.dns_address().to_string());
    Ok(())
}

async fn await_api(client: &Client, deadline: &Deadline) -> Result<(), Failure> {
    loop {
        match client.apiserver_version().await {
            Ok(_) => return Ok(()),
            Err(error) if deadline.passed() => {
                return Err(
                    Failure::because("the API server does not answer", error).remedy("look at: podnet logs apiserver")
                );
            }
            Err(_) => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
}

async fn await_nodes(client: &Client, cluster: &Cluster, deadline: &Deadline) -> Result<(), Failure> {
    let nodes = Api::<Node>::all(client.clone());
    let expected: Vec<String> = cluster.places().into_iter().map(|place| place.name).collect();
    loop {
        let present = nodes.list(&ListParams::default()).await.doing(|| "cannot list the nodes".into())?;
        let missing: Vec<String> = expected
            .iter()
            .filter_map(|name| match present.iter().find(|node| node.name_any() == **name) {
                None => Some(format!("{name} (not registered)")),
                Some(node) => unready(node).map(|why| format!("{name} ({why})")),
            })
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        if deadline.passed() {
            return Err(Failure::new(format!("not every node became Ready: {}", missing.join(", ")))
                .remedy(format!("look at: podnet logs {}", missing[0].split(' ').next().unwrap_or("node1"))));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Why a node is not Ready; none when it is.
fn unready(node: &Node) -> Option<String> {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    match conditions.and_then(|all| all.iter().find(|condition| condition.type_ == "Ready")) {
        Some(ready) if ready.status == "True" => None,
        Some(ready) => Some(ready.message.clone().unwrap_or_else(|| "not ready".to_owned())),
        None => Some("no Ready condition".to_owned()),
    }
}

async fn await_dns(cluster: &Cluster, deadline: &Deadline) -> Result<(), Failure> {
    loop {
        match dns_probe::ask(cluster) {
            Ok(()) => return Ok(()),
            Err(failure) if deadline.passed() => {
                return Err(failure.remedy("look at: kubectl -n kube-system describe pods -l k8s-app=kube-dns"));
            }
            Err(_) => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
}

struct Deadline(Instant);

impl Deadline {
    fn passed(&self) -> bool {
        Instant::now() >= self.0
    }
}

/// One line for each step, with the time that it took.
struct Progress {
    last: Instant,
}

impl Progress {
    fn done(&mut self, step: &str, detail: &str) {
        let now = Instant::now();
        println!("  ✓ {step:<22} {detail:<46} {:>5.2} s", (now - self.last).as_secs_f64());
        self.last = now;
    }
}

fn underlay(cluster: &Cluster) -> String {
    let subnets: Vec<String> =
        (0..usize::from(cluster.subnets)).map(|index| cluster.subnet(index).to_string()).collect();
    subnets.join(", ")
}

fn summary(cluster: &Cluster, elapsed: Duration) -> String {
    format!(
        "\n{nodes} nodes are Ready after {seconds:.1} s. Pods {pods}, Services {services}, DNS {dns}.\n\n  \
         eval \"$(podnet env)\"        points kubectl here\n  \
         kubectl get pods -A -o wide  shows what runs\n  \
         podnet status                shows the processes; podnet down removes everything\n",
        nodes = cluster.nodes,
        seconds = elapsed.as_secs_f64(),
        pods = cluster.pod_cidr,
        services = cluster.service_cidr,
        dns = cluster.dns_address(),
    )
}
