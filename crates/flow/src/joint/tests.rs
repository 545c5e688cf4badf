//! Agents of several nodes that ask each other.

mod readers;
mod whose;

use std::net::SocketAddr;

use jiff::SignedDuration;
use podnet_model::ServiceKey;

use super::{question::Sought, *};
use crate::{
    Cause, PodIdentity, Transport, Verdict,
    record::{Asked, End, FlowId, GapAt},
    testing,
};

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millisecond(1_700_000_000_000 + millis).unwrap()
}

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn pod(name: &str, node: &str) -> Arc<PodIdentity> {
    let Item::Flow(record) = testing::flow(0).item else { panic!("no flow") };
    let mut pod = PodIdentity::clone(record.source.pod.as_ref().unwrap());
    (pod.name, pod.uid, pod.node) = (name.into(), name.into(), node.into());
    Arc::new(pod)
}

fn end(ip: &str, pod: Option<Arc<PodIdentity>>) -> End {
    End { ip: addr(ip).ip(), port: addr(ip).port(), pod, node: None }
}

/// `client` is node1's, `web` is node2's, `asker` is node3's; a Service `shop/web` has a port of all nodes.
fn names() -> Names {
    let mut names = Names::default();
    for (ip, name, node) in
        [("10.0.1.1", "client", "node1"), ("10.0.2.1", "web", "node2"), ("10.0.3.1", "asker", "node3")]
    {
        names.hold(ip.parse().unwrap(), &pod(name, node), at(-100_000), at(0));
    }
    let nodes = ["node1", "node2", "node3"].iter().zip(1_u8..);
    names.set_nodes(nodes.map(|(name, number)| ([172, 16, 0, number].into(), (*name).into())).collect());
    names.set_services([((addr("0.0.0.0:30080"), Transport::TCP), ServiceKey::new("shop", "web"))].into());
    names
}

/// A flow from `client` to `web`, as its source's node tells it.
fn sent(id: u128, port: u16, start: i64) -> Record {
    let Item::Flow(record) = testing::flow(0).item else { panic!("no flow") };
    let mut record = Record::clone(&record);
    record.id = FlowId(uuid::Uuid::from_u128(id));
    (record.start, record.end, record.service) = (at(start), at(start + 100), None);
    (record.class, record.node) = (Class::PodPodOtherNode, "node1".into());
    record.source = End { port, ..end("10.0.1.1:1", Some(pod("client", "node1"))) };
    record.destination = end("10.0.2.1:8080", Some(pod("web", "node2")));
    record
}

/// The same as its destination's does.
fn came(id: u128, port: u16, start: i64) -> Record {
    let mut record = sent(id, port, start);
    (record.reporter, record.node) = (Reporter::Destination, "node2".into());
    (record.sent.packets, record.cause) = (4, Some(Cause::PortClosed));
    record
}

/// What came to `web` from port 4000 of node1.
fn front(id: u128, start: i64) -> Record {
    let mut record = came(id, 4000, start);
    record.source = End { node: Some("node1".into()), ..end("172.16.0.1:4000", None) };
    record.class = Class::NodePod;
    record
}

struct Agent {
    node: NodeName,
    joint: Joint,
    told: Vec<Arc<Record>>,
    counted: Vec<Arc<Record>>,
    /// What came here of what left translated.
    origins: Vec<(SocketAddr, SocketAddr, SocketAddr)>,
}

impl Agent {
    fn new(node: &str) -> Self {
        let node: NodeName = node.into();
        let joint = Joint::new(node.clone(), at(-100_000));
        Self { node, joint, told: Vec::new(), counted: Vec::new(), origins: Vec::new() }
    }

    fn hears_as(&mut self, records: Vec<Record>, now: i64, is_last: bool, tells: bool) {
        let items = records.into_iter().map(|record| Item::Flow(Arc::new(record))).collect();
        let items = self.joint.heard(items, (at(now), is_last));
        let numbered = |item| Numbered { item, ..testing::gap(0) };
        let Told { items, counted } =
            self.joint.told(items.into_iter().map(numbered).collect(), (at(now), is_last), |_| tells);
        let record = |item: Item| if let Item::Flow(record) = item { Some(record) } else { None };
        self.told.extend(items.into_iter().filter_map(|numbered| record(numbered.item)));
        // As sums know it by themselves.
        self.counted.extend(counted.into_iter().filter_map(record).filter(|record| !record.is_secondary()));
    }

