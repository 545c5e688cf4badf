//! Connections while the Corefile changes: what is asked on them is answered all the same.

use tokio::net::TcpStream;

use super::{load::flaw, secure::certificate, *};

/// How dnsperf asks, and the scheme of the block that answers.
const WAYS: [(&str, &str); 3] = [("tcp", "dns"), ("dot", "tls"), ("doh", "https")];

/// Questions on few connections for some seconds, and what is told of them.
async fn asked(directory: &Directory, way: &str, port: u16) -> String {
    let questions = directory.write(&format!("questions-{way}"), "a.example.com A\n");
    // dnsperf takes one answer out of what it reads of HTTP/2 at once, and loses the others.
    let [at_once, connections] = if way == "doh" { ["1", "1"] } else { ["20", "4"] };
    let output = Command::new("dnsperf")
        .args(["-m", way, "-s", "127.0.0.1", "-p", &port.to_string(), "-l", "4", "-t", "20"])
        .args(["-Q", "500", "-q", at_once, "-c", connections, "-O", "doh-uri=https://127.0.0.1/dns-query", "-d"])
        .arg(questions)
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn no_question_over_tcp_tls_or_https_is_lost_while_the_corefile_changes() {
    let directory = Directory::new("connected");
    certificate(&directory, "own");
    let ports = [free_port().await, free_port().await, free_port().await];
    let text = |version: u32| {
        let block = |((_, scheme), port): (&(&str, &str), &u16)| {
            let more = if *scheme == "dns" { "reload 10h" } else { "tls own.pem own.key" };
            format!(
                "{scheme}://.:{port} {{\n root {}\n {more}\n hosts /nowhere {{\n  10.0.0.7 a.example.com\n  \
                 10.0.1.{version} version.example.com\n }}\n}}\n",
                directory.0.display()
            )
        };
        WAYS.iter().zip(&ports).map(block).collect::<String>()
    };
    let process = Process::start(&mounted(&directory, 0, &text(0)), None);
    dig_until(ports[0], "version.example.com A +short", "10.0.1.0").await;
    let begun = Instant::now();
    for port in ports {
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            assert!(begun.elapsed() < DEADLINE, "nobody listens on {port}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    let changes = async {
        for version in 1..=10 {
            mounted(&directory, version, &text(version));
            dig_until(ports[0], "version.example.com A +short", &format!("10.0.1.{version}\n")).await;
        }
    };
    let [tcp, tls, https] = [0, 1, 2].map(|way: usize| asked(&directory, WAYS[way].0, ports[way]));
    let (tcp, tls, https, ()) = tokio::join!(tcp, tls, https, changes);
    for (report, (way, _)) in [tcp, tls, https].iter().zip(WAYS) {
        assert_eq!(flaw(report), None, "{way}: {report}");
    }
    process.stop().await;
}
