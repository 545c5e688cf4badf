//! The `loop` plugin: does an upstream lead back to this server?
//!
//! CoreDNS asks itself, and ends where its question comes round. Here each upstream is asked, for a name that nobody else asks for:
//! so it is known which of them it is that leads back, and the others go on being asked.

use std::{
    io,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures::future::BoxFuture;

use super::{Block, Event, Outside, Server, Transport};
use crate::{
    forward::{ATTEMPT_TIMEOUT, query},
    message::{flag, question, rtype},
    name::{Name, QueryName},
};

/// For how long an upstream that is silent is asked again: it may start together with this server. CoreDNS's.
const WINDOW: Duration = Duration::from_secs(30);
/// How long between two of these questions.
const PAUSE: Duration = Duration::from_secs(2);
/// How long a question may be on its way round after its answer came; CoreDNS's.
const ROUND: Duration = Duration::from_secs(2);

/// A name that only this server asks for: who asks it for that name, forwards to it.
pub(super) struct Probe {
    name: Name,
    block: usize,
    forward: usize,
    upstream: usize,
    /// It is waited for. Later the name is known to others, who could have an upstream left alone by asking for it.
    open: AtomicBool,
    /// It came round.
    seen: AtomicBool,
}

/// An answer to a probe, which does not matter: that the question comes here does.
type Answered = BoxFuture<'static, io::Result<Vec<u8>>>;

/// A probe for each upstream of the blocks that look for loops.
pub(super) fn probes(blocks: &[Block], outside: &dyn Outside) -> Vec<Probe> {
    let mut probes = Vec::new();
    for (block, runtime) in blocks.iter().enumerate().filter(|(_, block)| block.loop_check) {
        for (forward, crew) in runtime.crews.iter().enumerate() {
            let upstreams = crew.upstreams();
            for upstream in 0..upstreams.addrs().len() {
                if let Ok(name) = upstreams.options().from.child(&format!("{:016x}", outside.random())) {
                    let (open, seen) = (AtomicBool::new(false), AtomicBool::new(false));
                    probes.push(Probe { name, block, forward, upstream, open, seen });
                }
            }
        }
    }
    probes
}

impl Server {
    /// Sends the probes, when the server can be asked: each until it is answered, comes round, or its time is over.
    pub fn probe_loops(self: &Arc<Self>) {
        let until = self.parts.outside.now() + WINDOW;
        for (place, probe) in self.probes.iter().enumerate() {
            probe.open.store(true, Ordering::Relaxed);
            // A server that another one has taken the place of ends, whatever it waits for.
            let attended = attend(Arc::downgrade(self), place, self.send(probe), until);
            self.parts.outside.spawn(Box::pin(attended));
        }
    }

    fn send(&self, probe: &Probe) -> Answered {
        let upstreams = self.blocks[probe.block].crews[probe.forward].upstreams();
        let ask = question(probe.name.wire(), rtype::HINFO);
        let message = query(self.parts.outside.random() as u16, &ask, false, false, flag::RD);
        self.parts.outside.exchange(upstreams.exchange(probe.upstream, Transport::Udp, message, ATTEMPT_TIMEOUT))
    }

    /// Sends a probe once more, where there is still reason and time to.
    fn send_again(&self, place: usize, until: Instant) -> Option<Answered> {
        let probe = self.probes.get(place).filter(|probe| !probe.seen.load(Ordering::Relaxed))?;
        (self.parts.outside.now() < until).then(|| self.send(probe))
    }

    /// Whether a name is one that only this server asks for; who forwarded it here is no longer asked.
    pub(super) fn notice_loop(&self, name: &QueryName) -> bool {
        let awaited = |probe: &&Probe| probe.open.load(Ordering::Relaxed) && probe.name.wire() == name.wire();
        let Some(probe) = self.probes.iter().find(awaited) else { return false };
        let upstreams = self.blocks[probe.block].crews[probe.forward].upstreams();
        upstreams.looped(probe.upstream);
        // It may come by several ways, or be sent again.
        if !probe.seen.swap(true, Ordering::Relaxed)
            && let Some(upstream) = upstreams.addrs().get(probe.upstream)
        {
            (self.observer)(&Event::Loop { upstream });
        }
        true
    }

    /// Has upstreams that failed looked after, where it is time for that. To be called several times a second.
    pub fn check_upstreams(&self) {
        for crew in self.blocks.iter().flat_map(|block| &block.crews) {
            crew.check();
        }
    }
}

/// Follows a probe from its first question on.
async fn attend(server: Weak<Server>, place: usize, mut sent: Answered, until: Instant) {
    let pause = |time| server.upgrade().map(|server| server.parts.outside.sleep(time));
    while sent.await.is_err() {
        let Some(paused) = pause(PAUSE) else { return };
        paused.await;
        match server.upgrade().and_then(|server| server.send_again(place, until)) {
            Some(again) => sent = again,
            None => break,
        }
    }
    let Some(paused) = pause(ROUND) else { return };
    paused.await;
    if let Some(server) = server.upgrade() {
        server.probes[place].open.store(false, Ordering::Relaxed);
    }
}
