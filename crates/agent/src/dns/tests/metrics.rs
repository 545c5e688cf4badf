//! Ports of metrics and of health: encrypted, and asked by the process itself.

use podnet_dns::{Secure, chain::TlsFiles, name::Name};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{secure::certificate, *};
use crate::dns::connections;

const REQUEST: &[u8] = b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

/// What a port says of its metrics to who trusts `own`, and shows a certificate or none; nothing where it does not let it in.
async fn over_tls(directory: &Directory, port: u16, shown: Option<&str>) -> String {
    let path = |file: String| Some(directory.0.join(file).display().to_string());
    let files = TlsFiles {
        certificate: shown.and_then(|name| path(format!("{name}.pem"))),
        key: shown.and_then(|name| path(format!("{name}.key"))),
        authorities: path("own.pem".to_owned()),
    };
    let name = "dns.example.org";
    let config = connections::client(&Secure { files, name: Some(Name::parse(name).unwrap()) }).unwrap();
    let Ok(stream) = TcpStream::connect(("127.0.0.1", port)).await else { return String::new() };
    let connected = TlsConnector::from(config).connect(ServerName::try_from(name).unwrap(), stream).await;
    let Ok(mut stream) = connected else { return String::new() };
    said(&mut stream).await
}

async fn in_plain(port: u16) -> String {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)).await else { return String::new() };
    said(&mut stream).await
}

/// Who is turned away may be so before all was said.
async fn said(stream: &mut (impl AsyncReadExt + AsyncWriteExt + Unpin)) -> String {
    let mut response = Vec::new();
    let _ = stream.write_all(REQUEST).await;
    let _ = stream.flush().await;
    let _ = stream.read_to_end(&mut response).await;
    String::from_utf8_lossy(&response).into_owned()
}

fn served(said: &str) -> bool {
    said.starts_with("HTTP/1.1 200") && said.contains("coredns_build_info")
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_encrypted_as_the_corefile_says_and_a_reload_changes_how() {
    let directory = Directory::new("metrics-tls");
    for name in ["own", "known", "strange"] {
        certificate(&directory, name);
    }
    let (port, metrics) = (free_port().await, free_port().await);
    let text = |tls: &str| {
        let serving = format!("prometheus 127.0.0.1:{metrics} {{\n{tls}\n }}");
        format!(".:{port} {{\n root {}\n reload 2s 1s\n {serving}\n whoami\n}}\n", directory.0.display())
    };
    let asked_for = "client_auth_type: RequireAndVerifyClientCert, client_ca_file: known.pem";
    let web = format!("tls_server_config: {{cert_file: own.pem, key_file: own.key, {asked_for}}}\n");
    directory.write("web.yml", &web);
    let corefile = directory.write("Corefile", &text("tls web.yml"));
    let process = Process::start(&corefile, None);
    until(async || over_tls(&directory, metrics, Some("known")).await, served).await;
    for stranger in [None, Some("strange")] {
        assert_eq!(over_tls(&directory, metrics, stranger).await, "", "{stranger:?}");
    }
    assert!(!served(&in_plain(metrics).await));
    // It is the same port all the time: only what it shows is another.
    directory.write("Corefile", &text("tls own.pem own.key"));
    until(async || over_tls(&directory, metrics, None).await, served).await;
    directory.write("Corefile", &text("tls nowhere.pem own.key"));
    let failed = |said: &str| said.contains("\ncoredns_reload_failed_total 1\n");
    until(async || over_tls(&directory, metrics, None).await, failed).await;
    directory.write("Corefile", &text(""));
    until(async || in_plain(metrics).await, served).await;
    process.stop().await;
    directory.write("Corefile", &text("tls nowhere.pem own.key"));
    let error = Process::start(&corefile, None).task.await.unwrap().unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(error.to_string().contains(&format!("cannot serve metrics at 127.0.0.1:{metrics}")), "{error}");
    assert!(cause.contains("nowhere.pem: No such file"), "{cause}");
}

#[tokio::test(flavor = "multi_thread")]
async fn health_asks_itself_and_metrics_tell_what_the_process_uses() {
    let directory = Directory::new("itself");
    let (port, health, metrics) = (free_port().await, free_port().await, free_port().await);
    let text = format!(".:{port} {{\n health 127.0.0.1:{health}\n prometheus 127.0.0.1:{metrics}\n whoami\n}}\n");
    let process = Process::start(&directory.write("Corefile", &text), None);
    let answered = |said: &str| {
        let mut lines = said.lines();
        let count = lines.find_map(|line| line.strip_prefix("coredns_health_request_duration_seconds_count "));
        count.is_some_and(|count| count.parse::<u64>().unwrap() >= 2)
    };
    let text = until(async || in_plain(metrics).await, answered).await;
    for wanted in ["coredns_health_request_failures_total 0", "process_open_fds ", "process_resident_memory_bytes "] {
        assert!(text.contains(&format!("\n{wanted}")), "{wanted}: {text}");
    }
    process.stop().await;
}
