//! Where questions come in: addresses, sockets, and connections that last only so long.

use tokio::net::{TcpSocket, TcpStream};

use super::*;

fn hosts(address: &str) -> String {
    format!("hosts /nowhere {{\n  {address} a.example.com\n }}")
}

/// A question for the address of a name whose first label is as long as it says.
pub(super) fn question(id: u8, label: &str) -> Vec<u8> {
    let mut message = vec![0, id, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, label.len() as u8];
    message.extend_from_slice(label.as_bytes());
    message.extend_from_slice(b"\x07example\x03com\0\0\x01\0\x01");
    message
}

pub(super) async fn ask(stream: &mut TcpStream, message: &[u8]) {
    let mut frame = (message.len() as u16).to_be_bytes().to_vec();
    frame.extend_from_slice(message);
    stream.write_all(&frame).await.unwrap();
}

/// The next answer's id and code; none: the connection ended.
async fn answer(stream: &mut TcpStream) -> Option<(u8, u8)> {
    let read = async {
        let mut message = vec![0; usize::from(stream.read_u16().await.ok()?)];
        stream.read_exact(&mut message).await.ok()?;
        Some((message[1], message[3] & 15))
    };
    tokio::time::timeout(DEADLINE, read).await.expect("neither an answer nor the end")
}

