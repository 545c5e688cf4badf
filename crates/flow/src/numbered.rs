//! What tells items apart, however often they come: those who sent them again, and those who were sent to.

use std::{fmt, str::FromStr, sync::Arc};

use jiff::Timestamp;
use podnet_model::NodeName;
use serde::{Deserialize, Serialize};

use crate::record::{Drops, Gap, Item, Record};

/// Which item of which recording it is. Written as `node/epoch/sequence`; that items are missing, behind them all, as `node/epoch/sequence/missing`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct RecordId {
    /// The node that tells it.
    pub node: NodeName,
    /// When its agent began to record, in microseconds since 1970.
    pub epoch: u64,
    /// Counts up from 0 over all that this recording told, to whomever.
    pub sequence: u64,
    /// It is no item of the recording: it says that this one and others before it are missing.
    pub missing: bool,
}

impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let behind = if self.missing { "/missing" } else { "" };
        write!(f, "{}/{}/{}{behind}", self.node, self.epoch, self.sequence)
    }
}

impl From<RecordId> for String {
    fn from(id: RecordId) -> Self {
        id.to_string()
    }
}

impl RecordId {
    /// The id in a line of JSON, of which nothing else is read: who does not know such items goes on behind it.
    ///
    /// # Errors
    /// Where there is none.
    pub fn from_json(line: &str) -> serde_json::Result<Self> {
        #[derive(Deserialize)]
        struct Id {
            record: RecordId,
        }
        serde_json::from_str(line).map(|Id { record }| record)
    }

    /// When its recording began; none where that is no time.
    #[must_use]
    pub fn began(&self) -> Option<Timestamp> {
        Timestamp::from_microsecond(i64::try_from(self.epoch).ok()?).ok()
    }
}

/// A text is no id of a record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no id of a record, as node1/1760000000000000/17")]
pub struct NoRecordId(String);

impl FromStr for RecordId {
    type Err = NoRecordId;

    fn from_str(text: &str) -> Result<Self, NoRecordId> {
        let read = || {
            let mut parts = text.split('/');
            let node = parts.next().filter(|node| !node.is_empty())?.into();
            let (epoch, sequence) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
            match (parts.next(), parts.next()) {
                (None, _) => Some(Self { node, epoch, sequence, missing: false }),
                (Some("missing"), None) => Some(Self { node, epoch, sequence, missing: true }),
                _ => None,
            }
        };
        read().ok_or_else(|| NoRecordId(text.to_owned()))
    }
}

impl TryFrom<String> for RecordId {
    type Error = NoRecordId;

    fn try_from(text: String) -> Result<Self, NoRecordId> {
        text.parse()
    }
}

/// An item with its id. The same item has the same id as often as it is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Numbered {
    /// What tells it from others.
    pub record: RecordId,
    /// What is told.
    #[serde(flatten)]
    pub item: Item,
}

/// What is said ahead of items, in a line of JSON of its own, and is none of them: who does not know it goes on behind it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Ahead {
    /// The recording began later than what is asked of it, or than another one that was heard before, and does not go on directly with that.
    Begun {
        /// Which one it is ([`RecordId::began`]): no item has this id.
        record: RecordId,
    },
}

impl Ahead {
    /// As a line, without its end.
    #[must_use]
    pub fn json(&self) -> String {
        // Nothing in it can fail to be JSON.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads such a line; none where it is another one.
    #[must_use]
    pub fn from_json(line: &str) -> Option<Self> {
        serde_json::from_str(line).ok()
    }
}

/// What stands beside an item's own values.
#[derive(Deserialize)]
struct Head {
    record: RecordId,
    #[serde(rename = "type")]
    kind: Kind,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Flow,
    Gap,
    Drops,
}

impl Numbered {
    /// Reads a line of JSON ([`crate::export::json`]), in a fraction of the time that [`Deserialize`] takes: that has to keep all values until it
    /// knows what they are of.
    ///
    /// # Errors
    /// Where it is none.
    pub fn from_json(line: &str) -> serde_json::Result<Self> {
        let Head { record, kind } = serde_json::from_str(line)?;
        let item = match kind {
            Kind::Flow => Item::Flow(Arc::new(serde_json::from_str::<Record>(line)?)),
            Kind::Gap => Item::Gap(serde_json::from_str::<Gap>(line)?),
            Kind::Drops => Item::Drops(serde_json::from_str::<Drops>(line)?),
        };
        Ok(Self { record, item })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{drops, flow, flow_v6, gap};

    #[test]
    fn when_a_recording_began_is_in_its_ids_and_said_ahead_in_a_line_that_is_no_item() {
        let record: RecordId = "node1/1500000/0".parse().unwrap();
        assert_eq!(record.began().unwrap().as_millisecond(), 1500);
        assert_eq!(RecordId { epoch: u64::MAX, ..record.clone() }.began(), None);
        let ahead = Ahead::Begun { record: record.clone() };
        let line = ahead.json();
        assert_eq!(line, r#"{"type":"begun","record":"node1/1500000/0"}"#);
        assert_eq!((Ahead::from_json(&line), RecordId::from_json(&line).unwrap()), (Some(ahead), record));
        assert!(Numbered::from_json(&line).is_err());
        assert_eq!(Ahead::from_json(&crate::export::json(&gap(1))), None);
    }

    #[test]
    fn an_id_is_read_as_it_is_written() {
        for text in ["node1/1760000000000000/17", "a.b/0/0/missing"] {
            assert_eq!(text.parse::<RecordId>().unwrap().to_string(), text);
        }
        for wrong in
            ["", "/1/2", "node1", "node1/1", "node1/1/x", "node1/1/2/gone", "node1/1/2/missing/3", "node1/-1/2"]
        {
            assert_eq!(wrong.parse::<RecordId>(), Err(NoRecordId(wrong.to_owned())));
        }
    }

    #[test]
    fn items_come_back_with_their_ids() {
        for item in [flow(7), flow_v6(7), gap(7), drops(7)] {
            let text = serde_json::to_string(&item).unwrap();
            let head = format!(r#"{{"record":"node1/1/7","type":"{}","#, item.item.kind());
            assert!(text.starts_with(&head), "{text}");
            assert_eq!(serde_json::from_str::<Numbered>(&text).unwrap(), item);
            assert_eq!(Numbered::from_json(&text).unwrap(), item);
            let unknown = text.replace("type", "kind");
            assert!(Numbered::from_json(&unknown).is_err());
            assert_eq!(RecordId::from_json(&unknown).unwrap(), item.record);
            assert!(RecordId::from_json(&text.replace("record", "number")).is_err());
            // Who does not know of ids reads the item alone.
            assert_eq!(serde_json::from_str::<Item>(&text).unwrap(), item.item);
        }
    }
}
