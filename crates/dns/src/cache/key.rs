//! What an answer is kept under.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    sync::LazyLock,
};

use smallvec::SmallVec;

use crate::{message::CLASS_IN, name::QueryName};

/// What an answer is kept under: the question in wire form (name in lower case, type, class) with the DO and CD bits, and the EDNS
/// options with which it is sent.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// The bits, the question, the options, one behind the other: a question says itself where it ends. Most need no memory of their
    /// own, so that looking for an answer costs none.
    bytes: SmallVec<[u8; 96]>,
    /// The length of the question.
    question: u16,
}

impl Key {
    /// The key of a question.
    #[must_use]
    pub fn new(question: &[u8], dnssec_ok: bool, checking_disabled: bool) -> Self {
        let mut bytes = SmallVec::new();
        bytes.push(u8::from(dnssec_ok) | u8::from(checking_disabled) << 1);
        bytes.extend_from_slice(question);
        Self { bytes, question: question.len() as u16 }
    }

    /// The key of a question of class IN for a name and type.
    #[must_use]
    pub fn of(name: &QueryName, qtype: u16, dnssec_ok: bool, checking_disabled: bool) -> Self {
        let mut key = Self::new(name.wire(), dnssec_ok, checking_disabled);
        let ([high, low], [class_high, class_low]) = (qtype.to_be_bytes(), CLASS_IN.to_be_bytes());
        key.bytes.extend_from_slice(&[high, low, class_high, class_low]);
        key.question += 4;
        key
    }

    /// The key of the question when it is sent with EDNS options, on which the answer may depend.
    #[must_use]
    pub fn with(mut self, options: &[u8]) -> Self {
        self.bytes.truncate(1 + usize::from(self.question));
        self.bytes.extend_from_slice(options);
        self
    }

    /// The EDNS options that are sent with it.
    #[must_use]
    pub fn options(&self) -> &[u8] {
        &self.bytes[1 + usize::from(self.question)..]
    }

    /// The question.
    #[must_use]
    pub fn question(&self) -> &[u8] {
        &self.bytes[1..=usize::from(self.question)]
    }

    /// DO: signatures are wanted.
    #[must_use]
    pub fn dnssec_ok(&self) -> bool {
        self.bytes[0] & 1 != 0
    }

    /// CD: the client checks signatures itself.
    #[must_use]
    pub fn checking_disabled(&self) -> bool {
        self.bytes[0] & 2 != 0
    }

    /// All that tells it from others.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// A number that is the same for the same key in all caches of this process, and that nobody outside can choose.
    pub(super) fn hash(&self) -> u64 {
        static KEYED: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        let mut hasher = KEYED.build_hasher();
        hasher.write(&self.bytes);
        hasher.finish()
    }
}
