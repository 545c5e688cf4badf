//! One exchange of signed messages.

use std::sync::Arc;

use super::{
    mac::Key,
    record::{BadRecord, Tsig},
};
use crate::{message::flag, name::Name};

/// How far the clocks of two sides may be apart, in seconds (RFC 8945 §10).
const FUDGE: u16 = 300;
/// How many messages of a long answer may be without signature one after the other (RFC 8945 §5.3.1).
const MAX_UNSIGNED: usize = 99;
/// The response code of a query that is refused for its signature (RFC 8945 §5.2).
const NOTAUTH: u8 = 9;

/// What is wrong with a signature (RFC 8945 §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Code {
    /// The TSIG record is not where or what it has to be.
    #[error("the TSIG record is malformed")]
    Malformed,
    /// The key is not known.
    #[error("the key, or its algorithm, is not known")]
    BadKey,
    /// The signature is not the message's.
    #[error("the signature does not fit the message")]
    BadSignature,
    /// The clocks are too far apart.
    #[error("the times of both sides are more than five minutes apart")]
    BadTime,
    /// The signature is shorter than the algorithm's.
    #[error("the signature is cut")]
    BadTruncation,
}

impl Code {
    fn number(self) -> u16 {
        match self {
            Self::Malformed => 1,
            Self::BadSignature => 16,
            Self::BadKey => 17,
            Self::BadTime => 18,
            Self::BadTruncation => 22,
        }
    }
}

/// Why an answer is not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TsigError {
    /// Its signature is wrong.
    #[error("key {key}: {code}")]
    Wrong {
        /// The key.
        key: Name,
        /// What is wrong.
        code: Code,
    },
    /// It has none, or its last message has none.
    #[error("key {key}: the answer is not signed")]
    Unsigned {
        /// The key.
        key: Name,
    },
    /// The server says that the request's signature is wrong.
    #[error("key {key}: the server finds the request's signature wrong (TSIG error {code})")]
    Refused {
        /// The key.
        key: Name,
        /// The number that it tells.
        code: u16,
    },
}

/// A query whose signature is wrong.
#[derive(Clone, Debug)]
pub struct Refused {
    /// What is wrong.
    pub code: Code,
    tsig: Option<Box<Tsig>>,
    /// The key, where the signature is right and the time is not: then the answer is signed.
    key: Option<Arc<Key>>,
}

/// The signatures of one query and its answer.
#[derive(Clone, Debug)]
pub struct Session {
    key: Arc<Key>,
    /// The last signature.
    prior: Vec<u8>,
    /// No message of the answer has been signed.
    first: bool,
    /// Messages since the last signed one.
    pub(super) unsigned: Vec<u8>,
    count: usize,
}

impl Session {
    /// Signs a query. `now` is in seconds since 1970.
    #[must_use]
    pub fn request(key: Arc<Key>, message: &mut Vec<u8>, now: u64) -> Self {
        let mut tsig = Tsig::of(&key, message, now, FUDGE);
        let mut data = message.clone();
        tsig.variables(&mut data);
        tsig.mac = key.sign(&data);
        tsig.put(message);
        Self::new(key, tsig.mac)
    }

    fn new(key: Arc<Key>, prior: Vec<u8>) -> Self {
        Self { key, prior, first: true, unsigned: Vec::new(), count: 0 }
    }

