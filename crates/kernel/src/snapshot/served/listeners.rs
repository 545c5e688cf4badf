//! Where an agent listens for Services, and what is led there.

use std::collections::BTreeSet;

use podnet_planner::{ruleset::FrontendKey, services::userspace::Led};
use serde::{Deserialize, Serialize};

use crate::apart::Seen;

/// What there is of one family.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Listeners {
    led: BTreeSet<String>,
    at_node: BTreeSet<String>,
    /// In the namespace beside the node's; none where there is none.
    inside: Option<BTreeSet<String>>,
}

impl Listeners {
    /// What is seen, in words.
    #[must_use]
    pub fn of(seen: &Seen) -> Self {
        let all = |keys: &BTreeSet<FrontendKey>| keys.iter().map(ToString::to_string).collect();
        Self {
            led: seen.led.iter().map(led).collect(),
            at_node: all(&seen.at_node),
            inside: seen.inside.as_ref().map(all),
        }
    }

    /// What of that which is wanted is not there, in words.
    #[must_use]
    pub fn differences(&self, wanted: &Self) -> Vec<String> {
        let nothing = BTreeSet::new();
        let (inside, wanted_inside) =
            (self.inside.as_ref().unwrap_or(&nothing), wanted.inside.as_ref().unwrap_or(&nothing));
        let mut told = Vec::new();
        if self.inside.is_none() && !wanted_inside.is_empty() {
            told.push("there is no namespace in which its agent listens for Services".to_owned());
        } else {
            let unheard = wanted_inside.difference(inside);
            told.extend(unheard.map(|key| format!("the agent does not listen at {key} in the namespace for Services")));
        }
        let unheard = wanted.at_node.difference(&self.at_node);
        told.extend(unheard.map(|key| format!("the agent does not listen at {key} in the node's network")));
        let unled = wanted.led.difference(&self.led);
        told.extend(unled.map(|what| format!("{what} is not led to the namespace in which the agent listens")));
        told
    }
}

fn led(what: &Led) -> String {
    match *what {
        Led::Address(addr) => addr.to_string(),
        Led::Port { addr, protocol, port } => FrontendKey { addr, protocol, port }.to_string(),
    }
}
