//! `acl`: who may ask for what.

use std::sync::Arc;

use crate::{
    answer::{Answer, extended},
    chain::{AclAction, AclOptions},
    message::Rcode,
    metrics::{Metrics, Tally},
    server::{Failure, Knowing, Look, Said},
};

/// The plugin.
#[derive(Clone, Debug)]
pub struct Acl {
    /// The rules.
    pub options: AclOptions,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

impl Knowing for Acl {
    fn takes_chaos(&self) -> bool {
        true
    }

    fn guards(&self) -> bool {
        true
    }

    fn say(&self, look: &Look<'_>) -> Said {
        let action = self.options.action(look.name, look.qtype, look.arrival.from.ip());
        self.metrics.tally(match action {
            AclAction::Allow => Tally::AclAllowed,
            AclAction::Block => Tally::AclBlocked,
            AclAction::Filter => Tally::AclFiltered,
            AclAction::Drop => Tally::AclDropped,
        });
        match action {
            AclAction::Allow => Said::Pass,
            AclAction::Block => Said::Answer(Answer::code(Rcode::REFUSED).because(extended::BLOCKED, "")),
            AclAction::Filter => Said::Answer(Answer::code(Rcode::NOERROR).because(extended::FILTERED, "")),
            AclAction::Drop => Said::Fail(Failure::Silent),
        }
    }
}
