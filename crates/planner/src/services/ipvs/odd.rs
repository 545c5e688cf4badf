//! Endpoints that cannot be real servers: an API takes multicast and broadcast addresses as endpoints, the kernel takes a real server at a
//! unicast address only, and other modes can do with both.

use std::{borrow::Cow, collections::BTreeSet, net::IpAddr};

use super::super::{Backends, Serving};
use crate::ruleset::BackendAddress;

/// Those of a frontend.
pub(super) fn of(serving: &Serving) -> BTreeSet<BackendAddress> {
    serving.backends().map(|backend| backend.at).filter(|at| is_odd(&at.addr)).collect()
}

/// The frontend as if these were none of its endpoints.
pub(super) fn without(serving: &Serving) -> Cow<'_, Serving> {
    if !serving.answering().any(|backend| is_odd(&backend.at.addr)) {
        return Cow::Borrowed(serving);
    }
    let mut serving = serving.clone();
    for backends in [&mut serving.inside, &mut serving.outside] {
        let left: Vec<_> = backends.slots().iter().filter(|backend| !is_odd(&backend.at.addr)).copied().collect();
        match backends {
            Backends::Of(_) if left.is_empty() => *backends = Backends::Reject,
            Backends::Of(slots) => *slots = left.into(),
            Backends::Reject | Backends::Drop => {}
        }
    }
    serving.lasting = serving.lasting.iter().filter(|backend| !is_odd(&backend.at.addr)).copied().collect();
    Cow::Owned(serving)
}

/// What no node takes as the address of a real server. A subnet's broadcast address is odd on some nodes only, which their kernels tell.
fn is_odd(addr: &IpAddr) -> bool {
    match addr {
        IpAddr::V4(addr) => addr.octets()[0] == 0 || addr.is_broadcast() || addr.is_multicast(),
        IpAddr::V6(addr) => {
            let is_mapped = addr.to_ipv4_mapped().is_some();
            addr.is_unspecified() || addr.is_multicast() || addr.is_unicast_link_local() || is_mapped
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_is_what_is_no_unicast_address_anywhere() {
        let is_odd = |text: &str| is_odd(&text.parse().unwrap());
        for text in [
            "0.0.0.0",
            "0.1.2.3",
            "224.0.0.1",
            "239.1.1.1",
            "255.255.255.255",
            "::",
            "ff0e::1",
            "fe80::1",
            "::ffff:10.0.0.1",
        ] {
            assert!(is_odd(text), "{text}");
        }
        for text in
            ["1.0.0.0", "10.0.0.255", "127.0.0.1", "223.255.255.255", "240.0.0.1", "::1", "fd00::1", "2001:db8::"]
        {
            assert!(!is_odd(text), "{text}");
        }
    }
}
