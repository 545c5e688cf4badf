//! What an agent tells of its node, and how that is written.

use std::io;

use podnet_model::PodKey;
use podnet_planner::trace::Facts;
use serde::{Deserialize, Serialize};

use super::Snapshot;

/// What is told of one node at most, in bytes.
pub const MOST_BYTES: usize = 64 << 20;
/// So many pods of a node are told of at once at most: their names, however long these are, find room in a request to an agent (16 KiB).
pub const MOST_PODS: usize = 32;
/// The form that is written and read here: another number for each that older programs would misunderstand.
const VERSION: u32 = 5;
/// Of the numbers that are told as registers have them.
const ORDER: &str = if cfg!(target_endian = "big") { "big" } else { "little" };

/// A node, as its agent tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Told {
    /// What the objects of the cluster do not tell of it.
    pub facts: Facts,
    /// Its agent has a kube-proxy configuration of its own, and not the cluster's.
    pub is_configured_alone: bool,
    /// What its kernel has.
    pub kernel: Snapshot,
    /// What is inside of its pods that were asked for (see [`Snapshot::inside`]), or why that is not known. Older programs neither ask for any nor
    /// tell of any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pods: Vec<(PodKey, Result<Snapshot, String>)>,
}

/// Why it cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum Unwritable {
    /// There is too much.
    #[error("the node has more than can be told of it: {most} bytes")]
    TooMuch {
        /// So many bytes are told at most.
        most: usize,
    },
    /// Something has no form to be written in.
    #[error("what the node has cannot be written")]
    Form(#[source] serde_json::Error),
}

/// Why what was told is not understood.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// It is of another version.
    #[error(
        "it is told in form {found}, and form {VERSION} is understood here: take the podnet of the agents' version"
    )]
    Version {
        /// The form.
        found: u32,
    },
    /// It is of a machine whose numbers are the other way round.
    #[error(
        "it is told in {found}-endian numbers, and here they are {ORDER}-endian: ask from a machine of the node's kind"
    )]
    Order {
        /// That of the node.
        found: String,
    },
    /// It is not what agents tell.
    #[error("it cannot be read")]
    Form(#[from] serde_json::Error),
}

/// What is looked at first.
#[derive(Deserialize)]
struct Head {
    version: u32,
    order: String,
}

#[derive(Deserialize)]
struct Body {
    node: Told,
}

impl Told {
    /// As JSON, in so many bytes at most.
    ///
    /// # Errors
    /// Where it is more.
    pub fn write(&self, most: usize) -> Result<Vec<u8>, Unwritable> {
        #[derive(Serialize)]
        struct Whole<'a> {
            version: u32,
            order: &'static str,
            node: &'a Told,
        }
        let mut text = Bounded { text: Vec::new(), most };
        match serde_json::to_writer(&mut text, &Whole { version: VERSION, order: ORDER, node: self }) {
            Ok(()) => Ok(text.text),
            Err(error) if error.is_io() => Err(Unwritable::TooMuch { most }),
            Err(error) => Err(Unwritable::Form(error)),
        }
    }

    /// What was written.
    ///
    /// # Errors
    /// Where it is of another form.
    pub fn read(text: &[u8]) -> Result<Self, Unreadable> {
        let Head { version, order } = serde_json::from_slice(text)?;
        if version != VERSION {
            return Err(Unreadable::Version { found: version });
        }
        if order != ORDER {
            return Err(Unreadable::Order { found: order });
        }
        Ok(serde_json::from_slice::<Body>(text)?.node)
    }
}

/// Takes so many bytes.
struct Bounded {
    text: Vec<u8>,
    most: usize,
}

impl io::Write for Bounded {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        if piece.len() > self.most - self.text.len() {
            return Err(io::Error::other("there is no room for more"));
        }
        self.text.extend_from_slice(piece);
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
