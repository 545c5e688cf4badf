//! The kernel's own list of virtual servers (`/proc/net/ip_vs`). It tells less than netlink does, and all in one go: netlink wants a question
//! for the real servers of each virtual server.
//!
//! A read gives a page at most, whatever room there is for it, and for each the kernel counts its virtual servers from the beginning: with 20,000
//! of them that takes a tenth of a second. Nothing that is cheaper tells as much. There is no number that changes with them, questions by netlink
//! take as long at that size, and `IP_VS_SO_GET_SERVICES`, which goes through them once, says how many real servers each has and not which, nor
//! with which weight, and knows those of IPv4 alone.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufRead, BufReader},
    net::{IpAddr, Ipv4Addr},
};

use podnet_model::{Family, Protocol};
use podnet_planner::{
    ipvs::{Server, ServerKey},
    ruleset::{BackendAddress, FrontendKey},
};

use crate::netns::{NetNs, NetNsError};

/// That of the calling thread's namespace.
pub(super) const LIST: &str = "/proc/thread-self/net/ip_vs";
/// How a real server is forwarded to where podnet made it.
const FORWARD: &str = "Masq";

/// Whether these virtual servers seem to have their real servers, and no others. Where that cannot be read it shows when all is compared.
///
/// # Errors
/// Where the namespace cannot be entered.
pub(super) fn seem_right(
    netns: &NetNs,
    family: Family,
    servers: &BTreeMap<ServerKey, Server>,
) -> Result<bool, NetNsError> {
    let opened = netns.run(|| File::open(LIST))?;
    Ok(opened.and_then(|list| have_their_reals(BufReader::new(list), family, servers)).unwrap_or(true))
}

/// Whether these virtual servers have exactly their real servers, with their weights. Which family a mark is of is only told by its real
/// servers.
///
/// # Errors
/// Where the list cannot be read to its end.
fn have_their_reals(list: impl BufRead, family: Family, servers: &BTreeMap<ServerKey, Server>) -> io::Result<bool> {
    let mut missing: usize = servers.values().map(|server| server.reals.len()).sum();
    let mut current = None;
    for line in list.lines() {
        let line = line?;
        let Some(real) = line.strip_prefix("  -> ") else {
            current = read_server(&line).and_then(|key| servers.get(&key));
            continue;
        };
        let Some((server, (at, weight))) = current.zip(read_real(real)) else { continue };
        if Family::of(&at.addr) != family {
            continue;
        }
        if weight.is_none() || server.reals.get(&at).copied() != weight {
            return Ok(false);
        }
        missing = missing.saturating_sub(1);
    }
    Ok(missing == 0)
}

/// `TCP  0A600001:0050 rr  `, `UDP  [fd96:…:0001]:0035 rr  persistent 10800 FFFFFFFF`, `FWM  00001000 rr  `.
fn read_server(line: &str) -> Option<ServerKey> {
    let mut words = line.split_ascii_whitespace();
    let protocol = match words.next()? {
        "TCP" => Protocol::Tcp,
        "UDP" => Protocol::Udp,
        // The latter where the kernel knows no SCTP connections.
        "SCTP" | "IP_132" => Protocol::Sctp,
        "FWM" => return u32::from_str_radix(words.next()?, 16).ok().map(ServerKey::Mark),
        _ => return None,
    };
    let (addr, port) = read_place(words.next()?)?;
    Some(ServerKey::Address(FrontendKey { addr, protocol, port }))
}

/// `0A000001:1F90      Masq    1      0          0         `. No weight where it is none of podnet's making.
fn read_real(line: &str) -> Option<(BackendAddress, Option<u32>)> {
    let mut words = line.split_ascii_whitespace();
    let (addr, port) = read_place(words.next()?)?;
    let (forward, weight) = (words.next()?, words.next()?);
    Some((BackendAddress { addr, port }, weight.parse().ok().filter(|_| forward == FORWARD)))
}

