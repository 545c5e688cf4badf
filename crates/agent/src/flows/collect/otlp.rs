//! OTLP over HTTP, in JSON.

use futures::{FutureExt, future::BoxFuture};
use podnet_flow::{
    Numbered,
    export::{Taken, otlp},
};

use super::{
    Collector, SendError,
    target::Web,
    web::{Post, no_answer},
};

pub(super) struct Otlp(Post);

impl Otlp {
    pub(super) const fn new(web: Web) -> Self {
        Self(Post::new(web, "application/json"))
    }
}

impl Collector for Otlp {
    fn send<'a>(&'a mut self, items: &'a [Numbered]) -> BoxFuture<'a, Result<Taken, SendError>> {
        async move {
            let answer = self.0.post(otlp::request(items, env!("CARGO_PKG_VERSION"))).await?;
            otlp::taken(&answer).map_err(|error| no_answer(&answer, &error))
        }
        .boxed()
    }
}
