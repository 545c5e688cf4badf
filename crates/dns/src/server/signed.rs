//! Messages that are signed with shared secrets (`tsig`, RFC 8945): queries and their responses, and what this server sends itself.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Instant};

use super::{Arrival, Exchange, Outcome, Outside, Server};
use crate::{
    authority::{
        kind,
        tsig::{Key, Session},
    },
    chain::{Chain, Plugin},
    message::{HEADER, Rcode, Signature, flag, u16_at},
    name::Name,
};

/// The keys of a server, by name. As in CoreDNS, those of all server blocks are known in each.
pub(super) type Keys = BTreeMap<Name, Arc<Key>>;

/// The keys of a Corefile.
pub(super) fn keys(chains: &[Chain]) -> Keys {
    let plugins = chains.iter().flat_map(|chain| &chain.plugins);
    let keys =
        plugins.filter_map(|plugin| if let Plugin::Tsig(options) = plugin { Some(options.keys()) } else { None });
    keys.flatten().map(|key| (key.name().clone(), Arc::new(key))).collect()
}

/// What signs the responses to a query.
pub(super) struct Signer {
    session: Session,
    outside: Arc<dyn Outside>,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").field("key", self.session.key()).finish_non_exhaustive()
    }
}

impl Signer {
    /// Signs the next message of the response.
    pub(super) fn sign(&mut self, message: &mut Vec<u8>) {
        // RFC 8945 §5.5: nobody vouches for what others said to be authentic on its way here.
        if let Some(byte) = message.get_mut(3) {
            *byte &= !(flag::AD as u8);
        }
        self.session.sign(message, self.outside.unix());
    }
}

/// What is known of a query's signature before anything else of it is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seal {
    pub(super) signature: Signature,
    /// How many bytes the response's signature takes.
    pub(super) room: u16,
}

impl Server {
    /// Answers a packet into `out`, or says that it takes time; its signature is looked at first.
    pub(super) fn opened(&self, packet: &[u8], arrival: &Arrival, now: Instant, out: &mut Vec<u8>) -> Outcome {
        let keys = &self.parts.keys;
        if keys.is_empty() || !looks_signed(packet) {
            return self.answer(packet, Seal::default(), arrival, now, out);
        }
        let (mut bare, seconds) = (packet.to_vec(), self.parts.outside.unix());
        let accepted = Session::accept(|name| keys.get(name).map(Arc::clone), &mut bare, seconds);
        // What was signed has the id that it began with; the response has the one that it came with.
        bare[..2].copy_from_slice(&packet[..2]);
        match accepted {
            Ok(None) => self.answer(&bare, Seal::default(), arrival, now, out),
            Ok(Some(session)) => {
                let seal = Seal { signature: Signature::Valid, room: session.room() as u16 };
                let mut signer = Box::new(Signer { session, outside: Arc::clone(&self.parts.outside) });
                let mut outcome = self.answer(&bare, seal, arrival, now, out);
                match &mut outcome {
                    Outcome::Answer => signer.sign(out),
                    Outcome::Later(later) => later.signer = Some(signer),
                    Outcome::Transfer(transfer) => transfer.signer = Some(signer),
                    Outcome::Drop => {}
                }
                outcome
            }
            Err(refused) => {
                let seal = Seal { signature: Signature::Wrong, room: 0 };
                let outcome = self.answer(&bare, seal, arrival, now, out);
                // Where no `tsig` looks at the name, signatures are nobody's business.
                let told = u16_at(out, 2).is_some_and(|flags| flags & flag::RCODE == Rcode::NOTAUTH.0);
                if matches!(outcome, Outcome::Answer) && told {
                    refused.answer(out, seconds);
                }
                outcome
            }
        }
    }
}

/// Whether a message may have a TSIG record: type and class stand somewhere in it.
fn looks_signed(packet: &[u8]) -> bool {
    let [high, low] = kind::TSIG.to_be_bytes();
    u16_at(packet, 10).is_some_and(|additional| additional > 0)
        && packet[HEADER..].windows(4).any(|words| words == [high, low, 0, 255])
}

/// Sends a message, signed where there is a key, and waits for the answer, whose signature is right then.
pub(super) async fn ask(
    outside: &Arc<dyn Outside>,
    key: Option<&Arc<Key>>,
    mut exchange: Exchange,
) -> Result<Vec<u8>, Unanswered> {
    let session = key.map(|key| Session::request(Arc::clone(key), &mut exchange.message, outside.unix()));
    let mut answer = outside.exchange(exchange).await?;
    if let Some(mut session) = session {
        session.verify(&mut answer, outside.unix())?;
    }
    Ok(answer)
}

/// Why there is no answer that can be believed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unanswered {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("{0}")]
    Signature(#[from] crate::authority::tsig::TsigError),
}
