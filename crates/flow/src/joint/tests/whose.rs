//! Whose a flow is where the answer comes late or not at all, and whom it is believed.

use super::*;
use crate::joint::others::{KNOWN, Standing};

#[test]
fn a_clock_that_is_set_back_has_nothing_wait_for_longer() {
    let mut agents = two();
    let quiet = Record { received: crate::Way::default(), ..sent(2, 40001, 99_000) };
    agents[0].hears(vec![sent(1, 40000, 99_000), quiet], 100_000);
    agents[1].hears(vec![came(3, 40000, 99_000), front(4, 99_000)], 100_000);
    assert!(agents.iter().all(|agent| agent.told.is_empty()));
    // One of each waits twice: for what came or who began it, and then for who tells it.
    for (now, expected) in [(50_000, [vec![1], vec![3]]), (10_000, [vec![1, 2], vec![3, 4]])] {
        agents.iter_mut().for_each(|agent| agent.hears(Vec::new(), now));
        let told = |agent: &Agent| agent.told.iter().map(|record| record.id.0.as_u128()).collect::<Vec<_>>();
        assert_eq!(agents.each_ref().map(told), expected, "{now}");
    }
}

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
    agents[1].hears(Vec::new(), 1100);
    assert!(agents[1].told.is_empty());
    agents[1].hears(Vec::new(), 16_100);
    assert_eq!((agents[1].told.len(), agents[1].counted.len()), (1, 1));
}

