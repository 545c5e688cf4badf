//! Which plugins there are, and in which order they act.

/// The plugins that a Corefile may use, in the order in which they act: CoreDNS's since its 1.14.2 (CVE-2026-26017: a rewritten name
/// passed `acl`), two of podnet's own (`cookies`, `searchpath`), and `rrl`, which is none of CoreDNS's own either.
pub const PLUGINS: [&str; 50] = [
    "root",
    "metadata",
    "cancel",
    "tls",
    "grpc_server",
    "https",
    "timeouts",
    "multisocket",
    "reload",
    "nsid",
    "bufsize",
    "bind",
    "debug",
    "ready",
    "health",
    "prometheus",
    "errors",
    "log",
    "local",
    "dns64",
    "cookies",
    "rrl",
    // Before those who say who may ask, and before what is kept: both have to do with the question as it is answered.
    "rewrite",
    "acl",
    "any",
    "chaos",
    "loadbalance",
    "tsig",
    "searchpath",
    "cache",
    "header",
    "dnssec",
    "autopath",
    "minimal",
    "template",
    "transfer",
    "hosts",
    "k8s_external",
    "kubernetes",
    "file",
    "auto",
    "secondary",
    "etcd",
    "loop",
    "forward",
    "grpc",
    "erratic",
    "whoami",
    "sign",
    "view",
];

/// What is read and checked in full, but not acted on yet, so that a Corefile with it is refused: schemes of server
/// blocks, plugins, and options as `plugin/option`.
pub const NOT_SERVED: &[&str] = &["https3://", "quic://"];

/// What is accepted without being acted on, with a warning: answers are right without it.
/// There is no Go that `runtime_metrics` could be about.
pub const WITHOUT_EFFECT: &[&str] = &["prometheus/runtime_metrics"];

/// Plugins that may stand several times in a server block.
pub(super) const SEVERAL: [&str; 14] = [
    "acl",
    "auto",
    "bind",
    "file",
    "forward",
    "header",
    "log",
    "rewrite",
    "secondary",
    "sign",
    "template",
    "transfer",
    "tsig",
    "view",
];

/// Plugins of CoreDNS's own that are no part of this server, and why.
pub(super) const ELSEWHERE: [(&str, &str); 13] = [
    ("route53", "it serves the zones of a cloud vendor"),
    ("azure", "it serves the zones of a cloud vendor"),
    ("clouddns", "it serves the zones of a cloud vendor"),
    ("nomad", "it serves another orchestrator's names"),
    ("geoip", "it needs a vendor's database"),
    ("trace", "queries are not traced"),
    ("dnstap", "queries are not tapped"),
    ("pprof", "it profiles a Go program"),
    ("on", "it runs commands"),
    ("proxyproto", "the PROXY protocol is not spoken yet"),
    ("quic", "QUIC is not served yet"),
    ("https3", "QUIC is not served yet"),
    ("federation", "Kubernetes has given federation up"),
];
