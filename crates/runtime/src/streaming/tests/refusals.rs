//! Who and what is turned away, and how.

use http::{Request, StatusCode};
use http_body_util::Empty;
use serde_json::Value;

use super::{
    client::{Dialect, body, get, request, upgrade},
    fixture::Fixture,
};

#[tokio::test]
async fn only_administrators_are_served() {
    let fixture = Fixture::start().await;
    let health = |organisation: &'static str| {
        let fixture = &fixture;
        async move { request(fixture, organisation, Request::get("/healthz").body(Empty::new()).unwrap()).await }
    };
    assert_eq!(health("system:masters").await.status(), StatusCode::OK);
    assert_eq!(health("system:nodes").await.status(), StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn what_is_not_there_is_said_with_a_status_object() {
    let fixture = Fixture::start().await;
    let exec = |target: &str| upgrade(Dialect::WebSocket5, &format!("/exec/default/{target}?command=true&stdout=1"));
    for (target, code, reason, part) in [
        ("gone/main", StatusCode::NOT_FOUND, "NotFound", "default/gone"),
        ("web/other", StatusCode::NOT_FOUND, "NotFound", "it has: main"),
        ("web/sleeping", StatusCode::BAD_REQUEST, "BadRequest", "ContainerCreating"),
    ] {
        let response = request(&fixture, "system:masters", exec(target)).await;
        assert_eq!(response.status(), code, "{target}");
        let status: Value = serde_json::from_slice(&body(response).await).unwrap();
        assert_eq!((&status["kind"], &status["reason"]), (&"Status".into(), &reason.into()));
        assert!(status["message"].as_str().unwrap().contains(part), "{status}");
        let response = get(&fixture, &format!("/containerLogs/default/{target}")).await;
        assert_eq!(response.status(), code, "{target}");
    }
}

#[tokio::test]
async fn an_exec_needs_an_upgrade_that_is_spoken_here() {
    let fixture = Fixture::start().await;
    let uri = "/exec/default/web/main?command=true&stdout=1";
    assert_eq!(get(&fixture, uri).await.status(), StatusCode::BAD_REQUEST);
    let mut old = upgrade(Dialect::WebSocket4, uri);
    old.headers_mut().insert("sec-websocket-protocol", "v1.channel.k8s.io".parse().unwrap());
    assert_eq!(request(&fixture, "system:masters", old).await.status(), StatusCode::BAD_REQUEST);
    let mut new = upgrade(Dialect::Spdy, uri);
    new.headers_mut().insert("x-stream-protocol-version", "v9.channel.k8s.io".parse().unwrap());
    let response = request(&fixture, "system:masters", new).await;
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
    assert!(
        response
            .headers()
            .get_all("x-accepted-stream-protocol-versions")
            .iter()
            .any(|name| name == "v4.channel.k8s.io")
    );
}

#[tokio::test]
async fn the_best_common_version_is_chosen() {
    let fixture = Fixture::start().await;
    let uri = "/exec/default/web/main?command=true&stdout=1";
    let response = request(&fixture, "system:masters", upgrade(Dialect::WebSocket5, uri)).await;
    assert_eq!(response.headers()["sec-websocket-protocol"], "v5.channel.k8s.io");
    // RFC 6455, section 1.3.
    assert_eq!(response.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    let response = request(&fixture, "system:masters", upgrade(Dialect::Spdy, uri)).await;
    assert_eq!(response.headers()["x-stream-protocol-version"], "v4.channel.k8s.io");
}

#[tokio::test]
async fn attach_says_what_to_use_instead() {
    let fixture = Fixture::start().await;
    let response = get(&fixture, "/attach/default/web/main?stdout=1").await;
    assert_eq!(response.status(), StatusCode::NOT_IMPLEMENTED);
    assert!(String::from_utf8(body(response).await).unwrap().contains("logs"));
}
