use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
};

use super::*;
use crate::proxy::programming::Round;
use podnet_model::{Change, ServiceKey};

fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

async fn ask(address: SocketAddr, path: &str) -> Result<(u16, String), std::io::Error> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(address)?;
        stream.write_all(request.as_bytes())?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        let (head, body) = text.split_once("\r\n\r\n").ok_or(std::io::ErrorKind::InvalidData)?;
        Ok((head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_default(), body.to_owned()))
    })
    .await
    .unwrap()
}

/// Until the port is served.
async fn asked(address: SocketAddr, path: &str) -> (u16, String) {
    let until = std::time::Instant::now() + Duration::from_secs(20);
    loop {
        match ask(address, path).await {
            Ok(answer) => return answer,
            Err(error) if std::time::Instant::now() > until => panic!("{address}{path}: {error}"),
            Err(_) => sleep(Duration::from_millis(10)).await,
        }
    }
}

fn status(programming: &Arc<Programming>, modes: [watch::Receiver<Option<Mode>>; 2]) -> Arc<Status> {
    let [mode, stands_in] = modes;
    let answers = Arc::new(Answers::default());
    let metrics = {
        let answers = answers.clone();
        Box::new(move || answers.metrics())
    };
    let config = watch::Sender::default().subscribe();
    Arc::new(Status { programming: programming.clone(), mode, stands_in, config, metrics, answers })
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ports_tell_what_kube_proxy_tells_and_move_when_they_are_told_to() {
    let programming = Arc::new(Programming::new(Moment::now()));
    let ((mode, seen), (stands_in, seen_beside)) = (watch::channel(None), watch::channel(None));
    let first = Places { healthz: free(), metrics: free() };
    let (places, places_seen) = watch::channel(Some(first));
    let server = tokio::spawn(serve(status(&programming, [seen, seen_beside]), places_seen, Guests::default()));
    let json = |(code, body): (u16, String)| (code, serde_json::from_str::<Value>(&body).unwrap());
    let (code, body) = json(asked(first.healthz, "/healthz").await);
    assert_eq!((code, &body["nodeEligible"], body["currentTime"].is_string()), (200, &Value::Bool(true), true));
    programming.set_leaving(true);
    let (code, body) = json(asked(first.healthz, "/healthz").await);
    assert_eq!((code, &body["nodeEligible"]), (503, &Value::Bool(false)));
    assert_eq!(json(asked(first.healthz, "/livez").await).0, 200, "it lives all the same");
    assert_eq!(asked(first.metrics, "/proxyMode").await, (200, String::new()));
    mode.send_replace(Some(Mode::Nftables));
    assert_eq!(asked(first.metrics, "/proxyMode").await, (200, "nftables".to_owned()));
    // The one that serves, and not the one that waits until it can.
    mode.send_replace(Some(Mode::Userspace));
    stands_in.send_replace(Some(Mode::Ipvs));
    assert_eq!(asked(first.metrics, "/proxyMode").await, (200, "ipvs".to_owned()));
    stands_in.send_replace(None);
    assert_eq!(asked(first.metrics, "/proxyMode").await, (200, "userspace".to_owned()));
    let (code, body) = json(asked(first.metrics, "/configz").await);
    assert_eq!((code, &body["kubeproxy.config.k8s.io"]["iptables"]["masqueradeBit"]), (200, &Value::from(14)));
    let (_, text) = asked(first.metrics, "/metrics").await;
    assert!(text.contains("\nkubeproxy_proxy_healthz_total{code=\"503\"} 1\n"), "{text}");
    // One port moves to where somebody else still is; the other stays.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let second = Places { healthz: taken.local_addr().unwrap(), ..first };
    places.send_replace(Some(second));
    assert_eq!(asked(first.metrics, "/proxyMode").await.0, 200);
    drop(taken);
    assert_eq!(asked(second.healthz, "/livez").await.0, 200);
    assert!(ask(first.healthz, "/livez").await.is_err());
    server.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_at_all_of_a_nodes_addresses_answers_in_both_families() {
    for all in ["0.0.0.0", "[::]"] {
        let port = TcpListener::bind("[::]:0").unwrap().local_addr().unwrap().port();
        let router = Router::new().route("/", get(|| async { "ok" }));
        let address = format!("{all}:{port}").parse().unwrap();
        let server = tokio::spawn(ports::serve(address, router, Guests::default()));
        for at in ["127.0.0.1", "[::1]"] {
            assert_eq!(asked(format!("{at}:{port}").parse().unwrap(), "/").await.1, "ok", "{all} at {at}");
        }
        server.abort();
    }
}

#[test]
fn programming_that_hangs_is_neither_healthy_nor_alive() {
    let start = Moment::now();
    let programming = Arc::new(Programming::new(start));
    let status = status(&programming, [watch::channel(None).1, watch::channel(None).1]);
    programming.done(Round::Full, Duration::ZERO, start);
    programming.queued(&Change::Service(ServiceKey::new("a", "b"), None), start);
    let late = Moment { at: start.at + Duration::from_secs(60), ..start };
    for (code, body) in [healthz(&status, late), livez(&status, late)].map(|(code, _, body)| (code, body)) {
        assert_eq!(code, StatusCode::SERVICE_UNAVAILABLE);
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body["lastUpdated"], start.wall.to_string());
        assert_eq!(body["healthy"], false);
        assert_eq!(body["status"]["IPv6"], json!({"lastUpdated": start.wall.to_string(), "healthy": false}));
    }
    assert_eq!(healthz(&status, start).0, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_say_nothing_keep_nobody_away_and_end_after_a_while() {
    let address = free();
    let router = Router::new().route("/", get(|| async { "ok" }));
    let server = tokio::spawn(ports::serve(address, router, Guests::default()));
    asked(address, "/").await;
    let begun = std::time::Instant::now();
    let mut silent: Vec<TcpStream> = (0..100).map(|_| TcpStream::connect(address).unwrap()).collect();
    assert_eq!(asked(address, "/").await.1, "ok");
    let ended = |stream: &mut TcpStream| matches!(stream.read(&mut [0]), Ok(0) | Err(_));
    let all = tokio::task::spawn_blocking(move || silent.iter_mut().all(ended)).await.unwrap();
    assert!(all && begun.elapsed() < Duration::from_secs(25), "{:?}", begun.elapsed());
    server.abort();
}
