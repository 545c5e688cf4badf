//! What counters call the listener, the zone and the view of a question.

use super::super::{
    Arrival, Outcome,
    fixture::{ARRIVAL, Rig, query, told},
};
use crate::message::rtype;

const BLOCK: &str = "example.org example.org:5300 {
    bind 10.0.0.1 10.0.0.2
    view inside {
        expr incidr(client_ip(), '10.0.0.0/8')
    }
    acl a.example.org example.org {
        block type MX
    }
    rrl {
        responses-per-second 1000
    }
    cache example.org a.example.org
    template IN A example.org {
        match ^many[.]
        answer \"{{ .Name }} 60 IN A 192.0.2.1\"
        fallthrough
    }
    forward . 192.0.2.53
}
";

/// Where a question comes to: one of the four listeners.
fn at(address: u8, number: u16) -> Arrival {
    Arrival { bound: Some([10, 0, 0, address].into()), port: number, ..ARRIVAL }
}

fn counted(rig: &Rig, family: &str) -> Vec<String> {
    let text = rig.server.metrics().render(&rig.server.gauges());
    let lines = text.lines().filter_map(|line| line.strip_prefix(&format!("{family}{{")).map(str::to_owned));
    lines.filter(|line| !line.ends_with(" 0")).collect()
}

#[test]
fn each_listener_of_a_block_has_counters_of_its_own() {
    let rig = Rig::new(BLOCK);
    let names = [at(1, 53), at(2, 5300)].map(|arrival| arrival.port().to_string());
    assert_eq!(names, ["dns://10.0.0.1:53", "dns://10.0.0.2:5300"]);
    let ask = |name: &str, qtype, arrival: Arrival| told(&rig.handle_from(&query(name, qtype), &arrival).1);
    assert_eq!(ask("www.a.example.org", rtype::MX, at(1, 53)), ["REFUSED"]);
    assert_eq!(ask("www.example.org", rtype::MX, at(2, 5300)), ["REFUSED"]);
    assert_eq!(ask("many.example.org", rtype::A, at(2, 5300)), ["NOERROR", "A 192.0.2.1"]);
    // What is fetched for one listener's client is there for those of the others.
    let (Outcome::Later(later), _) = rig.handle_from(&query("www.example.org", rtype::A), &at(1, 53)) else {
        panic!("answered at once");
    };
    let mut waiting = rig.waiting(later);
    rig.sent().pop().unwrap().tells(0, &[[192, 0, 2, 7]]);
    assert_eq!(waiting.told(), ["NOERROR", "A 192.0.2.7"]);
    assert_eq!(ask("www.example.org", rtype::A, at(2, 53)), ["NOERROR", "A 192.0.2.7"]);
    assert_eq!(
        counted(&rig, "coredns_acl_blocked_requests_total"),
        [
            "server=\"dns://10.0.0.1:53\",zone=\"a.example.org.\",view=\"inside\"} 1",
            "server=\"dns://10.0.0.2:5300\",zone=\"example.org.\",view=\"inside\"} 1",
        ]
    );
    assert_eq!(
        counted(&rig, "coredns_acl_allowed_requests_total"),
        [
            "server=\"dns://10.0.0.1:53\",view=\"inside\"} 1",
            "server=\"dns://10.0.0.2:53\",view=\"inside\"} 1",
            "server=\"dns://10.0.0.2:5300\",view=\"inside\"} 1",
        ]
    );
    let cache = |port: &str| {
        format!("server=\"dns://10.0.0.{port}\",zones=\"example.org.,a.example.org.\",view=\"inside\"}} 1")
    };
    assert_eq!(counted(&rig, "coredns_cache_hits_total"), [format!("type=\"success\",{}", cache("2:53"))]);
    assert_eq!(counted(&rig, "coredns_cache_misses_total"), [cache("1:53")]);
    assert_eq!(
        counted(&rig, "coredns_template_matches_total"),
        ["server=\"dns://10.0.0.2:5300\",zone=\"example.org.\",view=\"inside\",class=\"IN\",type=\"A\"} 1"]
    );
    // The cache is the same one for all four.
    assert_eq!(counted(&rig, "coredns_cache_entries").len(), 4);
}

#[test]
fn which_corefile_is_in_force_is_told_where_it_is_looked_at_again() {
    let version = |plugins: &str| counted(&Rig::new(&format!(". {{\n {plugins}\n}}\n")), "coredns_reload_version_info");
    let told = version("reload\n whoami");
    assert!(told.len() == 1 && told[0].starts_with("hash=\"sha512\",value=\""), "{told:?}");
    assert_ne!(told, version("reload 10s\n whoami"));
    for never in ["whoami", "reload off\n whoami"] {
        assert!(version(never).is_empty(), "{never}");
    }
}