async fn connect(port: u16) -> TcpStream {
    TcpStream::connect(("127.0.0.1", port)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn blocks_answer_at_the_addresses_that_they_bind_to_and_nowhere_else() {
    let directory = Directory::new("bind");
    let (port, of_interface) = (free_port().await, free_port().await);
    let corefile = directory.write(
        "Corefile",
        &format!(
            ".:{port} {{\n bind 127.0.0.2 127.0.0.3\n {}\n}}\n.:{port} {{\n bind 127.0.0.4\n {}\n}}\n\
             example.com:{of_interface} {{\n bind lo {{\n  except ::1\n }}\n {}\n}}\n",
            hosts("10.0.0.1"),
            hosts("10.0.0.2"),
            hosts("10.0.0.3")
        ),
    );
    let process = Process::start(&corefile, None);
    dig_until(of_interface, "a.example.com A +short", "10.0.0.3").await;
    for transport in ["+notcp", "+tcp"] {
        let ask = async |address| dig_at(address, port, &format!("a.example.com A +short {transport}")).await;
        assert_eq!(ask("127.0.0.2").await, "10.0.0.1\n");
        assert_eq!(ask("127.0.0.3").await, "10.0.0.1\n");
        assert_eq!(ask("127.0.0.4").await, "10.0.0.2\n");
    }
    assert!(TcpStream::connect(("127.0.0.1", port)).await.is_err());
    // Some at one address, and others at all the rest.
    let wider = format!(
        ".:{port} {{\n reload 2s 1s\n bind 127.0.0.2\n {}\n}}\nexample.com:{port} {{\n bind 0.0.0.0\n {}\n}}\n",
        hosts("10.0.0.4"),
        hosts("10.0.0.5")
    );
    process.stop().await;
    let process = Process::start(&directory.write("Corefile", &wider), None);
    dig_until(port, "a.example.com A +short", "10.0.0.5").await;
    for transport in ["+notcp", "+tcp"] {
        let ask = async |address| dig_at(address, port, &format!("a.example.com A +short {transport}")).await;
        assert_eq!(ask("127.0.0.2").await, "10.0.0.4\n");
        assert_eq!(ask("127.0.0.9").await, "10.0.0.5\n");
    }
    process.stop().await;
    let nobody = directory.write("Corefile", ".:53 {\n bind nobody0\n whoami\n}\n");
    let error = Process::start(&nobody, None).task.await.unwrap().unwrap_err().to_string();
    assert!(error.contains("Corefile:2:7: the interface to bind to \"nobody0\" cannot be read"), "{error}");
}

/// How many sockets of this machine take datagrams at a port of the loopback.
fn sockets(port: u16) -> usize {
    let table = std::fs::read_to_string("/proc/net/udp").unwrap();
    table.lines().filter(|line| line.contains(&format!(": 0100007F:{port:04X} "))).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_has_as_many_sockets_as_the_corefile_says_also_when_it_changes() {
    let directory = Directory::new("multisocket");
    let port = free_port().await;
    let text = |count: usize, address: &str| {
        format!(".:{port} {{\n reload 2s 1s\n multisocket {count}\n {}\n}}\n", hosts(address))
    };
    let process = Process::start(&directory.write("Corefile", &text(3, "10.0.0.1")), None);
    dig_until(port, "a.example.com A +short", "10.0.0.1").await;
    assert_eq!(sockets(port), 3);
    for (count, address) in [(5, "10.0.0.2"), (1, "10.0.0.3")] {
        directory.write("Corefile", &text(count, address));
        dig_until(port, "a.example.com A +short", address).await;
        let start = Instant::now();
        while sockets(port) != count {
            assert!(start.elapsed() < DEADLINE, "{} sockets instead of {count}", sockets(port));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    assert_eq!(dig(port, "a.example.com A +short").await, "10.0.0.3\n");
    process.stop().await;
}

/// How many sockets of this machine are at all addresses, in a table of /proc/net, at a port.
fn wide_sockets(table: &str, port: u16) -> usize {
    let (table, port) = (std::fs::read_to_string(table).unwrap(), format!(":{port:04X}"));
    let places = table.lines().filter_map(|line| line.split_whitespace().nth(1));
    places.filter(|place| place.trim_start_matches('0') == port).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn at_all_addresses_each_family_has_sockets_of_its_own_that_answer_from_where_they_were_asked() {
    let directory = Directory::new("families");
    let port = free_port().await;
    let text = |count: usize, address: &str| {
        format!(".:{port} {{\n reload 2s 1s\n bind ::\n multisocket {count}\n {}\n}}\n", hosts(address))
    };
    let process = Process::start(&directory.write("Corefile", &text(1, "10.0.0.1")), None);
    for (count, address) in [(1, "10.0.0.1"), (3, "10.0.0.2"), (2, "10.0.0.3")] {
        directory.write("Corefile", &text(count, address));
        dig_until(port, "a.example.com A +short", address).await;
        let start = Instant::now();
        let sockets = || ["/proc/net/udp", "/proc/net/udp6"].map(|table| wide_sockets(table, port));
        while sockets() != [count, count] {
            assert!(start.elapsed() < DEADLINE, "{:?} sockets instead of {count} for each family", sockets());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        for asked in ["127.0.0.9", "::1"] {
            assert_eq!(dig_at(asked, port, "a.example.com A +short").await, format!("{address}\n"), "{asked}");
        }
    }
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_query_is_lost_while_a_port_gets_more_sockets_and_fewer() {
    let directory = Directory::new("resized");
    let port = free_port().await;
    let text = |count: u32, version: u32| {
        format!(
            ".:{port} {{\n reload 10h\n multisocket {count}\n hosts /nowhere {{\n  10.0.0.7 a.example.com\n  \
             10.0.1.{version} version.example.com\n }}\n}}\n"
        )
    };
    let process = Process::start(&directory.write("Corefile", &text(5, 0)), None);
    dig_until(port, "version.example.com A +short", "10.0.1.0\n").await;
    let changes = async {
        for version in 1..=20 {
            directory.write("Corefile", &text(if version % 2 == 0 { 5 } else { 1 }, version));
            dig_until(port, "version.example.com A +short", &format!("10.0.1.{version}\n")).await;
        }
    };
    // Many sockets ask, so that each of those that close is somebody's.
    let load = Load::start(port, &directory, &["-l", "6", "-Q", "5000", "-q", "100", "-c", "50"]);
    tokio::join!(load.finish(), changes);
    process.stop().await;
}

/// Whether an epoll of this process hears of sockets that a table of /proc/net has at a port (proc(5): `fdinfo` names inodes).
fn heard_of(table: &str, port: u16) -> bool {
    let table = std::fs::read_to_string(table).unwrap();
    let lines = table
        .lines()
        .filter(|line| line.split_whitespace().nth(1).is_some_and(|at| at.ends_with(&format!(":{port:04X}"))));
    let inodes: Vec<u64> = lines.map(|line| line.split_whitespace().nth(9).unwrap().parse().unwrap()).collect();
    assert!(!inodes.is_empty(), "no socket at port {port}");
    let watching = std::fs::read_dir("/proc/self/fdinfo").unwrap().map(|entry| entry.unwrap().path());
    // One that was closed meanwhile tells nothing.
    let watching: String = watching.filter_map(|path| std::fs::read_to_string(path).ok()).collect();
    inodes.iter().any(|inode| watching.contains(&format!("ino:{inode:x} ")))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_runtime_hears_of_connections_and_of_no_single_datagrams() {
    let directory = Directory::new("quiet");
    let port = free_port().await;
    let corefile = directory.write("Corefile", &format!(".:{port} {{\n bind 127.0.0.1\n {}\n}}\n", hosts("10.0.0.1")));
    let process = Process::start(&corefile, None);
    dig_until(port, "a.example.com A +short", "10.0.0.1").await;
    assert!(heard_of("/proc/net/tcp", port));
    assert!(!heard_of("/proc/net/udp", port), "each datagram wakes a thread of the runtime");
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_last_as_long_as_the_corefile_says() {
    let directory = Directory::new("timeouts");
    let (port, upstream) = (free_port().await, upstream().await);
    let timeouts = "timeouts {\n  read 1s\n  idle 2s\n  maxtcpqueries 3\n }";
    let corefile = directory.write(
        "Corefile",
        &format!(".:{port} {{\n {timeouts}\n forward . {upstream} {{\n max_fails 0\n  prefer_udp\n }}\n}}\n"),
    );
    let process = Process::start(&corefile, None);
    dig_until(port, "a.example.com A +short", "192.0.2.0").await;
    let start = Instant::now();
    let (mut idle, mut half, mut busy) = (connect(port).await, connect(port).await, connect(port).await);
    half.write_all(&[0]).await.unwrap();
    // What takes long is answered behind what comes later (RFC 7766 §6.2.1.1), and silence is none while something is asked.
    ask(&mut busy, &question(1, "silent")).await;
    ask(&mut busy, &question(2, "a")).await;
    assert_eq!(answer(&mut busy).await, Some((2, 0)));
    assert_eq!(answer(&mut half).await, None);
    assert!(start.elapsed() >= Duration::from_secs(1));
    assert_eq!(answer(&mut idle).await, None);
    assert!(start.elapsed() >= Duration::from_secs(2));
    assert_eq!(answer(&mut busy).await, Some((1, 2)), "the answer comes, though the connection was silent for long");
    ask(&mut busy, &question(3, "b")).await;
    ask(&mut busy, &question(4, "c")).await;
    assert_eq!(answer(&mut busy).await, Some((3, 0)));
    assert_eq!(answer(&mut busy).await, None, "three queries are enough");
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_client_does_not_take_all_connections() {
    let directory = Directory::new("share");
    let port = free_port().await;
    let corefile = directory.write("Corefile", &format!(".:{port} {{\n {}\n}}\n", hosts("10.0.0.1")));
    let process = Process::start(&corefile, None);
    dig_until(port, "a.example.com A +short", "10.0.0.1").await;
    let mut served = Vec::new();
    loop {
        let mut stream = connect(port).await;
        ask(&mut stream, &question(1, "a")).await;
        if answer(&mut stream).await.is_none() {
            break;
        }
        served.push(stream);
        assert!(served.len() < 1000, "no end of connections");
    }
    assert_eq!(served.len(), 250);
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.9:0".parse().unwrap()).unwrap();
    let mut other = socket.connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await.unwrap();
    ask(&mut other, &question(2, "a")).await;
    assert_eq!(answer(&mut other).await, Some((2, 0)));
    // Who leaves makes room.
    served.clear();
    let start = Instant::now();
    loop {
        let mut stream = connect(port).await;
        ask(&mut stream, &question(3, "a")).await;
        if answer(&mut stream).await == Some((3, 0)) {
            break;
        }
        assert!(start.elapsed() < DEADLINE, "no room");
    }
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_may_have_as_many_files_open_as_the_kernel_lets_it() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let directory = Directory::new("descriptors");
    let port = free_port().await;
    let most = podnet_kernel::descriptors::raise_limit().unwrap().min(1 << 16);
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: Some(most - 1), maximum }).unwrap();
    let process = Process::start(&directory.write("Corefile", &format!(".:{port} {{\n whoami\n}}\n")), None);
    dig_until(port, "a.example.com A", "NOERROR").await;
    assert_eq!(getrlimit(Resource::Nofile).current, Some(most));
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn health_readiness_and_metrics_are_served_wherever_a_block_wants_them() {
    let directory = Directory::new("several-ports");
    let port = free_port().await;
    let mut web = Vec::new();
    for path in ["/health", "/ready", "/metrics"] {
        web.push((path, free_port().await, free_port().await));
    }
    let block = |zone: &str, ports: [u16; 3]| {
        let [health, ready, metrics] = ports;
        format!(
            "{zone}:{port} {{\n health 127.0.0.1:{health}\n ready 127.0.0.1:{ready}\n prometheus 127.0.0.1:{metrics}\n \
             whoami\n}}\n"
        )
    };
    let ports = |of: fn(&(&str, u16, u16)) -> u16| [of(&web[0]), of(&web[1]), of(&web[2])];
    let text = block("one.example", ports(|one| one.1)) + &block("two.example", ports(|one| one.2));
    let process = Process::start(&directory.write("Corefile", &text), None);
    dig_until(port, "a.one.example A", "NOERROR").await;
    for (path, one, other) in &web {
        for port in [one, other] {
            assert!(fetch(*port, path).await.starts_with("HTTP/1.1 200"), "{path} at {port}");
        }
    }
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_says_nothing_at_the_ports_of_health_readiness_and_metrics_keeps_nobody_out_and_is_let_go() {
    let directory = Directory::new("silent");
    let (port, health, ready, metrics) = (free_port().await, free_port().await, free_port().await, free_port().await);
    let ports = format!("health 127.0.0.1:{health}\n ready 127.0.0.1:{ready}\n prometheus 127.0.0.1:{metrics}");
    let process = Process::start(&directory.write("Corefile", &format!(".:{port} {{\n {ports}\n whoami\n}}\n")), None);
    dig_until(port, "a.example.com A", "NOERROR").await;
    let mut silent = Vec::new();
    for (port, path) in [(health, "/health"), (ready, "/ready"), (metrics, "/metrics")] {
        for number in 0..100 {
            let mut stream = connect(port).await;
            // Some begin to say something, and never end.
            if number % 2 == 0 {
                stream.write_all(b"GET / HTTP/1.1\r\nX: ").await.unwrap();
            }
            silent.push(stream);
        }
        assert!(fetch(port, path).await.starts_with("HTTP/1.1 200"), "{path}");
    }
    for mut stream in silent {
        let ended = tokio::time::timeout(DEADLINE, stream.read(&mut [0])).await.expect("it is kept for good");
        assert!(matches!(ended, Ok(0) | Err(_)));
    }
    process.stop().await;
}