/// An address of IPv4 is a number in hexadecimal digits, one of IPv6 is in brackets.
fn read_place(text: &str) -> Option<(IpAddr, u16)> {
    let (addr, port) = text.rsplit_once(':')?;
    let addr = match addr.strip_prefix('[') {
        Some(addr) => addr.strip_suffix(']')?.parse().ok()?,
        None => Ipv4Addr::from_bits(u32::from_str_radix(addr, 16).ok()?).into(),
    };
    Some((addr, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use podnet_planner::ipvs::{Scheduler, Scheduling};

    use super::*;

    const LIST: &str = "IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port Forward Weight ActiveConn InActConn
FWM  00001010 rr  
  -> 0A000002:1F90      Masq    1      0          0         
FWM  00001010 rr 
  -> [fd00:0000:0000:0000:0000:0000:0000:0002]:1F90      Masq    1      0          0         
TCP  0A600001:0050 rr  persistent 10800 FFFFFFFF
  -> 0A000001:1F90      Masq    1      3          1         
  -> 0A000002:1F90      Masq    0      1          0         
UDP  0A600001:0050 rr  
TCP  C0000201:0016 wrr 
  -> 0A000063:0016      Route   5      0          0         
TCP  [fd96:0000:0000:0000:0000:0000:0000:0001]:0050 rr 
  -> [fd00:0000:0000:0000:0000:0000:0000:0001]:1F90      Masq    1      0          0         
";

    fn real(addr: &str, weight: u32) -> (BackendAddress, u32) {
        (BackendAddress { addr: addr.parse().unwrap(), port: 8080 }, weight)
    }

    fn servers(family: Family) -> BTreeMap<ServerKey, Server> {
        let scheduling =
            Scheduling { scheduler: Scheduler::RoundRobin, fallback: false, port: false, persistence: None };
        let at =
            |addr: &str, protocol| ServerKey::Address(FrontendKey { addr: addr.parse().unwrap(), protocol, port: 80 });
        let of = |reals: &[(BackendAddress, u32)]| Server { scheduling, reals: reals.iter().copied().collect() };
        let mark = ServerKey::Mark(0x1010);
        match family {
            Family::V4 => [
                (mark, of(&[real("10.0.0.2", 1)])),
                (at("10.96.0.1", Protocol::Tcp), of(&[real("10.0.0.1", 1), real("10.0.0.2", 0)])),
                (at("10.96.0.1", Protocol::Udp), of(&[])),
            ]
            .into(),
            Family::V6 => {
                [(mark, of(&[real("fd00::2", 1)])), (at("fd96::1", Protocol::Tcp), of(&[real("fd00::1", 1)]))].into()
            }
        }
    }

    #[test]
    fn servers_have_their_reals_where_nothing_is_missing_added_or_weighed_otherwise() {
        for family in Family::ALL {
            let right = |list: &str| have_their_reals(list.as_bytes(), family, &servers(family)).unwrap();
            assert!(right(LIST), "{family:?}");
            let reals: Vec<&str> = LIST.lines().filter(|line| line.contains(" Masq ")).collect();
            let own = |line: &&&str| line.contains('[') == (family == Family::V6);
            for line in reals.iter().filter(own) {
                let change = |to: &str| LIST.replacen(line, to, 1);
                assert!(!right(&change("")), "{line} is missing");
                assert!(!right(&change(&line.replace("Masq    ", "Masq    7"))), "{line} is weighed otherwise");
                assert!(!right(&change(&line.replace("Masq ", "Route"))), "{line} is not translated");
                let other = line.replace(":1F90", ":1F91");
                assert!(!right(&change(&format!("{line}\n{other}"))), "{other} is there, too");
            }
            let foreign = LIST.replace("  -> 0A000063:0016      Route   5      0          0         \n", "");
            assert!(right(&foreign), "what is of others does not matter");
        }
    }
}
