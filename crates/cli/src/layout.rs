//! Where everything of the embedded cluster lies. One place, so that `down` removes exactly what `up` makes.

use std::path::{Path, PathBuf};

/// State that lasts: keys, store, journals, sandboxes.
pub(crate) const DATA_DIR: &str = "/var/lib/podnet";
/// State that ends with the machine: sockets, logs, conflists.
pub(crate) const RUN_DIR: &str = "/run/podnet";
/// Held by `up` and `down` while they work; outside of what `down` removes.
pub(crate) const TURN_LOCK: &str = "/run/podnet.lock";
/// Where namespaces are bound, as iproute2 does.
pub(crate) const NETNS_DIR: &str = "/run/netns";
/// Every namespace of ours starts so.
pub(crate) const NETNS_PREFIX: &str = "podnet-";
/// The cgroup (v2) below which every process of the cluster lives.
pub(crate) const CGROUP: &str = "podnet";

pub(crate) fn data(path: &str) -> PathBuf {
    Path::new(DATA_DIR).join(path)
}

pub(crate) fn run(path: &str) -> PathBuf {
    Path::new(RUN_DIR).join(path)
}

pub(crate) fn cluster_file() -> PathBuf {
    data("cluster.json")
}

pub(crate) fn kubeconfig() -> PathBuf {
    data("kubeconfig")
}

/// Held by the supervisor for as long as it lives; holds its process id.
pub(crate) fn supervisor_lock() -> PathBuf {
    run("supervisor.lock")
}

pub(crate) fn logs() -> PathBuf {
    run("log")
}

pub(crate) fn log(process: &str) -> PathBuf {
    logs().join(format!("{process}.log"))
}

pub(crate) fn netns(name: &str) -> PathBuf {
    Path::new(NETNS_DIR).join(format!("{NETNS_PREFIX}{name}"))
}

/// Paths of one node.
pub(crate) struct NodeLayout {
    pub(crate) data: PathBuf,
    pub(crate) run: PathBuf,
}

impl NodeLayout {
    pub(crate) fn new(node: &str) -> Self {
        Self { data: data(&format!("nodes/{node}")), run: run(&format!("nodes/{node}")) }
    }

    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.data.join("kubeconfig")
    }

    pub(crate) fn serving_certificate(&self) -> PathBuf {
        self.data.join("serving.crt")
    }

    pub(crate) fn serving_key(&self) -> PathBuf {
        self.data.join("serving.key")
    }

    pub(crate) fn client_ca(&self) -> PathBuf {
        self.data.join("client-ca.crt")
    }

    pub(crate) fn agent_state(&self) -> PathBuf {
        self.data.join("agent")
    }

    pub(crate) fn runtime_state(&self) -> PathBuf {
        self.data.join("runtime")
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.run.join("agent.sock")
    }

    pub(crate) fn subnet_file(&self) -> PathBuf {
        self.run.join("flannel/subnet.env")
    }

    pub(crate) fn conflists(&self) -> PathBuf {
        self.run.join("net.d")
    }
}
