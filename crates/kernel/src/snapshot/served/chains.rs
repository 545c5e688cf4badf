//! Chains of iptables.

use std::{
    collections::HashSet,
    net::{IpAddr, SocketAddr},
};

use ipnet::IpNet;
use podnet_model::Family;
use podnet_planner::iptables::{ChainKey, Hook, Rules, Saved, difference};
use serde::{Deserialize, Serialize};

use super::{Untold, take_room};
use crate::{
    iptables::{Iptables, Variant},
    netns::NetNs,
};

/// So many rules are named of one chain; more are counted.
const NAMED: usize = 3;

/// podnet's chains of one family, and what leads into them, in the words of `iptables-save`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Chains(String);

impl Chains {
    /// What of all chains is podnet's.
    #[must_use]
    pub fn of(saved: &Saved) -> Self {
        Self(saved.own())
    }

    /// Those of the variant that the host uses, as long as there is room for so many bytes.
    pub(super) fn take(netns: &NetNs, family: Family, room: &mut usize) -> Result<Self, Untold> {
        let variant = Variant::of_host(netns)?;
        let chains = Self::of(&Iptables::new(netns.clone(), family, variant)?.saved()?);
        take_room(room, chains.0.len(), "bytes of rules of iptables")?;
        Ok(chains)
    }

    /// Whether something of them drops what fits no connection.
    #[must_use]
    pub fn drop_invalid(&self) -> bool {
        self.0.lines().any(|line| line.ends_with("--ctstate INVALID -j DROP"))
    }

    /// What of these rules is not there as it has to be, in words. Chains that are there besides lead nobody anywhere.
    #[must_use]
    pub fn differences(&self, wanted: &Rules) -> Vec<String> {
        self.all(wanted).into_iter().filter(|(is_same, _)| !is_same).map(|(_, told)| told).collect()
    }

    /// What of these rules is there in other words: another version of iptables may have told it so.
    #[must_use]
    pub fn reworded(&self, wanted: &Rules) -> Vec<String> {
        let may_be =
            |told: String| format!("{told}, which may be the same in the words of another version of iptables");
        self.all(wanted).into_iter().filter(|(is_same, _)| *is_same).map(|(_, told)| may_be(told)).collect()
    }

    /// All that differs, each with whether it may be the same in other words.
    fn all(&self, wanted: &Rules) -> Vec<(bool, String)> {
        let saved = Saved::parse(&self.0);
        let rewrite = difference(wanted, &saved, |_, _| false);
        let unled = rewrite.hooks.iter().map(|hook| {
            let is_like = |(at, words): &&(ChainKey, String)| hook.is_like(at, words);
            not_led(hook, rewrite.unhooked.iter().find(is_like).map(|(_, words)| words.as_str()))
        });
        let other = rewrite.chains.iter().map(|(key, rules)| {
            let rules: Vec<String> = rules.iter().map(ToString::to_string).collect();
            match saved.chains.get(key) {
                Some(there) => in_chain(key, &rules, there),
                None => (false, format!("there is no {key} of iptables")),
            }
        });
        unled.chain(other).collect()
    }
}

fn not_led(hook: &Hook, instead: Option<&str>) -> (bool, String) {
    let Hook { at, rule } = hook;
    match instead {
        None => (false, format!("{at} of iptables lacks the rule `{rule}`")),
        Some(words) => {
            let is_same = fixed(words) == fixed(&rule.to_string());
            (is_same, format!("{at} of iptables has the rule `{words}` in place of `{rule}`"))
        }
    }
}

/// What differs in a chain.
fn in_chain(key: &ChainKey, wanted: &[String], there: &[String]) -> (bool, String) {
    let (missing, more) = (without(wanted, there), without(there, wanted));
    // Rules count up in their order: who says one in other words says it in its place.
    let is_same = !missing.is_empty()
        && wanted.len() == there.len()
        && missing.len() == more.len()
        && missing.iter().zip(&more).all(|(wanted, there)| fixed(wanted) == fixed(there));
    let told = match (&missing[..], &more[..]) {
        ([], []) => format!("{key} of iptables has its rules in another order, or more than once"),
        ([], more) => format!("{key} of iptables has rules that nobody asked for: {}", named(more)),
        (missing, []) => format!("{key} of iptables lacks the rule {}", named(missing)),
        (missing, more) => format!("{key} of iptables lacks the rule {} and has {}", named(missing), named(more)),
    };
    (is_same, told)
}

/// What all versions of iptables say of a rule in the same words: where it leads, and which addresses and ports it names.
fn fixed(rule: &str) -> (&str, Vec<&str>) {
    let behind = rule.rsplit_once("-j ").map_or("", |(_, behind)| behind);
    let target = behind.split(' ').next().unwrap_or_default();
    let is_addr = |word: &&str| {
        word.parse::<SocketAddr>().is_ok() || word.parse::<IpAddr>().is_ok() || word.parse::<IpNet>().is_ok()
    };
    let words = rule.split(' ').map(|word| word.strip_suffix("/32").or(word.strip_suffix("/128")).unwrap_or(word));
    let mut named: Vec<&str> = words.filter(is_addr).collect();
    let ports = rule.split(' ').zip(rule.split(' ').skip(1)).filter(|(option, _)| option.ends_with("port"));
    named.extend(ports.map(|(_, port)| port));
    named.sort_unstable();
    (target, named)
}

/// Those of some rules that others are not.
fn without<'a>(some: &'a [String], others: &[String]) -> Vec<&'a str> {
    let others: HashSet<&String> = others.iter().collect();
    some.iter().filter(|rule| !others.contains(rule)).map(String::as_str).collect()
}

/// The first of them, each in quotes.
fn named(rules: &[&str]) -> String {
    let more = rules.len().saturating_sub(NAMED);
    let first = rules.iter().take(NAMED).map(|rule| format!("`{rule}`")).collect::<Vec<_>>().join(", ");
    if more > 0 { format!("{first} and {more} more") } else { first }
}
