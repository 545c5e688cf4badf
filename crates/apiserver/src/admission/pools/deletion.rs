//! Whether a pool can be deleted.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;
use podnet_model::{
    BlockCidr,
    crd::{IPAMBlockSpec, block_name},
};
use serde_json::Value;

use super::{Others, cidr};

/// Why a pool cannot be deleted: who has addresses of it that no other pool has too. None where nobody does.
///
/// Blocks tell what nodes gave, a moment later than the pods themselves.
pub fn in_use(pool: &Value, others: &Others<'_>, pods: &[&Value]) -> Option<String> {
    let (name, range) = (&pool["metadata"]["name"], cidr(&pool["spec"]["cidr"])?);
    let rest: Vec<IpNet> = others
        .pools
        .iter()
        .filter(|other| other["metadata"]["name"] != *name)
        .filter_map(|other| cidr(&other["spec"]["cidr"]))
        .collect();
    let is_its = |addr: &IpAddr| range.contains(addr) && !rest.iter().any(|range| range.contains(addr));
    let mut holders: BTreeMap<IpAddr, Holder> = BTreeMap::new();
    for block in &others.blocks {
        let Ok(block) = serde_json::from_value::<IPAMBlockSpec>(block["spec"].clone()) else { continue };
        let Ok(hosts) = block.cidr.parse::<IpNet>() else { continue };
        // Blocks of IPv6 have up to 4096 addresses.
        let given = (0..block.allocations.len()).filter(|place| block.allocations[*place].is_some());
        for addr in given.filter_map(|place| nth(hosts, place)).filter(is_its) {
            holders.insert(addr, Holder::of(&block, hosts, addr));
        }
    }
    for pod in pods.iter().filter(|pod| !is_over(pod)) {
        let addrs =
            pod["status"]["podIPs"].as_array().into_iter().flatten().filter_map(|ip| ip["ip"].as_str()?.parse().ok());
        for addr in addrs.filter(is_its) {
            let metadata = &pod["metadata"];
            let key = |field: &str| metadata[field].as_str().unwrap_or_default().to_owned();
            holders.insert(addr, Holder::Pod(format!("{}/{}", key("namespace"), key("name"))));
        }
    }
    (!holders.is_empty()).then(|| refusal(name.as_str().unwrap_or_default(), &holders))
}

/// Who has an address.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Holder {
    Pod(String),
    /// What is no pod's, as the tunnel addresses that Calico's nodes take: its handle, and the object of the block.
    Handle(String, String),
}

impl Holder {
    fn of(block: &IPAMBlockSpec, hosts: IpNet, addr: IpAddr) -> Self {
        let attribute = block.attribute_of(addr);
        let text = |key: &str| attribute?.secondary.get(key).cloned();
        match (text("namespace"), text("pod")) {
            (Some(namespace), Some(pod)) => Self::Pod(format!("{namespace}/{pod}")),
            _ => {
                let handle = attribute.and_then(|of| of.handle_id.clone()).unwrap_or_else(|| addr.to_string());
                Self::Handle(handle, block_name(BlockCidr(hosts)))
            }
        }
    }

    fn name(&self) -> &str {
        match self {
            Self::Pod(name) | Self::Handle(name, _) => name,
        }
    }
}

fn refusal(name: &str, holders: &BTreeMap<IpAddr, Holder>) -> String {
    let all: BTreeSet<&Holder> = holders.values().collect();
    let named = some(all.iter().map(|holder| holder.name()));
    let blocks: BTreeSet<&str> = all
        .iter()
        .filter_map(|holder| match holder {
            Holder::Pod(_) => None,
            Holder::Handle(_, block) => Some(block.as_str()),
        })
        .collect();
    let count = match holders.len() {
        1 => "1 address of this pool is in use".to_owned(),
        count => format!("{count} addresses of this pool are in use"),
    };
    let others = match blocks.is_empty() {
        true => String::new(),
        false => format!(
            "; handles that are no pods (of tunnels, for example) keep their addresses until nobody needs them and you delete their \
             blocks, which podnet's nodes write anew with what their pods have: kubectl delete ipamblock {}",
            some(blocks.into_iter()).replace(',', "")
        ),
    };
    format!(
        "{count} ({named}); disable it, so that it gives no more (kubectl patch ippool {name} --type=merge -p \
         '{{\"spec\":{{\"disabled\":true}}}}'), let those pods be made anew, and delete it then{others}"
    )
}

