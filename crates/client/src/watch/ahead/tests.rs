use std::time::Duration;

use serde_json::json;
use tokio::{task::yield_now, time::timeout};

use super::*;

/// An API server that notes with which tokens it was asked for pages of Services.
#[derive(Clone, Default)]
struct Server(Arc<Mutex<Vec<String>>>);

impl Server {
    /// A client whose requests are answered with a status and the token of the page behind, by the token that they name.
    fn client(&self, answer: fn(&str) -> (u16, &str)) -> Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let token = parameters(request.uri()).find_map(|parameter| parameter.strip_prefix("continue="));
            let token = token.unwrap_or("first").to_owned();
            let (code, next) = answer(&token);
            let page = json!({"kind": "ServiceList", "metadata": {"resourceVersion": "5", "continue": next}, "items": [token]});
            server.asked_of().push(token);
            async move { Response::builder().status(code).body(Body::from(page.to_string().into_bytes())) }
        });
        paging_ahead(Client::new(service, "default"))
    }

    fn asked_of(&self) -> MutexGuard<'_, Vec<String>> {
        self.0.lock().unwrap()
    }

    /// Waits until it was asked for as many pages.
    async fn asked(&self, count: usize) -> Vec<String> {
        let asked = async {
            while self.asked_of().len() < count {
                yield_now().await;
            }
        };
        timeout(Duration::from_secs(60), asked).await.expect("the pages are asked for");
        self.asked_of().clone()
    }
}

/// What the answer to a request at this place says: its status, and the name of the page.
async fn answered(client: &Client, place: &str) -> (u16, String) {
    let request = Request::get(format!("/api/v1/services?{place}")).body(Body::empty()).unwrap();
    let (parts, body) = client.send(request).await.unwrap().into_parts();
    let page: serde_json::Value = serde_json::from_slice(&body.collect_bytes().await.unwrap()).unwrap();
    (parts.status.as_u16(), page["items"][0].as_str().unwrap().to_owned())
}

fn three_pages(token: &str) -> (u16, &str) {
    match token {
        "first" => (200, "p-1"),
        "p-1" => (200, "p_2"),
        _ => (200, ""),
    }
}

#[tokio::test]
async fn the_next_page_is_asked_for_at_once_and_every_page_once() {
    let server = Server::default();
    let client = server.client(three_pages);
    assert_eq!(answered(&client, "&limit=2").await, (200, "first".into()));
    assert_eq!(server.asked(2).await, ["first", "p-1"], "nobody has asked for it yet");
    assert_eq!(answered(&client, "continue=p-1&limit=2").await.1, "p-1");
    server.asked(3).await;
    assert_eq!(answered(&client, "&limit=2&continue=p_2").await.1, "p_2");
    assert_eq!(server.asked(3).await, ["first", "p-1", "p_2"]);
}

#[tokio::test]
async fn what_another_place_is_asked_for_is_asked_of_the_server() {
    let server = Server::default();
    let client = server.client(three_pages);
    answered(&client, "limit=2").await;
    server.asked(2).await;
    // The list is made anew, from its start.
    assert_eq!(answered(&client, "limit=2").await.1, "first");
    assert_eq!(server.asked(4).await, ["first", "p-1", "first", "p-1"]);
    // The same token at another place.
    assert_eq!(answered(&client, "limit=2&continue=p-1&labelSelector=a").await.1, "p-1");
    assert_eq!(server.asked(5).await[4], "p-1");
}

#[tokio::test]
async fn a_refusal_is_told_to_who_asks_for_the_page_and_nothing_is_asked_for_behind_it() {
    let server = Server::default();
    let client = server.client(|token| if token == "first" { (200, "old") } else { (410, "more") });
    answered(&client, "limit=2").await;
    server.asked(2).await;
    assert_eq!(answered(&client, "limit=2&continue=old").await, (410, "old".into()));
    assert_eq!(answered(&client, "limit=2&continue=more").await, (410, "more".into()));
    assert_eq!(server.asked(3).await, ["first", "old", "more"]);
}

#[tokio::test]
async fn what_is_no_list_in_pages_has_no_page_ahead() {
    let server = Server::default();
    let client = server.client(three_pages);
    for place in ["", "watch=true&limit=2", "labelSelector=a"] {
        answered(&client, place).await;
    }
    answered(&client, "limit=2&continue=p_2").await;
    assert_eq!(server.asked(4).await, ["first", "first", "first", "p_2"]);
}

#[test]
fn the_token_of_the_next_page_is_found_wherever_it_stands() {
    let found = |page: &str| continued(page.as_bytes());
    let token = Some("eyJ2_-1".to_owned());
    assert_eq!(found(r#"{"kind":"L","metadata":{"resourceVersion":"5","continue":"eyJ2_-1"},"items":[{"a":1}"#), token);
    assert_eq!(found(r#"{"items":[{"metadata":{"continue":"x"}}],"metadata":{"continue":"eyJ2_-1"}}"#), token);
    for none in [
        r#"{"metadata":{"continue":""},"items":[]}"#,
        r#"{"metadata":{"continue":"a&b=c"},"items":[]}"#,
        r#"{"metadata":null,"items":[]}"#,
        r#"{"items":[]}"#,
        "no list",
        "",
    ] {
        assert_eq!(found(none), None, "{none}");
    }
}
