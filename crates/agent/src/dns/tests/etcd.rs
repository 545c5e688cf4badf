//! Names that Debian's etcd keeps.

use super::{peers::Peer, secure::certificate, *};

/// An etcd in a directory.
struct Store<'a> {
    directory: &'a Directory,
    url: String,
    peers: u16,
    tls: bool,
}

impl<'a> Store<'a> {
    async fn new(directory: &'a Directory, tls: bool) -> Self {
        let (clients, peers) = (free_port().await, free_port().await);
        let scheme = if tls { "https" } else { "http" };
        Self { directory, url: format!("{scheme}://127.0.0.1:{clients}"), peers, tls }
    }

    fn file(&self, name: &str) -> String {
        self.directory.0.join(name).display().to_string()
    }

    /// Starts it, with what it had before.
    async fn start(&self) -> Peer {
        let peers = format!("http://127.0.0.1:{}", self.peers);
        let (data, cluster) = (self.file("etcd"), format!("default={peers}"));
        let (certificate, key) = (self.file("own.pem"), self.file("own.key"));
        let mut arguments = vec!["--data-dir", &data, "--initial-cluster", &cluster];
        arguments.extend(["--listen-client-urls", &self.url, "--advertise-client-urls", &self.url]);
        arguments.extend(["--listen-peer-urls", &peers, "--initial-advertise-peer-urls", &peers]);
        if self.tls {
            arguments.extend(["--cert-file", &certificate, "--key-file", &key]);
        }
        let peer = Peer::start("etcd", &arguments, &self.directory.0.join("etcd.log"));
        let start = Instant::now();
        while !self.says("endpoint status").await.is_ok_and(|said| said.contains(&self.url)) {
            assert!(start.elapsed() < DEADLINE, "etcd does not answer: see {}", self.file("etcd.log"));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        peer
    }

    async fn says(&self, command: &str) -> Result<String, String> {
        self.told(&command.split(' ').collect::<Vec<_>>()).await
    }

    async fn told(&self, words: &[&str]) -> Result<String, String> {
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").args(["--endpoints", &self.url, "--command-timeout", "2s"]);
        if self.tls {
            command.args(["--cacert", &self.file("own.pem")]);
        }
        let output = command.args(words).output().await.expect("etcdctl is there; scripts/setup test installs it");
        let said = |bytes| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() { Ok(said(&output.stdout)) } else { Err(said(&output.stderr)) }
    }

    async fn put(&self, key: &str, value: &str) {
        self.told(&["put", &format!("/skydns/{key}"), value]).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_in_etcd_are_answered_as_long_as_one_of_its_servers_is_there() {
    let directory = Directory::new("etcd");
    let store = Store::new(&directory, false).await;
    let etcd = store.start().await;
    let (port, nobody) = (free_port().await, free_port().await);
    let corefile = directory.write(
        "Corefile",
        &format!(
            ".:{port} {{\n etcd skydns.local 10.in-addr.arpa {{\n  endpoint http://127.0.0.1:{nobody} {}\n  fallthrough\n }}\n}}\n",
            store.url
        ),
    );
    let process = Process::start(&corefile, None);
    store.put("local/skydns/east/a", r#"{"host":"10.0.0.1","port":80}"#).await;
    store.put("local/skydns/eastern", r#"{"host":"10.0.0.9"}"#).await;
    store.put("arpa/in-addr/10/0/0/1", r#"{"host":"a.east.skydns.local"}"#).await;
    dig_until(port, "east.skydns.local A +short", "10.0.0.1\n").await;
    assert_eq!(dig(port, "east.skydns.local SRV +short").await, "10 100 80 a.east.skydns.local.\n");
    assert_eq!(dig(port, "-x 10.0.0.1 +short").await, "a.east.skydns.local.\n");
    store.put("local/skydns/east/b", r#"{"host":"10.0.0.2"}"#).await;
    assert_eq!(dig(port, "east.skydns.local A +short").await.lines().count(), 2, "each question is asked anew");
    let granted = store.says("lease grant 100").await.unwrap();
    let lease = format!("--lease={}", granted.split(' ').nth(1).unwrap());
    store.told(&["put", &lease, "/skydns/local/skydns/leased", r#"{"host":"10.0.0.3"}"#]).await.unwrap();
    let answer = dig(port, "leased.skydns.local A +noall +answer").await;
    let ttl: u32 = answer.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!((31..=100).contains(&ttl), "{answer}");
    etcd.stop().await;
    let asked = Instant::now();
    let answer = dig(port, "east.skydns.local A").await;
    assert!(answer.contains("SERVFAIL") && asked.elapsed() < Duration::from_secs(5), "{answer}");
    let etcd = store.start().await;
    dig_until(port, "leased.skydns.local A +short", "10.0.0.3\n").await;
    process.stop().await;
    etcd.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn etcd_is_asked_over_tls_and_with_credentials() {
    let directory = Directory::new("etcd-tls");
    certificate(&directory, "own");
    let store = Store::new(&directory, true).await;
    let etcd = store.start().await;
    store.put("local/skydns/a", r#"{"host":"10.0.0.1"}"#).await;
    for command in ["user add root:secret", "user grant-role root root", "auth enable"] {
        store.says(command).await.unwrap();
    }
    let (with, without) = (free_port().await, free_port().await);
    let block = |port: u16, credentials: &str| {
        let (root, url) = (directory.0.display(), &store.url);
        format!(
            ".:{port} {{\n root {root}\n etcd skydns.local {{\n  endpoint {url}\n  tls own.pem\n  {credentials}\n }}\n}}\n"
        )
    };
    let text = block(with, "credentials root secret") + &block(without, "credentials root wrong");
    let process = Process::start(&directory.write("Corefile", &text), None);
    dig_until(with, "a.skydns.local A +short", "10.0.0.1\n").await;
    assert!(dig(without, "a.skydns.local A").await.contains("SERVFAIL"));
    etcd.stop().await;
    // Tokens are of one server's run: it is asked for another one.
    let etcd = store.start().await;
    dig_until(with, "a.skydns.local A +short", "10.0.0.1\n").await;
    process.stop().await;
    etcd.stop().await;
}
