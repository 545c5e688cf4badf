//! Of each plugin: texts and what they mean, and texts that are refused, where, and with what words.

use std::time::Duration;

use super::{options, refused};
use crate::{
    chain::{
        AclAction, Balance, HeaderFlag, Level, LogClass, LogField, LogPiece, Monitor, Peer, Policy, Refresh, SearchPath,
    },
    name::{Name, QueryName},
};

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

#[test]
fn forward_has_all_its_options() {
    let forward = options!(
        Forward,
        "forward example.org 192.0.2.1 dns://192.0.2.2:5353 [2001:db8::1]:54 2001:db8::2 /etc/resolv.conf {\n except \
         a.example.org 10.0.0.0/8\n policy sequential\n force_tcp\n prefer_udp\n max_fails 0\n expire 20s\n max_age 5m\n \
         health_check 1s no_rec domain example.org\n max_concurrent 0\n next NXDOMAIN refused\n failover SERVFAIL\n \
         next_on_nodata\n max_idle_conns 5\n max_connect_attempts 3\n failfast_all_unhealthy_upstreams\n tls a b c\n \
         tls_servername dns.example.org\n doh_method get\n}"
    );
    let upstreams: Vec<_> = forward.upstreams.iter().map(|upstream| upstream.addr.to_string()).collect();
    assert_eq!(upstreams, ["192.0.2.1:53", "192.0.2.2:5353", "[2001:db8::1]:54", "[2001:db8::2]:53", "192.0.2.53:53"]);
    assert_eq!((forward.policy, forward.force_tcp, forward.max_fails), (Policy::Sequential, true, 0));
    assert_eq!((forward.except.len(), forward.health_recursion, forward.max_concurrent), (2, false, None));
    assert_eq!((forward.next.len(), forward.failover.len(), forward.max_idle), (2, 1, Some(5)));
    assert_eq!((forward.tls.certificate.as_deref(), forward.tls.authorities.as_deref()), (Some("a"), Some("c")));
    assert!(forward.https_get && forward.fail_fast && forward.next_on_nodata && forward.prefer_udp);
    assert_eq!(forward.tls_server_name, Some(name("dns.example.org")));
    assert_eq!(forward.max_age, Some(Duration::from_mins(5)));
}

#[test]
fn cache_has_capacities_and_times_for_both_halves() {
    let cache = options!(
        Cache,
        "cache 60 example.org {\n success 5000 120 10\n denial 2500\n servfail 0\n keepttl\n prefetch 3 2m 20%\n \
         serve_stale 2h verify 50ms\n}"
    );
    let (success, denial) = (cache.success, cache.denial);
    assert_eq!((success.capacity, success.max_ttl, success.min_ttl), (5000, 120, 10));
    assert_eq!((denial.capacity, denial.max_ttl), (2500, 60));
    assert!(cache.servfail.is_zero() && cache.keep_ttl);
    let (prefetch, stale) = (cache.prefetch.unwrap(), cache.serve_stale.unwrap());
    assert_eq!((prefetch.amount, prefetch.within.as_secs(), prefetch.percentage), (3, 120, 20));
    assert_eq!((stale.up_to.as_secs(), stale.refresh), (7200, Refresh::Verify));
    assert_eq!(stale.verify_timeout, Some(Duration::from_millis(50)));
    let stale = options!(Cache, "cache {\n serve_stale\n}").serve_stale.unwrap();
    assert_eq!((stale.up_to.as_secs(), stale.refresh), (3600, Refresh::Immediate));
}

#[test]
fn acl_takes_the_first_rule_that_matches() {
    let acl = options!(
        Acl,
        "acl a.example.org {\n allow net 192.168.1.0/24\n filter type A net 192.168.0.0/16\n drop type AAAA MX net * \n \
         block net 10.0.0.7 fd00::/8\n}"
    );
    let asked =
        |text: &str, qtype, client: &str| acl.action(&QueryName::from(&name(text)), qtype, client.parse().unwrap());
    assert_eq!(asked("x.a.example.org", 1, "192.168.1.9"), AclAction::Allow);
    assert_eq!(asked("x.a.example.org", 1, "192.168.2.9"), AclAction::Filter);
    assert_eq!(asked("x.a.example.org", 28, "192.168.2.9"), AclAction::Drop);
    assert_eq!(asked("x.a.example.org", 16, "192.168.2.9"), AclAction::Allow);
    assert_eq!(asked("x.a.example.org", 16, "10.0.0.7"), AclAction::Block);
    assert_eq!(asked("x.a.example.org", 16, "10.0.0.8"), AclAction::Allow);
    assert_eq!(asked("x.a.example.org", 16, "fd00::1"), AclAction::Block);
    assert_eq!(asked("example.org", 16, "10.0.0.7"), AclAction::Allow);
}

