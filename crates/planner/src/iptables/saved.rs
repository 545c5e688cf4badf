//! What `iptables-save` prints.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{self, Write as _},
    net::IpAddr,
};

use podnet_model::Protocol;

use super::{ChainKey, Table, Transport, concerns, is_ours};
use crate::ruleset::FrontendKey;

/// Chains that podnet always has in the mode `iptables`, and kube-proxy never, one in each table.
const MARKS: [(Table, &str); 2] = [(Table::Nat, "KUBE-PING"), (Table::Filter, "KUBE-CLUSTER-IPS")];

/// The same of the mode `ipvs`: tables are written one after the other, and any one may be the last before a power cut.
const MARKS_OF_IPVS: [(Table, &str); 3] =
    [(Table::Filter, "KUBE-UNSERVED"), (Table::Nat, "KUBE-NODE-ADDRESSES"), (Table::Mangle, "KUBE-ATTRACT")];

/// The chains that are there, everybody's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Saved {
    /// Each chain's rules, from behind its name on.
    pub chains: BTreeMap<ChainKey, Vec<String>>,
}

impl Saved {
    /// Reads it. Tables that podnet has nothing in are left out, and so is what nobody knows.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut chains = BTreeMap::<ChainKey, Vec<String>>::new();
        let mut table = None;
        for line in text.lines() {
            match line.split_at_checked(1) {
                Some(("*", name)) => table = Table::ALL.into_iter().find(|table| table.name() == name),
                Some((":", rest)) => {
                    if let (Some(table), Some(name)) = (table, rest.split(' ').next()) {
                        chains.entry(ChainKey::new(table, name)).or_default();
                    }
                }
                Some(("-", _)) => {
                    // A rule for every packet that does nothing is its chain's name alone.
                    let rest = line.strip_prefix("-A ").map(|rest| rest.split_once(' ').unwrap_or((rest, "")));
                    if let (Some(table), Some((name, rule))) = (table, rest) {
                        chains.entry(ChainKey::new(table, name)).or_default().push(rule.to_owned());
                    }
                }
                _ => {}
            }
        }
        Self { chains }
    }

    /// What of it is podnet's, in the words of `iptables-save`: its chains, and what leads into them from the kernel's own.
    #[must_use]
    pub fn own(&self) -> String {
        let mut text = String::new();
        for table in Table::ALL {
            // Writing into a String cannot fail.
            let _ = self.own_of(table, &mut text);
        }
        text
    }

    fn own_of(&self, table: Table, text: &mut String) -> fmt::Result {
        let is_told = |key: &ChainKey| key.table == table && concerns(&key.name);
        let chains = || self.chains.iter().filter(|(key, _)| is_told(key));
        if chains().next().is_none() {
            return Ok(());
        }
        writeln!(text, "*{table}")?;
        for (key, _) in chains() {
            writeln!(text, ":{} - [0:0]", key.name)?;
        }
        for (key, rules) in chains() {
            let is_own = |rule: &&String| is_ours(&key.name) || leads_to(rule).is_some_and(is_ours);
            for rule in rules.iter().filter(is_own) {
                writeln!(text, "-A {} {rule}", key.name)?;
            }
        }
        writeln!(text, "COMMIT")
    }

    /// Whether podnet's chains are there, and not kube-proxy's, which have the same names but for some.
    #[must_use]
    pub fn is_of_podnet(&self) -> bool {
        self.has_one_of(&MARKS)
    }

    /// Whether podnet's chains of the mode `ipvs` are there.
    #[must_use]
    pub fn is_of_podnet_in_ipvs(&self) -> bool {
        self.has_one_of(&MARKS_OF_IPVS)
    }

    /// The frontends of a protocol that podnet's chains of the mode `iptables` translate; ports of nodes are taken to be at these addresses.
    #[must_use]
    pub fn frontends(&self, protocol: Protocol, node_port_addrs: &[IpAddr]) -> BTreeSet<FrontendKey> {
        let rules = |name: &'static str| self.chains.get(&ChainKey::new(Table::Nat, name)).into_iter().flatten();
        let at = |rule: &String| {
            let (addr, port) = destination(rule).zip(port_of(rule, protocol))?;
            Some(FrontendKey { addr, protocol, port })
        };
        let of_node = |port| node_port_addrs.iter().map(move |addr| FrontendKey { addr: *addr, protocol, port });
        let everywhere = rules("KUBE-NODEPORTS").filter_map(|rule| port_of(rule, protocol)).flat_map(of_node);
        rules("KUBE-SERVICES").filter_map(at).chain(everywhere).collect()
    }

    fn has_one_of(&self, marks: &[(Table, &str)]) -> bool {
        marks.iter().any(|(table, name)| self.chains.contains_key(&ChainKey::new(*table, *name)))
    }

    /// The chains that some rule outside of podnet's own leads to. What the kernel's own chains have for podnet is no such rule.
    pub(super) fn used_by_others(&self) -> BTreeSet<ChainKey> {
        let foreign = self.chains.iter().filter(|(key, _)| !concerns(&key.name));
        let leads = |(key, rules): (&ChainKey, &Vec<String>)| {
            let table = key.table;
            let names: Vec<_> = rules.iter().filter_map(|rule| leads_to(rule)).map(str::to_owned).collect();
            names.into_iter().map(move |name| ChainKey::new(table, name))
        };
        foreign.flat_map(leads).collect()
    }
}

/// Whether the chains of Services in the table `nat` are kube-proxy's: the one through which all Services are reached is there, and none of
/// those that kube-proxy never has. `has` answers whether there is a chain of that name.
///
/// # Errors
/// What `has` says.
pub fn nat_is_of_kube_proxy<E>(mut has: impl FnMut(&str) -> Result<bool, E>) -> Result<bool, E> {
    if !has("KUBE-SERVICES")? {
        return Ok(false);
    }
    for (_, name) in MARKS.iter().chain(&MARKS_OF_IPVS).filter(|(table, _)| *table == Table::Nat) {
        if has(name)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether it is one of the kernel's own chains.
pub(super) fn is_built_in(name: &str) -> bool {
    matches!(name, "PREROUTING" | "INPUT" | "FORWARD" | "OUTPUT" | "POSTROUTING")
}

/// The port that a rule is for, where it is for one of the protocol. It stands behind the comment, which may say anything.
fn port_of(rule: &str, protocol: Protocol) -> Option<u16> {
    let (_, rest) = rule.rsplit_once(&format!(" -m {} --dport ", Transport::Ports(protocol)))?;
    rest.split(' ').next()?.parse().ok()
}

/// The one address that a rule is for. It stands first.
fn destination(rule: &str) -> Option<IpAddr> {
    let (addr, length) = rule.strip_prefix("-d ")?.split(' ').next()?.split_once('/')?;
    let addr: IpAddr = addr.parse().ok()?;
    let all = if addr.is_ipv4() { "32" } else { "128" };
    (length == all).then_some(addr)
}

/// The chain, or the target, that a rule leads to. Its options stand behind it, and its conditions before; a comment is in quotes.
pub(super) fn leads_to(rule: &str) -> Option<&str> {
    let mut quoted = false;
    let unquoted = rule.split(' ').filter(|word| {
        let outside = !quoted;
        let escaped = word.matches("\\\"").count();
        if (word.matches('"').count() - escaped) % 2 == 1 {
            quoted = !quoted;
        }
        outside
    });
    unquoted.skip_while(|word| !matches!(*word, "-j" | "-g")).nth(1)
}
