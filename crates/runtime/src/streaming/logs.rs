//! Container logs: a file in the CRI format becomes a response body.

mod assemble;
mod entry;
mod file;

use std::{io, time::Duration};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use tokio::{task::spawn_blocking, time::sleep};
use tokio_util::sync::CancellationToken;

use self::{assemble::Assembler, file::LogTail};
use super::server::Body;
use crate::access::LogFile;

pub(super) use entry::LogStream;

/// How often a followed file is looked at: below what a person notices, and a few microseconds of work each time.
const LOOK_AGAIN: Duration = Duration::from_millis(40);

/// Which part of a log is wanted, and how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LogOptions {
    /// Go on until the container ends.
    pub(super) follow: bool,
    /// Each line begins with its time.
    pub(super) timestamps: bool,
    /// Only so many lines from the end.
    pub(super) tail: Option<u64>,
    /// Only so many bytes.
    pub(super) limit: Option<u64>,
    /// Only lines from then on.
    pub(super) since: Option<DateTime<Utc>>,
    /// Only this stream.
    pub(super) stream: Option<LogStream>,
}

/// The log as a body that reads the file as fast as the client takes it, and no faster.
pub(super) fn body(log: LogFile, options: LogOptions, stop: CancellationToken) -> Body {
    let reading = Reading {
        source: Some(Source { file: LogTail::new(log.path, options.tail), assembler: Assembler::new(options) }),
        ended: log.ended,
        follow: options.follow,
        stop,
    };
    StreamBody::new(stream::unfold(reading, Reading::next)).boxed_unsync()
}

/// What reads the file. It moves to a thread that may block and back.
struct Source {
    file: LogTail,
    assembler: Assembler,
}

struct Reading {
    /// None once everything has been sent.
    source: Option<Source>,
    ended: tokio::sync::watch::Receiver<bool>,
    follow: bool,
    stop: CancellationToken,
}

impl Reading {
    async fn next(mut self) -> Option<(io::Result<Frame<Bytes>>, Self)> {
        loop {
            let source = self.source.take()?;
            // Looked at before the file is: what was written before the end is then in the file.
            let last_look = !self.follow || *self.ended.borrow() || self.ended.has_changed().is_err();
            let (source, look) = match spawn_blocking(move || source.look(last_look)).await {
                Ok(looked) => looked,
                Err(_) => return None,
            };
            let look = match look {
                Ok(look) => look,
                Err(error) => return Some((Err(error), self)),
            };
            if !look.finished {
                self.source = Some(source);
            }
            if !look.text.is_empty() {
                return Some((Ok(Frame::data(look.text)), self));
            }
            if look.caught_up && !look.finished {
                tokio::select! {
                    () = sleep(LOOK_AGAIN) => {}
                    _ = self.ended.changed() => {}
                    () = self.stop.cancelled() => return None,
                }
            }
        }
    }
}

/// What one look at the file brought.
struct Look {
    text: Bytes,
    /// There was nothing more to read.
    caught_up: bool,
    /// There never will be.
    finished: bool,
}

impl Source {
    fn look(mut self, last_look: bool) -> (Self, io::Result<Look>) {
        let read = self.file.read(|line| self.assembler.line(line));
        let look = read.map(|read_something| {
            let finished = self.assembler.is_full() || (last_look && !read_something);
            if finished {
                self.assembler.finish();
            }
            Look { text: self.assembler.take(), caught_up: !read_something, finished }
        });
        (self, look)
    }
}
