//! Settings of the kernel that the node's forwarding depends on.

use std::{borrow::Cow, collections::BTreeMap};

use podnet_kernel::{
    fastpath,
    forwarding::{FORWARDING6, accept_ra},
    pod_interface::bridge,
    sysctl,
};
use podnet_model::LinkName;

/// The reverse path filter of all devices.
pub(super) const FILTER: &str = "net/ipv4/conf/all/rp_filter";

/// A setting that is not as it has to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) key: String,
    pub(super) found: String,
    pub(super) wanted: Cow<'static, str>,
}

/// What a device of podnet's has to have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Device {
    /// Whether IPv6 shall be on; none where it does not matter.
    pub(super) ipv6: Option<bool>,
    /// No rules check who sends: the reverse path filter does.
    pub(super) filters: bool,
    /// A pod is behind it.
    pub(super) is_pods: bool,
}

/// What of the namespace's settings, and of those of these devices, is wrong. `own` are podnet's devices,
/// `underlay` leads to the other nodes, `ipv6` is whether the node forwards it, `liberal` whether connection tracking
/// sees parts of connections only. A device that is gone has no settings.
pub(super) fn wrong(underlay: &LinkName, own: &BTreeMap<LinkName, Device>, ipv6: bool, liberal: bool) -> Vec<Wrong> {
    let mut wanted = vec![
        ("net/ipv4/ip_forward".to_owned(), "1"),
        (FILTER.to_owned(), "0"),
        (format!("net/ipv4/conf/{underlay}/forwarding"), "1"),
    ];
    for (device, of) in own {
        let of_ipv6 = |setting: &str| format!("net/ipv6/conf/{device}/{setting}");
        // See `kernel::link::request::set_up_quietly`: requests and answers may take different devices.
        wanted.push((format!("net/ipv4/conf/{device}/rp_filter"), if of.filters { "1" } else { "0" }));
        wanted.push((format!("net/ipv4/conf/{device}/forwarding"), "1"));
        wanted.extend(of.ipv6.map(|is_there| (of_ipv6("disable_ipv6"), if is_there { "0" } else { "1" })));
        // See `kernel::pod_interface::ipv6`.
        wanted.extend(of.is_pods.then(|| (of_ipv6("accept_ra"), "0")));
    }
    let mut wrong: Vec<Wrong> =
        wanted.into_iter().filter_map(|(key, wanted)| differing(key, |found| found == wanted, wanted)).collect();
    if liberal {
        let settings = fastpath::settings_to_change().unwrap_or_default();
        wrong.extend(settings.into_iter().map(|setting| Wrong {
            key: setting.key.replace('.', "/"),
            found: setting.found,
            wanted: setting.wanted.into(),
        }));
    }
    if ipv6 {
        // A device that was made anew hears no router any more where the node forwards; 0 is somebody's will.
        wrong.extend(differing(accept_ra(underlay.as_str()), |found| found != "1", "2"));
        // 2 is forwarding too.
        wrong.extend(differing(FORWARDING6.to_owned(), |found| found != "0", "1"));
    }
    wrong
}

/// What of the settings of a bridge of pods is wrong.
pub(super) fn wrong_of_bridge(bridge: &LinkName) -> Vec<Wrong> {
    let wanted = bridge::settings(bridge).into_iter();
    wanted.filter_map(|(key, wanted)| differing(key, |found| found == wanted, wanted)).collect()
}

fn differing(key: String, is_right: impl Fn(&str) -> bool, wanted: &'static str) -> Option<Wrong> {
    let found = sysctl::read_here(&key).ok()?;
    (!is_right(&found)).then_some(Wrong { key, found, wanted: wanted.into() })
}
