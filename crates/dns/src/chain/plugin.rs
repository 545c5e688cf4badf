//! The plugins of a server block, and how their directives become options.

use std::time::Duration;

use super::{
    AclOptions, AutoOptions, AutopathOptions, BindOptions, CacheOptions, ChaosOptions, CookieOptions, Dns64Options,
    DnssecOptions, ErraticOptions, ErrorsOptions, EtcdOptions, ExternalOptions, FileOptions, ForwardOptions,
    GrpcOptions, HeaderRule, HealthOptions, HostsOptions, KubernetesOptions, LoadbalanceOptions, LocalOptions,
    LogOptions, PrometheusOptions, ReadyOptions, RewriteOptions, RrlOptions, SecondaryOptions, SignOptions,
    TemplateOptions, TimeoutOptions, TlsOptions, TransferOptions, TsigOptions, ViewOptions, WebOptions, acl, backends,
    cache, forward, guard, hosts, kubernetes, local, logging,
    order::{ELSEWHERE, PLUGINS, SEVERAL},
    process, prometheus, read, responses, rewrite,
    scope::Scope,
    signing, sources, template, tls, view, web,
};
use crate::{
    corefile::{CorefileError, Directive, Fault},
    name::Name,
};

/// A plugin with its options.
#[derive(Clone, Debug)]
pub enum Plugin {
    /// `root`: where relative paths of files begin.
    Root(String),
    /// `metadata`: the zones whose questions plugins tell something about.
    Metadata(Vec<Name>),
    /// `cancel`: how long a query may take in all.
    Cancel(Duration),
    /// `tls`.
    Tls(TlsOptions),
    /// `grpc_server`: what servers of gRPC bear.
    GrpcServer(WebOptions),
    /// `https`: what servers of DNS over HTTPS bear.
    Https(WebOptions),
    /// `timeouts`: times of connections to this server.
    Timeouts(TimeoutOptions),
    /// `multisocket`: sockets for each address and port; none means as many as there are processors.
    Multisocket(Option<usize>),
    /// `reload`: how often the Corefile is looked at, and the spread of that; none: never.
    Reload(Option<(Duration, Duration)>),
    /// `nsid`: the server's identity (RFC 5001); none means the host's name.
    Nsid(Option<String>),
    /// `bufsize`: the largest UDP message that a client's EDNS may ask for, in bytes (512–4096).
    Bufsize(u16),
    /// `bind`: the addresses to listen on.
    Bind(BindOptions),
    /// `debug`: who looks for a fault is told more, and a panic ends the process.
    Debug,
    /// `ready`.
    Ready(ReadyOptions),
    /// `health`.
    Health(HealthOptions),
    /// `prometheus`.
    Prometheus(PrometheusOptions),
    /// `errors`.
    Errors(ErrorsOptions),
    /// `log`.
    Log(LogOptions),
    /// `local`: names of the local zones (`localhost` and its reverse names) are answered here.
    Local(LocalOptions),
    /// `dns64`.
    Dns64(Dns64Options),
    /// `cookies`.
    Cookies(CookieOptions),
    /// `rrl`.
    Rrl(RrlOptions),
    /// `acl`.
    Acl(AclOptions),
    /// `any`: questions for all types get the short answer of RFC 8482.
    Any,
    /// `chaos`.
    Chaos(ChaosOptions),
    /// `loadbalance`.
    Loadbalance(LoadbalanceOptions),
    /// `tsig`.
    Tsig(TsigOptions),
    /// `searchpath`: as `autopath`, for clients whose search path is known from outside; podnet's own.
    Searchpath(AutopathOptions),
    /// `cache`.
    Cache(CacheOptions),
    /// `rewrite`: one rule.
    Rewrite(RewriteOptions),
    /// `header`: what happens to the header's flags, in this order.
    Header(Vec<HeaderRule>),
    /// `dnssec`.
    Dnssec(DnssecOptions),
    /// `autopath`.
    Autopath(AutopathOptions),
    /// `minimal`: the authority and additional sections are left out where the answer does not need them.
    Minimal,
    /// `template`: one of them.
    Template(TemplateOptions),
    /// `transfer`.
    Transfer(TransferOptions),
    /// `hosts`.
    Hosts(HostsOptions),
    /// `k8s_external`.
    K8sExternal(ExternalOptions),
    /// `kubernetes`.
    Kubernetes(KubernetesOptions),
    /// `file`.
    File(FileOptions),
    /// `auto`.
    Auto(AutoOptions),
    /// `secondary`.
    Secondary(SecondaryOptions),
    /// `etcd`.
    Etcd(EtcdOptions),
    /// `loop`.
    Loop,
    /// `forward`.
    Forward(ForwardOptions),
    /// `grpc`.
    Grpc(GrpcOptions),
    /// `erratic`.
    Erratic(ErraticOptions),
    /// `whoami`.
    Whoami,
    /// `sign`.
    Sign(SignOptions),
    /// `view`: one of them; all have to hold.
    View(ViewOptions),
}

