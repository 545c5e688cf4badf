//! What collectors get, byte for byte, each from the threads that an agent has.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream, UdpSocket},
    os::unix::net::UnixDatagram,
};

use podnet_flow::export::syslog;

use super::{
    agent::{Agent, listener, wait},
    *,
};

fn patient(stream: TcpStream) -> BufReader<TcpStream> {
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    BufReader::new(stream)
}

/// One message of a stream: its length, a space, and that many bytes.
fn counted(stream: &mut impl BufRead) -> String {
    let mut length = Vec::new();
    stream.read_until(b' ', &mut length).unwrap();
    let length: usize = std::str::from_utf8(&length).unwrap().trim().parse().unwrap();
    let mut message = vec![0; length];
    stream.read_exact(&mut message).unwrap();
    String::from_utf8(message).unwrap()
}

#[test]
fn syslog_over_tcp_is_counted_in_octets_and_goes_on_at_the_next_connection() {
    let (listener, address) = listener();
    let agent = Agent::start(&format!("syslog+tcp://{address}"));
    agent.collectors.offer(&[flow(0), flow(1)]);
    let mut stream = patient(listener.accept().unwrap().0);
    assert_eq!([counted(&mut stream), counted(&mut stream)], [flow(0), flow(1)].map(|item| syslog::message(&item)));
    wait("both are known to have come", || agent.metric("sent_records_total") == 2);
    drop(stream);
    agent.collectors.offer(&[flow(2)]);
    let mut stream = patient(listener.accept().unwrap().0);
    assert_eq!(counted(&mut stream), syslog::message(&flow(2)));
    agent.end();
}

/// One whose connections have room for less than a batch that nobody reads, whatever this machine gives others.
fn narrow_listener() -> (TcpListener, String) {
    let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let listener = runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(64 << 10).unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        socket.listen(16).unwrap().into_std().unwrap()
    });
    listener.set_nonblocking(false).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

/// The numbers of all items that come at any connection, until an empty one comes. One that is given up may end amid a message.
fn numbers(listener: &TcpListener) -> BTreeSet<u64> {
    let mut seen = BTreeSet::new();
    loop {
        let mut bytes = Vec::new();
        // What came before a reset is there all the same.
        let _ = patient(listener.accept().unwrap().0).read_to_end(&mut bytes);
        if bytes.is_empty() {
            return seen;
        }
        let mut rest = bytes.as_slice();
        while let Some(space) = rest.iter().position(|byte| *byte == b' ') {
            let length: usize = std::str::from_utf8(&rest[..space]).unwrap().parse().unwrap();
            let Some(message) = rest.get(space + 1..space + 1 + length) else { break };
            let begin = message.iter().position(|byte| *byte == b'{').unwrap();
            let item: Numbered = serde_json::from_slice(&message[begin..]).unwrap();
            seen.insert(item.record.sequence);
            rest = &rest[space + 1 + length..];
        }
    }
}

#[test]
fn syslog_over_tcp_has_come_only_when_the_other_side_has_it() {
    let (listener, address) = narrow_listener();
    let agent = Agent::start(&format!("syslog+tcp://{address}"));
    let all = 2_000;
    agent.collectors.offer(&(0..all).map(flow).collect::<Vec<_>>());
    let (unread, _) = listener.accept().unwrap();
    wait("it was tried in vain", || agent.metric("failed_batches_total") > 0);
    // So many were acknowledged, and nobody will read them.
    let first = agent.metric("sent_records_total");
    assert!(first < all);
    drop(unread);
    let reader = thread::spawn(move || numbers(&listener));
    wait("all have come", || agent.metric("sent_records_total") == all);
    agent.end();
    drop(TcpStream::connect(address).unwrap());
    let seen = reader.join().unwrap();
    assert!((first..all).all(|number| seen.contains(&number)), "{first} {seen:?}");
}

