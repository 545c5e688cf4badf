//! What waits on disk, also where that is full or of no use.

use super::*;
use crate::flows::collect::tests::{flow, sequences};

/// Adds all of them. How many items went for it.
fn add(spill: &mut Spill, items: &[Numbered]) -> u64 {
    let added = spill.add(items);
    added.done.unwrap();
    assert_eq!(added.written, items.len());
    added.gone
}

fn drain(spill: &mut Spill, most: usize) -> Vec<u64> {
    let mut found = Vec::new();
    loop {
        let items = spill.next(most).unwrap();
        if items.is_empty() {
            return found;
        }
        found.extend(sequences(&items));
        spill.sent().unwrap();
    }
}

#[test]
fn what_waits_comes_out_as_it_came_also_for_the_next_agent_and_nothing_is_left_behind() {
    let directory = tempfile::tempdir().unwrap();
    let items: Vec<Numbered> = (0..100).map(flow).collect();
    let mut spill = Spill::open(directory.path(), 1 << 20).unwrap();
    assert_eq!(add(&mut spill, &items[..60]), 0);
    assert_eq!(sequences(&spill.next(10).unwrap()), (0..10).collect::<Vec<_>>());
    spill.unsent();
    assert_eq!(sequences(&spill.next(5).unwrap()), (0..5).collect::<Vec<_>>());
    spill.sent().unwrap();
    assert_eq!(spill.len(), 55);
    drop(spill);
    let mut next = Spill::open(directory.path(), 1 << 20).unwrap();
    add(&mut next, &items[60..]);
    assert_eq!(drain(&mut next, 7), (0..100).collect::<Vec<_>>(), "what had come comes again");
    assert!(next.is_empty() && next.bytes() == 0);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    add(&mut next, &items[..1]);
    assert_eq!(drain(&mut next, 7), [0]);
}

#[test]
fn where_there_are_too_many_bytes_the_oldest_go_and_the_next_agent_knows_how_many() {
    let directory = tempfile::tempdir().unwrap();
    let room = 64 << 10;
    let mut spill = Spill::open(directory.path(), room).unwrap();
    let mut gone = 0;
    for number in 0..1000 {
        gone += add(&mut spill, &[flow(number)]);
        assert!(spill.bytes() <= room);
    }
    assert!(gone > 500, "{gone}");
    drop(spill);
    let mut next = Spill::open(directory.path(), room).unwrap();
    let missing = next.take_missing().unwrap();
    assert_eq!((missing.records(), missing.told().record.sequence), (gone, gone - 1));
    next.note().unwrap();
    assert_eq!(drain(&mut next, 100), (gone..1000).collect::<Vec<_>>());
    assert!(Spill::open(directory.path(), room).unwrap().take_missing().is_none());
}

#[test]
fn what_is_being_sent_stays_and_half_a_line_is_no_item() {
    let directory = tempfile::tempdir().unwrap();
    let mut spill = Spill::open(directory.path(), 64 << 10).unwrap();
    add(&mut spill, &[flow(0), flow(1)]);
    assert_eq!(sequences(&spill.next(1).unwrap()), [0]);
    let items: Vec<Numbered> = (2..1000).map(flow).collect();
    add(&mut spill, &items);
    spill.sent().unwrap();
    assert_eq!(sequences(&spill.next(1).unwrap()), [1]);
    drop(spill);
    fs::remove_dir_all(directory.path()).unwrap();
    fs::create_dir(directory.path()).unwrap();
    let half = export::json(&flow(8));
    fs::write(directory.path().join("4.jsonl"), format!("{}\nno item\n{}", export::json(&flow(7)), &half[..30]))
        .unwrap();
    let mut spill = Spill::open(directory.path(), 64 << 10).unwrap();
    add(&mut spill, &[flow(9)]);
    assert_eq!(drain(&mut spill, 10), [7, 9]);
    assert_eq!(spill.take_missing().unwrap().records(), 1, "what is no item is missing");
}

#[test]
fn what_waits_is_for_the_agent_alone_to_read_also_where_it_was_there_before() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("spill");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    fs::create_dir(&path).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    let old = path.join("3.jsonl");
    fs::write(&old, export::json(&flow(0)) + "\n").unwrap();
    fs::set_permissions(&old, Permissions::from_mode(0o644)).unwrap();
    let mut spill = Spill::open(&path, 64 << 10).unwrap();
    add(&mut spill, &[flow(1)]);
    spill.missing(Missing::of(&flow(2)));
    spill.note().unwrap();
    assert_eq!(mode(&path), 0o700);
    for name in ["3.jsonl", "4.jsonl", "missing"] {
        assert_eq!(mode(&path.join(name)), 0o600, "{name}");
    }
    Spill::open(&path.join("made"), 64 << 10).unwrap();
    assert_eq!(mode(&path.join("made")), 0o700);
}

