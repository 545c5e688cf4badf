//! Corefiles whose upstreams have no address yet.

use std::sync::{Arc, atomic::AtomicBool};

use super::*;

/// A name server that knows an address of every name once it is told to, and how often it was asked.
struct Names {
    addr: SocketAddr,
    asked: Arc<AtomicU16>,
    knows: Arc<AtomicBool>,
}

impl Names {
    async fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let names = Self { addr: socket.local_addr().unwrap(), asked: Arc::default(), knows: Arc::default() };
        let (asked, knows) = (Arc::clone(&names.asked), Arc::clone(&names.knows));
        tokio::spawn(async move {
            let mut query = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut query).await {
                let mut answer = query[..length].to_vec();
                let known = knows.load(Ordering::SeqCst) && query[length - 3] == 1;
                answer[2..4].copy_from_slice(&[0x81, if known { 0x80 } else { 0x83 }]);
                if known {
                    answer[7] = 1;
                    answer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1]);
                }
                socket.send_to(&answer, from).await.unwrap();
                asked.fetch_add(1, Ordering::SeqCst);
            }
        });
        names
    }

    /// Waits until it was asked for both families so many times more.
    async fn is_asked(&self, times: u16) {
        let (start, before) = (Instant::now(), self.asked.load(Ordering::SeqCst));
        while self.asked.load(Ordering::SeqCst) < before + 2 * times {
            assert!(start.elapsed() < DEADLINE, "it is not asked");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_corefile_is_tried_again_until_its_upstream_has_an_address_or_another_one_is_there() {
    let directory = Directory::new("waiting");
    let (port, metrics) = (free_port().await, free_port().await);
    let (names, upstream) = (Names::start().await, upstream().await);
    let text = |version: u32, more: &str| {
        format!(
            ".:{port} {{\n reload 10h\n prometheus 127.0.0.1:{metrics}\n hosts /nowhere {{\n  10.0.1.{version} \
             version.example.com\n  fallthrough\n }}\n {more}\n}}\n"
        )
    };
    let forward = format!("forward . later.example:{} {{\n  resolver {}\n }}", upstream.port(), names.addr);
    let process = Process::start(&directory.write("Corefile", &text(0, "")), None);
    let version = async |version: u32| {
        dig_until(port, "version.example.com A +short", &format!("10.0.1.{version}\n")).await;
    };
    let failed = async || {
        let text = fetch(metrics, "/metrics").await;
        let count = text.lines().find_map(|line| line.strip_prefix("coredns_reload_failed_total "));
        count.unwrap_or_else(|| panic!("{text}")).parse::<u32>().unwrap()
    };
    version(0).await;
    directory.write("Corefile", &text(1, &forward));
    names.is_asked(4).await;
    assert_eq!(dig(port, "version.example.com A +short").await, "10.0.1.0\n", "what was in force stays");
    assert_eq!(failed().await, 1, "it counts once, however often it is tried");
    // Another one takes its place.
    directory.write("Corefile", &text(2, ""));
    version(2).await;
    directory.write("Corefile", &text(3, &forward));
    names.is_asked(3).await;
    assert_eq!(failed().await, 2);
    // Nobody writes the file again.
    names.knows.store(true, Ordering::SeqCst);
    version(3).await;
    assert_eq!(dig(port, "www.example.org A +short").await, "192.0.2.0\n");
    assert_eq!(failed().await, 2);
    process.stop().await;
}
