//! Messages about virtual servers and their real servers, written and read (`linux/ip_vs.h`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use podnet_model::{Family, Protocol};
use podnet_planner::{
    ipvs::{Edit, Scheduler, Scheduling, ServerKey},
    ruleset::{BackendAddress, FrontendKey},
};

use crate::netlink::attribute::{Writer, attribute, text};

/// `IPVS_CMD_…`.
pub(super) mod command {
    pub(in crate::ipvs) const NEW_SERVER: u8 = 1;
    pub(in crate::ipvs) const SET_SERVER: u8 = 2;
    pub(in crate::ipvs) const DEL_SERVER: u8 = 3;
    pub(in crate::ipvs) const GET_SERVER: u8 = 4;
    pub(in crate::ipvs) const NEW_REAL: u8 = 5;
    pub(in crate::ipvs) const SET_REAL: u8 = 6;
    pub(in crate::ipvs) const DEL_REAL: u8 = 7;
    pub(in crate::ipvs) const GET_REAL: u8 = 8;
    pub(in crate::ipvs) const SET_CONFIG: u8 = 12;
    pub(in crate::ipvs) const GET_CONFIG: u8 = 13;
}

/// `IPVS_CMD_ATTR_…`.
mod outer {
    pub(super) const SERVER: u16 = 1;
    pub(super) const REAL: u16 = 2;
}

/// `IPVS_CMD_ATTR_TIMEOUT_…`, in seconds.
pub(super) mod timeout {
    pub(in crate::ipvs) const TCP: u16 = 4;
    pub(in crate::ipvs) const TCP_FIN: u16 = 5;
    pub(in crate::ipvs) const UDP: u16 = 6;
}

/// `IPVS_SVC_ATTR_…`.
mod server {
    pub(super) const FAMILY: u16 = 1;
    pub(super) const PROTOCOL: u16 = 2;
    pub(super) const ADDRESS: u16 = 3;
    pub(super) const PORT: u16 = 4;
    pub(super) const MARK: u16 = 5;
    pub(super) const SCHEDULER: u16 = 6;
    pub(super) const FLAGS: u16 = 7;
    pub(super) const TIMEOUT: u16 = 8;
    pub(super) const NETMASK: u16 = 9;
    pub(super) const ENGINE: u16 = 11;
}

/// `IPVS_DEST_ATTR_…`.
mod real {
    pub(super) const ADDRESS: u16 = 1;
    pub(super) const PORT: u16 = 2;
    pub(super) const FORWARDING: u16 = 3;
    pub(super) const WEIGHT: u16 = 4;
    pub(super) const UPPER_THRESHOLD: u16 = 5;
    pub(super) const LOWER_THRESHOLD: u16 = 6;
    pub(super) const ACTIVE: u16 = 7;
    pub(super) const INACTIVE: u16 = 8;
    pub(super) const FAMILY: u16 = 11;
}

/// `IP_VS_SVC_F_…`.
mod flags {
    pub(super) const PERSISTENT: u32 = 1;
    /// Always there: the kernel's own.
    pub(super) const HASHED: u32 = 2;
    pub(super) const FALLBACK: u32 = 8;
    pub(super) const PORT: u32 = 16;
}

/// `IP_VS_CONN_F_MASQ`, and the same to the node itself (`IP_VS_CONN_F_LOCALNODE`), as the kernel made of it once.
const TRANSLATED: [u32; 2] = [0, 1];

/// Writes an edit of servers; none of others.
pub(super) fn edit(writer: &mut Writer, family: Family, edit: &Edit) {
    match edit {
        Edit::AddServer(key, scheduling) | Edit::ChangeServer(key, scheduling) => {
            write_server(writer, family, key, Some(scheduling));
        }
        Edit::RemoveServer(key) => write_server(writer, family, key, None),
        Edit::AddReal(key, real, weight) | Edit::Weigh(key, real, weight) => {
            write_server(writer, family, key, None);
            write_real(writer, real, Some(*weight));
        }
        Edit::RemoveReal(key, real) => {
            write_server(writer, family, key, None);
            write_real(writer, real, None);
        }
        _ => {}
    }
}

