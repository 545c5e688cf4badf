//! Tests inside the virtual machine's kernel, and that what goes wrong in there is seen out here.
#![allow(clippy::unwrap_used)]

use std::{env, fs, path::Path, process::Command};

use podnet_testnet::vm;

#[test]
fn the_virtual_machine_runs_tests_on_its_own_kernel() {
    vm::run_tests("inside_", &["ipip", "wireguard", "veth"]);
}

#[test]
fn programs_of_this_machine_work_inside_with_what_they_load() {
    let modules = ["iptable_nat", "xt_conntrack", "xt_set", "ip_set_bitmap_port", "ip_vs_rr"];
    vm::run_tests_with("tools_", &modules, &["iptables-legacy-restore", "iptables-legacy-save", "ipset", "ipvsadm"]);
}

#[test]
fn a_failure_inside_is_a_failure_outside_with_its_output() {
    let executable = env::current_exe().unwrap();
    let (output, code) = vm::run(&executable, &["fails_inside", "--ignored"], &[]);
    assert_ne!(code, 0, "{output}");
    assert!(output.contains("this is said inside"), "{output}");
}

#[test]
#[ignore = "runs in the virtual machine"]
fn inside_devices_can_be_made_that_need_modules() {
    assert!(Path::new("/init").exists(), "this is not the virtual machine");
    for device in ["one type ipip local 192.0.2.1", "two type wireguard", "three type veth"] {
        let arguments = ["link", "add", "name"].into_iter().chain(device.split(' '));
        let made = Command::new("ip").args(arguments).output().unwrap();
        assert!(made.status.success(), "{device}: {}", String::from_utf8_lossy(&made.stderr));
    }
}

#[test]
#[ignore = "runs in the virtual machine"]
fn tools_set_rules_sets_and_virtual_servers() {
    let script = "set -e; ipset create ports bitmap:port range 0-65535
        iptables-legacy-restore -w 5 --noflush <<END
*nat
-A PREROUTING -m conntrack --ctstate NEW -m set --match-set ports dst -j RETURN
COMMIT
END
        iptables-legacy-save -t nat; ipvsadm -A -t 192.0.2.1:80 -s rr; ipvsadm -Ln";
    let done = Command::new("sh").args(["-c", script]).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let told = String::from_utf8(done.stdout).unwrap();
    for part in ["-m set --match-set ports dst -j RETURN", "TCP  192.0.2.1:80 rr"] {
        assert!(told.contains(part), "{part} is not in:\n{told}");
    }
}

#[test]
#[ignore = "runs in the virtual machine"]
fn inside_the_loopback_answers() {
    assert!(fs::read_to_string("/proc/version").unwrap().starts_with("Linux"));
    let ping = Command::new("ping").args(["-c", "1", "-W", "5", "127.0.0.1"]).output().unwrap();
    assert!(ping.status.success(), "{}", String::from_utf8_lossy(&ping.stderr));
}

#[test]
#[ignore = "runs in the virtual machine"]
fn fails_inside() {
    panic!("this is said inside");
}
