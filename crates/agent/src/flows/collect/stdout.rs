//! The agent's own output, as lines of JSON, beside its log.

use futures::{FutureExt, future::BoxFuture};
use podnet_flow::{
    Numbered,
    export::{Taken, json},
};
use tokio::io::{AsyncWriteExt, stdout};

use super::{Collector, SendError};

pub(super) struct Stdout;

impl Collector for Stdout {
    fn send<'a>(&'a mut self, items: &'a [Numbered]) -> BoxFuture<'a, Result<Taken, SendError>> {
        let text: String = items.iter().map(|item| json(item) + "\n").collect();
        async move {
            let mut out = stdout();
            out.write_all(text.as_bytes()).await?;
            out.flush().await?;
            Ok(Taken::default())
        }
        .boxed()
    }
}
