//! Items in the forms that collectors take.
//!
//! Each form says the same id of an item that is sent again, so that it is known again: as a document's `_id` in Elasticsearch, as an attribute in
//! OTLP, as a message's id in AMQP, in the text of syslog, as a digest in IPFIX.

pub mod amqp;
pub mod bulk;
pub mod ipfix;
pub mod kafka;
pub mod otlp;
#[cfg(feature = "parquet")]
pub mod parquet;
pub mod syslog;

use jiff::Timestamp;

use crate::{
    numbered::Numbered,
    record::{End, Item},
};

/// What a collector said to items that it got.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// How many of them it will never take.
    pub refused: u64,
    /// Why the first of these; where some are to be sent again, why the first of those.
    pub why: Option<String>,
    /// It does not take some at the moment: all are to be sent again.
    pub again: bool,
}

/// One item as a line of JSON, without its end, as it is also read again.
#[must_use]
pub fn json(item: &Numbered) -> String {
    // Nothing in it can fail to be JSON.
    serde_json::to_string(item).unwrap_or_default()
}

/// Parts of a second beyond the millionth are more than syslog (RFC 5424, section 6.2.3) has places for.
fn micros(at: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(at.as_microsecond()).unwrap_or(at)
}

/// What an end is called: `namespace/name` of a pod, a node's name, nothing where it is outside.
fn name(end: &End) -> String {
    let pod = end.pod.as_ref().map(|pod| format!("{}/{}", pod.namespace, pod.name));
    pod.or_else(|| end.node.as_ref().map(ToString::to_string)).unwrap_or_default()
}

/// A sentence for people.
fn sentence(item: &Item) -> String {
    crate::output::line(crate::output::Form::Compact, item)
}