    fn hears(&mut self, records: Vec<Record>, now: i64) {
        self.hears_as(records, now, false, true);
    }
}

/// All ask each other, in JSON.
fn ask(agents: &mut [Agent], now: i64) {
    for asker in 0..agents.len() {
        for (to, asked) in agents[asker].joint.questions(at(now)) {
            let (numbers, questions): (Vec<u64>, Vec<Question>) = asked.into_iter().unzip();
            let node = agents[asker].node.clone();
            let Some(asked) = agents.iter_mut().find(|agent| agent.node == to) else { continue };
            asked.joint.read(at(now));
            let origin = |question: &Question| {
                let key = translated(question)?;
                let found = asked.origins.iter().find(|(seen, ..)| *seen == key.source)?;
                Some(Key { source: found.1, destination: found.2, transport: key.transport })
            };
            let origins: Vec<Option<Key>> = questions.iter().map(origin).collect();
            let text = serde_json::to_string(&Inquiry::new(node, at(now), questions)).unwrap();
            let answers = asked.joint.answer(&serde_json::from_str(&text).unwrap(), &origins, |_| true, at(now));
            agents[asker].joint.answered(&to, &numbers, Ok(&answers), (&names(), at(now)));
        }
    }
}

fn two() -> [Agent; 2] {
    [Agent::new("node1"), Agent::new("node2")]
}

/// Ids, reports, reporters and how many packets the destination counted.
fn seen(records: &[Arc<Record>]) -> Vec<(u128, Report, Reporter, Option<u64>)> {
    let counts = |record: &Record| record.destination_counts.as_ref().map(|counts| counts.sent.packets);
    records.iter().map(|record| (record.id.0.as_u128(), record.report, record.reporter, counts(record))).collect()
}

/// Asks once more, after the source's node has heard of its own flow: that alone tells of it, with what the other one counted.
fn is_told_by_the_source(agents: &mut [Agent; 2], own: Record) {
    agents[0].hears(vec![own], 61_500);
    ask(agents, 62_100);
    agents.iter_mut().for_each(|agent| agent.hears(Vec::new(), 62_200));
    assert_eq!(seen(&agents[0].told), [(1, Report::End, Reporter::Both, Some(4))]);
    assert!(agents[1].told.is_empty() && agents[1].counted.is_empty());
}

#[test]
fn a_flow_of_two_nodes_is_one_record_whoever_reads_its_end_first() {
    for first in [0, 1] {
        let mut agents = two();
        let records = [sent(1, 40000, 0), came(2, 40000, 1)];
        agents[first].hears(vec![records[first].clone()], 1000);
        ask(&mut agents, 1000);
        agents[1 - first].hears(vec![records[1 - first].clone()], 2100);
        ask(&mut agents, 2100);
        agents.iter_mut().for_each(|agent| agent.hears(Vec::new(), 2200));
        assert_eq!(seen(&agents[0].told), [(1, Report::End, Reporter::Both, Some(4))]);
        assert_eq!(agents[0].told[0].cause, Some(Cause::PortClosed), "sums have it, too");
        assert_eq!(agents[0].counted, agents[0].told);
        agents.iter_mut().for_each(|agent| agent.hears(Vec::new(), 100_000));
        assert!(agents[1].told.is_empty() && agents[1].counted.is_empty() && agents[0].told.len() == 1);
    }
}

#[test]
fn an_answer_that_is_lost_is_given_again() {
    let [mut source, mut destination] = two();
    source.hears(vec![sent(1, 40000, 0)], 1000);
    destination.hears(vec![came(2, 40000, 1)], 1000);
    let question = || Question::Joins(Arc::new(came(2, 40000, 1)));
    let inquiry = Inquiry::new("node2".into(), at(1000), vec![question()]);
    assert_eq!(source.joint.answer(&inquiry, &[], |_| true, at(1000)), [Answer::Taken]);
    let mut agents = [source, destination];
    ask(&mut agents, 1000);
    agents[1].hears(Vec::new(), 100_000);
    assert!(agents[1].told.is_empty(), "{:?}", agents[1].told);
}

