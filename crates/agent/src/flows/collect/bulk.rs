//! Elasticsearch and OpenSearch.

use futures::{FutureExt, future::BoxFuture};
use podnet_flow::{
    Numbered,
    export::{Taken, bulk},
};

use super::{
    Collector, SendError,
    target::Web,
    web::{Post, no_answer},
};

pub(super) struct Bulk {
    post: Post,
    index: String,
}

impl Bulk {
    pub(super) const fn new(web: Web, index: String) -> Self {
        Self { post: Post::new(web, "application/x-ndjson"), index }
    }
}

impl Collector for Bulk {
    fn send<'a>(&'a mut self, items: &'a [Numbered]) -> BoxFuture<'a, Result<Taken, SendError>> {
        async move {
            let answer = self.post.post(bulk::request(&self.index, items)).await?;
            bulk::taken(&answer).map_err(|error| no_answer(&answer, &error))
        }
        .boxed()
    }
}
