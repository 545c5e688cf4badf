//! Debian's container runtimes, with podnet as their network: `ctr run --cni` with containerd, and podman's CNI backend.
//!
//! Everything of theirs is in a mount namespace and a network namespace of the test's own, so that the machine's own containers and
//! configuration are neither seen nor touched.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use podnet_testnet::eventually;
use serde_json::{Value, json};

use crate::Machine;

/// What a runtime needs beside its program: a root file system, and podnet among its plugins.
struct Runtime {
    machine: Machine,
    dir: tempfile::TempDir,
    holder: Child,
    first: String,
    daemon: Option<Child>,
}

impl Runtime {
    fn new(tag: &str, network: &str) -> Self {
        let (machine, dir) = (Machine::new(tag), tempfile::tempdir().unwrap());
        for directory in ["rootfs/bin", "net.d", "plugins", "state", "root", "run"] {
            fs::create_dir_all(dir.path().join(directory)).unwrap();
        }
        let (holder, first) = Self::holder(&machine, dir.path());
        let runtime = Self { machine, dir, holder, first, daemon: None };
        let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
        fs::copy(busybox.expect("busybox-static is installed"), runtime.path("rootfs/bin/busybox")).unwrap();
        for name in ["sh", "sleep", "ip", "ping", "wget", "httpd", "nc", "echo"] {
            symlink("busybox", runtime.path("rootfs/bin").join(name)).unwrap();
        }
        fs::copy(env!("CARGO_BIN_EXE_podnet-cni"), runtime.path("plugins/podnet-cni")).unwrap();
        for plugin in ["loopback", "firewall", "tuning"] {
            fs::copy(format!("/usr/lib/cni/{plugin}"), runtime.path("plugins").join(plugin)).unwrap();
        }
        let mut list =
            runtime.machine.network(&json!({"subnet": "10.60.0.0/24", "routes": [{"dst": "0.0.0.0/0"}]}), &json!({}));
        network.clone_into(&mut list.name);
        let text = json!({"cniVersion": "0.4.0", "name": list.name, "plugins": list.plugins}).to_string();
        fs::write(runtime.path("net.d").join(format!("{network}.conflist")), text).unwrap();
        runtime
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A process whose mount namespace has the runtime's configuration where it looks for it, and nothing of the machine's own. It is
    /// the first of a process namespace: with it end the runtime and all of its containers. The answer is its parent, and its number.
    fn holder(machine: &Machine, dir: &Path) -> (Child, String) {
        let dir = dir.display();
        let script = format!(
            "for on in /etc/cni /opt /var/lib /run/netns; do mount -t tmpfs tmpfs $on || exit; done; \
             mkdir -p /etc/cni/net.d /opt/cni/bin && mount --bind {dir}/net.d /etc/cni/net.d && \
             mount --bind {dir}/plugins /opt/cni/bin && echo ready && exec sleep infinity"
        );
        // Not `ip netns exec`, which mounts another /sys, without the cgroups that runtimes look for there.
        let node = format!("--net={}", machine.node.path());
        let mut child = Command::new("nsenter")
            .args([&node, "unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child"])
            .args(["--mount-proc", "sh", "-c", &script])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = [0; 6];
        let read = std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut ready);
        read.expect("the mounts of the test are made; podman is installed, which has /etc/cni");
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", child.id())).unwrap();
        (child, children.trim().to_owned())
    }