#[test]
fn without_an_answer_each_node_goes_on_by_itself() {
    let mut agents = two();
    agents[0].hears(vec![sent(1, 40000, 0)], 1000);
    agents[1].hears(vec![came(2, 40000, 1), front(3, 0)], 1000);
    agents.iter_mut().for_each(|agent| agent.hears(Vec::new(), 3900));
    assert!(agents.iter().all(|agent| agent.told.is_empty()));
    agents[0].hears(Vec::new(), 4000);
    assert_eq!(seen(&agents[0].told), [(1, Report::End, Reporter::Source, None)]);
    // It was told: what the other one knows is a part of it.
    ask(&mut agents, 4500);
    agents[1].hears(Vec::new(), 4600);
    let expected = [(2, Report::Part, Reporter::Destination, None), (3, Report::End, Reporter::Destination, None)];
    assert_eq!(seen(&agents[1].told), expected);
    agents[1].hears(vec![came(4, 40001, 5000), front(5, 5000)], 6000);
    // First it is to be known who began it, and then who tells it.
    agents[1].hears(Vec::new(), 9000);
    agents[1].hears(Vec::new(), 24_000);
    // Whoever leaves to others what they tell holds the first of them.
    assert_eq!(seen(&agents[1].told[2..]).iter().map(|told| told.1).collect::<Vec<_>>(), [Report::End; 2]);
    assert_eq!(agents[1].counted.iter().map(|record| record.class).collect::<Vec<_>>(), [Class::NodePod; 2]);
}

#[test]
fn a_node_that_does_not_know_such_questions_is_not_waited_for() {
    let [_, mut agent] = two();
    agent.hears(vec![came(1, 40000, 0), front(2, 0)], 1000);
    let questions = agent.joint.questions(at(1000));
    let numbers: Vec<u64> = questions[&NodeName::from("node1")].iter().map(|(number, _)| *number).collect();
    agent.joint.answered(&"node1".into(), &numbers, Err(Unanswered::Away), (&names(), at(1000)));
    agent.hears(Vec::new(), 1500);
    assert!(agent.told.is_empty() && agent.joint.questions(at(1500)).is_empty());
    assert_eq!(agent.joint.questions(at(2000)).len(), 1, "it is asked again");
    agent.joint.answered(&"node1".into(), &numbers, Err(Unanswered::Unable), (&names(), at(2000)));
    agent.hears(vec![front(3, 2000)], 2000);
    assert_eq!(agent.told.len(), 3);
    assert!(agent.joint.questions(at(2000)).is_empty());
    agent.hears(vec![front(4, 62_000)], 62_001);
    assert_eq!(agent.joint.questions(at(62_001)).len(), 1, "it may be another version by now");
}

#[test]
fn what_is_masqueraded_counts_where_it_was_sent_from_its_beginning_on() {
    let mut agents = two();
    agents[0].origins = vec![(addr("172.16.0.1:4000"), addr("10.0.1.1:40000"), addr("10.96.0.1:80"))];
    let report = |report| Record { report, ..front(2, 1) };
    agents[1].hears(vec![report(Report::Start)], 1000);
    agents[1].hears(vec![report(Report::Update)], 1100);
    ask(&mut agents, 1200);
    agents[1].hears(vec![report(Report::Update)], 60_000);
    assert!(agents[1].told.is_empty() && agents[1].counted.is_empty());
    let mut own = sent(1, 40000, 0);
    (own.seen_as, own.class, own.end) = (Some(addr("172.16.0.1:4000")), Class::PodService, at(60_000));
    agents[1].hears(vec![report(Report::End)], 61_000);
    ask(&mut agents, 61_000);
    is_told_by_the_source(&mut agents, own);
    // To another place than the other node's it is told as well, and sums have it once.
    let mut agents = two();
    agents[1].hears_as(vec![report(Report::End)], 1000, false, false);
    agents[0].hears(vec![Record { seen_as: Some(addr("172.16.0.1:4000")), ..sent(1, 40000, 0) }], 1000);
    ask(&mut agents, 1000);
    agents[1].hears_as(Vec::new(), 1100, false, false);
    assert_eq!(seen(&agents[1].told), [(2, Report::End, Reporter::Destination, None)]);
    assert!(agents[1].counted.is_empty());
}

#[test]
fn what_a_node_itself_sends_is_told_from_its_beginning_on() {
    let mut agents = two();
    let report = |report| Record { report, ..front(2, 1) };
    agents[1].hears(vec![report(Report::Start)], 1000);
    ask(&mut agents, 1000);
    agents[1].hears(vec![report(Report::Update), report(Report::End)], 1100);
    let reports = agents[1].told.iter().map(|record| record.report).collect::<Vec<_>>();
    assert_eq!(reports, [Report::Start, Report::Update, Report::End]);
    assert_eq!(agents[1].counted.len(), 3);
}

