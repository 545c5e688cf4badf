//! Tables of `iptables-legacy`, which knows nothing of nf_tables nor tells anybody what changes in it: looked at, never changed. They are
//! looked at only where they are there, as asking for one would make it (`linux/netfilter_ipv4/ip_tables.h`).

mod chains;
mod packets;
mod table;

use std::{collections::BTreeSet, io, net::Ipv4Addr};

use ipnet::Ipv4Net;
use podnet_model::Family;

pub use chains::LegacyChains;
pub(crate) use packets::packets;
use table::Table;

/// `XT_TABLE_MAXNAMELEN`.
const NAME: usize = 32;
/// `struct ipt_entry`: addresses and devices, then where the target is and where the next entry, counters.
const ENTRY: usize = 112;
/// `struct xt_entry_target`, before the verdict of a standard target.
const TARGET: usize = 32;
/// `NF_INET_FORWARD`.
const FORWARD: usize = 2;
/// Verdicts of a standard target: `-NF_DROP - 1`, `-NF_ACCEPT - 1`.
const DROP: i32 = -1;
const ACCEPT: i32 = -2;

/// The chain `FORWARD` of the filter table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LegacyForward {
    /// Its policy is DROP.
    pub drops: bool,
    sources: BTreeSet<Ipv4Net>,
    destinations: BTreeSet<Ipv4Net>,
}

impl LegacyForward {
    /// Whether what is forwarded from and to the range passes: nothing is dropped, or two rules accept all of it.
    #[must_use]
    pub fn lets_pass(&self, range: Ipv4Net) -> bool {
        let within = |ranges: &BTreeSet<Ipv4Net>| ranges.iter().any(|wide| wide.contains(&range));
        !self.drops || (within(&self.sources) && within(&self.destinations))
    }
}

/// The chain as it is in the calling thread's namespace; none where there is no such table.
///
/// # Errors
/// Where the kernel cannot be asked.
pub fn forward_chain() -> io::Result<Option<LegacyForward>> {
    let Some(table) = Table::open(Family::V4, "filter")? else { return Ok(None) };
    let (info, entries) = table.read()?;
    Ok(Some(read(&info, &entries)))
}

/// What the table's bytes say; what does not fit says nothing.
fn read(info: &[u8], entries: &[u8]) -> LegacyForward {
    let hook = |at: usize| word(info, NAME + 4 + at * 4).and_then(|offset| usize::try_from(offset).ok());
    let mut forward = LegacyForward::default();
    let (Some(first), Some(policy)) = (hook(FORWARD), hook(5 + FORWARD)) else { return forward };
    forward.drops = verdict(entries, policy) == Some(DROP);
    let mut at = first;
    while at < policy {
        let Some(next) = half(entries, at + 90).filter(|next| *next > 0) else { break };
        if verdict(entries, at) == Some(ACCEPT) {
            let range = |offset| {
                let mask = Ipv4Addr::from(bytes(entries, at + offset + 8)?);
                Ipv4Net::with_netmask(bytes(entries, at + offset)?.into(), mask).ok()
            };
            if let (Some(from), Some(to)) = (range(0), range(4)) {
                let all = |range: Ipv4Net| range.prefix_len() == 0;
                forward.sources.extend(all(to).then_some(from.trunc()));
                forward.destinations.extend(all(from).then_some(to.trunc()));
            }
        }
        at += usize::from(next);
    }
    forward
}

/// The verdict of an entry that asks for addresses alone, by its place: no device, no protocol, no negation, no further match.
fn verdict(entries: &[u8], at: usize) -> Option<i32> {
    let head = entries.get(at..at + ENTRY)?;
    let plain = head[16..84].iter().all(|byte| *byte == 0);
    if !plain || usize::from(half(entries, at + 88)?) != ENTRY {
        return None;
    }
    // A standard target has no name.
    let name = entries.get(at + ENTRY + 2)?;
    bytes(entries, at + ENTRY + TARGET).map(i32::from_ne_bytes).filter(|_| *name == 0)
}

fn word(from: &[u8], at: usize) -> Option<u32> {
    bytes(from, at).map(u32::from_ne_bytes)
}

fn half(from: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(from.get(at..at + 2)?.try_into().ok()?))
}

fn bytes(from: &[u8], at: usize) -> Option<[u8; 4]> {
    from.get(at..at + 4)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestNs;

    #[test]
    fn a_policy_is_seen_and_so_are_the_rules_that_make_it_harmless() {
        let namespace = TestNs::new("legacy");
        let look = || namespace.run(forward_chain).unwrap().unwrap();
        let range: Ipv4Net = "10.233.64.0/18".parse().unwrap();
        assert_eq!(look(), None, "looking makes no table");
        assert_eq!(namespace.command("cat /proc/net/ip_tables_names"), "");
        namespace.command("iptables-legacy -P FORWARD ACCEPT");
        assert!(look().unwrap().lets_pass(range));
        namespace.command("iptables-legacy -P FORWARD DROP");
        assert!(look().unwrap().drops && !look().unwrap().lets_pass(range));
        // Rules that let less pass than they seem to.
        for rule in
            ["-s 10.233.64.0/18 -p tcp", "-s 10.233.64.0/18 -i eth0", "! -d 10.233.64.0/18", "-d 10.233.64.0/20"]
        {
            namespace.command(&format!("iptables-legacy -A FORWARD {rule} -j ACCEPT"));
        }
        namespace.command("iptables-legacy -A FORWARD -d 10.233.64.0/18 -j DROP");
        assert!(!look().unwrap().lets_pass(range));
        namespace.command("iptables-legacy -I FORWARD -s 10.233.0.0/16 -j ACCEPT");
        assert!(!look().unwrap().lets_pass(range));
        namespace.command("iptables-legacy -I FORWARD -d 10.233.64.0/18 -j ACCEPT");
        assert!(look().unwrap().lets_pass(range));
        namespace.command("iptables-legacy -F FORWARD");
        namespace.command("iptables-legacy -A FORWARD -j ACCEPT");
        assert!(look().unwrap().lets_pass(range));
    }
}
