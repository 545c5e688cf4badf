//! What stands behind `://`, part by part.

use std::{ops::RangeInclusive, time::Duration};

use super::{
    BUFFER, BYTES, Broker, Brokers, EXCHANGE, FEWEST_BYTES, Files, Host, INDEX, Kind, MOST_SECONDS, Place, REGION,
    SECONDS, Shelf, Web,
};

/// What may stand behind `?`.
const NAMES: [&str; 8] = ["credentials", "ca", "exchange", "region", "bytes", "seconds", "compression", BUFFER];
/// The longest name of a topic (Kafka, `Topic.MAX_NAME_LENGTH`).
const LONGEST_TOPIC: usize = 249;

/// Each of them takes what it has a use for; that something is left is an error.
#[derive(Default)]
pub(super) struct Parts {
    authority: String,
    path: String,
    values: Vec<(&'static str, String)>,
}

impl Parts {
    pub(super) fn read(rest: &str) -> Result<Self, String> {
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = place.split_at(place.find('/').unwrap_or(place.len()));
        let mut parts = Self { authority: authority.to_owned(), path: path.to_owned(), values: Vec::new() };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let known = NAMES.into_iter().find(|known| *known == name);
            let known = known.ok_or_else(|| format!("{name} is none of {}", NAMES.join(", ")))?;
            if value.is_empty() || parts.values.iter().any(|(name, _)| *name == known) {
                return Err(format!("{name} has a value, once"));
            }
            parts.values.push((known, value.to_owned()));
        }
        Ok(parts)
    }

    fn take(&mut self, name: &str) -> Option<String> {
        let at = self.values.iter().position(|(known, _)| *known == name)?;
        Some(self.values.remove(at).1)
    }

    fn number(&mut self, name: &str, otherwise: u64, meant: RangeInclusive<u64>) -> Result<u64, String> {
        let Some(text) = self.take(name) else { return Ok(otherwise) };
        let number = text.parse::<u64>().ok().filter(|number| meant.contains(number));
        number.ok_or_else(|| format!("{name} is a number from {} to {}, and not {text}", meant.start(), meant.end()))
    }

    /// Whether records are on disk before they are sent.
    pub(super) fn waits_on_disk(&mut self) -> Result<bool, String> {
        match self.take(BUFFER).as_deref() {
            None => Ok(false),
            Some("disk") => Ok(true),
            Some(other) => Err(format!("{BUFFER} is disk, and not {other}; leave it out for what is usual")),
        }
    }

    fn nothing_is_left(&self) -> Result<(), String> {
        self.values.first().map_or(Ok(()), |(name, _)| Err(format!("{name} is of no use there")))
    }

    /// The path of a file or directory of this machine.
    fn local(&self, what: &str) -> Result<&str, String> {
        if !self.authority.is_empty() || self.path.len() < 2 {
            return Err(what.to_owned());
        }
        Ok(&self.path)
    }

    fn one(&self, port: u16) -> Result<Host, String> {
        if self.authority.contains(',') {
            return Err("there is one host".to_owned());
        }
        endpoint(&self.authority, port)
    }

    fn has_no_path(&self) -> Result<(), String> {
        match self.path.as_str() {
            "" | "/" => Ok(()),
            path => Err(format!("the path {path} is of no use there")),
        }
    }

    pub(super) fn stdout(self) -> Result<Kind, String> {
        self.nothing_is_left()?;
        self.has_no_path()?;
        if self.authority.is_empty() { Ok(Kind::Stdout) } else { Err("it has no host".to_owned()) }
    }

    pub(super) fn unix(self) -> Result<Place, String> {
        self.nothing_is_left()?;
        let path = self.local("the socket's whole path stands behind three slashes, as syslog+unix:///dev/log")?;
        Ok(Place::Unix(path.into()))
    }

    pub(super) fn host(self, port: u16) -> Result<Host, String> {
        self.nothing_is_left()?;
        self.has_no_path()?;
        self.one(port)
    }

    pub(super) fn tls(mut self, port: u16) -> Result<Place, String> {
        let authorities = self.take("ca");
        Ok(Place::Tls(self.host(port)?, authorities))
    }

    fn web(mut self, scheme: &str, port: u16, path: &str) -> Result<Web, String> {
        let Host { name, port } = self.one(port)?;
        let credentials = self.take("credentials");
        let authorities = if scheme == "https" { self.take("ca") } else { None };
        self.nothing_is_left()?;
        let name = if name.contains(':') { format!("[{name}]") } else { name };
        let url = format!("{scheme}://{name}:{port}{path}");
        let url = url.parse().map_err(|error| format!("{url} is no URL: {error}"))?;
        Ok(Web { url, credentials, authorities })
    }

