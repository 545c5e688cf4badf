//! `tls { acme … }`: what proves to an authority that a domain is this server's (RFC 8555 §8.4). It is answered wherever it is asked for.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use crate::{
    answer::{AnswerBuilder, Owner, Section},
    chain::CHALLENGE,
    message::rtype,
    name::{BadName, Name, QueryName},
    server::{Knowing, Look, Said},
};

/// What is proved at the moment: texts by the name that they are asked for at, in the wire form. Several domains may share one (a name
/// and the wildcard below it).
#[derive(Debug, Default)]
pub struct Challenges(RwLock<HashMap<Box<[u8]>, Vec<String>>>);

impl Challenges {
    /// Answers for a domain with this text, too, of at most 255 bytes, until what is returned is dropped.
    ///
    /// # Errors
    /// When the domain is so long that there is no name for its challenge.
    pub fn answer(self: &Arc<Self>, domain: &Name, text: &str) -> Result<Challenge, BadName> {
        let name: Box<[u8]> = domain.child(CHALLENGE)?.wire().into();
        let mut texts = self.0.write().unwrap_or_else(PoisonError::into_inner);
        texts.entry(name.clone()).or_default().push(text.to_owned());
        Ok(Challenge { all: Arc::clone(self), name, text: text.to_owned() })
    }

    /// Whether a question is for what is proved now.
    pub(crate) fn has(&self, name: &QueryName, qtype: u16) -> bool {
        may_prove(name, qtype) && self.0.read().unwrap_or_else(PoisonError::into_inner).contains_key(name.wire())
    }
}

/// Whether a question is one by which authorities have domains proved.
fn may_prove(name: &QueryName, qtype: u16) -> bool {
    qtype == rtype::TXT && name.label(0) == CHALLENGE.as_bytes()
}

/// A text that is answered as long as this is there.
#[derive(Debug)]
pub struct Challenge {
    all: Arc<Challenges>,
    name: Box<[u8]>,
    text: String,
}

impl Drop for Challenge {
    fn drop(&mut self) {
        let mut all = self.all.0.write().unwrap_or_else(PoisonError::into_inner);
        let Some(texts) = all.get_mut(&self.name) else { return };
        if let Some(own) = texts.iter().position(|text| *text == self.text) {
            texts.swap_remove(own);
        }
        if texts.is_empty() {
            all.remove(&self.name);
        }
    }
}

/// The link that answers.
#[derive(Debug)]
pub(crate) struct Proving(pub(crate) Arc<Challenges>);

impl Knowing for Proving {
    fn say(&self, look: &Look<'_>) -> Said {
        if !may_prove(look.name, look.qtype) {
            return Said::Pass;
        }
        let all = self.0.0.read().unwrap_or_else(PoisonError::into_inner);
        let Some(texts) = all.get(look.name.wire()) else { return Said::Pass };
        let mut builder = AnswerBuilder::new(&Name::from_query(look.name));
        for text in texts {
            let text = &text.as_bytes()[..text.len().min(255)];
            let mut data = vec![text.len() as u8];
            data.extend_from_slice(text);
            // Nobody is to keep it: the next one is another one.
            builder.push(Section::Answer, Owner::Question, rtype::TXT, 0, &data);
        }
        Said::Answer(builder.build())
    }
}
