//! What was lost between two pods of the node.

use super::*;

#[test]
fn what_the_destinations_end_counted_is_told_where_something_was_lost_on_the_way() {
    for lost in [0, 1] {
        let (mut kernel, mut reader) = (Kernel { now: 1, ..Kernel::default() }, Reader::new());
        (0..3).for_each(|_| kernel.packet(4, false, false));
        for (key, entry) in &mut kernel.map {
            if key.device == 1 {
                entry.into.packets -= lost;
            }
        }
        reader.scan(&mut kernel);
        kernel.now += 60_000;
        (0..3).for_each(|_| reader.scan(&mut kernel));
        let last = reader.told.last().unwrap();
        assert_eq!((last.report, last.reporter, last.sent.packets), (Report::End, Reporter::Both, 3));
        let counts = last.destination_counts.as_ref().map(|counts| (counts.node.to_string(), counts.sent.packets));
        assert_eq!(counts, (lost > 0).then(|| ("node1".to_owned(), 2)));
    }
}
