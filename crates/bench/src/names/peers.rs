//! The other servers: what they are started with.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use super::{name, outside};
use crate::{Result, programming};

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

/// Writes the zones, and the questions that dnsperf asks.
pub(super) fn write(directory: &Path, services: usize, hosts: usize) -> Result<()> {
    let head = "$TTL 30\n@ SOA ns hostmaster 1 7200 1800 86400 30\n@ NS ns\nns A 127.0.0.1\n";
    let (mut cluster, mut world) = (head.to_owned(), head.to_owned());
    let (mut names, mut missing, mut questions) = (String::new(), String::new(), String::new());
    // Those with an address of their own: every second one, and the first.
    for number in (0..services).filter(|number| number % 2 == 1) {
        writeln!(cluster, "service-{number:05}.default.svc A {}", programming::cluster_ip(number))?;
        writeln!(names, "{} A", name(number))?;
        writeln!(missing, "no-{} A", name(number))?;
    }
    writeln!(cluster, "service-00000.default.svc A {}", programming::cluster_ip(0))?;
    for number in 0..hosts {
        writeln!(world, "host-{number:05} A 192.0.2.{}", number % 250 + 1)?;
        writeln!(questions, "{} A", outside(number))?;
    }
    let files = [("zone", cluster), ("world", world), ("names", names), ("missing", missing), ("outside", questions)];
    for (file, text) in files {
        fs::write(directory.join(file), text)?;
    }
    Ok(())
}

fn zone(kind: Kind) -> (&'static str, &'static str) {
    if kind == Kind::Zone { ("cluster.local", "zone") } else { ("example.org", "world") }
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
    let (domain, file) = zone(kind);
    let at = directory.display();
    let conf = configured(directory, "knot", port, |own| {
        format!(
            "server:\n    listen: 127.0.0.1@{port}\n    udp-workers: 1\n    tcp-workers: 1\n    background-workers: 1\n    \
             rundir: {own}\ndatabase:\n    storage: {own}\nzone:\n  - domain: {domain}\n    storage: {at}\n    \
             file: {file}\nlog:\n  - target: stderr\n    any: warning\n"
        )
    })?;
    Ok(vec!["-c".to_owned(), conf])
}

fn nsd(directory: &Path, kind: Kind, port: u16, _: u16) -> Result<Vec<String>> {
    let (domain, file) = zone(kind);
    let at = directory.display();
    let conf = configured(directory, "nsd", port, |own| {
        format!(
            "server:\n  ip-address: 127.0.0.1@{port}\n  server-count: 1\n  username: \"\"\n  database: \"\"\n  \
             pidfile: {own}/pid\n  xfrdfile: {own}/xfrd\n  zonelistfile: {own}/zones\n  xfrdir: {own}\n  \
             round-robin: no\n  rrl-ratelimit: 0\n  rrl-whitelist-ratelimit: 0\nremote-control:\n  control-enable: no\nzone:\n  name: {domain}\n  zonefile: {at}{file}\n"
        )
    })?;
    Ok(vec!["-d".to_owned(), "-c".to_owned(), conf])
}

fn bind(directory: &Path, kind: Kind, port: u16, _: u16) -> Result<Vec<String>> {
    let (domain, file) = zone(kind);
    let at = directory.display();
    let conf = configured(directory, "bind9", port, |own| {
        format!(
            "options {{\n directory \"{own}\";\n pid-file \"{own}/pid\";\n session-keyfile \"{own}/key\";\n \
             listen-on port {port} {{ 127.0.0.1; }};\n listen-on-v6 {{ none; }};\n recursion no;\n}};\n\
             controls {{ }};\nzone \"{domain}\" {{ type primary; file \"{at}{file}\"; }};\n"
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
        "--user=root".to_owned(),
        "--pid-file=".to_owned(),
    ];
    Ok(arguments.map(str::to_owned).into_iter().chain(own).collect())
}
