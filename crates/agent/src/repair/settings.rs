//! Settings of the kernel that the node's forwarding depends on.

use podnet_kernel::sysctl;
use podnet_model::LinkName;

/// A setting that is not as it has to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) key: String,
    pub(super) found: String,
    pub(super) wanted: &'static str,
}

/// What of the namespace's settings, and of those of these devices, is wrong. `own` are podnet's devices, `underlay` leads to the other
/// nodes. A device that is gone has no settings.
pub(super) fn wrong(underlay: &LinkName, own: &[LinkName]) -> Vec<Wrong> {
    let mut wanted = vec![
        ("net/ipv4/ip_forward".to_owned(), "1"),
        ("net/ipv4/conf/all/rp_filter".to_owned(), "0"),
        (format!("net/ipv4/conf/{underlay}/forwarding"), "1"),
    ];
    for device in own {
        // See `kernel::link::request::set_up_quietly`: requests and answers may take different devices.
        wanted.push((format!("net/ipv4/conf/{device}/rp_filter"), "0"));
        wanted.push((format!("net/ipv4/conf/{device}/forwarding"), "1"));
    }
    let wrong = |(key, wanted): (String, &'static str)| {
        let found = sysctl::read_here(&key).ok()?;
        (found != wanted).then_some(Wrong { key, found, wanted })
    };
    wanted.into_iter().filter_map(wrong).collect()
}
