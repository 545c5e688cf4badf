//! The upstreams of `forward`.

use std::{net::SocketAddr, path::PathBuf};

use super::{ForwardOptions, MAX_UPSTREAMS};
use crate::{
    chain::{read::server_address, scope::Scope},
    corefile::{CorefileError, Fault, Word},
    destination::Destination,
    name::Name,
};

/// An upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamAddr {
    /// Where it is.
    pub addr: Destination,
    /// How it is asked.
    pub transport: UpstreamTransport,
    /// The host's name that it is written by, where it is asked over TLS: its certificate is for that name unless the Corefile says
    /// another one (RFC 8310 §8.1).
    pub host: Option<Name>,
}

/// How an upstream is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpstreamTransport {
    /// DNS over UDP and TCP.
    Plain,
    /// DNS over TLS (RFC 7858).
    Tls {
        /// The name that its certificate is for, where the Corefile says one for it alone.
        server_name: Option<Name>,
    },
    /// DNS over HTTPS (RFC 8484).
    Https {
        /// The path of the URL.
        path: String,
    },
    /// gRPC, as CoreDNS speaks it.
    Grpc {
        /// Over TLS.
        encrypted: bool,
    },
}

/// What one word after `FROM` stands for. Names of hosts are asked for at `resolvers`; none: at those of `/etc/resolv.conf`.
pub(super) fn read(
    word: &Word,
    resolvers: &[SocketAddr],
    scope: &mut Scope<'_>,
    options: &mut ForwardOptions,
) -> Result<(), CorefileError> {
    let bad = |allowed: &str| word.bad("an upstream", allowed);
    let (scheme, text) = word.text.split_once("://").unwrap_or(("dns", word.text.as_str()));
    let (server, port, transport, allowed) = match scheme {
        "dns" => {
            let allowed = "an address, address:port, [address]:port, a host name or the path of a resolv.conf";
            let bare = without_zone(text).filter(|bare| server_address(bare, 53).is_some());
            (bare.unwrap_or_else(|| text.to_owned()), 53, UpstreamTransport::Plain, allowed)
        }
        "tls" => {
            let allowed = "tls://address[%server name][:port], with a host name or an address";
            let (server, server_name) = over_tls(text).ok_or_else(|| bad(allowed))?;
            (server, 853, UpstreamTransport::Tls { server_name }, allowed)
        }
        "https" => {
            let (host, path) = text.split_once('/').unwrap_or((text, ""));
            let path = if path.is_empty() { "/dns-query".to_owned() } else { format!("/{path}") };
            let allowed = "https://address[:port][/path], with a host name or an address";
            (host.to_owned(), 443, UpstreamTransport::Https { path }, allowed)
        }
        _ => return Err(bad("an address, optionally after dns://, tls:// or https://")),
    };
    if transport == UpstreamTransport::Plain
        && server_address(&server, port).is_none()
        && let Some(servers) = of_file(word, &server, scope)?
    {
        options.take(servers, &transport, None);
        options.files.push(server);
        return Ok(());
    }
    let found = addresses(word, &server, port, resolvers, scope)?;
    let (addrs, host) = found.ok_or_else(|| bad(allowed))?;
    options.take(addrs, &transport, host.filter(|_| transport != UpstreamTransport::Plain).as_ref());
    Ok(())
}

impl ForwardOptions {
    /// Adds upstreams that are not there yet: several names may lead to one.
    fn take(&mut self, addrs: Vec<SocketAddr>, transport: &UpstreamTransport, host: Option<&Name>) {
        for addr in addrs {
            let upstream = UpstreamAddr { addr: addr.into(), transport: transport.clone(), host: host.cloned() };
            if !self.upstreams.contains(&upstream) {
                self.upstreams.push(upstream);
            }
        }
    }
}

/// The name servers of a file; none: there is no such file, and it may be a host's name.
fn of_file(word: &Word, path: &str, scope: &mut Scope<'_>) -> Result<Option<Vec<SocketAddr>>, CorefileError> {
    if path.contains('/') || (scope.environment.file)(path).is_ok() {
        return name_servers(word, path, scope).map(Some);
    }
    // When there is one, the Corefile means something else.
    scope.files.push(PathBuf::from(path));
    Ok(None)
}

