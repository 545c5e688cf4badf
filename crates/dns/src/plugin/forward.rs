//! `forward`: other servers are asked.

use crate::{
    forward::{Crew, wants_tcp},
    message::{Rcode, expand, rtype},
    name::Name,
    server::{Answering, Failure, Link, Look, Next, Pen, Query, Quick, Reply},
};

/// The plugin, with those whom it asks.
#[derive(Clone, Debug)]
pub struct Forward(pub Crew);

impl Link for Forward {
    fn forwards(&self) -> bool {
        true
    }

    fn quick(&self, look: &Look<'_>, pen: &mut Pen<'_>) -> Quick {
        if !self.0.upstreams().options().covers(look.name) {
            return Quick::Pass;
        }
        self.0.denied(look).map_or(Quick::Slow, |denied| pen.answer(&denied))
    }

    fn serve<'a>(&'a self, query: &'a Query, next: Next<'a>) -> Answering<'a> {
        if !self.0.upstreams().options().covers(&query.name) {
            return next.run(query);
        }
        Box::pin(self.answer(query, next))
    }
}

impl Forward {
    async fn answer(&self, query: &Query, next: Next<'_>) -> Result<Reply, Failure> {
        if let Some(denied) = self.0.denied(&query.look()) {
            return Ok(Reply::own(denied));
        }
        let options = self.0.upstreams().options();
        let tcp = options.force_tcp || (wants_tcp(&query.head) && !options.prefer_udp);
        let reply = self.0.ask(query, tcp).await?;
        if !next.forwards() || !self.passes_on(query, &reply) {
            return Ok(reply);
        }
        match next.run(query).await {
            // Those behind ask for other names only: what is known stands.
            Err(Failure::NoPlugin) => Ok(reply),
            other => other,
        }
    }

    /// Whether the next `forward` is to be asked, too (`next`, `next_on_nodata`).
    fn passes_on(&self, query: &Query, reply: &Reply) -> bool {
        let options = self.0.upstreams().options();
        options.next.contains(&reply.answer.rcode) || (options.next_on_nodata && nodata(query, reply))
    }
}

/// The name is there, but nothing of the type (RFC 2308 §2.2): aliases alone are nothing.
fn nodata(query: &Query, reply: &Reply) -> bool {
    if reply.answer.rcode != Rcode::NOERROR || reply.truncated {
        return false;
    }
    if reply.answer.counts[0] == 0 {
        return true;
    }
    if matches!(query.qtype, rtype::ANY | rtype::CNAME) {
        return false;
    }
    let records = expand(&Name::from_query(&query.name), &reply.answer);
    let told = records.iter().take(usize::from(reply.answer.counts[0]));
    !records.is_empty() && told.into_iter().all(|record| record.rtype == rtype::CNAME)
}
