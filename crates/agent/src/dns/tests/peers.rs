//! Zones that go to and come from other servers, the cluster's own as well: BIND's and Knot's; answers that BIND's validator believes, and proofs of Knot's that ours
//! does.

use tokio::process::Child;

use super::{api::Played, *};

const SECRET: &str = "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0";

/// A server that ends with the test.
pub(super) struct Peer(Child);

impl Peer {
    pub(super) fn start(program: &str, arguments: &[&str], log: &Path) -> Self {
        let log = std::fs::File::create(log).unwrap();
        let child = Command::new(program)
            .args(arguments)
            // Where Debian has servers, and where a user who is not root does not look.
            .env("PATH", format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default()))
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .kill_on_drop(true)
            .spawn();
        Self(child.unwrap_or_else(|error| panic!("{program}: {error}; scripts/setup test installs it")))
    }

    /// BIND's server with these zones.
    fn bind(directory: &Directory, port: u16, zones: &str) -> Self {
        let home = directory.0.display();
        let conf = directory.write(
            "named.conf",
            &format!(
                "options {{ directory \"{home}\"; listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }};\n\
                 pid-file none; lock-file none; session-keyfile none; recursion no; notify explicit;\n\
                 dnssec-validation no; allow-transfer {{ key k; }}; }};\ncontrols {{ }};\n\
                 key k {{ algorithm hmac-sha256; secret \"{SECRET}\"; }};\n{zones}"
            ),
        );
        let conf = conf.display().to_string();
        Self::start("named", &["-c", &conf, "-g", "-n", "1"], &directory.0.join("named.log"))
    }

    /// Knot with this of its zones.
    fn knot(directory: &Directory, port: u16, ours: u16, zones: &str) -> Self {
        // Without its database it would fall back to fetching whole zones.
        std::fs::create_dir_all(directory.0.join("knotdb")).unwrap();
        let conf = Self::knot_conf(directory, port, ours, zones).display().to_string();
        Self::start("knotd", &["-c", &conf], &directory.0.join("knot.log"))
    }

    /// Knot's configuration, which it reads at its start and when it is told to.
    fn knot_conf(directory: &Directory, port: u16, ours: u16, zones: &str) -> PathBuf {
        let home = directory.0.display();
        directory.write(
            "knot.conf",
            &format!(
                "server:\n  listen: 127.0.0.1@{port}\n  rundir: {home}\n  pidfile: {home}/knot.pid\n\
                 database:\n  storage: {home}/knotdb\n\
                 key:\n  - id: k\n    algorithm: hmac-sha256\n    secret: {SECRET}\n\
                 remote:\n  - id: us\n    address: 127.0.0.1@{ours}\n    key: k\n\
                 acl:\n  - id: by-key\n    key: k\n    action: [transfer, notify]\n\
                 log:\n  - target: stderr\n    any: info\n{zones}"
            ),
        )
    }

    /// Has it read its zones again.
    async fn reread(&self) {
        let pid = self.0.id().expect("the server has ended").to_string();
        assert!(Command::new("kill").args(["-HUP", &pid]).status().await.unwrap().success());
    }

    pub(super) async fn stop(mut self) {
        self.0.kill().await.unwrap();
    }
}

