//! A plugin that is killed, and a disk that is full.

use std::{
    io::Write,
    process::{Command, Stdio},
    time::Duration,
};

use serde_json::{Value, json};

use crate::{Machine, Sandbox, run};

/// Whatever moment the plugin is killed at, DEL cleans up, and the next ADD works.
#[test]
fn a_plugin_that_is_killed_leaves_nothing_that_del_does_not_remove() {
    let machine = Machine::new("kill");
    let list = machine.network(&json!({"subnet": "10.54.0.0/29"}), &json!({}));
    let sandbox = Sandbox::new("killed");
    let ports = json!([{"hostPort": 9090, "containerPort": 90, "protocol": "udp"}]);
    let mut config = list.plugins[0].clone();
    config["name"] = json!("local");
    config["cniVersion"] = json!("1.1.0");
    config["runtimeConfig"] = json!({"portMappings": ports});
    for round in 0..40_u64 {
        for verb in ["ADD", "DEL"] {
            let mut plugin = Command::new("/usr/bin/nsenter")
                .arg(format!("--net={}", machine.node.path()))
                .arg(env!("CARGO_BIN_EXE_podnet-cni"))
                .envs([("CNI_COMMAND", verb), ("CNI_CONTAINERID", "killed"), ("CNI_IFNAME", "eth0")])
                .env("CNI_NETNS", sandbox.path())
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .spawn()
                .unwrap();
            let _ = plugin.stdin.take().unwrap().write_all(config.to_string().as_bytes());
            // Over all of its life, which is some milliseconds: this is what the test is about, and no wait for anything.
            std::thread::sleep(Duration::from_micros(round * 250));
            let _ = plugin.kill();
            plugin.wait().unwrap();
        }
        let _ = list.del("killed", &sandbox.path(), "eth0", &Value::Null).done();
        assert_eq!(machine.traces(), [""; 0], "round {round}");
        assert!(sandbox.try_run(&["ip", "link", "show", "eth0"]).is_err());
    }
    let result = list.add("killed", &sandbox.path(), "eth0").done();
    sandbox.run(&["ping", "-c1", "-W3", "10.54.0.1"]);
    let _ = list.del("killed", &sandbox.path(), "eth0", &result).done();
}

#[test]
fn a_full_disk_is_an_error_and_keeps_no_address() {
    let machine = Machine::new("full");
    let list = machine.network(&json!({"subnet": "10.55.0.0/24"}), &json!({}));
    let _mounted = Mounted::tmpfs(machine.data.path());
    let sandbox = Sandbox::new("full");
    let fill = machine.data.path().join("fill");
    std::fs::create_dir_all(machine.data.path().join("local")).unwrap();
    let mut file = std::fs::File::create(&fill).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
    let (code, message) = list.add("c", &sandbox.path(), "eth0").refused();
    assert!(code == 102 && message.contains("No space left on device"), "{message}");
    assert_eq!(machine.traces(), [""; 0]);
    let _ = list.del("c", &sandbox.path(), "eth0", &Value::Null).done();
    drop(file);
    std::fs::remove_file(&fill).unwrap();
    let result = list.add("c", &sandbox.path(), "eth0").done();
    let _ = list.del("c", &sandbox.path(), "eth0", &result).done();
    assert_eq!(machine.traces(), [""; 0]);
}

/// A small file system, unmounted with the value.
struct Mounted(String);

impl Mounted {
    fn tmpfs(on: &std::path::Path) -> Self {
        let on = on.display().to_string();
        run("mount", &["-t", "tmpfs", "-o", "size=16k", "tmpfs", &on]);
        Self(on)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).output();
    }
}
