use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use podnet_apiserver::store::{Key, Store, Write};
use serde_json::json;

/// Set in the child process that is killed: the directory of its store.
const VICTIM: &str = "PODNET_TEST_VICTIM_STORE";

const WRITERS: usize = 8;

fn key(name: String) -> Key {
    Key { resource: Arc::from("configmaps"), namespace: "default".to_owned(), name }
}

/// Not a test of its own: what the child process of the next test does until it is killed.
#[test]
fn victim_writes_until_it_is_killed() {
    let Ok(directory) = std::env::var(VICTIM) else { return };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = Arc::new(Store::open(&Path::new(&directory).join("store.redb")).unwrap());
        let mut writers = tokio::task::JoinSet::new();
        for writer in 0..WRITERS {
            let store = Arc::clone(&store);
            writers.spawn(async move {
                for n in 0.. {
                    let name = format!("w{writer}-{n}");
                    let value = json!({"metadata": {"name": name}, "data": {"text": "x".repeat(500)}});
                    store.write(Write::Create { key: key(name.clone()), value }).await.unwrap();
                    // One write(2) for each line: what the parent reads was acknowledged before.
                    println!("acknowledged {name}");
                }
            });
        }
        while writers.join_next().await.is_some() {}
    });
}

#[test]
fn what_was_acknowledged_survives_a_kill() {
    for _ in 0..3 {
        let directory = tempfile::tempdir().unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "all::durability::victim_writes_until_it_is_killed", "--nocapture"])
            .env(VICTIM, directory.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut acknowledged = Vec::new();
        let mut note = |line: String| {
            if let Some((_, name)) = line.split_once("acknowledged ") {
                acknowledged.push(name.to_owned());
            }
            acknowledged.len()
        };
        while note(lines.next().unwrap().unwrap()) < 500 {}
        child.kill().unwrap();
        child.wait().unwrap();
        // What had been written into the pipe by then counts as well.
        for line in lines.map_while(Result::ok) {
            note(line);
        }
        let store = Store::open(&directory.path().join("store.redb")).unwrap();
        for name in &acknowledged {
            assert!(store.object("configmaps", "default", name).is_some(), "{name} was acknowledged and is lost");
        }
        let newest = store.list("configmaps", None).objects.iter().map(|object| object.revision).max().unwrap();
        assert_eq!(store.revision(), newest);
    }
}