#[test]
fn what_came_by_a_third_nodes_port_has_who_asked_and_what() {
    let mut agents = [Agent::new("node1"), Agent::new("node2"), Agent::new("node3")];
    let asked = addr("172.16.0.1:30080");
    let service = Asked { service: ServiceKey::new("shop", "web"), ip: asked.ip(), port: asked.port() };
    agents[0].origins = vec![(addr("172.16.0.1:4000"), addr("10.0.3.1:50000"), asked)];
    let mut own = sent(1, 50000, 0);
    (own.node, own.class, own.service) = ("node3".into(), Class::PodService, Some(service.clone()));
    own.source = end("10.0.3.1:50000", Some(pod("asker", "node3")));
    own.destination = End { node: Some("node1".into()), ..end("172.16.0.1:30080", None) };
    agents[1].hears(vec![front(2, 1)], 1000);
    agents[2].hears(vec![own], 1000);
    ask(&mut agents, 1000);
    agents[1].hears(Vec::new(), 1100);
    ask(&mut agents, 1100);
    agents.iter_mut().for_each(|agent| agent.hears(Vec::new(), 1200));
    assert_eq!(seen(&agents[2].told), [(1, Report::End, Reporter::Both, Some(4))]);
    let told = &agents[2].told[0];
    let name = |end: &End| end.pod.as_ref().map(|pod| pod.name.to_string());
    assert_eq!([&told.source, &told.destination].map(name), ["asker", "web"].map(|name| Some(name.to_owned())));
    assert_eq!((told.service.as_ref(), told.class), (Some(&service), Class::PodService));
    agents.iter_mut().for_each(|agent| agent.hears(Vec::new(), 100_000));
    assert!(agents[1].told.is_empty() && agents[1].counted.is_empty() && agents[0].told.is_empty());
    // From outside nobody else tells it.
    agents[0].origins = vec![(addr("172.16.0.1:4000"), addr("203.0.113.9:50000"), asked)];
    agents[1].hears(vec![front(3, 100_000)], 101_000);
    // It might be a pod that has no name here yet.
    for now in [101_000, 101_900] {
        ask(&mut agents, now);
        agents[1].hears(Vec::new(), now + 50);
        assert!(agents[1].told.is_empty());
    }
    ask(&mut agents, 102_000);
    agents[1].hears(Vec::new(), 102_100);
    let told = &agents[1].told[0];
    assert_eq!((told.source.at(), told.class), (addr("203.0.113.9:50000"), Class::WorldPod));
    assert_eq!((told.service.as_ref(), agents[1].counted.len()), (Some(&service), 1));
}

#[test]
fn who_began_a_flow_is_asked_however_much_else_is_and_no_place_stays_empty() {
    for (ends, expected) in [(3000, OF_A_ROUND / 2), (0, OF_A_ROUND)] {
        let [_, mut agent] = two();
        agent.hears((0..ends).map(|id| came(id, 40000, 0)).collect(), 1000);
        agent.hears((10_000..13_000).map(|id| front(id, 0)).collect(), 1000);
        let questions = agent.joint.questions(at(1000));
        let asked = &questions[&NodeName::from("node1")];
        let fronts = asked.iter().filter(|(_, question)| translated(question).is_some()).count();
        assert_eq!((fronts, asked.len()), (expected, OF_A_ROUND), "{ends}");
    }
}

#[test]
fn of_flows_from_one_port_each_has_its_own_counts() {
    let mut agents = two();
    agents[0].hears(vec![sent(1, 40000, 0), sent(3, 40000, 1000)], 2000);
    let second = Record { sent: crate::Way { packets: 9, ..crate::Way::default() }, ..came(4, 40000, 1001) };
    agents[1].hears(vec![second, came(2, 40000, 1)], 2000);
    ask(&mut agents, 2000);
    agents[0].hears(Vec::new(), 2100);
    let mut told = seen(&agents[0].told);
    told.sort_by_key(|told| told.0);
    let both = |id, packets| (id, Report::End, Reporter::Both, Some(packets));
    assert_eq!(told, [both(1, 4), both(3, 9)]);
}

