//! Processes that take each other's place (`--handover`).

use super::*;

fn text(port: u16, version: u32, more: &str) -> String {
    format!(
        ".:{port} {{\n prometheus 127.0.0.1:{}\n hosts /nowhere {{\n  10.0.0.7 a.example.com\n  10.0.1.{version} \
         version.example.com\n  fallthrough\n }}\n {more}\n}}\n",
        port + 1
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn no_query_is_lost_while_a_process_takes_the_place_of_another_one_ten_times() {
    let directory = Directory::new("following");
    let port = free_port().await;
    let path = directory.0.join("handover.sock");
    let corefile = |version: u32| directory.write(&format!("Corefile{version}"), &text(port, version, ""));
    let start = |version| Process::following(&corefile(version), None, Some(path.clone()));
    let mut process = start(0);
    dig_until(port, "version.example.com A +short", "10.0.1.0").await;
    let load = Load::start(port, &directory, &["-l", "6", "-Q", "3000", "-q", "50", "-c", "20"]);
    let restarts = async {
        for version in 1..=10 {
            let next = start(version);
            // The old one ends by itself, and nobody told it to.
            let old = std::mem::replace(&mut process, next);
            tokio::time::timeout(DEADLINE, old.task).await.expect("the old one goes on").unwrap().unwrap();
            let answer = dig(port, "version.example.com A +short").await;
            assert_eq!(answer, format!("10.0.1.{version}\n"));
            assert!(dig(port, "version.example.com A +short +tcp").await.contains(&format!("10.0.1.{version}\n")));
            assert!(fetch(port + 1, "/metrics").await.contains("coredns_build_info"));
        }
    };
    tokio::join!(load.finish(), restarts);
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_asked_before_is_answered_by_the_process_that_was_asked() {
    let directory = Directory::new("followed");
    let (port, upstream) = (free_port().await, upstream().await);
    let path = directory.0.join("handover.sock");
    let forward = format!("forward . {upstream} {{\n max_fails 0\n  prefer_udp\n }}");
    let start = |version| {
        let corefile = directory.write(&format!("Corefile{version}"), &text(port, version, &forward));
        Process::following(&corefile, None, Some(path.clone()))
    };
    let old = start(0);
    dig_until(port, "version.example.com A +short", "10.0.1.0").await;
    // A silent upstream: the answer takes seconds, and dig's own patience has to be longer.
    let over_udp = tokio::spawn(async move { dig(port, "silent.example.com A +time=20").await });
    let over_tcp = tokio::spawn(async move { dig(port, "silent.example.com A +time=20 +tcp").await });
    let begun = Instant::now();
    while !fetch(port + 1, "/metrics").await.contains("podnet_dns_flights 1") {
        assert!(begun.elapsed() < DEADLINE, "nobody is asked");
    }
    let new = start(1);
    dig_until(port, "version.example.com A +short", "10.0.1.1").await;
    for answer in [over_udp.await.unwrap(), over_tcp.await.unwrap()] {
        assert!(answer.contains("status: SERVFAIL"), "{answer}");
    }
    tokio::time::timeout(DEADLINE, old.task).await.expect("the old one goes on").unwrap().unwrap();
    new.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_cannot_serve_takes_nothing() {
    let directory = Directory::new("unfollowed");
    let port = free_port().await;
    let path = directory.0.join("handover.sock");
    let corefile = directory.write("Corefile", &text(port, 0, ""));
    let process = Process::following(&corefile, None, Some(path.clone()));
    dig_until(port, "version.example.com A +short", "10.0.1.0").await;
    // A port of another one's.
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let other = format!(". {{\n health {}\n whoami\n}}\n", taken.local_addr().unwrap());
    let wrong =
        directory.write("Wrong", &(text(port, 1, "") + &other.replacen(". ", &format!("example.org:{port} "), 1)));
    let refused = Process::following(&wrong, None, Some(path.clone()));
    let refused = tokio::time::timeout(DEADLINE, refused.task).await.expect("it serves").unwrap();
    assert!(matches!(refused, Err(DnsError::Listen { .. })), "{refused:?}");
    assert_eq!(dig(port, "version.example.com A +short").await, "10.0.1.0\n");
    assert!(!process.task.is_finished());
    let next = Process::following(&directory.write("Next", &text(port, 2, "")), None, Some(path));
    tokio::time::timeout(DEADLINE, process.task).await.expect("the old one goes on").unwrap().unwrap();
    assert_eq!(dig(port, "version.example.com A +short").await, "10.0.1.2\n");
    next.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_was_told_to_end_and_still_answers_hands_over_at_once() {
    let directory = Directory::new("lameduck");
    let port = free_port().await;
    let path = directory.0.join("handover.sock");
    // Longer than this test waits for anything.
    let health = format!("health 127.0.0.1:{} {{\n  lameduck 60s\n }}\n ready 127.0.0.1:{}", port + 2, port + 3);
    let old = Process::following(&directory.write("Old", &text(port, 0, &health)), None, Some(path.clone()));
    dig_until(port, "version.example.com A +short", "10.0.1.0").await;
    old.stop.send(()).unwrap();
    let begun = Instant::now();
    while !fetch(port + 3, "/ready").await.contains("the end") {
        assert!(begun.elapsed() < DEADLINE, "it is as ready as before");
    }
    assert_eq!(dig(port, "version.example.com A +short").await, "10.0.1.0\n");
    assert!(!old.task.is_finished());
    let new = Process::following(&directory.write("New", &text(port, 1, "")), None, Some(path));
    tokio::time::timeout(DEADLINE, old.task).await.expect("the old one goes on").unwrap().unwrap();
    assert_eq!(dig(port, "version.example.com A +short").await, "10.0.1.1\n");
    new.stop().await;
}
