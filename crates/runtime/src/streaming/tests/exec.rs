//! What kubectl exec relies on, in each protocol.

use futures::StreamExt;
use sha2::{Digest, Sha256};
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::Message;

use super::{
    client::{Channel, DEADLINE, DIALECTS, Dialect, Session, open},
    fixture::Fixture,
};

const OUTPUTS: &str = "stdout=true&stderr=true";
const ALL: &str = "stdin=true&stdout=true&stderr=true";
const HALF_CLOSING: [Dialect; 2] = [Dialect::WebSocket5, Dialect::Spdy];

#[tokio::test]
async fn output_errors_and_the_exit_code_arrive_apart() {
    let fixture = Fixture::start().await;
    for dialect in DIALECTS {
        let outcome =
            open(&fixture, dialect, OUTPUTS, &["sh", "-c", "echo out; echo err >&2; exit 3"]).await.outcome().await;
        assert_eq!((&outcome.stdout[..], &outcome.stderr[..]), (&b"out\n"[..], &b"err\n"[..]), "{dialect:?}");
        assert_eq!(outcome.exit_code(), 3, "{dialect:?}");
    }
}

/// What comes before a client has its streams is lost to kubectl of before 1.34; that it answers says that it will have them at once.
#[tokio::test]
async fn output_waits_until_the_client_has_answered_a_ping() {
    let fixture = Fixture::start().await;
    let session = open(&fixture, Dialect::WebSocket5, "stdout=1", &["echo", "out"]).await;
    let Session::WebSocket(mut socket, _) = session else { panic!("another session") };
    let mut told = Vec::new();
    while told.len() < 3 {
        let message = timeout(DEADLINE, socket.next()).await.unwrap().unwrap().unwrap();
        // Pongs that nobody asked for may come at any time.
        if !message.is_pong() {
            told.push(message);
        }
    }
    assert!(
        matches!(&told[..], [Message::Binary(first), Message::Ping(_), Message::Binary(out)] if first[..] == [1] && out[..] == *b"\x01out\n"),
        "{told:?}"
    );
}

#[tokio::test]
async fn success_is_a_status_without_a_reason() {
    let fixture = Fixture::start().await;
    for dialect in DIALECTS {
        let outcome = open(&fixture, dialect, "stdout=1", &["true"]).await.outcome().await;
        assert_eq!(outcome.status, serde_json::json!({ "metadata": {}, "status": "Success" }), "{dialect:?}");
    }
}

#[tokio::test]
async fn a_command_that_cannot_be_started_is_told_through_the_session() {
    let fixture = Fixture::start().await;
    for dialect in DIALECTS {
        let outcome = open(&fixture, dialect, OUTPUTS, &["no-such-program"]).await.outcome().await;
        assert_eq!(outcome.status["reason"], "InternalError", "{dialect:?}");
        assert!(outcome.status["message"].as_str().unwrap().contains("no-such-program"), "{}", outcome.status);
    }
}

#[tokio::test]
async fn the_end_of_stdin_ends_stdin_and_nothing_else() {
    let fixture = Fixture::start().await;
    for dialect in HALF_CLOSING {
        let mut session = open(&fixture, dialect, ALL, &["sh", "-c", "cat; echo after"]).await;
        session.send(Channel::Stdin, b"one ").await;
        session.send(Channel::Stdin, b"two ").await;
        session.close_stdin().await;
        let outcome = session.outcome().await;
        assert_eq!(outcome.stdout, b"one two after\n", "{dialect:?}");
        assert_eq!(outcome.exit_code(), 0);
    }
}

