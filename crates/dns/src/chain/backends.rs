//! Plugins that ask others than DNS servers, or the cluster in another way: `k8s_external`, `etcd`, `grpc`.

use std::time::Duration;

use super::{
    Fallthrough, ForwardOptions, Policy, TlsFiles, UpstreamAddr, UpstreamTransport, forward, read, scope::Scope, tls,
};
use crate::{
    corefile::{CorefileError, Directive, Word},
    destination::{Destination, MAX_PATH},
    name::{MAX_LABEL, Name},
};

/// `k8s_external`: names for the addresses of Services that clients outside of the cluster reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalOptions {
    /// The zones.
    pub zones: Vec<Name>,
    /// The label below which the zone's own records are.
    pub apex: String,
    /// The time to live of its records, in seconds (0–3600).
    pub ttl: u32,
    /// Headless Services have names, too.
    pub headless: bool,
    /// The names that go on to the next plugin when they do not exist.
    pub fallthrough: Fallthrough,
}

/// `etcd`: records in etcd, as SkyDNS keeps them.
#[derive(Clone, PartialEq, Eq)]
pub struct EtcdOptions {
    /// The zones.
    pub zones: Vec<Name>,
    /// The key below which records are.
    pub path: String,
    /// URLs of etcd's servers, at least one.
    pub endpoints: Vec<String>,
    /// User and password.
    pub credentials: Option<(String, String)>,
    /// Certificates towards etcd, where there is TLS.
    pub tls: Option<TlsFiles>,
    /// The names that go on to the next plugin when they do not exist.
    pub fallthrough: Fallthrough,
    /// Bounds of the time to live of records with a lease, in seconds.
    pub lease_ttl: (u32, u32),
    /// What lies below the zone's own name does not answer for it: only `apex.dns` does.
    pub no_apex_fallback: bool,
}

/// `grpc`: whom to ask by gRPC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrpcOptions {
    /// The names that are asked for: this one and those below.
    pub from: Name,
    /// The upstreams, at least one.
    pub upstreams: Vec<Destination>,
    /// Names, with those below, that are not asked for.
    pub except: Vec<Name>,
    /// Certificates; none: gRPC without TLS.
    pub tls: Option<TlsFiles>,
    /// The name that upstreams' certificates are for.
    pub tls_server_name: Option<Name>,
    /// The order in which upstreams are asked.
    pub policy: Policy,
    /// The names that go on to the next plugin when they do not exist.
    pub fallthrough: Fallthrough,
    /// Connections to each upstream (1–100).
    pub pool_size: usize,
    /// How often an upstream that failed is checked.
    pub health_check: Duration,
    /// So many failed checks make an upstream count as down; 0: it never does.
    pub max_fails: u32,
}

impl GrpcOptions {
    /// What has to be said to ask these upstreams as `forward` does.
    #[must_use]
    pub fn as_forward(&self) -> ForwardOptions {
        let transport = UpstreamTransport::Grpc { encrypted: self.tls.is_some() };
        let upstream =
            |addr: &Destination| UpstreamAddr { addr: addr.clone(), transport: transport.clone(), host: None };
        ForwardOptions {
            upstreams: self.upstreams.iter().map(upstream).collect(),
            except: self.except.clone(),
            policy: self.policy,
            max_fails: self.max_fails,
            max_idle: Some(self.pool_size),
            health_check: self.health_check,
            tls: self.tls.clone().unwrap_or_default(),
            tls_server_name: self.tls_server_name.clone(),
            ..ForwardOptions::of(self.from.clone())
        }
    }
}

/// Passwords are not printed.
impl std::fmt::Debug for EtcdOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let user = self.credentials.as_ref().map(|(user, _)| user);
        let mut told = f.debug_struct("EtcdOptions");
        told.field("zones", &self.zones).field("path", &self.path).field("endpoints", &self.endpoints);
        told.field("user", &user).finish_non_exhaustive()
    }
}