#[test]
fn the_plugins_of_the_process_have_their_defaults_and_bounds() {
    assert_eq!(options!(Cancel, "cancel"), Duration::from_millis(5001));
    assert_eq!(options!(Cancel, "cancel 1s"), Duration::from_secs(1));
    assert_eq!(options!(Bufsize, "bufsize"), 1232);
    assert_eq!(options!(Bufsize, "bufsize 4096"), 4096);
    assert_eq!(options!(Multisocket, "multisocket"), None);
    assert_eq!(options!(Multisocket, "multisocket 1024"), Some(1024));
    assert_eq!(options!(Nsid, "nsid"), None);
    assert_eq!(options!(Nsid, "nsid Use The Force").as_deref(), Some("Use The Force"));
    assert_eq!(options!(Root, "root /etc/zones"), "/etc/zones");
    assert_eq!(options!(Ready, "ready {\n monitor continuously\n}").monitor, Monitor::Continuously);
    let timeouts = options!(Timeouts, "timeouts {\n read 10s\n idle 2m\n maxtcpqueries 128\n}");
    assert_eq!((timeouts.read.unwrap().as_secs(), timeouts.write, timeouts.max_queries), (10, None, Some(128)));
    let bind = options!(Bind, "bind 127.0.0.1 ::1 eth0 {\n except 10.0.0.1\n}");
    let told: Vec<String> = bind.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(told, ["127.0.0.1", "::1", "10.0.0.2"], "link-local addresses of an interface are left out");
    refused(&[
        ("bind eth7", "2:6: the interface to bind to \"eth7\" cannot be read: entity not found"),
        ("bind eth0 {\n except eth0\n}", "2:6: \"bind\" ends here, needed: an address"),
    ]);
}

#[test]
fn errors_and_log_have_patterns_classes_and_formats() {
    let errors =
        options!(Errors, "errors stdout {\n consolidate 5m \".* i/o timeout$\" warning show_first\n stacktrace\n}");
    let consolidate = &errors.consolidate[0];
    assert_eq!((consolidate.period.as_secs(), consolidate.level), (300, Level::Warning));
    assert!(
        consolidate.pattern.regex().is_match("read udp: i/o timeout") && consolidate.show_first && errors.stacktrace
    );
    let log = options!(Log, "log a.org b.org \"{name} {combined}\" {\n class denial\n class error\n minDuration 1s\n}");
    assert_eq!(
        (log.names.len(), log.classes, log.min_duration),
        (2, vec![LogClass::Denial, LogClass::Error], Some(Duration::from_secs(1)))
    );
    let pieces = log.format.0;
    assert_eq!(
        pieces[..3],
        [LogPiece::Field(LogField::Name), LogPiece::Text(" ".to_owned()), LogPiece::Field(LogField::Remote)]
    );
    assert_eq!(pieces.last(), Some(&LogPiece::Field(LogField::Opcode)));
    let log = options!(Log, "log . \"{/a/b} {nothing} } {\"");
    assert_eq!(log.format.0, [LogPiece::Metadata("a/b".to_owned()), LogPiece::Text(" {nothing} } {".to_owned())]);
    let log = options!(Log, "log {\n class denial all\n}");
    assert_eq!((log.names, log.classes.len()), (vec![Name::root()], 0));
}