    /// A command of the runtime's, to be started by itself.
    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.args([&format!("--target={}", self.first), "--net", "--mount", "--pid", program]).args(arguments);
        command.env("HOME", self.dir.path()).stdin(Stdio::null());
        command
    }

    fn try_run(&self, program: &str, arguments: &[&str]) -> Result<String, String> {
        let output = self.command(program, arguments).output().unwrap();
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        if output.status.success() { Ok(said) } else { Err(said) }
    }

    fn run(&self, program: &str, arguments: &[&str]) -> String {
        self.try_run(program, arguments).unwrap_or_else(|error| panic!("{program} {arguments:?}: {error}"))
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        for process in self.daemon.iter_mut().chain([&mut self.holder]) {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

#[test]
fn ctr_run_with_cni_gives_containers_a_network() {
    let mut runtime = Runtime::new("ctr", "podnet");
    let (socket, dir) = (runtime.path("c.sock").display().to_string(), runtime.dir.path().display().to_string());
    let config = format!(
        "version = 2\nroot = \"{dir}/root\"\nstate = \"{dir}/state\"\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = \"{socket}\"\n"
    );
    fs::write(runtime.path("config.toml"), config).unwrap();
    let log = fs::File::create(runtime.path("log")).unwrap();
    let config = runtime.path("config.toml").display().to_string();
    let mut daemon = runtime.command("containerd", &["-c", &config]);
    runtime.daemon = Some(daemon.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap());
    eventually("containerd answers", Duration::from_secs(30), || runtime.try_run("ctr", &["-a", &socket, "version"]));

    let rootfs = runtime.path("rootfs").display().to_string();
    let ctr = |arguments: &[&str]| runtime.run("ctr", &[&["-a", socket.as_str()], arguments].concat());
    let run = |id: &str, command: &[&str]| {
        let options = ["run", "--rm", "--cni", "--rootfs", rootfs.as_str(), id];
        ctr(&[&options[..], command].concat())
    };
    ctr(&["run", "-d", "--cni", "--rootfs", &rootfs, "web", "/bin/httpd", "-f", "-p", "80", "-h", "/bin"]);
    let shown = ctr(&["tasks", "exec", "--exec-id", "look", "web", "/bin/ip", "addr", "show", "eth0"]);
    assert!(shown.contains("10.60.0.2/32"), "{shown}");
    assert!(run("ask", &["/bin/wget", "-q", "-O", "/dev/null", "http://10.60.0.2/echo"]).is_empty());
    run("ping", &["/bin/ping", "-c1", "-W3", "203.0.113.2"]);
    assert_eq!(leases(&runtime, "podnet"), ["10.60.0.2"], "those that ended gave their addresses back");
    ctr(&["tasks", "kill", "-s", "KILL", "web"]);
    // `ctr run -d` calls no DEL; the runtime that follows finds the address free when its container is gone, as GC does.
    eventually("the container is deleted", Duration::from_secs(10), || {
        runtime
            .try_run("ctr", &["-a", &socket, "containers", "delete", "web"])
            .or_else(|_| runtime.try_run("ctr", &["-a", &socket, "tasks", "delete", "web"]))
    });
}

#[test]
fn podman_gives_containers_a_network() {
    let runtime = Runtime::new("podman", "podnet");
    let dir = runtime.dir.path().display().to_string();
    let config = format!(
        "[network]\nnetwork_backend = \"cni\"\ncni_plugin_dirs = [\"{dir}/plugins\"]\nnetwork_config_dir = \"{dir}/net.d\"\ndefault_network = \"podnet\"\n\
         [engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"none\"\ntmp_dir = \"{dir}/run/libpod\"\nruntime = \"runc\"\n[containers]\nlog_driver = \"k8s-file\"\npids_limit = 0\ndefault_ulimits = [\"nofile=256:256\", \"nproc=256:256\"]\n"
    );
    fs::write(runtime.path("containers.conf"), config).unwrap();
    let storage = format!("[storage]\ndriver = \"vfs\"\nrunroot = \"{dir}/run\"\ngraphroot = \"{dir}/root\"\n");
    fs::write(runtime.path("storage.conf"), storage).unwrap();
    let podman = |arguments: &[&str]| {
        let output = runtime
            .command("podman", arguments)
            .env("CONTAINERS_CONF", runtime.path("containers.conf"))
            .env("CONTAINERS_STORAGE_CONF", runtime.path("storage.conf"))
            .output()
            .unwrap();
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        if output.status.success() { Ok(out.into_owned()) } else { Err(format!("{out}{err}")) }
    };
    let rootfs = runtime.path("rootfs").display().to_string();
    let networks = podman(&["network", "ls"]).unwrap();
    assert!(networks.contains("podnet"), "{networks}");
    let run = |options: &[&str], command: &[&str]| {
        let fixed = ["--network", "podnet", "--security-opt", "seccomp=unconfined"];
        podman(&[&["run"][..], options, &fixed, &["--rootfs", &rootfs], command].concat())
            .unwrap_or_else(|error| panic!("podman run {options:?} {command:?}: {error}"))
    };
    run(&["-d", "--name", "web", "-p", "8080:80"], &["/bin/httpd", "-f", "-p", "80", "-h", "/bin"]);
    let inspected: Value = serde_json::from_str(&podman(&["inspect", "web"]).unwrap()).unwrap();
    let address = inspected[0]["NetworkSettings"]["Networks"]["podnet"]["IPAddress"].as_str().unwrap().to_owned();
    assert_eq!(address, "10.60.0.2");
    run(&["--rm"], &["/bin/wget", "-q", "-O", "/dev/null", &format!("http://{address}/echo")]);
    run(&["--rm"], &["/bin/ping", "-c1", "-W3", "203.0.113.2"]);
    let page = "use IO::Socket::INET; $s=IO::Socket::INET->new(PeerAddr=>q(203.0.113.1:8080),Timeout=>3) or die; print $s qq(GET /none HTTP/1.0\\r\\n\\r\\n); print <$s>";
    let answer = runtime.machine.outside.run(&["perl", "-e", page]);
    assert!(answer.contains("404"), "{answer}");
    assert_eq!(leases(&runtime, "podnet"), ["10.60.0.2"]);
    podman(&["rm", "-f", "-t", "0", "web"]).unwrap();
    assert_eq!(leases(&runtime, "podnet"), [""; 0]);
    assert_eq!(runtime.machine.traces(), [""; 0]);
}

fn leases(runtime: &Runtime, network: &str) -> Vec<String> {
    let directory = fs::read_dir(runtime.machine.data.path().join(network)).unwrap();
    let names = directory.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
    names.filter(|name| name.parse::<std::net::IpAddr>().is_ok()).collect()
}
