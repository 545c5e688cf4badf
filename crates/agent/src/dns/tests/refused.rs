//! What is said of a Corefile that is not taken over.

use std::{
    fmt::{Debug, Write},
    sync::{Arc, Mutex},
};

use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

use super::*;

/// What this thread logs as an error: a line for each.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, "{}={value:?} ", field.name()).unwrap();
    }
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::ERROR
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        self.0.lock().unwrap().push(line.0);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

impl Log {
    /// Waits for a line with all of these.
    async fn says(&self, wanted: &[&str]) {
        let start = Instant::now();
        let is_wanted = |line: &String| wanted.iter().all(|part| line.contains(part));
        while !self.0.lock().unwrap().iter().any(is_wanted) {
            assert!(start.elapsed() < DEADLINE, "{wanted:?} is not in {:?}", self.0.lock().unwrap());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

// On one thread, so that all is logged on this one.
#[tokio::test]
async fn why_a_changed_corefile_is_not_taken_over_is_logged() {
    let log = Log::default();
    let _logging = tracing::subscriber::set_default(log.clone());
    let directory = Directory::new("refused");
    let port = free_port().await;
    let good = format!(".:{port} {{\n reload 10h\n hosts /nowhere {{\n  10.0.0.1 a.example.com\n }}\n}}\n");
    let process = Process::start(&directory.write("Corefile", &good), None);
    dig_until(port, "a.example.com A +short", "10.0.0.1").await;
    let stays = "the changed Corefile is not taken over, the one before stays in force";
    directory.write("Corefile", &good.replace("reload 10h", "bogus"));
    log.says(&[stays, "Corefile:2:2: unknown plugin \"bogus\""]).await;
    // What is right as it stands and cannot be done is told with its cause.
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let health = taken.local_addr().unwrap();
    directory.write("Corefile", &good.replace("reload 10h", &format!("health {health}")));
    log.says(&[stays, &format!("cannot listen on {health} for health"), "Address already in use"]).await;
    assert_eq!(dig(port, "a.example.com A +short").await, "10.0.0.1\n");
    process.stop().await;
}
