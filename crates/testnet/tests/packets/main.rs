//! The packet table of Services with real packets: its cluster is made of namespaces, each row is sent through it, and what arrives
//! where, from which source, or is refused, is what the table says; in each mode.
#![allow(clippy::unwrap_used)]

mod churn;
mod judge;
mod lab;
mod listeners;
mod modes;
#[path = "../tunnels/namespace.rs"]
mod namespace;
mod probes;
mod sctp;
mod self_test;

use podnet_kernel::iptables::Variant;
use podnet_planner::services::packet_table::{self, six};
use podnet_testnet::vm;

use crate::{
    lab::Lab,
    modes::{IptablesMode, Mode, Nftables},
};

#[test]
fn every_row_of_the_packet_table_holds_with_nftables() {
    holds(&Nftables::default());
}

#[test]
fn every_row_of_the_packet_table_holds_with_iptables_legacy() {
    holds(&IptablesMode { variant: Variant::Legacy });
}

#[test]
fn every_row_of_the_packet_table_holds_with_iptables_nft() {
    holds(&IptablesMode { variant: Variant::Nft });
}

fn holds(mode: &dyn Mode) {
    let lab = Lab::new(&format!("table-{}", mode.name()));
    let rows: Vec<_> = packet_table::rows().into_iter().chain(six::rows()).collect();
    let failures = judge::failures(&lab, mode, &rows);
    let (failed, told) = (failures.len(), failures.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"));
    assert!(failures.is_empty(), "{failed} of {} rows fail:\n{told}", rows.len());
}

#[test]
fn every_row_holds_on_the_kernel_of_the_virtual_machine() {
    // What nf_tables loads by itself where programs are there to load it with.
    let modules = [
        "veth",
        "nft_chain_nat",
        "nft_ct",
        "nft_fib_ipv4",
        "nft_fib_ipv6",
        "nft_masq",
        "nft_nat",
        "nft_numgen",
        "nft_reject_ipv4",
        "nft_reject_ipv6",
    ];
    vm::run_tests("machine_", &modules);
}

#[test]
#[ignore = "runs in the virtual machine"]
fn machine_nftables() {
    holds(&Nftables::default());
}