/// Names a virtual server, and tells how it schedules.
pub(super) fn write_server(writer: &mut Writer, family: Family, key: &ServerKey, scheduling: Option<&Scheduling>) {
    writer.nested(outer::SERVER, |writer| {
        writer.bytes(server::FAMILY, &number(family).to_ne_bytes());
        match key {
            ServerKey::Mark(mark) => writer.bytes(server::MARK, &mark.to_ne_bytes()),
            ServerKey::Address(key) => {
                writer.bytes(server::PROTOCOL, &u16::from(key.protocol.number()).to_ne_bytes());
                writer.bytes(server::ADDRESS, &octets(key.addr));
                writer.bytes(server::PORT, &key.port.to_be_bytes());
            }
        }
        if let Some(scheduling) = scheduling {
            write_scheduling(writer, family, scheduling);
        }
    });
}

fn write_scheduling(writer: &mut Writer, family: Family, scheduling: &Scheduling) {
    let chosen = [
        (scheduling.persistence.is_some(), flags::PERSISTENT),
        (scheduling.fallback, flags::FALLBACK),
        (scheduling.port, flags::PORT),
    ];
    let set: u32 = chosen.into_iter().filter(|(is_set, _)| *is_set).map(|(_, flag)| flag).sum();
    writer.text(server::SCHEDULER, scheduling.scheduler.name());
    // `struct ip_vs_flags`: the flags, and which of them are told.
    writer.bytes(server::FLAGS, &[set.to_ne_bytes(), u32::MAX.to_ne_bytes()].concat());
    writer.bytes(server::TIMEOUT, &scheduling.persistence.unwrap_or(0).to_ne_bytes());
    writer.bytes(server::NETMASK, &netmask(family));
}

fn write_real(writer: &mut Writer, backend: &BackendAddress, weight: Option<u32>) {
    writer.nested(outer::REAL, |writer| {
        writer.bytes(real::FAMILY, &number(Family::of(&backend.addr)).to_ne_bytes());
        writer.bytes(real::ADDRESS, &octets(backend.addr));
        writer.bytes(real::PORT, &backend.port.to_be_bytes());
        if let Some(weight) = weight {
            let numbers = [
                (real::FORWARDING, TRANSLATED[0]),
                (real::WEIGHT, weight),
                (real::UPPER_THRESHOLD, 0),
                (real::LOWER_THRESHOLD, 0),
            ];
            numbers.into_iter().for_each(|(kind, number)| writer.bytes(kind, &number.to_ne_bytes()));
        }
    });
}

/// The virtual server of that family in a message of a listing. Settings that [`Scheduling`] cannot say are told as a persistence of 0 s,
/// which nobody wants: so they are set right.
pub(super) fn read_server(body: &[u8], family: Family) -> Option<(ServerKey, Scheduling)> {
    let told = attribute(body, outer::SERVER)?;
    if attribute(told, server::FAMILY).and_then(u16_of) != Some(number(family)) {
        return None;
    }
    let key = match attribute(told, server::MARK).and_then(u32_of) {
        Some(mark) => ServerKey::Mark(mark),
        None => ServerKey::Address(read_frontend(told, family)?),
    };
    Some((key, read_scheduling(told, family)))
}

/// None of a protocol that Services do not have.
fn read_frontend(told: &[u8], family: Family) -> Option<FrontendKey> {
    let protocol = attribute(told, server::PROTOCOL).and_then(u16_of)?;
    let protocol =
        [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].into_iter().find(|one| u16::from(one.number()) == protocol)?;
    let addr = read_address(attribute(told, server::ADDRESS)?, family)?;
    let port = attribute(told, server::PORT).and_then(|bytes| bytes.try_into().ok()).map(u16::from_be_bytes)?;
    Some(FrontendKey { addr, protocol, port })
}