/// `k8s_external [ZONES…]`.
pub(super) fn external(directive: &Directive, scope: &mut Scope<'_>) -> Result<ExternalOptions, CorefileError> {
    let mut options = ExternalOptions {
        zones: scope.zones_or(read::zones(&directive.arguments, "a zone of k8s_external")?),
        apex: "dns".to_owned(),
        ttl: 5,
        headless: false,
        fallthrough: Fallthrough::default(),
    };
    scope.options(directive, |_, option| {
        match option.name.text.as_str() {
            "apex" => {
                let word = read::one(option, "a label")?;
                let label = !word.text.contains('.') && word.text.len() <= MAX_LABEL && Name::parse(&word.text).is_ok();
                if !label || word.text.is_empty() {
                    return Err(word.bad("apex", "one label of a domain name"));
                }
                options.apex = word.text.to_ascii_lowercase();
            }
            "ttl" => options.ttl = read::number(read::one(option, "seconds")?, "ttl", 0, 3600)? as u32,
            "headless" => options.headless = read::nothing(option).map(|()| true)?,
            "fallthrough" => options.fallthrough = read::fallthrough(option)?,
            _ => return Err(read::unknown("k8s_external", option, &["apex", "ttl", "headless", "fallthrough"])),
        }
        Ok(())
    });
    if options.zones.iter().all(super::is_reverse) {
        return Err(directive.missing("a zone for Services, such as example.org, beside the reverse zones"));
    }
    Ok(options)
}

const ETCD: [&str; 8] =
    ["fallthrough", "path", "endpoint", "credentials", "tls", "min-lease-ttl", "max-lease-ttl", "no_apex_fallback"];

/// `etcd [ZONES…]`.
pub(super) fn etcd(directive: &Directive, scope: &mut Scope<'_>) -> Result<EtcdOptions, CorefileError> {
    let mut options = EtcdOptions {
        zones: scope.zones_or(read::zones(&directive.arguments, "a zone of etcd")?),
        path: "/skydns".to_owned(),
        endpoints: vec!["http://localhost:2379".to_owned()],
        credentials: None,
        tls: None,
        fallthrough: Fallthrough::default(),
        lease_ttl: (30, 86_400),
        no_apex_fallback: false,
    };
    scope.options(directive, |scope, option| {
        match option.name.text.as_str() {
            "fallthrough" => options.fallthrough = read::fallthrough(option)?,
            "path" => {
                let path = read::one(option, "a key")?.text.trim_matches('/');
                options.path = format!("/{path}");
            }
            "endpoint" => {
                if option.arguments.is_empty() {
                    return Err(option.missing("at least one URL"));
                }
                options.endpoints = option.arguments.iter().map(endpoint).collect::<Result<_, _>>()?;
            }
            "credentials" => {
                read::at_most(option, 2)?;
                let [user, password] = option.arguments.as_slice() else {
                    return Err(option.missing("a user and a password"));
                };
                options.credentials = Some((user.text.clone(), password.text.clone()));
            }
            "tls" => options.tls = Some(tls::of_client(option, scope)?),
            "min-lease-ttl" => options.lease_ttl.0 = lease(option)?,
            "max-lease-ttl" => options.lease_ttl.1 = lease(option)?,
            "no_apex_fallback" => options.no_apex_fallback = read::nothing(option).map(|()| true)?,
            // Options of old; CoreDNS ignores them as well.
            "stubzones" | "debug" | "upstream" => {}
            _ => return Err(read::unknown("etcd", option, &ETCD)),
        }
        Ok(())
    });
    Ok(options)
}

fn endpoint(word: &Word) -> Result<String, CorefileError> {
    if word.text.starts_with("http://") || word.text.starts_with("https://") {
        return Ok(word.text.clone());
    }
    Err(word.bad("an endpoint of etcd", "a URL such as http://localhost:2379"))
}

fn lease(option: &Directive) -> Result<u32, CorefileError> {
    let word = read::one(option, "seconds or a duration")?;
    let time = read::duration(word, &option.name.text)?;
    u32::try_from(time.as_secs()).map_err(|_| word.bad(&option.name.text, "at most 4294967295 seconds"))
}

