//! The node's own search path, which kubelets put into pods' `resolv.conf`: from the node's, as it is when they make a pod.

use std::{io, path::Path, time::Duration};

use tracing::{info, warn};

use super::Clients;

/// How often the file is read: which path the pods of that time have is not known for certain when it changed.
const GLANCE: Duration = if cfg!(test) { Duration::from_millis(20) } else { Duration::from_secs(1) };

/// Tells what the node searches, now and whenever that changes. Does not end.
pub(super) async fn follow(path: &Path, clients: &Clients) {
    let (mut is_known, mut is_told) = (false, false);
    loop {
        match tokio::fs::read_to_string(path).await {
            Ok(text) => {
                if clients.set_node(&text) && is_known {
                    info!(path = %path.display(), "the node's search path changed; it counts for pods that are made from now on");
                }
                (is_known, is_told) = (true, false);
            }
            // A node without such a file searches nothing (resolv.conf(5)). One that is gone may be about to be replaced.
            Err(error) if error.kind() == io::ErrorKind::NotFound && !is_known => {
                clients.set_node("");
                is_known = true;
            }
            Err(error) => {
                if !is_told && error.kind() != io::ErrorKind::NotFound {
                    warn!(path = %path.display(), %error, "the node's search path cannot be read; what was known of it counts on");
                }
                is_told = true;
            }
        }
        tokio::time::sleep(GLANCE).await;
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Instant};

    use k8s_openapi::api::core::v1 as api;
    use podnet_model::{Change, Pod};
    use serde_json::json;

    use super::*;

    /// A pod comes, and has what the node searches; none where that is not known.
    fn behind(clients: &Clients, number: usize) -> Option<String> {
        let (name, addr) = (format!("pod-{number}"), format!("10.244.{}.{}", number / 256 % 256, number % 256));
        let pod: api::Pod = serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "web", "uid": name}, "status": {"podIPs": [{"ip": addr}]},
            "spec": {"containers": []},
        }))
        .unwrap();
        let pod = Pod::try_from(&pod).unwrap();
        clients.learn(&Change::Pod(pod.key.clone(), Some(pod)));
        let search = clients.search_of(addr.parse().unwrap())?;
        Some(search.behind.iter().map(ToString::to_string).collect())
    }

    #[tokio::test]
    async fn what_the_node_searches_is_read_again_when_it_changes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("resolv.conf");
        let clients = Arc::new(Clients::default());
        let following = {
            let (path, clients) = (path.clone(), Arc::clone(&clients));
            tokio::spawn(async move { follow(&path, &clients).await })
        };
        let mut number = 1;
        for (text, expected) in
            [(None, ""), (Some("search one.example\n"), "one.example."), (Some("search two.example\n"), "two.example.")]
        {
            if let Some(text) = text {
                std::fs::write(&path, text).unwrap();
            }
            let deadline = Instant::now() + Duration::from_secs(60);
            while behind(&clients, number).as_deref() != Some(expected) {
                assert!(Instant::now() < deadline, "{expected}");
                number += 1;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        following.abort();
    }
}
