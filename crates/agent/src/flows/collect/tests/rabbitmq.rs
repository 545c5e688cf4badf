//! RabbitMQ as Debian has it: a broker of the test's own, on the loopback device.

use std::{
    io::{BufReader, Write},
    net::{TcpListener, TcpStream},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Stdio},
};

use podnet_flow::export::amqp;
use rustix::process::{Pid, Signal};

use super::{
    agent::{Agent, wait},
    amqp::{frame, say},
    *,
};

/// What Debian's `rabbitmq-server` starts as the user rabbitmq.
const SERVER: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";
/// It takes seconds to begin, and more where others have the processors.
const BEGINNING: Duration = Duration::from_secs(120);
/// One of those that every virtual host has.
const EXCHANGE: &str = "amq.direct";

/// A program and what it started, which all end with the value.
struct Family(Child);

impl Family {
    fn start(command: &mut Command) -> Self {
        Self(command.process_group(0).stdin(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Family {
    fn drop(&mut self) {
        let group = Pid::from_child(&self.0);
        // It is asked first: the broker's script ends the broker, and waits for it.
        let _ = rustix::process::kill_process_group(group, Signal::TERM);
        let asked = Instant::now();
        while matches!(self.0.try_wait(), Ok(None)) && asked.elapsed() < DEADLINE {
            thread::sleep(Duration::from_millis(20));
        }
        let _ = rustix::process::kill_process_group(group, Signal::KILL);
        let _ = self.0.wait();
    }
}

/// Ports that nobody has, each another one. The broker takes them seconds later: they are below those that the system gives to whoever asks for any.
fn free_ports() -> [String; 3] {
    let first = 20_000 + u16::try_from(std::process::id() % 12_000).unwrap();
    let mut free = (first..32_768).filter(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    [(); 3].map(|()| free.next().unwrap().to_string())
}

/// A broker with the virtual host `logs`, and a user `flows` there. Its name server, which Erlang would leave behind, is its own as well.
struct Broker {
    address: String,
    // In that order they end.
    _server: Family,
    _names: Family,
    directory: TempDir,
}

impl Broker {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let [port, names_port, nodes_port] = free_ports();
        let address = format!("127.0.0.1:{port}");
        let names = Family::start(Command::new("epmd").args(["-port", &names_port, "-address", "127.0.0.1"]));
        let is_open = |port: &str| TcpStream::connect(format!("127.0.0.1:{port}")).is_ok();
        wait("there are names", || is_open(&names_port));
        let mut server = Family::start(&mut command(directory.path(), &port, (&names_port, &nodes_port)));
        let begun = Instant::now();
        while !is_open(&port) {
            let said = || fs::read_to_string(directory.path().join("out")).unwrap_or_default();
            assert!(server.0.try_wait().unwrap().is_none(), "the broker ended: {}", said());
            assert!(begun.elapsed() < BEGINNING, "the broker does not listen: {}", said());
            thread::sleep(Duration::from_millis(20));
        }
        Self { address, _server: server, _names: names, directory }
    }

    fn reader(&self) -> Reader {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut reader = Reader(BufReader::new(stream));
        reader.ask(amqp::HEADER, [10, 10]);
        let tune = reader.ask(&amqp::start_ok("flows", "secret"), [10, 30]);
        let largest = u32::from_be_bytes(tune[6..10].try_into().unwrap());
        reader.ask(&amqp::tune_ok(largest, "logs"), [10, 41]);
        reader.ask(&amqp::open_channel(), [20, 11]);
        reader
    }
}

fn command(directory: &Path, port: &str, (names_port, nodes_port): (&str, &str)) -> Command {
    let path = |name: &str| directory.join(name).display().to_string();
    let file = |name: &str, text: &str| {
        fs::write(directory.join(name), text).unwrap();
        path(name)
    };
    let configuration = format!(
        "listeners.tcp.1 = 127.0.0.1:{port}\ndefault_vhost = logs\ndefault_user = flows\ndefault_pass = secret\n"
    );
    let output = || fs::File::options().create(true).append(true).open(directory.join("out")).unwrap();
    let mut command = Command::new(SERVER);
    command
        .env("HOME", directory)
        .env("ERL_EPMD_PORT", names_port)
        .env("ERL_EPMD_ADDRESS", "127.0.0.1")
        .env("RABBITMQ_NODENAME", format!("podnet-test-{}@localhost", std::process::id()))
        .env("RABBITMQ_DIST_PORT", nodes_port)
        .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "-kernel inet_dist_use_interface {127,0,0,1}")
        .env("RABBITMQ_CONF_ENV_FILE", file("environment", ""))
        .env("RABBITMQ_CONFIG_FILE", file("rabbitmq.conf", &configuration))
        .env("RABBITMQ_ENABLED_PLUGINS_FILE", file("plugins", "[].\n"))
        .env("RABBITMQ_MNESIA_BASE", path("mnesia"))
        .env("RABBITMQ_LOG_BASE", path("log"))
        .env("RABBITMQ_PID_FILE", path("pid"))
        .env("RABBITMQ_LOGS", "-")
        .stdout(output())
        .stderr(output());
    command
}

/// A client with a channel, which makes queues and reads them.
struct Reader(BufReader<TcpStream>);

impl Reader {
    /// The payload of the answer, which is of that class and method.
    fn ask(&mut self, question: &[u8], [class, method]: [u8; 2]) -> Vec<u8> {
        self.0.get_mut().write_all(question).unwrap();
        let (1, _, payload) = frame(&mut self.0) else { panic!("not a method") };
        assert_eq!(payload[..4], [0, class, 0, method], "{}", String::from_utf8_lossy(&payload));
        payload
    }

    /// A queue for what has its name as key.
    fn bind(&mut self, queue: &str) {
        let table = [0; 4];
        // Durable.
        say(&mut self.0, 1, 50, 10, &[&[0, 0][..], &short(queue), &[2], &table].concat());
        self.ask(&[], [50, 11]);
        say(
            &mut self.0,
            1,
            50,
            20,
            &[&[0, 0][..], &short(queue), &short(EXCHANGE), &short(queue), &[0], &table].concat(),
        );
        self.ask(&[], [50, 21]);
    }

    /// The next message of a queue: its properties, as they come, and the item.
    fn message(&mut self, queue: &str) -> Option<(Vec<u8>, Numbered)> {
        // It need not be acknowledged.
        say(&mut self.0, 1, 60, 70, &[&[0, 0][..], &short(queue), &[1]].concat());
        let (1, 1, answer) = frame(&mut self.0) else { panic!("not a method") };
        match answer[..4] {
            [0, 60, 0, 71] => {}
            [0, 60, 0, 72] => return None,
            _ => panic!("{}", String::from_utf8_lossy(&answer)),
        }
        let [(2, 1, head), (3, 1, body)] = [frame(&mut self.0), frame(&mut self.0)] else { panic!("no content") };
        Some((head, serde_json::from_slice(&body).unwrap()))
    }
}

/// A text of up to 255 bytes, as AMQP has it.
fn short(text: &str) -> Vec<u8> {
    [&[u8::try_from(text.len()).unwrap()][..], text.as_bytes()].concat()
}

#[test]
fn rabbitmq_keeps_what_it_has_a_queue_for_and_what_came_before_the_queue_comes_when_there_is_one() {
    let broker = Broker::start();
    let credentials = broker.directory.path().join("credentials");
    fs::write(&credentials, "flows:secret\n").unwrap();
    let agent = Agent::start(&format!(
        "amqp://{}/logs?exchange={EXCHANGE}&credentials={}",
        broker.address,
        credentials.display()
    ));
    let mut reader = broker.reader();
    let flows: Vec<Numbered> = (0..40).map(flow).collect();
    let sent = || agent.metric("sent_records_total");
    // Nothing is bound: RabbitMQ returns it, and confirms that.
    agent.collectors.offer(&flows[..1]);
    wait("it is tried", || agent.metric("failed_batches_total") > 0);
    assert_eq!(sent(), 0);
    reader.bind("flow");
    wait("it has come", || sent() == 1);
    reader.bind("gap");
    agent.collectors.offer(&[&flows[1..], &[gap(40, 3)]].concat());
    wait("all have come", || sent() == 41);
    let refused = agent.metric("refused_records_total");
    agent.end();
    let mut found = Vec::new();
    while let Some((head, item)) = reader.message("flow") {
        for property in ["application/json".to_owned(), item.record.to_string(), "flow".to_owned()] {
            let property = short(&property);
            assert!(head.windows(property.len()).any(|part| part == property), "{property:?} of {head:?}");
        }
        found.push(item);
    }
    assert_eq!((refused, found), (0, flows));
    let gaps = [(); 2].map(|()| reader.message("gap").map(|(_, item)| item));
    assert_eq!(gaps, [Some(gap(40, 3)), None]);
}
