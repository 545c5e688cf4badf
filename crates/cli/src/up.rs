//! `podnet up`: from nothing, or from whatever an earlier run left, to a cluster whose nodes are Ready and whose DNS answers.
//!
//! Each step makes sure of something and finds it done if it is: that is why `up` over a half-finished or a killed `up` works.

mod certificates;
mod dns_probe;
mod preconditions;
mod waiting;

use std::{
    collections::BTreeSet,
    io::Write,
    path::Path,
    time::{Duration, Instant, SystemTime},
};

use crate::{
    addons,
    arguments::UpOptions,
    cluster::Cluster,
    fabric, layout,
    lock::{self, Turn},
    report::{Doing, Failure, require_root},
    supervisor,
};
use waiting::{Deadline, Stale};

pub(crate) fn run(options: &UpOptions) -> Result<(), Failure> {
    require_root("up")?;
    let _turn = Turn::take()?;
    let started = Instant::now();
    let cluster = settle(options)?;
    let mut progress = Progress { last: started };
    certificates::ensure(&cluster)?;
    progress.done("keys and certificates", layout::DATA_DIR);
    fabric::ensure(&cluster)?;
    progress.done("underlay", &underlay(&cluster));
    let stale = Stale { since: SystemTime::now(), nodes: stopped_nodes(&cluster) };
    ensure_supervisor(&cluster)?;
    progress.done("processes", &format!("API server, {} nodes with their agents", cluster.nodes));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().doing(|| "cannot start".into())?;
    let deadline = Deadline::new(started, Duration::from_secs(options.timeout));
    runtime.block_on(await_cluster(&cluster, &stale, &deadline, &mut progress))?;
    say(&summary(&cluster, started.elapsed()));
    Ok(())
}

/// The settings that hold, written down once nothing on this machine speaks against them.
fn settle(options: &UpOptions) -> Result<Cluster, Failure> {
    let present = Cluster::load()?;
    let cluster = Cluster::from_options(options, present.as_ref())?;
    fabric::refuse_taken(&cluster)?;
    preconditions::check(&cluster)?;
    // Of a cluster that is there the ConfigMap says it by now.
    if present.is_none() {
        cluster.proxy_mode.map_or(Ok(()), preconditions::check_mode)?;
    }
    for directory in [layout::DATA_DIR, layout::RUN_DIR] {
        make_private(Path::new(directory))?;
    }
    cluster.save()?;
    Ok(cluster)
}

/// Others may pass through (a pod's user reads its volumes there), but not list.
fn make_private(directory: &Path) -> Result<(), Failure> {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    let what = || format!("cannot make {}", directory.display());
    std::fs::DirBuilder::new().recursive(true).mode(0o711).create(directory).doing(what)?;
    std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o711)).doing(what)
}

fn ensure_supervisor(cluster: &Cluster) -> Result<(), Failure> {
    if !lock::supervisor_lives() {
        lock::make_supervisor_lock()?;
        supervisor::detached(cluster, "supervisor", &["supervisor".to_owned()])?;
    }
    Ok(())
}

/// Nodes whose process does not run: what the API says of them is of an earlier life.
fn stopped_nodes(cluster: &Cluster) -> BTreeSet<String> {
    let names = cluster.places().into_iter().map(|place| place.name);
    names.filter(|name| supervisor::pid_of(name).is_none()).collect()
}

async fn await_cluster(
    cluster: &Cluster,
    stale: &Stale,
    deadline: &Deadline,
    progress: &mut Progress,
) -> Result<(), Failure> {
    let client = podnet_client::connect::from_kubeconfig(&layout::kubeconfig())
        .await
        .doing(|| "cannot use the admin's kubeconfig".into())?;
    waiting::api(&client, deadline).await?;
    progress.done("API server", &format!("https://{}", cluster.api_addresses()[0]));
    deadline.until("cluster objects", async || addons::install_network(&client, cluster).await).await?;
    progress.done("cluster objects", "CRDs, default pool");
    waiting::nodes(&client, cluster, stale, deadline).await?;
    progress.done("nodes Ready", &cluster.nodes.to_string());
    deadline.until("load balancers' pool", async || addons::install_balancer_pool(&client, cluster).await).await?;
    deadline.until("cluster DNS", async || addons::install_dns(&client, cluster).await).await?;
    waiting::dns(cluster, deadline).await?;
    progress.done("cluster DNS answers", &cluster.dns_address().to_string());
    Ok(())
}

/// One line for each step, with the time that it took.
struct Progress {
    last: Instant,
}

impl Progress {
    fn done(&mut self, step: &str, detail: &str) {
        let now = Instant::now();
        say(&format!("  ✓ {step:<22} {detail:<46} {:>5.2} s", (now - self.last).as_secs_f64()));
        self.last = now;
    }
}

/// A reader who has seen enough (`podnet up | head -1`) does not end the work.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn underlay(cluster: &Cluster) -> String {
    let subnets: Vec<String> = (0..usize::from(cluster.subnets))
        .flat_map(|index| cluster.ranges(index))
        .map(|range| range.to_string())
        .collect();
    subnets.join(", ")
}

fn summary(cluster: &Cluster, elapsed: Duration) -> String {
    format!(
        "\n{nodes} nodes are Ready after {seconds:.1} s. Pods {pods}, Services {services}, DNS {dns}.\n\n  \
         eval \"$(podnet env)\"         points kubectl here\n  \
         kubectl get pods -A -o wide  shows what runs\n  \
         podnet status                shows the processes; podnet down removes everything\n",
        nodes = cluster.nodes,
        seconds = elapsed.as_secs_f64(),
        pods = cluster.pod_ranges(),
        services = cluster.service_ranges(),
        dns = cluster.dns_address(),
    )
}