const GRPC: [&str; 8] =
    ["except", "tls", "tls_servername", "policy", "fallthrough", "pool_size", "health_check", "max_fails"];

/// `grpc FROM TO…`.
pub(super) fn grpc(directive: &Directive, scope: &mut Scope<'_>) -> Result<GrpcOptions, CorefileError> {
    let Some((from, to)) = directive.arguments.split_first() else {
        return Err(directive.missing("the names to forward (\".\" is all) and the upstreams"));
    };
    if to.is_empty() {
        return Err(directive.missing("at least one upstream: an address, address:port or unix://path"));
    }
    if let Some(word) = to.get(forward::MAX_UPSTREAMS) {
        return Err(word.bad("an upstream", &format!("at most {} of them", forward::MAX_UPSTREAMS)));
    }
    let mut options = GrpcOptions {
        from: forward::origin(from, scope)?,
        upstreams: Vec::new(),
        except: Vec::new(),
        tls: None,
        tls_server_name: None,
        policy: Policy::Random,
        fallthrough: Fallthrough::default(),
        pool_size: 1,
        health_check: Duration::from_millis(500),
        max_fails: 0,
    };
    for word in to {
        options.upstreams.extend(grpc_upstreams(word, scope)?);
    }
    scope.options(directive, |scope, option| {
        match option.name.text.as_str() {
            "except" if option.arguments.is_empty() => return Err(option.missing("at least one name")),
            "except" => options.except.extend(read::zones(&option.arguments, "a name of except")?),
            "tls" => options.tls = Some(tls::of_client(option, scope)?),
            "tls_servername" => {
                options.tls_server_name = Some(read::name(read::one(option, "a name")?, "tls_servername")?);
            }
            "policy" => options.policy = forward::policy(option)?,
            "fallthrough" => options.fallthrough = read::fallthrough(option)?,
            "pool_size" => {
                options.pool_size = read::number(read::one(option, "a number")?, "pool_size", 1, 100)? as usize;
            }
            "health_check" => {
                let word = read::one(option, "a duration")?;
                options.health_check = read::duration(word, "health_check")?;
                if options.health_check.is_zero() {
                    return Err(word.bad("health_check", "a duration above zero"));
                }
            }
            "max_fails" => {
                let word = read::one(option, "a number")?;
                options.max_fails = read::number(word, "max_fails", 0, u32::MAX.into())? as u32;
            }
            _ => return Err(read::unknown("grpc", option, &GRPC)),
        }
        Ok(())
    });
    let nameless = options.tls.is_some() && options.tls_server_name.is_none();
    if nameless && options.upstreams.iter().any(|upstream| matches!(upstream, Destination::Unix(_))) {
        return Err(
            directive.missing("{ tls_servername <name> }: a unix socket has no name that a certificate could be for")
        );
    }
    Ok(options)
}

fn grpc_upstreams(word: &Word, scope: &mut Scope<'_>) -> Result<Vec<Destination>, CorefileError> {
    let text = match word.text.split_once("://") {
        Some(("unix", path)) => {
            let allowed = format!("unix:// and an absolute path of at most {MAX_PATH} printable characters");
            return Destination::unix(path).map(|socket| vec![socket]).ok_or_else(|| word.bad("an upstream", &allowed));
        }
        Some(("grpc" | "dns", rest)) => rest,
        _ => &word.text,
    };
    let port = if word.text.starts_with("grpc://") { 443 } else { 53 };
    if let Some(addr) = read::server_address(text, port) {
        return Ok(vec![addr.into()]);
    }
    if text.contains("://") || !text.contains('/') {
        let allowed = "an address, address:port, unix:///path or the path of a resolv.conf";
        return Err(word.bad("an upstream", allowed));
    }
    let servers = forward::name_servers(word, text, scope)?;
    Ok(servers.into_iter().map(Destination::from).collect())
}
