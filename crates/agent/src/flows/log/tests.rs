//! What is in the file and beside it, whatever happens to the disk and the agent.

use std::{
    fs::File,
    io::Read,
    path::Path,
    time::{Duration, Instant},
};

use flate2::read::GzDecoder;

use super::*;
use crate::flows::lines::tests::Small;

fn gap(packets: u64) -> Numbered {
    let now = Timestamp::UNIX_EPOCH;
    let (node, at) = ("node1".into(), GapAt::Kernel);
    let item = Item::Gap(Gap { start: now, end: now, node, at, device: None, pod: None, packets, bytes: 0, flows: 0 });
    Numbered { record: RecordId { node: "node1".into(), epoch: 1, sequence: packets, missing: false }, item }
}

/// The ids of lines, as far as they have one.
fn ids(text: &str) -> Vec<Option<String>> {
    text.lines().map(|line| RecordId::from_json(line).ok().map(|id| id.to_string())).collect()
}

fn open(path: &Path, bytes: u64) -> Log {
    Log::open(&FlowLog { path: path.to_owned(), bytes, between_pods: false }, "node1".into()).unwrap()
}

/// Each line has to be an item.
fn gaps(text: &str) -> Vec<Gap> {
    let gap = |line: &str| match serde_json::from_str(line) {
        Ok(Item::Gap(gap)) => gap,
        other => panic!("{line}: {other:?}"),
    };
    text.lines().map(gap).collect()
}

fn packets(text: &str) -> Vec<u64> {
    gaps(text).iter().map(|gap| gap.packets).collect()
}

/// It rests after what was in vain, for some times of what that took.
fn works_again(log: &mut Log) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while log.add(&[]).is_err() {
        assert!(Instant::now() < deadline, "it is not tried again");
    }
}

fn unpacked(path: &Path) -> String {
    let mut text = String::new();
    GzDecoder::new(File::open(path).unwrap()).read_to_string(&mut text).unwrap();
    text
}

#[test]
fn what_is_full_is_set_aside_compressed_and_the_oldest_goes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("flows.jsonl");
    let mut next = 1000;
    for _ in 0..2 {
        // An agent that begins anew goes on.
        let mut log = open(&path, 4000);
        for _ in 0..150 {
            log.add(&[gap(next)]).unwrap();
            next += 1;
        }
    }
    let mut found = Vec::new();
    let mut all = 0;
    for number in (1..60).rev() {
        let aside = directory.path().join(format!("flows.jsonl.{number}.gz"));
        let Ok(about) = fs::metadata(&aside) else { continue };
        all += about.len();
        let text = unpacked(&aside);
        assert!(text.len() <= 500, "{}", text.len());
        found.extend(packets(&text));
    }
    let text = fs::read_to_string(&path).unwrap();
    all += text.len() as u64;
    found.extend(packets(&text));
    assert!(all <= 4000 && found.len() > 25, "{all} bytes, {} items", found.len());
    assert_eq!(found, (next - found.len() as u64..next).collect::<Vec<_>>(), "the newest, each once, in order");
    let left: Vec<_> = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().contains(".0")), "{left:?}");
}

#[test]
fn one_round_may_be_more_than_the_file_may_have() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("flows.jsonl");
    let mut log = open(&path, 1 << 20);
    log.add(&(0..2000).map(gap).collect::<Vec<_>>()).unwrap();
    drop(log);
    let first = packets(&unpacked(&directory.path().join("flows.jsonl.2.gz")));
    let second = packets(&unpacked(&directory.path().join("flows.jsonl.1.gz")));
    let last = packets(&fs::read_to_string(&path).unwrap());
    assert_eq!([first, second, last].concat(), (0..2000).collect::<Vec<_>>());
}

