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
    assert_eq!((value("report"), value("handshake_micros")), (Some("end"), Some("77")));
}
