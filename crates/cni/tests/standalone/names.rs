//! Names that a runtime gives containers; and what waits for whom.

use std::{fs::File, thread, time::Duration};

use podnet_testnet::eventually;
use serde_json::{Value, json};

use crate::{Machine, Sandbox};

#[test]
fn names_of_containers_stand_in_a_file_of_their_network_until_they_go() {
    let machine = Machine::new("names");
    let list = machine.network(&json!({"subnet": "10.77.0.0/24"}), &json!({}));
    let named = |names: &[&str]| list.with(json!({"aliases": {"local": names, "elsewhere": ["db"]}}));
    let [a, b, c] = ["a", "b", "c"].map(Sandbox::new);
    let (code, message) = named(&["two words"]).add("a", &a.path(), "eth0").refused();
    assert!(code == 7 && message.contains("runtimeConfig.aliases is \"two words\""), "{message}");
    assert_eq!(machine.names("local"), None);
    let first = named(&["web", "www"]).add("a", &a.path(), "eth0").done();
    let second = named(&["web"]).add("b", &b.path(), "eth0").done();
    let third = list.add("c", &c.path(), "eth0").done();
    assert_eq!(machine.names("local").unwrap(), "10.77.0.2 web www\n10.77.0.3 web\n");
    assert_eq!(machine.names("elsewhere"), None);
    // A DEL that cannot change the file is not the last one.
    let file = format!("{}/hosts.local", machine.records());
    let aside = format!("{file}.aside");
    std::fs::rename(&file, &aside).unwrap();
    std::fs::create_dir_all(format!("{file}/in-the-way")).unwrap();
    let _ = list.del("a", &a.path(), "eth0", &first).refused();
    std::fs::remove_dir_all(&file).unwrap();
    std::fs::rename(&aside, &file).unwrap();
    let _ = list.del("a", &a.path(), "eth0", &first).done();
    assert_eq!(machine.names("local").unwrap(), "10.77.0.3 web\n");
    let _ = list.gc(&[("c", "eth0")]).done();
    assert_eq!(machine.names("local"), None);
    let _ = named(&["again"]).add("a", &a.path(), "eth0").done();
    // Lost without DEL: the next request finds that it is gone.
    drop((a, second));
    let b = Sandbox::new("b");
    eventually("the lost container's name is gone", Duration::from_secs(5), || {
        let result = list.add("b", &b.path(), "eth0").done();
        let _ = list.del("b", &b.path(), "eth0", &result).done();
        machine.names("local").map_or(Ok(()), Err)
    });
    let _ = list.del("c", &c.path(), "eth0", &third).done();
    let _ = list.gc(&[]).done();
    assert_eq!(machine.traces(), [""; 0]);
}

/// The kernel takes its time to remove a device; whoever has the lock must not wait for that, nor that for whoever has the lock.
#[test]
fn a_device_is_removed_without_the_lock() {
    let machine = Machine::new("unlocked");
    let list = machine.network(&json!({"subnet": "10.78.0.0/24"}), &json!({}));
    let sandbox = Sandbox::new("s");
    let result = list.add("s", &sandbox.path(), "eth0").done();
    let lock = File::open(format!("{}/.lock", machine.records())).unwrap();
    lock.lock().unwrap();
    thread::scope(|scope| {
        let del = scope.spawn(|| list.del("s", &sandbox.path(), "eth0", &result).done());
        eventually("the device is gone", Duration::from_secs(5), || {
            let links = sandbox.run(&["ip", "-o", "link"]);
            if links.contains("eth0") { Err(links) } else { Ok(()) }
        });
        assert!(!del.is_finished());
        assert_eq!(machine.record("s", "eth0")["addrs"], json!(["10.78.0.2"]));
        lock.unlock().unwrap();
        assert_eq!(del.join().unwrap(), Value::Null);
    });
    assert_eq!(machine.traces(), [""; 0]);
}