    /// The path's last part is the index, what stands before it that of Elasticsearch behind a proxy.
    pub(super) fn elasticsearch(self, scheme: &str) -> Result<Kind, String> {
        let (before, index) = self.path.rsplit_once('/').unwrap_or(("", ""));
        let index = if index.is_empty() { INDEX } else { index }.to_owned();
        let is_meant = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c);
        if !index.chars().all(is_meant) || index.starts_with(['-', '_', '.']) {
            return Err(format!("{index} is no name of an index: small letters, digits, and - _ . behind the first"));
        }
        let path = format!("{before}/_bulk");
        Ok(Kind::Elasticsearch(self.web(scheme, 9200, &path)?, index))
    }

    pub(super) fn amqp(mut self, port: u16, is_secure: bool) -> Result<Kind, String> {
        let host = self.path.strip_prefix('/').filter(|host| !host.is_empty()).unwrap_or("/").to_owned();
        let exchange = self.take("exchange").unwrap_or_else(|| EXCHANGE.to_owned());
        let credentials = self.take("credentials");
        self.path.clear();
        let place = if is_secure { self.tls(port)? } else { Place::Tcp(self.host(port)?) };
        Ok(Kind::Amqp(Broker { place, host, exchange, credentials }))
    }

    /// Several hosts have commas between them; the path is the topic.
    pub(super) fn kafka(mut self, port: u16, is_secure: bool) -> Result<Kind, String> {
        let hosts = self.authority.split(',').map(|host| endpoint(host, port)).collect::<Result<Vec<_>, _>>()?;
        let topic = self.path.trim_start_matches('/');
        let topic = if topic.is_empty() { EXCHANGE } else { topic }.to_owned();
        let is_meant = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if !topic.chars().all(is_meant) || topic.len() > LONGEST_TOPIC || [".", ".."].contains(&topic.as_str()) {
            return Err(format!("{topic} is no name of a topic: letters, digits, - _ . and 249 of them at most"));
        }
        let credentials = self.take("credentials");
        let is_compressed = match self.take("compression").as_deref() {
            None | Some("none") => false,
            Some("gzip") => true,
            Some(other) => return Err(format!("compression is gzip or none, and not {other}")),
        };
        let authorities = if is_secure { self.take("ca") } else { None };
        self.nothing_is_left()?;
        Ok(Kind::Kafka(Brokers { hosts, is_secure, authorities, topic, is_compressed, credentials }))
    }

    pub(super) fn otlp(self, scheme: &str) -> Result<Kind, String> {
        let path = if ["", "/"].contains(&self.path.as_str()) { "/v1/logs".to_owned() } else { self.path.clone() };
        self.web(scheme, 4318, &path).map(Kind::Otlp)
    }

    fn seconds(&mut self) -> Result<Duration, String> {
        self.number("seconds", SECONDS, 1..=MOST_SECONDS).map(Duration::from_secs)
    }

    pub(super) fn parquet(mut self) -> Result<Kind, String> {
        let time = self.seconds()?;
        let bytes = self.number("bytes", BYTES, FEWEST_BYTES..=u64::MAX)?;
        self.nothing_is_left()?;
        let path = self.local("the directory's whole path stands behind three slashes, as parquet:///var/log/flows")?;
        Ok(Kind::Parquet(Files { shelf: Shelf::Directory(path.into(), bytes), time }))
    }

    /// Whether the bucket is the path's first part or the host's is the server's affair.
    pub(super) fn s3(mut self, scheme: &str) -> Result<Kind, String> {
        let time = self.seconds()?;
        let region = self.take("region").unwrap_or_else(|| REGION.to_owned());
        if !region.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)) {
            return Err(format!("{region} is no name of a region: letters, digits, and - _ ."));
        }
        let path = self.path.trim_end_matches('/').to_owned();
        // Of anything else it is not certain what is signed.
        let is_meant = |c: char| c.is_ascii_alphanumeric() || "-_.~/".contains(c);
        if !path.chars().all(is_meant) || path.contains("//") {
            return Err(format!("{path} is no path of files: letters, digits, - _ . ~ and single slashes"));
        }
        let port = if scheme == "https" { 443 } else { 80 };
        Ok(Kind::Parquet(Files { shelf: Shelf::Bucket(self.web(scheme, port, &path)?, region), time }))
    }
}

/// A host, of IPv6 in brackets, and what stands behind its colon.
fn endpoint(text: &str, port: u16) -> Result<Host, String> {
    let (name, own) = match text.rsplit_once(':') {
        Some((name, own)) if !own.ends_with(']') => (name, Some(own)),
        _ => (text, None),
    };
    let port = match own {
        Some(own) => own.parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(|| format!("{own} is no port"))?,
        None => port,
    };
    let name = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    if name.is_empty() {
        return Err("there is no host".to_owned());
    }
    Ok(Host { name: name.to_owned(), port })
}
