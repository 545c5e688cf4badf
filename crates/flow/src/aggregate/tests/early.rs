//! Connections that are told as they end, before the map is read the next time.

use super::*;

/// A connection that was opened, answered and closed, whose bells were heard.
fn closed(connection: usize) -> (Kernel, Reader) {
    let (mut kernel, mut reader) = (Kernel { now: 1, ..Kernel::default() }, Reader::new());
    for (answers, ends) in [(false, false), (true, false), (false, true)] {
        kernel.packet(connection, answers, ends);
    }
    reader.drain(&mut kernel, true);
    (kernel, reader)
}

/// Bells are heard so much later.
fn hear_after(millis: i64, kernel: &mut Kernel, reader: &mut Reader) -> Vec<(Report, u64)> {
    kernel.now += millis;
    reader.drain(kernel, true);
    reader.told.iter().map(|record| (record.report, record.sent.packets + record.received.packets)).collect()
}

#[test]
fn a_connection_whose_end_was_acknowledged_is_told_once_nothing_passed_for_a_moment() {
    // Of both ends, and of one whose other end is on another node.
    for connection in [0, 1] {
        let (mut kernel, mut reader) = closed(connection);
        kernel.packet(connection, true, false);
        assert_eq!(hear_after(150, &mut kernel, &mut reader), []);
        assert_eq!(hear_after(50, &mut kernel, &mut reader), [(Report::End, 4)]);
        assert!(kernel.map.is_empty() && reader.aggregator.is_empty() && reader.aggregator.live.is_empty());
        // From the same ports.
        kernel.packet(connection, false, false);
        (0..3).for_each(|_| reader.scan(&mut kernel));
        assert_eq!(reader.told.len(), 2);
        assert_eq!((reader.told[1].report, reader.told[1].sent.packets), (Report::Start, 1));
        assert!(reader.aggregator.ending.is_empty() && reader.told[0].id != reader.told[1].id);
    }
}

#[test]
fn what_passes_meanwhile_is_waited_for() {
    let (mut kernel, mut reader) = closed(0);
    kernel.packet(0, true, false);
    kernel.now += 150;
    kernel.packet(0, true, false);
    assert_eq!(hear_after(100, &mut kernel, &mut reader), []);
    assert_eq!(hear_after(100, &mut kernel, &mut reader), [(Report::End, 5)]);
}

#[test]
fn an_end_that_nobody_acknowledged_may_be_said_again_and_waits_for_readings_unless_it_is_a_reset() {
    let (mut kernel, mut reader) = closed(1);
    assert_eq!(hear_after(900, &mut kernel, &mut reader), []);
    assert_eq!(hear_after(900, &mut kernel, &mut reader), []);
    assert!(reader.aggregator.ending.is_empty(), "it is not looked at for ever");
    (0..2).for_each(|_| reader.scan(&mut kernel));
    assert_eq!(hear_after(0, &mut kernel, &mut reader), [(Report::End, 3)]);
    let (mut kernel, mut reader) = closed(1);
    kernel.map.values_mut().for_each(|entry| entry.into.resets = 1);
    assert_eq!(hear_after(300, &mut kernel, &mut reader), [(Report::End, 3)]);
}

#[test]
fn where_an_entry_of_this_node_is_missing_or_did_not_ring_a_reading_decides() {
    let (mut kernel, mut reader) = (Kernel { now: 1, ..Kernel::default() }, Reader::new());
    for (answers, ends) in [(false, false), (false, true), (true, false)] {
        kernel.packet(0, answers, ends);
    }
    // There was no room in the ring for the destination's.
    kernel.bells.retain(|bell| matches!(bell, Bell::Ended(entry) if entry.pod_began));
    assert_eq!(hear_after(300, &mut kernel, &mut reader), []);
    reader.scan(&mut kernel);
    assert_eq!(hear_after(300, &mut kernel, &mut reader), []);
    kernel.now += 1000;
    (0..2).for_each(|_| reader.scan(&mut kernel));
    assert_eq!(hear_after(0, &mut kernel, &mut reader), [(Report::End, 3)]);
    assert_eq!(reader.told[0].reporter, Reporter::Both);
}

#[test]
fn what_another_connection_has_the_place_of_by_now_is_told_by_what_rang() {
    let (mut kernel, mut reader) = closed(1);
    kernel.packet(1, true, false);
    kernel.now += 300;
    let bells = std::mem::take(&mut kernel.bells);
    kernel.packet(1, false, false);
    let replaced = std::mem::replace(&mut kernel.bells, bells);
    assert_eq!(hear_after(0, &mut kernel, &mut reader), []);
    kernel.bells = replaced;
    assert_eq!(hear_after(0, &mut kernel, &mut reader), [(Report::End, 4)]);
    assert_eq!(kernel.map.len(), 1);
}
