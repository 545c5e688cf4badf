//! `grpc`: other servers are asked by gRPC.

use crate::{
    chain::Fallthrough,
    forward::Crew,
    message::Rcode,
    server::{Answering, Failure, Link, Look, Next, Pen, Query, Quick, Reply},
};

/// The plugin, with those whom it asks.
#[derive(Clone, Debug)]
pub struct Grpc {
    /// They.
    pub crew: Crew,
    /// The names that go on to the next plugin when they do not exist.
    pub fallthrough: Fallthrough,
}

impl Grpc {
    async fn answer(&self, query: &Query, next: Next<'_>) -> Result<Reply, Failure> {
        let reply = self.crew.ask(query, true).await?;
        if reply.answer.rcode == Rcode::NXDOMAIN && self.fallthrough.holds(&query.name) {
            return next.run(query).await;
        }
        Ok(reply)
    }
}

impl Link for Grpc {
    fn quick(&self, look: &Look<'_>, _: &mut Pen<'_>) -> Quick {
        if self.crew.upstreams().options().covers(look.name) { Quick::Slow } else { Quick::Pass }
    }

    fn serve<'a>(&'a self, query: &'a Query, next: Next<'a>) -> Answering<'a> {
        if !self.crew.upstreams().options().covers(&query.name) {
            return next.run(query);
        }
        Box::pin(self.answer(query, next))
    }
}
