//! What the log has of flows that another node counts as well.

use std::net::{TcpListener, TcpStream};

use k8s_openapi::jiff::SignedDuration;
use podnet_flow::{
    Joint,
    joint::question::{Answer, Question, Unanswered},
    store::Retention,
};
use tokio::sync::mpsc::channel;

use super::*;
use crate::flows::neighbours::Answered;

/// node2, with a pod at 192.0.2.9.
fn tell_other(known: &Known, recorded_to: Option<&str>) {
    let mut node = Node::new("node2".into(), NodeAddr("192.0.2.2".parse().unwrap()));
    node.recorded_to = recorded_to.map(Into::into);
    known.learn(&Change::Node("node2".into(), Some(node)));
    let pod = serde_json::from_value(json!({
        "metadata": {"name": "api-1", "namespace": "shop", "uid": "api-1"},
        "spec": {"nodeName": "node2", "containers": []},
        "status": {"podIPs": [{"ip": "192.0.2.9"}]},
    }));
    known.event(kube::runtime::watcher::Event::Apply(pod.unwrap()), &mut Vec::new());
}

/// A connection to the pod that is over. Its port.
fn ask(lab: &Lab) -> u16 {
    let inside = lab.pod.run(|| TcpListener::bind("192.0.2.7:8080").unwrap()).unwrap();
    let asking = lab.node.run(|| TcpStream::connect("192.0.2.7:8080").unwrap()).unwrap();
    let (answering, from) = inside.accept().unwrap();
    drop((answering, asking));
    from.port()
}

#[test]
fn a_flow_that_the_sources_node_tells_is_in_the_log_as_a_part_and_as_a_whole_where_that_node_is_lost() {
    let lab = Lab::new();
    let addressed = ["addr add 192.0.2.9/32 dev pn0", "route add 192.0.2.7/32 dev pn0 src 192.0.2.9"];
    lab.node.run(|| addressed.into_iter().for_each(ip)).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let settings = FlowLog { path: directory.path().join("flows.jsonl"), bytes: 1 << 20, between_pods: false };
    let device = LinkName::from("pn0");
    let flows = lab.node.run(|| {
        let socket = &mut RtSocket::open().unwrap();
        let flows = Flows::open(socket, &[], None, Sizes { entries: 100, ring: 1 << 16 }).unwrap();
        assert!(flows.attach(socket, &device).unwrap());
        Arc::new(flows)
    });
    let (flows, known) = (flows.unwrap(), known());
    tell_other(&known, Some("log"));
    let mut recorder = Recorder::new(flows.clone(), sinks(&settings), "node1".into(), (known.clone(), ()));
    let ask = || ask(&lab);
    // Reads until it is over.
    let read = |recorder: &mut Recorder, port: u16| {
        let deadline = Instant::now() + Duration::from_secs(20);
        while flows.entries().unwrap().iter().any(|entry| entry.key.remote_port == port) {
            assert!(Instant::now() < deadline, "it does not end");
            recorder.round(true, false);
            thread::yield_now();
        }
    };
    let told = |port| {
        records(&settings, port).iter().map(|record| (record.report, record.reporter, record.class)).collect::<Vec<_>>()
    };
    let as_told = |report| (report, Reporter::Destination, Class::PodPodOtherNode);
    let first = ask();
    read(&mut recorder, first);
    assert!(told(first).is_empty(), "the other node tells it");
    tell_other(&known, None);
    recorder.round(true, false);
    assert_eq!(told(first), [as_told(Report::End)], "it may not have told it");
    tell_other(&known, Some("log,00000000"));
    let second = ask();
    read(&mut recorder, second);
    assert!(told(second).is_empty());
    recorder.round(true, true);
    assert_eq!(told(second), [as_told(Report::Part)]);
    assert_eq!(told(first).len(), 1);
}

#[test]
fn what_the_sources_agent_takes_in_is_told_by_nobody_else_and_what_it_cannot_as_if_it_were_not_asked() {
    let lab = Lab::new();
    let addressed = ["addr add 192.0.2.9/32 dev pn0", "route add 192.0.2.7/32 dev pn0 src 192.0.2.9"];
    lab.node.run(|| addressed.into_iter().for_each(ip)).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let settings = FlowLog { path: directory.path().join("flows.jsonl"), bytes: 1 << 20, between_pods: false };
    let (flows, known) = (counting(&lab), known());
    tell_other(&known, Some("log"));
    let past = Past::new(Retention { time: SignedDuration::from_mins(1), bytes: 1 << 20 }, None);
    *past.joint() = Some(Joint::new("node1".into(), Timestamp::now()));
    let sinks = Sinks { past: Some(past), ..sinks(&settings) };
    let ((questions, mut asked), (told, answers)) = (channel(8), channel(8));
    let recorder = Recorder::new(flows, sinks, "node1".into(), (known, ()));
    let mut recorder = recorder.asking(Some(Neighbours::by(questions, answers)));
    // Asks the pod, and answers what is asked of the other node then.
    let mut answer = |recorder: &mut Recorder, answer: Result<Vec<Answer>, Unanswered>| {
        let (port, deadline) = (ask(&lab), Instant::now() + Duration::from_secs(20));
        let (from, questions) = loop {
            recorder.round(true, false);
            if let Ok(batch) = asked.try_recv() {
                break batch.into_parts();
            }
            assert!(Instant::now() < deadline, "the other node is not asked");
            thread::yield_now();
        };
        let [(number, Question::Joins(record))] = &questions[..] else { panic!("{questions:?}") };
        assert_eq!((from.as_str(), record.report, record.source.port), ("node2", Report::End, port));
        let answered = Answered { from, numbers: vec![*number], answers: answer };
        assert!(told.try_send(answered).is_ok());
        recorder.round(true, false);
        port
    };
    let first = answer(&mut recorder, Ok(vec![Answer::Taken]));
    let second = answer(&mut recorder, Err(Unanswered::Unable));
    recorder.round(true, true);
    let reports = |port| records(&settings, port).iter().map(|record| record.report).collect::<Vec<_>>();
    assert_eq!((reports(first), reports(second)), (Vec::new(), vec![Report::Part]));
}
