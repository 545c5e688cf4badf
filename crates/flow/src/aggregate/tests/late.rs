//! The kernel rings for a connection a moment before the next one from the same port takes its place: what is read in between.

use super::*;

/// A connection to another node that has ended, as it was read once; and its entry.
fn ended() -> (Kernel, Reader, Entry) {
    let (mut kernel, mut reader) = (Kernel { now: 1, ..Kernel::default() }, Reader::new());
    for (answers, ends) in [(false, false), (true, false), (false, true)] {
        kernel.packet(1, answers, ends);
    }
    reader.scan(&mut kernel);
    let entry = *kernel.map.values().next().unwrap();
    (kernel, reader, entry)
}

/// How many records there are of the flow that was told first, and packets in them.
fn of_the_first(reader: &Reader) -> Vec<u64> {
    let first = reader.told.first().unwrap().id;
    let packets = |record: &Record| record.sent.packets + record.received.packets;
    reader.told.iter().filter(|record| record.id == first).map(packets).collect()
}

#[test]
fn a_connection_that_is_taken_out_as_its_port_is_used_again_is_told_once() {
    let (mut kernel, mut reader, entry) = ended();
    kernel.now += 2000;
    (0..2).for_each(|_| reader.scan(&mut kernel));
    assert_eq!((kernel.map.len(), of_the_first(&reader)), (0, vec![3]));
    // It rang before, and is heard now.
    kernel.bells.push_back(Bell::Replaced(entry));
    kernel.packet(1, false, false);
    (0..4).for_each(|_| reader.scan(&mut kernel));
    assert_eq!(of_the_first(&reader), [3]);
    assert_eq!(reader.told.len(), 2, "and so is the next one");
    assert!(reader.aggregator.ended.is_empty() && reader.aggregator.ended_before.is_empty());
}

#[test]
fn a_connection_that_is_read_as_another_is_about_to_take_its_place_is_told_once() {
    let (mut kernel, mut reader, entry) = ended();
    kernel.now += 6000;
    kernel.bells.push_back(Bell::Replaced(entry));
    reader.scan(&mut kernel);
    assert_eq!((kernel.map.len(), of_the_first(&reader)), (1, vec![3]), "it is still there");
    kernel.map.clear();
    kernel.packet(1, false, false);
    (0..4).for_each(|_| reader.scan(&mut kernel));
    assert_eq!(of_the_first(&reader), [3]);
    assert_eq!(reader.told.len(), 2);
}