#[test]
fn a_file_that_cannot_be_removed_stays_known_and_that_nothing_can_be_noted_ends_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let room = 64 << 10;
    let mut spill = Spill::open(directory.path(), room).unwrap();
    add(&mut spill, &[flow(0)]);
    // A directory is no file that could be read or removed.
    let first = directory.path().join("0.jsonl");
    fs::remove_file(&first).unwrap();
    fs::create_dir(&first).unwrap();
    let items: Vec<Numbered> = (1..300).map(flow).collect();
    let added = spill.add(&items);
    assert!((added.written, added.gone) == (299, 0) && added.done.is_err(), "{added:?}");
    assert!(spill.bytes() > room && spill.len() == 300);
    fs::remove_dir(&first).unwrap();
    fs::create_dir(directory.path().join("missing.new")).unwrap();
    let added = spill.add(&[flow(300)]);
    assert!(added.written == 1 && added.gone > 1 && added.done.is_err(), "{added:?}");
    assert!(spill.bytes() <= room);
    assert_eq!(spill.len() + added.gone, 301);
    assert_eq!(spill.take_missing().unwrap().records(), added.gone);
}

#[test]
fn what_is_no_file_is_passed_over_and_its_number_as_well() {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("7.jsonl")).unwrap();
    fs::write(directory.path().join("3.jsonl"), export::json(&flow(0)) + "\n").unwrap();
    let mut spill = Spill::open(directory.path(), 64 << 10).unwrap();
    add(&mut spill, &[flow(1)]);
    assert!(directory.path().join("8.jsonl").is_file());
    assert_eq!(drain(&mut spill, 10), [0, 1]);
    add(&mut spill, &[flow(2)]);
    assert_eq!(drain(&mut spill, 10), [2]);
}

#[test]
fn a_file_is_whole_when_it_has_so_much_as_may_come_again() {
    let directory = tempfile::tempdir().unwrap();
    let is_whole_at = |spill: &mut Spill, bytes: u64| {
        add(spill, &[flow(0)]);
        spill.files.back_mut().unwrap().bytes = bytes;
        let before = spill.files.len();
        add(spill, &[flow(1)]);
        spill.files.len() > before
    };
    // Of a large room, of a small one, and for whoever wants much at once.
    let large = 256 << 20;
    for (room, is_large, whole) in [(large, false, AGAIN), (1 << 20, false, 64 << 10), (large, true, 16 << 20)] {
        let mut spill = Spill::open(directory.path(), room).unwrap();
        if is_large {
            spill.in_large_files();
        }
        assert_eq!([whole - 1, whole].map(|bytes| is_whole_at(&mut spill, bytes)), [false, true], "{room}");
    }
}

#[test]
fn where_nothing_is_to_go_for_it_only_so_much_is_added_as_there_is_room_for() {
    let directory = tempfile::tempdir().unwrap();
    let items: Vec<Numbered> = (1..4).map(flow).collect();
    let length = |item: &Numbered| export::json(item).len() as u64 + 1;
    let mut spill = Spill::open(directory.path(), length(&items[0]) + length(&items[1])).unwrap();
    let added = spill.fill(&items);
    assert!((added.written, added.gone) == (2, 0) && added.done.is_ok(), "{added:?}");
    assert_eq!(sequences(&spill.next(1).unwrap()), [1]);
    spill.sent().unwrap();
    assert_eq!(spill.fill(&items[2..]).written, 1, "a file that has come whole leaves room");
    assert_eq!(drain(&mut spill, 10), [2, 3]);
}

#[test]
fn what_could_not_be_written_is_written_once_and_files_with_nothing_in_them_go() {
    let directory = tempfile::tempdir().unwrap();
    let mut spill = Spill::open(directory.path(), 64 << 10).unwrap();
    add(&mut spill, &[flow(0)]);
    // It takes nothing, and cannot be cut off.
    spill.writer = Some(File::options().append(true).open("/dev/full").unwrap());
    let added = spill.add(&[flow(1), flow(2)]);
    assert!(added.written == 0 && added.done.is_err(), "{added:?}");
    add(&mut spill, &[flow(1), flow(2)]);
    assert_eq!(drain(&mut spill, 10), [0, 1, 2]);
    fs::write(directory.path().join("9.jsonl"), "").unwrap();
    let spill = Spill::open(directory.path(), 64 << 10).unwrap();
    assert!(spill.is_empty() && fs::read_dir(directory.path()).unwrap().count() == 0);
}