#[test]
fn what_finds_no_room_on_the_disk_is_told_by_a_gap_once_there_is_some() {
    let small = Small::new();
    let (path, other) = (small.0.path().join("flows.jsonl"), small.0.path().join("other"));
    fs::write(&other, [7; 4096]).unwrap();
    let mut log = open(&path, 1 << 20);
    let mut next = 1000;
    // Three pages are left of the disk.
    let error = loop {
        let items: Vec<Numbered> = (next..next + 10).map(gap).collect();
        next += 10;
        if let Err(error) = log.add(&items) {
            break error;
        }
        assert!(next < 2000, "there is room");
    };
    assert_eq!(error.kind(), io::ErrorKind::StorageFull, "{error}");
    log.add(&[gap(next)]).unwrap_err();
    let written = packets(&fs::read_to_string(&path).unwrap());
    assert_eq!(written, (1000..1000 + written.len() as u64).collect::<Vec<_>>(), "nothing is torn");
    let lost: Vec<u64> = (1000 + written.len() as u64..=next).collect();
    fs::remove_file(&other).unwrap();
    log.add(&[gap(7)]).unwrap();
    log.add(&[gap(8)]).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    let id = |number: u64| Some(format!("node1/1/{number}"));
    let last = Some(format!("node1/1/{next}/missing"));
    let told = ids(&text).split_off(written.len());
    assert_eq!(told, [last, id(7), id(8)], "each has its own, and what is missing the last one's");
    let told = gaps(&text).split_off(written.len());
    let [missing, seven, eight] = &told[..] else { panic!("{told:?}") };
    assert_eq!((missing.at, missing.flows, missing.packets), (GapAt::Log, lost.len() as u64, lost.iter().sum::<u64>()));
    assert_eq!((missing.node.as_str(), seven.packets, eight.packets), ("node1", 7, 8));
}

#[test]
fn what_finds_no_room_and_tells_of_an_earlier_agent_is_told_from_when_that_one_lost_it() {
    let small = Small::new();
    let (path, other) = (small.0.path().join("flows.jsonl"), small.0.path().join("other"));
    fs::write(&other, "x".repeat(4 * 4096)).unwrap();
    let mut log = open(&path, 1 << 20);
    let error = log.add(&[gap(5)]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull, "{error}");
    fs::remove_file(&other).unwrap();
    log.add(&[gap(7)]).unwrap();
    let told = gaps(&fs::read_to_string(&path).unwrap());
    let [missing, seven] = &told[..] else { panic!("{told:?}") };
    assert_eq!((missing.at, missing.flows, missing.packets, seven.packets), (GapAt::Log, 1, 5, 7));
    assert_eq!(missing.start, Timestamp::UNIX_EPOCH);
}

#[test]
fn what_was_compressed_in_vain_rests_before_it_is_tried_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("flows.jsonl");
    fs::write(directory.path().join("flows.jsonl.0"), "full").unwrap();
    let blocked = directory.path().join("flows.jsonl.0.gz");
    fs::create_dir(&blocked).unwrap();
    let mut asides = Asides::open(&path, 1 << 20);
    let tried = asides.free().unwrap_err().to_string();
    assert!(tried.contains("could not be compressed; it is tried again: "), "{tried}");
    asides.rest_after(Duration::from_secs(3600));
    fs::remove_dir(&blocked).unwrap();
    let rests = asides.free().unwrap_err().to_string();
    assert!(rests.ends_with("could not be compressed; it is tried again"), "{rests}");
    asides.rest_after(Duration::ZERO);
    asides.free().unwrap();
}

#[test]
fn where_what_is_set_aside_finds_no_room_all_is_accounted_for_and_it_goes_on_when_there_is_some() {
    let small = Small::new();
    let (path, other) = (small.0.path().join("flows.jsonl"), small.0.path().join("other"));
    // One page of four is left: what is set aside keeps it.
    fs::write(&other, [7; 3 * 4096]).unwrap();
    let mut log = open(&path, 4000);
    let mut next = 1000;
    while log.add(&[gap(next)]).is_ok() {
        next += 1;
        assert!(next < 1100, "there is room");
    }
    log.add(&[gap(next + 1)]).unwrap_err();
    fs::remove_file(&other).unwrap();
    works_again(&mut log);
    (7..=10).for_each(|number| log.add(&[gap(number)]).unwrap());
    drop(log);
    let asides = (1..9).rev().map(|number| path.with_file_name(format!("flows.jsonl.{number}.gz")));
    let mut told: Vec<Gap> = asides.filter(|aside| aside.exists()).flat_map(|aside| gaps(&unpacked(&aside))).collect();
    told.extend(gaps(&fs::read_to_string(&path).unwrap()));
    let (missing, told): (Vec<Gap>, Vec<Gap>) = told.into_iter().partition(|gap| gap.at == GapAt::Log);
    let packets = told.iter().map(|gap| gap.packets).collect::<Vec<_>>();
    assert_eq!(packets, (1000..next).chain(7..=10).collect::<Vec<_>>());
    let [missing] = &missing[..] else { panic!("{missing:?}") };
    assert_eq!((missing.flows, missing.packets), (2, 2 * next + 1));
}