#[test]
fn what_nobody_answers_was_dropped_where_the_other_node_counted_none_of_it() {
    let quiet = |id, port, start| {
        let mut record = sent(id, port, start);
        (record.protocol, record.received, record.handshake_micros) = (Transport::UDP, crate::Way::default(), None);
        record
    };
    let mut agents = two();
    let mut one_came = quiet(9, 40002, 0);
    (one_came.reporter, one_came.node, one_came.report) = (Reporter::Destination, "node2".into(), Report::Start);
    agents[1].hears(vec![one_came], 500);
    agents[0].hears(vec![quiet(1, 40001, 0), quiet(2, 40002, 0)], 1000);
    ask(&mut agents, 1000);
    agents[0].hears(Vec::new(), 1100);
    assert!(agents[0].told.is_empty(), "what came a moment ago may not be read yet");
    agents[0].hears(Vec::new(), 4150);
    let outcome = |agent: &Agent| {
        let told = agent.told.iter().map(|record| (record.id.0.as_u128(), record.verdict));
        told.collect::<Vec<_>>()
    };
    assert_eq!(outcome(&agents[0]), [(2, Verdict::Forwarded)]);
    ask(&mut agents, 4200);
    agents[0].hears(Vec::new(), 4300);
    assert_eq!(outcome(&agents[0])[1..], [(1, Verdict::Dropped)]);
    assert_eq!(seen(&agents[0].told)[1].3, Some(0), "node2 says where");
    // Where something is missing there it is not known.
    let Item::Gap(gap) = testing::gap(0).item else { panic!("no gap") };
    let gap = Item::Gap(crate::Gap { end: at(20_000), at: GapAt::Kernel, ..gap });
    assert_eq!(agents[1].joint.heard(vec![gap], (at(20_000), false)).len(), 1);
    agents[0].hears(vec![quiet(3, 40003, 19_000)], 30_000);
    ask(&mut agents, 30_000);
    agents[0].hears(Vec::new(), 30_100);
    agents[0].hears(Vec::new(), 33_100);
    assert_eq!(outcome(&agents[0])[2..], [(3, Verdict::Forwarded)]);
    // What came of an earlier flow from the same port, which is over, came of that one.
    let mut earlier = quiet(10, 40004, 30_000);
    (earlier.reporter, earlier.node) = (Reporter::Destination, "node2".into());
    agents[1].hears(vec![earlier], 31_000);
    agents[0].hears(vec![quiet(4, 40004, 40_000)], 50_000);
    ask(&mut agents, 50_000);
    agents[0].hears(Vec::new(), 50_100);
    assert_eq!(outcome(&agents[0])[3..], [(4, Verdict::Dropped)]);
}

#[test]
fn what_a_limit_of_the_other_nodes_pod_refused_or_lost_is_told_with_that_cause() {
    let mut agents = two();
    let mut beyond = Beyond::default();
    for (port, transport) in [(40001, Transport::TCP), (40002, Transport::UDP)] {
        let source = SocketAddr::new(addr("10.0.1.1:0").ip(), port);
        beyond.note(&Key { source, destination: addr("10.0.2.1:8080"), transport }, at(50));
    }
    agents[1].joint.limits(Arc::new(beyond), at(1000));
    let refused = |id, port| Record { verdict: Verdict::Refused, ..sent(id, port, 0) };
    let lost = Record { protocol: Transport::UDP, received: crate::Way::default(), ..sent(2, 40002, 0) };
    // Somebody else refused the third one.
    agents[0].hears(vec![refused(1, 40001), lost, refused(3, 40003)], 1000);
    assert!(agents[0].told.is_empty());
    ask(&mut agents, 1000);
    // Once it is asked, a flow waits for what the other node counted.
    agents[0].hears(Vec::new(), 1100);
    agents[0].hears(Vec::new(), 4200);
    ask(&mut agents, 5200);
    agents[0].hears(Vec::new(), 5300);
    agents[0].hears(Vec::new(), 8400);
    let mut told: Vec<_> =
        agents[0].told.iter().map(|record| (record.id.0.as_u128(), record.verdict, record.cause)).collect();
    told.sort_by_key(|told| told.0);
    let limit = Some(Cause::Limit);
    assert_eq!(told, [(1, Verdict::Refused, limit), (2, Verdict::Dropped, limit), (3, Verdict::Refused, None)]);
}

