//! Kafka, as far as who produces speaks it: what is asked of brokers, what they answer, and the batches that they keep.
//!
//! Names are those of the protocol guide (kafka.apache.org/protocol). Each request is of a version that all brokers from Kafka 1.0 to 4 take
//! (KIP-896 says which are left), and that has its lengths in whole numbers; so nothing has to be negotiated, and `ApiVersions` is asked only to say what
//! a broker lacks.

mod answer;
mod batch;
mod partition;

use std::fmt;

pub use self::{
    answer::{Answer, Authenticated, Topic, answer, authenticated, handshake, lacking, produced, topic},
    batch::{Gzip, batch},
    partition::partition,
};

/// By what brokers name who asks in their logs and quotas.
const CLIENT: &str = "podnet";
/// A text that is not there.
const NONE: i16 = -1;
/// Acknowledged by all replicas that are in sync.
const ALL: i16 = -1;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Api {
    /// To keep records.
    Produce,
    /// Who leads the partitions of a topic.
    Metadata,
    /// By which mechanism it is to be believed who asks.
    SaslHandshake,
    /// In which versions what may be asked.
    ApiVersions,
    /// The mechanism's own messages.
    SaslAuthenticate,
}

impl Api {
    const fn key(self) -> i16 {
        match self {
            Self::Produce => 0,
            Self::Metadata => 3,
            Self::SaslHandshake => 17,
            Self::ApiVersions => 18,
            Self::SaslAuthenticate => 36,
        }
    }

    const fn version(self) -> i16 {
        match self {
            Self::Produce => 3,
            Self::Metadata | Self::SaslHandshake => 1,
            Self::ApiVersions | Self::SaslAuthenticate => 0,
        }
    }
}

impl fmt::Display for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?} v{}", self.version())
    }
}

/// What a broker says of a request, or of a part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code(pub i16);

impl Code {
    /// Nothing is wrong.
    pub const NONE: Self = Self(0);
    /// It does not know the mechanism of SASL, and says which it does.
    pub const UNSUPPORTED_SASL_MECHANISM: Self = Self(33);

    const NAMED: [(Self, &'static str); 22] = [
        (Self(1), "OFFSET_OUT_OF_RANGE"),
        (Self(2), "CORRUPT_MESSAGE"),
        (Self(3), "UNKNOWN_TOPIC_OR_PARTITION"),
        (Self(5), "LEADER_NOT_AVAILABLE"),
        (Self(6), "NOT_LEADER_OR_FOLLOWER"),
        (Self(7), "REQUEST_TIMED_OUT"),
        (Self(8), "BROKER_NOT_AVAILABLE"),
        (Self(9), "REPLICA_NOT_AVAILABLE"),
        (Self(10), "MESSAGE_TOO_LARGE"),
        (Self(13), "NETWORK_EXCEPTION"),
        (Self(17), "INVALID_TOPIC_EXCEPTION"),
        (Self(18), "RECORD_LIST_TOO_LARGE"),
        (Self(19), "NOT_ENOUGH_REPLICAS"),
        (Self(20), "NOT_ENOUGH_REPLICAS_AFTER_APPEND"),
        (Self(29), "TOPIC_AUTHORIZATION_FAILED"),
        (Self(31), "CLUSTER_AUTHORIZATION_FAILED"),
        (Self(32), "INVALID_TIMESTAMP"),
        (Self::UNSUPPORTED_SASL_MECHANISM, "UNSUPPORTED_SASL_MECHANISM"),
        (Self(34), "ILLEGAL_SASL_STATE"),
        (Self(56), "KAFKA_STORAGE_ERROR"),
        (Self(58), "SASL_AUTHENTICATION_FAILED"),
        (Self(87), "INVALID_RECORD"),
    ];

    /// Somebody else leads the partition, or will soon: who does is to be asked again.
    #[must_use]
    pub const fn is_elsewhere(self) -> bool {
        matches!(self.0, 3 | 5 | 6 | 8 | 9 | 13 | 56)
    }

    /// The batch is not taken as it is: a smaller one may be.
    #[must_use]
    pub const fn is_unfit(self) -> bool {
        matches!(self.0, 10 | 18 | 32 | 87)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Self::NAMED.iter().find(|(code, _)| code == self) {
            Some((_, name)) => f.write_str(name),
            None => write!(f, "error {}", self.0),
        }
    }
}

/// A stream says what is not Kafka's protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the other side does not speak Kafka's protocol")]
pub struct NotKafka;

/// In which versions what may be asked; answered for [`lacking`].
#[must_use]
pub fn ask_versions(number: i32) -> Vec<u8> {
    request(Api::ApiVersions, number, &[])
}

/// Who leads the partitions of a topic; answered for [`topic`]. The broker makes the topic where it may and there is none.
#[must_use]
pub fn ask_topic(number: i32, topic: &str) -> Vec<u8> {
    let mut body = Vec::new();
    put_count(&mut body, 1);
    put_text(&mut body, topic);
    request(Api::Metadata, number, &body)
}

/// To keep a batch of each of these partitions of a topic, within that many milliseconds; answered for [`produced`] when all replicas that are in sync have
/// them.
#[must_use]
pub fn produce(number: i32, topic: &str, batches: &[(i32, Vec<u8>)], millis: i32) -> Vec<u8> {
    let mut body = Vec::new();
    // No transaction.
    body.extend(NONE.to_be_bytes());
    body.extend(ALL.to_be_bytes());
    body.extend(millis.to_be_bytes());
    put_count(&mut body, 1);
    put_text(&mut body, topic);
    put_count(&mut body, batches.len());
    for (partition, batch) in batches {
        body.extend(partition.to_be_bytes());
        put_count(&mut body, batch.len());
        body.extend_from_slice(batch);
    }
    request(Api::Produce, number, &body)
}

/// That this mechanism of SASL follows; answered for [`handshake`].
#[must_use]
pub fn ask_handshake(number: i32, mechanism: &str) -> Vec<u8> {
    let mut body = Vec::new();
    put_text(&mut body, mechanism);
    request(Api::SaslHandshake, number, &body)
}

/// A message of the mechanism; answered for [`authenticated`].
#[must_use]
pub fn ask_authenticate(number: i32, message: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    put_count(&mut body, message.len());
    body.extend_from_slice(message);
    request(Api::SaslAuthenticate, number, &body)
}

/// A request with its length before it, and the number that its answer will have.
fn request(api: Api, number: i32, body: &[u8]) -> Vec<u8> {
    let mut head = Vec::new();
    head.extend(api.key().to_be_bytes());
    head.extend(api.version().to_be_bytes());
    head.extend(number.to_be_bytes());
    put_text(&mut head, CLIENT);
    let mut bytes = Vec::new();
    put_count(&mut bytes, head.len() + body.len());
    [&bytes[..], &head, body].concat()
}

/// A text behind its length, of which topics (249) and names are far from the largest.
fn put_text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend(i16::try_from(text.len()).unwrap_or(0).to_be_bytes());
    bytes.extend_from_slice(text.as_bytes());
}