#[test]
fn plugins_that_shape_answers_have_all_their_options() {
    let dns64 = options!(Dns64, "dns64 64:1337::/96 {\n translate_all\n allow_ipv4\n}");
    assert_eq!(
        (dns64.prefix.to_string().as_str(), dns64.translate_all, dns64.allow_ipv4),
        ("64:1337::/96", true, true)
    );
    assert_eq!(options!(Dns64, "dns64 {\n prefix 2001:db8::/32\n}").prefix.to_string(), "2001:db8::/32");
    assert_eq!(options!(Dns64, "dns64").prefix.to_string(), "64:ff9b::/96");
    let chaos = options!(Chaos, "chaos \"my server\" a@example.org b");
    assert_eq!((chaos.version.as_deref(), chaos.authors.len()), (Some("my server"), 2));
    let balance =
        options!(Loadbalance, "loadbalance weighted w {\n reload 0s\n limit_answers 5\n prefer 10.0.0.0/8\n}");
    let Balance::Weighted { weights, reload: None } = balance.policy else { panic!("{:?}", balance.policy) };
    let weight = |addr: &str| weights.of(&name("example.org"), addr.parse().unwrap());
    assert_eq!((weight("10.0.0.1"), weight("10.0.0.2"), weight("10.0.0.3")), (3, 1, 1));
    assert_eq!((balance.limit_answers, balance.prefer.len()), (Some(5), 1));
    let header = options!(Header, "header {\n set ra aa\n clear RD\n query set rd\n response clear aa\n}");
    assert_eq!(header[0].flags, [HeaderFlag::RecursionAvailable, HeaderFlag::Authoritative]);
    assert_eq!(
        header.iter().map(|rule| (rule.query, rule.set)).collect::<Vec<_>>(),
        [(false, true), (false, false), (true, true), (false, false)]
    );
    let autopath = options!(Autopath, "autopath /etc/resolv.conf");
    assert_eq!(
        (autopath.zones, autopath.search),
        (vec![name("example.org")], SearchPath::Names(vec![name("a.example.org"), name("example.org")]))
    );
    let autopath = options!(Autopath, "autopath b.org @kubernetes");
    assert_eq!(
        autopath.search,
        SearchPath::Plugin("kubernetes".to_owned(), vec![name("a.example.org"), name("example.org")])
    );
    let erratic = options!(Erratic, "erratic {\n delay\n truncate 5\n}");
    assert_eq!((erratic.drop, erratic.truncate, erratic.delay, erratic.delay_by.as_millis()), (0, 5, 2, 100));
    assert_eq!(options!(Erratic, "erratic").drop, 2);
}

#[test]
fn plugins_that_serve_zones_have_all_their_options() {
    let file = options!(File, "file db.example.org a.org 10.0.0.0/23 {\n reload 0\n fallthrough\n upstream\n}");
    assert_eq!((file.zones.len(), file.reload), (3, None));
    let auto = options!(Auto, "auto {\n directory /zones www\\.(.*)\\.db {1}.org 45\n}");
    assert_eq!((auto.origin.as_str(), auto.reload.unwrap().as_secs()), ("{1}.org", 45));
    let auto = options!(Auto, "auto org {\n directory /zones\n reload 30s\n}");
    assert_eq!(
        (auto.origin.as_str(), auto.pattern.regex().as_str(), auto.zones),
        ("{1}", r"db\.(.*)", vec![name("org")])
    );
    let secondary =
        options!(Secondary, "secondary {\n transfer from 10.0.1.1 10.1.2.1:54\n transfer from ::1\n catalog\n}");
    assert_eq!(
        (secondary.primaries.len(), secondary.primaries[1].port(), secondary.catalog),
        (3, 54, Some(Vec::new()))
    );
    let scoped = options!(Secondary, "secondary {\n transfer from ::1\n catalog a.org 10.0.0.0/24\n}");
    assert_eq!(scoped.catalog, Some(vec![name("a.org"), name("0.0.10.in-addr.arpa")]));
    assert_eq!(scoped.catalog_bytes, 256 << 20);
    let bounded = options!(Secondary, "secondary {\n transfer from ::1\n catalog\n catalog_bytes 1000000\n}");
    assert_eq!(bounded.catalog_bytes, 1_000_000);
    let transfer = options!(Transfer, "transfer a.org b.org {\n to * 10.0.0.1\n to 10.0.0.0/8 [::1]:5353\n}");
    assert_eq!((transfer.zones.len(), transfer.to.len()), (2, 4));
    assert_eq!((transfer.to[0], transfer.to[3]), (Peer::All, Peer::Server("[::1]:5353".parse().unwrap())));
    let hosts = options!(Hosts, "hosts /h a.org {\n 10.0.0.1 x.a.org y.a.org\n ttl 60\n no_reverse\n reload 0\n}");
    assert_eq!((hosts.path.as_str(), hosts.zones.len(), hosts.reload), ("/h", 1, None));
}

