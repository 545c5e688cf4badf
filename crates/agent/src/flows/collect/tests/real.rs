//! Collectors that Debian has.

use std::{
    net::UdpSocket,
    process::{Child, Command, Stdio},
};

use super::{
    wire::{Agent, listener, wait},
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
