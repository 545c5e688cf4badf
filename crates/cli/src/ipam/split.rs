//! `podnet ipam split`.

use std::collections::BTreeMap;

use ipnet::IpNet;
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, PostParams, Preconditions},
};
use podnet_model::crd::{IPPool, IPPoolSpec, SPLIT_OF};

use crate::{
    arguments::ipam::SplitOptions,
    report::{Doing, Failure},
};

/// The parts are there before the whole goes, so that no block is ever without a pool. Where it was cut off, it goes on.
pub(super) async fn run(client: &Client, options: &SplitOptions) -> Result<(), Failure> {
    let pools = Api::<IPPool>::all(client.clone());
    let name = &options.pool;
    let whole = pools.get_opt(name).await.doing(|| format!("cannot read pool {name}"))?;
    let whole =
        whole.ok_or_else(|| Failure::new(format!("there is no pool {name}")).remedy("podnet ipam show lists them"))?;
    let parts = parts(&whole, options.parts)?;
    for part in &parts {
        let part_name = part.name_any();
        match pools.create(&PostParams::default(), part).await {
            Err(kube::Error::Api(status)) if status.is_already_exists() => {
                let found = pools.get(&part_name).await.doing(|| format!("cannot read pool {part_name}"))?;
                if found.spec.cidr != part.spec.cidr || found.annotations().get(SPLIT_OF) != Some(name) {
                    return Err(Failure::new(format!("there is another pool {part_name} already")).remedy(format!(
                        "rename or delete it; pool {name} is as it was, beside its parts that are there"
                    )));
                }
            }
            created => drop(created.doing(|| format!("cannot create pool {part_name}"))?),
        }
        println!("{part_name}  {}", part.spec.cidr);
    }
    let same = Preconditions { uid: whole.uid(), resource_version: whole.resource_version() };
    let params = DeleteParams { preconditions: Some(same), ..DeleteParams::default() };
    pools.delete(name, &params).await.doing(|| format!("the parts are there, and pool {name} cannot be deleted"))?;
    println!("{name} is gone; whoever names it in an annotation has to name a part now");
    Ok(())
}

fn parts(whole: &IPPool, count: u32) -> Result<Vec<IPPool>, Failure> {
    let name = whole.name_any();
    let cidr: IpNet = whole.spec.cidr.parse().doing(|| format!("pool {name} has no range"))?;
    if count < 2 || !count.is_power_of_two() {
        return Err(Failure::usage(format!("a pool cannot be split into {count} equal parts; it must be 2, 4, 8, …")));
    }
    let block_size = whole.spec.block_size.unwrap_or(if cidr.addr().is_ipv6() { 122 } else { 26 });
    let prefix = u32::from(cidr.prefix_len()) + count.ilog2();
    if i64::from(prefix) > block_size {
        let most = 1_u64 << (block_size - i64::from(cidr.prefix_len())).clamp(0, 63);
        return Err(Failure::usage(format!(
            "pool {name} ({cidr}) has {most} blocks of /{block_size}; it cannot be split into {count} parts"
        )));
    }
    let ranges = u8::try_from(prefix).ok().and_then(|prefix| cidr.subnets(prefix).ok());
    let ranges =
        ranges.ok_or_else(|| Failure::usage(format!("pool {name} ({cidr}) cannot be split into {count} parts")))?;
    Ok(ranges.enumerate().map(|(index, range)| part(whole, &name, index, range)).collect())
}

fn part(whole: &IPPool, name: &str, index: usize, range: IpNet) -> IPPool {
    let mut part =
        IPPool::new(&format!("{name}-{index}"), IPPoolSpec { cidr: range.to_string(), ..whole.spec.clone() });
    part.metadata.annotations = Some(BTreeMap::from([(SPLIT_OF.to_owned(), name.to_owned())]));
    part.metadata.labels.clone_from(&whole.metadata.labels);
    part
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(cidr: &str) -> IPPool {
        IPPool::new("p", IPPoolSpec { cidr: cidr.to_owned(), block_size: Some(26), ..IPPoolSpec::default() })
    }

    fn ranges(cidr: &str, count: u32) -> Result<Vec<String>, String> {
        let parts = parts(&pool(cidr), count).map_err(|failure| failure.to_string())?;
        Ok(parts.iter().map(|part| format!("{} {}", part.name_any(), part.spec.cidr)).collect())
    }

    #[test]
    fn parts_are_equal_and_no_smaller_than_a_block() {
        assert_eq!(ranges("10.0.0.0/24", 2).unwrap(), ["p-0 10.0.0.0/25", "p-1 10.0.0.128/25"]);
        assert_eq!(ranges("10.0.0.0/24", 4).unwrap().len(), 4);
        assert!(ranges("10.0.0.0/24", 8).unwrap_err().contains("has 4 blocks of /26"));
        for count in [0, 1, 3, 6] {
            assert!(ranges("10.0.0.0/24", count).unwrap_err().contains("must be 2, 4, 8"), "{count}");
        }
    }
}
