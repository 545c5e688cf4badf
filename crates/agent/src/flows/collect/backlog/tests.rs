//! Where what is not sent yet waits, whatever becomes of the collector and the disk.

use super::*;
use crate::flows::collect::tests::{flow, sequences};

fn backlog(spill: Option<Spill>) -> (Backlog, Arc<Counts>) {
    let counts = Arc::new(Counts::new("c".to_owned()));
    (Backlog::new(spill, counts.clone()), counts)
}

fn drain(backlog: &mut Backlog) -> Vec<u64> {
    let mut found = Vec::new();
    while !backlog.is_empty() {
        found.extend(sequences(&backlog.batch(30)));
        backlog.sent();
    }
    found
}

#[test]
fn what_did_not_come_waits_on_disk_and_what_comes_behind_it_too() {
    let directory = tempfile::tempdir().unwrap();
    let (mut backlog, counts) = backlog(Some(Spill::open(directory.path(), 1 << 20).unwrap()));
    backlog.take_in((0..50).map(flow).collect());
    assert_eq!((backlog.batch(10).len(), backlog.len()), (10, 40));
    backlog.failed();
    backlog.take_in((50..70).map(flow).collect());
    assert!(backlog.memory.is_empty() && counts.spilled_so_far() == 70);
    assert_eq!(drain(&mut backlog), (0..70).collect::<Vec<_>>());
    backlog.take_in(vec![flow(70)]);
    assert!(backlog.memory.len() == 1, "where all has come nothing is written any more");
    backlog.keep();
    assert_eq!(Spill::open(directory.path(), 1 << 20).unwrap().len(), 1);
}

#[test]
fn what_has_no_room_on_disk_waits_in_memory_while_its_collector_takes_what_is_there() {
    let directory = tempfile::tempdir().unwrap();
    let room = 16 << 10;
    let (mut backlog, counts) = backlog(Some(Spill::open(directory.path(), room).unwrap()));
    backlog.wait_on_disk();
    backlog.take_in((0..60).map(flow).collect());
    let written = counts.spilled_so_far();
    assert!(written > 5 && written < 50, "{written}");
    assert_eq!((backlog.len(), backlog.memory.len() as u64), (60, 60 - written));
    let mut found = sequences(&backlog.batch(5));
    backlog.take_in((60..70).map(flow).collect());
    backlog.sent();
    assert!(counts.spilled_so_far() > written, "what comes leaves room");
    found.extend(drain(&mut backlog));
    assert_eq!(found, (0..70).collect::<Vec<_>>());
    assert_eq!((counts.dropped_so_far(), counts.spilled_so_far()), (0, 70));
    // Once it is away all is on disk, and the oldest go.
    backlog.take_in((70..130).map(flow).collect());
    backlog.batch(5);
    backlog.failed();
    assert!(backlog.memory.is_empty() && counts.dropped_so_far() > 0);
}

#[test]
fn what_cannot_be_written_down_stays_in_memory_and_is_told_as_missing_where_it_is_lost_there() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("spill");
    let (mut backlog, counts) = backlog(Some(Spill::open(&path, 64 << 10).unwrap()));
    backlog.take_in(vec![flow(0)]);
    backlog.failed();
    // The file that is open takes some more, and there is no place for another one.
    std::fs::rename(&path, directory.path().join("elsewhere")).unwrap();
    backlog.take_in((1..50).map(flow).collect());
    let written = counts.spilled_so_far();
    assert!(written > 1 && written < 50, "{written}");
    assert_eq!(backlog.memory.len() as u64, 50 - written, "what was written is in memory no more");
    backlog.failed();
    assert_eq!(counts.spilled_so_far(), written);
    // Now nothing can be added, but what is missing can be noted.
    let next = path.join("1.jsonl");
    std::fs::create_dir_all(&next).unwrap();
    backlog.keep();
    assert_eq!(counts.dropped_so_far(), 50 - written);
    std::fs::remove_dir(next).unwrap();
    assert_eq!(Spill::open(&path, 64 << 10).unwrap().take_missing().unwrap().records(), 50 - written);
}

#[test]
fn that_the_disk_cannot_be_read_is_known() {
    let directory = tempfile::tempdir().unwrap();
    let (mut backlog, _) = backlog(Some(Spill::open(directory.path(), 1 << 20).unwrap()));
    backlog.take_in(vec![flow(0)]);
    backlog.failed();
    let path = directory.path().join("0.jsonl");
    let text = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    assert!(backlog.batch(10).is_empty() && backlog.is_unreadable() && !backlog.is_empty());
    backlog.failed();
    std::fs::remove_dir(&path).unwrap();
    std::fs::write(&path, text).unwrap();
    assert!(sequences(&backlog.batch(10)) == [0] && !backlog.is_unreadable());
}

#[test]
fn what_is_missing_as_an_agent_ends_the_next_one_tells() {
    let directory = tempfile::tempdir().unwrap();
    let (mut backlog, _) = backlog(Some(Spill::open(directory.path(), 1 << 20).unwrap()));
    backlog.miss(Missing::of(&flow(7)));
    backlog.keep();
    let mut spill = Spill::open(directory.path(), 1 << 20).unwrap();
    assert_eq!(spill.take_missing().unwrap().told().record.to_string(), "node1/1/7/missing");
}

#[test]
fn what_is_too_much_for_memory_is_written_down_or_told_as_missing_where_there_is_no_disk() {
    let directory = tempfile::tempdir().unwrap();
    let items = || (0..150).map(flow).collect();
    let (mut with, _) = backlog(Some(Spill::open(directory.path(), 1 << 20).unwrap()));
    with.take_in(items());
    assert_eq!(drain(&mut with), (0..150).collect::<Vec<_>>());
    let (mut without, counts) = backlog(None);
    without.take_in(items());
    let batch = without.batch(5);
    assert_eq!((batch[0].record.to_string(), batch.len()), ("node1/1/49/missing".to_owned(), 5));
    without.failed();
    assert_eq!(counts.dropped_so_far(), 50);
    let again = without.batch(5);
    assert_eq!(again, batch, "what is missing is told until it has come");
    without.sent();
    assert_eq!(drain(&mut without), (54..150).collect::<Vec<_>>());
}

#[test]
fn a_batch_that_is_returned_is_sent_in_other_parts() {
    let (mut backlog, _) = backlog(None);
    backlog.take_in((0..4).map(flow).collect());
    assert_eq!(sequences(&backlog.batch(4)), [0, 1, 2, 3]);
    backlog.returned();
    assert_eq!(sequences(&backlog.batch(2)), [0, 1]);
    backlog.sent();
    assert_eq!(drain(&mut backlog), [2, 3]);
}
