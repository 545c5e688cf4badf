use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{DemoappError, DemoappOptions, serve};

const DEADLINE: Duration = Duration::from_secs(30);

struct Running {
    addresses: Vec<SocketAddr>,
    stop: CancellationToken,
    ended: JoinHandle<Result<(), DemoappError>>,
}

async fn start(options: DemoappOptions) -> Running {
    let mut listeners = Vec::new();
    for _ in 0..2 {
        listeners.push(TcpListener::bind("127.0.0.1:0").await.unwrap());
    }
    let addresses = listeners.iter().map(|listener| listener.local_addr().unwrap()).collect();
    let options = DemoappOptions { pod_name: Some("web-1".into()), ..options };
    let stop = CancellationToken::new();
    let ended = tokio::spawn(serve::serve(options, listeners, stop.clone().cancelled_owned()));
    Running { addresses, stop, ended }
}

impl Running {
    async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Response<Incoming> {
        let stream = TcpStream::connect(self.addresses[0]).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(path).header("host", "web");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::copy_from_slice(body))).unwrap();
        timeout(DEADLINE, sender.send_request(request)).await.unwrap().unwrap()
    }

    async fn get(&self, path: &str) -> (StatusCode, String) {
        text(self.send(Method::GET, path, &[("user-agent", "test/1")], b"").await).await
    }
}

async fn text(response: Response<Incoming>) -> (StatusCode, String) {
    let status = response.status();
    let body = timeout(DEADLINE, response.into_body().collect()).await.unwrap().unwrap().to_bytes();
    (status, String::from_utf8(body.into()).unwrap())
}

#[tokio::test]
async fn the_front_page_says_who_answered_whom() {
    let app = start(DemoappOptions { pod_ip: Some("10.1.2.3".parse().unwrap()), ..DemoappOptions::default() }).await;
    let expected = "podnet demoapp v1 !! ClientIP: 127.0.0.1, ServerName: web-1, ServerIP: 10.1.2.3\n";
    assert_eq!(app.get("/").await, (StatusCode::OK, expected.to_owned()));
    assert_eq!(app.get("/some/other/page").await.1, expected);
    let json = app.send(Method::GET, "/x", &[("accept", "application/json")], b"").await;
    let json: serde_json::Value = serde_json::from_str(&text(json).await.1).unwrap();
    assert_eq!(
        (&json["serverName"], &json["clientIP"], &json["path"]),
        (&"web-1".into(), &"127.0.0.1".into(), &"/x".into())
    );
}

#[tokio::test]
async fn releases_and_texts_tell_versions_apart() {
    let app = start(DemoappOptions { release: Some("v2".into()), ..DemoappOptions::default() }).await;
    assert!(app.get("/").await.1.starts_with("podnet demoapp v2 !! "));
    let app = start(DemoappOptions { text: Some("hello".into()), ..DemoappOptions::default() }).await;
    assert_eq!(app.get("/").await.1, "hello\n");
}

#[tokio::test]
async fn single_facts_have_pages_of_their_own() {
    let app = start(DemoappOptions::default()).await;
    assert_eq!(app.get("/hostname").await.1, "web-1\n");
    assert_eq!(app.get("/clientip").await.1, "127.0.0.1\n");
    assert_eq!(app.get("/user-agent").await.1, "test/1\n");
    assert!(app.get("/headers").await.1.contains("host: web\n"));
}

#[tokio::test]
async fn probes_fail_when_told_to_and_recover() {
    let app = start(DemoappOptions::default()).await;
    for (path, failure) in [("/livez", 506), ("/readyz", 507)] {
        assert_eq!(app.get(path).await, (StatusCode::OK, "OK\n".to_owned()));
        let form = |value: &str| format!("{}={value}", &path[1..]);
        app.send(Method::POST, path, &[], form("FAIL").as_bytes()).await;
        assert_eq!(app.get(path).await.0.as_u16(), failure);
        app.send(Method::POST, path, &[], form("OK").as_bytes()).await;
        assert_eq!(app.get(path).await.0, StatusCode::OK);
        assert_eq!(app.send(Method::POST, path, &[], b"what").await.status(), StatusCode::BAD_REQUEST);
    }
}

#[tokio::test]
async fn bodies_come_back_and_bytes_come_in_any_number() {
    let app = start(DemoappOptions::default()).await;
    let body = "0123456789".repeat(100_000);
    assert_eq!(text(app.send(Method::POST, "/echo", &[], body.as_bytes()).await).await.1, body);
    assert_eq!(app.get("/echo?msg=a+b").await.1, "a b");
    for count in [0, 1, 65_536, 10_000_001] {
        let (status, zeroes) = app.get(&format!("/bytes/{count}")).await;
        assert_eq!((status, zeroes.len()), (StatusCode::OK, count));
    }
    assert_eq!(app.get("/bytes/1073741825").await.0, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn it_listens_on_every_port_it_was_given() {
    let mut app = start(DemoappOptions::default()).await;
    app.addresses.reverse();
    assert_eq!(app.get("/hostname").await.1, "web-1\n");
}

#[tokio::test]
async fn a_request_under_way_is_finished_before_the_end() {
    let app = start(DemoappOptions::default()).await;
    let response = app.send(Method::GET, "/bytes/50000000", &[], b"").await;
    app.stop.cancel();
    assert_eq!(text(response).await.1.len(), 50_000_000);
    timeout(DEADLINE, app.ended).await.unwrap().unwrap().unwrap();
    assert!(TcpStream::connect(app.addresses[0]).await.is_err());
}