#[test]
fn kubernetes_has_all_its_options() {
    let kubernetes = options!(
        Kubernetes,
        "kubernetes c.local clusterset.local 10.0.0.0/8 {\n endpoint https://10.0.0.1:6443\n tls cert key ca\n kubeconfig /kc context\n \
         namespaces a b\n labels env in (staging, qa),app=nginx,!old,tier!=x,now\n pods verified\n endpoint_pod_names\n \
         ttl 0\n noendpoints\n fallthrough 10.in-addr.arpa\n ignore empty_service\n multicluster clusterset.local\n zonal\n \
         startup_timeout 10s\n apiserver_qps 5\n apiserver_burst 10\n apiserver_max_inflight 3\n upstream\n}"
    );
    assert_eq!((kubernetes.zones.len(), kubernetes.reverse_zones.len(), kubernetes.ttl), (2, 1, 0));
    assert_eq!((&kubernetes.multicluster[..], kubernetes.zonal), (&kubernetes.zones[1..], true));
    assert_eq!(kubernetes.api.kubeconfig, Some(("/kc".to_owned(), Some("context".to_owned()))));
    assert_eq!((kubernetes.api.qps, kubernetes.api.burst, kubernetes.api.max_inflight), (Some(5), Some(10), Some(3)));
    let labels = kubernetes.labels.unwrap();
    assert_eq!(labels.to_string(), "env in (staging,qa),app in (nginx),!old,tier notin (x),now");
    let selects = |with: &[(&str, &str)]| {
        let with: std::collections::BTreeMap<&str, &str> = with.iter().copied().collect();
        labels.matches(|key| with.get(key).copied())
    };
    assert!(selects(&[("env", "qa"), ("app", "nginx"), ("now", "")]));
    assert!(!selects(&[("env", "qa"), ("app", "nginx"), ("now", ""), ("old", "")]));
    assert!(!selects(&[("env", "qa"), ("app", "nginx"), ("now", ""), ("tier", "x")]));
    assert!(!selects(&[("app", "nginx"), ("now", "")]));
}

