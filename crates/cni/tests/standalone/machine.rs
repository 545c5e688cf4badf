//! A machine that containers are attached to: a namespace with a link to another one, which is everything else.

use std::{
    path::Path,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use podnet_testnet::cni::Conflist;
use serde_json::{Value, json};

/// A namespace that goes with the value.
pub(crate) struct Sandbox {
    pub(crate) name: String,
}

impl Sandbox {
    pub(crate) fn new(tag: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("pncni-{tag}-{}-{number}", std::process::id());
        run("ip", &["netns", "add", &name]);
        let sandbox = Self { name };
        sandbox.run(&["ip", "link", "set", "lo", "up"]);
        sandbox
    }

    pub(crate) fn path(&self) -> String {
        format!("/run/netns/{}", self.name)
    }

    pub(crate) fn try_run(&self, command: &[&str]) -> Result<String, String> {
        try_run("ip", &[&["netns", "exec", &self.name], command].concat())
    }

    pub(crate) fn run(&self, command: &[&str]) -> String {
        self.try_run(command).unwrap_or_else(|error| panic!("{command:?} in {}: {error}", self.name))
    }

    /// Answers each connection to the port with the address that it came from, until the test ends.
    pub(crate) fn serve(&self, port: u16) -> Server {
        let program = format!(
            "use IO::Socket::IP; $s=IO::Socket::IP->new(LocalHost=>q(::),V6Only=>0,GetAddrInfoFlags=>0,LocalPort=>{port},Listen=>9,ReuseAddr=>1) or die; $|=1; print qq(ready\\n); while($c=$s->accept){{$h=$c->peerhost; $h=~s/^::ffff://; print $c $h; close $c}}"
        );
        self.answering(&program)
    }

    fn answering(&self, program: &str) -> Server {
        let mut child = Command::new("ip")
            .args(["netns", "exec", &self.name, "perl", "-e", program])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = [0; 6];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut ready).unwrap();
        Server(child)
    }

    /// Takes all that comes to the port, and closes when it is all there, until the test ends.
    pub(crate) fn sink(&self, port: u16) -> Server {
        let program = format!(
            "use IO::Socket::INET; $s=IO::Socket::INET->new(LocalPort=>{port},Listen=>9,ReuseAddr=>1) or die; $|=1; print qq(ready\\n); while($c=$s->accept){{1 while sysread($c,$b,65536); close $c}}"
        );
        self.answering(&program)
    }

    /// The address that a server saw.
    pub(crate) fn ask(&self, address: &str, port: u16) -> Result<String, String> {
        let program = "use IO::Socket::IP; $s=IO::Socket::IP->new(PeerHost=>$ARGV[0],GetAddrInfoFlags=>0,PeerPort=>$ARGV[1],Timeout=>2) or die $@; print <$s>";
        self.try_run(&["perl", "-e", program, address, &port.to_string()])
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).output();
    }
}

