//! Which processes a cluster has, and how each is started.

use std::path::Path;

use podnet_kernel::cgroup::Cgroup;

use crate::{
    cluster::{Cluster, NodePlace},
    layout::{self, NodeLayout},
    report::{Doing, Failure},
};

/// For how many seconds flows are kept where nothing else is asked for.
const RETENTION: u32 = 3600;

/// A process to keep running.
pub(crate) struct ProcessSpec {
    /// Its name in logs, cgroups and `podnet status`.
    pub(crate) name: String,
    /// The arguments of the podnet binary.
    pub(crate) arguments: Vec<String>,
}

/// The cgroup of a process of the cluster.
pub(crate) fn cgroup_of(name: &str) -> Result<Cgroup, Failure> {
    Cgroup::v2(Path::new(layout::CGROUP).join("system").join(name))
        .doing(|| "cannot find the cgroup v2 hierarchy".into())
}

/// The process id of a process of the cluster, where it runs.
pub(crate) fn pid_of(name: &str) -> Option<u32> {
    cgroup_of(name).ok()?.pids().ok()?.first().copied()
}

/// Everything that the supervisor starts, the API server first.
pub(crate) fn specs(cluster: &Cluster) -> Vec<ProcessSpec> {
    let mut specs = vec![apiserver(cluster)];
    for place in cluster.places() {
        specs.push(node(cluster, &place));
        specs.push(agent(cluster, &place));
    }
    specs
}

fn apiserver(cluster: &Cluster) -> ProcessSpec {
    let [local, underlay] = cluster.api_addresses();
    let mut arguments = Line::new("apiserver", "apiserver");
    arguments.option("--data-dir", &layout::DATA_DIR);
    arguments.option("--store", &cluster.store().display());
    arguments.option("--listen", &local);
    arguments.option("--listen", &underlay);
    arguments.option("--advertise", &underlay);
    arguments.option("--service-cidr", &cluster.service_cidr);
    if let Some(range) = cluster.service_cidr_v6 {
        arguments.option("--service-cidr-v6", &range);
    }
    arguments.spec()
}

fn node(cluster: &Cluster, place: &NodePlace) -> ProcessSpec {
    let mut arguments = Line::new("node", &place.name);
    arguments.option("--netns", &layout::netns(&place.name).display());
    arguments.option("--name", &place.name);
    for address in cluster.addresses(place.address) {
        arguments.option("--address", &address);
    }
    arguments.option("--kubeconfig", &NodeLayout::new(&place.name).kubeconfig().display());
    arguments.option("--cluster-dns", &cluster.nameserver());
    arguments.option("--label", &format!("podnet.io/subnet=subnet{}", place.subnet + 1));
    arguments.spec()
}

fn agent(cluster: &Cluster, place: &NodePlace) -> ProcessSpec {
    let files = NodeLayout::new(&place.name);
    let mut arguments = Line::new("agent", &format!("{}-agent", place.name));
    arguments.option("--netns", &layout::netns(&place.name).display());
    arguments.option("--name", &place.name);
    arguments.option("--kubeconfig", &files.kubeconfig().display());
    arguments.option("--state-dir", &files.agent_state().display());
    arguments.option("--socket", &files.socket().display());
    arguments.option("--cni-conf-dir", &files.conflists().display());
    arguments.option("--subnet-file", &files.subnet_file().display());
    arguments.option("--underlay-device", &"eth0");
    arguments.option("--pod-link", &cluster.pod_link);
    arguments.option("--service-cidr", &cluster.service_cidr);
    if let Some(addr) = cluster.node_local_dns {
        arguments.option("--node-local-dns", &addr);
    }
    if cluster.flows {
        arguments.option("--flow-retention", &cluster.flow_retention.unwrap_or(RETENTION));
        if let Some(bytes) = cluster.flow_retention_bytes {
            arguments.option("--flow-retention-bytes", &bytes);
        }
    }
    if let Some(entries) = cluster.flow_entries {
        arguments.option("--flow-entries", &entries);
    }
    arguments.option("--flow-certificate", &files.serving_certificate().display());
    arguments.option("--flow-key", &files.serving_key().display());
    arguments.option("--flow-client-ca", &files.client_ca().display());
    arguments.option("--sockets-cgroup", &Path::new(layout::CGROUP).join(&place.name).display());
    arguments.spec()
}

/// A command line in the making.
struct Line {
    name: String,
    arguments: Vec<String>,
}

impl Line {
    fn new(command: &str, name: &str) -> Self {
        let cgroup = Path::new(layout::CGROUP).join("system").join(name);
        let mut line = Self { name: name.to_owned(), arguments: vec![command.to_owned()] };
        line.option("--cgroup", &cgroup.display());
        line
    }

    fn option(&mut self, name: &str, value: &dyn std::fmt::Display) {
        self.arguments.extend([name.to_owned(), value.to_string()]);
    }

    fn spec(self) -> ProcessSpec {
        ProcessSpec { name: self.name, arguments: self.arguments }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arguments::UpOptions;

    /// What an agent of such a cluster is told.
    fn told(options: &UpOptions, name: &str) -> Option<String> {
        let cluster = Cluster::from_options(options, None).map_err(|failure| failure.to_string()).unwrap();
        let arguments = agent(&cluster, cluster.places().first().unwrap()).arguments;
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1).cloned()
    }

    #[test]
    fn agents_keep_as_much_of_the_past_as_was_asked_for_and_else_an_hour() {
        let (time, bytes) = ("--flow-retention", "--flow-retention-bytes");
        let none = UpOptions::default();
        assert_eq!((told(&none, time), told(&none, bytes)), (None, None));
        let some = UpOptions { flows: true, ..UpOptions::default() };
        assert_eq!((told(&some, time), told(&some, bytes)), (Some("3600".to_owned()), None));
        let own = UpOptions {
            flows: true,
            flow_retention: Some(90),
            flow_retention_bytes: Some(1 << 20),
            ..UpOptions::default()
        };
        assert_eq!((told(&own, time), told(&own, bytes)), (Some("90".to_owned()), Some("1048576".to_owned())));
    }

    #[test]
    fn agents_have_room_for_as_many_flows_as_was_asked_for_also_of_those_that_are_only_followed() {
        assert_eq!(told(&UpOptions::default(), "--flow-entries"), None);
        let roomy = UpOptions { flow_entries: Some(1 << 20), ..UpOptions::default() };
        assert_eq!(told(&roomy, "--flow-entries").as_deref(), Some("1048576"));
    }
}
