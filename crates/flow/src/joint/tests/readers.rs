//! What whoever reads a node's records is told of flows that seem to come from another node itself.

use super::*;

fn read(agent: &mut Agent, records: Vec<Record>, now: i64) -> Vec<Arc<Record>> {
    let items = records.into_iter().map(|record| Item::Flow(Arc::new(record))).collect();
    let heard = agent.joint.heard(items, (at(now), false));
    heard.into_iter().filter_map(|item| if let Item::Flow(record) = item { Some(record) } else { None }).collect()
}

#[test]
fn who_asked_by_another_nodes_port_is_read_from_the_beginning_on() {
    let asked = addr("172.16.0.1:30080");
    let service = Asked { service: ServiceKey::new("shop", "web"), ip: asked.ip(), port: asked.port() };
    for (source, class, name) in
        [("10.0.3.1:50000", Class::PodService, Some("asker")), ("203.0.113.9:50000", Class::WorldPod, None)]
    {
        let mut agents = two();
        agents[0].origins = vec![(addr("172.16.0.1:4000"), addr(source), asked)];
        let report = |report| Record { report, ..front(2, 1) };
        assert!(read(&mut agents[1], vec![report(Report::Start)], 1000).is_empty());
        // Whoever has no name here by now is outside.
        ask(&mut agents, 2100);
        let mut told = read(&mut agents[1], Vec::new(), 2200);
        told.extend(read(&mut agents[1], vec![report(Report::Update), report(Report::End)], 3000));
        let reports: Vec<Report> = told.iter().map(|record| record.report).collect();
        assert_eq!(reports, [Report::Start, Report::Update, Report::End], "{source}");
        for record in told {
            assert_eq!((record.source.at(), record.class), (addr(source), class));
            assert_eq!(record.source.pod.as_ref().map(|pod| &*pod.name), name);
            assert_eq!((record.service.as_ref(), record.reporter), (Some(&service), Reporter::Destination));
        }
        assert!(agents[1].joint.questions(at(3000)).is_empty(), "nobody is asked again");
    }
}

#[test]
fn somebody_without_a_name_is_waited_for_and_told_without_it() {
    let mut agents = two();
    let outside = addr("203.0.113.9:50000");
    agents[0].origins = vec![(addr("172.16.0.1:4000"), outside, addr("172.16.0.1:30080"))];
    assert!(read(&mut agents[1], vec![front(2, 900)], 1000).is_empty());
    ask(&mut agents, 1000);
    assert!(read(&mut agents[1], Vec::new(), 3900).is_empty());
    // The other node is not there any more to be asked again.
    let told = read(&mut agents[1], Vec::new(), 4000);
    let told: Vec<(SocketAddr, Class)> = told.iter().map(|record| (record.source.at(), record.class)).collect();
    assert_eq!(told, [(outside, Class::WorldPod)]);
}

#[test]
fn what_nobody_else_began_is_read_as_it_is_and_waits_for_a_moment_only() {
    let mut agents = two();
    let as_it_is = |id, start| [Arc::new(front(id, start))];
    // That node itself did.
    assert!(read(&mut agents[1], vec![front(2, 0)], 1000).is_empty());
    ask(&mut agents, 1000);
    assert_eq!(read(&mut agents[1], Vec::new(), 1100), as_it_is(2, 0));
    // It does not answer.
    assert!(read(&mut agents[1], vec![front(3, 1000)], 2000).is_empty());
    assert!(read(&mut agents[1], Vec::new(), 4900).is_empty());
    assert_eq!(read(&mut agents[1], Vec::new(), 5000), as_it_is(3, 1000));
    // One of its pods did, which it tells itself.
    agents[0].origins = vec![(addr("172.16.0.1:4000"), addr("10.0.1.1:40000"), addr("10.96.0.1:80"))];
    assert!(read(&mut agents[1], vec![front(4, 5000)], 6000).is_empty());
    ask(&mut agents, 6000);
    assert_eq!(read(&mut agents[1], Vec::new(), 6100), as_it_is(4, 5000));
    // It cannot answer.
    agents[1].joint.answered(&"node1".into(), &[], Err(Unanswered::Unable), (&names(), at(7000)));
    assert_eq!(read(&mut agents[1], vec![front(5, 7000)], 7100), as_it_is(5, 7000));
}

#[test]
fn as_the_beginning_of_what_somebody_without_a_name_began_is_told_so_is_its_end() {
    let outside = addr("203.0.113.9:50000");
    let unknown: &[Answer] = &[Answer::Unknown];
    let report = |report| Record { report, ..front(2, 900) };
    // Asked again the other node is silent, does not know it any more, or cannot answer.
    for says in [None, Some(Ok(unknown)), Some(Err(Unanswered::Unable))] {
        let mut agents = two();
        agents[0].origins = vec![(addr("172.16.0.1:4000"), outside, addr("172.16.0.1:30080"))];
        assert!(read(&mut agents[1], vec![report(Report::Start)], 1000).is_empty());
        ask(&mut agents, 1000);
        let asked = agents[1].joint.questions(at(2900)).into_values().flatten();
        let numbers: Vec<u64> = asked.map(|(number, _)| number).collect();
        assert_eq!(numbers.len(), 1);
        if let Some(says) = says {
            agents[1].joint.answered(&"node1".into(), &numbers, says, (&names(), at(2900)));
        }
        let mut told = read(&mut agents[1], Vec::new(), 4000);
        told.extend(read(&mut agents[1], vec![report(Report::End)], 5000));
        let found: Vec<_> = told.iter().map(|record| (record.report, record.source.at(), record.class)).collect();
        assert_eq!(found, [Report::Start, Report::End].map(|report| (report, outside, Class::WorldPod)), "{says:?}");
    }
}

#[test]
fn nothing_waits_for_a_clock_that_was_set_back() {
    let [_, mut agent] = two();
    assert!(read(&mut agent, vec![front(2, 0)], 1000).is_empty());
    assert!(read(&mut agent, Vec::new(), 500).is_empty(), "by a little");
    assert_eq!(read(&mut agent, Vec::new(), -3_600_000).len(), 1, "by an hour");
}
