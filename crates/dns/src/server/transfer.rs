//! What is no plain question: zone transfers (`transfer`), and notifications that come in and go out.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Arrival, Block, Event, Exchange, Failure, Look, Members, Outcome, Outside, Pen, Quick, Server, Transport,
    giving::asked_for,
    guard::Leaving,
    signed::{self, Unanswered},
    told::Told,
};
use crate::{
    authority::{
        Held,
        held::Taken,
        transfer::{self, Notify},
        tsig::Key,
    },
    chain::{Peer, TransferOptions},
    message::{CLASS_IN, HEADER, Head, Rcode, rejection, rtype},
    name::{Name, QueryName},
};

/// How often a secondary is told of a new version, and how long its answer is waited for; the time doubles (RFC 1996 §3.6).
const NOTIFY_TRIES: u32 = 4;
const NOTIFY_TIMEOUT: Duration = Duration::from_secs(5);

impl Server {
    /// Answers what is no plain question: zone transfers and notifications; none: it is neither.
    pub(super) fn of_zones(
        &self,
        packet: &[u8],
        arrival: &Arrival,
        head: &Head,
        now: Instant,
        out: &mut Vec<u8>,
    ) -> Option<Outcome> {
        let notify = Notify::parse(packet);
        let request = if notify.is_none() { Some(transfer::Request::parse(packet)?) } else { None };
        let (name, end) = QueryName::parse(packet, HEADER).ok()?;
        let question = packet.get(HEADER..end + 4)?;
        let qtype = match &request {
            Some(transfer::Request { serial: Some(_), .. }) => rtype::IXFR,
            Some(_) => rtype::AXFR,
            None => rtype::SOA,
        };
        let look = Look { name: &name, qtype, qclass: CLASS_IN, head, arrival, now };
        let Some((index, key)) = self.block(&look, packet.len()) else {
            rejection(head, question, Rcode::REFUSED, out);
            self.stray(qtype, arrival, packet.len(), Rcode::REFUSED, out.len());
            return Some(Outcome::Answer);
        };
        let block = &self.blocks[index];
        let mut head = *head;
        let ended = block.guard.enter(&mut head, arrival, &*self.parts.outside).filter(|_| request.is_some());
        if request.is_some() && block.guard.refuses(&name, &head, arrival, now) {
            block.counts[key].asked(arrival, qtype, packet.len());
            return Some(Outcome::Drop);
        }
        let head = &head;
        let look = Look { head, ..look };
        let mut giver = None;
        let answered = match (&notify, &request) {
            _ if let Some(rcode) = ended => Err(rcode),
            _ if let Some(refused) = self.forbidden(index, &look, question, out) => refused,
            (Some(notify), _) => block.notified(notify, &look).map(|()| {
                *out = transfer::notify_reply(notify);
                Outcome::Answer
            }),
            (None, Some(request)) => asked_for(block, &self.parts, request, &look, question, out, &mut giver),
            (None, None) => return None,
        };
        let outcome = answered.unwrap_or_else(|rcode| {
            rejection(head, question, rcode, out);
            Outcome::Answer
        });
        let leaving = Leaving { head, question, name: &name, arrival, now };
        let mut held_back = || request.is_some() && !block.guard.lets_out(&leaving, out);
        let outcome = if matches!(outcome, Outcome::Answer) && held_back() { Outcome::Drop } else { outcome };
        if matches!(outcome, Outcome::Drop) {
            block.counts[key].asked(arrival, qtype, packet.len());
            return Some(outcome);
        }
        if matches!(outcome, Outcome::Transfer(_)) {
            // What is told of it is that it began.
            rejection(head, question, Rcode::NOERROR, out);
        }
        let (size, question, took) = (packet.len(), question.len(), self.since(now));
        let link = giver.or_else(|| {
            let zone = Name::from_query(&name);
            block.links.iter().position(|link| link.transfers(&zone).is_some())
        });
        let told = Told {
            name: &name,
            qtype,
            qclass: CLASS_IN,
            head,
            arrival,
            size,
            question,
            response: out,
            took,
            link,
            upstream: None,
        };
        self.told(index, key, &told);
        Some(outcome)
    }

    /// What those plugins say that know who may ask; none: nothing.
    fn forbidden(
        &self,
        index: usize,
        look: &Look<'_>,
        question: &[u8],
        out: &mut Vec<u8>,
    ) -> Option<Result<Outcome, Rcode>> {
        let block = &self.blocks[index];
        let mut pen = Pen::new(look.head, question, &block.shape, &self.turn, out);
        for link in block.links.iter().filter(|link| link.guards()) {
            match link.quick(look, &mut pen) {
                Quick::Done => return Some(Ok(Outcome::Answer)),
                Quick::Fail(Failure::Silent) => return Some(Ok(Outcome::Drop)),
                Quick::Fail(failure) => {
                    self.tell(index, look.name, look.qtype, failure);
                    return Some(Err(failure.rcode()));
                }
                Quick::Pass | Quick::Around | Quick::Slow => {}
            }
        }
        None
    }

