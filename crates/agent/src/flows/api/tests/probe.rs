//! Who watches probes where, who sends them, and for how long.

use http_body_util::BodyExt;
use podnet_flow::{
    capture::Captured,
    probe::{Dispatch, Found, Kind, Point, Probe, ProbeProtocol, Request, Said, Sent, Watch},
};

use super::{capture::Namespace, *};
use crate::flows::api::probe::LIMIT;

const PROBE: Probe = Probe { protocol: ProbeProtocol::Tcp, mark: 0x0dd_ba11 };

fn pod(name: &str) -> Captured {
    Captured { namespace: "shop".into(), name: name.into(), uid: name.into() }
}

fn watch(point: Point) -> String {
    serde_json::to_string(&Request::Watch(Watch { probe: PROBE, points: vec![point] })).unwrap()
}

fn inside(name: &str, interface: &str) -> String {
    watch(Point::Inside(pod(name), interface.into()))
}

fn send(from: Option<Captured>) -> String {
    let to = (Ipv4Addr::LOCALHOST, 7).into();
    serde_json::to_string(&Request::Send(Dispatch { probe: PROBE, from, to, size: None })).unwrap()
}

/// Lines of what is said.
struct Lines {
    body: Incoming,
    text: Vec<u8>,
}

impl Lines {
    fn new(response: Response<Incoming>) -> Self {
        assert_eq!(response.status(), 200);
        Self { body: response.into_body(), text: Vec::new() }
    }

    /// The next line; none at the end.
    async fn next(&mut self) -> Option<Said> {
        loop {
            if let Some(end) = self.text.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.text.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let frame = timeout(DEADLINE, self.body.frame()).await.expect("something comes or it ends")?.unwrap();
            self.text.extend(frame.into_data().unwrap());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_is_sent_from_a_pod_and_told_where_it_passes_until_the_time_is_over() {
    let (lab, namespace) = (Lab::new().await, Namespace::new("probe-told"));
    lab.here.set(Some(namespace.0.clone()));
    let mut lines = Lines::new(lab.post_to("/probe", "lister", &inside("web", "lo")).await);
    assert_eq!(lines.next().await, Some(Said::Watching(vec!["lo".to_owned()])));
    let response = lab.post_to("/probe", "lister", &send(Some(pod("web")))).await;
    assert_eq!(response.status(), 200);
    let sent: Sent = serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap();
    // There nobody listens.
    let port = SocketAddr::from((Ipv4Addr::LOCALHOST, 7));
    for (kind, source, destination) in [(Kind::Probe, sent.source, port), (Kind::Refused, port, sent.source)] {
        let Some(Said::Seen(sighting)) = lines.next().await else { panic!("nothing is seen") };
        assert_eq!(sighting.found, Found { kind, source, destination, within: None });
        assert!(sighting.at >= sent.at && !sighting.outbound && sighting.point == 0, "{sighting:?} {sent:?}");
    }
    assert_eq!(lines.next().await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_watch_or_send_is_refused_and_what_cannot_be_is_named() {
    let (lab, namespace) = (Lab::new().await, Namespace::new("probe-refused"));
    lab.here.set(Some(namespace.0.clone()));
    let none = serde_json::to_string(&Request::Watch(Watch { probe: PROBE, points: Vec::new() })).unwrap();
    for (token, asked, status, said) in [
        ("nobody", inside("web", "lo"), 401, "certificate"),
        ("here", inside("web", "lo"), 403, "pods/capture of shop/web"),
        ("here", watch(Point::Outside(pod("web"))), 403, "pods/capture of shop/web"),
        ("lister", inside("db", "lo"), 403, "pods/capture of shop/db"),
        ("lister", watch(Point::Underlay), 403, "nodes/capture of node1"),
        ("lister", watch(Point::Device("lo".into())), 403, "nodes/capture of node1"),
        ("watcher", inside("web", "lo"), 403, "pods/capture of shop/web"),
        ("watcher", send(Some(pod("web"))), 403, "pods/exec of shop/web"),
        ("watcher", send(None), 403, "nodes/proxy of node1"),
        ("lister", inside("web", "eth9"), 404, "there are lo"),
        ("lister", none, 400, "0 places"),
        ("lister", "{}".to_owned(), 400, "cannot be read"),
    ] {
        let response = lab.post_to("/probe", token, &asked).await;
        assert_eq!(response.status(), status, "{token}: {said}");
        let text = response.into_body().collect().await.unwrap().to_bytes();
        let text = String::from_utf8_lossy(&text);
        assert!(text.contains(said), "{token}: {text}");
    }
    // The node's address here is that of the loopback device.
    for point in [Point::Underlay, Point::Device("lo".into())] {
        let mut lines = Lines::new(lab.post_to("/probe", "watcher", &watch(point)).await);
        assert_eq!(lines.next().await, Some(Said::Watching(vec!["lo".to_owned()])));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_user_has_four_probes_under_way_and_who_goes_away_gives_a_place_back() {
    let (lab, namespace) = (Lab::new().await, Namespace::new("probe-many"));
    lab.here.set(Some(namespace.0.clone()));
    let (asked, began) = (inside("web", "lo"), Instant::now());
    let mut watching = Vec::new();
    for _ in 0..4 {
        watching.push(Lines::new(lab.post_to("/probe", "lister", &asked).await));
    }
    assert_eq!(lab.post_to("/probe", "lister", &send(Some(pod("web")))).await.status(), 429);
    watching.clear();
    let status = async || lab.post_to("/probe", "lister", &send(Some(pod("web")))).await.status();
    until("those who went away keep their places", async || status().await == 200).await;
    assert!(began.elapsed() < LIMIT, "only their time gave the places back");
}
