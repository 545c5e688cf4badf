//! What comes encrypted or in requests: DNS over TLS and HTTPS, asked by kdig, and gRPC.

use axum::http::{HeaderMap, Request, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    net::{TcpStream, UnixListener},
    task::JoinSet,
};

use super::*;
use crate::dns::protobuf;

pub(super) const NAME: &str = "dns.example.org";

/// Puts a certificate of its own and its key into a directory.
pub(super) fn certificate(directory: &Directory, name: &str) {
    let made = rcgen::generate_simple_self_signed(vec![NAME.to_owned(), "127.0.0.1".to_owned()]).unwrap();
    directory.write(&format!("{name}.key"), &made.signing_key.serialize_pem());
    directory.write(&format!("{name}.pem"), &made.cert.pem());
}

/// What kdig says of the one name that there is.
pub(super) async fn kdig(port: u16, arguments: &[String]) -> String {
    let output = Command::new("kdig")
        .args(["@127.0.0.1", "-p", &port.to_string(), "+retry=0", "+timeout=5"])
        .args(arguments)
        .args(["a.example.com", "A"])
        .output()
        .await
        .expect("kdig is there; scripts/setup test installs it");
    String::from_utf8(output.stdout).unwrap()
}

pub(super) async fn kdig_until(port: u16, arguments: &[String], wanted: &str) -> String {
    let start = Instant::now();
    loop {
        let said = kdig(port, arguments).await;
        if said.contains(wanted) {
            return said;
        }
        assert!(start.elapsed() < DEADLINE, "{arguments:?}: wanted {wanted:?}, got {said}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(super) fn trusting(directory: &Directory, name: &str, how: &str) -> Vec<String> {
    let authorities = directory.0.join(format!("{name}.pem"));
    vec![how.to_owned(), format!("+tls-ca={}", authorities.display()), format!("+tls-hostname={NAME}")]
}

fn corefile(directory: &Directory, blocks: &[(&str, u16, &str)]) -> PathBuf {
    let block = |(scheme, port, more): &(&str, u16, &str)| {
        format!(
            "{scheme}://.:{port} {{\n root {}\n {more}\n hosts /nowhere {{\n  10.0.0.1 a.example.com\n }}\n}}\n",
            directory.0.display()
        )
    };
    directory.write("Corefile", &blocks.iter().map(block).collect::<String>())
}

#[tokio::test(flavor = "multi_thread")]
async fn kdig_asks_over_tls_and_a_renewed_certificate_is_shown_by_itself() {
    let directory = Directory::new("dot");
    certificate(&directory, "own");
    let port = free_port().await;
    let corefile = corefile(&directory, &[("tls", port, "tls own.pem own.key")]);
    let process = Process::start(&corefile, None);
    let first = trusting(&directory, "own", "+tls");
    kdig_until(port, &first, "10.0.0.1").await;
    // As whoever trusts the first one sees it.
    std::fs::copy(directory.0.join("own.pem"), directory.0.join("old.pem")).unwrap();
    let old = trusting(&directory, "old", "+tls");
    let garbage = std::fs::read_to_string(directory.0.join("own.key")).unwrap();
    directory.write("own.pem", &garbage);
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(30)).await;
        assert!(kdig(port, &old).await.contains("10.0.0.1"), "what cannot be read changes nothing");
    }
    certificate(&directory, "own");
    kdig_until(port, &first, "10.0.0.1").await;
    assert!(!kdig(port, &old).await.contains("10.0.0.1"), "the first certificate is still shown");
    assert!(!kdig(port, &["+tcp".to_owned()]).await.contains("10.0.0.1"), "nothing is said in plain");
    process.stop().await;
    directory.write("Corefile", &format!("tls://.:{port} {{\n tls /nowhere/own.pem /nowhere/own.key\n whoami\n}}\n"));
    let error = Process::start(&corefile, None).task.await.unwrap().unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(error.to_string().contains(&format!("cannot serve tls://:{port}")), "{error}");
    assert!(cause.contains("/nowhere/own.pem: No such file"), "{cause}");
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_are_asked_for_certificates_as_the_corefile_says() {
    let directory = Directory::new("auth");
    for name in ["own", "known", "strange"] {
        certificate(&directory, name);
    }
    let modes = ["nocert", "request", "require", "verify_if_given", "require_and_verify"];
    let mut blocks = Vec::new();
    for mode in modes {
        let more = format!("tls own.pem own.key known.pem {{\n  client_auth {mode}\n  keylog {mode}.keys\n }}");
        blocks.push((free_port().await, more));
    }
    let written: Vec<(&str, u16, &str)> = blocks.iter().map(|(port, more)| ("tls", *port, more.as_str())).collect();
    let process = Process::start(&corefile(&directory, &written), None);
    let shown = |name: &str| {
        let path = |kind: &str| directory.0.join(format!("{name}.{kind}")).display().to_string();
        [
            trusting(&directory, "own", "+tls"),
            vec![format!("+tls-certfile={}", path("pem")), format!("+tls-keyfile={}", path("key"))],
        ]
        .concat()
    };
    kdig_until(blocks[4].0, &shown("known"), "10.0.0.1").await;
    for ((port, _), (mode, [none, known, strange])) in blocks.iter().zip(modes.into_iter().zip([
        [true, true, true],
        [true, true, true],
        [false, true, true],
        [true, true, false],
        [false, true, false],
    ])) {
        let cases = [(trusting(&directory, "own", "+tls"), none), (shown("known"), known), (shown("strange"), strange)];
        for (arguments, served) in cases {
            let said = kdig(*port, &arguments).await;
            assert_eq!(said.contains("10.0.0.1"), served, "{mode}: {arguments:?}\n{said}");
        }
    }
    let keys = std::fs::read_to_string(directory.0.join("nocert.keys")).unwrap();
    assert!(keys.lines().any(|line| line.starts_with("SERVER_TRAFFIC_SECRET_0 ")), "{keys}");
    process.stop().await;
}

/// What a server says to a request in plain HTTP/1.1.
async fn request(port: u16, head: &str, body: &[u8]) -> String {
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let head = format!("{head}\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
    // Who is turned away may be so before all was sent: what was said by then counts.
    let _ = stream.write_all(&[head.as_bytes(), body].concat()).await;
    let mut response = Vec::new();
    let _ = stream.read_to_end(&mut response).await;
    String::from_utf8_lossy(&response).into_owned()
}

const QUESTION: &[u8] = b"\0\0\x01\0\0\x01\0\0\0\0\0\0\x01a\x07example\x03com\0\0\x01\0\x01";

#[tokio::test(flavor = "multi_thread")]
async fn kdig_asks_over_https_and_requests_that_are_none_are_told_why() {
    let directory = Directory::new("doh");
    certificate(&directory, "own");
    let (port, plain, metrics) = (free_port().await, free_port().await, free_port().await);
    let more = format!("acl {{\n  drop type TXT\n }}\n prometheus 127.0.0.1:{metrics}");
    let blocks = [("https", port, "tls own.pem own.key"), ("https", plain, more.as_str())];
    let process = Process::start(&corefile(&directory, &blocks), None);
    for how in ["+https", "+https-get"] {
        kdig_until(port, &trusting(&directory, "own", how), "10.0.0.1").await;
    }
    let post = "POST /dns-query HTTP/1.1\r\nContent-Type: application/dns-message";
    let told = request(plain, post, QUESTION).await.to_ascii_lowercase();
    assert!(told.starts_with("http/1.1 200"), "{told}");
    // The hosts' own time to live (RFC 8484 §5.1).
    assert!(told.contains("cache-control: max-age=3600\r\n"), "{told}");
    assert!(told.contains("content-type: application/dns-message\r\n"), "{told}");
    let encoded = data_encoding::BASE64URL_NOPAD.encode(QUESTION);
    for (head, body, wanted) in [
        (format!("GET /dns-query?x=1&dns={encoded} HTTP/1.1"), &b""[..], "200"),
        (format!("GET /dns-query?dns={encoded}= HTTP/1.1"), b"", "400"),
        ("GET /dns-query HTTP/1.1".to_owned(), b"", "400"),
        ("GET / HTTP/1.1".to_owned(), b"", "404"),
        ("PUT /dns-query HTTP/1.1".to_owned(), QUESTION, "405"),
        ("POST /dns-query HTTP/1.1".to_owned(), QUESTION, "415"),
        (post.to_owned(), b"short", "400"),
        (post.to_owned(), &[0; 5000], "413"),
    ] {
        let told = request(plain, &head, body).await;
        assert!(told.starts_with(&format!("HTTP/1.1 {wanted}")), "{head}: {told}");
    }
    let mut unheard = QUESTION.to_vec();
    unheard[QUESTION.len() - 3] = 16;
    assert_eq!(request(plain, post, &unheard).await, "", "who is not to be answered gets no status either");
    let text = fetch(metrics, "/metrics").await;
    for (status, count) in [(200, 2), (400, 3), (404, 1)] {
        let line =
            format!("coredns_dns_https_responses_total{{server=\"https://:{plain}\",status=\"{status}\"}} {count}");
        assert!(text.contains(&line), "{line}: {text}");
    }
    process.stop().await;
}

/// Calls the method and tells the answer and the status.
async fn call(port: u16, path: &str, body: Vec<u8>) -> (Vec<u8>, HeaderMap) {
    let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = Request::post(format!("http://x{path}"))
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .body(Full::new(Bytes::from(body)))
        .unwrap();
    let answered = sender.send_request(request).await.unwrap().into_body().collect().await.unwrap();
    connection.abort();
    let trailers = answered.trailers().cloned().unwrap_or_default();
    (answered.to_bytes().to_vec(), trailers)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_speaks_grpc_is_answered_and_told_what_is_wrong() {
    let directory = Directory::new("grpc");
    let port = free_port().await;
    let process = Process::start(&corefile(&directory, &[("grpc", port, "")]), None);
    let start = Instant::now();
    while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
        assert!(start.elapsed() < DEADLINE, "nobody listens");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let method = "/coredns.dns.DnsService/Query";
    let (answer, trailers) = call(port, method, protobuf::framed(QUESTION)).await;
    assert_eq!(trailers["grpc-status"], "0");
    let answer = protobuf::unframed(&answer).unwrap();
    assert_eq!(answer[answer.len() - 4..], [10, 0, 0, 1]);
    for (path, body, status) in
        [(method, vec![1, 0, 0, 0, 0], "3"), (method, protobuf::framed(b"short"), "14"), ("/other", vec![], "12")]
    {
        let (answer, trailers) = call(port, path, body).await;
        assert_eq!((trailers["grpc-status"].to_str().unwrap(), answer.len()), (status, 0));
    }
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn upstreams_are_asked_over_https_and_by_grpc() {
    let directory = Directory::new("carriers");
    certificate(&directory, "own");
    let (https, grpc, secured) = (free_port().await, free_port().await, free_port().await);
    let metrics = free_port().await;
    let served =
        [("https", https, "tls own.pem own.key"), ("grpc", grpc, ""), ("grpc", secured, "tls own.pem own.key")];
    let path = corefile(&directory, &served);
    let mut text = std::fs::read_to_string(&path).unwrap();
    let tls = format!("{{\n  tls {}/own.pem\n  tls_servername {NAME}\n", directory.0.display());
    let sockets = [directory.0.join("grpc.sock"), directory.0.join("secured.sock")];
    let ways = [grpc, secured].into_iter().zip(&sockets).map(|(port, socket)| leading(socket, port));
    let ways: Vec<JoinHandle<()>> = ways.collect();
    let mut ports = Vec::new();
    for asking in [
        format!("forward . https://127.0.0.1:{https} {tls} }}"),
        format!("forward . https://127.0.0.1:{https} {tls}  doh_method GET\n }}"),
        format!("grpc . 127.0.0.1:{grpc}"),
        format!("grpc . 127.0.0.1:{secured} {tls}  pool_size 2\n }}"),
        format!("grpc . unix://{}", sockets[0].display()),
        format!("grpc . unix://{} {tls} }}", sockets[1].display()),
    ] {
        let port = free_port().await;
        ports.push(port);
        text.push_str(&format!(".:{port} {{\n prometheus 127.0.0.1:{metrics}\n {asking}\n}}\n"));
    }
    directory.write("Corefile", &text);
    let process = Process::start(&path, None);
    for port in ports {
        dig_until(port, "a.example.com A +short", "10.0.0.1").await;
        // Several at once, over a connection that is there.
        let asked = futures::future::join_all((0..8).map(|_| dig(port, "a.example.com A +short")));
        assert_eq!(asked.await, vec!["10.0.0.1\n"; 8]);
    }
    let text = fetch(metrics, "/metrics").await;
    for (to, least) in [(grpc, 1), (secured, 2)] {
        let pool = format!("coredns_grpc_pool_size{{to=\"127.0.0.1:{to}\"}} ");
        let open = text.lines().find_map(|line| line.strip_prefix(&pool)).unwrap_or_else(|| panic!("{pool}: {text}"));
        assert!(open.parse::<u64>().unwrap() >= least, "{pool}: {open}");
    }
    assert!(!text.contains(&format!("coredns_grpc_pool_size{{to=\"127.0.0.1:{https}\"")), "{text}");
    process.stop().await;
    ways.iter().for_each(JoinHandle::abort);
}

/// A unix socket that leads to a port.
fn leading(socket: &Path, port: u16) -> JoinHandle<()> {
    let listener = UnixListener::bind(socket).unwrap();
    tokio::spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((mut from, _)) = listener.accept().await {
            connections.spawn(async move {
                if let Ok(mut to) = TcpStream::connect(("127.0.0.1", port)).await {
                    let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
                }
            });
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_is_written_by_its_name_shows_a_certificate_for_that_name() {
    let directory = Directory::new("written");
    // For the name alone, and for no address.
    let made = rcgen::generate_simple_self_signed(vec![NAME.to_owned()]).unwrap();
    directory.write("own.key", &made.signing_key.serialize_pem());
    directory.write("own.pem", &made.cert.pem());
    let (secured, names) = (free_port().await, free_port().await);
    let mut text = std::fs::read_to_string(corefile(&directory, &[("tls", secured, "tls own.pem own.key")])).unwrap();
    let hosts = [NAME, "other.example.org"].map(|name| format!("  127.0.0.1 {name}\n")).concat();
    text.push_str(&format!(".:{names} {{\n hosts /nowhere {{\n{hosts} }}\n}}\n"));
    let upstream = Process::start(&directory.write("Upstream", &text), None);
    dig_until(names, &format!("{NAME} A +short"), "127.0.0.1\n").await;
    let forwarding = async |host: &str, more: &str| {
        let port = free_port().await;
        let authorities = directory.0.join("own.pem");
        let text = format!(
            ".:{port} {{\n forward . tls://{host}:{secured} {{\n  resolver 127.0.0.1:{names}\n  tls {}\n{more}  \
             max_fails 0\n }}\n}}\n",
            authorities.display()
        );
        (port, Process::start(&directory.write(&format!("Corefile{port}"), &text), None))
    };
    let (port, process) = forwarding(NAME, "").await;
    dig_until(port, "a.example.com A +short", "10.0.0.1\n").await;
    process.stop().await;
    // It leads to the same server, which is not who it is taken for.
    let (port, process) = forwarding("other.example.org", "").await;
    dig_until(port, "a.example.com A", "SERVFAIL").await;
    process.stop().await;
    let (port, process) = forwarding("other.example.org", &format!("  tls_servername {NAME}\n")).await;
    dig_until(port, "a.example.com A +short", "10.0.0.1\n").await;
    process.stop().await;
    let (port, process) = forwarding("127.0.0.1", "").await;
    dig_until(port, "a.example.com A", "SERVFAIL").await;
    process.stop().await;
    upstream.stop().await;
}
