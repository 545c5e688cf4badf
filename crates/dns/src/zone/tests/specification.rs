//! The specification (Kubernetes DNS-Based Service Discovery 1.1.0) as a table: question, and what has to be answered.

use super::{NODATA, NXDOMAIN, SOA, rig};
use crate::message::rtype;

#[test]
fn every_record_of_the_specification_is_answered_and_nothing_else() {
    let rig = rig();
    let cases: &[(&str, u16, &[&str])] = &[
        // 2.2 schema version
        ("dns-version.cluster.local", rtype::TXT, &["NOERROR", "TXT \"1.1.0\""]),
        ("dns-version.cluster.local", rtype::A, NODATA),
        // 2.3 Services with a ClusterIP
        ("web.web.svc.cluster.local", rtype::A, &["NOERROR", "A 10.233.0.7"]),
        ("web.web.svc.cluster.local", rtype::AAAA, &["NOERROR", "AAAA fd00::7"]),
        ("plain.web.svc.cluster.local", rtype::AAAA, NODATA),
        ("web.web.svc.cluster.local", rtype::TXT, NODATA),
        ("web.web.svc.cluster.local", rtype::ANY, NODATA),
        ("empty.web.svc.cluster.local", rtype::A, &["NOERROR", "A 10.233.0.9"]),
        ("empty.web.svc.cluster.local", rtype::SRV, NODATA),
        (
            "_http._tcp.web.web.svc.cluster.local",
            rtype::SRV,
            &["NOERROR", "SRV 0 100 80 web.web.svc.cluster.local", "+A 10.233.0.7", "+AAAA fd00::7"],
        ),
        (
            "_dns._udp.web.web.svc.cluster.local",
            rtype::SRV,
            &["NOERROR", "SRV 0 100 53 web.web.svc.cluster.local", "+A 10.233.0.7", "+AAAA fd00::7"],
        ),
        ("_http._tcp.web.web.svc.cluster.local", rtype::A, NODATA),
        ("_tcp.web.web.svc.cluster.local", rtype::SRV, NODATA),
        ("_http._udp.web.web.svc.cluster.local", rtype::SRV, NXDOMAIN),
        ("_http._tcp.plain.web.svc.cluster.local", rtype::SRV, NXDOMAIN),
        ("_tcp.plain.web.svc.cluster.local", rtype::SRV, NXDOMAIN),
        ("7.0.233.10.in-addr.arpa", rtype::PTR, &["NOERROR", "PTR web.web.svc.cluster.local"]),
        ("7.0.233.10.in-addr.arpa", rtype::A, NODATA),
        ("1.0.233.10.in-addr.arpa", rtype::PTR, NXDOMAIN),
        ("233.10.in-addr.arpa", rtype::PTR, NODATA),
        // endpoints of Services with a ClusterIP have names, too
        ("10-244-1-2.web.web.svc.cluster.local", rtype::A, &["NOERROR", "A 10.244.1.2"]),
        ("10-244-1-9.web.web.svc.cluster.local", rtype::A, NXDOMAIN),
        ("2.1.244.10.in-addr.arpa", rtype::PTR, &["NOERROR", "PTR 10-244-1-2.web.web.svc.cluster.local"]),
        ("2.1.244.10.in-addr.arpa", rtype::A, NODATA),
        (
            "7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa",
            rtype::PTR,
            &["NOERROR", "PTR web.web.svc.cluster.local"],
        ),
        // 2.4 headless Services
        ("headless.web.svc.cluster.local", rtype::A, &["NOERROR", "A 10.244.1.3", "A 10.244.2.3"]),
        ("headless.web.svc.cluster.local", rtype::AAAA, &["NOERROR", "AAAA fd00:244::3"]),
        ("db-0.headless.web.svc.cluster.local", rtype::A, &["NOERROR", "A 10.244.1.3"]),
        ("10-244-2-3.headless.web.svc.cluster.local", rtype::A, &["NOERROR", "A 10.244.2.3"]),
        ("10-244-1-3.headless.web.svc.cluster.local", rtype::A, NXDOMAIN),
        ("10-244-2-4.headless.web.svc.cluster.local", rtype::A, NXDOMAIN),
        (
            "_http._tcp.headless.web.svc.cluster.local",
            rtype::SRV,
            &[
                "NOERROR",
                "SRV 0 50 8080 db-0.headless.web.svc.cluster.local",
                "SRV 0 50 8080 10-244-2-3.headless.web.svc.cluster.local",
                "+A 10.244.1.3",
                "+AAAA fd00:244::3",
                "+A 10.244.2.3",
            ],
        ),
        ("3.1.244.10.in-addr.arpa", rtype::PTR, &["NOERROR", "PTR db-0.headless.web.svc.cluster.local"]),
        ("_http._tcp.headless.web.svc.cluster.local", rtype::A, NODATA),
        ("_dns._udp.headless.web.svc.cluster.local", rtype::SRV, NXDOMAIN),
        ("headless.web.svc.cluster.local", rtype::TXT, NODATA),
        ("db-0.headless.web.svc.cluster.local", rtype::AAAA, &["NOERROR", "AAAA fd00:244::3"]),
        (
            "db-0.headless.web.svc.cluster.local",
            rtype::SRV,
            &["NOERROR", "SRV 0 100 8080 db-0.headless.web.svc.cluster.local", "+A 10.244.1.3", "+AAAA fd00:244::3"],
        ),
        ("10-244-2-3.headless.web.svc.cluster.local", rtype::AAAA, NODATA),
        ("3.2.244.10.in-addr.arpa", rtype::PTR, &["NOERROR", "PTR 10-244-2-3.headless.web.svc.cluster.local"]),
        ("4.2.244.10.in-addr.arpa", rtype::PTR, NXDOMAIN),
        ("nobody.web.svc.cluster.local", rtype::A, NXDOMAIN),
        ("nobody.web.svc.cluster.local", rtype::SRV, NXDOMAIN),
        // 2.5 external names
        ("inside.web.svc.cluster.local", rtype::CNAME, &["NOERROR", "CNAME web.web.svc.cluster.local"]),
        ("inside.web.svc.cluster.local", rtype::A, &["NOERROR", "CNAME web.web.svc.cluster.local", "A 10.233.0.7"]),
        ("inside.web.svc.cluster.local", rtype::TXT, &["NOERROR", "CNAME web.web.svc.cluster.local", SOA]),
        ("lost.web.svc.cluster.local", rtype::A, &["NXDOMAIN", "CNAME gone.web.svc.cluster.local", SOA]),
        ("inside.web.svc.cluster.local", rtype::AAAA, &["NOERROR", "CNAME web.web.svc.cluster.local", "AAAA fd00::7"]),
        ("lost.web.svc.cluster.local", rtype::CNAME, &["NOERROR", "CNAME gone.web.svc.cluster.local"]),
        (
            "chain.web.svc.cluster.local",
            rtype::A,
            &["NOERROR", "CNAME inside.web.svc.cluster.local", "CNAME web.web.svc.cluster.local", "A 10.233.0.7"],
        ),
        ("_http._tcp.inside.web.svc.cluster.local", rtype::SRV, NXDOMAIN),
        ("turn.web.svc.cluster.local", rtype::A, &["SERVFAIL"]),
        ("address.web.svc.cluster.local", rtype::A, NXDOMAIN),
        // 2.6 pods
        ("10-244-1-2.web.pod.cluster.local", rtype::A, &["NOERROR", "A 10.244.1.2"]),
        ("10-244-1-2.web.pod.cluster.local", rtype::AAAA, NODATA),
        ("fd00-244--2.web.pod.cluster.local", rtype::AAAA, &["NOERROR", "AAAA fd00:244::2"]),
        ("10-244-1-2.bare.pod.cluster.local", rtype::A, NXDOMAIN),
        ("10-244-9-9.web.pod.cluster.local", rtype::A, NXDOMAIN),
        ("web.pod.cluster.local", rtype::A, NODATA),
        ("10-244-1-2.web.pod.cluster.local", rtype::TXT, NODATA),
        ("10-244-1.web.pod.cluster.local", rtype::A, NXDOMAIN),
        ("a.10-244-1-2.web.pod.cluster.local", rtype::A, NXDOMAIN),
        ("none.pod.cluster.local", rtype::A, NXDOMAIN),
        // wildcards are names like others, since CoreDNS 1.9
        ("*.web.svc.cluster.local", rtype::A, NXDOMAIN),
        ("web.*.svc.cluster.local", rtype::A, NXDOMAIN),
        ("any.web.svc.cluster.local", rtype::A, NXDOMAIN),
        ("*.*.web.web.svc.cluster.local", rtype::SRV, NXDOMAIN),
        ("*.headless.web.svc.cluster.local", rtype::A, NXDOMAIN),
        ("*.web.pod.cluster.local", rtype::A, NXDOMAIN),
        // names between
        ("cluster.local", rtype::A, NODATA),
        ("svc.cluster.local", rtype::A, NODATA),
        ("pod.cluster.local", rtype::A, NODATA),
        ("web.svc.cluster.local", rtype::A, NODATA),
        ("bare.svc.cluster.local", rtype::A, NODATA),
        ("none.svc.cluster.local", rtype::A, NXDOMAIN),
        ("none.web.svc.cluster.local", rtype::A, NXDOMAIN),
        ("web.none.svc.cluster.local", rtype::A, NXDOMAIN),
        ("web.default.svc.cluster.local", rtype::A, NXDOMAIN),
        ("a.b.c.web.web.svc.cluster.local", rtype::A, NXDOMAIN),
        ("other.cluster.local", rtype::A, NXDOMAIN),
        ("cluster.local", rtype::NS, &["NOERROR", "NS ns.dns.cluster.local", "+A 10.233.0.10"]),
        ("ns.dns.cluster.local", rtype::A, &["NOERROR", "A 10.233.0.10"]),
        ("ns.dns.cluster.local", rtype::AAAA, NODATA),
        ("dns.cluster.local", rtype::A, NODATA),
        ("10.in-addr.arpa", rtype::A, NODATA),
        // elsewhere: no other plugin in this Corefile
        ("example.org", rtype::A, &["SERVFAIL"]),
    ];
    for (name, qtype, expected) in cases {
        assert_eq!(rig.ask(name, *qtype), *expected, "{name} {}", rtype::mnemonic(*qtype));
    }
}