/// A server's addresses, and its name where that was written.
type Addresses = (Vec<SocketAddr>, Option<Name>);

/// The addresses that stand for a server: its own, or those of a host's name, which is told, too, with `port` where none is said;
/// none: it is neither.
/// Names are meant in full, as in CoreDNS: no search path is tried. Of a host's addresses no more count than a Corefile may name.
fn addresses(
    word: &Word,
    text: &str,
    port: u16,
    resolvers: &[SocketAddr],
    scope: &mut Scope<'_>,
) -> Result<Option<Addresses>, CorefileError> {
    if let Some(addr) = server_address(text, port) {
        return Ok(Some((vec![addr], None)));
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, port.parse::<u16>().ok().filter(|port| *port != 0)),
        None => (text, Some(port)),
    };
    let Some((name, port)) = host_name(host).zip(port) else { return Ok(None) };
    let system = if resolvers.is_empty() { name_servers(word, "/etc/resolv.conf", scope)? } else { Vec::new() };
    let resolvers = if resolvers.is_empty() { &system[..] } else { resolvers };
    let unresolved = |reason: String| word.error(Fault::Unresolved { host: host.to_owned(), reason });
    let found = (scope.environment.resolve)(resolvers, &name).map_err(|error| unresolved(error.to_string()))?;
    if found.is_empty() {
        return Err(unresolved("it has none".to_owned()));
    }
    let addrs = found.into_iter().take(MAX_UPSTREAMS).map(|addr| SocketAddr::new(addr, port)).collect();
    Ok(Some((addrs, Some(name))))
}

/// A host's name: letters, digits, hyphens and underscores. What ends in a number is a mistaken address.
fn host_name(text: &str) -> Option<Name> {
    let labels = text.strip_suffix('.').unwrap_or(text);
    let letters = |label: &str| label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    let last = labels.rsplit('.').next()?;
    let named = labels.split('.').all(letters) && !last.bytes().all(|byte| byte.is_ascii_digit());
    Name::parse(text).ok().filter(|_| named)
}

/// The server and the name of its certificate: in `9.9.9.9%dns.quad9.net:853` the port stands behind the name.
fn over_tls(text: &str) -> Option<(String, Option<Name>)> {
    let Some((host, name)) = text.split_once('%') else { return Some((text.to_owned(), None)) };
    let (name, port) = name.split_once(':').map_or((name, None), |(name, port)| (name, Some(port)));
    let server_name = Name::parse(name).ok().filter(|name| name.labels() > 0)?;
    let server = match port {
        None => host.to_owned(),
        Some(port) if host.contains(':') && !host.starts_with('[') => format!("[{host}]:{port}"),
        Some(port) => format!("{host}:{port}"),
    };
    Some((server, Some(server_name)))
}

/// An address without the zone that it is of (`fe80::1%eth0`, RFC 4007 §11), which CoreDNS leaves out as well; none: it has none.
fn without_zone(text: &str) -> Option<String> {
    let (address, zone) = text.split_once('%')?;
    Some(zone.split_once(']').map_or_else(|| address.to_owned(), |(_, behind)| format!("{address}]{behind}")))
}

/// The `nameserver` lines of a `resolv.conf(5)`.
pub(in crate::chain) fn name_servers(
    word: &Word,
    path: &str,
    scope: &mut Scope<'_>,
) -> Result<Vec<SocketAddr>, CorefileError> {
    let unreadable = |reason| word.error(Fault::Unreadable { path: path.to_owned(), reason });
    scope.files.push(PathBuf::from(path));
    let text = (scope.environment.file)(path).map_err(|error| unreadable(error.to_string()))?;
    let servers: Vec<SocketAddr> = text
        .lines()
        .filter_map(|line| {
            let mut words = line.split_ascii_whitespace();
            let word = (words.next() == Some("nameserver")).then(|| words.next())??;
            server_address(without_zone(word).as_deref().unwrap_or(word), 53)
        })
        .collect();
    if servers.is_empty() {
        return Err(unreadable("it names no nameserver".to_owned()));
    }
    Ok(servers)
}
