//! Whose a flow is where the answer comes late or not at all, and whom it is believed.

use super::*;

#[test]
fn what_was_masqueraded_and_is_forgotten_by_then_is_waited_for() {
    let datagrams = |report| Record { report, protocol: Transport::UDP, ..front(2, 1) };
    // An earlier agent may have heard of its beginning.
    for knows_beginning in [true, false] {
        let mut agents = two();
        if knows_beginning {
            agents[0].origins = vec![(addr("172.16.0.1:4000"), addr("10.0.1.1:40000"), addr("10.96.0.1:80"))];
            agents[1].hears(vec![datagrams(Report::Start)], 1000);
            ask(&mut agents, 1000);
            agents[0].origins.clear();
        } else {
            agents[1].hears(vec![datagrams(Report::Update)], 40_000);
            ask(&mut agents, 40_000);
        }
        agents[1].hears(vec![datagrams(Report::End)], 61_000);
        ask(&mut agents, 61_000);
        agents[1].hears(Vec::new(), 61_100);
        assert!(agents[1].told.is_empty());
        let mut own = sent(1, 40000, 0);
        (own.protocol, own.seen_as) = (Transport::UDP, Some(addr("172.16.0.1:4000")));
        is_told_by_the_source(&mut agents, own);
    }
    // Where nothing comes of it, it is told all the same.
    let mut agents = two();
    agents[1].hears(vec![datagrams(Report::End)], 1000);
    ask(&mut agents, 1000);
    agents[1].hears(Vec::new(), 16_000);
    assert_eq!((agents[1].told.len(), agents[1].counted.len()), (1, 1));
}

#[test]
fn of_what_is_over_before_its_beginning_is_answered_the_end_is_told_alone() {
    let mut agents = two();
    let report = |report| Record { report, ..front(2, 1) };
    agents[1].hears(vec![report(Report::Start), report(Report::Update)], 1000);
    agents[1].hears(vec![report(Report::End)], 1100);
    ask(&mut agents, 1200);
    agents[1].hears(Vec::new(), 10_000);
    assert_eq!(seen(&agents[1].told), [(2, Report::End, Reporter::Destination, None)]);
    assert_eq!(agents[1].counted, agents[1].told);
}

#[test]
fn what_began_while_the_other_node_could_not_be_asked_ends_here_as_well() {
    let [_, mut agent] = two();
    agent.joint.answered(&"node1".into(), &[], Err(Unanswered::Unable), (&names(), at(0)));
    agent.hears(vec![Record { report: Report::Start, ..front(2, 1) }], 1000);
    agent.hears(vec![front(2, 1)], 70_000);
    assert_eq!(agent.told.iter().map(|record| record.report).collect::<Vec<_>>(), [Report::Start, Report::End]);
    assert!(agent.joint.questions(at(70_000)).is_empty());
}

#[test]
fn another_nodes_agent_only_adds_what_it_counted_itself() {
    let foreign = |node: &str| Record { node: node.into(), ..came(2, 40000, 1) };
    // In another's name; of a flow that is not its; and what is not so of one that is.
    let [mut source, _] = two();
    source.hears(vec![sent(1, 40000, 0)], 1000);
    let answer = |source: &mut Agent, node: &str, record: Record| {
        let questions = vec![Question::Joins(Arc::new(record))];
        source.joint.answer(&Inquiry { node: node.into(), now: at(1000), questions }, &[], |_| true, at(1000))
    };
    assert_eq!(answer(&mut source, "node3", foreign("node2")), [Answer::Unknown]);
    assert_eq!(answer(&mut source, "node3", foreign("node3")), [Answer::Later]);
    let asked = addr("10.0.2.1:8080");
    let service = Asked { service: ServiceKey::new("shop", "other"), ip: asked.ip(), port: asked.port() };
    let mut record = foreign("node2");
    (record.service, record.destination) = (Some(service), end("10.0.2.1:8080", Some(pod("other", "node2"))));
    assert_eq!(answer(&mut source, "node2", record), [Answer::Taken]);
    source.hears(Vec::new(), 1100);
    let (told, own) = (&source.told[0], sent(1, 40000, 0));
    assert_eq!((&told.destination, &told.service, told.class), (&own.destination, &own.service, own.class));
    assert_eq!(seen(&source.told), [(1, Report::End, Reporter::Both, Some(4))]);
}
