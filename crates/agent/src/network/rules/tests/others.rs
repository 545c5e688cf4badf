//! Rules of other programs: whatever is done for Services changes nothing of them and makes nothing of them anew.

use std::process::Command;

use podnet_kernel::{datapath::KernelDatapath, netns::NetNs};

use super::*;

/// Tables at the hooks and priorities at which podnet has chains, with what such tables hold; chains of iptables in the tables that mode
/// `iptables` writes to.
const THEIRS: [&str; 18] = [
    "nft add table ip others",
    "nft -- add chain ip others pre { type nat hook prerouting priority -100 ; }",
    "nft -- add chain ip others post { type nat hook postrouting priority 100 ; }",
    "nft add set ip others addresses { type ipv4_addr ; flags interval ; elements = { 10.96.0.0/12 } ; }",
    "nft add rule ip others pre ip daddr @addresses tcp dport 80 return",
    "nft add table ip6 others",
    "nft add chain ip6 others frontends { type filter hook forward priority 0 ; policy drop ; }",
    "nft add table inet others",
    "nft add map inet others backends { type inet_service : verdict ; elements = { 80 : accept } ; }",
    "nft add chain inet others services { type filter hook input priority 0 ; policy accept ; }",
    "nft add rule inet others services tcp dport vmap @backends",
    "nft add counter inet others seen",
    "nft add chain inet others passing { type filter hook forward priority 0 ; policy accept ; }",
    "nft add rule inet others passing ip daddr 10.96.0.1 counter packets 7 bytes 700 accept comment \"podnet's? no\"",
    "nft add rule inet others passing counter name seen comment \"KUBE-SERVICES #1: {};\"",
    "iptables-nft -t nat -N OTHERS",
    "iptables-nft -t nat -A OTHERS -d 10.96.0.9/32 -j RETURN",
    "iptables-nft -t nat -A PREROUTING -j OTHERS",
];

/// What a command prints in the calling thread's namespace.
fn printed(line: &str) -> String {
    let words: Vec<&str> = line.split(' ').collect();
    let output = Command::new(words[0]).args(&words[1..]).output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The tables with the numbers by which the kernel knows what is in them, which what is made anew has others of; the chains of iptables.
fn theirs() -> Vec<String> {
    let tables = ["ip", "ip6", "inet"].map(|family| printed(&format!("nft -a list table {family} others")));
    let chains = printed("iptables-nft-save -t nat");
    tables.into_iter().chain(chains.lines().filter(|line| line.contains("OTHERS")).map(str::to_owned)).collect()
}

/// Somebody takes podnet's rules away, or a part of them.
fn damage(mode: Mode) {
    match mode {
        Mode::Iptables => printed("iptables-nft -t nat -F KUBE-SERVICES"),
        _ => printed(&format!("nft delete table ip {}", nftables::TABLE)),
    };
}

#[test]
fn rules_of_other_programs_stay_as_they_are_through_changes_repairs_and_each_change_of_the_mode() {
    let path = format!("/run/netns/podnet-test-others-{}", std::process::id());
    let netns = NetNs::create(&path).unwrap();
    let done = netns.run(|| {
        THEIRS.iter().for_each(|line| drop(printed(line)));
        let before = theirs();
        assert_eq!(before.len(), 3 + 3, "{before:?}");
        let mut datapath = KernelDatapath::open().unwrap();
        let mut rules = rules();
        for change in [service(Some("10.96.0.1")), pool("four", Some("10.0.0.0/16")), pool("six", Some("fd00::/64"))] {
            rules.learn(&change);
        }
        rules.put(&mut datapath).unwrap();
        for mode in [Mode::Nftables, Mode::Iptables, Mode::Nftables] {
            if mode != rules.mode() {
                rules.switch(mode, &mut datapath).unwrap();
                assert_eq!(theirs(), before, "after the change to mode {mode}");
            }
            for at in ["10.96.0.2", "fd96::2", "10.96.0.1"] {
                rules.learn(&service(Some(at)));
                rules.edit(Tries::All, &mut datapath).unwrap();
            }
            assert_eq!(theirs(), before, "after changes in mode {mode}");
            damage(mode);
            rules.put(&mut datapath).unwrap();
            assert!(rules.serves());
            assert_eq!(theirs(), before, "after a repair in mode {mode}");
        }
        rules.learn(&service(None));
        rules.edit(Tries::All, &mut datapath).unwrap();
        assert_eq!(theirs(), before, "after the last Service is gone");
    });
    NetNs::remove(&path).unwrap();
    done.unwrap();
}
