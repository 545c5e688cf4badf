//! What stays of virtual servers once the mode is left, and what the kernel remembers besides.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use podnet_model::{Protocol, proxy::IpvsConfig};
use podnet_planner::{
    ruleset::{BackendAddress, FrontendKey},
    services::ebpf::Remembered,
};

/// How long datagrams belong together to a kernel that was told nothing else (`ip_vs_timeout_table`, `IP_VS_S_UDP`).
const DATAGRAMS: Duration = Duration::from_secs(300);
/// How long it remembers a connection on which nothing is sent (`tcp_timeouts`, `IP_VS_TCP_S_ESTABLISHED`; the same of SCTP).
const CONNECTIONS: Duration = Duration::from_secs(900);

/// What was found when it was looked.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The frontends that virtual servers stay for.
    pub(super) frontends: BTreeSet<FrontendKey>,
    /// The backends of the connections for whose sake they do.
    pub(super) backends: Remembered,
    /// The backends of what the kernel remembers with virtual servers that go now: of UDP all, of others those that may not stay.
    pub(super) gone: Remembered,
}

/// Of one family, as it was when it was looked last.
#[derive(Debug, Default)]
pub(super) struct Lingering {
    /// See [`Found::frontends`].
    frontends: BTreeSet<FrontendKey>,
    /// See [`Found::backends`].
    backends: Remembered,
    /// Backends of virtual servers that are gone, each until when the kernel may remember somebody with it. It would tell by
    /// `/proc/net/ip_vs_conn` alone, in as many lines as there are connections; that is not read. So an agent that begins anew meanwhile
    /// does not know them.
    gone: BTreeMap<(Protocol, BackendAddress), Instant>,
}

impl Found {
    /// This with what was known `before` of what is gone, as long as the kernel may remember that: for as long as it was told to, or as it
    /// does by itself where that is longer.
    pub(super) fn after(self, before: Lingering, told: &IpvsConfig, now: Instant) -> Lingering {
        let lasts = |protocol| match protocol {
            Protocol::Udp => told.udp_timeout.unwrap_or_default().max(DATAGRAMS),
            Protocol::Tcp | Protocol::Sctp => told.tcp_timeout.unwrap_or_default().max(CONNECTIONS),
        };
        let mut gone = before.gone;
        gone.retain(|_, until| now < *until);
        gone.extend(self.gone.into_iter().map(|backend| (backend, now + lasts(backend.0))));
        Lingering { frontends: self.frontends, backends: self.backends, gone }
    }
}

impl Lingering {
    /// Something stays for the sake of connections.
    pub(super) fn is_any(&self) -> bool {
        !self.frontends.is_empty()
    }

    /// The frontends that it is of.
    pub(super) fn frontends(&self) -> impl Iterator<Item = &FrontendKey> {
        self.frontends.iter()
    }

    /// All backends that the kernel remembers somebody with.
    pub(super) fn remembered(&self) -> Remembered {
        self.backends.iter().chain(self.gone.keys()).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backends<const N: usize>(protocol: Protocol, numbers: [u8; N]) -> Remembered {
        numbers.map(|number| (protocol, BackendAddress { addr: [10, 0, 0, number].into(), port: 53 })).into()
    }

    #[test]
    fn what_is_gone_is_remembered_for_its_time_after_its_virtual_servers_went() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let stays = backends(Protocol::Tcp, [1]);
        let looked = |gone: Remembered| Found { backends: stays.clone(), gone, ..Found::default() };
        let (udp, tcp) = (|number: u8| backends(Protocol::Udp, [number]), backends(Protocol::Tcp, [9]));
        let config = IpvsConfig::default();
        let mut linger = looked(&udp(7) | &tcp).after(Lingering::default(), &config, at(0));
        for seconds in [10, 299] {
            linger = looked(Remembered::new()).after(linger, &config, at(seconds));
            assert_eq!(linger.remembered(), &(&udp(7) | &tcp) | &stays, "after {seconds} s");
        }
        // What goes later counts from then on, and for longer where the kernel was told so.
        let told = IpvsConfig { udp_timeout: Some(Duration::from_secs(400)), ..IpvsConfig::default() };
        linger = looked(udp(8)).after(linger, &told, at(299));
        for (seconds, remembered) in [
            (300, &(&udp(8) | &tcp) | &stays),
            (698, &(&udp(8) | &tcp) | &stays),
            (699, &tcp | &stays),
            (899, &tcp | &stays),
            (900, stays.clone()),
        ] {
            linger = looked(Remembered::new()).after(linger, &told, at(seconds));
            assert_eq!(linger.remembered(), remembered, "after {seconds} s");
        }
        assert!(!linger.is_any(), "nothing stays for them");
    }
}