#[test]
fn syslog_over_datagrams_is_one_message_in_each() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let agent = Agent::start(&format!("syslog+udp://{}", socket.local_addr().unwrap()));
    agent.collectors.offer(&[flow(0), gap(1, 3)]);
    let mut buffer = [0; 4096];
    for item in [flow(0), gap(1, 3)] {
        let length = socket.recv(&mut buffer).unwrap();
        assert_eq!(std::str::from_utf8(&buffer[..length]).unwrap(), syslog::message(&item));
    }
    agent.end();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let agent = Agent::start(&format!("syslog+unix://{}", path.display()));
    agent.collectors.offer(&[flow(0)]);
    wait("nobody is there yet", || agent.metric("failed_batches_total") > 0);
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let length = socket.recv(&mut buffer).unwrap();
    assert_eq!(std::str::from_utf8(&buffer[..length]).unwrap(), syslog::message(&flow(0)));
    agent.end();
}

#[test]
fn syslog_over_tls_goes_to_whom_the_authorities_vouch_for_alone() {
    let directory = tempfile::tempdir().unwrap();
    let certified = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let ca = directory.path().join("ca.pem");
    let stranger = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    fs::write(&ca, stranger.cert.pem()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = rustls::pki_types::PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key);
    let config = Arc::new(config.unwrap());
    let (listener, address) = listener();
    let agent = Agent::start(&format!("syslog+tls://{address}?ca={}", ca.display()));
    agent.collectors.offer(&[flow(0)]);
    let accept = || {
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        BufReader::new(rustls::StreamOwned::new(rustls::ServerConnection::new(config.clone()).unwrap(), stream))
    };
    assert!(accept().fill_buf().is_err(), "a stranger is told nothing");
    wait("it is known why", || agent.metric("failed_batches_total") > 0);
    fs::write(&ca, certified.cert.pem()).unwrap();
    loop {
        let mut stream = accept();
        if stream.fill_buf().is_ok() {
            assert_eq!(counted(&mut stream), syslog::message(&flow(0)));
            // What the server says in TLS is no end of the connection.
            agent.collectors.offer(&[flow(1)]);
            assert_eq!(counted(&mut stream), syslog::message(&flow(1)));
            break agent.end();
        }
    }
}

/// A request: its first line, its head and its body.
fn request(stream: &mut impl BufRead) -> (String, String, Vec<u8>) {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(stream.read_line(&mut head).unwrap() > 0, "{head}");
    }
    let head = head.to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap().parse().unwrap();
    let mut body = vec![0; length];
    stream.read_exact(&mut body).unwrap();
    (head.lines().next().unwrap().to_owned(), head, body)
}

fn answer(stream: &mut BufReader<TcpStream>, status: &str, body: &str) {
    let text = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    stream.get_mut().write_all(text.as_bytes()).unwrap();
}

