//! Pools, reservations and settings of IPAM: what their schemas cannot say.
//!
//! An object is judged by the same conversion that the agents use, so that what is accepted here works there; then pools are
//! compared with each other and with the blocks that nodes took of them.

mod deletion;

use ipnet::IpNet;
use podnet_model::{
    EncapMode, IpamSettings, Pool, Reservation,
    convert::Invalid,
    crd::{IPAMConfig, IPPool, IPReservation, SPLIT_OF},
};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::FieldError;
pub use deletion::in_use;

/// The API group of these kinds.
pub const GROUP: &str = "crd.projectcalico.org";

/// What else there is, when an object is judged.
pub struct Others<'a> {
    /// All pools; the judged one may be among them.
    pub pools: Vec<&'a Value>,
    /// All blocks.
    pub blocks: Vec<&'a Value>,
}

/// What is wrong with a new or changed (`old` is what it was) object, whose schema holds.
pub fn faults(kind: &str, object: &Value, old: Option<&Value>, others: &Others<'_>) -> Vec<FieldError> {
    let invalid = match kind {
        "IPPool" => match judged::<IPPool, Pool>(object) {
            Some(Ok(pool)) => return pool_faults(&pool, object, old, others),
            judged => fault(judged),
        },
        "IPReservation" => fault(judged::<IPReservation, Reservation>(object)),
        "IPAMConfig" => fault(judged::<IPAMConfig, IpamSettings>(object)),
        _ => None,
    };
    invalid.map(|invalid| field_error(object, invalid)).into_iter().collect()
}

/// Says what counts where a pool does not say it and its schema cannot, as it depends on the range.
pub fn complete(object: &mut Value) {
    if object["spec"]["blockSize"].is_null()
        && let Some(Ok(pool)) = judged::<IPPool, Pool>(object)
    {
        object["spec"]["blockSize"] = pool.block_size.into();
    }
}

/// None where the object's types are not the kind's, which is for the schema to say.
fn judged<K, M>(object: &Value) -> Option<Result<M, Invalid>>
where
    K: DeserializeOwned,
    M: for<'a> TryFrom<&'a K, Error = Invalid>,
{
    let object: K = serde_json::from_value(object.clone()).ok()?;
    Some(M::try_from(&object))
}

fn fault<M>(judged: Option<Result<M, Invalid>>) -> Option<Invalid> {
    judged?.err()
}

fn pool_faults(pool: &Pool, object: &Value, old: Option<&Value>, others: &Others<'_>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    // Neither Calico's nodes nor podnet's have such a tunnel.
    if pool.cidr.addr().is_ipv6() && pool.ipip != EncapMode::Never {
        let why = "must be Never for an IPv6 pool: IPIP carries IPv4 alone; vxlanMode carries both";
        errors.push(FieldError::invalid("spec.ipipMode", format!("{:?}", pool.ipip), why.to_owned()));
    }
    match old.and_then(|old| judged::<IPPool, Pool>(old)?.ok()) {
        Some(old) => errors.extend(change(&old, pool, others)),
        None => errors.extend(overlap(pool, object, others)),
    }
    errors
}

/// The range of a pool cannot change, and its block size only while nobody took a block.
fn change(old: &Pool, pool: &Pool, others: &Others<'_>) -> Option<FieldError> {
    if old.cidr != pool.cidr {
        let why = format!(
            "field is immutable, it must stay {}: make another pool, disable this one, and delete it when its pods are gone",
            old.cidr
        );
        return Some(FieldError::invalid("spec.cidr", pool.cidr.to_string(), why));
    }
    if old.block_size == pool.block_size {
        return None;
    }
    let inside = |block: &&&Value| cidr(&block["spec"]["cidr"]).is_some_and(|block| pool.cidr.contains(&block));
    let blocks = others.blocks.iter().filter(inside).count();
    (blocks > 0).then(|| {
        let why = format!("must stay {} while nodes have blocks of this pool, and they have {blocks}", old.block_size);
        FieldError::invalid("spec.blockSize", pool.block_size, why)
    })
}

