//! `forward`.

mod upstream;

use std::{net::SocketAddr, time::Duration};

pub(super) use upstream::name_servers;
pub use upstream::{UpstreamAddr, UpstreamTransport};

use super::{TlsFiles, read, scope::Scope, tls};
use crate::{
    corefile::{CorefileError, Directive, Word},
    message::Rcode,
    name::{Name, QueryName},
    validate::Anchors,
};

/// Whom to ask, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardOptions {
    /// The names that are asked for: this one and those below.
    pub from: Name,
    /// The upstreams, at least one.
    pub upstreams: Vec<UpstreamAddr>,
    /// Names, with those below, that are not asked for.
    pub except: Vec<Name>,
    /// The most questions in flight; beyond it REFUSED is answered. None: this server's own bound, and SERVFAIL.
    pub max_concurrent: Option<usize>,
    /// The order in which upstreams are asked.
    pub policy: Policy,
    /// TCP always.
    pub force_tcp: bool,
    /// UDP also for those who asked over TCP.
    pub prefer_udp: bool,
    /// So many failed checks make an upstream count as down; 0: it never does.
    pub max_fails: u32,
    /// How long an idle connection is kept.
    pub expire: Duration,
    /// How long a connection is used at most, however busy it is; none: for as long as it lasts.
    pub max_age: Option<Duration>,
    /// The most idle connections to an upstream; none: any number.
    pub max_idle: Option<usize>,
    /// The most upstreams that one question is sent to; none: any number.
    pub max_attempts: Option<u32>,
    /// How often an upstream that failed is checked.
    pub health_check: Duration,
    /// The checks ask for recursion.
    pub health_recursion: bool,
    /// The name that the checks ask for.
    pub health_domain: Name,
    /// With these answers the next `forward` is asked.
    pub next: Vec<Rcode>,
    /// The next `forward` is asked, too, when the name has no records of the type.
    pub next_on_nodata: bool,
    /// With these answers the next upstream is asked.
    pub failover: Vec<Rcode>,
    /// SERVFAIL is answered at once when all upstreams are down.
    pub fail_fast: bool,
    /// Certificates towards upstreams.
    pub tls: TlsFiles,
    /// The name that upstreams' certificates are for.
    pub tls_server_name: Option<Name>,
    /// DNS over HTTPS by GET rather than by POST.
    pub https_get: bool,
    /// Names that answers prove not to exist are denied without asking (RFC 8198): so many proofs are kept; 0: none.
    pub nsec: usize,
    /// The keys with which it begins to validate answers for that.
    pub anchors: Anchors,
    /// Zones of which nothing is denied for that, beside those that are private anywhere.
    pub insecure: Vec<Name>,
    /// The `resolv.conf` files that the upstreams were read from.
    pub files: Vec<String>,
}

/// The order in which upstreams are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// By chance.
    Random,
    /// In turn.
    RoundRobin,
    /// The first that is up.
    Sequential,
}

impl ForwardOptions {
    /// Nobody is asked yet; the rest is as it is where the Corefile says nothing.
    pub(super) fn of(from: Name) -> Self {
        Self {
            from,
            upstreams: Vec::new(),
            except: Vec::new(),
            max_concurrent: None,
            policy: Policy::Random,
            force_tcp: false,
            prefer_udp: false,
            max_fails: 2,
            expire: Duration::from_secs(10),
            max_age: None,
            max_idle: None,
            max_attempts: None,
            health_check: Duration::from_millis(500),
            health_recursion: true,
            health_domain: Name::root(),
            next: Vec::new(),
            next_on_nodata: false,
            failover: Vec::new(),
            fail_fast: false,
            tls: TlsFiles::default(),
            tls_server_name: None,
            https_get: false,
            nsec: 0,
            anchors: Anchors::default(),
            insecure: Vec::new(),
            files: Vec::new(),
        }
    }

    /// Whether a name is asked for here.
    #[must_use]
    pub fn covers(&self, name: &QueryName) -> bool {
        name.within(&self.from).is_some() && !self.except.iter().any(|except| name.within(except).is_some())
    }
}

