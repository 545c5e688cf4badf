//! `forward`: other servers are asked.

use crate::{
    forward::{Crew, wants_tcp},
    server::{Answering, Link, Look, Next, Pen, Query, Quick},
};

/// The plugin, with those whom it asks.
#[derive(Clone, Debug)]
pub struct Forward(pub Crew);

impl Link for Forward {
    fn quick(&self, look: &Look<'_>, _: &mut Pen<'_>) -> Quick {
        if self.0.upstreams().options().covers(look.name) { Quick::Slow } else { Quick::Pass }
    }

    fn serve<'a>(&'a self, query: &'a Query, next: Next<'a>) -> Answering<'a> {
        let options = self.0.upstreams().options();
        if !options.covers(&query.name) {
            return next.run(query);
        }
        let tcp = options.force_tcp || (wants_tcp(&query.head) && !options.prefer_udp);
        Box::pin(self.0.ask(query, tcp))
    }
}
