//! That many lines say what each item says alone.

use super::*;
use crate::{
    export::json,
    names::Owner,
    output::{Form, line},
    testing::{drops, flow, flow_v6, gap},
};

fn change(numbered: &mut Numbered, change: impl FnOnce(&mut Record)) {
    let Item::Flow(record) = &mut numbered.item else { panic!("no flow") };
    change(Arc::make_mut(record));
}

/// All that a record may have.
fn full(sequence: u64) -> Numbered {
    let mut numbered = flow(sequence);
    change(&mut numbered, |record| {
        record.seen_as = Some("192.0.2.1:5".parse().unwrap());
        record.cause = Some(Cause::HopLimit);
        record.handshake_micros = None;
        record.destination.node = Some("node2".into());
        let (sent, received) = (record.received, Way { retransmissions: 3, resets: 1, ..record.sent });
        record.destination_counts = Some(Box::new(AtDestination { node: "node2".into(), sent, received }));
        let pod = Arc::make_mut(record.source.pod.as_mut().unwrap());
        pod.owner = Some(Owner { kind: "Job".into(), name: "\"quoted\"\\ü\n".into() });
        pod.service_account = Some(format!("account-{sequence}").into());
        pod.labels.insert("empty".into(), "".into());
    });
    numbered
}

fn items() -> [Numbered; 6] {
    [flow(1), flow_v6(2), gap(3), drops(4), full(5), full(6)]
}

#[test]
fn a_line_is_what_its_item_is_alone_whatever_was_written_before() {
    let (items, mut writer) = (items(), Writer::default());
    for numbered in items.iter().chain(&items) {
        let mut text = b"before\n".to_vec();
        writer.add(&mut text, Some(&numbered.record), &numbered.item);
        writer.add(&mut text, None, &numbered.item);
        let alone = line(Form::JsonLines, &numbered.item);
        assert_eq!(String::from_utf8(text).unwrap(), format!("before\n{}\n{alone}\n", json(numbered)));
        assert!(writer.pods.len() <= WRITTEN);
    }
    // A pod may be called otherwise by now.
    let mut later = items[0].clone();
    change(&mut later, |record| {
        Arc::make_mut(record.source.pod.as_mut().unwrap()).labels.insert("late".into(), "1".into());
    });
    for numbered in [&items[0], &later] {
        let mut text = Vec::new();
        writer.add(&mut text, Some(&numbered.record), &numbered.item);
        assert_eq!(String::from_utf8(text).unwrap(), json(numbered) + "\n");
    }
}

#[test]
fn a_line_is_read_as_it_is_alone_and_records_of_one_pod_share_it() {
    let mut reader = Reader::default();
    for numbered in items().into_iter().chain(items()) {
        assert_eq!(reader.flow(&json(&numbered)).is_some(), matches!(numbered.item, Item::Flow(_)));
        assert_eq!(reader.read(&json(&numbered)).unwrap(), numbered);
        assert!(reader.pods.len() <= READ);
    }
    let pods = [7, 8].map(|sequence| match reader.read(&json(&flow(sequence))).unwrap().item {
        Item::Flow(record) => record.source.pod.clone().unwrap(),
        item => panic!("{item:?}"),
    });
    assert!(Arc::ptr_eq(&pods[0], &pods[1]));
}

#[test]
fn what_another_version_writes_is_read_or_refused_as_it_is_alone() {
    let (text, mut reader) = (json(&full(7)), Reader::default());
    let id = r#""record":"node1/1/7","#;
    let last = format!(r#"{},"record":"node1/1/7"}}"#, text.replacen(id, "", 1).strip_suffix('}').unwrap());
    let spaced = text.replace(r#","type":"#, r#", "type" : "#);
    let more = text.replace(r#""type":"flow","#, r#""type":"flow","omen":{"of":"rain"},"#);
    let none =
        text.replace(r#""type":"flow","#, r#""type":"flow","cause":null,"#).replace(r#","cause":"hop-limit""#, "");
    for readable in [&last, &spaced, &more, &none] {
        assert_ne!(*readable, text);
        assert_eq!(reader.read(readable).unwrap(), Numbered::from_json(readable).unwrap(), "{readable}");
    }
    let half = text[..text.len() - 9].to_owned();
    let [nobody, unknown, nameless, number] = [
        text.replace(r#""uid":"#, r#""kid":"#),
        text.replace(r#""type":"flow""#, r#""type":"omen""#),
        text.replace(r#""type":"#, r#""kind":"#),
        text.replace(r#""record":"#, r#""number":"#),
    ];
    for unreadable in [half, nobody, unknown, nameless, number, String::new()] {
        let (error, alone) = (reader.read(&unreadable).unwrap_err(), Numbered::from_json(&unreadable).unwrap_err());
        assert_eq!(error.to_string(), alone.to_string(), "{unreadable}");
    }
}
