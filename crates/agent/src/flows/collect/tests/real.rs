//! Collectors that Debian has.

use std::{
    net::UdpSocket,
    process::{Child, Command, Stdio},
};

use super::{
    agent::{Agent, listener, wait},
    *,
};

/// A program that is killed with the value.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_port() -> u16 {
    listener().0.local_addr().unwrap().port()
}

/// Whether all datagrams that came to a port were read.
fn is_read(port: u16) -> bool {
    let end = format!(":{port:04X}");
    ["/proc/net/udp", "/proc/net/udp6"].iter().all(|table| {
        let text = fs::read_to_string(table).unwrap_or_default();
        text.lines().all(|line| {
            // Number, own address, other address, state, bytes that wait to be sent and to be read (proc(5)).
            let words: Vec<&str> = line.split_whitespace().collect();
            let is_own = words.get(1).is_some_and(|own| own.ends_with(&end));
            !is_own || words.get(4).is_some_and(|queues| queues.ends_with(":00000000"))
        })
    })
}

#[test]
fn rsyslogd_reads_all_parts_of_the_messages() {
    let directory = tempfile::tempdir().unwrap();
    let (port, path) = (free_port(), |name: &str| directory.path().join(name));
    let template =
        "%hostname% %app-name% %msgid% %syslogfacility-text%.%syslogseverity-text% %structured-data% %msg%\\n";
    let configuration = format!(
        "module(load=\"imtcp\")\ninput(type=\"imtcp\" address=\"127.0.0.1\" port=\"{port}\")\n\
         global(maxMessageSize=\"64k\")\ntemplate(name=\"all\" type=\"string\" string=\"{template}\")\n\
         action(type=\"omfile\" file=\"{}\" template=\"all\")\n",
        path("out").display()
    );
    fs::write(path("conf"), configuration).unwrap();
    let server = Command::new("rsyslogd")
        .args(["-n", "-f", path("conf").to_str().unwrap(), "-i", path("pid").to_str().unwrap()])
        .stderr(Stdio::null())
        .spawn();
    let _server = Program(server.unwrap());
    let agent = Agent::start(&format!("syslog+tcp://127.0.0.1:{port}"));
    agent.collectors.offer(&[flow(0), gap(1, 3)]);
    let read = || fs::read_to_string(path("out")).unwrap_or_default();
    wait("both are written", || read().lines().count() == 2);
    let text = read();
    let expected = [
        ("flow local0.info [meta sequenceId=\"1\"]", flow(0)),
        ("gap local0.warning [meta sequenceId=\"2\"]", gap(1, 3)),
    ];
    for (line, (head, item)) in text.lines().zip(expected) {
        assert_eq!(line, format!("node1 podnet {head} {}", podnet_flow::export::json(&item)));
    }
    agent.end();
}

#[test]
fn nfcapd_reads_the_flows_of_ipfix() {
    let directory = tempfile::tempdir().unwrap();
    let port = free_port();
    let server = Command::new("nfcapd")
        .args(["-b", "127.0.0.1", "-p", &port.to_string(), "-w", directory.path().to_str().unwrap(), "-t", "3600"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let mut server = Program(server.unwrap());
    // It says nothing when it listens.
    wait("it listens", || UdpSocket::bind(("127.0.0.1", port)).is_err());
    let agent = Agent::start(&format!("ipfix+udp://127.0.0.1:{port}"));
    let items: Vec<Numbered> = (0..40).map(flow).collect();
    agent.collectors.offer(&items);
    wait("they are sent", || agent.metric("sent_records_total") == 40);
    agent.end();
    wait("they are read", || is_read(port));
    let interrupt = rustix::process::Pid::from_child(&server.0);
    rustix::process::kill_process(interrupt, rustix::process::Signal::TERM).unwrap();
    server.0.wait().unwrap();
    let read = Command::new("nfdump")
        .args(["-R", directory.path().to_str().unwrap(), "-q", "-o", "fmt:%sap %dap %pr %ipkt %ibyt"])
        .output()
        .unwrap();
    let text = String::from_utf8(read.stdout).unwrap();
    let words: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(words.len(), 40, "{text}");
    for (number, line) in words.iter().enumerate() {
        let bytes = number.to_string();
        assert_eq!(line[..], ["10.0.0.1:40000", "10.0.0.2:80", "TCP", "4", &bytes], "{text}");
    }
}

#[cfg(feature = "kafka")]
#[test]
fn librdkafka_keeps_the_records_of_kafka_and_reads_them_again() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| fs::File::create(directory.path().join(name)).unwrap();
    let read = |name: &str| fs::read_to_string(directory.path().join(name)).unwrap();
    // It has brokers of its own, reads a topic that they make with four partitions, and looks at checksums.
    let client = Command::new("kcat")
        .args(["-C", "-b", "127.0.0.1:1", "-t", "flows", "-u", "-f", "%p %T %k %h %s\\n"])
        .args(["-X", "test.mock.num.brokers=2", "-X", "check.crcs=true"])
        .env("HOME", directory.path())
        .stdin(Stdio::null())
        .stdout(file("out"))
        .stderr(file("err"))
        .spawn();
    let _client = Program(client.unwrap());
    // Of whole lines, as it may be writing.
    let brokers = || Some(read("err").split_once("replaced with ")?.1.split_once('\n')?.0.to_owned());
    wait("there are brokers", || brokers().is_some());
    let mut items: Vec<Numbered> = (0..40).map(flow).collect();
    items.push(gap(40, 3));
    for (some, behind) in [(&items[..20], ""), (&items[20..], "?compression=gzip")] {
        let agent = Agent::start(&format!("kafka://{}/flows{behind}", brokers().unwrap()));
        agent.collectors.offer(some);
        wait("all are kept", || agent.metric("sent_records_total") == some.len() as u64);
        agent.end();
    }
    wait("all are read again", || read("out").matches('\n').count() == 41);
    let (mut seen, mut partitions) = (BTreeSet::new(), BTreeSet::new());
    for line in read("out").lines() {
        let parts: Vec<&str> = line.splitn(5, ' ').collect();
        let [partition, millis, key, headers, value] = parts[..] else { panic!("{line}") };
        let item: Numbered = serde_json::from_str(value).unwrap();
        let (expected, kind) = match &item.item {
            Item::Flow(record) => (record.id.to_string(), "flow"),
            Item::Gap(gap) => (gap.node.to_string(), "gap"),
            Item::Drops(drops) => (drops.node.to_string(), "drops"),
        };
        assert_eq!((key, millis), (expected.as_str(), item.item.at().as_millisecond().to_string().as_str()));
        assert_eq!(headers, format!("content-type=application/json,record={},type={kind}", item.record));
        assert!(items.contains(&item) && seen.insert(item.record.clone()), "{line}");
        partitions.insert(partition.to_owned());
    }
    assert_eq!((seen.len(), partitions.len()), (41, 4));
}