#[test]
fn what_an_agent_was_killed_in_is_gone_on_with() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("flows.jsonl");
    let aside = |name: &str| directory.path().join(format!("flows.jsonl.{name}"));
    drop(open(&path, 4000));
    open(&path, 1 << 20).add(&[gap(1), gap(2)]).unwrap();
    // It was compressing, and writing a record.
    fs::copy(&path, aside("0")).unwrap();
    fs::write(aside("0.gz"), "half").unwrap();
    fs::write(&path, &fs::read(&path).unwrap()[..200]).unwrap();
    let mut log = open(&path, 1 << 20);
    log.add(&[gap(3)]).unwrap();
    drop(log);
    let told = gaps(&fs::read_to_string(&path).unwrap());
    let [first, missing, last] = &told[..] else { panic!("{told:?}") };
    assert_eq!((first.packets, missing.at, missing.flows, last.packets), (1, GapAt::Log, 1, 3));
    let found = ids(&fs::read_to_string(&path).unwrap());
    assert_eq!(found, [Some("node1/1/1".to_owned()), None, Some("node1/1/3".to_owned())], "of whom it is not known");
    assert_eq!(packets(&unpacked(&aside("1.gz"))), [1, 2]);
    assert!(!aside("0").exists() && !aside("0.gz").exists());
}

#[test]
fn what_was_compressed_when_an_agent_was_killed_is_there_once() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("flows.jsonl");
    let aside = |name: &str| directory.path().join(format!("flows.jsonl.{name}"));
    for (number, rest) in [(1, None), (2, Some("1.gz"))] {
        open(&path, 1 << 20).add(&[gap(number)]).unwrap();
        fs::rename(&path, aside("0")).unwrap();
        drop(open(&path, 1 << 20));
        // It had no number yet.
        fs::rename(aside("1.gz"), aside("0.gz")).unwrap();
        if let Some(rest) = rest {
            fs::rename(aside("2.gz"), aside(rest)).unwrap();
        }
        drop(open(&path, 1 << 20));
    }
    assert_eq!(["2.gz", "1.gz"].map(|name| packets(&unpacked(&aside(name)))), [[1], [2]]);
    assert!(!aside("0").exists() && !aside("0.gz").exists() && !aside("3.gz").exists());
}

#[test]
fn what_cannot_be_compressed_keeps_nothing_from_being_tried_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("flows.jsonl");
    let blocked = directory.path().join("flows.jsonl.0.gz");
    fs::create_dir(&blocked).unwrap();
    let mut log = open(&path, 4000);
    let mut next = 1000;
    while log.add(&[gap(next)]).is_ok() {
        next += 1;
        assert!(next < 1100, "it compresses into a directory");
    }
    fs::remove_dir(&blocked).unwrap();
    works_again(&mut log);
    drop(log);
    let mut told = gaps(&unpacked(&directory.path().join("flows.jsonl.2.gz")));
    told.extend(gaps(&unpacked(&directory.path().join("flows.jsonl.1.gz"))));
    told.extend(gaps(&fs::read_to_string(&path).unwrap()));
    let missing = told.pop().unwrap();
    assert_eq!((missing.at, missing.flows), (GapAt::Log, 1));
    assert_eq!(told.iter().map(|gap| gap.packets).collect::<Vec<_>>(), (1000..next).collect::<Vec<_>>());
}
