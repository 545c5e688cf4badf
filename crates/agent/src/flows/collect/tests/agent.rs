//! An agent's couriers with one collector, and a port for that.

use std::net::TcpListener;

use super::*;

/// The couriers of an agent with one collector.
pub(super) struct Agent {
    couriers: Couriers,
    pub(super) collectors: Collectors,
    directory: TempDir,
}

impl Agent {
    pub(super) fn start(target: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let settings = Settings { targets: vec![target.parse().unwrap()], spill_bytes: 64 << 20 };
        let (couriers, collectors) = Couriers::start(&settings, (&"node1".into(), directory.path()), false);
        Self { couriers, collectors, directory }
    }

    pub(super) fn metric(&self, name: &str) -> u64 {
        let text = self.couriers.metrics()();
        let line =
            text.lines().find(|line| line.starts_with(&format!("podnet_flow_collector_{name}{{"))).unwrap().to_owned();
        line.rsplit_once(' ').unwrap().1.parse().unwrap()
    }

    /// Ends as an agent does. Nothing of its own is left on disk where all has come.
    pub(super) fn end(self) {
        let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(self.couriers.end());
        for entry in fs::read_dir(self.directory.path()).unwrap() {
            assert_eq!(fs::read_dir(entry.unwrap().path()).unwrap().count(), 0);
        }
    }
}

pub(super) fn wait(what: &str, mut is: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed() < DEADLINE, "{what}: not in time");
        thread::sleep(Duration::from_millis(5));
    }
}

pub(super) fn listener() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}
