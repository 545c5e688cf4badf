//! Files are read back with the library's own reader, and their frames by hand.

use std::collections::BTreeMap;

use ::parquet::{
    file::reader::{FileReader, SerializedFileReader},
    record::Field,
};
use bytes::Bytes;
use serde_json::json;

use super::*;
use crate::{
    Item, PodIdentity, Record, Way,
    names::Owner,
    record::AtDestination,
    testing::{drops, flow, flow_v6, gap},
};

/// A flow that has all that one can have.
fn full(sequence: u64) -> Numbered {
    let mut numbered = flow(sequence);
    let Item::Flow(record) = &mut numbered.item else { panic!("no flow") };
    let record: &mut Record = Arc::make_mut(record);
    let way = |number: u32| Way {
        packets: u64::from(number),
        bytes: u64::MAX,
        retransmissions: number,
        resets: number + 1,
        flags: 7,
    };
    record.source.node = Some("node1".into());
    record.seen_as = Some("172.16.0.1:4000".parse().unwrap());
    let pod = record.source.pod.as_mut().map(Arc::make_mut);
    let pod: &mut PodIdentity = pod.unwrap();
    pod.owner = Some(Owner { kind: "Deployment".into(), name: "client".into() });
    pod.service_account = Some("default".into());
    record.sent = way(1);
    record.received = way(2);
    let counts = AtDestination { node: "node2".into(), sent: way(3), received: way(4) };
    record.destination_counts = Some(Box::new(counts));
    numbered
}

/// A gap that has all that one can have.
fn full_gap(sequence: u64) -> Numbered {
    let mut numbered = gap(sequence);
    let Item::Flow(record) = full(0).item else { panic!("no flow") };
    if let Item::Gap(gap) = &mut numbered.item {
        gap.pod = record.source.pod.clone();
    }
    numbered
}

/// What a row has, by the names of its columns.
fn rows(file: Vec<u8>) -> Vec<BTreeMap<String, Field>> {
    let reader = SerializedFileReader::new(Bytes::from(file)).unwrap();
    let rows = reader.get_row_iter(None).unwrap();
    rows.map(|row| {
        let row = row.unwrap();
        let cells = row.get_column_iter().map(|(name, field)| (name.clone(), field.clone()));
        cells.filter(|(_, field)| !matches!(field, Field::Null)).collect()
    })
    .collect()
}

/// The single values of an item's JSON, by their ways; labels are one.
fn leaves(value: &Value, way: &str, found: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(values) if !way.ends_with("_labels") => {
            for (name, value) in values {
                leaves(value, &format!("{way}_{name}"), found);
            }
        }
        value => {
            found.insert(way.trim_start_matches('_').to_owned(), value.clone());
        }
    }
}

#[test]
fn all_that_an_item_has_is_in_its_row_and_nothing_else() {
    let items = [full(7), flow_v6(8), gap(9), full_gap(10), flow(11), drops(12)];
    let read = rows(file(&items).unwrap());
    assert_eq!(read.len(), items.len());
    for (item, row) in items.iter().zip(read) {
        let mut expected = BTreeMap::new();
        leaves(&serde_json::to_value(item).unwrap(), "", &mut expected);
        assert_eq!(row.len(), expected.len(), "{row:?}\n{expected:?}");
        for (way, value) in expected {
            // In small letters, and what one kind of items alone has behind its name.
            let plain = way.replace('_', "").to_lowercase();
            let names = [format!("gap{plain}"), format!("drops{plain}"), plain];
            let name = row
                .keys()
                .find(|name| names.contains(&name.replace('_', "")))
                .unwrap_or_else(|| panic!("{way} in {row:?}"));
            let is = match &row[name] {
                Field::Str(text) if name.ends_with("_labels") => serde_json::from_str(text).unwrap(),
                Field::Str(text) => json!(text),
                Field::Long(number) => json!(number),
                Field::TimestampMicros(micros) => json!(micros),
                other => panic!("{name}: {other:?}"),
            };
            let value = match way.as_str() {
                "start" | "end" => json!(value.as_str().unwrap().parse::<Timestamp>().unwrap().as_microsecond()),
                _ if value == json!(u64::MAX) => json!(i64::MAX),
                _ => value,
            };
            assert_eq!(is, value, "{name}");
        }
    }
}

