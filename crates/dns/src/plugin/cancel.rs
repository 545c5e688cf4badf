//! `cancel`: a query that takes longer than a time is given up, and answered so.

use std::time::Duration;

use futures::future::{Either, select};

use crate::server::{Answering, Failure, Link, Look, Next, Parts, Pen, Query, Quick};

/// The plugin.
pub struct Cancel {
    time: Duration,
    parts: Parts,
}

impl Cancel {
    /// The plugin with its time.
    #[must_use]
    pub fn new(time: Duration, parts: Parts) -> Self {
        Self { time, parts }
    }
}

impl Link for Cancel {
    fn takes_chaos(&self) -> bool {
        true
    }

    fn quick(&self, _: &Look<'_>, _: &mut Pen<'_>) -> Quick {
        // What is answered at once takes no time.
        Quick::Around
    }

    fn serve<'a>(&'a self, query: &'a Query, next: Next<'a>) -> Answering<'a> {
        Box::pin(async move {
            match select(next.run(query), self.parts.outside.sleep(self.time)).await {
                Either::Left((reply, _)) => reply,
                // Dropping what works on it gives it up, unless others wait for the same.
                Either::Right(_) => Err(Failure::Cancelled),
            }
        })
    }
}
