//! `tsig`: which queries have to be signed, and what happens to those that are not as they should be (RFC 8945).

use crate::{
    chain::TsigOptions,
    message::{Signature, flag},
    server::{Failure, Knowing, Look, Said},
};

/// The plugin. What it says depends on the signature that the server has looked at before.
#[derive(Debug)]
pub struct Tsig(pub TsigOptions);

impl Knowing for Tsig {
    fn takes_chaos(&self) -> bool {
        true
    }

    fn guards(&self) -> bool {
        true
    }

    fn say(&self, look: &Look<'_>) -> Said {
        let TsigOptions { zones, require, opcodes, .. } = &self.0;
        if !zones.iter().any(|zone| look.name.within(zone).is_some()) {
            return Said::Pass;
        }
        let opcode = (look.head.flags & flag::OPCODE) >> 11;
        match look.head.signature {
            Signature::Wrong => Said::Fail(Failure::BadSignature),
            Signature::Absent if require.holds(look.qtype) || opcodes.holds(opcode) => Said::Fail(Failure::Unsigned),
            Signature::Absent | Signature::Valid => Said::Pass,
        }
    }
}
