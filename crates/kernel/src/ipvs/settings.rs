//! What virtual servers of a namespace have in common.

use std::time::Duration;

use netlink_packet_core::NLM_F_ACK;

use super::{
    FAMILY, IpvsError,
    message::{command, read_timeout, timeout},
};
use crate::{
    netlink::{
        Operation,
        generic::{GenericSocket, body},
    },
    netns::NetNs,
    release,
    sysctl::{self, SysctlError},
};

/// Since this version of Linux a client's port that comes again while its last connection is remembered gets a new connection without a
/// second's delay.
const REUSES_AT_ONCE: (u32, u32) = (5, 9);

/// What is set for all virtual servers of a namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// How long an idle TCP connection is remembered; none leaves it, as for the others.
    pub tcp_timeout: Option<Duration>,
    /// How long one that ends is.
    pub tcp_fin_timeout: Option<Duration>,
    /// How long UDP packets belong together.
    pub udp_timeout: Option<Duration>,
    /// The node answers ARP for an address only where the device has it that is asked by (`arp_ignore`, `arp_announce`). Where it is not
    /// wished for, it is left as it is: others may have wished for it.
    pub strict_arp: bool,
}

/// Sets it, and what podnet's rules count on: connections are tracked, are ended when their real server is taken away, and follow
/// affinity no longer to one of weight 0.
///
/// # Errors
/// Where the kernel has no virtual servers, or refuses.
pub fn configure(netns: &NetNs, settings: &Settings) -> Result<(), IpvsError> {
    configure_by(&mut netns.run(|| GenericSocket::open(FAMILY))??, netns, settings)
}

/// As [`configure`], by a socket of the namespace. What is as it has to be is not written.
pub(super) fn configure_by(socket: &mut GenericSocket, netns: &NetNs, settings: &Settings) -> Result<(), IpvsError> {
    set_timeouts(socket, settings)?;
    netns.run(|| {
        let reuse = if release::linux() >= REUSES_AT_ONCE { "1" } else { "0" };
        let own = [("conntrack", "1"), ("expire_nodest_conn", "1"), ("expire_quiescent_template", "1")];
        for (name, value) in own.into_iter().chain([("conn_reuse_mode", reuse)]) {
            set(&format!("net.ipv4.vs.{name}"), value)?;
        }
        if settings.strict_arp {
            set("net.ipv4.conf.all.arp_ignore", "1")?;
            set("net.ipv4.conf.all.arp_announce", "2")?;
        }
        Ok(())
    })?
}

fn set(key: &str, value: &str) -> Result<(), IpvsError> {
    let is = |found: Result<String, SysctlError>| found.is_ok_and(|found| found == value);
    if is(sysctl::read_here(key)) { Ok(()) } else { Ok(sysctl::set_here(key, value)?) }
}

fn set_timeouts(socket: &mut GenericSocket, settings: &Settings) -> Result<(), IpvsError> {
    let given = [
        (timeout::TCP, settings.tcp_timeout),
        (timeout::TCP_FIN, settings.tcp_fin_timeout),
        (timeout::UDP, settings.udp_timeout),
    ];
    let given = given.into_iter().filter_map(|(kind, time)| Some((kind, seconds(time?))));
    let mut given: Vec<(u16, u32)> = given.collect();
    if given.is_empty() {
        return Ok(());
    }
    let operation = Operation::new("list timeouts of", "virtual servers");
    let told = socket.ask(&operation, NLM_F_ACK, command::GET_CONFIG, |_| {})?;
    given.retain(|(kind, seconds)| !told.iter().any(|frame| read_timeout(body(frame), *kind) == Some(*seconds)));
    if given.is_empty() {
        return Ok(());
    }
    let operation = Operation::new("set timeouts of", "virtual servers");
    socket.ask(&operation, NLM_F_ACK, command::SET_CONFIG, |writer| {
        given.iter().for_each(|(kind, seconds)| writer.bytes(*kind, &seconds.to_ne_bytes()));
    })?;
    Ok(())
}

/// Whole ones, at least one: the kernel takes 0 as not given.
fn seconds(time: Duration) -> u32 {
    let whole = time.as_secs().saturating_add(u64::from(time.subsec_nanos() > 0));
    u32::try_from(whole).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rounded_up_to_seconds_that_count() {
        let rounded = [0, 1, 1000, 1001, 900_000].map(|millis| seconds(Duration::from_millis(millis)));
        assert_eq!(rounded, [1, 1, 1, 2, 900]);
        assert_eq!(seconds(Duration::MAX), u32::MAX);
    }
}