/// As CoreDNS.
pub(super) const MAX_UPSTREAMS: usize = 15;
const KNOWN: [&str; 22] = [
    "except",
    "max_concurrent",
    "policy",
    "prefer_udp",
    "force_tcp",
    "max_fails",
    "expire",
    "max_age",
    "health_check",
    "tls",
    "tls_servername",
    "next",
    "next_on_nodata",
    "nsec",
    "trust_anchors",
    "insecure",
    "failover",
    "failfast_all_unhealthy_upstreams",
    "max_idle_conns",
    "max_connect_attempts",
    "doh_method",
    "resolver",
];

/// `forward FROM TO…`.
pub(super) fn parse(directive: &Directive, scope: &mut Scope<'_>) -> Result<ForwardOptions, CorefileError> {
    let Some((from, to)) = directive.arguments.split_first() else {
        return Err(directive.missing("the names to forward (\".\" is all) and the upstreams"));
    };
    if to.is_empty() {
        return Err(directive.missing("at least one upstream: an address, address:port, a host name or a resolv.conf"));
    }
    let mut options = ForwardOptions::of(origin(from, scope)?);
    let resolvers = directive.options.iter().filter(|option| option.name.text == "resolver");
    let resolvers =
        resolvers.flat_map(|option| &option.arguments).filter_map(|word| read::server_address(&word.text, 53));
    let resolvers: Vec<SocketAddr> = resolvers.collect();
    for word in to {
        upstream::read(word, &resolvers, scope, &mut options)?;
    }
    if let Some(word) = to.get(MAX_UPSTREAMS) {
        return Err(word.bad("an upstream", &format!("at most {MAX_UPSTREAMS} of them")));
    }
    scope.options(directive, |scope, option| apply(&mut options, option, scope));
    let of_nsec = |option: &&Directive| matches!(option.name.text.as_str(), "trust_anchors" | "insecure");
    for option in directive.options.iter().filter(of_nsec).filter(|_| options.nsec == 0) {
        scope.warnings.push(format!("{}: {} has no effect without nsec", option.name.place, option.name.text));
    }
    let own = |upstream: &UpstreamAddr| matches!(&upstream.transport, UpstreamTransport::Tls { server_name: Some(_) });
    let twice = options.tls_server_name.is_some() && options.upstreams.iter().any(own);
    let named = directive.options.iter().find(|option| option.name.text == "tls_servername" && twice);
    if let Some(option) = named {
        return Err(option.name.bad("an option beside tls://address%name", "one name for each upstream"));
    }
    Ok(options)
}

/// The names to forward: the first zone of a CIDR, as in CoreDNS.
pub(super) fn origin(word: &Word, scope: &mut Scope<'_>) -> Result<Name, CorefileError> {
    let zones = read::zones(std::slice::from_ref(word), "the names to forward")?;
    if zones.len() > 1 {
        scope.warnings.push(format!(
            "{}: {:?} is {} zones; only the first is forwarded",
            word.place,
            word.text,
            zones.len()
        ));
    }
    zones.into_iter().next().ok_or_else(|| word.bad("the names to forward", "a domain name"))
}