#[test]
fn what_an_agent_told_before_it_was_renewed_the_other_one_tells_as_a_part() {
    // By whether it was known from its beginning; conntrack may have forgotten what it translated by then.
    for (protocol, knows_beginning, is_forgotten) in
        [(Transport::TCP, false, false), (Transport::TCP, true, false), (Transport::UDP, true, true)]
    {
        for goes_away in [false, true] {
            let mut agents = two();
            let report = |report| Record { report, protocol, ..front(2, 1) };
            agents[0].origins = vec![(addr("172.16.0.1:4000"), addr("10.0.1.1:40000"), addr("10.96.0.1:80"))];
            if knows_beginning {
                agents[1].hears(vec![report(Report::Start)], 500);
                ask(&mut agents, 500);
                agents[1].hears(Vec::new(), 600);
            }
            let own = Record { protocol, seen_as: Some(addr("172.16.0.1:4000")), ..sent(1, 40000, 0) };
            agents[0].hears_as(vec![own], 1000, true, true);
            assert_eq!(seen(&agents[0].told), [(1, Report::End, Reporter::Source, None)]);
            let origins = if is_forgotten { Vec::new() } else { std::mem::take(&mut agents[0].origins) };
            agents[0] = Agent { origins, ..Agent::new("node1") };
            agents[1].hears(vec![report(Report::End)], 2000);
            for now in [2100, 3200, 4300] {
                ask(&mut agents, now);
                agents[1].hears(Vec::new(), now + 50);
            }
            if goes_away {
                // Whether it is lost or will tell it nobody knows.
                let asked = agents[1].joint.questions(at(6000)).remove(&NodeName::from("node1")).unwrap();
                let numbers: Vec<u64> = asked.into_iter().map(|(number, _)| number).collect();
                let away = Err(Unanswered::Away);
                agents[1].joint.answered(&"node1".into(), &numbers, away, (&names(), at(6000)));
            }
            assert!(agents[1].told.is_empty() && agents[1].counted.is_empty());
            agents[1].hears(Vec::new(), 18_000);
            let expected = if goes_away { Report::End } else { Report::Part };
            assert_eq!(seen(&agents[1].told), [(2, expected, Reporter::Destination, None)], "{protocol}");
            assert_eq!(agents[1].counted.len(), usize::from(goes_away), "{protocol}");
        }
    }
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
        source.joint.answer(&Inquiry::new(node.into(), at(1000), questions), &[], |_| true, at(1000))
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

/// Nobody said who began it, and now it waits for whose it is.
fn begun_while_the_other_node_is_away() -> [Agent; 2] {
    let mut agents = two();
    agents[1].hears(vec![Record { report: Report::Start, ..front(2, 1) }], 1000);
    agents[1].hears(Vec::new(), 4000);
    assert!(agents[1].told.is_empty());
    agents
}

#[test]
fn what_ends_while_the_other_node_is_away_is_told_by_that_one_alone() {
    let own = || Record { seen_as: Some(addr("172.16.0.1:4000")), ..sent(1, 40000, 0) };
    for reports in [vec![Report::End], vec![Report::Update, Report::End]] {
        let mut agents = begun_while_the_other_node_is_away();
        let records = reports.into_iter().map(|report| Record { report, ..front(2, 1) });
        agents[1].hears(records.collect(), 5000);
        agents[1].hears(Vec::new(), 7000);
        agents[0].hears(vec![own()], 7000);
        for now in [7500, 7700] {
            ask(&mut agents, now);
            agents.iter_mut().for_each(|agent| agent.hears(Vec::new(), now + 100));
        }
        assert_eq!(seen(&agents[0].told), [(1, Report::End, Reporter::Both, Some(4))]);
        assert!(agents[1].told.is_empty() && agents[1].counted.is_empty(), "{:?}", agents[1].told);
    }
    // What was told here by then is told here to its end.
    let mut agents = begun_while_the_other_node_is_away();
    agents[1].hears(vec![Record { report: Report::Update, ..front(2, 1) }], 5000);
    agents[1].hears(Vec::new(), 7000);
    agents[0].hears(vec![own()], 7000);
    ask(&mut agents, 7500);
    agents[1].hears(vec![front(2, 1)], 7600);
    let reports = agents[1].told.iter().map(|record| record.report).collect::<Vec<_>>();
    assert_eq!(reports, [Report::Start, Report::Update, Report::End]);
    assert_eq!(agents[1].counted.len(), 3);
}

#[test]
fn what_begins_while_an_agent_that_answered_before_is_away_waits_for_it() {
    let report = |report| Record { report, ..front(2, 1) };
    let waits = |is_known: bool| {
        let mut agents = two();
        if is_known {
            agents[1].joint.answered(&"node1".into(), &[], Ok(&[]), (&names(), at(0)));
        }
        // It is asked who began it, and then who tells it.
        agents[1].hears(vec![report(Report::Start)], 1000);
        agents[1].hears(Vec::new(), 4000);
        agents[1].hears(vec![report(Report::Update)], 5000);
        agents[1].hears(Vec::new(), 8000);
        agents[1].hears(Vec::new(), 18_900);
        agents
    };
    let reports = |agent: &Agent| agent.told.iter().map(|record| record.report).collect::<Vec<_>>();
    assert_eq!(reports(&waits(false)[1]), [Report::Start, Report::Update]);
    // It is back, and tells it alone.
    let mut agents = waits(true);
    assert!(agents[1].told.is_empty() && agents[1].counted.is_empty());
    agents[0].origins = vec![(addr("172.16.0.1:4000"), addr("10.0.1.1:40000"), addr("10.96.0.1:80"))];
    ask(&mut agents, 18_950);
    agents[1].hears(vec![report(Report::End)], 61_000);
    ask(&mut agents, 61_000);
    is_told_by_the_source(&mut agents, Record { seen_as: Some(addr("172.16.0.1:4000")), ..sent(1, 40000, 0) });
    // It stays away: all is told here, also what has not waited as long.
    let mut agents = waits(true);
    agents[1].hears(Vec::new(), 19_000);
    assert_eq!(reports(&agents[1]), [Report::Start, Report::Update]);
    agents[1].hears(vec![front(2, 1)], 20_000);
    assert_eq!(reports(&agents[1]), [Report::Start, Report::Update, Report::End]);
    assert_eq!(agents[1].counted.len(), 3);
}

#[test]
fn where_no_more_can_be_remembered_it_is_looked_once_a_minute_what_is_too_old() {
    let mut others = Others::new("node2".into());
    let id = |number: usize| FlowId(uuid::Uuid::from_u128(number as u128));
    (0..KNOWN).for_each(|number| others.remember(id(number), Standing::Own, at(0)));
    let is_remembered = |second: i64| {
        others.remember(id(KNOWN), Standing::Own, at(second * 1000));
        others.standing(&id(KNOWN)).is_some()
    };
    // All is too old from 7800 s on.
    assert_eq!([7770, 7815, 7830].map(is_remembered), [false, false, true]);
}
