//! What collectors are called: `KIND+TRANSPORT://HOST[:PORT][/PATH][?NAME=VALUE…]`.

mod parts;

use std::{fmt, path::PathBuf, str::FromStr, time::Duration};

use axum::http::Uri;
use uuid::Uuid;

use self::parts::Parts;

/// What Targets' directories are named in.
const NAMES: Uuid = Uuid::from_u128(0x2d8b_61f0_93c4_4e0a_b6f7_58c1_0ad9_7e25);
/// How much of a target is in its directory's name, for people.
const READABLE: usize = 60;
/// The index where none is named.
const INDEX: &str = "podnet-flows";
/// The exchange where none is named, and the topic.
const EXCHANGE: &str = "podnet.flows";
/// Where buckets are that nobody says the region of.
const REGION: &str = "us-east-1";
/// What a directory of files may have where nobody says how much, and the least that may be said.
const BYTES: u64 = 1 << 30;
const FEWEST_BYTES: u64 = 1 << 16;
/// How long items are put together for a file where nobody says how long, and the longest that may be said.
const SECONDS: u64 = 60;
const MOST_SECONDS: u64 = 3600;
const KINDS: &str = "stdout:, syslog+udp://HOST, syslog+tcp://HOST, syslog+tls://HOST, syslog+unix:///PATH, ipfix+tcp://HOST, ipfix+udp://HOST, \
                     elasticsearch+https://HOST/INDEX, opensearch+https://HOST/INDEX (http as well), otlp+https://HOST (http as well), \
                     amqps://HOST/VHOST?exchange=NAME (amqp as well), kafka+tls://HOST,HOST/TOPIC?compression=gzip (kafka as well), parquet:///DIRECTORY, \
                     s3+https://HOST/BUCKET/PREFIX?region=REGION (http as well)";

/// The agent's own output, which has nothing of a URL but what stands behind `?`.
const STDOUT: &str = "stdout:";
/// Behind `?`, for any of them: where records wait.
const BUFFER: &str = "buffer";

/// What a family of schemes is before `+`, the feature that it is built in with, and whether it is.
type Family = (&'static str, &'static str, bool);

/// All families that are not always there.
const FAMILIES: [Family; 10] = [
    ("amqp", "amqp", cfg!(feature = "amqp")),
    ("amqps", "amqp", cfg!(feature = "amqp")),
    ("elasticsearch", "elasticsearch", cfg!(feature = "elasticsearch")),
    ("opensearch", "elasticsearch", cfg!(feature = "elasticsearch")),
    ("ipfix", "ipfix", cfg!(feature = "ipfix")),
    ("kafka", "kafka", cfg!(feature = "kafka")),
    ("otlp", "otlp", cfg!(feature = "otlp")),
    ("parquet", "parquet", cfg!(feature = "parquet")),
    ("s3", "parquet", cfg!(feature = "parquet")),
    ("syslog", "syslog", cfg!(feature = "syslog")),
];

/// A collector, as it was named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    text: String,
    /// What is sent there is on disk before, and not only where it cannot be sent.
    pub(super) waits_on_disk: bool,
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
    Kafka(Brokers),
    Parquet(Files),
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

/// Where something is produced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Brokers {
    /// Who is asked first whom there is: one at least.
    pub(super) hosts: Vec<Host>,
    /// TLS is spoken with all of them.
    pub(super) is_secure: bool,
    /// A file of authorities for that.
    pub(super) authorities: Option<String>,
    pub(super) topic: String,
    /// Batches are compressed by gzip.
    pub(super) is_compressed: bool,
    /// The file with them.
    pub(super) credentials: Option<String>,
}

#[cfg(feature = "kafka")]
impl Brokers {
    /// One of them.
    pub(super) fn place(&self, host: Host) -> Place {
        if self.is_secure { Place::Tls(host, self.authorities.clone()) } else { Place::Tcp(host) }
    }
}

/// Where files are put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Files {
    pub(super) shelf: Shelf,
    /// How long items are put together for one.
    pub(super) time: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Shelf {
    /// With the bytes that all files of a node may have there together.
    Directory(PathBuf, u64),
    /// Of S3, with its region: files are put below the URL.
    Bucket(Web, String),
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
    /// It is of a kind that this program was built without.
    #[error("this podnet was built without {family}: install it with make install WITH=podnet-cli/{feature}")]
    Feature {
        /// What it begins with.
        family: &'static str,
        /// What it has to be built with.
        feature: &'static str,
    },
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
        let place = self.place();
        let readable = place.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' });
        let readable: String = readable.take(READABLE).collect();
        format!("{readable}-{}", self.mark())
    }

    /// What stands for it where anybody may read it: of all who send to it the same.
    pub(super) fn mark(&self) -> String {
        let (hash, ..) = Uuid::new_v5(&NAMES, self.place().as_bytes()).as_fields();
        format!("{hash:08x}")
    }

    /// What was named, without how records wait for it: who says that anew still has what waits there, and records to the same place as others do.
    fn place(&self) -> String {
        let Some((place, query)) = self.text.split_once('?') else { return self.text.clone() };
        let of_place: Vec<&str> = query.split('&').filter(|pair| pair.split('=').next() != Some(BUFFER)).collect();
        if of_place.is_empty() { place.to_owned() } else { format!("{place}?{}", of_place.join("&")) }
    }
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let unknown = || TargetError::Kind(text.split('@').next().unwrap_or_default().to_owned());
        let wrong = |why| TargetError::Text { text: text.to_owned(), why };
        let own = text.strip_prefix(STDOUT).filter(|rest| rest.is_empty() || rest.starts_with('?'));
        let named = own.map(|rest| (STDOUT, rest)).or_else(|| text.split_once("://"));
        let (scheme, rest) = named.ok_or_else(unknown)?;
        let authority = rest.split(['/', '?']).next().unwrap_or_default();
        if authority.contains('@') {
            return Err(TargetError::Credentials);
        }
        let mut parts = Parts::read(rest).map_err(wrong)?;
        let waits_on_disk = parts.waits_on_disk().map_err(wrong)?;
        let kind = kind(scheme, parts).ok_or_else(unknown)?.map_err(wrong)?;
        built_in(scheme, &FAMILIES)?;
        Ok(Self { text: text.to_owned(), waits_on_disk, kind })
    }
}

/// What a scheme and what stands behind it mean. None where there is no such scheme.
fn kind(scheme: &str, parts: Parts) -> Option<Result<Kind, String>> {
    Some(match scheme {
        STDOUT => parts.stdout(),
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
        "kafka" => parts.kafka(9092, false),
        "kafka+tls" => parts.kafka(9093, true),
        "otlp+http" => parts.otlp("http"),
        "otlp+https" => parts.otlp("https"),
        "parquet" => parts.parquet(),
        "s3+http" => parts.s3("http"),
        "s3+https" => parts.s3("https"),
        _ => return None,
    })
}

/// That a scheme's family is one of those that this program was built with.
fn built_in(scheme: &str, families: &[Family]) -> Result<(), TargetError> {
    let own = scheme.split('+').next().unwrap_or_default();
    match families.iter().find(|(family, ..)| *family == own) {
        Some(&(family, feature, false)) => Err(TargetError::Feature { family, feature }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