#[test]
fn what_no_plugin_means_is_refused_at_its_place() {
    let cases = [
        ("acl {\n deny\n}", "3:2: plugin \"acl\" has no option \"deny\""),
        ("acl {\n block type\n}", "3:8: \"type\" ends here, needed: at least one value"),
        ("acl {\n block net 10.0.0.0/33\n}", "3:12: a client of acl cannot be \"10.0.0.0/33\""),
        ("acl {\n block type XYZ\n}", "3:13: a type of acl cannot be \"XYZ\""),
        ("acl {\n block ANY\n}", "3:8: a section of an acl rule cannot be \"ANY\"; allowed: type or net"),
        ("any x", "2:5: found \"x\", allowed here: nothing"),
        ("autopath", "2:1: \"autopath\" ends here, needed: a resolv.conf, @kubernetes or @erratic"),
        ("autopath @etcd", "2:10: the search path of autopath cannot be \"@etcd\""),
        ("autopath /nowhere", "2:10: cannot read /nowhere"),
        ("auto", "2:1: \"auto\" ends here, needed: { directory"),
        ("auto {\n directory /d (.*) {2}\n}", "3:20: the origin cannot be \"{2}\"; allowed: {0} to {1}"),
        ("auto {\n directory /d (.* {1}\n}", "3:15: the names of zone files \"(.*\" cannot be read: unclosed group"),
        ("bind", "2:1: \"bind\" ends here, needed: at least one address"),
        ("bind 10.0.0.256/8", "2:6: what to bind to cannot be \"10.0.0.256/8\""),
        ("bufsize 511", "2:9: bufsize cannot be \"511\"; allowed: a whole number from 512 to 4096"),
        ("cache {\n prefetch 1 1m 5%\n}", "3:16: the percentage of prefetch cannot be \"5%\""),
        ("cache {\n serve_stale 1h never\n}", "3:17: the refresh mode of serve_stale cannot be \"never\""),
        ("cache -1", "2:7: the time to live of cache cannot be \"-1\""),
        ("cancel 0s", "2:8: the time of cancel cannot be \"0s\""),
        ("dns64 10.0.0.0/8", "2:7: the prefix of dns64 cannot be \"10.0.0.0/8\""),
        ("dns64 64:ff9b::/95", "2:7: the prefix of dns64 cannot be \"64:ff9b::/95\""),
        (
            "errors {\n consolidate 5m (\n}",
            "3:17: the regular expression of consolidate \"(\" cannot be read: unclosed",
        ),
        ("errors {\n consolidate 5m x loud\n}", "3:19: the level of consolidate cannot be \"loud\""),
        ("erratic {\n drop -1\n}", "3:7: an amount of erratic cannot be \"-1\""),
        ("file", "2:1: \"file\" ends here, needed: the zone's file"),
        (
            "file db {\n transfer to *\n}",
            "3:2: found \"transfer\", allowed here: reload, reload_by_mtime, fallthrough; zones are handed",
        ),
        ("forward . tls://9.9.9.9%:1", "2:11: an upstream cannot be \"tls://9.9.9.9%:1\"; allowed: tls://address"),
        ("forward . quic://9.9.9.9", "2:11: an upstream cannot be \"quic://9.9.9.9\"; allowed: an address, optionally"),
        ("forward . 1.1.1.1:0", "2:11: an upstream cannot be \"1.1.1.1:0\""),
        ("forward . 1.1.1.1 {\n failover NOERROR\n}", "3:11: a code of failover cannot be \"NOERROR\""),
        ("forward . 1.1.1.1 {\n next 24\n}", "3:7: a code of next cannot be \"24\""),
        ("forward . 1.1.1.1 {\n insecure\n}", "3:2: \"insecure\" ends here, needed: at least one zone"),
        ("forward . 1.1.1.1 {\n trust_anchors none\n}", "3:16: cannot read none: "),
        (
            "forward . 1.1.1.1 {\n trust_anchors Kp256.private\n}",
            "3:16: the file of trust anchors \"Kp256.private\" cannot be read: Kp256.private:1:",
        ),
        (
            "forward . tls://1.1.1.1%a.b {\n tls_servername c.d\n}",
            "3:2: an option beside tls://address%name cannot be \"tls_servername\"",
        ),
        ("header", "2:1: \"header\" ends here, needed: { set or clear"),
        ("header {\n set tc\n}", "3:6: a flag of header cannot be \"tc\"; allowed: aa, ra or rd"),
        ("header {\n query drop rd\n}", "3:8: what header does cannot be \"drop\""),
        (
            "kubernetes c.local {\n labels a in b\n}",
            "3:14: the label selector \"a in b\" cannot be read: found \"b\", allowed here: a list such as (a, b)",
        ),
        ("kubernetes c.local {\n tls a b\n}", "3:8: \"tls\" ends here, needed: a certificate, its key"),
        (
            "kubernetes c.local {\n namespaces a\n namespace_labels b\n}",
            "4:2: an option beside namespaces cannot be \"namespace_labels\"",
        ),
        ("loadbalance weighted w.bad", "2:22: the file of weights \"w.bad\" cannot be read: line 2 is neither a name"),
        ("loadbalance random", "2:13: the policy of loadbalance cannot be \"random\""),
        ("loadbalance {\n reload 1s\n}", "3:2: found \"reload\", allowed here: limit_answers"),
        ("log {\n class some\n}", "3:8: a class of log cannot be \"some\""),
        ("multisocket 1025", "2:13: the number of sockets cannot be \"1025\""),
        ("nsid x {\n y\n}", "3:2: found \"y\", allowed here: no options"),
        ("ready {\n monitor never\n}", "3:10: monitor cannot be \"never\""),
        ("root", "2:1: \"root\" ends here, needed: a directory"),
        ("secondary", "2:1: \"secondary\" ends here, needed: { transfer from"),
        (
            "secondary {\n transfer from ::1\n catalog_bytes 9\n}",
            "4:2: an option without catalog cannot be \"catalog_bytes\"; allowed: catalog beside it",
        ),
        ("secondary {\n catalog_bytes 0\n}", "3:16: catalog_bytes cannot be \"0\""),
        ("secondary {\n transfer to *\n}", "3:11: the direction of the transfer cannot be \"to\""),
        ("timeouts", "2:1: \"timeouts\" ends here, needed: { read"),
        ("timeouts {\n read 25h\n}", "3:7: a time of timeouts cannot be \"25h\"; allowed: 1s to 24h"),
        ("transfer", "2:1: \"transfer\" ends here, needed: { to"),
        ("transfer {\n to here\n}", "3:5: who may fetch zones cannot be \"here\""),
    ];
    refused(&cases);
}
