//! Interfaces that go with their pods while something is open there.

use super::*;

/// Reads the map, and takes out besides what is of an interface that is gone.
fn scan_without(device: u32, kernel: &mut Kernel, reader: &mut Reader) {
    let entries: Vec<Entry> = kernel.map.values().copied().collect();
    reader.with(kernel.now, |aggregator, scene, told| {
        for entry in entries {
            if aggregator.observe(&entry, scene, told) == Fate::Over || entry.key.device == device {
                let last = kernel.map.remove(&entry.key).unwrap();
                aggregator.over(&last, scene);
            }
        }
        aggregator.sweep(scene, told);
    });
}

fn open(connection: usize) -> (Kernel, Reader) {
    let (mut kernel, mut reader) = (Kernel { now: 1, ..Kernel::default() }, Reader::new());
    kernel.packet(connection, false, false);
    kernel.packet(connection, true, false);
    (0..2).for_each(|_| reader.scan(&mut kernel));
    (kernel, reader)
}

fn told(reader: &Reader) -> Vec<(Report, u64)> {
    reader.told.iter().map(|record| (record.report, record.sent.packets + record.received.packets)).collect()
}

#[test]
fn what_is_open_ends_as_its_pod_goes() {
    let (mut kernel, mut reader) = open(1);
    kernel.now += 1000;
    scan_without(1, &mut kernel, &mut reader);
    assert_eq!(told(&reader), [(Report::Start, 2), (Report::End, 2)]);
    assert!(kernel.map.is_empty() && reader.aggregator.is_empty() && reader.aggregator.live.is_empty());
    // Others have the same ports again.
    kernel.packet(1, false, false);
    reader.scan(&mut kernel);
    assert_eq!(told(&reader)[2..], [(Report::Start, 1)]);
}

#[test]
fn what_is_open_between_pods_of_the_node_ends_when_one_is_gone_and_the_other_says_nothing() {
    let (mut kernel, mut reader) = open(0);
    kernel.now += 1000;
    scan_without(1, &mut kernel, &mut reader);
    reader.scan(&mut kernel);
    assert_eq!((told(&reader), kernel.map.len()), (vec![(Report::Start, 2)], 1), "the other one may be waiting");
    kernel.now += 30_000;
    (0..2).for_each(|_| reader.scan(&mut kernel));
    assert_eq!(told(&reader), [(Report::Start, 2), (Report::End, 2)]);
    assert!(kernel.map.is_empty() && reader.aggregator.is_empty());
}
