//! A scripted hour of traffic, by a simulated clock: what is told of it equals the script.
//!
//! Three nodes count in simulated kernels, whose maps and bells their agents read every second. Flows of every class, of both families and of
//! every protocol begin all the time, to Services with and without masquerade. Pods are restarted and others get their addresses at once,
//! agents are restarted over the maps that are there, also after they were killed, and one node is lost. What two nodes tell of a flow comes to be one
//! record, for who follows and in logs; and it counts once in sums.

mod script;
mod world;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
};

use k8s_openapi::jiff::Timestamp;
use podnet_flow::{
    Class, Gap, Key, Record, Reporter, Transport,
    record::{Asked, End, GapAt},
};

use self::{
    script::{Line, Who},
    world::{Event, World},
};

const HOUR: i64 = 3_600_000;
const NODES: usize = 3;
const PODS: usize = 4;
/// The node that is lost, and when.
const LOST: (usize, i64) = (2, 2_700_500);
/// Nodes whose agents are renewed, and when.
const RENEWED: [(usize, i64); 4] = [(0, 450_456), (1, 810_456), (0, 1_770_456), (1, 2_850_456)];
/// As an agent of podnet is down while it is renewed, or once it was killed.
const DOWN: i64 = 2_300;
/// What is told so near to that may be told later than the other node waits for it.
const DISTURBED: i64 = 10_000;
/// What is over is told at the second reading that finds it so.
const READ: i64 = 2_000;
/// So long a node's end of a flow may still be held, before it goes to logs, once it is over: the other node is asked whether anything came for 6 s, and about
/// what both counted for 15 s (`podnet_flow::joint`), and both read every second.
const HELD: i64 = 30_000;

/// Nodes whose agents are killed, and when: just after they read, so that other nodes were not asked yet about what that told.
fn killed() -> impl Iterator<Item = (usize, i64)> {
    (1..=21_i64).map(|number| {
        let node = number % 2;
        (usize::try_from(node).unwrap(), number * 120_000 + 45_001 + node * 300)
    })
}

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millisecond(1_700_000_000_000 + millis).unwrap()
}

#[test]
fn the_records_of_a_scripted_hour_equal_the_script() {
    let mut world = scripted(HOUR - 400_000);
    for minute in 1..50 {
        let place = (world.pick(NODES), world.pick(PODS));
        world.after(minute * 60_000 + 123, Event::Renew(place));
    }
    for (node, when) in RENEWED {
        world.after(when, Event::Stop(node));
    }
    for (node, when) in killed() {
        world.after(when, Event::Kill(node));
    }
    world.after(LOST.1, Event::Lose(LOST.0));
    world.runs(HOUR);
    runs_out(&mut world);
    all_that_there_is_was_in_the_script(&world);
    for (told, gone) in [(&world.told, None), (&world.logs.ends, Some(world.logs.gone.as_slice()))] {
        is_told_as_it_was(&world, told, gone);
        what_two_nodes_counted_is_in_one_record(told, [200, 20]);
    }
    what_is_gone_is_in_a_gap_and_nothing_else(&world);
}

#[test]
fn logs_and_sums_of_ten_minutes_in_which_nobody_goes_away_equal_the_script() {
    let mut world = scripted(600_000);
    world.runs(900_000);
    runs_out(&mut world);
    let packets = |answers: usize| world.script.iter().map(|line| line.packets[answers]).sum::<u64>();
    assert_eq!(world.logs.sums(), [packets(0), packets(1), world.script.len() as u64]);
    assert_eq!(world.logs.ends.len(), world.script.len());
    what_two_nodes_counted_is_in_one_record(&world.logs.ends, [40, 4]);
    assert!(world.gaps.is_empty() && world.logs.gaps.is_empty());
}

/// Flows begin all the time, until some time.
fn scripted(until: i64) -> World {
    let mut world = World::new();
    (0..NODES).for_each(|node| world.after(i64::try_from(node).unwrap() * 300, Event::Read(node)));
    let mut when = 0;
    while when < until {
        when += 1 + i64::try_from(world.pick(1000)).unwrap();
        world.after(when, Event::Begin);
    }
    world
}

/// What nobody ended waits for as long as TCP may be silent, and its record for what the other node counted.
fn runs_out(world: &mut World) {
    for pause in [HOUR, 1000, 1000, 1000, 1000].repeat(3) {
        world.now += pause;
        (0..NODES).for_each(|node| world.read(node));
        world.tell();
    }
    world.finish();
}

