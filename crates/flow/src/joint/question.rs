//! What agents ask each other about flows between their nodes, and what is answered.

use std::{net::SocketAddr, sync::Arc};

use jiff::{SignedDuration, Timestamp};
use podnet_model::NodeName;
use serde::{Deserialize, Serialize};

use crate::{
    entry::Transport,
    jsonl::{Reader, Written},
    record::{Key, Record},
};

/// So much is asked in one request at most.
pub const MOST_ASKED: usize = 256;

/// Some questions of one agent, sent together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inquiry {
    /// Whose agent asks.
    pub node: NodeName,
    /// What its clock says as it asks: times in questions are of that clock.
    pub now: Timestamp,
    /// At most [`MOST_ASKED`], each of which is answered in its place.
    pub questions: Vec<Question>,
    /// Who asks knows [`Answer::Limited`]. One of an earlier version does not, and could read none of the answers beside it.
    #[serde(default)]
    pub limits: bool,
}

impl Inquiry {
    /// As agents of this version ask.
    #[must_use]
    pub const fn new(node: NodeName, now: Timestamp, questions: Vec<Question>) -> Self {
        Self { node, now, questions, limits: true }
    }

    /// Reads JSON in a fraction of the time that [`Deserialize`] takes: who pods are, which is most of it, is read once for all questions.
    ///
    /// # Errors
    /// Where it is none.
    pub fn from_json(text: &[u8]) -> serde_json::Result<Self> {
        // What is refused is told by the other way.
        Self::of_flows(text).map_or_else(|| serde_json::from_slice(text), Ok)
    }

    fn of_flows(text: &[u8]) -> Option<Self> {
        let WrittenInquiry { node, now, questions, limits } = serde_json::from_slice(text).ok()?;
        let mut reader = Reader::default();
        let question = |question| match question {
            WrittenQuestion::Joins(written) => reader.record(*written).map(|record| Question::Joins(Arc::new(record))),
            WrittenQuestion::Came(sought) => Some(Question::Came(sought)),
        };
        let questions: Option<Vec<Question>> = questions.into_iter().map(question).collect();
        Some(Self { node, now, questions: questions?, limits })
    }

    /// A time of who asked as the clock has it that says `now` here: that of the way is added.
    pub(super) fn here(&self, at: Timestamp, now: Timestamp) -> Timestamp {
        let offset: SignedDuration = now.duration_since(self.now);
        at.saturating_add(offset).unwrap_or(at)
    }
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Question {
    /// The asking node counted this at the destination's end. Is it of a flow that the asked one tells, or whose does it come from?
    Joins(Arc<Record>),
    /// The asking node sent this, and nothing came back, or a refusal that nobody explains. Did any of it come to the asked one's pod?
    Came(Sought),
}

/// What [`Inquiry`] has, with pods as they stand there.
#[derive(Deserialize)]
struct WrittenInquiry<'a> {
    node: NodeName,
    now: Timestamp,
    #[serde(borrow)]
    questions: Vec<WrittenQuestion<'a>>,
    #[serde(default)]
    limits: bool,
}

/// What [`Question`] has.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum WrittenQuestion<'a> {
    #[serde(borrow)]
    Joins(Box<Written<'a>>),
    Came(Sought),
}

/// A flow that may not have come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sought {
    /// Who sent, as the destination would see it.
    pub source: SocketAddr,
    /// To whom.
    pub destination: SocketAddr,
    /// By which protocol.
    pub protocol: Transport,
    /// The uid of the pod that it was for.
    pub pod: Arc<str>,
    /// The first packet.
    pub start: Timestamp,
    /// The last one.
    pub end: Timestamp,
}

impl Sought {
    pub(super) const fn key(&self) -> Key {
        Key { source: self.source, destination: self.destination, transport: self.protocol }
    }
}

/// What is answered to one question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// It is in what the asked node tells of the flow.
    Taken,
    /// The asked node told the flow already, without it.
    Told,
    /// The asked node translated it: with these addresses and ports it came to there.
    Behind {
        /// Who began it.
        source: SocketAddr,
        /// Whom they asked.
        destination: SocketAddr,
    },
    /// Nothing is known of it.
    Unknown,
    /// The asked node does not know yet.
    Later,
    /// Something of it came to the pod.
    Came,
    /// Nothing came, though all is counted that does.
    Never,
    /// Nothing came: it was beyond a limit of the pod's. To who knows that ([`Inquiry::limits`]).
    Limited,
}

/// The answers, in the order of the questions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// One for each question.
    pub answers: Vec<Answer>,
}

/// Why there are no answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unanswered {
    /// The agent of that node is away, or has too much to do: it is asked again.
    Away,
    /// It does not answer such questions, or not to this one: it is of another version, records nothing, or refuses.
    Unable,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{record::Item, testing};

    #[test]
    fn what_is_asked_is_read_as_it_was_written_and_flows_of_one_pod_share_it() {
        let sought = Sought {
            source: "10.0.0.1:40000".parse().unwrap(),
            destination: "[fd00::2]:80".parse().unwrap(),
            protocol: Transport::TCP,
            pod: "uid-web".into(),
            start: Timestamp::UNIX_EPOCH,
            end: Timestamp::UNIX_EPOCH,
        };
        let joins = |sequence| match testing::flow(sequence).item {
            Item::Flow(record) => Question::Joins(record),
            item => panic!("{item:?}"),
        };
        let questions = vec![joins(1), Question::Came(sought), joins(2)];
        let inquiry = Inquiry::new("node2".into(), Timestamp::UNIX_EPOCH, questions);
        let text = serde_json::to_string(&inquiry).unwrap();
        let read = Inquiry::of_flows(text.as_bytes()).unwrap();
        assert_eq!((&read, &Inquiry::from_json(text.as_bytes()).unwrap()), (&inquiry, &inquiry));
        let [Question::Joins(one), _, Question::Joins(other)] = &read.questions[..] else { panic!("{read:?}") };
        let pods = [one, other].map(|record| record.source.pod.as_ref().unwrap());
        assert!(Arc::ptr_eq(pods[0], pods[1]));
        let earlier = text.replace(r#","limits":true"#, "");
        let of_earlier = Some(Inquiry { limits: false, ..inquiry.clone() });
        assert_eq!(Inquiry::of_flows(earlier.as_bytes()), of_earlier);
        assert_eq!(serde_json::from_str::<Inquiry>(&earlier).ok(), of_earlier);
        let unreadable = [text.replace(r#""uid":"#, r#""kid":"#), text.replace("came", "went"), text[..99].to_owned()];
        for text in unreadable {
            let error = serde_json::from_slice::<Inquiry>(text.as_bytes()).unwrap_err();
            assert_eq!(Inquiry::from_json(text.as_bytes()).unwrap_err().to_string(), error.to_string(), "{text}");
        }
    }
}
