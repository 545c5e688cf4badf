//! A node's and a pod's side of Services that serve in some mode, with a connection that lives on through changes of it.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use podnet_testnet::{Cluster, eventually};

const SOON: Duration = Duration::from_secs(60);

/// A pod with the host's tools and a web server; its label `app` is the name without the number.
pub(crate) fn pod(name: &str, node: &str) -> String {
    let app = name.trim_end_matches(char::is_numeric);
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: {app}, name: {name}}}}}\nspec:\n  nodeName: {node}\n  \
         terminationGracePeriodSeconds: 0\n  containers:\n  - {{name: t, image: podnet.local/tools, command: [sleep, infinity]}}\n  \
         - {{name: web, image: podnet.local/demoapp}}"
    )
}

/// What a command prints on a node.
pub(crate) fn on_node(node: &str, command: &[&str]) -> String {
    let output = Command::new("ip").args(["netns", "exec", &format!("podnet-{node}")]).args(command).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A connection from the pod `client` to the pod `web2` through a port of the Service `lasting`, on which something is under way all the time.
pub(crate) struct Lasting {
    port: u16,
    seen: usize,
}

impl Lasting {
    pub(crate) fn begin(cluster: &Cluster, port: u16) -> Self {
        cluster.exec("default", "web2", &["iperf3", "-s", "-D", "-p", &port.to_string()]).unwrap();
        let ip = cluster.json(&["service", "lasting"])["spec"]["clusterIP"].as_str().unwrap().to_owned();
        let mut lasting = Self { port, seen: 0 };
        eventually("the connections are there", SOON, || {
            let client = format!(
                "iperf3 -c {ip} -p {port} -t 600 -i 0.5 -b 2M --forceflush > /tmp/out-{port} 2>&1 & echo $! > /tmp/pid-{port}"
            );
            cluster.exec("default", "client", &["sh", "-c", &client])?;
            lasting.carries(cluster, Duration::from_secs(5))
        });
        lasting
    }

    pub(crate) fn goes_on(&mut self, cluster: &Cluster) {
        self.carries(cluster, SOON).unwrap();
    }

    pub(crate) fn end(self, cluster: &Cluster) {
        let client = format!("kill -9 $(cat /tmp/pid-{})", self.port);
        cluster.exec("default", "client", &["sh", "-c", &client]).unwrap();
    }

    /// Something came through since the last time.
    fn carries(&mut self, cluster: &Cluster, patience: Duration) -> Result<(), String> {
        let deadline = Instant::now() + patience;
        loop {
            let out = cluster.exec("default", "client", &["cat", &format!("/tmp/out-{}", self.port)])?;
            let carried = out.lines().filter(|line| line.contains("KBytes") || line.contains("MBytes")).count();
            if carried >= self.seen + 3 {
                self.seen = carried;
                return Ok(());
            }
            if Instant::now() > deadline || out.contains("error") {
                return Err(format!("{out}\n{}", cluster.logs()));
            }
        }
    }
}