/// A process that ends with the value.
pub(crate) struct Server(std::process::Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The machine, `203.0.113.1` and `2001:db8::1`, and everything else, `203.0.113.2` and `2001:db8::2`, which knows no way to the
/// containers.
pub(crate) struct Machine {
    pub(crate) node: Sandbox,
    pub(crate) outside: Sandbox,
    pub(crate) data: tempfile::TempDir,
}

impl Machine {
    pub(crate) fn new(tag: &str) -> Self {
        let (node, outside) = (Sandbox::new(tag), Sandbox::new(&format!("{tag}-out")));
        node.run(&["ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", &outside.name]);
        for (side, number) in [(&node, 1), (&outside, 2)] {
            side.run(&["ip", "addr", "add", &format!("203.0.113.{number}/24"), "dev", "eth0"]);
            side.run(&["ip", "addr", "add", &format!("2001:db8::{number}/64"), "dev", "eth0", "nodad"]);
            side.run(&["ip", "link", "set", "eth0", "up"]);
        }
        node.run(&["ip", "route", "add", "default", "via", "203.0.113.2"]);
        // As one that heard it from a router.
        node.run(&["sysctl", "-qw", "net.ipv6.conf.eth0.accept_ra=1", "net.ipv6.conf.all.forwarding=0"]);
        node.run(&["ip", "route", "add", "default", "via", "2001:db8::2", "proto", "ra"]);
        Self { node, outside, data: tempfile::tempdir().unwrap() }
    }

    /// Whether it forwards IPv6, and hears its router all the same.
    pub(crate) fn routes_and_hears_its_router(&self) -> bool {
        let read = |key: &str| self.node.run(&["sysctl", "-n", key]).trim().to_owned();
        [read("net.ipv6.conf.all.forwarding"), read("net.ipv6.conf.eth0.accept_ra")] == ["1", "2"]
    }

    /// The machine's network, with these keys of `ipam`, and those of the plugin.
    pub(crate) fn network(&self, ipam: &Value, more: &Value) -> Conflist {
        let mut config = json!({
            "type": "podnet-cni", "ipMasq": true,
            "capabilities": {"portMappings": true, "ips": true, "mac": true, "ipRanges": true, "dns": true, "aliases": true, "bandwidth": true},
            "ipam": {"type": "host-local", "dataDir": self.data.path()},
        });
        for (key, value) in ipam.as_object().unwrap() {
            config["ipam"][key] = value.clone();
        }
        for (key, value) in more.as_object().unwrap() {
            config[key] = value.clone();
        }
        let mut list = Conflist::new(Path::new(env!("CARGO_BIN_EXE_podnet-cni")), "1.1.0", "local", vec![config]);
        list.node = Some(self.node.name.clone());
        list
    }

    pub(crate) fn records(&self) -> String {
        let inode = std::fs::metadata(self.node.path()).unwrap();
        format!("/run/podnet-cni/{}", std::os::unix::fs::MetadataExt::ino(&inode))
    }

    /// What is kept of an attachment.
    pub(crate) fn record(&self, id: &str, ifname: &str) -> Value {
        serde_json::from_slice(&std::fs::read(format!("{}/{id}@{ifname}", self.records())).unwrap()).unwrap()
    }

    /// The names of a network's containers, without comments; none where there is no such file.
    pub(crate) fn names(&self, network: &str) -> Option<String> {
        let text = std::fs::read_to_string(format!("{}/hosts.{network}", self.records())).ok()?;
        Some(text.lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}\n")).collect())
    }

    /// What containers left on the machine: addresses, records, devices, rules.
    pub(crate) fn traces(&self) -> Vec<String> {
        let mut traces = Vec::new();
        for entry in std::fs::read_dir(self.data.path().join("local")).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.parse::<std::net::IpAddr>().is_ok() {
                traces.push(format!("address {name}"));
            }
        }
        for entry in std::fs::read_dir(self.records()).into_iter().flatten().flatten() {
            traces.push(format!("record {}", entry.file_name().to_string_lossy()));
        }
        let links = self.node.run(&["ip", "-o", "link"]);
        traces.extend(links.lines().filter(|line| line.contains(": pc") || line.contains(": pd")).map(str::to_owned));
        let tables = self.node.run(&["nft", "list", "tables"]);
        traces.extend(tables.lines().filter(|line| line.contains("podnet")).map(str::to_owned));
        traces
    }
}

impl Drop for Machine {
    /// Tests that fail, or do not say DEL, leave records of a machine that is gone.
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(self.records());
    }
}

/// The address of a family (`.` or `:`) in a result.
pub(crate) fn address(result: &Value, family: char) -> String {
    let ips = result["ips"].as_array().unwrap();
    let found = ips.iter().filter_map(|ip| ip["address"].as_str()).find(|address| address.contains(family));
    found.unwrap_or_else(|| panic!("{result:#}")).split('/').next().unwrap().to_owned()
}

pub(crate) fn try_run(program: &str, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(arguments).output().map_err(|error| error.to_string())?;
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.success() { Ok(said) } else { Err(said) }
}

pub(crate) fn run(program: &str, arguments: &[&str]) -> String {
    try_run(program, arguments).unwrap_or_else(|error| panic!("{program} {arguments:?}: {error}"))
}
