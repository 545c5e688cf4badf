//! What collectors are called: `KIND+TRANSPORT://HOST[:PORT][/PATH][?NAME=VALUE…]`.

use std::{fmt, path::PathBuf, str::FromStr};

use axum::http::Uri;
use uuid::Uuid;

/// What Targets' directories are named in.
const NAMES: Uuid = Uuid::from_u128(0x2d8b_61f0_93c4_4e0a_b6f7_58c1_0ad9_7e25);
/// How much of a target is in its directory's name, for people.
const READABLE: usize = 60;
/// The index where none is named.
const INDEX: &str = "podnet-flows";
/// The exchange where none is named.
const EXCHANGE: &str = "podnet.flows";
const KINDS: &str = "stdout:, syslog+udp://HOST, syslog+tcp://HOST, syslog+tls://HOST, syslog+unix:///PATH, ipfix+tcp://HOST, ipfix+udp://HOST, \
                     elasticsearch+https://HOST/INDEX, opensearch+https://HOST/INDEX (http as well), otlp+https://HOST (http as well), \
                     amqps://HOST/VHOST?exchange=NAME (amqp as well)";

/// A collector, as it was named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    text: String,
    pub(super) kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Stdout,
    Syslog(Place),
    Ipfix(Place),
    /// With the index's name.
    Elasticsearch(Web, String),
    Otlp(Web),
    Amqp(Broker),
}

/// Where something without answers is sent to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Unix(PathBuf),
    Udp(Host),
    Tcp(Host),
    /// With a file of authorities.
    Tls(Host, Option<String>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Host {
    /// A name or an address, of IPv6 without brackets.
    pub(super) name: String,
    pub(super) port: u16,
}

/// Where something is published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Broker {
    pub(super) place: Place,
    /// The virtual host.
    pub(super) host: String,
    pub(super) exchange: String,
    /// The file with them.
    pub(super) credentials: Option<String>,
}

/// Where something is posted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Web {
    pub(super) url: Uri,
    /// The file with them.
    pub(super) credentials: Option<String>,
    /// A file of authorities, in place of those that the system trusts.
    pub(super) authorities: Option<String>,
}

/// A text is no target.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// It is of no known kind.
    #[error("{0:?} is no collector; there are {KINDS}")]
    Kind(String),
    /// It has a password in it.
    #[error(
        "users and passwords do not belong on the command line: write user:password, or Bearer TOKEN, into a file and name it: ?credentials=FILE"
    )]
    Credentials,
    /// It cannot be read.
    #[error("{text}: {why}")]
    Text {
        /// What was written.
        text: String,
        /// What is wrong with it.
        why: String,
    },
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Target {
    /// The name of the directory for what waits for it.
    pub(super) fn directory(&self) -> String {
        let readable = self.text.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' });
        let readable: String = readable.take(READABLE).collect();
        let (hash, ..) = Uuid::new_v5(&NAMES, self.text.as_bytes()).as_fields();
        format!("{readable}-{hash:08x}")
    }
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        if text == "stdout:" {
            return Ok(Self { text: text.to_owned(), kind: Kind::Stdout });
        }
        let unknown = || TargetError::Kind(text.split('@').next().unwrap_or_default().to_owned());
        let (scheme, rest) = text.split_once("://").ok_or_else(unknown)?;
        let authority = rest.split(['/', '?']).next().unwrap_or_default();
        if authority.contains('@') {
            return Err(TargetError::Credentials);
        }
        let parts = Parts::read(rest).map_err(|why| TargetError::Text { text: text.to_owned(), why })?;
        let read = match scheme {
            "syslog+unix" => parts.unix().map(Kind::Syslog),
            "syslog+udp" => parts.host(514).map(|host| Kind::Syslog(Place::Udp(host))),
            "syslog+tcp" => parts.host(601).map(|host| Kind::Syslog(Place::Tcp(host))),
            "syslog+tls" => parts.tls(6514).map(Kind::Syslog),
            "ipfix+udp" => parts.host(4739).map(|host| Kind::Ipfix(Place::Udp(host))),
            "ipfix+tcp" => parts.host(4739).map(|host| Kind::Ipfix(Place::Tcp(host))),
            "elasticsearch+http" | "opensearch+http" => parts.elasticsearch("http"),
            "elasticsearch+https" | "opensearch+https" => parts.elasticsearch("https"),
            "amqp" => parts.amqp(5672, false),
            "amqps" => parts.amqp(5671, true),
            "otlp+http" => parts.otlp("http"),
            "otlp+https" => parts.otlp("https"),
            _ => return Err(unknown()),
        };
        let kind = read.map_err(|why| TargetError::Text { text: text.to_owned(), why })?;
        Ok(Self { text: text.to_owned(), kind })
    }
}

