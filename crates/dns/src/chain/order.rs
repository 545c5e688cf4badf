//! Which plugins there are, and in which order they act.

/// The plugins that a Corefile may use, in the order in which they act: CoreDNS's after its 1.14.7, where `acl` stands behind all that
/// changes a name (`rewrite`, CVE-2026-26017; `autopath`) and before `cache`; two of podnet's own (`cookies`, `searchpath`), and
/// `rrl`, which is none of CoreDNS's own either.
pub const PLUGINS: [&str; 50] = [
    "root",
    "metadata",
    "cancel",
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
    // These have to do with the question as it was asked: what was signed is that one.
    "any",
    "chaos",
    "loadbalance",
    "tsig",
    // Before those who say who may ask, and before what is kept: both have to do with the question as it is answered.
    "rewrite",
    "searchpath",
    "autopath",
    "acl",
    "cache",
    "header",
    "dnssec",
    "tls",
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

/// Plugins of CoreDNS's own that are no part of this server, and why: in its order, and what it had once.
pub(super) const ELSEWHERE: [(&str, &str); 16] = [
    ("geoip", "it needs a vendor's database"),
    ("proxyproto", "the PROXY protocol is not spoken yet"),
    ("quic", "QUIC is not served yet"),
    ("https3", "QUIC is not served yet"),
    ("trace", "queries are not traced"),
    ("pprof", "it profiles a Go program"),
    ("shed", "without it, too, what waits for an answer is bounded"),
    ("dnstap", "queries are not tapped"),
    ("siit", "IPv6 addresses are not told as IPv4 addresses (RFC 7757)"),
    ("dynupdate", "zones take no dynamic updates (RFC 2136)"),
    ("route53", "it serves the zones of a cloud vendor"),
    ("azure", "it serves the zones of a cloud vendor"),
    ("clouddns", "it serves the zones of a cloud vendor"),
    ("on", "it runs commands"),
    ("nomad", "it serves another orchestrator's names"),
    ("federation", "Kubernetes has given federation up"),
];
