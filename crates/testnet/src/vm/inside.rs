//! What the virtual machine has inside.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::{EXIT_CODE, INSIDE_VARIABLE, MEMORY_MB, PATIENCE, archive::Archive, modules};

/// What tests may run inside.
const PROGRAMS: [&str; 6] = ["sh", "mount", "chroot", "ip", "ping", "sleep"];
/// What loads modules, one by one, of which a cluster has nearly a hundred: this one needs no libraries, and starts in a fraction of the time of
/// kmod's, which brings four.
const LOADER: &str = "busybox";
/// Where Debian has the extensions of iptables, which its programs load by their names as rules need them.
const IPTABLES_EXTENSIONS: &str = "/usr/lib/x86_64-linux-gnu/xtables";
/// What `stdbuf` loads into the program that it starts.
const STDBUF: &str = "/usr/libexec/coreutils/libstdbuf.so";
/// With this begin the names of variables that tell tests something.
const VARIABLES: &str = "PODNET_TEST_";
/// The test executable's name inside.
const EXECUTABLE: &str = "/test";

/// What a cluster and its tests run.
pub(super) const CLUSTER_PROGRAMS: [&str; 25] = [
    "cat",
    "curl",
    "dig",
    "grep",
    "ip6tables-legacy-restore",
    "ip6tables-legacy-save",
    "ip6tables-nft-restore",
    "ip6tables-nft-save",
    "ip6tables-restore",
    "ip6tables-save",
    "ipset",
    "iptables",
    "iptables-legacy-restore",
    "iptables-legacy-save",
    "iptables-nft-restore",
    "iptables-nft-save",
    "iptables-restore",
    "iptables-save",
    "ipvsadm",
    "kubectl",
    "nft",
    "nsenter",
    "pkill",
    "rm",
    "stdbuf",
];

/// What a cluster needs of the kernel in any case.
pub(super) const BARE_MODULES: [&str; 11] = [
    "bridge",
    "cls_bpf",
    "inet_diag",
    "ipip",
    "raw_diag",
    "sch_ingress",
    "tcp_diag",
    "udp_diag",
    "veth",
    "vxlan",
    "wireguard",
];

/// What rules need, of nf_tables and of iptables by these.
pub(super) const NETFILTER: [&str; 18] = [
    "nf_conntrack_netlink",
    "nft_chain_nat",
    "nft_compat",
    "nft_connlimit",
    "nft_ct",
    "nft_fib_ipv4",
    "nft_fib_ipv6",
    "nft_hash",
    "nft_limit",
    "nft_masq",
    "nft_nat",
    "nft_numgen",
    "nft_reject_ipv4",
    "nft_reject_ipv6",
    "nft_socket",
    "xt_nat",
    "xt_recent",
    "xt_statistic",
];

/// Loads the modules that are for later.
pub(super) const LATER: &str = "/modules/later";

/// What is handed over to the machine, and how much of this one it gets.
pub(super) struct Inside<'a> {
    pub(super) modules: &'a [&'a str],
    /// Those that somebody inside loads, with what they depend on and is not loaded by then.
    pub(super) later: &'a [&'a str],
    /// Of this machine, beside those that are always there.
    pub(super) programs: &'a [&'a str],
    pub(super) memory_mb: u32,
    /// For a cluster inside.
    pub(super) podnet: Option<&'a Path>,
}