    /// Begins what the server does by itself, once: zones go on from the server `before`; `serve` is called, from when on the server
    /// can be asked; secondaries are told of new versions, which they ask for at once, and zones of other servers are fetched.
    pub fn start(self: &Arc<Self>, before: Option<&Self>, serve: impl FnOnce()) {
        let before: Vec<Vec<&Block>> = self.blocks.iter().map(|block| block.ancestors(before).collect()).collect();
        let newer = self.succeed(&before);
        serve();
        for zone in newer {
            self.tell_of(zone);
        }
        for (block, old) in self.blocks.iter().zip(before) {
            // Before their catalogs: what these add from then on has begun.
            if let Some(members) = &block.members {
                members.begin(self, &members_of(&old));
            }
            for zone in &block.fetched {
                zone.begin(self, old.iter().flat_map(|old| &old.fetched));
            }
        }
    }

    /// Zones go on from those before; which of them have a new version.
    fn succeed(&self, before: &[Vec<&Block>]) -> Vec<&Name> {
        let mut newer = Vec::new();
        for (block, old) in self.blocks.iter().zip(before) {
            if let Some(members) = &block.members {
                members.resume(&members_of(old));
            }
            for held in &block.held {
                let ancestor = old.iter().flat_map(|old| &old.held).find(|old| old.origin() == held.origin());
                let taken = ancestor.map_or(Taken::Newer, |ancestor| held.inherit(ancestor));
                match taken {
                    Taken::Same => {}
                    Taken::Newer => newer.push(held.origin()),
                    Taken::Unseen => (self.observer)(&Event::Zone {
                        zone: held.origin(),
                        told: "it has changed without a higher serial number: secondaries keep what they have",
                        failed: true,
                    }),
                }
            }
        }
        newer
    }

    /// A zone of others has a new version, which may list other zones.
    pub(super) fn listed(self: &Arc<Self>, zone: &Arc<Held>) {
        for members in self.blocks.iter().filter_map(|block| block.members.as_ref()) {
            members.changed(zone, self);
        }
    }

    /// Tells a zone's secondaries that there is a new version (RFC 1996).
    pub(super) fn tell_of(&self, zone: &Name) {
        for block in &self.blocks {
            let Some(version) = block.zone_of(zone).and_then(|held| held.version()) else { continue };
            let servers = block.transfers_of(zone).flat_map(|options| {
                let key = options.key.as_ref().and_then(|(name, _)| self.parts.keys.get(name));
                options.to.iter().filter_map(move |peer| match peer {
                    Peer::Server(addr) => Some((*addr, key.cloned())),
                    Peer::All | Peer::Network(_) => None,
                })
            });
            for (upstream, key) in servers {
                let message = transfer::notify(&version.zone.soa_record(), self.parts.outside.random() as u16);
                let notify = notify(Arc::clone(&self.parts.outside), key, upstream, message);
                self.parts.outside.spawn(Box::pin(notify));
            }
        }
    }
}

/// The members of blocks that have any.
fn members_of<'b>(blocks: &[&'b Block]) -> Vec<&'b Members> {
    blocks.iter().filter_map(|block| block.members.as_deref()).collect()
}

async fn notify(outside: Arc<dyn Outside>, key: Option<Arc<Key>>, upstream: SocketAddr, message: Vec<u8>) {
    for attempt in 0..NOTIFY_TRIES {
        let timeout = NOTIFY_TIMEOUT * (1 << attempt);
        let exchange = Exchange::plain(upstream, Transport::Udp, message.clone(), timeout);
        match signed::ask(&outside, key.as_ref(), exchange).await {
            Ok(_) => return,
            Err(Unanswered::Io(error)) if error.kind() == std::io::ErrorKind::TimedOut => {}
            // It does not listen yet, or it is not the one that has the key.
            Err(_) => outside.sleep(timeout).await,
        }
    }
}

impl Block {
    /// The blocks of a server before that this one stands for.
    fn ancestors<'b>(&'b self, before: Option<&'b Server>) -> impl Iterator<Item = &'b Self> {
        let old = before.into_iter().flat_map(|server| &server.blocks);
        old.filter(|old| old.keys.iter().any(|key| self.keys.contains(key)))
    }

    /// A zone that this server is an authority of here.
    fn zone_of(&self, zone: &Name) -> Option<Arc<Held>> {
        let own = self.held.iter().find(|held| held.origin() == zone).cloned();
        own.or_else(|| self.members.as_ref()?.held(zone))
    }

    /// Takes a primary's word of a new version; the code that says why not.
    fn notified(&self, notify: &Notify, look: &Look<'_>) -> Result<(), Rcode> {
        let own = self.fetched.iter().find(|zone| *zone.held.origin() == notify.zone).cloned();
        let zone = own.or_else(|| self.members.as_ref()?.fetched(&notify.zone)).ok_or(Rcode::REFUSED)?;
        if !zone.primaries.iter().any(|primary| primary.ip() == look.arrival.from.ip()) {
            return Err(Rcode::REFUSED);
        }
        zone.notified(notify.serial, look.now);
        Ok(())
    }

    /// Who may fetch a zone.
    pub(super) fn peers(&self, zone: &Name) -> impl Iterator<Item = &Peer> {
        self.transfers_of(zone).flat_map(|options| &options.to)
    }

    /// The `transfer` with the longest zone around a zone.
    pub(super) fn transfers_of(&self, zone: &Name) -> impl Iterator<Item = &TransferOptions> {
        let around =
            |options: &TransferOptions| options.zones.iter().filter(|own| zone.within(own)).map(Name::labels).max();
        let longest = self.transfers.iter().filter_map(around).max();
        self.transfers.iter().filter(move |options| around(options) == longest && longest.is_some())
    }
}
