//! Pods' packets through other people's chains.

use podnet_model::Family;

use crate::{
    apart,
    nft::{NftSocket, Passing},
    testing::TestNs,
};

fn range(text: &str) -> Passing {
    Passing::Range(text.parse().unwrap())
}

fn ranges() -> Vec<Passing> {
    vec![range("10.233.64.0/18"), range("10.5.0.0/16")]
}

/// Mends every chain, and tells how many were not as they should be.
fn mend(socket: &mut NftSocket, ranges: &[Passing]) -> usize {
    let mut chains = socket.forward_chains(&["podnet"]).unwrap();
    chains.retain(|chain| !chain.lets_pass(ranges));
    chains.iter().for_each(|chain| socket.let_pass(chain, ranges).unwrap());
    chains.len()
}

#[test]
fn a_chain_with_policy_drop_lets_pods_pass_and_nothing_else() {
    let namespace = TestNs::new("passage");
    let mut socket = NftSocket::open_in(&namespace).unwrap();
    assert_eq!(mend(&mut socket, &ranges()), 0);
    namespace.command("iptables -A FORWARD -s 203.0.113.7 -j ACCEPT");
    assert_eq!(mend(&mut socket, &ranges()), 0, "a chain that accepts needs nothing");
    namespace.command("iptables -P FORWARD DROP");
    namespace.command("nft add table inet other");
    namespace.command("nft add chain inet other forward { type filter hook forward priority 10 ; policy drop ; }");
    assert_eq!(mend(&mut socket, &ranges()), 2);
    let rules = namespace.command("iptables -S FORWARD");
    for rule in
        ["-s 10.233.64.0/18 -m comment", "-d 10.5.0.0/16 -m comment --comment \"podnet: to 10.5.0.0/16\" -j ACCEPT"]
    {
        assert!(rules.contains(rule), "{rules}");
    }
    assert!(rules.trim_end().ends_with("-A FORWARD -s 203.0.113.7/32 -j ACCEPT"), "{rules}");
    let rules = namespace.command("nft list chain inet other forward");
    assert!(rules.contains("ip daddr 10.233.64.0/18 accept"), "{rules}");
    assert_eq!(mend(&mut socket, &ranges()), 0);
    assert_eq!(mend(&mut socket, &ranges()[..1]), 2, "a range that is no pool's any more goes");
    namespace.command("iptables -F FORWARD");
    assert_eq!(mend(&mut socket, &ranges()[..1]), 1);
    namespace.command("iptables -P FORWARD ACCEPT");
    assert_eq!(mend(&mut socket, &ranges()[..1]), 1);
    assert!(!namespace.command("iptables -S FORWARD").contains("10.233"));
}

/// Also where comments in it speak of podnet, and whatever is done in other tables.
#[test]
fn a_chain_that_accepts_stays_as_it_is_with_its_handles() {
    let namespace = TestNs::new("passageleft");
    let mut socket = NftSocket::open_in(&namespace).unwrap();
    for line in [
        "nft add table inet other",
        "nft add counter inet other seen",
        "nft add chain inet other forward { type filter hook forward priority 0 ; policy accept ; }",
        "nft add rule inet other forward ip daddr 192.0.2.1 counter packets 7 bytes 700 accept comment \"podnet's? no\"",
        "nft add rule inet other forward counter name seen comment \"KUBE-SERVICES #1: {};\"",
        "nft add table inet drops",
        "nft add chain inet drops forward { type filter hook forward priority 10 ; policy drop ; }",
    ] {
        namespace.command(line);
    }
    let listed = || namespace.command("nft -a list table inet other");
    let drops = || namespace.command("nft -a list table inet drops");
    let (before, dropping) = (listed(), drops());
    assert!(before.contains("packets 7 bytes 700") && before.contains("podnet's? no"), "{before}");
    let ranges = ranges();
    for ranges in [&ranges[..], &ranges[..1], &[]] {
        assert_eq!(mend(&mut socket, ranges), 1, "the one that drops");
        assert_eq!(listed(), before);
    }
    assert_eq!(drops(), dropping, "where nothing is to pass, it is as it was");
    assert_eq!(mend(&mut socket, &[]), 0);
}

#[test]
fn chains_of_ipv6_let_pods_pass_by_ipv6() {
    let namespace = TestNs::new("passage6");
    let mut socket = NftSocket::open_in(&namespace).unwrap();
    let ranges = ["10.5.0.0/16", "fd00:10:233::/48", "2001:db8:0:40::/58"].map(range);
    namespace.command("ip6tables -A FORWARD -s 2001:db8::7 -j ACCEPT");
    namespace.command("ip6tables -P FORWARD DROP");
    namespace.command("iptables -P FORWARD DROP");
    namespace.command("nft add table inet other");
    namespace.command("nft add chain inet other forward { type filter hook forward priority 10 ; policy drop ; }");
    assert_eq!(mend(&mut socket, &ranges), 3);
    let rules = namespace.command("ip6tables -S FORWARD");
    for rule in ["-s fd00:10:233::/48 -m comment", "-d 2001:db8:0:40::/58 -m comment", "-s 2001:db8::7/128 -j ACCEPT"] {
        assert!(rules.contains(rule), "{rules}");
    }
    assert!(!rules.contains("10.5."), "{rules}");
    assert!(!namespace.command("iptables -S FORWARD").contains("fd00"));
    let rules = namespace.command("nft list chain inet other forward");
    for rule in
        ["ip daddr 10.5.0.0/16 accept", "ip6 daddr fd00:10:233::/48 accept", "ip6 saddr 2001:db8:0:40::/58 accept"]
    {
        assert!(rules.contains(rule), "{rules}");
    }
    assert_eq!(mend(&mut socket, &ranges), 0);
    namespace.command("ip6tables -P FORWARD ACCEPT");
    assert_eq!(mend(&mut socket, &ranges), 1);
}

#[test]
fn what_goes_to_where_services_are_served_passes() {
    let namespace = TestNs::new("passagedev");
    let mut socket = NftSocket::open_in(&namespace).unwrap();
    let devices = Family::ALL.map(|family| Passing::Device(family, apart::device(family)));
    for line in ["iptables -P FORWARD DROP", "ip6tables -P FORWARD DROP", "nft add table inet other"] {
        namespace.command(line);
    }
    namespace.command("nft add chain inet other forward { type filter hook forward priority 10 ; policy drop ; }");
    assert_eq!(mend(&mut socket, &devices), 3);
    let rules = namespace.command("iptables -S FORWARD");
    for rule in
        ["-i podservices4 -m comment", "-o podservices4 -m comment --comment \"podnet: to podservices4\" -j ACCEPT"]
    {
        assert!(rules.contains(rule), "{rules}");
    }
    assert!(!rules.contains("podservices6"), "{rules}");
    assert!(namespace.command("ip6tables -S FORWARD").contains("-i podservices6 -m comment"));
    let rules = namespace.command("nft list chain inet other forward");
    for rule in ["meta nfproto ipv4 iifname \"podservices4\" accept", "oifname \"podservices6\" accept"] {
        assert!(rules.contains(rule), "{rules}");
    }
    assert_eq!((mend(&mut socket, &devices), mend(&mut socket, &[])), (0, 3));
}
