//! `acl`.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{read, scope::Scope};
use crate::{
    corefile::{CorefileError, Directive},
    name::{Name, QueryName},
};

/// Who may ask for what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AclOptions {
    /// The zones whose names it guards.
    pub zones: Vec<Name>,
    /// The rules: the first that matches counts; what none matches is allowed.
    pub rules: Vec<AclRule>,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AclRule {
    /// What happens to a query that it matches.
    pub action: AclAction,
    /// The types of questions; empty means all.
    pub types: Vec<u16>,
    /// The clients; empty means all.
    pub sources: Vec<IpNet>,
}

/// What happens to a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AclAction {
    /// It goes on.
    Allow,
    /// It is answered with REFUSED.
    Block,
    /// It is answered with NOERROR and no records.
    Filter,
    /// It is not answered.
    Drop,
}

impl AclOptions {
    /// What happens to a query for `name` of a type from a client.
    #[must_use]
    pub fn action(&self, name: &QueryName, qtype: u16, client: IpAddr) -> AclAction {
        self.decision(name, qtype, client).map_or(AclAction::Allow, |(action, _)| action)
    }

    /// What a rule says to a query, and by its place the zone that the name lies in; none: no rule is about it.
    #[must_use]
    pub fn decision(&self, name: &QueryName, qtype: u16, client: IpAddr) -> Option<(AclAction, usize)> {
        let zones = self.zones.iter().enumerate().filter(|(_, zone)| name.within(zone).is_some());
        let (zone, _) = zones.max_by_key(|(_, zone)| zone.labels())?;
        let rule = self.rules.iter().find(|rule| rule.matches(qtype, client))?;
        Some((rule.action, zone))
    }
}

impl AclRule {
    fn matches(&self, qtype: u16, client: IpAddr) -> bool {
        let of_type = self.types.is_empty() || self.types.contains(&qtype);
        of_type && (self.sources.is_empty() || self.sources.iter().any(|net| net.contains(&client)))
    }
}

const ACTIONS: [&str; 4] = ["allow", "block", "filter", "drop"];

pub(super) fn parse(directive: &Directive, scope: &mut Scope<'_>) -> Result<AclOptions, CorefileError> {
    let zones = scope.zones_or(read::zones(&directive.arguments, "a zone of acl")?);
    let mut rules = Vec::new();
    scope.options(directive, |_, option| {
        rules.push(rule(option)?);
        Ok(())
    });
    Ok(AclOptions { zones, rules })
}

/// `ACTION [type QTYPE…] [net SOURCE…]`.
fn rule(option: &Directive) -> Result<AclRule, CorefileError> {
    let action = match option.name.text.to_ascii_lowercase().as_str() {
        "allow" => AclAction::Allow,
        "block" => AclAction::Block,
        "filter" => AclAction::Filter,
        "drop" => AclAction::Drop,
        _ => return Err(read::unknown("acl", option, &ACTIONS)),
    };
    let mut rule = AclRule { action, types: Vec::new(), sources: Vec::new() };
    let (mut all_types, mut all_sources) = (false, false);
    let mut words = option.arguments.iter().peekable();
    while let Some(section) = words.next() {
        let types = match section.text.as_str() {
            "type" => true,
            "net" => false,
            _ => return Err(section.bad("a section of an acl rule", "type or net")),
        };
        let mut values = 0;
        while let Some(word) = words.next_if(|word| !matches!(word.text.as_str(), "type" | "net")) {
            values += 1;
            match (word.text.as_str(), types) {
                ("*", true) => all_types = true,
                ("*", false) => all_sources = true,
                (_, true) => rule.types.push(read::record_type(word, "a type of acl")?),
                (_, false) => rule.sources.push(read::network(word, "a client of acl")?),
            }
        }
        if values == 0 {
            return Err(section.missing("at least one value, or * for all"));
        }
    }
    if all_types {
        rule.types.clear();
    }
    if all_sources {
        rule.sources.clear();
    }
    Ok(rule)
}