fn zone(serial: u32, addr: &str) -> String {
    format!(
        "$TTL 300\n@ SOA ns admin {serial} 3600 600 86400 60\n@ NS ns\nns A 192.0.2.1\nwww A {addr}\n*.w TXT \"a b\"\n\
         alias CNAME www\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn bind_and_knot_fetch_a_zone_with_a_key_and_hear_of_its_next_version() {
    let directory = Directory::new("to-peers");
    let (ours, bind, knot) = (free_port().await, free_port().await, free_port().await);
    directory.write("db", &zone(1, "192.0.2.2"));
    let file = directory.0.join("db");
    let corefile = directory.write(
        "Corefile",
        &format!(
            "example:{ours} {{\n tsig {{\n  secret k {SECRET}\n  require AXFR IXFR\n }}\n file {} {{\n  reload 1s\n }}\n \
             transfer {{\n  to 127.0.0.1:{bind} 127.0.0.1:{knot}\n  key k\n }}\n}}\n",
            file.display()
        ),
    );
    let process = Process::start(&corefile, None);
    dig_until(ours, "www.example A +short", "192.0.2.2\n").await;
    let secondary = format!("primaries {{ 127.0.0.1 port {ours} key k; }}; file \"of-bind\";");
    let named = Peer::bind(&directory, bind, &format!("zone example {{ type secondary; {secondary} }};\n"));
    let home = directory.0.display();
    let zones = format!("zone:\n  - domain: example\n    master: us\n    acl: by-key\n    file: {home}/of-knot\n");
    let knotd = Peer::knot(&directory, knot, ours, &zones);
    for port in [bind, knot] {
        dig_until(port, "www.example A +short", "192.0.2.2\n").await;
    }
    let refused = dig(ours, "example AXFR").await;
    assert!(refused.contains("Transfer failed"), "{refused}");
    // By themselves they would look after an hour.
    directory.write("db", &zone(2, "192.0.2.3"));
    for port in [bind, knot] {
        dig_until(port, "www.example A +short", "192.0.2.3\n").await;
        let whole = dig(port, &format!("-y hmac-sha256:k:{SECRET} example AXFR")).await;
        assert!(whole.contains("XFR size: 7 records"), "{whole}");
    }
    let change = dig(ours, &format!("-y hmac-sha256:k:{SECRET} example IXFR=1")).await;
    assert!(change.contains("XFR size: 6 records"), "{change}");
    named.stop().await;
    knotd.stop().await;
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bind_and_knot_fetch_the_cluster_s_zone_and_follow_its_endpoints() {
    let directory = Directory::new("cluster-to-peers");
    let played = Played::new();
    let api = played.start().await;
    let (ours, bind, knot) = (free_port().await, free_port().await, free_port().await);
    let corefile = directory.write(
        "Corefile",
        &format!(
            "cluster.local:{ours} {{\n tsig {{\n  secret k {SECRET}\n  require AXFR IXFR\n }}\n kubernetes cluster.local {{\n  \
             endpoint http://{api}\n }}\n transfer {{\n  to 127.0.0.1:{bind} 127.0.0.1:{knot}\n  key k\n }}\n}}\n"
        ),
    );
    let process = Process::start(&corefile, None);
    let db = "db.web.svc.cluster.local A +short";
    dig_until(ours, db, "10.244.1.2\n").await;
    let secondary = format!("primaries {{ 127.0.0.1 port {ours} key k; }}; file \"of-bind\";");
    let named = Peer::bind(&directory, bind, &format!("zone cluster.local {{ type secondary; {secondary} }};\n"));
    let home = directory.0.display();
    let zones =
        format!("zone:\n  - domain: cluster.local\n    master: us\n    acl: by-key\n    file: {home}/of-knot\n");
    let knotd = Peer::knot(&directory, knot, ours, &zones);
    for port in [bind, knot] {
        dig_until(port, db, "10.244.1.2\n").await;
        for (question, answer) in [
            ("web.web.svc.cluster.local A", "10.233.0.7\n"),
            ("_http._tcp.web.web.svc.cluster.local SRV", "0 100 80 web.web.svc.cluster.local.\n"),
            ("outside.web.svc.cluster.local CNAME", "harbor.example.com.\n"),
        ] {
            assert_eq!(dig(port, &format!("{question} +short")).await, answer, "{question} at {port}");
        }
    }
    let start = Instant::now();
    while dig(ours, db).await != "10.244.9.9\n" {
        assert!(start.elapsed() < DEADLINE);
        // The watch may not have begun yet.
        played.moves("10.244.9.9");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // They look after two hours, or when somebody who has the key tells them to.
    for port in [bind, knot] {
        let told = dig(port, &format!("-y hmac-sha256:k:{SECRET} +opcode=notify cluster.local SOA")).await;
        assert!(told.contains("opcode: NOTIFY, status: NOERROR"), "{told}");
        dig_until(port, db, "10.244.9.9\n").await;
    }
    named.stop().await;
    knotd.stop().await;
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn zones_of_bind_and_knot_are_fetched_with_a_key_and_their_notifications_heard() {
    let directory = Directory::new("from-peers");
    let (ours, bind, knot) = (free_port().await, free_port().await, free_port().await);
    let home = directory.0.display();
    for name in ["of-bind", "of-knot"] {
        directory.write(name, &zone(1, "192.0.2.2"));
    }
    let told = format!("also-notify {{ 127.0.0.1 port {ours} key k; }};");
    let zones = format!("zone of-bind {{ type primary; file \"of-bind\"; ixfr-from-differences yes; {told} }};\n");
    let named = Peer::bind(&directory, bind, &zones);
    let zones = format!(
        "zone:\n  - domain: of-knot\n    file: {home}/of-knot\n    acl: by-key\n    notify: us\n    \
         zonefile-load: difference\n    zonefile-sync: -1\n    journal-content: changes\n"
    );
    let knotd = Peer::knot(&directory, knot, ours, &zones);
    let block = |name: &str, port: u16| {
        format!("{name}:{ours} {{\n secondary {{\n  transfer from 127.0.0.1:{port}\n  key k\n }}\n}}\n")
    };
    let corefile = directory.write(
        "Corefile",
        &format!(
            ".:{ours} {{\n tsig {{\n  secret k {SECRET}\n  require_opcode NOTIFY\n }}\n}}\n{}{}",
            block("of-bind", bind),
            block("of-knot", knot)
        ),
    );
    let process = Process::start(&corefile, None);
    for name in ["of-bind", "of-knot"] {
        dig_until(ours, &format!("www.{name} A +short"), "192.0.2.2\n").await;
        dig_until(ours, &format!("x.w.{name} TXT +short"), "\"a b\"\n").await;
        directory.write(name, &zone(2, "192.0.2.3"));
    }
    named.reread().await;
    knotd.reread().await;
    for name in ["of-bind", "of-knot"] {
        dig_until(ours, &format!("www.{name} A +short"), "192.0.2.3\n").await;
    }
    named.stop().await;
    knotd.stop().await;
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_zones_that_a_catalog_of_knot_lists_come_and_go_with_it() {
    let directory = Directory::new("catalog");
    let (ours, knot) = (free_port().await, free_port().await);
    let home = directory.0.display();
    for (name, addr) in [("a.example", "192.0.2.2"), ("b.example", "192.0.2.3")] {
        directory.write(name, &zone(1, addr));
    }
    let zones = |members: &[&str]| {
        let member = |name: &&str| {
            format!(
                "  - domain: {name}\n    file: {home}/{name}\n    acl: by-key\n    notify: us\n    catalog-role: \
                 member\n    catalog-zone: catalog.test\n"
            )
        };
        let members: String = members.iter().map(member).collect();
        format!(
            "zone:\n  - domain: catalog.test\n    catalog-role: generate\n    acl: by-key\n    notify: us\n    \
             zonefile-sync: -1\n{members}"
        )
    };
    let knotd = Peer::knot(&directory, knot, ours, &zones(&["a.example"]));
    dig_until(knot, "www.a.example A +short", "192.0.2.2\n").await;
    let corefile = directory.write(
        "Corefile",
        &format!(
            ".:{ours} {{\n tsig {{\n  secret k {SECRET}\n  require_opcode NOTIFY\n }}\n secondary catalog.test {{\n  \
             transfer from 127.0.0.1:{knot}\n  key k\n  catalog example\n }}\n}}\n"
        ),
    );
    let process = Process::start(&corefile, None);
    dig_until(ours, "www.a.example A +short", "192.0.2.2\n").await;
    // Of the catalog itself clients get nothing.
    let listed = dig(ours, "version.catalog.test TXT").await;
    assert!(listed.contains("status: SERVFAIL"), "{listed}");
    for (members, question, wanted) in [
        (&["a.example", "b.example"][..], "www.b.example A", "192.0.2.3"),
        (&["b.example"][..], "www.a.example A", "status: SERVFAIL"),
    ] {
        Peer::knot_conf(&directory, knot, ours, &zones(members));
        knotd.reread().await;
        dig_until(ours, question, wanted).await;
    }
    dig_until(ours, "www.b.example A +short", "192.0.2.3\n").await;
    knotd.stop().await;
    process.stop().await;
}

/// What BIND's validator says, who trusts this key of the zone `example` alone.
async fn delv(directory: &Directory, port: u16, key: &str, question: &str) -> String {
    let (_, fields) = key.split_once("DNSKEY ").unwrap();
    let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
    let anchor = format!("{} {} {} \"{}\"", fields[0], fields[1], fields[2], fields[3..].concat());
    let path = directory.write("anchor", &format!("trust-anchors {{ example. static-key {anchor}; }};\n"));
    let output = Command::new("delv")
        .args(["@127.0.0.1", "-p", &port.to_string(), "-a", &path.display().to_string(), "+root=example"])
        .args(question.split(' '))
        .output()
        .await
        .unwrap();
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

/// The zone's key in the directory, without the ends of its files' names.
fn key(directory: &Directory) -> (String, &'static str) {
    let public = include_str!("../../../../dns/testdata/p256.key");
    directory.write("Kexample.+013+52134.key", public);
    directory.write("Kexample.+013+52134.private", include_str!("../../../../dns/testdata/p256.private"));
    (directory.0.join("Kexample.+013+52134").display().to_string(), public)
}

/// That the validator believes what is there, what is not, and what an alias leads to.
async fn believed(directory: &Directory, port: u16, public: &str) {
    for (question, said) in [
        ("www.example A", "; fully validated"),
        ("alias.example A", "; fully validated"),
        ("x.w.example TXT", "; fully validated"),
        ("example DNSKEY", "; fully validated"),
        ("example SOA", "; fully validated"),
        ("www.example AAAA", "; negative response, fully validated"),
        ("no.example A", "; negative response, fully validated"),
    ] {
        let answer = delv(directory, port, public, question).await;
        assert!(answer.contains(said), "{question}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_validator_believes_answers_that_are_signed_on_their_way() {
    let directory = Directory::new("online");
    let port = free_port().await;
    let (base, public) = key(&directory);
    let file = directory.write("db", &zone(1, "192.0.2.2"));
    let corefile = directory.write(
        "Corefile",
        &format!("example:{port} {{\n dnssec {{\n  key file {base}\n }}\n file {}\n}}\n", file.display()),
    );
    let process = Process::start(&corefile, None);
    dig_until(port, "www.example A +short", "192.0.2.2\n").await;
    believed(&directory, port, public).await;
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zone_file_is_signed_served_and_signed_again_when_it_changes() {
    let directory = Directory::new("signed");
    let port = free_port().await;
    let (_, public) = key(&directory);
    let (home, file) = (directory.0.display(), directory.write("db", &zone(1, "192.0.2.2")));
    let corefile = directory.write(
        "Corefile",
        &format!(
            "example:{port} {{\n sign {} {{\n  key directory {home}\n  directory {home}/out\n }}\n file \
             {home}/out/db.example.signed {{\n  reload 1s\n }}\n}}\n",
            file.display()
        ),
    );
    let process = Process::start(&corefile, None);
    dig_until(port, "www.example A +short", "192.0.2.2\n").await;
    believed(&directory, port, public).await;
    directory.write("db", &zone(1, "192.0.2.3"));
    dig_until(port, "www.example A +short", "192.0.2.3\n").await;
    believed(&directory, port, public).await;
    process.stop().await;
    let names: Vec<_> =
        std::fs::read_dir(directory.0.join("out")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["db.example.signed"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_for_a_reload_has_a_signed_zone_file_that_is_gone_made_again() {
    let directory = Directory::new("signed-asked");
    let port = free_port().await;
    key(&directory);
    let (home, file) = (directory.0.display(), directory.write("db", &zone(1, "192.0.2.2")));
    // Nobody looks whether the signed file is there: by itself it would be made again within the hour.
    let corefile = directory.write(
        "Corefile",
        &format!(
            "example:{port} {{\n sign {} {{\n  key directory {home}\n  directory {home}/out\n }}\n file \
             {home}/out/db.example.signed {{\n  reload 0\n }}\n}}\n",
            file.display()
        ),
    );
    let process = Process::start(&corefile, None);
    dig_until(port, "www.example A +short", "192.0.2.2\n").await;
    let signed = directory.0.join("out/db.example.signed");
    std::fs::remove_file(&signed).unwrap();
    process.reload.notify_one();
    let start = Instant::now();
    while !signed.exists() {
        assert!(start.elapsed() < DEADLINE, "it is not there again");
        assert_eq!(dig(port, "www.example A +short").await, "192.0.2.2\n");
    }
    dig_until(port, "www.example A +dnssec", "RRSIG").await;
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_zone_that_knot_signs_proves_is_known_when_knot_is_gone() {
    let directory = Directory::new("proofs");
    let (ours, knot) = (free_port().await, free_port().await);
    let home = directory.0.display();
    directory.write("of-knot", &zone(1, "192.0.2.2"));
    let zones = format!(
        "zone:\n  - domain: example\n    file: {home}/of-knot\n    dnssec-signing: on\n    zonefile-sync: -1\n"
    );
    let knotd = Peer::knot(&directory, knot, ours, &zones);
    let keys = "example DNSKEY +noall +answer";
    dig_until(knot, keys, "DNSKEY").await;
    directory.write("anchors", &dig(knot, keys).await);
    let corefile = directory.write(
        "Corefile",
        &format!(".:{ours} {{\n forward . 127.0.0.1:{knot} {{\n  nsec\n  trust_anchors {home}/anchors\n }}\n}}\n"),
    );
    let process = Process::start(&corefile, None);
    // An authority has validated nothing, and does not say so (AD): what comes of its proofs is our own doing (RFC 8914 §4.30).
    dig_until(ours, "no.example A", "EDE: 29").await;
    knotd.stop().await;
    let denied = dig(ours, "nobody.example A").await;
    assert!(denied.contains("status: NXDOMAIN") && denied.contains("EDE: 29"), "{denied}");
    process.stop().await;
}