/// What stands behind `://`.
#[derive(Default)]
struct Parts {
    host: String,
    port: Option<u16>,
    path: String,
    credentials: Option<String>,
    authorities: Option<String>,
    exchange: Option<String>,
}

impl Parts {
    fn read(rest: &str) -> Result<Self, String> {
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = place.split_at(place.find('/').unwrap_or(place.len()));
        let mut parts = Self { path: path.to_owned(), ..Self::default() };
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
            _ => (authority, None),
        };
        parts.host = host.to_owned();
        let read = |port: &str| port.parse().ok().filter(|port| *port > 0).ok_or_else(|| format!("{port} is no port"));
        parts.port = port.map(read).transpose()?;
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let slot = match name {
                "credentials" => &mut parts.credentials,
                "ca" => &mut parts.authorities,
                "exchange" => &mut parts.exchange,
                _ => return Err(format!("{name} is none of credentials, ca, exchange")),
            };
            if value.is_empty() || slot.replace(value.to_owned()).is_some() {
                return Err(format!("{name} has a value, once"));
            }
        }
        Ok(parts)
    }

    fn without(&self, what: &str, value: Option<&String>) -> Result<(), String> {
        value.map_or(Ok(()), |_| Err(format!("{what} is of no use there")))
    }

    fn unix(self) -> Result<Place, String> {
        self.without("credentials", self.credentials.as_ref())?;
        self.without("ca", self.authorities.as_ref())?;
        self.without("exchange", self.exchange.as_ref())?;
        if !self.host.is_empty() || self.path.len() < 2 {
            return Err("the socket's whole path stands behind three slashes, as syslog+unix:///dev/log".to_owned());
        }
        Ok(Place::Unix(self.path.into()))
    }

    fn named(&self) -> Result<&str, String> {
        let name = self.host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(&self.host);
        if name.is_empty() { Err("there is no host".to_owned()) } else { Ok(name) }
    }

    fn host(self, port: u16) -> Result<Host, String> {
        self.without("ca", self.authorities.as_ref())?;
        self.endpoint(port)
    }

    fn endpoint(&self, port: u16) -> Result<Host, String> {
        self.without("credentials", self.credentials.as_ref())?;
        self.without("exchange", self.exchange.as_ref())?;
        if !["", "/"].contains(&self.path.as_str()) {
            return Err(format!("the path {} is of no use there", self.path));
        }
        Ok(Host { name: self.named()?.to_owned(), port: self.port.unwrap_or(port) })
    }

    fn tls(mut self, port: u16) -> Result<Place, String> {
        let authorities = self.authorities.take();
        Ok(Place::Tls(self.endpoint(port)?, authorities))
    }

    fn web(self, scheme: &str, port: u16, path: &str) -> Result<Web, String> {
        self.named()?;
        self.without("exchange", self.exchange.as_ref())?;
        if scheme == "http" {
            self.without("ca", self.authorities.as_ref())?;
        }
        let url = format!("{scheme}://{}:{}{path}", self.host, self.port.unwrap_or(port));
        let url = url.parse().map_err(|error| format!("{url} is no URL: {error}"))?;
        Ok(Web { url, credentials: self.credentials, authorities: self.authorities })
    }

    /// The path's last part is the index, what stands before it that of Elasticsearch behind a proxy.
    fn elasticsearch(self, scheme: &str) -> Result<Kind, String> {
        let (before, index) = self.path.rsplit_once('/').unwrap_or(("", ""));
        let index = if index.is_empty() { INDEX } else { index }.to_owned();
        let is_meant = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c);
        if !index.chars().all(is_meant) || index.starts_with(['-', '_', '.']) {
            return Err(format!("{index} is no name of an index: small letters, digits, and - _ . behind the first"));
        }
        let path = format!("{before}/_bulk");
        Ok(Kind::Elasticsearch(self.web(scheme, 9200, &path)?, index))
    }

    fn amqp(mut self, port: u16, is_secure: bool) -> Result<Kind, String> {
        let host = self.path.strip_prefix('/').filter(|host| !host.is_empty()).unwrap_or("/").to_owned();
        let exchange = self.exchange.take().unwrap_or_else(|| EXCHANGE.to_owned());
        let credentials = self.credentials.take();
        self.path.clear();
        let place = if is_secure { self.tls(port)? } else { Place::Tcp(self.host(port)?) };
        Ok(Kind::Amqp(Broker { place, host, exchange, credentials }))
    }

    fn otlp(self, scheme: &str) -> Result<Kind, String> {
        let path = if ["", "/"].contains(&self.path.as_str()) { "/v1/logs".to_owned() } else { self.path.clone() };
        self.web(scheme, 4318, &path).map(Kind::Otlp)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(text: &str) -> Kind {
        text.parse::<Target>().unwrap().kind
    }

    fn host(name: &str, port: u16) -> Host {
        Host { name: name.to_owned(), port }
    }

    #[test]
    fn a_target_is_read_with_the_ports_and_paths_that_are_usual() {
        assert_eq!(kind("stdout:"), Kind::Stdout);
        assert_eq!(kind("syslog+unix:///dev/log"), Kind::Syslog(Place::Unix("/dev/log".into())));
        assert_eq!(kind("syslog+udp://[::1]"), Kind::Syslog(Place::Udp(host("::1", 514))));
        assert_eq!(kind("syslog+tcp://a.b:99/"), Kind::Syslog(Place::Tcp(host("a.b", 99))));
        let tls = Place::Tls(host("a", 6514), Some("/ca.pem".to_owned()));
        assert_eq!(kind("syslog+tls://a?ca=/ca.pem"), Kind::Syslog(tls));
        assert_eq!(kind("ipfix+tcp://a"), Kind::Ipfix(Place::Tcp(host("a", 4739))));
        let Kind::Elasticsearch(web, index) = kind("elasticsearch+https://a/proxy/flows?credentials=/c&ca=/ca.pem")
        else {
            panic!()
        };
        assert_eq!((web.url.to_string().as_str(), index.as_str()), ("https://a:9200/proxy/_bulk", "flows"));
        assert_eq!((web.credentials.as_deref(), web.authorities.as_deref()), (Some("/c"), Some("/ca.pem")));
        let Kind::Elasticsearch(web, index) = kind("opensearch+http://[::1]:80") else { panic!() };
        assert_eq!((web.url.to_string().as_str(), index.as_str()), ("http://[::1]:80/_bulk", INDEX));
        let broker = |text| if let Kind::Amqp(broker) = kind(text) { broker } else { panic!("{text}") };
        let named = broker("amqp://a/logs?exchange=flows&credentials=/c");
        assert_eq!(
            (named.place, named.host.as_str(), named.exchange.as_str()),
            (Place::Tcp(host("a", 5672)), "logs", "flows")
        );
        let named = broker("amqps://a/?ca=/f");
        assert_eq!((named.place, named.host.as_str()), (Place::Tls(host("a", 5671), Some("/f".to_owned())), "/"));
        let Kind::Otlp(web) = kind("otlp+http://a/") else { panic!() };
        assert_eq!(web.url, "http://a:4318/v1/logs");
        assert_eq!("otlp+http://a".parse::<Target>().unwrap().to_string(), "otlp+http://a");
    }

    #[test]
    fn what_is_wrong_with_a_target_is_named_and_no_password_is_told() {
        for (text, named) in [
            ("", "stdout:"),
            ("stdout", "stdout:"),
            ("kafka://a", "ipfix+tcp"),
            ("syslog+udp://", "no host"),
            ("syslog+udp://a:x", "x is no port"),
            ("syslog+udp://a:0", "0 is no port"),
            ("syslog+udp://a/path", "/path"),
            ("syslog+udp://a?ca=/f", "ca is of no use"),
            ("syslog+tcp://a?credentials=/f", "credentials is of no use"),
            ("syslog+unix://dev/log", "three slashes"),
            ("otlp+http://a?x=1", "x is none of"),
            ("otlp+https://a?ca=", "ca has a value"),
            ("otlp+http://a?ca=/f", "ca is of no use"),
            ("elasticsearch+http://a/Flows", "Flows is no name"),
        ] {
            let error = text.parse::<Target>().unwrap_err().to_string();
            assert!(error.contains(named), "{text}: {error}");
        }
        for text in ["otlp+https://user:secret@a", "syslog+tcp://user:secret@a:1", "user:x@secret"] {
            let error = text.parse::<Target>().unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn targets_have_directories_of_their_own() {
        let names = ["otlp+http://a", "otlp+http://a/", "otlp-http---a"].map(|text| {
            let target = Target { text: text.to_owned(), kind: Kind::Stdout };
            target.directory()
        });
        assert!(names[0].starts_with("otlp-http---a-") && names[0] != names[1] && names[1] != names[2], "{names:?}");
    }
}
