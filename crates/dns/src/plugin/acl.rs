//! `acl`: who may ask for what.

use crate::{
    answer::{Answer, extended},
    chain::{AclAction, AclOptions},
    message::Rcode,
    server::{Failure, Knowing, Look, Said},
};

/// The plugin.
#[derive(Clone, Debug)]
pub struct Acl(pub AclOptions);

impl Knowing for Acl {
    fn takes_chaos(&self) -> bool {
        true
    }

    fn guards(&self) -> bool {
        true
    }

    fn say(&self, look: &Look<'_>) -> Said {
        match self.0.action(look.name, look.qtype, look.arrival.from.ip()) {
            AclAction::Allow => Said::Pass,
            AclAction::Block => Said::Answer(Answer::code(Rcode::REFUSED).because(extended::BLOCKED, "")),
            AclAction::Filter => Said::Answer(Answer::code(Rcode::NOERROR).because(extended::FILTERED, "")),
            AclAction::Drop => Said::Fail(Failure::Silent),
        }
    }
}
