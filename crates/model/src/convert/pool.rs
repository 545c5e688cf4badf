//! IPPool.

use ipnet::IpNet;

use super::{Invalid, Object};
use crate::{EncapMode, Pool, crd, labels::NodeSelector};

impl TryFrom<&crd::IPPool> for Pool {
    type Error = Invalid;

    fn try_from(pool: &crd::IPPool) -> Result<Self, Invalid> {
        let object = Object::new("IPPool", &pool.metadata);
        let spec = &pool.spec;
        let cidr = cidr(&object, &spec.cidr)?;
        let vxlan = mode(&object, "spec.vxlanMode", spec.vxlan_mode.as_deref())?;
        let ipip = mode(&object, "spec.ipipMode", spec.ipip_mode.as_deref())?;
        if vxlan != EncapMode::Never && ipip != EncapMode::Never {
            return Err(object.value(
                "spec.vxlanMode",
                &format!("{vxlan:?}"),
                "Never where spec.ipipMode is not Never",
            ));
        }
        Ok(Self {
            name: object.name()?.into(),
            cidr,
            block_size: block_size(&object, cidr, spec.block_size)?,
            vxlan,
            ipip,
            nat_outgoing: spec.nat_outgoing.unwrap_or(false),
            disabled: spec.disabled.unwrap_or(false) || !serves_workloads(&object, spec)?,
            manual: spec.assignment_mode.as_deref() == Some("Manual"),
            node_selector: selector(&object, "spec.nodeSelector", spec.node_selector.as_deref())?,
            namespace_selector: selector(&object, "spec.namespaceSelector", spec.namespace_selector.as_deref())?,
        })
    }
}

fn selector(object: &Object<'_>, field: &'static str, text: Option<&str>) -> Result<NodeSelector, Invalid> {
    let text = text.unwrap_or_default();
    text.parse().map_err(|source| Invalid::Selector {
        object: object.describe(),
        field,
        value: text.to_owned(),
        source,
    })
}

fn cidr(object: &Object<'_>, text: &str) -> Result<IpNet, Invalid> {
    let cidr: IpNet =
        text.parse().map_err(|_| object.value("spec.cidr", text, "a range, for example 10.233.64.0/18"))?;
    if cidr != cidr.trunc() {
        let allowed = format!("a range whose address is its first: {}", cidr.trunc());
        return Err(object.value("spec.cidr", text, allowed));
    }
    if let Some((other, what)) = UNUSABLE.iter().find(|(other, _)| meets(&cidr, other)) {
        return Err(object.value("spec.cidr", text, format!("a range that shares no address with {other} ({what})")));
    }
    Ok(cidr)
}

/// Addresses that no pod can have (RFC 6890; RFC 4291, section 2.5.5.2). Pods' gateways are link-local.
const UNUSABLE: [(&str, &str); 9] = [
    ("0.0.0.0/8", "this network"),
    ("127.0.0.0/8", "loopback"),
    ("169.254.0.0/16", "link-local"),
    ("224.0.0.0/4", "multicast"),
    ("255.255.255.255/32", "broadcast"),
    ("::/127", "unspecified and loopback"),
    ("::ffff:0:0/96", "IPv4 in IPv6"),
    ("fe80::/10", "link-local"),
    ("ff00::/8", "multicast"),
];

fn meets(cidr: &IpNet, other: &str) -> bool {
    other.parse::<IpNet>().is_ok_and(|other| cidr.contains(&other) || other.contains(cidr))
}

fn mode(object: &Object<'_>, field: &str, text: Option<&str>) -> Result<EncapMode, Invalid> {
    match text {
        None | Some("" | "Never") => Ok(EncapMode::Never),
        Some("Always") => Ok(EncapMode::Always),
        Some("CrossSubnet") => Ok(EncapMode::CrossSubnet),
        Some(other) => Err(object.value(field, other, "Always, CrossSubnet or Never")),
    }
}

/// The block size asked for, or Calico's defaults: 64 addresses.
fn block_size(object: &Object<'_>, cidr: IpNet, asked: Option<i64>) -> Result<u8, Invalid> {
    let (default, smallest, largest) = if matches!(cidr, IpNet::V4(_)) { (26, 20, 32) } else { (122, 116, 128) };
    let lowest = cidr.prefix_len().max(smallest);
    let size = asked.filter(|size| *size != 0).unwrap_or(default);
    u8::try_from(size).ok().filter(|size| (lowest..=largest).contains(size)).ok_or_else(|| {
        let allowed = format!("{lowest} to {largest} for a pool {cidr}");
        object.value("spec.blockSize", &size, allowed)
    })
}

/// Whether pods get addresses from this pool; one without `Workload` among its uses gives them none, as if it were disabled.
fn serves_workloads(object: &Object<'_>, spec: &crd::IPPoolSpec) -> Result<bool, Invalid> {
    let uses = spec.allowed_uses.as_deref().unwrap_or_default();
    if let Some(other) = uses.iter().find(|one| !crd::ALLOWED_USES.contains(&one.as_str())) {
        return Err(object.value("spec.allowedUses[]", other, format!("one of {}", crd::ALLOWED_USES.join(", "))));
    }
    if let Some(mode) = spec.assignment_mode.as_deref().filter(|mode| !mode.is_empty())
        && !crd::ASSIGNMENT_MODES.contains(&mode)
    {
        return Err(object.value("spec.assignmentMode", mode, crd::ASSIGNMENT_MODES.join(" or ")));
    }
    Ok(uses.is_empty() || uses.iter().any(|one| one == "Workload"))
}
