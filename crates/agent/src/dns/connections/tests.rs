//! Connections to an upstream that these tests play.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use podnet_dns::{
    Carrier, Exchange, Keep, Secure, Transport, chain::TlsFiles, metrics::Metrics, name::Name, server::Debugger,
};
use rustls::pki_types::PrivateKeyDer;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
};

use super::Connections;

const TIMEOUT: Duration = Duration::from_secs(30);

/// How the upstream treats its connections.
#[derive(Clone, Copy)]
enum Kind {
    /// It answers, always.
    Patient,
    /// It closes after the first answer.
    Once,
    /// It waits for two questions, and answers the second one first.
    Backwards,
}

/// An upstream, and how many connections it has seen.
async fn upstream(kind: Kind, tls: Option<Arc<rustls::ServerConfig>>) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            let tls = tls.clone();
            tokio::spawn(async move {
                match tls {
                    None => serve(stream, kind).await,
                    Some(tls) => match tokio_rustls::TlsAcceptor::from(tls).accept(stream).await {
                        Ok(stream) => serve(stream, kind).await,
                        Err(_) => None,
                    },
                }
            });
        }
    });
    (address, seen)
}

async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, kind: Kind) -> Option<()> {
    let mut held = Vec::new();
    loop {
        let mut message = vec![0; usize::from(stream.read_u16().await.ok()?)];
        stream.read_exact(&mut message).await.ok()?;
        message[2] |= 0x80;
        held.push(message);
        if matches!(kind, Kind::Backwards) && held.len() < 2 {
            continue;
        }
        while let Some(message) = held.pop() {
            stream.write_u16(message.len() as u16).await.ok()?;
            stream.write_all(&message).await.ok()?;
            stream.flush().await.ok()?;
        }
        if matches!(kind, Kind::Once) {
            return None;
        }
    }
}

/// A question; its name has one letter.
fn exchange(upstream: SocketAddr, id: u16, letter: u8) -> Exchange {
    let mut message = id.to_be_bytes().to_vec();
    message.extend_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, letter, 0, 0, 1, 0, 1]);
    let keep = Keep { idle: TIMEOUT, age: None, most: None };
    Exchange {
        upstream: upstream.into(),
        transport: Transport::Tcp,
        carrier: Carrier::Dns,
        secure: None,
        keep,
        fresh: false,
        message,
        timeout: TIMEOUT,
        debug: Debugger::default(),
    }
}

fn connections() -> (Connections, Arc<Metrics>) {
    let metrics = Arc::new(Metrics::default());
    (Connections::new(Arc::clone(&metrics)), metrics)
}

/// Asks, and looks at the answer.
async fn ask(connections: &Connections, exchange: &Exchange) {
    let answer = tokio::time::timeout(TIMEOUT, connections.exchange(exchange)).await.unwrap().unwrap();
    assert_eq!(answer[..2], exchange.message[..2]);
    assert_eq!(answer[12..], exchange.message[12..]);
}

#[tokio::test]
async fn a_connection_is_used_again_and_counted() {
    let (address, seen) = upstream(Kind::Patient, None).await;
    let (connections, metrics) = connections();
    for id in 0..10 {
        ask(&connections, &exchange(address, id, b'a')).await;
    }
    assert_eq!(seen.load(Ordering::SeqCst), 1);
    ask(&connections, &Exchange { fresh: true, ..exchange(address, 1, b'a') }).await;
    assert_eq!(seen.load(Ordering::SeqCst), 2);
    let text = metrics.render(&podnet_dns::metrics::Gauges::default());
    for (name, count) in [("hits", 9), ("misses", 2)] {
        let line = format!("conn_cache_{name}_total{{proxy_name=\"forward\",to=\"{address}\",proto=\"tcp\"}} {count}");
        assert!(text.contains(&line), "{line}\nin\n{text}");
    }
}

