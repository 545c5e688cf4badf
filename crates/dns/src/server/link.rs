//! The links of a chain: what a plugin is to the server.
//!
//! A question goes through its block's links in order, and each answers it or passes it on. Most questions are answered by
//! [`Link::quick`], at once and without keeping anything. A link that has to ask somebody, or to change what those behind it
//! answer, says [`Quick::Slow`]; then the question is kept and [`Link::serve`] of that link and those behind it answer it.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures::future::{BoxFuture, ready};

use super::{Failure, Look, Pen, Query, Reply, Server};
use crate::{
    answer::Answer,
    authority::held::Version,
    message::{CLASS_IN, Rcode},
    name::Name,
};

/// An answer that is being worked on.
pub type Answering<'a> = BoxFuture<'a, Result<Reply, Failure>>;

/// What came of asking a link at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quick {
    /// The response is written.
    Done,
    /// The next link is to be asked.
    Pass,
    /// The next link is to be asked; where that takes time, it goes through this one.
    Around,
    /// It takes time.
    Slow,
    /// There is no answer.
    Fail(Failure),
}

/// A zone that can be given away.
pub enum Given {
    /// This version of it; none: it is not here now.
    Held(Option<Version>),
    /// It has to be put together first, which takes long where it is large; none: it cannot be.
    Made(Box<dyn FnOnce() -> Option<Version> + Send>),
}

/// What a link does by itself with a request for a whole zone, whoever asks.
pub enum Gift {
    /// It does not answer.
    Nothing,
    /// It gives a zone away.
    Zone {
        /// The zone.
        version: Version,
        /// How long its client is made to wait for it.
        after: Duration,
        /// The SOA record at its end is left out.
        unfinished: bool,
    },
}

/// One plugin of a chain, at work.
pub trait Link: Send + Sync {
    /// Whether it may be asked questions of class CH.
    fn takes_chaos(&self) -> bool {
        false
    }

    /// Whether it asks other servers: `forward`.
    fn forwards(&self) -> bool {
        false
    }

    /// Whether it says who may ask: then it is asked of zone transfers, too.
    fn guards(&self) -> bool {
        false
    }

    /// What it is called and whether it is ready, where it tells that (`ready`).
    fn readiness(&self) -> Option<(&'static str, bool)> {
        None
    }

    /// A zone of this one's that can be given away (`transfer`).
    fn transfers(&self, _zone: &Name) -> Option<Given> {
        None
    }

    /// What it does with a request for the whole of a zone that nobody has (`erratic`): asked once for each request.
    fn gives(&self, _zone: &Name) -> Option<Gift> {
        None
    }

    /// What it tells of a question under a label (`metadata`).
    fn label(&self, _label: &str, _look: &Look<'_>) -> Option<String> {
        None
    }

    /// The time to live of all records that it answers with at once, in seconds, where that is the same for all.
    fn ttl(&self) -> Option<u32> {
        None
    }

    /// Answers a question at once, where nobody else has to be asked.
    fn quick(&self, look: &Look<'_>, pen: &mut Pen<'_>) -> Quick;

    /// Answers a question, with the help of those behind it or outside.
    fn serve<'a>(&'a self, query: &'a Query, next: Next<'a>) -> Answering<'a>;
}

/// What a plugin that asks nobody says.
#[derive(Debug)]
pub enum Said {
    /// This.
    Answer(Answer),
    /// It is not responsible.
    Pass,
    /// There is no answer.
    Fail(Failure),
}

/// A plugin that knows by itself what it says.
pub trait Knowing: Send + Sync {
    /// Whether it may be asked questions of class CH.
    fn takes_chaos(&self) -> bool {
        false
    }

    /// Whether it says who may ask: then it is asked of zone transfers, too.
    fn guards(&self) -> bool {
        false
    }

    /// What it says to a question.
    fn say(&self, look: &Look<'_>) -> Said;
}

/// A link made of a plugin that asks nobody.
#[derive(Debug)]
pub struct Own<K>(pub K);

impl<K: Knowing> Link for Own<K> {
    fn takes_chaos(&self) -> bool {
        self.0.takes_chaos()
    }

    fn guards(&self) -> bool {
        self.0.guards()
    }

    fn quick(&self, look: &Look<'_>, pen: &mut Pen<'_>) -> Quick {
        match self.0.say(look) {
            Said::Answer(answer) => pen.answer(&answer),
            Said::Pass => Quick::Pass,
            Said::Fail(failure) => Quick::Fail(failure),
        }
    }

    fn serve<'a>(&'a self, query: &'a Query, next: Next<'a>) -> Answering<'a> {
        match self.0.say(&query.look()) {
            Said::Answer(answer) => Box::pin(ready(Ok(Reply::own(answer)))),
            Said::Pass => next.run(query),
            Said::Fail(failure) => Box::pin(ready(Err(failure))),
        }
    }
}

/// What stands behind a link in its chain.
#[derive(Clone, Copy)]
pub struct Next<'a> {
    pub(super) server: &'a Arc<Server>,
    pub(super) block: usize,
    pub(super) index: usize,
}

impl<'a> Next<'a> {
    /// Whether the next link asks other servers.
    #[must_use]
    pub fn forwards(self) -> bool {
        let link = self.server.blocks.get(self.block).and_then(|block| block.links.get(self.index));
        link.is_some_and(|link| link.forwards())
    }

    /// Has the links behind answer.
    #[must_use]
    pub fn run(self, query: &'a Query) -> Answering<'a> {
        let links = self.server.blocks.get(self.block).map(|block| &block.links[self.index.min(block.links.len())..]);
        let mut links = links.unwrap_or_default().iter().zip(self.index..);
        // What is told of a server itself is chaos' part alone.
        match links.find(|(link, _)| query.qclass == CLASS_IN || link.takes_chaos()) {
            Some((link, index)) => {
                query.asked.link.store(index, Ordering::Relaxed);
                link.serve(query, Next { index: index + 1, ..self })
            }
            None if query.qclass != CLASS_IN => Box::pin(ready(Ok(Reply::own(Answer::code(Rcode::REFUSED))))),
            None => Box::pin(ready(Err(Failure::NoPlugin))),
        }
    }

    /// What the block's plugins tell of a question under a label (`metadata`).
    #[must_use]
    pub fn label(self, label: &str, look: &Look<'_>) -> Option<String> {
        self.server.label(self.block, label, look)
    }

    /// Has the links behind answer a question for which nobody waits.
    pub fn apart(self, query: Query, then: impl FnOnce(Result<Reply, Failure>) + Send + 'static) {
        let (server, block, index) = (Arc::clone(self.server), self.block, self.index);
        self.server.parts.outside.spawn(Box::pin(async move {
            let next = Next { server: &server, block, index };
            let replied = server.parts.apart("what is asked before it is wanted", next.run(&query)).await;
            // Where it panicked it is as if nobody had known.
            then(replied.unwrap_or(Err(Failure::NoAnswer)));
        }));
    }

    /// Has the whole server answer another question of its own.
    #[must_use]
    pub fn ask(self, query: Query) -> Answering<'a> {
        Server::look_up(self.server, query)
    }

    /// Has the whole server answer for another name: what an alias points to.
    #[must_use]
    pub fn look_up(self, query: &Query, name: &Name, qtype: u16) -> Answering<'a> {
        Server::look_up(self.server, query.instead(name, qtype))
    }
}
