//! The packet table of Services with real packets: its cluster is made of namespaces, each row is sent through it, and what arrives
//! where, from which source, or is refused, is what the table says, and the devices that it passes are those that a trace names; in each
//! mode.
#![allow(clippy::unwrap_used)]

mod churn;
mod counted;
mod group;
mod judge;
mod lab;
mod listeners;
mod modes;
#[path = "../tunnels/namespace.rs"]
mod namespace;
mod probes;
mod raw;
mod sctp;
mod self_test;

use std::process::Command;

use podnet_kernel::{iptables::Variant, sysctl};
use podnet_model::Protocol;
use podnet_planner::{
    ruleset::walk::Direction,
    services::packet_table::{self, Fate, Row, configured, six},
};
use podnet_testnet::vm;

use crate::{
    counted::Traced,
    judge::{OFTEN, SELDOM},
    lab::Lab,
    modes::{Ebpf, IptablesMode, IpvsMode, Mode, Nftables, UserspaceMode},
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

#[test]
fn every_row_of_the_packet_table_holds_with_ebpf() {
    hold_at_sockets(OFTEN);
}

/// Those of SCTP are left out: this mode has none, and says so.
#[test]
fn every_row_but_those_of_sctp_holds_with_userspace() {
    let is_served = |row: &Row| row.packet.protocol != Protocol::Sctp;
    let rows: Vec<Row> = rows().into_iter().filter(is_served).collect();
    let lab = hold(&UserspaceMode, &rows, OFTEN);
    // Where the program listens at a port of the node the harness does not, whichever address it is of.
    let first = packet_table::address("node1").expect("a name of the table");
    let is_to_first = |row: &Row| [first, six::six(first)].contains(&row.packet.dst);
    hold_otherwise(lab, &UserspaceMode, |row| is_served(row) && !is_to_first(row), OFTEN);
}

#[test]
fn with_ebpf_what_pods_and_nodes_send_needs_no_translation_of_packets() {
    let guarded = ["lbranges-ip", "closed-ip"].map(|name| packet_table::address(name).expect("a name of the table"));
    let guarded: Vec<_> = guarded.into_iter().flat_map(|addr| [addr, six::six(addr)]).collect();
    let at_sockets = |row: &Row| {
        let is_ours =
            row.packet.protocol != Protocol::Sctp && !row.packet.is_echo && !guarded.contains(&row.packet.dst);
        row.direction != Direction::FromOutside && is_ours
    };
    let rows: Vec<Row> = rows().into_iter().filter(at_sockets).collect();
    hold(&Ebpf::alone(), &rows, OFTEN);
}

#[test]
fn every_row_holds_on_the_kernel_of_the_virtual_machine() {
    vm::run_tests("machine_", &[&["veth"][..], &vm::NF_TABLES].concat());
}

/// This machine's kernel may have no virtual servers.
#[test]
fn every_row_holds_with_ipvs_in_the_virtual_machine() {
    let modules = [&vm::VIRTUAL_SERVERS[..], &["nft_chain_nat", "nft_ct", "nft_masq", "nft_compat"]].concat();
    let nft = ["iptables-nft-restore", "iptables-nft-save", "ip6tables-nft-restore", "ip6tables-nft-save"];
    vm::run_tests_with("with_virtual_servers", &modules, &[vm::IPTABLES_LEGACY, nft].concat());
}

#[test]
#[ignore = "runs in the virtual machine"]
fn with_virtual_servers_and_iptables_legacy() {
    holds_in_the_machine(&IpvsMode { variant: Variant::Legacy });
}

#[test]
#[ignore = "runs in the virtual machine"]
fn with_virtual_servers_and_iptables_nft() {
    holds_in_the_machine(&IpvsMode { variant: Variant::Nft });
}

#[test]
#[ignore = "runs in the virtual machine"]
fn machine_nftables() {
    holds_in_the_machine(&Nftables::default());
}

#[test]
#[ignore = "runs in the virtual machine"]
fn machine_ebpf() {
    let mounted = Command::new("mount").args(["-t", "cgroup2", "none", "/sys/fs/cgroup"]).status().unwrap();
    assert!(mounted.success());
    track_many_connections();
    hold_at_sockets(SELDOM);
}

fn holds_in_the_machine(mode: &dyn Mode) {
    track_many_connections();
    let lab = hold(mode, &rows(), SELDOM);
    hold_otherwise(lab, mode, |_| true, SELDOM);
}

/// So small a machine tracks few thousands of connections, and remembers those that have ended for minutes.
fn track_many_connections() {
    sysctl::set_here("net.netfilter.nf_conntrack_max", "200000").unwrap();
}

fn holds(mode: &dyn Mode) {
    let lab = hold(mode, &rows(), OFTEN);
    hold_otherwise(lab, mode, |_| true, OFTEN);
}

/// What a pod opens to a backend by itself bears the pod's address, where all is to be masqueraded too: no packet of it is translated.
fn hold_at_sockets(often: u32) {
    let mode = Ebpf::new();
    let lab = hold(&mode, &rows(), often);
    let is_masqueraded = |row: &Row| matches!(&row.fate, Fate::Arrives(at) if at.values().all(|is_so| *is_so));
    let is_at_socket = |row: &Row| row.direction == Direction::FromPod && row.packet.protocol != Protocol::Sctp;
    hold_otherwise(lab, &mode, |row| !(is_at_socket(row) && is_masqueraded(row)), often);
}

/// Those of both families.
fn rows() -> Vec<Row> {
    packet_table::rows().into_iter().chain(six::rows()).collect()
}

/// The cluster in which they did.
fn hold(mode: &dyn Mode, rows: &[Row], often: u32) -> Lab {
    let served = |row: &&Row| mode.serves_loopback() || !row.packet.dst.is_loopback();
    let rows: Vec<Row> = rows.iter().filter(served).cloned().collect();
    let lab = Lab::new(&format!("table-{}", mode.name()));
    let traced = Traced::new(mode.traced_as());
    let told = judge::on_each_node(&lab, mode, &rows, |own| judged_and_traced(&lab, mode, &traced, own, often));
    assert!(told.is_empty(), "{} faults in {} rows:\n{}", told.len(), rows.len(), told.join("\n"));
    lab
}

/// What of a node's rows is another than the table or the trace has it, in words.
fn judged_and_traced(lab: &Lab, mode: &dyn Mode, traced: &Traced, own: &[&Row], often: u32) -> Vec<String> {
    let failures = judge::of_node(lab, mode, own, often);
    let mut told: Vec<String> = failures.iter().map(ToString::to_string).collect();
    told.extend(traced.differences(lab, mode, own));
    told
}

/// The rows of a node on which kube-proxy's configuration says more, but those that the mode has not.
fn hold_otherwise(mut lab: Lab, mode: &dyn Mode, is_there: impl Fn(&Row) -> bool, often: u32) {
    let second = configured::SECOND.into();
    lab.add_addrs("node1", &[second, six::six(second)]);
    let rows: Vec<Row> = configured::rows().into_iter().filter(is_there).collect();
    let configs = [configured::config, configured::config_six];
    let traced = Traced::configured(mode.traced_as());
    let work = |own: &[&Row]| judged_and_traced(&lab, mode, &traced, own, often);
    let told = judge::on_each_node_as(configs, &lab, mode, &rows, work);
    let (many, faults) = (told.len(), told.join("\n"));
    assert!(told.is_empty(), "configured otherwise: {many} faults in {} rows:\n{faults}", rows.len());
}