#[tokio::test]
async fn questions_share_a_connection_and_get_each_its_own_answer_though_ids_are_alike() {
    let (address, seen) = upstream(Kind::Backwards, None).await;
    let (connections, _) = connections();
    let (one, other) = (exchange(address, 7, b'a'), exchange(address, 7, b'b'));
    tokio::join!(ask(&connections, &one), ask(&connections, &other));
    assert_eq!(seen.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_connection_that_the_other_side_closed_costs_no_question() {
    let (address, seen) = upstream(Kind::Once, None).await;
    let (connections, _) = connections();
    for id in 0..5 {
        ask(&connections, &exchange(address, id, b'a')).await;
    }
    // Those that share one that ends after the first answer are asked again, too.
    let questions: Vec<_> = (0..5).map(|id| exchange(address, id, b'b')).collect();
    futures::future::join_all(questions.iter().map(|question| ask(&connections, question))).await;
    assert!(seen.load(Ordering::SeqCst) >= 6);
}

#[tokio::test]
async fn idle_connections_end_after_their_time_and_beyond_their_number() {
    let (address, seen) = upstream(Kind::Patient, None).await;
    let (connections, _) = connections();
    let short = Keep { idle: Duration::from_millis(10), age: None, most: None };
    ask(&connections, &Exchange { keep: short, ..exchange(address, 1, b'a') }).await;
    let lines = super::lock(&connections.open).values().next().unwrap().clone();
    while !lines[0].closed() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // Longer than a test may take: it is the number that ends them.
    let one = Keep { idle: TIMEOUT * 100, age: None, most: Some(1) };
    let question = Exchange { keep: one, ..exchange(address, 2, b'a') };
    for _ in 0..3 {
        connections.line(&question, |_| false).unwrap().0.ask(&question).await.unwrap();
    }
    ask(&connections, &question).await;
    let lines = super::lock(&connections.open).values().next().unwrap().clone();
    while lines.iter().filter(|line| !line.closed()).count() > 1 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(seen.load(Ordering::SeqCst), 4);
}

#[tokio::test]
async fn connections_that_are_too_old_are_used_no_more_and_end_with_their_last_answer() {
    let (address, _) = upstream(Kind::Backwards, None).await;
    let (connections, _) = connections();
    let aged = |age| Keep { idle: TIMEOUT * 100, age: Some(age), most: None };
    let young = |id| Exchange { keep: aged(TIMEOUT * 100), ..exchange(address, id, b'a') };
    let (first, second, old) = (young(1), young(2), Exchange { keep: aged(Duration::ZERO), ..young(3) });
    let (line, kept) = connections.line(&first, |_| true).unwrap();
    assert!(!kept && connections.line(&second, |_| true).unwrap().1, "it is young");
    // One waits on it: what comes now has another one, and the first gets its answer.
    let waiting = async { tokio::join!(line.ask(&first), later(&connections, &line, &old)) };
    let (answer, ()) = tokio::time::timeout(TIMEOUT, waiting).await.unwrap();
    assert_eq!(answer.unwrap()[..2], first.message[..2]);
    while !line.closed() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Has a question look for another line where one waits on this one, and answers that one by asking here once more.
async fn later(connections: &Connections, line: &super::Line, question: &Exchange) {
    while line.load() == 0 {
        tokio::task::yield_now().await;
    }
    let (other, kept) = connections.line(question, |_| true).unwrap();
    assert!(!kept && !std::ptr::eq(&*other, line));
    assert!(!line.takes_more() && !line.closed(), "it is not used, and not closed either");
    line.ask(question).await.unwrap();
}

#[tokio::test]
async fn many_questions_that_are_asked_again_share_new_connections() {
    let (address, seen) = upstream(Kind::Patient, None).await;
    let (connections, _) = connections();
    ask(&connections, &exchange(address, 0, b'a')).await;
    let again = |id| Exchange { fresh: true, ..exchange(address, id, b'a') };
    let questions: Vec<_> = (0..super::SHARED as u16).map(again).collect();
    futures::future::join_all(questions.iter().map(|question| ask(&connections, question))).await;
    assert_eq!(seen.load(Ordering::SeqCst), 2, "not the one that was there, nor one for each");
}

#[tokio::test]
async fn no_upstream_has_more_than_so_many_connections() {
    // It takes connections, and answers nothing.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (connections, _) = connections();
    let question = exchange(listener.local_addr().unwrap(), 1, b'a');
    let line = || connections.line(&question, |_| false);
    let lines: Vec<_> = (0..super::MOST).map(|_| line().unwrap()).collect();
    assert!(lines.iter().all(|(_, kept)| !kept));
    assert!(line().unwrap().1, "there are more");
    // Once all are silent they might be dead, and nothing waits for that to be seen.
    let asking = futures::future::join_all(lines.iter().map(|(line, _)| line.ask(&question)));
    let refused = async {
        while line().is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        _ = asking => panic!("nobody answers"),
        refused = tokio::time::timeout(TIMEOUT, refused) => refused.expect("it is not refused"),
    }
}

#[tokio::test]
async fn who_refuses_is_an_error_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let error = connections().0.exchange(&exchange(address, 1, b'a')).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn over_tls_the_certificate_has_to_be_for_the_name() {
    let directory = tempfile::tempdir().unwrap();
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(vec!["dns.example.org".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    let authorities = directory.path().join("ca.pem");
    std::fs::write(&authorities, cert.pem()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let server = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let (address, seen) = upstream(Kind::Patient, Some(Arc::new(server))).await;
    let (connections, _) = connections();
    let over_tls = |name: Option<&str>, authorities: Option<String>| {
        let files = TlsFiles { authorities, ..TlsFiles::default() };
        let secure = Secure { files, name: name.map(|name| Name::parse(name).unwrap()) };
        Exchange { secure: Some(Arc::new(secure)), ..exchange(address, 9, b'a') }
    };
    let trusted = || Some(authorities.display().to_string());
    let named = over_tls(Some("dns.example.org"), trusted());
    ask(&connections, &named).await;
    ask(&connections, &named).await;
    assert_eq!(seen.load(Ordering::SeqCst), 1);
    // Without a name its address counts.
    ask(&connections, &over_tls(None, trusted())).await;
    let error = connections.exchange(&over_tls(Some("other.example.org"), trusted())).await.unwrap_err();
    assert!(error.to_string().contains("certificate"), "{error}");
    let missing = over_tls(None, Some("/nowhere/ca.pem".to_owned()));
    assert!(super::check(missing.secure.as_deref().unwrap()).unwrap_err().contains("/nowhere/ca.pem"));
    assert!(connections.exchange(&missing).await.unwrap_err().to_string().contains("/nowhere/ca.pem"));
}