/// How much follows. Requests are batches of some hundred records.
fn put_count(bytes: &mut Vec<u8>, count: usize) {
    bytes.extend(i32::try_from(count).unwrap_or(0).to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_have_their_length_their_version_and_their_number_before_them() {
        assert_eq!(ask_versions(7), b"\0\0\0\x10\0\x12\0\0\0\0\0\x07\0\x06podnet");
        assert_eq!(ask_topic(8, "flows"), b"\0\0\0\x1b\0\x03\0\x01\0\0\0\x08\0\x06podnet\0\0\0\x01\0\x05flows");
        assert_eq!(ask_handshake(9, "PLAIN"), b"\0\0\0\x17\0\x11\0\x01\0\0\0\x09\0\x06podnet\0\x05PLAIN");
        assert_eq!(ask_authenticate(10, b"\0u\0p"), b"\0\0\0\x18\0\x24\0\0\0\0\0\x0a\0\x06podnet\0\0\0\x04\0u\0p");
        assert_eq!(
            produce(11, "flows", &[(0, b"first".to_vec()), (3, b"last".to_vec())], 5000),
            [
                &b"\0\0\0\x40\0\0\0\x03\0\0\0\x0b\0\x06podnet\xff\xff\xff\xff\0\0\x13\x88"[..],
                b"\0\0\0\x01\0\x05flows\0\0\0\x02\0\0\0\0\0\0\0\x05first\0\0\0\x03\0\0\0\x04last",
            ]
            .concat()
        );
    }

    #[test]
    fn what_a_broker_says_is_called_by_its_name_and_its_remedy_is_known() {
        assert_eq!([Code(6).to_string(), Code(999).to_string()], ["NOT_LEADER_OR_FOLLOWER", "error 999"]);
        assert!(Code(6).is_elsewhere() && !Code(6).is_unfit());
        assert!(Code(10).is_unfit() && !Code(10).is_elsewhere());
        assert!(!Code(19).is_unfit() && !Code(19).is_elsewhere() && !Code::NONE.is_elsewhere());
        assert_eq!(Api::Produce.to_string(), "Produce v3");
    }
}
