//! The upstreams of `forward`.

use std::{net::SocketAddr, path::PathBuf};

use super::ForwardOptions;
use crate::{
    chain::{read::server_address, scope::Scope},
    corefile::{CorefileError, Fault, Word},
    name::Name,
};

/// An upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamAddr {
    /// Where it is.
    pub addr: SocketAddr,
    /// How it is asked.
    pub transport: UpstreamTransport,
}

/// How an upstream is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpstreamTransport {
    /// DNS over UDP and TCP.
    Plain,
    /// DNS over TLS (RFC 7858).
    Tls {
        /// The name that its certificate is for, where it has one of its own.
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

/// What one word after `FROM` stands for.
pub(super) fn read(word: &Word, scope: &mut Scope<'_>, options: &mut ForwardOptions) -> Result<(), CorefileError> {
    let bad = |allowed| word.bad("an upstream", allowed);
    let text = match word.text.split_once("://") {
        None => word.text.as_str(),
        Some(("dns", rest)) => rest,
        Some(("tls", rest)) => {
            scope.served("forward/tls://", word);
            let upstream = over_tls(rest).ok_or_else(|| bad("tls://address[%server name][:port]"))?;
            options.upstreams.push(upstream);
            return Ok(());
        }
        Some(("https", rest)) => {
            scope.served("forward/https://", word);
            let (host, path) = rest.split_once('/').map_or((rest, "/dns-query".to_owned()), |(host, path)| {
                (host, if path.is_empty() { "/dns-query".to_owned() } else { format!("/{path}") })
            });
            let addr = server_address(host, 443).ok_or_else(|| bad("https://address[:port][/path]"))?;
            options.upstreams.push(UpstreamAddr { addr, transport: UpstreamTransport::Https { path } });
            return Ok(());
        }
        Some(_) => return Err(bad("an address, optionally after dns://, tls:// or https://")),
    };
    if let Some(addr) = server_address(text, 53) {
        options.upstreams.push(UpstreamAddr { addr, transport: UpstreamTransport::Plain });
        return Ok(());
    }
    let found = match name_servers(word, text, scope) {
        Err(_) if !text.contains('/') => {
            return Err(bad("an address, address:port, [address]:port or the path of a resolv.conf"));
        }
        found => found?,
    };
    options.upstreams.extend(found.into_iter().map(|addr| UpstreamAddr { addr, transport: UpstreamTransport::Plain }));
    options.files.push(text.to_owned());
    Ok(())
}

/// `9.9.9.9%dns.quad9.net:853`: the port stands behind the name.
fn over_tls(text: &str) -> Option<UpstreamAddr> {
    let Some((addr, name)) = text.split_once('%') else {
        let addr = server_address(text, 853)?;
        return Some(UpstreamAddr { addr, transport: UpstreamTransport::Tls { server_name: None } });
    };
    let (name, port) = name.split_once(':').map_or((name, Some(853)), |(name, port)| (name, port.parse().ok()));
    let server_name = Name::parse(name).ok().filter(|name| name.labels() > 0)?;
    let addr = server_address(addr, port.filter(|port| *port != 0)?)?;
    Some(UpstreamAddr { addr, transport: UpstreamTransport::Tls { server_name: Some(server_name) } })
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
            (words.next() == Some("nameserver")).then(|| words.next())?.and_then(|word| server_address(word, 53))
        })
        .collect();
    if servers.is_empty() {
        return Err(unreadable("it names no nameserver".to_owned()));
    }
    Ok(servers)
}
