//! `acl`: who may ask for what.

use crate::{
    answer::{Answer, extended},
    chain::{AclAction, AclOptions},
    message::Rcode,
    metrics::{ByListener, Counter, Counting, Family},
    server::{Failure, Knowing, Look, Said},
};

/// The plugin: all that a server block has of it. What one of them allows the next does not forbid, as with CoreDNS.
#[derive(Clone, Debug)]
pub struct Acl {
    options: Vec<AclOptions>,
    counts: ByListener<Counts>,
}

/// What is counted at a listener.
#[derive(Debug)]
struct Counts {
    allowed: Counter,
    /// What was blocked, filtered and dropped in each zone of each.
    others: Vec<Vec<[Counter; 3]>>,
}

impl Acl {
    /// The plugin with its rules.
    pub(crate) fn new(options: Vec<AclOptions>, counting: &Counting) -> Self {
        let counts = counting.each(|spot| {
            let (server, view) = (("server", spot.server.as_str()), ("view", spot.view));
            let of_zone = |zone: String| {
                let families = [Family::AclBlocked, Family::AclFiltered, Family::AclDropped];
                families.map(|family| spot.counter(family, &[server, ("zone", zone.as_str()), view]))
            };
            let of = |options: &AclOptions| -> Vec<[Counter; 3]> {
                options.zones.iter().map(|zone| of_zone(zone.to_string())).collect()
            };
            Counts {
                allowed: spot.counter(Family::AclAllowed, &[server, view]),
                others: options.iter().map(of).collect(),
            }
        });
        Self { options, counts }
    }

    fn allow(&self, look: &Look<'_>) -> Said {
        if let Some(counts) = self.counts.at(look.arrival) {
            counts.allowed.count();
        }
        Said::Pass
    }
}

impl Knowing for Acl {
    fn takes_chaos(&self) -> bool {
        true
    }

    fn guards(&self) -> bool {
        true
    }

    fn say(&self, look: &Look<'_>) -> Said {
        let client = look.arrival.from.ip();
        let decided = self.options.iter().enumerate().find_map(|(place, options)| {
            let (action, zone) = options.decision(look.name, look.qtype, client)?;
            Some((action, place, zone))
        });
        let Some((action, place, zone)) = decided else { return self.allow(look) };
        let (which, said) = match action {
            AclAction::Allow => return self.allow(look),
            AclAction::Block => (0, Said::Answer(Answer::code(Rcode::REFUSED).because(extended::BLOCKED, ""))),
            AclAction::Filter => (1, Said::Answer(Answer::code(Rcode::NOERROR).because(extended::FILTERED, ""))),
            AclAction::Drop => (2, Said::Fail(Failure::Silent)),
        };
        let counts = self.counts.at(look.arrival);
        if let Some(of_zone) = counts.and_then(|counts| counts.others.get(place)?.get(zone)) {
            of_zone[which].count();
        }
        said
    }
}