fn read_scheduling(told: &[u8], family: Family) -> Scheduling {
    let set = attribute(told, server::FLAGS).and_then(|bytes| u32_of(bytes.get(..4)?)).unwrap_or_default();
    let scheduler = attribute(told, server::SCHEDULER).map(text).as_deref().and_then(Scheduler::named);
    let persistent = set & flags::PERSISTENT != 0;
    let known = flags::PERSISTENT | flags::HASHED | flags::FALLBACK | flags::PORT;
    let strange = scheduler.is_none()
        || set & !known != 0
        || attribute(told, server::ENGINE).is_some()
        || persistent && attribute(told, server::NETMASK) != Some(&netmask(family));
    let persistence = persistent.then(|| attribute(told, server::TIMEOUT).and_then(u32_of).unwrap_or_default());
    Scheduling {
        scheduler: scheduler.unwrap_or(Scheduler::RoundRobin),
        fallback: set & flags::FALLBACK != 0,
        port: set & flags::PORT != 0,
        persistence: if strange { Some(0) } else { persistence },
    }
}

/// A real server as the kernel shows it.
pub(super) struct Real {
    pub(super) at: BackendAddress,
    /// [`u32::MAX`] where it is not forwarded to by translation, which nobody wants: so it is set right.
    pub(super) weight: u32,
    /// Its connections, those that have ended and are remembered for a while among them.
    pub(super) connections: u64,
}

/// The real server in a message of a listing.
pub(super) fn read_real(body: &[u8], family: Family) -> Option<Real> {
    let told = attribute(body, outer::REAL)?;
    let value = |kind| attribute(told, kind).and_then(u32_of);
    let family = match attribute(told, real::FAMILY).and_then(u16_of) {
        Some(told) => Family::ALL.into_iter().find(|family| number(*family) == told)?,
        None => family,
    };
    let addr = read_address(attribute(told, real::ADDRESS)?, family)?;
    let port = attribute(told, real::PORT).and_then(|bytes| bytes.try_into().ok()).map(u16::from_be_bytes)?;
    let is_translated = value(real::FORWARDING).is_some_and(|forwarding| TRANSLATED.contains(&forwarding));
    Some(Real {
        at: BackendAddress { addr, port },
        weight: if is_translated { value(real::WEIGHT)? } else { u32::MAX },
        connections: u64::from(value(real::ACTIVE)?) + u64::from(value(real::INACTIVE)?),
    })
}

/// A timeout in the kernel's answer about all of them.
pub(super) fn read_timeout(body: &[u8], kind: u16) -> Option<u32> {
    attribute(body, kind).and_then(u32_of)
}

/// `AF_INET`, `AF_INET6`.
const fn number(family: Family) -> u16 {
    match family {
        Family::V4 => 2,
        Family::V6 => 10,
    }
}

/// Each client's address counts by itself: a mask of IPv4, a prefix's length of IPv6.
fn netmask(family: Family) -> [u8; 4] {
    match family {
        Family::V4 => [u8::MAX; 4],
        Family::V6 => 128u32.to_ne_bytes(),
    }
}

/// `union nf_inet_addr`.
fn octets(addr: IpAddr) -> [u8; 16] {
    match addr {
        IpAddr::V4(addr) => {
            let [a, b, c, d] = addr.octets();
            [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        }
        IpAddr::V6(addr) => addr.octets(),
    }
}

fn read_address(bytes: &[u8], family: Family) -> Option<IpAddr> {
    Some(match family {
        Family::V4 => Ipv4Addr::from(<[u8; 4]>::try_from(bytes.get(..4)?).ok()?).into(),
        Family::V6 => Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into(),
    })
}

fn u16_of(bytes: &[u8]) -> Option<u16> {
    bytes.try_into().ok().map(u16::from_ne_bytes)
}

fn u32_of(bytes: &[u8]) -> Option<u32> {
    bytes.try_into().ok().map(u32::from_ne_bytes)
}
