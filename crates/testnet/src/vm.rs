//! A virtual machine with Debian's kernel, for what the running kernel may lack: IPIP, WireGuard, IPVS.
//!
//! [`run_tests`] boots it with a file system in memory that holds the very test executable that calls, its libraries, a few programs
//! and the kernel modules that are asked for, and runs there those of its tests that are marked `#[ignore]` and whose names hold
//! a word. It boots in seconds without hardware virtualisation, of which it makes no use: it is there on few build machines.
//!
//! The kernel is that of `scripts/setup test`, or that below `$PODNET_TEST_KERNEL`: `boot/vmlinuz-*` and `lib/modules/`, as Debian's
//! package holds them.
//!
//! What variables named `PODNET_TEST_…` tell tests they tell those inside as well.

mod archive;
mod inside;
mod modules;

use std::{
    env,
    ffi::OsStr,
    fs,
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    process::{self, Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use inside::{Inside, NETFILTER};

const QEMU: &str = "qemu-system-x86_64";
/// Names the directory of another kernel.
const KERNEL_VARIABLE: &str = "PODNET_TEST_KERNEL";
/// Where `scripts/setup test` unpacks the kernel, from the workspace's root.
const KERNEL_DIRECTORY: &str = "target/test-kernel";
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
/// Before the exit code, on the last line of the output.
const EXIT_CODE: &str = "podnet-test-exit-code ";
/// From power on until the tests' end; on an idle machine the longest ends after four minutes. The machine ends itself then too, should whoever
/// watches it be gone.
const PATIENCE: Duration = Duration::from_secs(1500);
/// A test program of 150 MB is there twice while it is unpacked, and the file system in memory takes half at most.
const MEMORY_MB: u32 = 1024;
/// The programs alone, twice while they are unpacked, are several hundred.
const MEMORY_WITH_CLUSTER_MB: u32 = 2048;
/// Time goes by with instructions, a nanosecond for each, and what is waited for while nothing is done is there at once. So all goes on as on a
/// slow and steady processor, however busy the one is that emulates it. By the clock of this machine timers came many times as often as they
/// are meant to, for what can be done between two of them.
const COUNTED_TIME: [&str; 2] = ["-icount", "shift=0,sleep=off"];
/// All that the emulator knows, but for what is quick in silicon and slow here. Where time goes by with instructions a string instruction is
/// translated as one block for each repetition: who is told of fast ones (ERMS, FSRM) copies and clears byte by byte with them, and by eight bytes
/// otherwise. Page tables of five levels are walked longer than those of four.
const PROCESSOR: &str = "max,-erms,-fsrm,-la57";
/// Says inside that it is the virtual machine.
const INSIDE_VARIABLE: &str = "PODNET_TEST_INSIDE";

/// The modules of virtual servers and what goes with them: sets, the device of their addresses, rules of iptables' legacy variant. Nothing is
/// loaded by itself in there.
pub const VIRTUAL_SERVERS: [&str; 28] = [
    "veth",
    "dummy",
    "ip_vs",
    "ip_vs_rr",
    "ip_vs_mh",
    "ip_set_bitmap_port",
    "ip_set_hash_ip",
    "ip_set_hash_net",
    "ip_set_hash_ipport",
    "ip_set_hash_ipportip",
    "ip_set_hash_ipportnet",
    "iptable_filter",
    "iptable_nat",
    "iptable_mangle",
    "ip6table_filter",
    "ip6table_nat",
    "ip6table_mangle",
    "ipt_REJECT",
    "ip6t_REJECT",
    "nft_reject_ipv4",
    "nft_reject_ipv6",
    "xt_MASQUERADE",
    "xt_addrtype",
    "xt_comment",
    "xt_conntrack",
    "xt_mark",
    "xt_set",
    "xt_tcpudp",
];

/// What nf_tables loads by itself where programs are there to load it with.
pub const NF_TABLES: [&str; 9] = [
    "nft_chain_nat",
    "nft_ct",
    "nft_fib_ipv4",
    "nft_fib_ipv6",
    "nft_masq",
    "nft_nat",
    "nft_numgen",
    "nft_reject_ipv4",
    "nft_reject_ipv6",
];

/// The programs of iptables' legacy variant that podnet runs.
pub const IPTABLES_LEGACY: [&str; 4] =
    ["iptables-legacy-restore", "iptables-legacy-save", "ip6tables-legacy-restore", "ip6tables-legacy-save"];

/// Runs, in the virtual machine, the ignored tests of the calling test executable whose names hold `word`, and prints what they
/// print. `modules` are loaded before, with those that they depend on.
///
/// # Panics
///
/// When one fails, none is run, they do not end in time, or there is no virtual machine.
pub fn run_tests(word: &str, modules: &[&str]) {
    run_tests_with(word, modules, &[]);
}

/// As [`run_tests`], with more programs of this machine inside; one whose name holds `iptables` or `ip6tables` has its extensions.
///
/// # Panics
///
/// As [`run_tests`], and where a program is not there.
pub fn run_tests_with(word: &str, modules: &[&str], programs: &[&str]) {
    assert_passed(word, &run_with(&this_executable(), &ignored(word), &Inside::new(modules, programs)));
}

/// As [`run_tests`], for tests that bring up a [`crate::Cluster`] inside with this binary `podnet` (and `podnet-cni` beside it), both at the
/// path that they have here, with kubectl, what tests look with, and all that modes of Services need.
///
/// # Panics
///
/// As [`run_tests`], and where a program is not there.
pub fn run_cluster_tests(word: &str, podnet: &str) {
    assert_passed(word, &run_with_cluster(&this_executable(), &ignored(word), podnet));
}

/// As [`run_cluster_tests`], with a kernel that has nothing of netfilter until somebody inside has [`load_netfilter`] done.
///
/// # Panics
///
/// As there.
pub fn run_bare_cluster_tests(word: &str, podnet: &str) {
    let inside = Inside { later: &NETFILTER, ..with_cluster(&inside::BARE_MODULES, podnet) };
    assert_passed(word, &run_with(&this_executable(), &ignored(word), &inside));
}

/// Loads the modules of nf_tables, inside.
///
/// # Panics
///
/// When one is refused.
pub fn load_netfilter() {
    let done = Command::new("sh").arg(inside::LATER).output().expect("there is a shell");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

/// As [`run`], with what a cluster needs, as [`run_cluster_tests`].
///
/// # Panics
///
/// As [`run`], and where a program is not there.
#[must_use]
pub fn run_with_cluster(executable: &Path, arguments: &[&str], podnet: &str) -> (String, i32) {
    let modules = [&VIRTUAL_SERVERS[..], &inside::BARE_MODULES, &NETFILTER].concat();
    run_with(executable, arguments, &with_cluster(&modules, podnet))
}

fn with_cluster<'a>(modules: &'a [&'a str], podnet: &'a str) -> Inside<'a> {
    Inside {
        memory_mb: MEMORY_WITH_CLUSTER_MB,
        podnet: Some(Path::new(podnet)),
        ..Inside::new(modules, &inside::CLUSTER_PROGRAMS)
    }
}

/// The caller runs in the virtual machine, where everything takes about ten times as long.
#[must_use]
pub fn is_here() -> bool {
    env::var_os(INSIDE_VARIABLE).is_some()
}

/// Runs an executable in the virtual machine; its output and its exit code.
///
/// # Panics
///
/// When it does not end in time or there is no virtual machine.
#[must_use]
pub fn run(executable: &Path, arguments: &[&str], modules: &[&str]) -> (String, i32) {
    run_with(executable, arguments, &Inside::new(modules, &[]))
}

fn this_executable() -> PathBuf {
    env::current_exe().expect("a test executable knows its path")
}

fn ignored(word: &str) -> [&str; 4] {
    [word, "--ignored", "--test-threads=1", "--nocapture"]
}

fn assert_passed(word: &str, (output, code): &(String, i32)) {
    assert_eq!(*code, 0, "the tests in the virtual machine failed");
    assert!(!output.contains("running 0 tests"), "no ignored test's name holds {word}");
}

fn run_with(executable: &Path, arguments: &[&str], inside: &Inside<'_>) -> (String, i32) {
    let kernel = Kernel::find();
    let scratch = Scratch::new();
    let initrd = scratch.path.join("initrd");
    let files = inside.files(executable, arguments, &kernel.modules, &scratch.path);
    fs::write(&initrd, files).expect("the scratch directory is writable");
    let (console, result) = (scratch.path.join("console"), scratch.path.join("result"));
    let mut machine = Machine::boot(&kernel.image, inside, &initrd, &console, &result);
    let in_time = machine.wait(PATIENCE, &mut Told::of(&result));
    let read = |path: &Path| String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).replace('\r', "");
    let output = read(&result);
    let told = output.lines().rev().find_map(|line| line.strip_prefix(EXIT_CODE)).and_then(|code| code.parse().ok());
    let Some(code) = told else {
        let why = if in_time { "ended early" } else { "did not end in time" };
        panic!("the virtual machine {why}; its console:\n{}", read(&console));
    };
    (output, code)
}

/// The kernel that is booted.
struct Kernel {
    image: PathBuf,
    /// Where its modules are, at whatever depth.
    modules: PathBuf,
}

impl Kernel {
    fn find() -> Self {
        let directory =
            env::var_os(KERNEL_VARIABLE).map_or_else(|| Path::new(ROOT).join(KERNEL_DIRECTORY), PathBuf::from);
        let is_image =
            |path: &PathBuf| path.file_name().and_then(OsStr::to_str).is_some_and(|name| name.starts_with("vmlinuz"));
        let files = fs::read_dir(directory.join("boot")).into_iter().flatten().flatten();
        let image = files.map(|file| file.path()).filter(is_image).max().unwrap_or_else(|| {
            panic!(
                "there is no kernel for the virtual machine in {}: run `scripts/setup test`, or let ${KERNEL_VARIABLE} name a \
                 directory with boot/vmlinuz-* and lib/modules/",
                directory.display()
            )
        });
        // Where lib is a link to usr/lib the package may be made for either.
        let modules = ["lib/modules", "usr/lib/modules"].map(|path| directory.join(path));
        let modules = modules.into_iter().find(|path| path.is_dir()).unwrap_or(directory);
        Self { image, modules }
    }
}

/// A running virtual machine; dropping it ends it.
struct Machine {
    process: Child,
}

impl Machine {
    fn boot(kernel: &Path, inside: &Inside<'_>, initrd: &Path, console: &Path, result: &Path) -> Self {
        let file = |path: &Path| format!("file:{}", path.display());
        // Its time does not depend on when it has a processor: whatever else is tested meanwhile comes first.
        let process = Command::new("nice")
            .args(["-n", "10", QEMU])
            .args(["-accel", "tcg", "-cpu", PROCESSOR, "-smp", "1", "-m", &inside.memory_mb.to_string()])
            .args(COUNTED_TIME)
            .args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"])
            .arg("-kernel")
            .arg(kernel)
            .arg("-initrd")
            .arg(initrd)
            .args(["-append", "console=ttyS0 panic=-1 loglevel=4 mitigations=off"])
            .args(["-serial", &file(console), "-serial", &file(result)])
            .stdin(Stdio::null())
            .spawn();
        let process = process.unwrap_or_else(|error| panic!("cannot start {QEMU}: {error}; run `scripts/setup test`"));
        Self { process }
    }

    /// Whether it ended within that time. What it tells is printed as it comes: whoever ends a test that takes too long sees how far it came.
    fn wait(&mut self, patience: Duration, told: &mut Told) -> bool {
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            let ended = self.process.try_wait().expect("a child can be waited for").is_some();
            told.print_news(self.process.id());
            if ended {
                return true;
            }
            thread::sleep(Duration::from_millis(20));
        }
        false
    }
}