#[test]
fn what_a_limit_lost_is_known_when_it_is_asked_about_and_not_before_all_was_read() {
    let [_, mut destination] = two();
    let (source, to, protocol) = (addr("10.0.1.1:40000"), addr("10.0.2.1:8080"), Transport::UDP);
    let mut beyond = Beyond::default();
    beyond.note(&Key { source, destination: to, transport: protocol }, at(0));
    let sought = Sought { source, destination: to, protocol, pod: "web".into(), start: at(0), end: at(0) };
    let questions = vec![Question::Came(sought)];
    let inquiry = |now| Inquiry::new("node1".into(), at(now), questions.clone());
    let answer = |joint: &mut Joint, now| {
        joint.read(at(now));
        joint.answer(&inquiry(now), &[], |_| true, at(now))
    };
    destination.joint.limits(Arc::new(beyond), at(1000));
    // What was sent again may have come.
    assert_eq!(answer(&mut destination.joint, 3900), [Answer::Later]);
    assert_eq!(answer(&mut destination.joint, 4000), [Answer::Limited]);
    // The kernel has forgotten it, and datagrams are waited for during a minute.
    destination.joint.limits(Arc::default(), at(31_000));
    assert_eq!(answer(&mut destination.joint, 62_000), [Answer::Limited]);
    destination.joint.limits(Arc::default(), at(181_000));
    assert_eq!(answer(&mut destination.joint, 181_000), [Answer::Never]);
}

#[test]
fn it_is_not_said_that_nothing_came_before_all_was_read() {
    let [_, mut destination] = two();
    let (source, to) = (addr("10.0.1.1:40000"), addr("10.0.2.1:8080"));
    let (pod, start, end) = ("web".into(), at(1000), at(1100));
    let sought = Sought { source, destination: to, protocol: Transport::UDP, pod, start, end };
    let inquiry = Inquiry::new("node1".into(), at(60_000), vec![Question::Came(sought)]);
    let answer = |joint: &mut Joint| joint.answer(&inquiry, &[], |_| true, at(60_000));
    destination.joint.read(at(5000));
    assert_eq!(answer(&mut destination.joint), [Answer::Later]);
    destination.joint.read(at(5100));
    assert_eq!(answer(&mut destination.joint), [Answer::Never]);
}

#[test]
fn who_does_not_know_of_limits_is_not_told_of_any() {
    let [_, mut destination] = two();
    let (source, to) = (addr("10.0.1.1:40000"), addr("10.0.2.1:8080"));
    let mut beyond = Beyond::default();
    beyond.note(&Key { source, destination: to, transport: Transport::UDP }, at(10_050));
    destination.joint.limits(Arc::new(beyond), at(60_000));
    destination.joint.read(at(60_000));
    let (pod, start, end) = ("web".into(), at(10_000), at(10_100));
    let sought = Sought { source, destination: to, protocol: Transport::UDP, pod, start, end };
    let inquiry = Inquiry::new("node1".into(), at(60_000), vec![Question::Came(sought)]);
    for (limits, answer) in [(true, Answer::Limited), (false, Answer::Never)] {
        let inquiry = Inquiry { limits, ..inquiry.clone() };
        assert_eq!(destination.joint.answer(&inquiry, &[], |_| true, at(60_000)), [answer]);
    }
}

#[test]
fn clocks_that_differ_change_nothing() {
    let [mut source, _] = two();
    source.hears(vec![sent(1, 40000, 0)], 1000);
    let hour = SignedDuration::from_hours(1);
    let question = Question::Joins(Arc::new(Record { start: at(1) + hour, end: at(100) + hour, ..came(2, 40000, 1) }));
    let ask = |now| Inquiry::new("node2".into(), now, vec![question.clone()]);
    assert_eq!(source.joint.answer(&ask(at(1000)), &[], |_| true, at(1000)), [Answer::Later], "an hour later");
    assert_eq!(source.joint.answer(&ask(at(1000) + hour), &[], |_| true, at(1000)), [Answer::Taken]);
}

#[test]
fn who_ends_tells_all_that_waits() {
    let mut agents = two();
    let quiet = Record { received: crate::Way::default(), ..sent(3, 40001, 0) };
    agents[0].hears_as(vec![sent(1, 40000, 0), quiet], 1000, true, true);
    agents[1].hears_as(vec![came(2, 40000, 1), front(4, 0)], 1000, true, true);
    assert_eq!(agents.each_ref().map(|agent| agent.told.len()), [2, 2]);
}
