//! What can be wrong with a zone file.

use crate::{corefile::Place, name::BadName};

/// A zone file that cannot be loaded: the place, and what is wrong there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {fault}")]
pub struct ZoneFileError {
    /// Where.
    pub place: Place,
    /// What.
    pub fault: ZoneFault,
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ZoneFault {
    /// A word that is not what has to stand here.
    #[error("found {found:?} as {what}, allowed: {allowed}")]
    Value {
        /// The word.
        found: String,
        /// What it should be.
        what: &'static str,
        /// What may stand here.
        allowed: String,
    },
    /// A word that is no name.
    #[error("{found:?} is no name: {reason}")]
    Name {
        /// The word.
        found: String,
        /// Why.
        reason: BadName,
    },
    /// The record ends too early.
    #[error("the line ends here, needed: {needed}")]
    Missing {
        /// What has to follow.
        needed: String,
    },
    /// Words behind the end of a record.
    #[error(
        "found {found:?} behind the record's end; texts with spaces are written in quotes, comments begin with ';'"
    )]
    Extra {
        /// The first of them.
        found: String,
    },
    /// Data longer than a record holds.
    #[error("the record's data is longer than 65535 bytes; write several records")]
    TooLong,
    /// A parenthesis that is never closed.
    #[error("this '(' is never closed by a ')'")]
    OpenParenthesis,
    /// One that closes nothing.
    #[error("this ')' closes nothing; remove it, or quote it")]
    CloseParenthesis,
    /// A quotation that does not end on its line.
    #[error("this quotation does not end on its line; end it with '\"'")]
    Quote,
    /// A record that begins with space, and none before it.
    #[error(
        "a line that begins with space goes on with the owner of the record before it, and there is none; name the owner"
    )]
    NoOwner,
    /// No time to live is known.
    #[error("the record has no time to live; give it one, or write \"$TTL <seconds>\" above it")]
    NoTtl,
    /// A directive that does not exist.
    #[error("unknown directive {found:?}; known ones: $ORIGIN, $TTL, $INCLUDE, $GENERATE")]
    Directive {
        /// The word.
        found: String,
    },
    /// A file that cannot be read.
    #[error("cannot read {path:?}: {reason}")]
    Include {
        /// The file.
        path: String,
        /// What the system says.
        reason: String,
    },
    /// Files that contain each other.
    #[error("the files are nested more than {limit} deep: they include each other")]
    Depth {
        /// The limit.
        limit: usize,
    },
    /// A range that makes too many records.
    #[error("the range makes {found} records, allowed: up to {limit}")]
    Range {
        /// How many it makes.
        found: u64,
        /// The limit.
        limit: u64,
    },
    /// The zone that the records make is none.
    #[error("{0}")]
    Zone(crate::authority::Defect),
}
