//! The agent's own output, as lines of JSON, beside its log.

use futures::{FutureExt, future::BoxFuture};
use podnet_flow::{
    Numbered,
    export::{Taken, json},
};
use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::{Collector, SendError};

pub(super) struct Stdout<W> {
    out: W,
    /// What was written last may end amid a line: it failed, or was given up.
    is_torn: bool,
}

impl<W: AsyncWrite + Unpin> Stdout<W> {
    pub(super) const fn new(out: W) -> Self {
        Self { out, is_torn: false }
    }

    async fn write(&mut self, items: &[Numbered]) -> Result<(), SendError> {
        // What comes again begins a line of its own, behind what is left of the other one.
        let begins = if std::mem::replace(&mut self.is_torn, true) { "\n" } else { "" };
        let lines: String = items.iter().map(|item| json(item) + "\n").collect();
        self.out.write_all(format!("{begins}{lines}").as_bytes()).await?;
        self.out.flush().await?;
        self.is_torn = false;
        Ok(())
    }
}

impl<W: AsyncWrite + Unpin + Send> Collector for Stdout<W> {
    fn send<'a>(&'a mut self, items: &'a [Numbered]) -> BoxFuture<'a, Result<Taken, SendError>> {
        self.write(items).map(|written| written.map(|()| Taken::default())).boxed()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, duplex};

    use super::*;
    use crate::flows::collect::tests::{flow, gap};

    fn read(line: &str) -> Numbered {
        Numbered::from_json(line).unwrap()
    }

    #[tokio::test]
    async fn each_item_is_a_line_with_its_id() {
        let mut out = Stdout::new(Vec::new());
        for items in [&[flow(1), gap(2, 3)][..], &[flow(3)]] {
            assert_eq!(out.send(items).await.unwrap(), Taken::default());
        }
        let text = String::from_utf8(out.out).unwrap();
        assert!(text.ends_with('\n'), "{text}");
        let items: Vec<Numbered> = text.lines().map(read).collect();
        assert_eq!(items, [flow(1), gap(2, 3), flow(3)]);
        assert!(text.starts_with(r#"{"record":"node1/1/1","#), "{text}");
    }

    #[tokio::test]
    async fn what_is_sent_again_begins_a_line() {
        let (near, mut far) = duplex(16);
        let mut out = Stdout::new(near);
        let items = [flow(1), flow(2)];
        // There is room for the beginning of a line, and then it is given up.
        assert!(out.send(&items).now_or_never().is_none());
        let again = async move {
            let sent = out.send(&items).await;
            drop(out);
            sent
        };
        let mut text = String::new();
        let (sent, length) = tokio::join!(again, far.read_to_string(&mut text));
        assert!(sent.is_ok() && length.unwrap() == text.len());
        let (torn, whole) = text.split_once('\n').unwrap();
        assert_eq!(torn.len(), 16);
        assert_eq!(whole.lines().map(read).collect::<Vec<_>>(), [flow(1), flow(2)]);
    }

    #[tokio::test]
    async fn where_nobody_reads_nothing_has_come() {
        let (near, far) = duplex(16);
        drop(far);
        assert!(matches!(Stdout::new(near).send(&[flow(1)]).await, Err(SendError::Away(_))));
    }
}