/// A new pool shares no address with another, except one that it is split from.
fn overlap(pool: &Pool, object: &Value, others: &Others<'_>) -> Option<FieldError> {
    let split_of = object["metadata"]["annotations"][SPLIT_OF].as_str();
    let clash = others.pools.iter().find(|other| {
        let name = other["metadata"]["name"].as_str();
        let Some(range) = cidr(&other["spec"]["cidr"]).filter(|_| name != Some(pool.name.as_str())) else {
            return false;
        };
        let is_part = split_of.is_some() && split_of == name && range.contains(&pool.cidr) && range != pool.cidr;
        !is_part && (range.contains(&pool.cidr) || pool.cidr.contains(&range))
    })?;
    let (name, range) = (&clash["metadata"]["name"], &clash["spec"]["cidr"]);
    let (name, range) = (name.as_str().unwrap_or_default(), range.as_str().unwrap_or_default());
    let why = format!("overlaps with IPPool {name} ({range}): it must be a range that no other pool has addresses of");
    Some(FieldError::invalid("spec.cidr", pool.cidr.to_string(), why))
}

fn cidr(text: &Value) -> Option<IpNet> {
    text.as_str()?.parse().ok()
}

fn field_error(object: &Value, invalid: Invalid) -> FieldError {
    match invalid {
        Invalid::Missing { field, allowed, .. } => FieldError::required(field, format!("must be {allowed}")),
        Invalid::Value { field, value, allowed, .. } => {
            // The value as the user wrote it: a number without quotes.
            let written = object.pointer(&format!("/{}", field.replace('.', "/"))).filter(|value| !value.is_null());
            let value = written.cloned().unwrap_or_else(|| Value::from(value));
            FieldError::invalid(field, value, format!("must be {allowed}"))
        }
        Invalid::Selector { field, value, source, .. } => {
            FieldError::invalid(field, value, format!("must be a selector, for example all() or zone == 'a': {source}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[allow(clippy::needless_pass_by_value, reason = "reads better")]
    pub(super) fn pool(name: &str, spec: Value) -> Value {
        json!({"apiVersion": "crd.projectcalico.org/v1", "kind": "IPPool", "metadata": {"name": name}, "spec": spec})
    }

    fn created(object: &Value, pools: &[Value]) -> Vec<String> {
        let others = Others { pools: pools.iter().collect(), blocks: Vec::new() };
        faults("IPPool", object, None, &others).iter().map(ToString::to_string).collect()
    }

    fn wrong(spec: Value) -> Vec<String> {
        created(&pool("a", spec), &[])
    }

    #[test]
    fn each_mistake_in_a_pool_is_named_with_its_field_its_value_and_what_is_allowed() {
        assert!(wrong(json!({"cidr": "10.0.0.0/24", "ipipMode": "CrossSubnet", "blockSize": 26})).is_empty());
        for (spec, message) in [
            (
                json!({"cidr": "10.0.0.0"}),
                r#"spec.cidr: Invalid value: "10.0.0.0": must be a range, for example 10.233.64.0/18"#,
            ),
            (
                json!({"cidr": "10.0.0.9/24"}),
                r#"spec.cidr: Invalid value: "10.0.0.9/24": must be a range whose address is its first: 10.0.0.0/24"#,
            ),
            (
                json!({"cidr": "10.0.0.0/24", "blockSize": 33}),
                "spec.blockSize: Invalid value: 33: must be 24 to 32 for a pool 10.0.0.0/24",
            ),
            (
                json!({"cidr": "10.0.0.0/8", "blockSize": 19}),
                "spec.blockSize: Invalid value: 19: must be 20 to 32 for a pool 10.0.0.0/8",
            ),
            (
                json!({"cidr": "fd00::/64", "blockSize": 26}),
                "spec.blockSize: Invalid value: 26: must be 116 to 128 for a pool fd00::/64",
            ),
            (
                json!({"cidr": "fd00::/64", "ipipMode": "Always"}),
                r#"spec.ipipMode: Invalid value: "Always": must be Never for an IPv6 pool: IPIP carries IPv4 alone"#,
            ),
            (
                json!({"cidr": "10.0.0.0/24", "vxlanMode": "Always", "ipipMode": "CrossSubnet"}),
                r#"spec.vxlanMode: Invalid value: "Always": must be Never where spec.ipipMode is not Never"#,
            ),
            (
                json!({"cidr": "10.0.0.0/24", "nodeSelector": "zone = 'a'"}),
                r#"spec.nodeSelector: Invalid value: "zone = 'a'": must be a selector, for example all() or zone == 'a': "#,
            ),
        ] {
            let errors = wrong(spec);
            assert!(errors.len() == 1 && errors[0].starts_with(message), "{errors:?}\nis not {message}");
        }
    }

    #[test]
    fn pools_share_no_address_unless_one_is_split_from_the_other() {
        let there = [pool("all", json!({"cidr": "10.0.0.0/16"}))];
        for range in ["10.0.4.0/24", "10.0.0.0/8", "10.0.0.0/16"] {
            let errors = created(&pool("new", json!({"cidr": range})), &there);
            assert!(errors[0].contains(&format!("{range:?}: overlaps with IPPool all (10.0.0.0/16)")), "{errors:?}");
        }
        assert!(created(&pool("new", json!({"cidr": "10.1.0.0/16"})), &there).is_empty());
        let mut part = pool("new", json!({"cidr": "10.0.0.0/17"}));
        part["metadata"]["annotations"] = json!({SPLIT_OF: "all"});
        assert!(created(&part, &there).is_empty());
        part["spec"]["cidr"] = json!("10.0.0.0/15");
        assert_eq!(created(&part, &there).len(), 1);
    }

    #[test]
    fn the_size_of_a_pools_blocks_is_filled_in() {
        for (spec, size) in [
            (json!({"cidr": "10.0.0.0/16"}), 26),
            (json!({"cidr": "fd00::/64"}), 122),
            (json!({"cidr": "10.0.0.0/16", "blockSize": 28}), 28),
        ] {
            let mut object = pool("a", spec);
            complete(&mut object);
            assert_eq!(object["spec"]["blockSize"], size);
        }
        let mut wrong = pool("a", json!({"cidr": "ten"}));
        complete(&mut wrong);
        assert!(wrong["spec"]["blockSize"].is_null());
    }

    #[test]
    fn a_pool_keeps_its_range_and_while_it_has_blocks_their_size() {
        let old = pool("a", json!({"cidr": "10.0.0.0/16"}));
        let block = json!({"spec": {"cidr": "10.0.1.0/26"}});
        let changed = |spec: Value, blocks: &[Value]| -> Vec<String> {
            let others = Others { pools: vec![&old], blocks: blocks.iter().collect() };
            let errors = faults("IPPool", &pool("a", spec), Some(&old), &others);
            errors.iter().map(ToString::to_string).collect()
        };
        let errors = changed(json!({"cidr": "10.1.0.0/16"}), &[]);
        assert!(
            errors[0].starts_with(
                r#"spec.cidr: Invalid value: "10.1.0.0/16": field is immutable, it must stay 10.0.0.0/16"#
            ),
            "{errors:?}"
        );
        let smaller = json!({"cidr": "10.0.0.0/16", "blockSize": 28});
        assert!(changed(smaller.clone(), &[]).is_empty());
        let errors = changed(smaller, &[block]);
        assert_eq!(
            errors,
            ["spec.blockSize: Invalid value: 28: must stay 26 while nodes have blocks of this pool, and they have 1"]
        );
        assert!(changed(json!({"cidr": "10.0.0.0/16", "disabled": true}), &[]).is_empty());
    }

    #[test]
    fn reservations_and_settings_are_judged_too() {
        let others = Others { pools: Vec::new(), blocks: Vec::new() };
        let reservation = json!({"apiVersion": "crd.projectcalico.org/v1", "kind": "IPReservation", "metadata": {"name": "r"},
            "spec": {"reservedCIDRs": ["10.0.0.0/30", "10.0.0/8"]}});
        let errors = faults("IPReservation", &reservation, None, &others);
        assert!(
            errors[0]
                .to_string()
                .starts_with(r#"spec.reservedCIDRs[1]: Invalid value: "10.0.0/8": must be an address"#)
        );
        let config = json!({"apiVersion": "crd.projectcalico.org/v1", "kind": "IPAMConfig", "metadata": {"name": "default"},
            "spec": {"strictAffinity": true, "autoAllocateBlocks": true, "maxBlocksPerHost": -1}});
        let errors = faults("IPAMConfig", &config, None, &others);
        assert!(errors[0].to_string().starts_with("spec.maxBlocksPerHost: Invalid value: -1: must be 0"), "{errors:?}");
    }
}