#[test]
fn elasticsearch_is_sent_documents_again_until_it_has_made_them_all() {
    let directory = tempfile::tempdir().unwrap();
    let credentials = directory.path().join("credentials");
    fs::write(&credentials, "flows:secret\n").unwrap();
    let (listener, address) = listener();
    let agent =
        Agent::start(&format!("elasticsearch+http://{address}/logs/flows?credentials={}", credentials.display()));
    agent.collectors.offer(&[flow(0), flow(1)]);
    let mut stream = patient(listener.accept().unwrap().0);
    let (line, head, body) = request(&mut stream);
    assert_eq!(
        (line.as_str(), body.as_slice()),
        ("post /logs/_bulk http/1.1", &*podnet_flow::export::bulk::request("flows", &[flow(0), flow(1)]))
    );
    // In base64, in small letters.
    assert!(
        head.contains("authorization: basic zmxvd3m6c2vjcmv0\r\n") && head.contains("application/x-ndjson"),
        "{head}"
    );
    answer(&mut stream, "401 Unauthorized", "who are you");
    fs::write(&credentials, "ApiKey abc\n").unwrap();
    let made = r#"{"create":{"status":201}}"#;
    let (_, head, again) = request(&mut stream);
    assert!(again == body && head.contains("authorization: apikey abc\r\n"), "{head}");
    answer(&mut stream, "200 OK", &format!(r#"{{"errors":true,"items":[{made},{{"create":{{"status":429}}}}]}}"#));
    assert_eq!(request(&mut stream).2, body, "all are sent again where one had no room");
    answer(&mut stream, "200 OK", &format!(r#"{{"errors":true,"items":[{{"create":{{"status":409}}}},{made}]}}"#));
    wait("both have come", || agent.metric("sent_records_total") == 2);
    assert_eq!((agent.metric("failed_batches_total"), agent.metric("spilled_records_total")), (2, 2));
    agent.end();
}

#[test]
fn otlp_is_sent_less_at_once_where_that_was_too_much() {
    let (listener, address) = listener();
    let agent = Agent::start(&format!("otlp+http://{address}"));
    agent.collectors.offer(&[flow(0), flow(1)]);
    let mut stream = patient(listener.accept().unwrap().0);
    let (line, head, body) = request(&mut stream);
    assert_eq!(line, "post /v1/logs http/1.1");
    assert!(head.contains("content-type: application/json\r\n"), "{head}");
    let expected = |items: &[Numbered]| podnet_flow::export::otlp::request(items, env!("CARGO_PKG_VERSION"));
    assert_eq!(body, expected(&[flow(0), flow(1)]));
    answer(&mut stream, "413 Payload Too Large", "");
    assert_eq!(request(&mut stream).2, expected(&[flow(0)]));
    answer(&mut stream, "200 OK", "{}");
    assert_eq!(request(&mut stream).2, expected(&[flow(1)]));
    answer(&mut stream, "200 OK", r#"{"partialSuccess":{"rejectedLogRecords":"1","errorMessage":"too old"}}"#);
    wait("one has come", || agent.metric("sent_records_total") == 1 && agent.metric("refused_records_total") == 1);
    let told = request(&mut stream).2;
    assert!(String::from_utf8(told).unwrap().contains("node1/1/1/missing"), "that the other is missing is told");
    answer(&mut stream, "200 OK", "{}");
    wait("it has come", || agent.metric("sent_records_total") == 2);
    agent.end();
}

#[test]
fn records_are_on_disk_before_they_are_sent_where_the_url_says_so() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    for (query, spilled) in [("", 0), ("?buffer=disk", 1)] {
        let agent = Agent::start(&format!("syslog+udp://{}{query}", socket.local_addr().unwrap()));
        agent.collectors.offer(&[flow(0)]);
        wait("it is sent", || agent.metric("sent_records_total") == 1);
        assert_eq!(agent.metric("spilled_records_total"), spilled, "{query}");
        agent.end();
    }
}

#[test]
fn ipfix_over_tcp_begins_each_connection_with_templates() {
    let (listener, address) = listener();
    let agent = Agent::start(&format!("ipfix+tcp://{address}"));
    let message = |stream: &mut BufReader<TcpStream>| {
        let mut head = [0; 4];
        stream.read_exact(&mut head).unwrap();
        assert_eq!(head[..2], [0, 10]);
        let mut rest = vec![0; usize::from(u16::from_be_bytes([head[2], head[3]])) - 4];
        stream.read_exact(&mut rest).unwrap();
        // The sequence number, and the first set's id.
        (u32::from_be_bytes(rest[4..8].try_into().unwrap()), u16::from_be_bytes([rest[12], rest[13]]))
    };
    agent.collectors.offer(&[flow(0)]);
    let mut stream = patient(listener.accept().unwrap().0);
    assert_eq!([message(&mut stream), message(&mut stream)], [(0, 2), (0, 256)]);
    wait("it has come", || agent.metric("sent_records_total") == 1);
    agent.collectors.offer(&[flow(1)]);
    assert_eq!(message(&mut stream), (1, 256));
    wait("it has come", || agent.metric("sent_records_total") == 2);
    drop(stream);
    agent.collectors.offer(&[gap(2, 1)]);
    let mut stream = patient(listener.accept().unwrap().0);
    assert_eq!([message(&mut stream), message(&mut stream)], [(0, 2), (0, 258)]);
    agent.end();
}
