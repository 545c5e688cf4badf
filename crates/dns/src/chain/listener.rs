//! Where questions come in, and how they are taken there.

use std::{fmt, net::IpAddr};

use super::{Chain, ClientAuth, Config, Plugin, TimeoutOptions, TlsOptions, WebOptions};
use crate::corefile::{CorefileError, Fault, Key, Scheme};

/// A place where questions come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Port {
    /// How messages come.
    pub scheme: Scheme,
    /// The address (`bind`); none: all of the machine's.
    pub address: Option<IpAddr>,
    /// The port's number.
    pub number: u16,
}

/// How questions are taken at a port: what the blocks that are served there say, the first of several where they differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Where.
    pub port: Port,
    /// `timeouts`.
    pub timeouts: TimeoutOptions,
    /// `multisocket`: so many sockets; none where there is no such plugin, or it names no number.
    pub sockets: Option<usize>,
    /// `tls`; none: nothing is encrypted.
    pub tls: Option<TlsOptions>,
    /// `https` where that is spoken, `grpc_server` where that is.
    pub web: WebOptions,
}

impl Port {
    /// The places of a key of a server block that listens on addresses.
    pub(crate) fn of<'a>(key: &'a Key, addresses: &'a [IpAddr]) -> impl Iterator<Item = Self> + 'a {
        let everywhere = addresses.is_empty().then_some(None);
        let addresses = everywhere.into_iter().chain(addresses.iter().copied().map(Some));
        addresses.map(|address| Self { scheme: key.scheme, address, number: key.port })
    }
}

/// As CoreDNS calls a server, such as `dns://:53` or `tls://[::1]:853`.
impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://", self.scheme.name())?;
        match self.address {
            Some(IpAddr::V4(address)) => write!(f, "{address}")?,
            Some(IpAddr::V6(address)) => write!(f, "[{address}]")?,
            None => {}
        }
        write!(f, ":{}", self.number)
    }
}

impl Config {
    /// Where questions come in, each place once.
    #[must_use]
    pub fn listeners(&self) -> Vec<Listener> {
        let mut listeners: Vec<Listener> = Vec::new();
        for chain in &self.blocks {
            let addresses = chain.addresses();
            for port in chain.keys.iter().flat_map(|key| Port::of(key, &addresses)) {
                match listeners.iter_mut().find(|known| known.port == port) {
                    Some(known) => known.learn(chain),
                    None => {
                        let (timeouts, web) = (TimeoutOptions::default(), WebOptions::default());
                        let mut new = Listener { port, timeouts, sockets: None, tls: None, web };
                        new.learn(chain);
                        listeners.push(new);
                    }
                }
            }
        }
        listeners.sort_by_key(|listener| listener.port);
        listeners
    }
}

impl Listener {
    /// Takes over what a block says and none before it did.
    fn learn(&mut self, chain: &Chain) {
        let scheme = self.port.scheme;
        for plugin in &chain.plugins {
            match plugin {
                Plugin::Https(web) if scheme == Scheme::Https && self.web == WebOptions::default() => self.web = *web,
                Plugin::GrpcServer(web) if scheme == Scheme::Grpc && self.web == WebOptions::default() => {
                    self.web = *web;
                }
                Plugin::Timeouts(timeouts) if self.timeouts == TimeoutOptions::default() => self.timeouts = *timeouts,
                Plugin::Multisocket(sockets) => self.sockets = self.sockets.or(*sockets),
                Plugin::Tls(tls) if self.tls.is_none() => self.tls = Some(tls.clone()),
                _ => {}
            }
        }
    }
}

/// What server blocks say differently of a place where several of them listen. It is an error where it decides who is let in, and else
/// something to be warned of: what the first one says holds.
pub(super) fn disagreements(chains: &[Chain], warnings: &mut Vec<String>) -> Vec<CorefileError> {
    let mut errors = Vec::new();
    let mut before: Vec<(Port, &Key, &Chain)> = Vec::new();
    for chain in chains.iter().filter(|chain| chain.plugins.iter().any(of_listener)) {
        let addresses = chain.addresses();
        let ports: Vec<(Port, &Key)> =
            chain.keys.iter().flat_map(|key| Port::of(key, &addresses).map(move |port| (port, key))).collect();
        for (port, key) in &ports {
            for (_, first, other) in before.iter().filter(|(known, ..)| known == port) {
                let tls = chain.tls().zip(other.tls()).filter(|_| key.scheme != Scheme::Dns);
                if tls.is_some_and(|(own, others)| own.clients() != others.clients()) {
                    let fault = Fault::Clients { key: key.to_string(), first: first.place.clone() };
                    errors.push(CorefileError { place: key.place.clone(), fault });
                    break;
                }
                for what in chain.differs(other, tls.is_some()) {
                    let place = &first.place;
                    let warning = format!(
                        "{}: {what} of {key} has no effect: that of the server block at {place} holds",
                        key.place
                    );
                    if !warnings.contains(&warning) {
                        warnings.push(warning);
                    }
                }
            }
        }
        before.extend(ports.into_iter().map(|(port, key)| (port, key, chain)));
    }
    errors
}

const fn of_listener(plugin: &Plugin) -> bool {
    matches!(
        plugin,
        Plugin::Timeouts(_) | Plugin::Multisocket(_) | Plugin::Tls(_) | Plugin::Https(_) | Plugin::GrpcServer(_)
    )
}

impl TlsOptions {
    /// What decides who is let in.
    fn clients(&self) -> (ClientAuth, Option<&String>) {
        let verifies = matches!(self.client_auth, ClientAuth::VerifyIfGiven | ClientAuth::RequireAndVerify);
        (self.client_auth, self.files.authorities.as_ref().filter(|_| verifies))
    }
}

impl Chain {
    fn tls(&self) -> Option<&TlsOptions> {
        self.plugins.iter().find_map(|plugin| if let Plugin::Tls(tls) = plugin { Some(tls) } else { None })
    }

    /// The plugins of listeners that both have, with other options.
    fn differs(&self, other: &Self, with_tls: bool) -> impl Iterator<Item = &'static str> {
        let both = |own: &Plugin| {
            other.plugins.iter().any(|others| match (own, others) {
                (Plugin::Timeouts(own), Plugin::Timeouts(others)) => own != others,
                (Plugin::Multisocket(own), Plugin::Multisocket(others)) => own != others,
                (Plugin::Https(own), Plugin::Https(others)) => own != others,
                (Plugin::GrpcServer(own), Plugin::GrpcServer(others)) => own != others,
                (Plugin::Tls(own), Plugin::Tls(others)) => with_tls && own != others,
                _ => false,
            })
        };
        let names: Vec<&'static str> = self.plugins.iter().filter(|own| both(own)).map(Plugin::name).collect();
        names.into_iter()
    }
}
