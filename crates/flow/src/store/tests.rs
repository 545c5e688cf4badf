use std::sync::Arc;

use super::*;
use crate::{
    record::{Gap, GapAt, Report, Reporter},
    testing::{flow, gap as testing_gap},
};

fn gap(packets: u64) -> Item {
    let at = Timestamp::UNIX_EPOCH;
    let (node, at_) = ("node1".into(), GapAt::Kernel);
    Item::Gap(Gap { start: at, end: at, node, at: at_, device: None, pod: None, packets, bytes: 0, flows: 0 })
}

fn numbers(page: &Page) -> Vec<u64> {
    page.items.iter().map(|item| if let Item::Gap(gap) = item { gap.packets } else { 0 }).collect()
}

/// By the pods' names: items, packets, bytes, flows.
fn told(missed: &Missed) -> Vec<(String, [u64; 4])> {
    let name = |share: &Share| share.pod.as_ref().map_or_else(String::new, |pod| pod.name.to_string());
    let sums = |Share { items, sum, .. }: &Share| [*items, sum.packets, sum.bytes, sum.flows];
    missed.shares().map(|share| (name(share), sums(share))).collect()
}

fn second(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

#[test]
fn what_is_too_old_or_too_much_goes_and_who_comes_late_is_told_how_much_it_missed() {
    let bytes = 3 * size(&gap(0));
    let mut store = Store::new(Retention { time: SignedDuration::from_secs(10), bytes });
    let slow = store.enter(0);
    for number in 0..4 {
        store.push(gap(number), second(i64::try_from(number).unwrap()));
    }
    let page = store.page(&slow, 2);
    assert_eq!((page.missed.items(), page.first, numbers(&page)), (1, 1, vec![1, 2]));
    assert_eq!(told(&page.missed), [(String::new(), [1, 0, 0, 0])]);
    let page = store.page(&slow, 2);
    assert_eq!((page.missed, page.first, page.items), (Missed::default(), 3, vec![gap(3)]));
    let late = store.enter(9);
    let page = store.page(&late, 2);
    assert_eq!((page.missed.items(), page.first, store.next(), store.bytes()), (0, 4, 4, bytes));
    store.forget(second(13));
    let kept = store.enter(store.first());
    assert_eq!(numbers(&store.page(&kept, 9)), [3]);
    store.forget(second(14));
    assert_eq!((store.bytes(), store.next(), store.first()), (0, 4, 4));
    assert_eq!(store.page(&slow, 9), Page { first: 4, ..Page::default() }, "all was read");
}

#[test]
fn until_when_something_was_that_is_forgotten_is_known_by_the_items_own_times() {
    let item = |at: i64| {
        let Item::Gap(gap) = gap(1) else { panic!("no gap") };
        Item::Gap(Gap { start: second(at), end: second(at), ..gap })
    };
    let mut store = Store::new(Retention { time: SignedDuration::from_secs(10), bytes: 2 * size(&gap(0)) });
    // What came first need not have been first.
    [8, 5, 9].into_iter().for_each(|at| store.push(item(at), second(10)));
    assert_eq!((store.forgotten(), store.first()), (Some(second(8)), 1), "no room");
    store.push(item(10), second(10));
    assert_eq!((store.forgotten(), store.first()), (Some(second(8)), 2));
    store.forget(second(21));
    assert_eq!((store.forgotten(), store.first()), (Some(second(10)), 4), "too old");
    assert_eq!(Store::new(Retention::default()).forgotten(), None);
}

#[test]
fn what_went_by_is_known_by_pods_with_each_flow_once_and_what_gaps_tell() {
    let mut store = Store::new(Retention { time: SignedDuration::from_secs(10), bytes: 1 << 20 });
    let [Item::Flow(ended), Item::Gap(lost)] = [flow(1).item, testing_gap(2).item] else { panic!("no flow") };
    let begun = Item::Flow(Arc::new(Record { report: Report::Start, ..Record::clone(&ended) }));
    // Of the pod at whose interface it was counted.
    let answered = Item::Flow(Arc::new(Record { reporter: Reporter::Destination, ..Record::clone(&ended) }));
    let of_client = Item::Gap(Gap { pod: ended.source.pod.clone(), ..lost.clone() });
    let bookmarks = [0, 0].map(|number| store.enter(number));
    for item in [begun, Item::Flow(ended), Item::Gap(lost), answered, of_client] {
        store.push(item, Timestamp::UNIX_EPOCH);
    }
    let [all, ends] = bookmarks;
    assert_eq!(store.page(&ends, 2).items.len(), 2);
    store.forget(second(11));
    let nobody = (String::new(), [1, 40, 4000, 3]);
    let web = ("web".to_owned(), [1, 11, 5600, 1]);
    let missed = |bookmark: &Bookmark, store: &mut Store| told(&store.page(bookmark, 9).missed);
    assert_eq!(missed(&all, &mut store), [nobody.clone(), ("client".to_owned(), [3, 51, 9600, 4]), web.clone()]);
    assert_eq!(missed(&ends, &mut store), [nobody, ("client".to_owned(), [1, 40, 4000, 3]), web]);
    assert!(missed(&all, &mut store).is_empty(), "told once");
}

#[test]
fn of_what_went_by_before_somebody_asked_for_it_only_the_number_is_known_unless_they_ask_for_all() {
    let mut store = Store::new(Retention { time: SignedDuration::from_secs(10), bytes: 1 << 20 });
    (1..=5).for_each(|packets| store.push(gap(packets), Timestamp::UNIX_EPOCH));
    store.push(gap(6), second(5));
    store.forget(second(11));
    let [some, all] = [2, 0].map(|number| store.enter(number));
    store.forget(second(16));
    let missed = store.page(&some, 9).missed;
    assert_eq!((missed.unknown(), missed.items(), told(&missed)), (3, 4, vec![(String::new(), [1, 6, 0, 0])]));
    let missed = store.page(&all, 9).missed;
    assert_eq!((missed.unknown(), missed.items(), told(&missed)), (0, 6, vec![(String::new(), [6, 21, 0, 0])]));
}

#[test]
fn many_pods_are_told_in_bounded_memory_and_none_of_their_packets_twice() {
    let mut store = Store::new(Retention { time: SignedDuration::from_secs(10), bytes: 0 });
    let Item::Flow(record) = flow(1).item else { panic!("no flow") };
    let reader = store.enter(0);
    for number in (0..1000).chain(0..1000) {
        let mut record = Record::clone(&record);
        let pod = record.source.pod.as_mut().map(Arc::make_mut).unwrap();
        pod.uid = format!("{number}").into();
        store.push(Item::Flow(Arc::new(record)), Timestamp::UNIX_EPOCH);
    }
    let missed = store.page(&reader, 9).missed;
    let shares: Vec<&Share> = missed.shares().collect();
    assert!(shares.len() > 100 && shares.len() < 200, "{}", shares.len());
    assert_eq!(shares.iter().map(|share| share.sum.packets).sum::<u64>(), 2000 * 11);
    assert_eq!((missed.unknown(), missed.items()), (0, 2000));
}

#[test]
fn who_left_is_waited_for_no_more() {
    let mut store = Store::new(Retention { time: SignedDuration::from_secs(10), bytes: 0 });
    let (gone, there) = (store.enter(0), store.enter(0));
    store.leave(&gone);
    store.push(gap(7), Timestamp::UNIX_EPOCH);
    assert_eq!((store.page(&gone, 9), store.places.len()), (Page::default(), 1));
    assert_eq!(store.page(&there, 9).missed.items(), 1);
}