/// The lines that the machine writes, as far as they were printed.
struct Told {
    file: PathBuf,
    printed: u64,
    began: Instant,
}

impl Told {
    fn of(file: &Path) -> Self {
        Self { file: file.to_owned(), printed: 0, began: Instant::now() }
    }

    /// Whole lines, each after the seconds since the machine was switched on, and those of them that it had a processor.
    fn print_news(&mut self, machine: u32) {
        let mut news = Vec::new();
        let read = fs::File::open(&self.file).and_then(|mut file| {
            file.seek(SeekFrom::Start(self.printed))?;
            file.read_to_end(&mut news)
        });
        let Some(end) = read.ok().and_then(|_| news.iter().rposition(|byte| *byte == b'\n')) else { return };
        let (at, worked) = (self.began.elapsed().as_secs_f32(), worked(machine).unwrap_or_default());
        for line in String::from_utf8_lossy(&news[..end]).replace('\r', "").split('\n') {
            println!("{at:6.1} s, {worked:5.1} s  {line}");
        }
        self.printed += end as u64 + 1;
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Seconds that a process had a processor (`proc_pid_stat(5)`), whose clock ticks 100 times a second on all that tests run on.
fn worked(process: u32) -> Option<f32> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let words = stat.rsplit(") ").next()?.split(' ').skip(11).take(2);
    words.map(|word| word.parse::<f32>().ok().map(|ticks| ticks / 100.0)).sum()
}

/// A directory that goes with the value.
struct Scratch {
    path: PathBuf,
}

impl Scratch {
    fn new() -> Self {
        let thread = format!("{:?}", thread::current().id()).replace(|letter: char| !letter.is_ascii_digit(), "");
        let path = env::temp_dir().join(format!("podnet-test-vm-{}-{thread}", process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("the temporary directory is writable");
        Self { path }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}
