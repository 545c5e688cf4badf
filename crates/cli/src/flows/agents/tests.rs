//! What is said of agents, and what they are asked.

use std::{
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use clap::Parser;
use http::{Request, Response};
use kube::{Client, client::Body};
use podnet_flow::{Item, RecordId};
use serde_json::json;
use tokio::sync::mpsc;

use super::{Agent, Course, Heard, nodes};
use crate::arguments::{Arguments, Command};

/// An API server that answers with these, one after the other, and a list where that is 200.
fn api_server(answers: &'static [u16]) -> Client {
    let asked = Arc::new(AtomicUsize::new(0));
    let service = tower::service_fn(move |_: Request<Body>| {
        let code = answers[asked.fetch_add(1, Ordering::SeqCst)];
        let body = match code {
            200 => json!({"metadata": {}, "items": [{"metadata": {"name": "node1"}}]}),
            _ => json!({"status": "Failure", "message": "no", "code": code}),
        };
        let response = Response::builder().status(code).body(Body::from(body.to_string().into_bytes())).unwrap();
        async { Ok::<_, Infallible>(response) }
    });
    Client::new(service, "default")
}

#[tokio::test]
async fn who_may_not_list_nodes_is_told_apart_from_an_api_server_that_fails_which_a_follower_asks_again() {
    assert!(nodes(api_server(&[403]), true).await.unwrap().is_none());
    assert!(nodes(api_server(&[500]), false).await.is_err());
    let found = nodes(api_server(&[500, 200]), true).await.unwrap().unwrap();
    assert_eq!(found.items.len(), 1);
}

#[tokio::test]
async fn what_is_said_ahead_and_what_a_newer_agent_tells_is_gone_on_behind() {
    let lines = [
        json!({"record": "node1/1000000/0", "type": "begun"}),
        json!({"record": "node1/1/7", "type": "omen", "of": "rain"}),
        json!({
            "record": "node1/1/8", "type": "gap", "start": "1970-01-01T00:00:00Z", "end": "1970-01-01T00:00:00Z",
            "node": "node1", "at": "kernel", "packets": 1, "bytes": 0, "flows": 0,
        }),
    ]
    .map(|line| format!("{line}\n"))
    .concat();
    let service = tower::service_fn(move |_: Request<Body>| {
        let response = Response::new(Body::from(lines.clone().into_bytes()));
        async { Ok::<_, Infallible>(response) }
    });
    let (client, lines) = (Client::new(service, "default"), Arc::default());
    let agent = Agent { name: "node1".to_owned(), client, last: None, lines };
    let (to, mut heard) = mpsc::channel(3);
    let mut course = Course::default();
    agent.once("/flows", &mut course, &to).await.unwrap();
    let began = heard.recv().await;
    assert!(matches!(began, Some(Heard::Begun { at: Some(at), .. }) if at.as_second() == 1));
    assert!(matches!(heard.recv().await, Some(Heard::Unread { agent, .. }) if agent == "node1"));
    assert!(matches!(heard.recv().await, Some(Heard::Item(Item::Gap(_)))));
    assert_eq!(course.last, Some("node1/1/8".parse::<RecordId>().unwrap()));
}

#[tokio::test]
async fn of_an_agent_that_began_anew_it_is_said_whether_it_goes_on_and_whether_all_was_heard_before() {
    let begun = json!({"record": "node1/2/0", "type": "begun"}).to_string() + "\n";
    let item = |epoch: u64, sequence: u64| {
        let gap = json!({
            "record": format!("node1/{epoch}/{sequence}"), "type": "gap", "start": "1970-01-01T00:00:00Z",
            "end": "1970-01-01T00:00:00Z", "node": "node1", "at": "agent", "packets": 0, "bytes": 0, "flows": 0,
        });
        format!("{gap}\n")
    };
    // What comes at each connection, and whether that ends as it should.
    type Streams = Vec<(String, bool)>;
    let rows: [(Streams, &[&str]); 7] = [
        (vec![(item(1, 8), true), (item(2, 0) + &item(2, 1), true)], &["item", "anew", "item", "item"]),
        (vec![(item(1, 8), false), (item(2, 0), true)], &["item", "anew, in part", "item"]),
        // Before the first one there was a connection that is not known here to have ended well.
        (vec![(item(2, 0), true), (item(3, 0), true)], &["anew, in part", "item", "anew", "item"]),
        // A connection to the next one that told nothing changes nothing, be it broken off or not.
        (
            vec![(item(1, 8), true), (String::new(), false), (String::new(), true), (item(2, 0), false)],
            &["item", "anew", "item"],
        ),
        (vec![(item(1, 8), false), (String::new(), true), (item(2, 0), true)], &["item", "anew, in part", "item"]),
        (vec![(item(1, 8), true), (begun.clone() + &item(2, 0), true)], &["item", "begun", "item"]),
        (
            vec![(begun.clone(), false), (begun + &item(2, 0), false), (item(2, 1) + &item(3, 0), true)],
            &["begun", "item", "item", "anew, in part", "item"],
        ),
    ];
    for (streams, said) in rows {
        let connections = streams.len();
        let mut streams = streams.into_iter();
        let service = tower::service_fn(move |_: Request<Body>| {
            let (text, is_whole) = streams.next().unwrap();
            // What is no text ends in an error, as a connection does that is broken off.
            let end: &[u8] = if is_whole { b"" } else { b"\xff\n" };
            let response = Response::new(Body::from([text.as_bytes(), end].concat()));
            async { Ok::<_, Infallible>(response) }
        });
        let (client, lines) = (Client::new(service, "default"), Arc::default());
        let agent = Agent { name: "node1".to_owned(), client, last: None, lines };
        let (to, mut heard) = mpsc::channel(8);
        let last = Some("node1/1/7".parse::<RecordId>().unwrap());
        let mut course = Course { last, ..Course::default() };
        for _ in 0..connections {
            let _ = agent.once("/flows?a", &mut course, &to).await;
        }
        drop(to);
        let mut all = Vec::new();
        while let Some(heard) = heard.recv().await {
            all.push(match heard {
                Heard::Anew { heard_all: true, .. } => "anew",
                Heard::Anew { heard_all: false, .. } => "anew, in part",
                Heard::Begun { .. } => "begun",
                Heard::Item(_) => "item",
                Heard::Lost { .. } | Heard::Back { .. } | Heard::Unread { .. } => "else",
            });
        }
        assert_eq!(all, said);
    }
}

#[test]
fn an_agent_is_asked_for_what_is_wanted() {
    let line = "podnet flows --follow --since 5m --pod-to-pod --from label/app=web \
                --to workload/shop/Deployment/cart --port 80 --protocol tcp --class pod-service --class pod-world \
                --not protocol=udp --verdict dropped --cause no-route --not cause=hop-limit";
    let Command::Flows(options) = Arguments::parse_from(line.split_whitespace()).command else { panic!("not flows") };
    assert_eq!(
        super::path(&options, true),
        "/flows?since=300&follow=true&ends=true&pod-to-pod=true&is=from%3Dlabel%2Fapp%3Dweb\
         &is=to%3Dworkload%2Fshop%2FDeployment%2Fcart&is=port%3D80&is=protocol%3DTCP&is=class%3Dpod-service&is=class%3Dpod-world&not=protocol%3DUDP"
    );
    let outcome = options.outcome();
    assert_eq!(
        outcome.wanted.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["verdict=dropped", "cause=no-route"]
    );
    assert_eq!(outcome.unwanted.iter().map(ToString::to_string).collect::<Vec<_>>(), ["cause=hop-limit"]);
    let line = "podnet flows --last 3 --follow";
    let Command::Flows(options) = Arguments::parse_from(line.split_whitespace()).command else { panic!("not flows") };
    assert_eq!(
        [false, true].map(|follow| super::path(&options, follow)),
        ["/flows?ends=true", "/flows?follow=true&ends=true"]
    );
}

#[tokio::test]
async fn who_has_heard_the_last_ones_follows_behind_them() {
    let line = json!({
        "record": "node1/1/8", "type": "gap", "start": "1970-01-01T00:00:00Z", "end": "1970-01-01T00:00:00Z",
        "node": "node1", "at": "kernel", "packets": 1, "bytes": 0, "flows": 0,
    })
    .to_string();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let paths = Arc::clone(&asked);
    let service = tower::service_fn(move |request: Request<Body>| {
        paths.lock().unwrap().push(request.uri().to_string());
        let response = Response::new(Body::from(format!("{line}\n").into_bytes()));
        async { Ok::<_, Infallible>(response) }
    });
    let client = Client::new(service, "default");
    let mut agent = Agent { name: "node1".to_owned(), client, last: None, lines: Arc::default() };
    let (to, _heard) = mpsc::channel(2);
    for path in ["/flows?a", "/flows?b"] {
        agent = agent.listen(path.to_owned(), false, to.clone()).await;
    }
    assert_eq!(*asked.lock().unwrap(), ["/flows?a", "/flows?b&after=node1%2F1%2F8"]);
}