impl Plugin {
    /// What a Corefile calls it.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Root(..) => "root",
            Self::Metadata(..) => "metadata",
            Self::Cancel(..) => "cancel",
            Self::Tls(..) => "tls",
            Self::GrpcServer(..) => "grpc_server",
            Self::Https(..) => "https",
            Self::Timeouts(..) => "timeouts",
            Self::Multisocket(..) => "multisocket",
            Self::Reload(..) => "reload",
            Self::Nsid(..) => "nsid",
            Self::Bufsize(..) => "bufsize",
            Self::Bind(..) => "bind",
            Self::Debug => "debug",
            Self::Ready(..) => "ready",
            Self::Health(..) => "health",
            Self::Prometheus(..) => "prometheus",
            Self::Errors(..) => "errors",
            Self::Log(..) => "log",
            Self::Local(..) => "local",
            Self::Dns64(..) => "dns64",
            Self::Cookies(..) => "cookies",
            Self::Rrl(..) => "rrl",
            Self::Acl(..) => "acl",
            Self::Any => "any",
            Self::Chaos(..) => "chaos",
            Self::Loadbalance(..) => "loadbalance",
            Self::Tsig(..) => "tsig",
            Self::Searchpath(..) => "searchpath",
            Self::Cache(..) => "cache",
            Self::Rewrite(..) => "rewrite",
            Self::Header(..) => "header",
            Self::Dnssec(..) => "dnssec",
            Self::Autopath(..) => "autopath",
            Self::Minimal => "minimal",
            Self::Template(..) => "template",
            Self::Transfer(..) => "transfer",
            Self::Hosts(..) => "hosts",
            Self::K8sExternal(..) => "k8s_external",
            Self::Kubernetes(..) => "kubernetes",
            Self::File(..) => "file",
            Self::Auto(..) => "auto",
            Self::Secondary(..) => "secondary",
            Self::Etcd(..) => "etcd",
            Self::Loop => "loop",
            Self::Forward(..) => "forward",
            Self::Grpc(..) => "grpc",
            Self::Erratic(..) => "erratic",
            Self::Whoami => "whoami",
            Self::Sign(..) => "sign",
            Self::View(..) => "view",
        }
    }
}

/// The plugins of a server block, in the order in which they act.
pub(super) fn all(directives: &[Directive], scope: &mut Scope<'_>) -> Vec<Plugin> {
    let mut ordered: Vec<(usize, &Directive)> = Vec::new();
    for directive in directives {
        match position(directive) {
            // CoreDNS takes the last of the others silently.
            Ok(at) if ordered.iter().any(|(other, _)| *other == at) && !SEVERAL.contains(&PLUGINS[at]) => {
                scope.errors.push(directive.name.error(Fault::Twice { plugin: directive.name.text.clone() }));
            }
            Ok(at) => ordered.push((at, directive)),
            Err(error) => scope.errors.push(error),
        }
    }
    // Stable: several of one kind keep the file's order.
    ordered.sort_by_key(|(at, _)| *at);
    let named = |name: &str| ordered.iter().find(|(at, _)| PLUGINS[*at] == name);
    if let (Some((_, external)), None) = (named("k8s_external"), named("kubernetes")) {
        let at = &external.name.place;
        scope.warnings.push(format!("{at}: k8s_external has no effect without kubernetes in the same server block"));
    }
    let mut plugins = Vec::new();
    for (_, directive) in ordered {
        let before = scope.faults();
        match plugin(directive, scope) {
            Ok(plugin) => {
                scope.served(&directive.name.text, &directive.name);
                plugins.push(plugin);
            }
            // An option that could not be read is missing as well: that is said once.
            Err(error) if scope.faults() == before => scope.errors.push(error),
            Err(_) => {}
        }
    }
    plugins
}