    /// Checks a query and takes the TSIG record off it; none when it has none. `keys` finds a key by name.
    ///
    /// # Errors
    /// When the signature is wrong, with what to answer.
    pub fn accept(
        keys: impl Fn(&Name) -> Option<Arc<Key>>,
        message: &mut Vec<u8>,
        now: u64,
    ) -> Result<Option<Self>, Refused> {
        let malformed = |_: BadRecord| Refused { code: Code::Malformed, tsig: None, key: None };
        let Some(tsig) = Tsig::take(message).map_err(malformed)? else { return Ok(None) };
        let refused = |code, tsig: &Tsig, key| Refused { code, tsig: Some(Box::new(tsig.clone())), key };
        // RFC 8945 §5.2: key, signature, then time.
        let key = keys(&tsig.key).filter(|key| key.algorithm().wire() == tsig.algorithm);
        let Some(key) = key else { return Err(refused(Code::BadKey, &tsig, None)) };
        let mut data = message.clone();
        tsig.variables(&mut data);
        check(&key, &tsig, &data).map_err(|code| refused(code, &tsig, None))?;
        if tsig.time.abs_diff(now) > u64::from(tsig.fudge) {
            return Err(refused(Code::BadTime, &tsig, Some(key)));
        }
        Ok(Some(Self::new(key, tsig.mac)))
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// How many bytes a signature adds to a message.
    #[must_use]
    pub fn room(&self) -> usize {
        // Owner, type, class, time to live and length; then RFC 8945 §4.2 without other data.
        self.key.name().wire().len() + 10 + self.key.algorithm().wire().len() + 16 + self.key.size()
    }

    /// Signs the next message of the answer.
    pub fn sign(&mut self, message: &mut Vec<u8>, now: u64) {
        let mut tsig = Tsig::of(&self.key, message, now, FUDGE);
        let data = self.covered(message, &tsig);
        tsig.mac = self.key.sign(&data);
        tsig.put(message);
        self.signed(tsig.mac);
    }

    /// Checks the next message of the answer and takes the TSIG record off it. The first has to have one, and the last: call
    /// [`Session::finish`] then.
    ///
    /// # Errors
    /// When the answer is not to be believed.
    pub fn verify(&mut self, message: &mut Vec<u8>, now: u64) -> Result<(), TsigError> {
        let name = self.key.name().clone();
        let wrong = |code| TsigError::Wrong { key: name.clone(), code };
        let Some(tsig) = Tsig::take(message).map_err(|_| wrong(Code::Malformed))? else {
            self.count += 1;
            if self.first || self.count > MAX_UNSIGNED {
                return Err(TsigError::Unsigned { key: name });
            }
            self.unsigned.extend_from_slice(message);
            return Ok(());
        };
        if tsig.key != name || tsig.algorithm != self.key.algorithm().wire() {
            return Err(wrong(Code::BadKey));
        }
        if tsig.mac.is_empty() && tsig.error != 0 {
            // Unsigned, so anybody may have said so: the request has failed in any case.
            return Err(TsigError::Refused { key: name, code: tsig.error });
        }
        let data = self.covered(message, &tsig);
        check(&self.key, &tsig, &data).map_err(wrong)?;
        if tsig.error != 0 {
            return Err(TsigError::Refused { key: name, code: tsig.error });
        }
        if tsig.time.abs_diff(now) > u64::from(tsig.fudge) {
            return Err(wrong(Code::BadTime));
        }
        self.signed(tsig.mac);
        Ok(())
    }

    /// The answer has ended.
    ///
    /// # Errors
    /// When its last message was not signed.
    pub fn finish(&self) -> Result<(), TsigError> {
        if self.first || self.count > 0 {
            return Err(TsigError::Unsigned { key: self.key.name().clone() });
        }
        Ok(())
    }

    /// What a signature covers: the last signature, all messages since, and for the first message what the record says.
    fn covered(&self, message: &[u8], tsig: &Tsig) -> Vec<u8> {
        let mut data = Vec::with_capacity(self.prior.len() + self.unsigned.len() + message.len() + 300);
        data.extend_from_slice(&(self.prior.len() as u16).to_be_bytes());
        data.extend_from_slice(&self.prior);
        data.extend_from_slice(&self.unsigned);
        data.extend_from_slice(message);
        if self.first {
            tsig.variables(&mut data);
        } else {
            tsig.timers(&mut data);
        }
        data
    }

    fn signed(&mut self, mac: Vec<u8>) {
        self.prior = mac;
        self.first = false;
        self.unsigned.clear();
        self.count = 0;
    }
}

impl Refused {
    /// Makes a response, which has the query's id and question, say what is wrong (RFC 8945 §5.2): its code, and a TSIG record
    /// that is signed when only the time is wrong. `now` is in seconds since 1970.
    pub fn answer(&self, response: &mut Vec<u8>, now: u64) {
        let rcode = if self.code == Code::Malformed { 1 } else { NOTAUTH };
        if let Some(byte) = response.get_mut(3) {
            *byte = *byte & !(flag::RCODE as u8) | rcode;
        }
        let Some(query) = &self.tsig else { return };
        let id = crate::message::u16_at(response, 0).unwrap_or(0);
        let mut tsig = Tsig { id, error: self.code.number(), mac: Vec::new(), other: Vec::new(), ..Tsig::clone(query) };
        if let Some(key) = &self.key {
            tsig.other = now.to_be_bytes()[2..].to_vec();
            let session = Session::new(key.clone(), query.mac.clone());
            tsig.mac = key.sign(&session.covered(response, &tsig));
        }
        tsig.put(response);
    }
}

fn check(key: &Key, tsig: &Tsig, data: &[u8]) -> Result<(), Code> {
    match tsig.mac.len() {
        size if size > key.size() || size < 10.max(key.size() / 2) => Err(Code::Malformed),
        // RFC 8945 §5.2.2.1: a server may ask for whole signatures.
        size if size < key.size() => Err(Code::BadTruncation),
        _ if key.verify(data, &tsig.mac) => Ok(()),
        _ => Err(Code::BadSignature),
    }
}
