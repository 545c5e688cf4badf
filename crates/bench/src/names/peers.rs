//! The other servers: what they are started with.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::Result;

/// What a server is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// It has the cluster's names as a zone.
    Zone,
    /// It has the outside world's.
    Outside,
    /// It forwards, and keeps what it hears.
    Cache,
}

type Arguments = fn(&Path, Kind, u16, u16) -> Result<Vec<String>>;

/// One of the others.
#[derive(Clone, Copy)]
pub(super) struct Peer {
    pub(super) name: &'static str,
    pub(super) program: &'static str,
    pub(super) kind: Kind,
    /// Writes its configuration into a directory, for a port and an upstream's port, and says what it is started with.
    pub(super) arguments: Arguments,
}

/// Servers of zones.
pub(super) const PEERS: [Peer; 3] = [
    Peer { name: "knot", program: "knotd", kind: Kind::Zone, arguments: knot },
    Peer { name: "nsd", program: "nsd", kind: Kind::Zone, arguments: nsd },
    Peer { name: "bind9", program: "named", kind: Kind::Zone, arguments: bind },
];
/// Servers that forward.
pub(super) const CACHES: [Peer; 2] = [
    Peer { name: "unbound", program: "unbound", kind: Kind::Cache, arguments: unbound },
    Peer { name: "dnsmasq", program: "dnsmasq", kind: Kind::Cache, arguments: dnsmasq },
];

/// Whether a program can be started.
pub(super) fn installed(program: &str) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&paths).chain([PathBuf::from("/usr/sbin")]).any(|path| path.join(program).is_file())
}

/// The zones that a server has, and their files.
fn zones(kind: Kind) -> &'static [(&'static str, &'static str)] {
    if kind == Kind::Zone {
        &[("cluster.local", "zone"), ("in-addr.arpa", "reverse")]
    } else {
        &[("example.org", "world")]
    }
}

/// What a configuration says of each zone.
fn of_zones(kind: Kind, text: impl Fn(&str, &str) -> String) -> String {
    zones(kind).iter().map(|(domain, file)| text(domain, file)).collect()
}

/// A directory of the server's own, and the configuration in it.
fn configured(directory: &Path, name: &str, port: u16, text: impl FnOnce(&str) -> String) -> Result<String> {
    let own = directory.join(format!("{name}-{port}"));
    fs::create_dir_all(&own)?;
    let file = own.join("conf");
    fs::write(&file, text(&own.to_string_lossy()))?;
    Ok(file.to_string_lossy().into_owned())
}

fn knot(directory: &Path, kind: Kind, port: u16, _: u16) -> Result<Vec<String>> {
    let at = directory.display();
    let zones = of_zones(kind, |domain, file| format!("  - domain: {domain}\n    storage: {at}\n    file: {file}\n"));
    let conf = configured(directory, "knot", port, |own| {
        format!(
            "server:\n    listen: 127.0.0.1@{port}\n    udp-workers: 1\n    tcp-workers: 1\n    background-workers: 1\n    \
             rundir: {own}\ndatabase:\n    storage: {own}\nzone:\n{zones}log:\n  - target: stderr\n    any: warning\n"
        )
    })?;
    Ok(vec!["-c".to_owned(), conf])
}

fn nsd(directory: &Path, kind: Kind, port: u16, _: u16) -> Result<Vec<String>> {
    let at = directory.display();
    let zones = of_zones(kind, |domain, file| format!("zone:\n  name: {domain}\n  zonefile: {at}{file}\n"));
    let conf = configured(directory, "nsd", port, |own| {
        format!(
            "server:\n  ip-address: 127.0.0.1@{port}\n  server-count: 1\n  username: \"\"\n  database: \"\"\n  \
             pidfile: {own}/pid\n  xfrdfile: {own}/xfrd\n  zonelistfile: {own}/zones\n  xfrdir: {own}\n  \
             round-robin: no\n  rrl-ratelimit: 0\n  rrl-whitelist-ratelimit: 0\nremote-control:\n  control-enable: no\n{zones}"
        )
    })?;
    Ok(vec!["-d".to_owned(), "-c".to_owned(), conf])
}

fn bind(directory: &Path, kind: Kind, port: u16, _: u16) -> Result<Vec<String>> {
    let at = directory.display();
    let zones = of_zones(kind, |domain, file| format!("zone \"{domain}\" {{ type primary; file \"{at}{file}\"; }};\n"));
    let conf = configured(directory, "bind9", port, |own| {
        format!(
            "options {{\n directory \"{own}\";\n pid-file \"{own}/pid\";\n session-keyfile \"{own}/key\";\n \
             listen-on port {port} {{ 127.0.0.1; }};\n listen-on-v6 {{ none; }};\n recursion no;\n empty-zones-enable no;\n}};\n\
             controls {{ }};\n{zones}"
        )
    })?;
    Ok(["-g", "-n", "1", "-c", &conf].map(str::to_owned).to_vec())
}

fn unbound(directory: &Path, _: Kind, port: u16, upstream: u16) -> Result<Vec<String>> {
    let conf = configured(directory, "unbound", port, |own| {
        format!(
            "server:\n interface: 127.0.0.1@{port}\n num-threads: 1\n username: \"\"\n chroot: \"\"\n directory: \"{own}\"\n \
             pidfile: \"{own}/pid\"\n do-not-query-localhost: no\n access-control: 127.0.0.0/8 allow\n \
             module-config: \"iterator\"\nremote-control:\n control-enable: no\nforward-zone:\n name: \".\"\n \
             forward-addr: 127.0.0.1@{upstream}\n"
        )
    })?;
    Ok(vec!["-d".to_owned(), "-c".to_owned(), conf])
}

fn dnsmasq(_: &Path, _: Kind, port: u16, upstream: u16) -> Result<Vec<String>> {
    let arguments = ["--keep-in-foreground", "--no-resolv", "--no-hosts", "--bind-interfaces", "--conf-file=/dev/null"];
    let own = [
        format!("--port={port}"),
        "--listen-address=127.0.0.1".to_owned(),
        format!("--server=127.0.0.1#{upstream}"),
        "--cache-size=10000".to_owned(),
        // It refuses more questions than these under way, 150 unless told: before all names are kept there are more.
        "--dns-forward-max=10000".to_owned(),
        "--user=root".to_owned(),
        "--pid-file=".to_owned(),
    ];
    Ok(arguments.map(str::to_owned).into_iter().chain(own).collect())
}
