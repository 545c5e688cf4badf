//! IPFIX: templates at the beginning of a connection, over UDP before each batch, which whoever begins to listen can read then.

use futures::{FutureExt, future::BoxFuture};
use k8s_openapi::jiff::Timestamp;
use podnet_flow::{
    Numbered,
    export::{Taken, ipfix::Exporter},
};
use podnet_model::NodeName;

use super::{Collector, SendError, line::Line, target::Place};

/// The most bytes of a message in a datagram: what passes everywhere that IPv6 does (RFC 8200, section 5), without the headers of IPv6 and UDP.
const DATAGRAM: usize = 1280 - 48;
/// Of one in a stream, as the length in its head has room for.
const IN_STREAM: usize = 65_535;

pub(super) struct Ipfix {
    place: Place,
    node: NodeName,
    session: Option<(Line, Exporter)>,
}

impl Ipfix {
    pub(super) fn new(place: Place, node: &NodeName) -> Self {
        Self { place, node: node.clone(), session: None }
    }

    async fn write(&mut self, items: &[Numbered]) -> Result<(), SendError> {
        let (line, exporter) = self.session.take().unzip();
        let is_there = line.is_some();
        let mut line = Line::usable(line, &self.place).await?;
        let is_new = !is_there || line.is_new();
        let mut exporter = exporter.filter(|_| !is_new).unwrap_or_else(|| Exporter::new(&self.node));
        let now = Timestamp::now();
        if is_new || !line.is_stream() {
            line.write(&exporter.templates(now)).await?;
        }
        let most = if line.is_stream() { IN_STREAM } else { DATAGRAM };
        for message in exporter.messages(items, now, most) {
            line.write(&message).await?;
        }
        line.acknowledged().await?;
        self.session = Some((line, exporter));
        Ok(())
    }
}

impl Collector for Ipfix {
    fn send<'a>(&'a mut self, items: &'a [Numbered]) -> BoxFuture<'a, Result<Taken, SendError>> {
        self.write(items).map(|written| written.map(|()| Taken::default())).boxed()
    }
}
