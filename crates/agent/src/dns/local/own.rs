//! A Corefile of the nodes' resolver's own, such as that of NodeLocal DNSCache as it is.
//!
//! Its placeholders stand for what they stand for there. It answers at the resolver's addresses whatever `bind` says, and opens no other
//! ports on the node: health and metrics are the agent's. When the file changes it is taken over, a wrong one is not.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use podnet_dns::{Config, chain::Plugin};

use super::{
    super::{DnsError, connections, corefile::Stamp, corefile::environment},
    LocalOptions,
};

/// How often it is looked whether the file is another one.
const GLANCE: Duration = if cfg!(test) { Duration::from_millis(20) } else { Duration::from_secs(1) };

/// Which file it is now; none: there is none.
pub(super) async fn stamp(options: &LocalOptions) -> Option<Stamp> {
    let file = tokio::fs::metadata(options.corefile.as_ref()?).await.ok()?;
    Some(Stamp::of(&file))
}

/// Waits until it is another file than it was when it was `read`; for ever where there is none.
pub(super) async fn written(options: &LocalOptions, read: &mut Option<Stamp>) {
    if options.corefile.is_none() {
        std::future::pending::<()>().await;
    }
    loop {
        tokio::time::sleep(GLANCE).await;
        let now = stamp(options).await;
        if now.is_some() && now != *read {
            *read = now;
            return;
        }
    }
}

/// What the file says while cluster DNS answers at `upstreams`.
pub(super) fn config(
    path: &Path,
    options: &LocalOptions,
    upstreams: &BTreeSet<SocketAddr>,
) -> Result<Config, DnsError> {
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|source| DnsError::Unreadable { path: PathBuf::from(path), source })?;
    let text = filled(&text, options, upstreams);
    let read = |path: &str| std::fs::read_to_string(path);
    let mut config =
        Config::load(&path.display().to_string(), &text, &environment(&read)).map_err(DnsError::Corefile)?;
    let plugins = || config.blocks.iter().flat_map(|block| &block.plugins);
    let of_cluster_dns = |plugin: &&Plugin| {
        matches!(plugin, Plugin::Kubernetes(_) | Plugin::K8sExternal(_) | Plugin::Secondary(_) | Plugin::Sign(_))
    };
    if let Some(plugin) = plugins().find(of_cluster_dns) {
        return Err(DnsError::NotOnNodes { plugin: plugin.name() });
    }
    for secure in podnet_dns::forward::secured(&config) {
        connections::check(&secure).map_err(DnsError::Tls)?;
    }
    for block in &mut config.blocks {
        block.plugins.retain(|plugin| !matches!(plugin, Plugin::Bind(_)));
    }
    let process = &mut config.process;
    (process.health, process.ready, process.metrics) = (Vec::new(), Vec::new(), Vec::new());
    Ok(config)
}

/// The text with what its placeholders stand for.
fn filled(text: &str, options: &LocalOptions, upstreams: &BTreeSet<SocketAddr>) -> String {
    let listed = |items: Vec<String>| items.join(" ");
    let addrs = listed(options.addrs.iter().map(ToString::to_string).collect());
    [
        ("__PILLAR__CLUSTER__DNS__", listed(upstreams.iter().map(ToString::to_string).collect())),
        ("__PILLAR__UPSTREAM__SERVERS__", options.resolv_conf.display().to_string()),
        ("__PILLAR__LOCAL__DNS__", addrs.clone()),
        ("__PILLAR__DNS__SERVER__", addrs),
        ("__PILLAR__DNS__DOMAIN__", options.domain.clone()),
    ]
    .into_iter()
    .fold(text.to_owned(), |text, (placeholder, value)| text.replace(placeholder, &value))
}
