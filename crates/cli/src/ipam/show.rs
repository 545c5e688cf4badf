//! `podnet ipam show`.

use std::{fs, net::IpAddr};

use ipnet::IpNet;
use kube::{Client, ResourceExt};
use podnet_model::crd::{IPAMBlock, IPPool, IPReservation};
use serde::Serialize;
use serde_json::Value;

use super::{Machine, facts::list};
use crate::{
    arguments::{Output, ipam::ShowOptions},
    report::{Doing, Failure},
    status::{table, trimmed},
};

/// How full a pool is. JSON forms of this and the others are an interface.
#[derive(Serialize)]
struct PoolRow {
    pool: String,
    cidr: String,
    block_size: i64,
    blocks: usize,
    /// Addresses of the whole pool.
    size: u128,
    held: usize,
    disabled: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    block_list: Vec<BlockRow>,
}

/// How full a block is.
#[derive(Serialize)]
struct BlockRow {
    block: String,
    node: String,
    size: usize,
    held: usize,
    /// Of the held ones, those that pods on other nodes have.
    lent: usize,
}

/// Who holds an address.
#[derive(Serialize)]
struct AddressRow {
    address: String,
    pool: Option<String>,
    block: Option<String>,
    /// Whose block it is.
    owner: Option<String>,
    reserved_by: Option<String>,
    pod: Option<String>,
    /// The node that the pod is on.
    node: Option<String>,
    handle: Option<String>,
    /// Names that the runtime gave it, where its node is on this machine.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    names: Vec<String>,
}

pub(super) async fn run(client: &Client, machines: &[Machine], options: &ShowOptions) -> Result<(), Failure> {
    let pools = list::<IPPool>(client).await?;
    let blocks = list::<IPAMBlock>(client).await?;
    if let Some(addr) = options.ip {
        let mut row = address(addr, &pools, &blocks, &list::<IPReservation>(client).await?);
        row.names = row.handle.as_deref().map(|handle| names(machines, handle)).unwrap_or_default();
        return print(options.output, &row, || print_address(&row));
    }
    let with_blocks = options.blocks || options.pool.is_some();
    let named = |pool: &&IPPool| options.pool.as_ref().is_none_or(|name| pool.name_any() == *name);
    let rows: Vec<_> = pools.iter().filter(named).map(|pool| pool_row(pool, &blocks, with_blocks)).collect();
    if let Some(name) = options.pool.as_ref().filter(|_| rows.is_empty()) {
        let names: Vec<_> = pools.iter().map(ResourceExt::name_any).collect();
        return Err(
            Failure::new(format!("there is no pool {name}")).remedy(format!("the pools are: {}", names.join(", ")))
        );
    }
    print(options.output, &rows, || print_pools(&rows))
}

fn print(output: Output, value: &impl Serialize, as_table: impl FnOnce()) -> Result<(), Failure> {
    match output {
        Output::Json => println!("{}", serde_json::to_string_pretty(value).doing(|| "cannot print it".into())?),
        Output::Table => as_table(),
    }
    Ok(())
}

fn pool_row(pool: &IPPool, blocks: &[IPAMBlock], with_blocks: bool) -> PoolRow {
    let range = pool.spec.cidr.parse::<IpNet>().ok();
    let inside = |block: &&IPAMBlock| {
        let cidr = block.spec.cidr.parse::<IpNet>().ok();
        range.zip(cidr).is_some_and(|(range, cidr)| range.contains(&cidr))
    };
    let mut rows: Vec<_> = blocks.iter().filter(inside).map(block_row).collect();
    rows.sort_by_key(|row| row.block.parse::<IpNet>().ok());
    let bits = range.map_or(0, |range| u32::from(range.max_prefix_len() - range.prefix_len()));
    PoolRow {
        pool: pool.name_any(),
        cidr: pool.spec.cidr.clone(),
        block_size: pool.spec.block_size.unwrap_or(if range.is_some_and(|range| range.addr().is_ipv6()) {
            122
        } else {
            26
        }),
        blocks: rows.len(),
        size: 1_u128.checked_shl(bits).unwrap_or(u128::MAX),
        held: rows.iter().map(|row| row.held).sum(),
        disabled: pool.spec.disabled.unwrap_or_default(),
        block_list: if with_blocks { rows } else { Vec::new() },
    }
}

fn block_row(block: &IPAMBlock) -> BlockRow {
    let spec = &block.spec;
    let node = owner(block).unwrap_or_default();
    let held: Vec<_> = spec.allocations.iter().flatten().collect();
    let on_another = |index: &&&i64| {
        let attribute = usize::try_from(***index).ok().and_then(|index| spec.attributes.get(index));
        let on = attribute.and_then(|attribute| attribute.secondary.get("node"));
        on.is_some_and(|on| !on.is_empty() && *on != node)
    };
    BlockRow {
        block: spec.cidr.clone(),
        size: spec.allocations.len(),
        held: held.len(),
        lent: held.iter().filter(on_another).count(),
        node,
    }
}