fn apply(options: &mut ForwardOptions, option: &Directive, scope: &mut Scope<'_>) -> Result<(), CorefileError> {
    match option.name.text.as_str() {
        "except" => {
            if option.arguments.is_empty() {
                return Err(option.missing("at least one name"));
            }
            options.except.extend(read::zones(&option.arguments, "a name of except")?);
        }
        "max_concurrent" => options.max_concurrent = bound(option)?,
        "policy" => options.policy = policy(option)?,
        "prefer_udp" => options.prefer_udp = read::nothing(option).map(|()| true)?,
        "force_tcp" => options.force_tcp = read::nothing(option).map(|()| true)?,
        "max_fails" => {
            options.max_fails = read::number(read::one(option, "a number")?, "max_fails", 0, u32::MAX.into())? as u32;
        }
        "expire" => options.expire = read::duration(read::one(option, "a duration")?, "expire")?,
        "max_age" => {
            let age = read::duration(read::one(option, "a duration")?, "max_age")?;
            options.max_age = (!age.is_zero()).then_some(age);
        }
        "max_idle_conns" => options.max_idle = bound(option)?,
        "max_connect_attempts" => options.max_attempts = bound(option)?.map(|number| number as u32),
        "health_check" => health_check(options, option)?,
        "tls" => options.tls = tls::of_client(option, scope)?,
        "tls_servername" => {
            options.tls_server_name = Some(read::name(read::one(option, "a name")?, "tls_servername")?);
        }
        "next" => codes(option, &mut options.next)?,
        "nsec" => {
            read::at_most(option, 1)?;
            let number = |word| read::number(word, "the number of proofs of nsec", 1, 1_000_000);
            options.nsec = option.arguments.first().map_or(Ok(10_000), number)? as usize;
        }
        "trust_anchors" => anchors(options, option, scope)?,
        "insecure" => {
            if option.arguments.is_empty() {
                return Err(option.missing("at least one zone"));
            }
            options.insecure.extend(read::zones(&option.arguments, "a zone of insecure")?);
        }
        "next_on_nodata" => options.next_on_nodata = read::nothing(option).map(|()| true)?,
        "failover" => {
            codes(option, &mut options.failover)?;
            if let Some(word) = option.arguments.iter().find(|word| word.text.eq_ignore_ascii_case("NOERROR")) {
                return Err(word.bad("a code of failover", "a code other than NOERROR"));
            }
        }
        "failfast_all_unhealthy_upstreams" => options.fail_fast = read::nothing(option).map(|()| true)?,
        "doh_method" => {
            let word = read::one(option, "GET or POST")?;
            options.https_get = match word.text.to_ascii_uppercase().as_str() {
                "GET" => true,
                "POST" => false,
                _ => return Err(word.bad("doh_method", "GET or POST")),
            };
        }
        // Upstreams have been asked for there already.
        "resolver" => {
            if option.arguments.is_empty() {
                return Err(option.missing("at least one address"));
            }
            for word in &option.arguments {
                read::server(word, "a resolver", 53)?;
            }
        }
        _ => return Err(read::unknown("forward", option, &KNOWN)),
    }
    Ok(())
}

/// `trust_anchors FILE…`: DS and DNSKEY records as zone files have them. Of a zone that is named there these count alone.
fn anchors(options: &mut ForwardOptions, option: &Directive, scope: &mut Scope<'_>) -> Result<(), CorefileError> {
    if option.arguments.is_empty() {
        return Err(option.missing("a file with DS or DNSKEY records"));
    }
    for word in &option.arguments {
        let text = read::text(word, scope)?;
        let read = Anchors::read(&word.text, &text);
        options.anchors.take(read.map_err(|error| word.malformed("the file of trust anchors", &error.to_string()))?);
    }
    Ok(())
}

/// A number, 0 meaning none.
fn bound(option: &Directive) -> Result<Option<usize>, CorefileError> {
    let max = read::number(read::one(option, "a number")?, &option.name.text, 0, 10_000_000)? as usize;
    Ok((max > 0).then_some(max))
}

fn codes(option: &Directive, codes: &mut Vec<Rcode>) -> Result<(), CorefileError> {
    if option.arguments.is_empty() {
        return Err(option.missing("at least one response code"));
    }
    for word in &option.arguments {
        codes.push(read::response_code(word, &format!("a code of {}", option.name.text))?);
    }
    Ok(())
}

/// `policy random|round_robin|sequential`.
pub(super) fn policy(option: &Directive) -> Result<Policy, CorefileError> {
    let allowed = "random, round_robin or sequential";
    let word = read::one(option, allowed)?;
    match word.text.as_str() {
        "random" => Ok(Policy::Random),
        "round_robin" => Ok(Policy::RoundRobin),
        "sequential" => Ok(Policy::Sequential),
        _ => Err(word.bad("policy", allowed)),
    }
}

/// `health_check DURATION [no_rec] [domain FQDN]`.
fn health_check(options: &mut ForwardOptions, option: &Directive) -> Result<(), CorefileError> {
    let Some((interval, rest)) = option.arguments.split_first() else {
        return Err(option.missing("a duration"));
    };
    let every = read::duration(interval, "health_check")?;
    if every.is_zero() {
        return Err(interval.bad("health_check", "a duration above zero"));
    }
    options.health_check = every;
    let mut rest = rest.iter();
    while let Some(word) = rest.next() {
        match word.text.as_str() {
            "no_rec" => options.health_recursion = false,
            "domain" => {
                let name = rest.next().ok_or_else(|| option.missing("a domain name after domain"))?;
                options.health_domain = read::name(name, "domain")?;
            }
            _ => return Err(word.bad("an option of health_check", "no_rec or domain <name>")),
        }
    }
    Ok(())
}
