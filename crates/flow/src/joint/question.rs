//! What agents ask each other about flows between their nodes, and what is answered.

use std::{net::SocketAddr, sync::Arc};

use jiff::{SignedDuration, Timestamp};
use podnet_model::NodeName;
use serde::{Deserialize, Serialize};

use crate::{
    entry::Transport,
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
}

impl Inquiry {
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
    /// The asking node sent this, and nothing came back. Did any of it come to the asked one's pod?
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