#[test]
fn columns_are_called_as_the_readme_says() {
    let read = rows(file(&[full(7), full_gap(8), flow_v6(9), drops(10)]).unwrap());
    let text = |row: usize, name: &str| match read[row].get(name) {
        Some(Field::Str(text)) => text.clone(),
        other => panic!("{name}: {other:?}"),
    };
    for (row, name, value) in [
        (0, "type", "flow"),
        (0, "record", "node1/1/7"),
        (0, "id", "01020304-0506-0708-0000-000000000007"),
        (0, "source_pod_name", "client"),
        (0, "source_pod_service_account", "default"),
        (0, "source_pod_owner_kind", "Deployment"),
        (0, "source_pod_labels", r#"{"app":"web"}"#),
        (0, "destination_ip", "10.0.1.2"),
        (0, "service_name", "web"),
        (0, "class", "pod-service"),
        (0, "verdict", "forwarded"),
        (0, "destination_counts_node", "node2"),
        (1, "type", "gap"),
        (1, "gap_at", "kernel"),
        (1, "gap_interface", "pn00c0ffee"),
        (1, "gap_pod_name", "client"),
        (2, "cause", "no-route"),
        (0, "seen_as", "172.16.0.1:4000"),
        (3, "type", "drops"),
        (3, "cause", "limit"),
        (3, "drops_direction", "egress"),
        (3, "drops_pod_name", "client"),
    ] {
        assert_eq!(text(row, name), value, "{name}");
    }
    for (row, name, value) in [
        (0, "destination_port", Field::Long(8080)),
        (0, "start", Field::TimestampMicros(1_767_225_600_123_456)),
        (0, "handshake_micros", Field::Long(120)),
        (0, "sent_resets", Field::Long(2)),
        (0, "destination_counts_received_packets", Field::Long(4)),
        (1, "gap_flows", Field::Long(3)),
        (3, "drops_packets", Field::Long(12)),
    ] {
        assert_eq!(read[row].get(name), Some(&value), "{name}");
    }
    assert!(!read[0].contains_key("gap_flows") && !read[1].contains_key("sent_packets"));
}

#[test]
fn a_file_has_its_frame_is_compressed_and_is_the_same_for_the_same_items() {
    let items: Vec<Numbered> = (0..2000).map(flow).collect();
    let bytes = file(&items).unwrap();
    assert!(bytes.starts_with(b"PAR1") && bytes.ends_with(b"PAR1"));
    // The length of what stands at the end, before the mark.
    let (_, end) = bytes.split_at(bytes.len() - 8);
    let footer = u32::from_le_bytes(*end.first_chunk().unwrap()) as usize;
    assert!(footer > 100 && footer + 12 < bytes.len(), "{footer} of {}", bytes.len());
    assert_eq!(file(&items).unwrap(), bytes);
    let lines: usize = items.iter().map(|item| crate::export::json(item).len()).sum();
    assert!(bytes.len() < lines / 10, "{} bytes of {lines}", bytes.len());
    let reader = SerializedFileReader::new(Bytes::from(bytes)).unwrap();
    let metadata = reader.metadata();
    assert_eq!((metadata.num_row_groups(), metadata.file_metadata().num_rows()), (1, 2000));
    let columns = metadata.row_group(0).columns();
    let [before, after] = [
        columns.iter().map(parquet::file::metadata::ColumnChunkMetaData::uncompressed_size).sum::<i64>(),
        columns.iter().map(parquet::file::metadata::ColumnChunkMetaData::compressed_size).sum::<i64>(),
    ];
    assert!(after < before, "{before} {after}");
    assert!(metadata.file_metadata().created_by().unwrap().starts_with("podnet version "));
}
