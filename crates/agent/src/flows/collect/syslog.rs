//! Syslog: one message for each item, in datagrams of their own or with their lengths before them in a stream.

use futures::{FutureExt, future::BoxFuture};
use podnet_flow::{
    Numbered,
    export::{
        Taken,
        syslog::{counted, message},
    },
};

use super::{Collector, SendError, line::Line, target::Place};

pub(super) struct Syslog {
    place: Place,
    line: Option<Line>,
}

impl Syslog {
    pub(super) const fn new(place: Place) -> Self {
        Self { place, line: None }
    }

    async fn write(&mut self, items: &[Numbered]) -> Result<(), SendError> {
        // Where it fails, or is given up, nothing is left of it.
        let mut line = Line::usable(self.line.take(), &self.place).await?;
        if line.is_stream() {
            let text: String = items.iter().map(|item| counted(&message(item))).collect();
            line.write(text.as_bytes()).await?;
        } else {
            for item in items {
                line.write(message(item).as_bytes()).await?;
            }
        }
        line.acknowledged().await?;
        self.line = Some(line);
        Ok(())
    }
}

impl Collector for Syslog {
    fn send<'a>(&'a mut self, items: &'a [Numbered]) -> BoxFuture<'a, Result<Taken, SendError>> {
        self.write(items).map(|written| written.map(|()| Taken::default())).boxed()
    }
}