#[tokio::test]
async fn ten_megabytes_come_back_as_they_went() {
    let fixture = Fixture::start().await;
    let input: Vec<u8> = (0..10 * 1024 * 1024_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    for dialect in HALF_CLOSING {
        // `sha256sum` needs all of the input before it says a word, so that the client need not read meanwhile.
        let mut session = open(&fixture, dialect, ALL, &["sha256sum"]).await;
        for chunk in input.chunks(32 * 1024) {
            session.send(Channel::Stdin, chunk).await;
        }
        session.close_stdin().await;
        let outcome = session.outcome().await;
        let expected = format!("{:x}  -\n", Sha256::digest(&input));
        assert_eq!(String::from_utf8_lossy(&outcome.stdout), expected, "{dialect:?}");
    }
    for dialect in DIALECTS {
        let command = ["head", "-c", "10485760", "/dev/zero"];
        let outcome = open(&fixture, dialect, OUTPUTS, &command).await.outcome().await;
        assert_eq!(Sha256::digest(&outcome.stdout), Sha256::digest(vec![0; 10 * 1024 * 1024]), "{dialect:?}");
    }
}

/// The process writes 64 MiB and then says so in a file; it must not get there while no one reads.
#[tokio::test]
async fn a_client_that_does_not_read_stops_the_process() {
    let fixture = Fixture::start().await;
    for dialect in DIALECTS {
        let directory = tempfile::tempdir().unwrap();
        let progress = directory.path().join("progress");
        let script = format!("for n in $(seq 64); do head -c 1048576 /dev/zero; echo >> {}; done", progress.display());
        let mut session = open(&fixture, dialect, OUTPUTS, &["sh", "-c", &script]).await;
        let lines = || std::fs::read(&progress).map_or(0, |lines| lines.len());
        // Standing still for a while after having moved is what being stopped looks like.
        let (begin, mut last, mut since) = (Instant::now(), 0, Instant::now());
        while last == 0 || since.elapsed().as_millis() < 300 {
            assert!(begin.elapsed() < DEADLINE, "still at {last} MiB");
            tokio::task::yield_now().await;
            if lines() != last {
                (last, since) = (lines(), Instant::now());
            }
        }
        assert!(last < 32, "{dialect:?}: {last} MiB went into buffers");
        let mut received = 0;
        while let Some((channel, payload)) = session.receive().await {
            if channel == Channel::Error && !payload.is_empty() {
                break;
            }
            received += payload.len();
        }
        assert_eq!(received, 64 * 1024 * 1024, "{dialect:?}");
    }
}

#[tokio::test]
async fn a_terminal_learns_its_sizes() {
    let fixture = Fixture::start().await;
    for dialect in DIALECTS {
        // The SPDY client opens the streams that are named in the query.
        let mut session = open(&fixture, dialect, "stdout=1&tty=1&x=resize", &["sh"]).await;
        session.send(Channel::Resize, br#"{"Width":80,"Height":24}"#).await;
        let mut seen = Vec::new();
        while seen != b"80x24\n" {
            seen.extend_from_slice(&session.receive().await.unwrap().1);
        }
        session.send(Channel::Resize, b"{\"Width\":132,\"Height\":50}\n").await;
        let outcome = session.outcome().await;
        assert_eq!(outcome.stdout, b"132x50\n", "{dialect:?}");
        assert_eq!(outcome.exit_code(), 7, "{dialect:?}");
    }
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_process_with_it() {
    let fixture = Fixture::start().await;
    for dialect in DIALECTS {
        let mut session = open(&fixture, dialect, OUTPUTS, &["sh", "-c", "echo $$; exec sleep 1000"]).await;
        let mut pid = Vec::new();
        while !pid.ends_with(b"\n") {
            pid.extend_from_slice(&session.receive().await.unwrap().1);
        }
        drop(session);
        let process = format!("/proc/{}", String::from_utf8(pid).unwrap().trim());
        let gone = async {
            while std::path::Path::new(&process).exists() {
                tokio::task::yield_now().await;
            }
        };
        timeout(DEADLINE, gone).await.unwrap_or_else(|_| panic!("{dialect:?}: the process lives on"));
    }
}

#[tokio::test]
async fn input_that_no_one_reads_does_not_hold_the_session() {
    let fixture = Fixture::start().await;
    for dialect in DIALECTS {
        let mut session = open(&fixture, dialect, ALL, &["sh", "-c", "exec <&-; echo closed; sleep 0.2; exit 4"]).await;
        while session.receive().await.unwrap().1.is_empty() {}
        for _ in 0..100 {
            session.send(Channel::Stdin, &[0; 4096]).await;
        }
        assert_eq!(session.outcome().await.exit_code(), 4, "{dialect:?}");
    }
}

#[tokio::test]
async fn sessions_end_when_the_server_does() {
    let fixture = Fixture::start().await;
    let mut sessions = Vec::new();
    for dialect in DIALECTS {
        sessions.push(open(&fixture, dialect, OUTPUTS, &["sleep", "1000"]).await);
    }
    fixture.stop.cancel();
    for mut session in sessions {
        let ended = async { while session.receive().await.is_some() {} };
        timeout(DEADLINE, ended).await.expect("the session ends");
    }
}