impl<'a> Inside<'a> {
    pub(super) fn new(modules: &'a [&'a str], programs: &'a [&'a str]) -> Self {
        Self { modules, later: &[], programs, memory_mb: MEMORY_MB, podnet: None }
    }

    /// A `cpio` archive with everything that the machine has. What is made for it on the way is made in `scratch`.
    pub(super) fn files(&self, executable: &Path, arguments: &[&str], all_modules: &Path, scratch: &Path) -> Vec<u8> {
        let mut archive = Archive::default();
        for directory in ["/dev", "/proc", "/sys", "/run", "/tmp", "/var", "/root", "/place"] {
            archive.directory(directory);
        }
        for program in PROGRAMS.iter().chain(self.programs) {
            archive.program(&format!("/bin/{program}"), &find_program(program));
        }
        archive.program("/bin/insmod", &find_program(LOADER));
        if self.programs.iter().any(|program| program.contains("iptables") || program.contains("ip6tables")) {
            let files = fs::read_dir(IPTABLES_EXTENSIONS).expect("iptables has extensions").flatten();
            archive.objects(&files.map(|file| file.path()).collect::<Vec<_>>());
        }
        if self.programs.contains(&"stdbuf") {
            archive.objects(&[PathBuf::from(STDBUF)]);
        }
        archive.program(EXECUTABLE, executable);
        if let Some(podnet) = self.podnet {
            add_podnet(&mut archive, podnet, scratch);
        }
        let at_once = modules::in_order(all_modules, self.modules);
        let mut insert = String::new();
        let mut later = "#!/bin/sh\nset -e\n".to_owned();
        for (number, module) in modules::in_order(all_modules, &[self.modules, self.later].concat()).iter().enumerate()
        {
            let path = format!("/modules/{}.ko", module.name);
            archive.file(&path, 0o644, &module.bytes);
            let script = if number < at_once.len() { &mut insert } else { &mut later };
            script.push_str(&format!("insmod {path}\n"));
        }
        archive.file(LATER, 0o644, later.as_bytes());
        let words = [EXECUTABLE].iter().chain(arguments).map(|word| format!("'{word}'"));
        let command = words.collect::<Vec<_>>().join(" ");
        archive.file("/init", 0o755, INIT.as_bytes());
        archive.file(SECOND, 0o755, self.work(&insert, &command).as_bytes());
        archive.finish()
    }

    /// What the first process does. When it ends the kernel panics, which is told to mean a restart, which is told to mean the machine's
    /// end: so it needs no program to switch off with.
    fn work(&self, insert: &str, command: &str) -> String {
        let limit = PATIENCE.as_secs();
        let told = assignments(env::vars_os());
        let groups = if self.podnet.is_some() { "mount -t cgroup2 cgroup /sys/fs/cgroup\n" } else { "" };
        format!(
            "#!/bin/sh\n\
             export PATH=/bin HOME=/root RUST_BACKTRACE=1{told} {INSIDE_VARIABLE}=1\n\
             mount -t devtmpfs dev /dev\n\
             mount -t proc proc /proc\n\
             mount -t sysfs sys /sys\n\
             mount -t tmpfs run /run\n\
             {groups}\
             (sleep {limit}; kill -9 1; echo c >/proc/sysrq-trigger) 2>/dev/null &\n\
             {insert}\
             ip link set lo up\n\
             {command} >/dev/ttyS1 2>&1 </dev/null\n\
             code=$?\n\
             echo >/dev/ttyS1\n\
             echo '{EXIT_CODE}'$code >/dev/ttyS1\n\
             exit 0\n"
        )
    }
}

/// Of these variables those that tell tests something, as a shell reads them, each after a space.
fn assignments(variables: impl Iterator<Item = (OsString, OsString)>) -> String {
    let is_name = |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let told = variables.filter_map(|(name, value)| {
        let (name, value) = (name.into_string().ok()?, value.into_string().ok()?);
        let is_told = name.starts_with(VARIABLES) && is_name(&name);
        is_told.then(|| format!(" {name}='{}'", value.replace('\'', "'\\''")))
    });
    told.collect()
}

/// What [`INIT`] becomes. No program of this machine has a path that begins so, wherever the sources are checked out.
const SECOND: &str = "/.second";

/// Nobody can take another root in place of the kernel's first file system (pivot_root(2)), as containers do: so it is mounted once more,
/// over itself.
const INIT: &str = "#!/bin/sh\n\
    export PATH=/bin\n\
    mount --bind / /place\n\
    cd /place\n\
    mount --move . /\n\
    exec chroot . /.second\n";

/// Users and names that programs look for.
const ETC: [(&str, &str); 5] = [
    ("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\n"),
    ("/etc/group", "root:x:0:\n"),
    ("/etc/protocols", "icmp 1 ICMP\ntcp 6 TCP\nudp 17 UDP\nsctp 132 SCTP\n"),
    ("/etc/hosts", "127.0.0.1 localhost\n"),
    ("/etc/resolv.conf", "nameserver 127.0.0.1\n"),
];

/// Without their symbols, which are half of them.
fn add_podnet(archive: &mut Archive, podnet: &Path, scratch: &Path) {
    for path in [podnet.to_owned(), podnet.with_file_name("podnet-cni")] {
        let stripped = scratch.join(path.file_name().expect("a program has a name"));
        let made = Command::new("strip").arg("-o").arg(&stripped).arg(&path).status();
        assert!(
            made.as_ref().is_ok_and(std::process::ExitStatus::success),
            "cannot strip {}: {made:?}; is it built, and has `scripts/setup test` been run?",
            path.display()
        );
        archive.program(&path.display().to_string(), &stripped);
        fs::remove_file(stripped).expect("what was made can be removed");
    }
    for (path, text) in ETC {
        archive.file(path, 0o644, text.as_bytes());
    }
}

fn find_program(name: &str) -> PathBuf {
    // Where a user who is not root does not look.
    let path = env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    let found = path.split(':').map(|directory| Path::new(directory).join(name)).find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("there is no {name}, which the virtual machine needs: run `scripts/setup test`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_tests_are_told_by_variables_is_told_inside() {
        let variables = [
            ("PODNET_TEST_CHURN_SECONDS", "60"),
            ("HOME", "/home/somebody"),
            ("PODNET_TEST_NO-NAME", "1"),
            ("PODNET_TEST_WORDS", "it's $HOME"),
        ];
        let told = assignments(variables.into_iter().map(|(name, value)| (name.into(), value.into())));
        assert_eq!(told, r" PODNET_TEST_CHURN_SECONDS='60' PODNET_TEST_WORDS='it'\''s $HOME'");
    }
}
