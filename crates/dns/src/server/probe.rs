//! The `loop` plugin: does an upstream lead back to this server?

use super::{Block, Event, Outside, Server, Transport};
use crate::{
    forward::{ATTEMPT_TIMEOUT, query},
    message::{flag, question, rtype},
    name::{Name, QueryName},
};

/// A name that only this server asks for: who asks it for that name, forwards to it.
pub(super) struct Probe {
    name: Name,
    block: usize,
    forward: usize,
    upstream: usize,
}

/// A probe for each upstream of the blocks that look for loops.
pub(super) fn probes(blocks: &[Block], outside: &dyn Outside) -> Vec<Probe> {
    let mut probes = Vec::new();
    for (block, runtime) in blocks.iter().enumerate().filter(|(_, block)| block.loop_check) {
        for (forward, crew) in runtime.crews.iter().enumerate() {
            let upstreams = crew.upstreams();
            for upstream in 0..upstreams.addrs().len() {
                if let Ok(name) = upstreams.options().from.child(&format!("{:016x}", outside.random())) {
                    probes.push(Probe { name, block, forward, upstream });
                }
            }
        }
    }
    probes
}

impl Server {
    /// Sends the probes: once, when the server can be asked.
    pub fn probe_loops(&self) {
        for probe in &self.probes {
            let upstreams = self.blocks[probe.block].crews[probe.forward].upstreams();
            let ask = question(probe.name.wire(), rtype::HINFO);
            let message = query(self.parts.outside.random() as u16, &ask, false, false, flag::RD);
            let exchange = upstreams.exchange(probe.upstream, Transport::Udp, message, ATTEMPT_TIMEOUT);
            let sent = self.parts.outside.exchange(exchange);
            // What comes back does not matter: that the question comes here does.
            self.parts.outside.spawn(Box::pin(async move { drop(sent.await) }));
        }
    }

    /// Whether a name is one that only this server asks for; who forwarded it here is no longer asked.
    pub(super) fn notice_loop(&self, name: &QueryName) -> bool {
        let Some(probe) = self.probes.iter().find(|probe| probe.name.wire() == name.wire()) else { return false };
        let upstreams = self.blocks[probe.block].crews[probe.forward].upstreams();
        upstreams.looped(probe.upstream);
        if let Some(upstream) = upstreams.addrs().get(probe.upstream) {
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