fn owner(block: &IPAMBlock) -> Option<String> {
    Some(block.spec.affinity.as_deref()?.strip_prefix("host:")?.to_owned())
}

fn address(addr: IpAddr, pools: &[IPPool], blocks: &[IPAMBlock], reservations: &[IPReservation]) -> AddressRow {
    let contains = |cidr: &str| {
        let range = cidr.parse::<IpNet>().ok().or_else(|| cidr.parse::<IpAddr>().ok().map(IpNet::from));
        range.is_some_and(|range| range.contains(&addr))
    };
    let block = blocks.iter().find(|block| contains(&block.spec.cidr));
    let attribute = block.and_then(|block| block.spec.attribute_of(addr));
    let text = |key: &str| attribute?.secondary.get(key).filter(|text| !text.is_empty()).cloned();
    let reserved = |reservation: &&IPReservation| reservation.spec.reserved_cidrs.iter().any(|range| contains(range));
    AddressRow {
        address: addr.to_string(),
        pool: pools.iter().find(|pool| contains(&pool.spec.cidr)).map(ResourceExt::name_any),
        block: block.map(|block| block.spec.cidr.clone()),
        owner: block.and_then(owner),
        reserved_by: reservations.iter().find(reserved).map(ResourceExt::name_any),
        pod: text("pod").map(|pod| format!("{}/{pod}", text("namespace").unwrap_or_default())),
        node: text("node"),
        handle: attribute.and_then(|attribute| attribute.handle_id.clone()),
        names: Vec::new(),
    }
}

/// The names that a runtime gave an attachment (the CNI capability aliases), from the record that its agent keeps.
fn names(machines: &[Machine], handle: &str) -> Vec<String> {
    let file = handle.replacen('/', "@", 1);
    // It comes from the API, and is to be no path that leads elsewhere.
    if file.contains('/') {
        return Vec::new();
    }
    let record = |machine: &Machine| fs::read(machine.state.join("attachments").join(&file)).ok();
    let record = machines.iter().find_map(record).and_then(|text| serde_json::from_slice::<Value>(&text).ok());
    let names = record.as_ref().and_then(|record| record["aliases"].as_array());
    names.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn print_pools(rows: &[PoolRow]) {
    let mut pools = table(&["POOL", "CIDR", "BLOCKS", "ADDRESSES", "IN USE", "FREE", ""]);
    for row in rows {
        let free = row.size.saturating_sub(row.held as u128);
        let percent = format!("{:.0}%", 100.0 * row.held as f64 / row.size as f64);
        pools.add_row([
            row.pool.clone(),
            row.cidr.clone(),
            format!("{} of /{}", row.blocks, row.block_size),
            count(row.size),
            format!("{} ({percent})", row.held),
            count(free),
            if row.disabled { "disabled".to_owned() } else { String::new() },
        ]);
    }
    println!("{}", trimmed(&pools));
    if rows.iter().all(|row| row.block_list.is_empty()) {
        return;
    }
    let mut blocks = table(&["BLOCK", "POOL", "NODE", "IN USE", "FREE", "LENT"]);
    for (pool, row) in rows.iter().flat_map(|row| row.block_list.iter().map(|block| (&row.pool, block))) {
        let free = row.size.saturating_sub(row.held);
        let node = if row.node.is_empty() { "-" } else { &row.node };
        blocks.add_row([&row.block, pool, node, &row.held.to_string(), &free.to_string(), &row.lent.to_string()]);
    }
    println!("\n{}", trimmed(&blocks));
}

/// A number that can be read: IPv6 pools have more addresses than anybody counts.
fn count(number: u128) -> String {
    match number.checked_ilog2() {
        Some(bits) if bits >= 40 && number.is_power_of_two() => format!("2^{bits}"),
        Some(bits) if bits >= 39 => format!("~2^{:.0}", (number as f64).log2()),
        _ => number.to_string(),
    }
}

fn print_address(row: &AddressRow) {
    let none = "-".to_owned();
    println!("address   {}", row.address);
    println!("pool      {}", row.pool.as_ref().unwrap_or(&none));
    let owner = row.owner.as_ref().map_or_else(String::new, |owner| format!(" of node {owner}"));
    println!("block     {}{owner}", row.block.as_ref().unwrap_or(&none));
    if let Some(reservation) = &row.reserved_by {
        println!("reserved  by IPReservation {reservation}");
    }
    match (&row.pod, &row.handle) {
        (Some(pod), _) => println!("held by   pod {pod} on node {}", row.node.as_ref().unwrap_or(&none)),
        (None, Some(_)) => println!("held by   no pod"),
        (None, None) => println!("held by   nobody"),
    }
    if let Some(handle) = &row.handle {
        println!("handle    {handle}");
    }
    if !row.names.is_empty() {
        println!("names     {}", row.names.join(" "));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_nobody_can_read_are_powers_of_two() {
        for (number, text) in [(0, "0"), (16384, "16384"), (1 << 72, "2^72"), ((1 << 72) - 9, "~2^72")] {
            assert_eq!(count(number), text);
        }
    }
}
