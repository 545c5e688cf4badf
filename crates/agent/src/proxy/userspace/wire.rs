//! How an agent and the program that passes on for it talk: requests and replies over a unix socket.
//!
//! A frame is four bytes of length (little endian) and that many bytes of JSON. Work that is more than a frame holds comes in pieces, of which
//! the request behind the last one says what they are for; that request alone is answered. Who connects says first what it wants and which
//! version it is; what else is said is understood by the same version alone, but for [`Request::Retire`].

use std::{
    io::{self, Read, Write},
    net::IpAddr,
};

use podnet_model::ServiceKey;
use podnet_planner::{
    ruleset::FrontendKey,
    services::userspace::{Front, Guard, Work},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    passed::{News, Since},
    program::Remains,
};

/// The version of what is said, and of who says it: a program is not older than its agent.
pub(super) const VERSION: &str = concat!("3 of podnet ", env!("CARGO_PKG_VERSION"));
/// The largest frame: a piece of work is smaller, and so is the list of all connections that there may be.
const LARGEST: usize = 32 << 20;
/// A piece has so many backends and ranges at most, of about 100 bytes each, or one frontend.
const PIECE: usize = 50_000;
/// As much of what is in [`PIECE`] an agent may say before it says what it is for.
const MOST: usize = 20_000_000;

/// What an agent says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Request {
    /// First: what for, and who.
    Hello {
        /// What the connection is for.
        purpose: Purpose,
        /// The agent's [`VERSION`].
        version: String,
    },
    /// The agent is another version, and another program is about to take the place: nothing is listened at any more, and connections go on.
    Retire,
    /// A piece of work; it is not answered.
    Piece(Work),
    /// Serve exactly what the pieces are, which may be none.
    Be {
        /// What the node's own connections to Services come from.
        source: Option<IpAddr>,
    },
    /// Do what the pieces are.
    Follow,
    /// Try what could not be listened at, and look whether all is there.
    Look,
    /// Another mode serves: close what listens, after a while, and end with the last connection. Where that is closed, as from the second time
    /// on, nothing more leads to addresses without connections.
    Leave,
    /// What is there of what another agent had served, or left?
    Remaining,
    /// Where is it listened at still, after the mode was left?
    Left,
    /// Listen there no more.
    Close(Vec<FrontendKey>),
    /// Which connections are passed on, since then?
    Passed(Since),
}

/// What a connection to the program is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Purpose {
    /// The Services of IPv4: one agent's at a time, the latest one's.
    ServeV4,
    /// Those of IPv6.
    ServeV6,
    /// To know which connections are passed on.
    Know,
}

/// What the program answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Reply {
    /// To [`Request::Hello`]: who it is.
    Here {
        /// Its [`VERSION`].
        version: String,
    },
    /// It is done; this is how things are.
    Done(State),
    /// To [`Request::Remaining`]; none where nothing is.
    Remaining(Option<Remains>),
    /// To [`Request::Left`].
    Left(Vec<FrontendKey>),
    /// To [`Request::Passed`].
    Passed(News),
    /// It cannot be done, and why.
    Failed(String),
}

/// How things are with the Services of a family.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct State {
    /// Something cannot be listened at.
    pub(super) is_refused: bool,
    /// What that is, in words, and whose; of very much the first.
    pub(super) refused: Vec<(ServiceKey, String)>,
    /// What is there of what was left; none while it serves, or where nothing is.
    pub(super) remains: Option<Remains>,
    /// What others damaged.
    pub(super) damage: Option<String>,
}

/// Sends a message.
///
/// # Errors
/// Where the socket fails, or the message is longer than a frame may be.
pub(super) fn send(mut to: impl Write, message: &impl Serialize) -> io::Result<()> {
    let mut frame = vec![0; 4];
    serde_json::to_writer(&mut frame, message)?;
    let length = frame.len() - 4;
    let announced = u32::try_from(length).ok().filter(|_| length <= LARGEST).ok_or_else(|| too_long(length))?;
    for (at, byte) in frame.iter_mut().zip(announced.to_le_bytes()) {
        *at = byte;
    }
    to.write_all(&frame)
}

/// Receives a message; none where the other side has ended.
///
/// # Errors
/// Where the socket fails or ends within a frame, the frame is too long, or it is not such a message.
pub(super) fn receive<T: DeserializeOwned>(mut from: impl Read) -> io::Result<Option<T>> {
    let mut length = [0; 4];
    match from.read_exact(&mut length[..1]) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    from.read_exact(&mut length[1..])?;
    let length = u32::from_le_bytes(length) as usize;
    if length > LARGEST {
        return Err(too_long(length));
    }
    let mut frame = Vec::new();
    // What is announced and does not come takes no memory.
    from.take(length as u64).read_to_end(&mut frame)?;
    if frame.len() < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Some(serde_json::from_slice(&frame)?))
}

fn too_long(length: usize) -> io::Error {
    let what = format!("a frame of {length} bytes is longer than the largest ({LARGEST})");
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Work as requests that a frame holds each.
pub(super) fn pieces(work: Work) -> Vec<Request> {
    let mut pieces = Vec::new();
    if let Some(insiders) = work.insiders {
        pieces.push(Work { insiders: Some(insiders), ..Work::default() });
    }
    let (mut fronts, mut size) = (Vec::new(), 0);
    for front in work.fronts {
        let own = size_of(&front.1);
        if size + own > PIECE && !fronts.is_empty() {
            pieces.push(Work { fronts: std::mem::take(&mut fronts), ..Work::default() });
            size = 0;
        }
        size += own;
        fronts.push(front);
    }
    pieces.push(Work { fronts, ..Work::default() });
    pieces.extend(work.more.chunks(PIECE).map(|more| Work { more: more.to_vec(), ..Work::default() }));
    pieces.extend(work.fewer.chunks(PIECE).map(|fewer| Work { fewer: fewer.to_vec(), ..Work::default() }));
    pieces.into_iter().filter(|piece| !piece.is_empty()).map(Request::Piece).collect()
}

/// As many frontends, backends and ranges as there are.
fn size_of(front: &Option<Front>) -> usize {
    let Some(front) = front else { return 1 };
    let ranges = match &front.guard {
        Some(Guard::Only { sources: Some(sources), .. }) => sources.len(),
        _ => 0,
    };
    let serving = &front.serving;
    let sources = serving.sources.as_ref().map_or(0, |sources| sources.len());
    let backends = serving.inside.slots().len() + serving.outside.slots().len() + serving.lasting.len();
    1 + backends + ranges + sources
}

/// Work that comes in pieces.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    work: Work,
    size: usize,
}

impl Gathered {
    /// Takes a piece in.
    ///
    /// # Errors
    /// Where it is more than any cluster has.
    pub(super) fn add(&mut self, piece: Work) -> io::Result<()> {
        let fronts: usize = piece.fronts.iter().map(|(_, front)| size_of(front)).sum();
        let insiders = piece.insiders.as_ref().map_or(0, std::collections::BTreeSet::len);
        self.size += fronts + piece.more.len() + piece.fewer.len() + insiders;
        if self.size > MOST {
            let what = format!("work of more than {MOST} frontends, backends and addresses");
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        self.work.fronts.extend(piece.fronts);
        self.work.more.extend(piece.more);
        self.work.fewer.extend(piece.fewer);
        self.work.insiders = piece.insiders.or(self.work.insiders.take());
        Ok(())
    }

    /// All of it; nothing is left.
    pub(super) fn take(&mut self) -> Work {
        std::mem::take(self).work
    }
}

#[cfg(test)]
mod tests;