/// The first of them; of many of one kind these are enough.
fn some<'a>(names: impl Iterator<Item = &'a str>) -> String {
    const NAMED: usize = 3;
    let names: Vec<&str> = names.collect();
    let mut named = names[..names.len().min(NAMED)].join(", ");
    if names.len() > NAMED {
        named.push_str(", …");
    }
    named
}

/// A pod that has ended has given its address back, and one of the node's network never had one.
fn is_over(pod: &Value) -> bool {
    matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed")) || pod["spec"]["hostNetwork"] == true
}

fn nth(net: IpNet, place: usize) -> Option<IpAddr> {
    match net.network() {
        IpAddr::V4(first) => {
            u32::from(first).checked_add(u32::try_from(place).ok()?).map(|addr| Ipv4Addr::from(addr).into())
        }
        IpAddr::V6(first) => u128::from(first).checked_add(place as u128).map(|addr| Ipv6Addr::from(addr).into()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::tests::pool, *};

    #[test]
    fn a_pool_of_which_somebody_has_an_address_is_not_deleted() {
        let all = pool("all", json!({"cidr": "10.0.0.0/16"}));
        let block = |cidr: &str| {
            let holder =
                json!({"handle_id": "c/eth0", "secondary": {"namespace": "default", "pod": "web", "node": "node1"}});
            json!({"spec": {"cidr": cidr, "allocations": [null, 0, null, null], "unallocated": [0, 2, 3], "attributes": [holder]}})
        };
        let pod = |addr: &str, phase: &str, host: bool| {
            json!({"metadata": {"namespace": "shop", "name": "cart"}, "spec": {"hostNetwork": host},
                "status": {"phase": phase, "podIPs": [{"ip": addr}]}})
        };
        let why = |pools: &[&Value], blocks: &[Value], pods: &[Value]| {
            let others = Others { pools: pools.to_vec(), blocks: blocks.iter().collect() };
            in_use(&all, &others, &pods.iter().collect::<Vec<_>>())
        };
        let (there, elsewhere) = (block("10.0.1.0/30"), block("10.9.1.0/30"));
        let said = why(&[&all], std::slice::from_ref(&there), &[pod("10.0.1.1", "Running", false)]).unwrap();
        assert!(said.starts_with("1 address of this pool is in use (shop/cart); disable it"), "{said}");
        let said = why(&[&all], std::slice::from_ref(&there), &[pod("10.0.2.1", "Running", false)]).unwrap();
        assert!(said.starts_with("2 addresses of this pool are in use (default/web, shop/cart)"), "{said}");
        assert!(said.contains("kubectl patch ippool all --type=merge"), "{said}");
        assert_eq!(why(&[&all], &[elsewhere], &[]), None);
        assert_eq!(why(&[&all], &[], &[pod("10.0.2.1", "Succeeded", false), pod("10.0.2.2", "Running", true)]), None);
        // What it is split into has its addresses too.
        let part = pool("part", json!({"cidr": "10.0.0.0/17"}));
        assert_eq!(why(&[&all, &part], &[there], &[pod("10.0.2.1", "Running", false)]), None);
        let mut tunnel = block("10.0.2.0/30");
        tunnel["spec"]["attributes"] = json!([{"handle_id": "vxlan-tunnel-addr-node1", "secondary": {"node": "node1", "type": "vxlanTunnelAddress"}}]);
        let said = why(&[&all], &[tunnel], &[]).unwrap();
        assert!(said.starts_with("1 address of this pool is in use (vxlan-tunnel-addr-node1); disable it"), "{said}");
        assert!(said.ends_with("kubectl delete ipamblock 10-0-2-0-30"), "{said}");
        let v6 = pool("six", json!({"cidr": "fd00::/64"}));
        let others = Others { pools: vec![&v6], blocks: Vec::new() };
        assert!(in_use(&v6, &others, &[&pod("fd00::5", "Running", false)]).is_some());
    }
}
