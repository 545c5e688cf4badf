//! What the runtime and its CNI configuration say about addresses.

use std::sync::Arc;

use podnet_kernel::cni_wire::Failure;
use podnet_model::{Dual, Family, cni::Wishes};
use podnet_planner::ipam::{NetworkWish, PoolList, PoolSource, Wish};
use serde_json::Value;

/// What annotations say counts before what the runtime says, and that before the configuration's own pools.
pub(super) fn wished(mut wish: Wish, wishes: &Wishes) -> Result<Wish, Failure> {
    if !wish.addrs.is_empty() || !wish.addrs_no_ipam.is_empty() {
        return Ok(wish);
    }
    for family in Family::ALL {
        let by_annotation =
            matches!(&wish.pools[family], Some(pools) if !matches!(pools.source, PoolSource::Conflist(_)));
        let ranges = wishes.ranges.iter().filter(|range| Family::of_net(range) == family);
        let names: Vec<Arc<str>> = ranges.map(|range| range.to_string().into()).collect();
        if !names.is_empty() && !by_annotation {
            wish.pools[family] = Some(PoolList { source: PoolSource::Runtime, names });
        }
        if wishes.addrs.iter().filter(|addr| Family::of(addr) == family).count() > 1 {
            let addrs: Vec<String> = wishes.addrs.iter().map(ToString::to_string).collect();
            let what =
                format!("the runtime asks for the addresses {}: there is one of each family at most", addrs.join(", "));
            return Err(Failure::new(Failure::INVALID_CONFIG, what));
        }
    }
    wish.addrs.clone_from(&wishes.addrs);
    Ok(wish)
}

/// The keys of `ipam` in a network configuration that podnet shares with Calico.
pub(super) fn network(config: &Value) -> Result<NetworkWish, Failure> {
    let ipam = &config["ipam"];
    Ok(NetworkWish {
        pools: Dual { v4: pools(ipam, "ipv4_pools", Family::V4)?, v6: pools(ipam, "ipv6_pools", Family::V6)? },
        assign: Dual { v4: assign(ipam, "assign_ipv4")?, v6: assign(ipam, "assign_ipv6")? },
    })
}

fn pools(ipam: &Value, key: &str, family: Family) -> Result<Vec<Arc<str>>, Failure> {
    let name = |entry: &Value| entry.as_str().filter(|name| !name.is_empty()).map(Arc::from);
    let list = match &ipam[key] {
        Value::Null => return Ok(Vec::new()),
        Value::Array(list) => list.iter().map(name).collect::<Option<Vec<_>>>(),
        _ => None,
    };
    list.ok_or_else(|| wrong(ipam, key, &format!("a list of names or {family} ranges")))
}

/// A text, as Calico has it; a JSON boolean says the same.
fn assign(ipam: &Value, key: &str) -> Result<Option<bool>, Failure> {
    match &ipam[key] {
        Value::Null => Ok(None),
        Value::Bool(assign) => Ok(Some(*assign)),
        Value::String(text) if text.is_empty() => Ok(None),
        Value::String(text) if text.eq_ignore_ascii_case("true") => Ok(Some(true)),
        Value::String(text) if text.eq_ignore_ascii_case("false") => Ok(Some(false)),
        _ => Err(wrong(ipam, key, "\"true\" or \"false\"")),
    }
}

fn wrong(ipam: &Value, key: &str, allowed: &str) -> Failure {
    let value = &ipam[key];
    Failure::new(
        Failure::INVALID_CONFIG,
        format!("ipam.{key} of the CNI configuration is {value}; it must be {allowed}"),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn calicos_keys_are_read_and_what_cannot_be_meant_is_refused() {
        let read =
            network(&json!({"ipam": {"ipv6_pools": ["six"], "assign_ipv4": "false", "assign_ipv6": true}})).unwrap();
        assert_eq!(read.pools, Dual { v4: Vec::new(), v6: vec!["six".into()] });
        assert_eq!(read.assign, Dual { v4: Some(false), v6: Some(true) });
        assert_eq!(network(&json!({})).unwrap(), NetworkWish::default());
        for (ipam, message) in [
            (
                json!({"ipv6_pools": "six"}),
                r#"ipam.ipv6_pools of the CNI configuration is "six"; it must be a list of names or IPv6 ranges"#,
            ),
            (
                json!({"assign_ipv6": "yes"}),
                r#"ipam.assign_ipv6 of the CNI configuration is "yes"; it must be "true" or "false""#,
            ),
        ] {
            assert_eq!(network(&json!({"ipam": ipam})).unwrap_err().msg, message);
        }
    }

    #[test]
    fn the_runtimes_ranges_stand_for_pools_of_their_family() {
        let ranges = vec!["10.0.0.0/24".parse().unwrap(), "fd00::/120".parse().unwrap()];
        let mut wish = Wish::default();
        wish.pools.v6 = Some(PoolList { source: PoolSource::Pod(Family::V6), names: vec!["mine".into()] });
        let wish = wished(wish, &Wishes { ranges, ..Wishes::default() }).unwrap();
        let names = |family| wish.pools[family].as_ref().map(|list| list.names.join(","));
        assert_eq!(names(Family::V4).as_deref(), Some("10.0.0.0/24"));
        assert_eq!(names(Family::V6).as_deref(), Some("mine"), "the pod's annotation counts first");
    }

    #[test]
    fn two_addresses_of_one_family_are_refused() {
        let addrs = |list: &[&str]| list.iter().map(|addr| addr.parse().unwrap()).collect();
        let of = |list: &[&str]| wished(Wish::default(), &Wishes { addrs: addrs(list), ..Wishes::default() });
        assert!(of(&["10.0.0.1", "fd00::1"]).is_ok());
        let error = of(&["fd00::1", "fd00::2"]).unwrap_err().msg;
        assert_eq!(error, "the runtime asks for the addresses fd00::1, fd00::2: there is one of each family at most");
    }
}