fn position(directive: &Directive) -> Result<usize, CorefileError> {
    let name = directive.name.text.as_str();
    PLUGINS.iter().position(|plugin| *plugin == name).ok_or_else(|| {
        directive.name.error(match ELSEWHERE.iter().find(|(plugin, _)| *plugin == name) {
            Some((_, why)) => Fault::NoPart { plugin: name.to_owned(), why },
            None => Fault::UnknownPlugin { found: name.to_owned(), known: PLUGINS.to_vec() },
        })
    })
}

fn plugin(directive: &Directive, scope: &mut Scope<'_>) -> Result<Plugin, CorefileError> {
    let bare = |plugin: Plugin| read::nothing(directive).map(|()| plugin);
    Ok(match directive.name.text.as_str() {
        "root" => Plugin::Root(process::root(directive, scope)?),
        "metadata" => {
            read::no_options(directive)?;
            Plugin::Metadata(scope.zones_or(read::zones(&directive.arguments, "a zone of metadata")?))
        }
        "cancel" => Plugin::Cancel(process::cancel(directive)?),
        "tls" => Plugin::Tls(tls::parse(directive, scope)?),
        "grpc_server" => Plugin::GrpcServer(web::grpc_server(directive, scope)?),
        "https" => Plugin::Https(web::https(directive, scope)?),
        "timeouts" => Plugin::Timeouts(process::timeouts(directive, scope)?),
        "multisocket" => Plugin::Multisocket(process::multisocket(directive)?),
        "reload" => Plugin::Reload(process::reload(directive)?),
        "nsid" => Plugin::Nsid(process::nsid(directive)?),
        "bufsize" => Plugin::Bufsize(process::bufsize(directive)?),
        "bind" => Plugin::Bind(process::bind(directive, scope)?),
        "debug" => bare(Plugin::Debug)?,
        "ready" => Plugin::Ready(process::ready(directive, scope)?),
        "health" => Plugin::Health(process::health(directive, scope)?),
        "prometheus" => Plugin::Prometheus(prometheus::parse(directive, scope)?),
        "errors" => Plugin::Errors(logging::errors(directive, scope)?),
        "log" => Plugin::Log(logging::log(directive, scope)?),
        "local" => Plugin::Local(local::parse(directive, scope)?),
        "dns64" => Plugin::Dns64(responses::dns64(directive, scope)?),
        "cookies" => Plugin::Cookies(guard::cookies(directive, scope)?),
        "rrl" => Plugin::Rrl(guard::rrl(directive, scope)?),
        "acl" => Plugin::Acl(acl::parse(directive, scope)?),
        "any" => bare(Plugin::Any)?,
        "chaos" => Plugin::Chaos(responses::chaos(directive)?),
        "loadbalance" => Plugin::Loadbalance(responses::loadbalance(directive, scope)?),
        "tsig" => Plugin::Tsig(signing::tsig(directive, scope)?),
        "searchpath" => Plugin::Searchpath(responses::searchpath(directive)?),
        "cache" => Plugin::Cache(cache::parse(directive, scope)?),
        "rewrite" => Plugin::Rewrite(rewrite::parse(directive, scope)?),
        "header" => Plugin::Header(responses::header(directive, scope)?),
        "dnssec" => Plugin::Dnssec(signing::dnssec(directive, scope)?),
        "autopath" => Plugin::Autopath(responses::autopath(directive, scope)?),
        "minimal" => bare(Plugin::Minimal)?,
        "template" => Plugin::Template(template::parse(directive, scope)?),
        "transfer" => Plugin::Transfer(sources::transfer(directive, scope)?),
        "hosts" => Plugin::Hosts(hosts::parse(directive, scope)?),
        "k8s_external" => Plugin::K8sExternal(backends::external(directive, scope)?),
        "kubernetes" => Plugin::Kubernetes(kubernetes::parse(directive, scope)?),
        "file" => Plugin::File(sources::file(directive, scope)?),
        "auto" => Plugin::Auto(sources::auto(directive, scope)?),
        "secondary" => Plugin::Secondary(sources::secondary(directive, scope)?),
        "etcd" => Plugin::Etcd(backends::etcd(directive, scope)?),
        "loop" => bare(Plugin::Loop)?,
        "forward" => Plugin::Forward(forward::parse(directive, scope)?),
        "grpc" => Plugin::Grpc(backends::grpc(directive, scope)?),
        "erratic" => Plugin::Erratic(responses::erratic(directive, scope)?),
        "whoami" => bare(Plugin::Whoami)?,
        "sign" => Plugin::Sign(signing::sign(directive, scope)?),
        // The last: `position` lets no others through.
        _ => Plugin::View(view::parse(directive, scope)?),
    })
}