type What = (String, [Option<Arc<str>>; 2], [u64; 2]);

/// How a flow is told, as one of a class from somebody.
fn told_as(line: &Line, class: Class, source: SocketAddr, asked: Option<SocketAddr>) -> What {
    let words = format!("{class} {} {source} > {} {asked:?}", line.transport, line.to.1);
    let [from, to] = line.uids.clone();
    (words, [from.filter(|_| source == line.from.1), to], line.packets)
}

/// How the destination's node tells it: which Service was asked, and for whom a node stands, the source's alone knows.
fn as_seen(line: &Line) -> What {
    let class = if line.is_masked() { Class::NodePod } else { Class::PodPodOtherNode };
    told_as(line, class, line.seen_source(), None)
}

/// Whether these are the script, no more and no less. `gone` are ends that agents held for others' as they were killed, or lost: only what goes to logs is
/// held so.
fn is_told_as_it_was(world: &World, records: &[Arc<Record>], gone: Option<&[Arc<Record>]>) {
    let mut told: BTreeMap<What, u32> = BTreeMap::new();
    for record in records {
        let uid = |end: &End| end.pod.as_ref().map(|pod| pod.uid.clone());
        let asked = record.service.as_ref().map(Asked::at);
        let words = format!(
            "{} {} {} > {} {asked:?}",
            record.class,
            record.protocol,
            record.source.at(),
            record.destination.at()
        );
        let packets = [record.sent.packets, record.received.packets];
        assert_eq!([record.sent.bytes, record.received.bytes], packets.map(|packets| packets * 100));
        *told.entry((words, [uid(&record.source), uid(&record.destination)], packets)).or_default() += 1;
    }
    let asks = gone.is_some();
    let (of_lost, gone) = (begun(&world.of_lost), gone.map_or_else(BTreeSet::new, begun));
    for line in &world.script {
        let flow = (Key { source: line.from.1, destination: line.to.1, transport: line.transport }, at(line.began));
        let is_of_lost = teller(line) == LOST.0;
        let is_untold = is_of_lost && !of_lost.contains(&flow);
        assert!(!is_untold || may_be_untold(line), "the lost node had time to tell it: {line:#?}");
        let witness = line.to.0.place().is_some_and(|(node, _)| node != LOST.0);
        let as_asked = told_as(line, line.class, line.from.1, line.asked.map(|(at, _)| at));
        let is_told = match is_untold || gone.contains(&flow) {
            false => take(&mut told, &as_asked),
            // The other end's node tells it, once it knows that this one does not.
            true if is_of_lost && witness => take(&mut told, &as_asked) || take(&mut told, &as_seen(line)),
            // Nobody can: the other end's tells it as a part of what this one told, or nobody else counted it.
            true => true,
        };
        let as_told = || {
            records.iter().filter(|record| record.source.at() == line.from.1 && record.destination.at() == line.to.1)
        };
        assert!(is_told, "missing: {as_asked:?} from {:?}, told {:#?}", line.began, as_told().collect::<Vec<_>>());
    }
    // Where the source's agent was away, nobody said by then for whom its node stands: the other end's node told it as well, once.
    let nodes = |line: &Line| [line.from.0.place().map(|(node, _)| node), None];
    // For logs its agent says so once it is back, of all that the stack still knows: of datagrams that does not before they are over.
    let is_told_once = |line: &Line| asks && line.transport != Transport::UDP && ends_elsewhere(line);
    let is_early =
        |line: &&Line| line.is_masked() && is_disturbed(nodes(line), line.last, line.transport) && !is_told_once(line);
    for line in world.script.iter().filter(is_early) {
        take(&mut told, &as_seen(line));
    }
    told.retain(|_, left| *left > 0);
    assert!(told.is_empty(), "too many: {told:#?}");
    assert!(records.iter().any(|record| record.reporter == Reporter::Destination && record.is_secondary()));
}

/// Takes one of these away. Whether there was one.
fn take(told: &mut BTreeMap<What, u32>, what: &What) -> bool {
    match told.get_mut(what) {
        Some(left) if *left > 0 => {
            *left -= 1;
            true
        }
        _ => false,
    }
}

/// Which flows these are of.
fn begun(records: &[Arc<Record>]) -> BTreeSet<(Key, Timestamp)> {
    records.iter().map(|record| (record.key(), record.start)).collect()
}

/// The node that is to tell a flow.
fn teller(line: &Line) -> usize {
    line.from.0.place().or(line.to.0.place()).unwrap().0
}

