//! Pods that say that they are routers.

use std::process::Command;

use super::*;
use crate::testing::eventually;

/// Says to all nodes of the link that its sender is a router (RFC 4861, section 4.2), with a link-local source as it has to be.
const ADVERTISE: &str = r#"
    use Socket qw(:DEFAULT inet_pton pack_sockaddr_in6);
    socket(my $s, AF_INET6, SOCK_RAW, 58) or die $!;
    setsockopt($s, 41, 18, pack("i", 255)) or die $!;
    bind($s, pack_sockaddr_in6(0, inet_pton(AF_INET6, "fe80::bad"), $ARGV[0])) or die $!;
    my $to = pack_sockaddr_in6(0, inet_pton(AF_INET6, "ff02::1"), $ARGV[0]);
    send($s, pack("CCnCCnNN", 134, 0, 0, 64, 0, 1800, 0, 0), 0, $to) or die $!;
"#;

/// Sends an advertisement, and something after it that is answered: what the node does for the first it has done then.
fn advertise(pods: &Pods, pod_index: u32) {
    let mut command = Command::new("perl");
    command.args(["-e", ADVERTISE, &pod_index.to_string()]);
    let output = pods.namespaces[0].run(move || command.output()).unwrap().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    pods.namespaces[0].command("ping -c 1 -W 2 192.0.2.1");
}

#[test]
fn a_pod_does_not_become_the_nodes_router() {
    let mut pods = pods("router", 1);
    // A node of an IPv4 cluster: only who does not forward IPv6 takes advertisements.
    sysctl::set(&pods.node, "net.ipv6.conf.all.forwarding", "0").unwrap();
    for has_ipv6 in [true, false] {
        pods.interfaces[0].addr.retain(|addr| has_ipv6 || addr.is_ipv4());
        let created = pods.interfaces[0].create(&mut pods.host).unwrap();
        let setting = |name: &str| format!("net.ipv6.conf.pod1.{name}");
        let disabled = sysctl::read(&pods.node, &setting("disable_ipv6")).unwrap();
        assert_eq!(disabled, if has_ipv6 { "0" } else { "1" });
        pods.namespaces[0].command("ip addr add fe80::bad/64 dev eth0 nodad");
        let own = "ip -6 addr add fe80::1/64 dev pod1 nodad";
        if has_ipv6 {
            pods.node.command(own);
        }
        let default_routes = || pods.node.command("ip -6 route show default");
        advertise(&pods, created.pod_index);
        assert_eq!(default_routes(), "");
        assert_eq!(pods.interfaces[0].check(&mut pods.host).unwrap(), []);
        // The advertisement is one that a node takes that is let.
        sysctl::set(&pods.node, &setting("disable_ipv6"), "0").unwrap();
        sysctl::set(&pods.node, &setting("accept_ra"), "1").unwrap();
        if !has_ipv6 {
            pods.node.command(own);
        }
        eventually("the node has a router", || {
            advertise(&pods, created.pod_index);
            default_routes().contains("fe80::bad")
        });
        remove(&mut pods.host, &"pod1".into()).unwrap();
    }
}
