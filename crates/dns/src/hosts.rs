//! The names of a hosts file (hosts(5)), as the `hosts` plugin answers them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use crate::{
    answer::{Answer, AnswerBuilder, Owner, Section},
    message::rtype,
    name::{Name, QueryName, reverse_name},
};

/// A table of hosts.
#[derive(Clone, Debug, Default)]
pub struct Hosts {
    names: HashMap<Box<[u8]>, Host>,
    addresses: HashMap<IpAddr, Answer>,
    wildcards: bool,
}

#[derive(Clone, Debug, Default)]
struct Host {
    v4: Vec<IpAddr>,
    v6: Vec<IpAddr>,
    ttl: u32,
}

impl Hosts {
    /// Reads a hosts file and adds the `inline` entries. Lines that are no entry are passed over, as every reader of hosts files
    /// does. `reverse`: addresses have names, too.
    #[must_use]
    pub fn new(text: &str, inline: &[(IpAddr, Name)], ttl: u32, reverse: bool) -> Self {
        let mut entries: Vec<(IpAddr, Name)> = text.lines().flat_map(line).collect();
        entries.extend(inline.iter().cloned());
        let mut names: HashMap<Box<[u8]>, Host> = HashMap::new();
        let mut back: BTreeMap<IpAddr, BTreeSet<Name>> = BTreeMap::new();
        for (addr, name) in entries {
            let host = names.entry(name.wire().into()).or_default();
            host.ttl = ttl;
            let addrs = if addr.is_ipv4() { &mut host.v4 } else { &mut host.v6 };
            if !addrs.contains(&addr) {
                addrs.push(addr);
            }
            if !name.wire().starts_with(b"\x01*") {
                back.entry(addr).or_default().insert(name);
            }
        }
        let wildcards = names.keys().any(|name| name.starts_with(b"\x01*"));
        let addresses = back.into_iter().filter(|_| reverse).map(|(addr, names)| {
            let mut answer = AnswerBuilder::new(&reverse_name(addr));
            for name in names {
                answer.push(Section::Answer, Owner::Question, rtype::PTR, ttl, name.wire());
            }
            (addr, answer.build())
        });
        Self { addresses: addresses.collect(), names, wildcards }
    }

    /// How many addresses the names have, and how many names the addresses.
    #[must_use]
    pub fn entries(&self) -> usize {
        let addrs = self.names.values().map(|host| host.v4.len() + host.v6.len());
        let names = self.addresses.values().map(|answer| usize::from(answer.counts[0]));
        addrs.chain(names).sum()
    }

    /// The answer to a question; none when the table does not know the name. Authoritative and empty when it knows the name and
    /// has no record of the type.
    #[must_use]
    pub fn answer(&self, name: &QueryName, qtype: u16) -> Option<Answer> {
        if qtype == rtype::PTR {
            return self.addresses.get(&name.reverse_address()?).cloned();
        }
        let host = self.names.get(name.wire()).or_else(|| self.wildcard(name))?;
        let addrs = match qtype {
            rtype::A => &host.v4,
            rtype::AAAA => &host.v6,
            _ => return Some(Answer::nothing()),
        };
        let mut answer = AnswerBuilder::new(&Name::from_query(name));
        for addr in addrs {
            answer.push_addr(Section::Answer, Owner::Question, host.ttl, *addr);
        }
        Some(answer.build())
    }

    fn wildcard(&self, name: &QueryName) -> Option<&Host> {
        if !self.wildcards || name.labels() == 0 {
            return None;
        }
        let mut wire = b"\x01*".to_vec();
        wire.extend_from_slice(name.suffix(1));
        self.names.get(wire.as_slice())
    }
}

fn line(line: &str) -> Vec<(IpAddr, Name)> {
    let line = line.split('#').next().unwrap_or_default();
    let mut words = line.split_ascii_whitespace();
    let Some(addr) = words.next().and_then(|word| word.split('%').next()?.parse().ok()) else { return Vec::new() };
    words.filter_map(|name| Some((addr, Name::parse(name).ok()?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(name: &str) -> QueryName {
        QueryName::from(&Name::parse(name).unwrap())
    }

    #[test]
    fn a_hosts_file_and_inline_entries_answer_by_name_and_by_address() {
        let inline = [("10.0.0.20".parse().unwrap(), Name::parse("Harbor.example.com").unwrap())];
        let hosts =
            Hosts::new("# comment\n127.0.0.1 localhost lo # x\n::1 localhost\nbroken line\n", &inline, 60, true);
        assert_eq!(hosts.answer(&asked("localhost"), rtype::A).unwrap().counts, [1, 0, 0]);
        assert_eq!(hosts.answer(&asked("localhost"), rtype::AAAA).unwrap().counts, [1, 0, 0]);
        assert_eq!(hosts.answer(&asked("harbor.example.com"), rtype::AAAA), Some(Answer::nothing().clone()));
        assert_eq!(hosts.answer(&asked("20.0.0.10.in-addr.arpa"), rtype::PTR).unwrap().counts, [1, 0, 0]);
        assert_eq!(hosts.answer(&asked("nowhere"), rtype::A), None);
        assert_eq!(Hosts::new("", &inline, 60, false).answer(&asked("20.0.0.10.in-addr.arpa"), rtype::PTR), None);
    }

    #[test]
    fn a_wildcard_stands_for_one_label() {
        let hosts = Hosts::new("192.0.2.1 *.example.com\n192.0.2.2 a.example.com", &[], 60, true);
        assert!(hosts.answer(&asked("b.example.com"), rtype::A).is_some());
        assert!(hosts.answer(&asked("c.b.example.com"), rtype::A).is_none());
        assert!(hosts.answer(&asked("example.com"), rtype::A).is_none());
    }
}
