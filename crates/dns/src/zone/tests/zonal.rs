//! `zonal`: what its documentation says, as a table.

use super::{NODATA, NXDOMAIN, at, cluster, endpoint, slice};
use crate::{message::rtype, server::fixture::Rig};

fn rig(options: &str) -> Rig {
    let mut rig = Rig::new(&format!(". {{\n kubernetes cluster.local {{\n {options}\n }}\n}}"));
    cluster(&mut rig);
    rig
}

#[test]
fn a_headless_service_has_a_name_for_its_endpoints_in_each_zone() {
    let rig = rig("zonal");
    let cases: &[(&str, u16, &[&str])] = &[
        ("east._zone.headless.web", rtype::A, &["NOERROR", "A 10.244.1.3"]),
        ("East._ZONE.headless.web", rtype::AAAA, &["NOERROR", "AAAA fd00:244::3"]),
        ("west._zone.headless.web", rtype::A, &["NOERROR", "A 10.244.2.3"]),
        ("west._zone.headless.web", rtype::AAAA, NODATA),
        (
            "west._zone.headless.web",
            rtype::SRV,
            &["NOERROR", "SRV 0 100 8080 10-244-2-3.headless.web.svc.cluster.local", "+A 10.244.2.3"],
        ),
        ("west._zone.headless.web", rtype::TXT, NODATA),
        // A zone, where none of its endpoints is told.
        ("south._zone.headless.web", rtype::A, NODATA),
        ("south._zone.headless.web", rtype::TXT, NODATA),
        ("east._zone.nobody.web", rtype::A, NODATA),
        // No zone.
        ("north._zone.headless.web", rtype::A, NXDOMAIN),
        ("north._zone.headless.web", rtype::TXT, NXDOMAIN),
        // Nothing stands between, but names do below it.
        ("_zone.headless.web", rtype::A, NODATA),
        ("east.east._zone.headless.web", rtype::A, NXDOMAIN),
        // Only headless Services have such names.
        ("east._zone.web.web", rtype::A, NXDOMAIN),
        ("_zone.web.web", rtype::A, NXDOMAIN),
        ("east._zone.inside.web", rtype::A, NXDOMAIN),
        ("east._zone.none.web", rtype::A, NXDOMAIN),
        // All others are what they were.
        ("headless.web", rtype::A, &["NOERROR", "A 10.244.1.3", "A 10.244.2.3"]),
        ("db-0.headless.web", rtype::A, &["NOERROR", "A 10.244.1.3"]),
        ("_tcp.headless.web", rtype::SRV, NODATA),
    ];
    for (name, qtype, expected) in cases {
        assert_eq!(rig.ask(&format!("{name}.svc.cluster.local"), *qtype), *expected, "{name}");
    }
}

#[test]
fn without_the_option_and_without_endpoints_there_are_no_such_names() {
    for options in ["", "zonal\n noendpoints", "zonal\n namespaces kube-system"] {
        let rig = rig(options);
        assert_eq!(rig.ask("east._zone.headless.web.svc.cluster.local", rtype::A), NXDOMAIN, "{options}");
        assert_eq!(rig.ask("_zone.headless.web.svc.cluster.local", rtype::A), NXDOMAIN, "{options}");
    }
}

#[test]
fn a_zone_that_is_drained_stays_a_zone_and_a_new_one_is_known_at_once() {
    let mut rig = rig("zonal");
    let east = "east._zone.headless.web.svc.cluster.local";
    let north = "north._zone.headless.web.svc.cluster.local";
    rig.apply(&slice("web", "headless", &[("http", 80)], vec![at("north", endpoint("10.244.7.7", true, None))]));
    assert_eq!(rig.ask(north, rtype::A), ["NOERROR", "A 10.244.7.7"]);
    assert_eq!(rig.ask(east, rtype::A), NODATA);
    rig.apply(&slice("web", "headless", &[("http", 80)], vec![endpoint("10.244.7.7", true, None)]));
    assert_eq!(rig.ask(north, rtype::A), NODATA);
    rig.apply(&slice("web", "headless", &[("http", 80)], vec![at("east", endpoint("10.244.7.7", true, None))]));
    assert_eq!(rig.ask(east, rtype::A), ["NOERROR", "A 10.244.7.7"]);
}

#[test]
fn names_of_zones_are_no_part_of_the_zone_that_is_given_away() {
    let mut rig = rig("zonal");
    rig.reload(". {\n transfer cluster.local {\n to *\n }\n kubernetes cluster.local {\n zonal\n }\n}");
    let zone = super::whole::fetched(&rig, "cluster.local");
    assert!(zone.records().any(|record| record.owner.to_string().starts_with("headless.")));
    assert!(!zone.records().any(|record| record.owner.to_string().contains("_zone")));
}