/// Whether it is between pods of two nodes.
fn ends_elsewhere(line: &Line) -> bool {
    let node = |who: Who| who.place().map(|(node, _)| node);
    node(line.from.0) != node(line.to.0)
}

/// Whether the node that is lost may not have told a flow by then: what was under way, and what ended just before.
fn may_be_untold(line: &Line) -> bool {
    !line.is_over || line.last + silence(line.transport) + READ >= LOST.1
}

/// What an agent held as it was killed is in the gap that the next one tells first; of nothing else there is a gap, to who follows and in logs. No
/// agent holds an end for longer than it is to.
fn what_is_gone_is_in_a_gap_and_nothing_else(world: &World) {
    assert_eq!(world.gaps, world.logs.gaps);
    let told: Vec<_> = world.gaps.iter().map(|gap| (gap.node.to_string(), gap.at, gap.end)).collect();
    let expected: Vec<_> =
        killed().map(|(node, when)| (format!("node{node}"), GapAt::Agent, at(when + DOWN))).collect();
    assert_eq!(told, expected);
    let mut in_gaps = 0;
    for record in &world.logs.gone {
        let over = record.end.as_millisecond() - at(0).as_millisecond() + silence(record.protocol);
        let is_held = |(node, when): (usize, i64)| {
            record.node.as_str() == format!("node{node}") && (when - HELD..=when).contains(&over)
        };
        assert!(killed().chain([LOST]).any(is_held), "held for too long: {record:#?}");
        let is_in = |gap: &Gap| gap.node == record.node && (gap.start..=gap.end).contains(&at(over));
        let is_in_gap = world.gaps.iter().any(is_in);
        assert!(is_in_gap || is_held(LOST), "in no gap: {record:#?}");
        in_gaps += usize::from(is_in_gap);
    }
    assert!(in_gaps > 0, "no agent was killed that held anything");
}

/// How long after the last packet of a flow its end is known: TCP says so.
fn silence(transport: Transport) -> i64 {
    match transport {
        Transport::TCP => 1000,
        Transport::UDP => 60_000,
        _ => 30_000,
    }
}

/// Each class in both families, and in each of these every protocol; Services are asked at ports, so by no echo.
fn all_that_there_is_was_in_the_script(world: &World) {
    let (mut classes, mut protocols) = (BTreeMap::new(), BTreeMap::new());
    for line in &world.script {
        let class = (line.class.to_string(), line.from.1.is_ipv6());
        *protocols.entry((class.clone(), line.transport)).or_insert(0) += 1;
        *classes.entry(class).or_insert(0) += 1;
    }
    assert!(classes.len() == 14 && classes.values().all(|count| *count > 100), "{classes:?}");
    assert!(protocols.len() == 54 && protocols.values().all(|count| *count > 10), "{protocols:?}");
}

/// Whether the agent of one of these nodes was away at about the time at which it was to tell the end of a flow, by its last packet.
fn is_disturbed(nodes: [Option<usize>; 2], last: i64, transport: Transport) -> bool {
    let told = last + silence(transport);
    let mut away = RENEWED.into_iter().chain(killed());
    away.any(|(node, when)| nodes.contains(&Some(node)) && (told - when).abs() < DISTURBED)
}

/// Of so many at least, and of so many that are masqueraded.
fn what_two_nodes_counted_is_in_one_record(records: &[Arc<Record>], least: [i32; 2]) {
    let node = |end: &End| end.pod.as_ref()?.node.as_str().strip_prefix("node")?.parse::<usize>().ok();
    let (mut joined, mut masked) = (0, 0);
    for record in records {
        let nodes = [node(&record.source), node(&record.destination)];
        let [Some(from), Some(to)] = nodes else { continue };
        let last = record.end.as_millisecond() - at(0).as_millisecond();
        if from == to || nodes.contains(&Some(LOST.0)) || is_disturbed(nodes, last, record.protocol) {
            continue;
        }
        let Some(counts) = record.destination_counts.as_deref() else { panic!("of one node alone: {record:#?}") };
        let packets = [record.sent.packets, record.received.packets];
        assert_eq!((record.reporter, counts.node.to_string()), (Reporter::Both, format!("node{to}")));
        assert_eq!([counts.sent.packets, counts.received.packets], packets, "{record:#?}");
        joined += 1;
        masked += i32::from(record.seen_as.is_some());
    }
    assert!(joined > least[0] && masked > least[1], "{joined} were joined, {masked} of them masqueraded");
}
