use super::*;
use crate::filter::tests::{end, record};

#[test]
fn each_form_says_who_spoke_with_whom_and_how_much() {
    let record = record(end("10.0.0.1:40000", Some(("shop", "web-1", "web"))), end("[fd00::2]:8080", None));
    let item = Item::Flow(record.clone().into());
    let table = line(Form::Table, &item);
    assert!(table.starts_with("00:00:03Z       2.000    TCP    shop/web-1:40000"), "{table}");
    assert!(table.contains("[fd00::2]:8080") && table.ends_with("3p 180B          3p 180B"), "{table}");
    let compact = line(Form::Compact, &item);
    assert_eq!(
        compact,
        "1970-01-01T00:00:03Z TCP shop/web-1:40000 > [fd00::2]:8080 forwarded sent 3/180 received 3/180"
    );
    let json = line(Form::JsonLines, &item);
    assert_eq!(serde_json::from_str::<Item>(&json).unwrap(), item, "{json}");
    assert!(json.contains(r#""type":"flow""#) && json.contains(r#""port":8080"#), "{json}");
    let csv = line(Form::Csv, &item);
    let columns = heading(Form::Csv).unwrap();
    assert_eq!(csv.split(',').count(), columns.split(',').count());
    let value = |name: &str| csv.split(',').nth(columns.split(',').position(|column| column == name).unwrap());
    assert_eq!((value("source"), value("destination_ip")), (Some("shop/web-1"), Some("fd00::2")));
    assert_eq!((value("report"), value("handshake_micros"), value("cause")), (Some("end"), Some("77"), Some("")));
}

#[test]
fn what_is_missing_is_said_with_the_pod_that_it_is_of() {
    let Item::Gap(gap) = crate::testing::gap(1).item else { panic!("no gap") };
    let gap = Gap { device: None, ..gap };
    let pod = record(end("10.0.0.1:40000", Some(("shop", "web-1", "web"))), end("[fd00::2]:8080", None)).source.pod;
    for at in [GapAt::Kernel, GapAt::Reader] {
        let of_nobody = line(Form::Table, &Item::Gap(Gap { at, ..gap.clone() }));
        let of_one = line(Form::Table, &Item::Gap(Gap { at, pod: pod.clone(), ..gap.clone() }));
        assert!(of_nobody.contains(" at node1: ") && of_one.contains(" at node1 of shop/web-1: "), "{of_one}");
    }
}

#[test]
fn what_is_missing_is_said_with_the_interface_that_was_it() {
    let Item::Gap(gap) = crate::testing::gap(1).item else { panic!("no gap") };
    let item = Item::Gap(gap.clone());
    for form in [Form::Table, Form::Compact, Form::Csv] {
        assert!(line(form, &item).contains(" at node1 by interface pn00c0ffee: the kernel had no room; 40 packets"));
    }
    let json = line(Form::JsonLines, &item);
    assert!(json.contains(r#""device":7,"interface":"pn00c0ffee""#), "{json}");
    assert_eq!(serde_json::from_str::<Item>(&json).unwrap(), item);
    // As agents told it that knew the index alone, or none.
    let older = json.replace(r#","interface":"pn00c0ffee""#, "");
    let Item::Gap(older) = serde_json::from_str(&older).unwrap() else { panic!("no gap") };
    assert_eq!(older.device, Some(7_u32.into()));
    assert!(line(Form::Table, &Item::Gap(older)).contains(" at node1 by interface number 7: "));
    let none = Item::Gap(Gap { device: None, at: GapAt::Agent, ..gap });
    let json = line(Form::JsonLines, &none);
    assert!(!json.contains("device") && !json.contains("interface") && json.contains(r#""at":"agent""#), "{json}");
    assert_eq!(serde_json::from_str::<Item>(&json).unwrap(), none);
    assert!(line(Form::Table, &none).contains(" at node1: the agent did not end by itself"));
    let Item::Gap(gap) = none else { panic!("no gap") };
    let forgotten = line(Form::Table, &Item::Gap(Gap { at: GapAt::Store, flows: 0, ..gap }));
    assert!(forgotten.contains(" at node1: of what was recorded then some is not kept any more"), "{forgotten}");
}

#[test]
fn each_form_says_what_dropped_or_refused_a_flow_and_nothing_where_nothing_did() {
    let mut record = record(end("10.0.0.1:40000", Some(("shop", "web-1", "web"))), end("[fd00::2]:8080", None));
    assert!(!line(Form::JsonLines, &Item::Flow(record.clone().into())).contains("cause"));
    (record.verdict, record.cause) = (crate::Verdict::Dropped, Some(crate::Cause::NoRoute));
    let item = Item::Flow(record.into());
    let table = line(Form::Table, &item);
    let column = heading(Form::Table).unwrap().find("CAUSE").unwrap();
    assert!(table[column..].starts_with("no-route "), "{table}");
    assert!(line(Form::Compact, &item).contains(" dropped (no-route) sent "));
    let json = line(Form::JsonLines, &item);
    assert!(json.contains(r#""verdict":"dropped","cause":"no-route""#), "{json}");
    assert_eq!(serde_json::from_str::<Item>(&json).unwrap(), item);
    assert!(line(Form::Csv, &item).ends_with(",77,no-route"));
}

#[test]
fn what_limits_dropped_is_said_with_the_pod_and_the_way_it_went() {
    let item = crate::testing::drops(1).item;
    let said = "DROPS 2026-01-01T00:00:00Z to 2026-01-01T00:00:10Z at node1 of shop/client by interface pn00c0ffee: \
                12 packets from the pod (limit), nobody knows of which flows";
    assert_eq!([Form::Table, Form::Compact].map(|form| line(form, &item)), [said, said]);
    assert_eq!(line(Form::Csv, &item), format!("# {said}"));
    let json = line(Form::JsonLines, &item);
    assert!(json.contains(r#""type":"drops""#) && json.contains(r#""cause":"limit","direction":"egress""#), "{json}");
    assert_eq!(serde_json::from_str::<Item>(&json).unwrap(), item);
    let Item::Drops(drops) = item else { panic!("no drops") };
    let ingress = Drops { direction: Direction::Ingress, device: None, pod: None, ..drops };
    assert!(line(Form::Table, &Item::Drops(ingress)).contains(" at node1: 12 packets to the pod (limit)"));
}
