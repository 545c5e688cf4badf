//! A virtual machine with Debian's kernel, for what the running kernel may lack: IPIP, WireGuard, IPVS.
//!
//! [`run_tests`] boots it with a file system in memory that holds the very test executable that calls, its libraries, a few programs
//! and the kernel modules that are asked for, and runs there those of its tests that are marked `#[ignore]` and whose names hold
//! a word. It boots in seconds without hardware virtualisation, of which it makes no use: it is there on few build machines.
//!
//! The kernel is that of `scripts/setup test`, or that below `$PODNET_TEST_KERNEL`: `boot/vmlinuz-*` and `lib/modules/`, as Debian's
//! package holds them.

mod archive;
mod modules;

use std::{
    env,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::{self, Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use archive::Archive;

const QEMU: &str = "qemu-system-x86_64";
/// Names the directory of another kernel.
const KERNEL_VARIABLE: &str = "PODNET_TEST_KERNEL";
/// Where `scripts/setup test` unpacks the kernel, from the workspace's root.
const KERNEL_DIRECTORY: &str = "target/test-kernel";
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
/// What tests may run inside.
const PROGRAMS: [&str; 6] = ["sh", "mount", "insmod", "ip", "ping", "sleep"];
/// Where Debian has the extensions of iptables, which its programs load by their names as rules need them.
const IPTABLES_EXTENSIONS: &str = "/usr/lib/x86_64-linux-gnu/xtables";
/// The test executable's name inside.
const EXECUTABLE: &str = "/test";
/// Before the exit code, on the last line of the output.
const EXIT_CODE: &str = "podnet-test-exit-code ";
/// From power on until the tests' end. The machine ends itself then too, should whoever watches it be gone.
const PATIENCE: Duration = Duration::from_secs(240);
const MEMORY_MB: u32 = 512;

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
    let executable = env::current_exe().expect("a test executable knows its path");
    let arguments = [word, "--ignored", "--test-threads=1", "--nocapture"];
    let (output, code) = run_with(&executable, &arguments, modules, programs);
    println!("{output}");
    assert_eq!(code, 0, "the tests in the virtual machine failed");
    assert!(!output.contains("running 0 tests"), "no ignored test's name holds {word}");
}

/// Runs an executable in the virtual machine; its output and its exit code.
///
/// # Panics
///
/// When it does not end in time or there is no virtual machine.
#[must_use]
pub fn run(executable: &Path, arguments: &[&str], modules: &[&str]) -> (String, i32) {
    run_with(executable, arguments, modules, &[])
}

fn run_with(executable: &Path, arguments: &[&str], modules: &[&str], programs: &[&str]) -> (String, i32) {
    let kernel = Kernel::find();
    let scratch = Scratch::new();
    let initrd = scratch.path.join("initrd");
    fs::write(&initrd, initial_files(executable, arguments, &kernel, modules, programs))
        .expect("the scratch directory is writable");
    let (console, result) = (scratch.path.join("console"), scratch.path.join("result"));
    let mut machine = Machine::boot(&kernel.image, &initrd, &console, &result);
    let in_time = machine.wait(PATIENCE);
    let read = |path: &Path| String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).replace('\r', "");
    let output = read(&result);
    let told = output.lines().rev().find_map(|line| line.strip_prefix(EXIT_CODE)).and_then(|code| code.parse().ok());
    let Some(code) = told else {
        let why = if in_time { "ended early" } else { "did not end in time" };
        panic!("the virtual machine {why}; it printed:\n{output}\nits console:\n{}", read(&console));
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

/// A `cpio` archive with everything that the machine has.
fn initial_files(
    executable: &Path,
    arguments: &[&str],
    kernel: &Kernel,
    modules: &[&str],
    programs: &[&str],
) -> Vec<u8> {
    let mut archive = Archive::default();
    for directory in ["/dev", "/proc", "/sys", "/run", "/tmp", "/var", "/root"] {
        archive.directory(directory);
    }
    for program in PROGRAMS.iter().chain(programs) {
        archive.program(&format!("/bin/{program}"), &find_program(program));
    }
    if programs.iter().any(|program| program.contains("iptables") || program.contains("ip6tables")) {
        let files = fs::read_dir(IPTABLES_EXTENSIONS).expect("iptables has extensions").flatten();
        archive.objects(&files.map(|file| file.path()).collect::<Vec<_>>());
    }
    archive.program(EXECUTABLE, executable);
    let mut insert = String::new();
    for module in modules::in_order(&kernel.modules, modules) {
        let path = format!("/modules/{}.ko", module.name);
        archive.file(&path, 0o644, &module.bytes);
        insert.push_str(&format!("insmod {path}\n"));
    }
    let command = [EXECUTABLE].iter().chain(arguments).map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" ");
    archive.file("/init", 0o755, init(&insert, &command).as_bytes());
    archive.finish()
}

/// The first process. When it ends the kernel panics, which is told to mean a restart, which is told to mean the machine's end:
/// so it needs no program to switch off with.
fn init(insert: &str, command: &str) -> String {
    let limit = PATIENCE.as_secs();
    format!(
        "#!/bin/sh\n\
         export PATH=/bin HOME=/root RUST_BACKTRACE=1\n\
         mount -t devtmpfs dev /dev\n\
         mount -t proc proc /proc\n\
         mount -t sysfs sys /sys\n\
         mount -t tmpfs run /run\n\
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

fn find_program(name: &str) -> PathBuf {
    // Where a user who is not root does not look.
    let path = env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    let found = path.split(':').map(|directory| Path::new(directory).join(name)).find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("there is no {name}, which the virtual machine needs: run `scripts/setup test`"))
}

/// A running virtual machine; dropping it ends it.
struct Machine {
    process: Child,
}

impl Machine {
    fn boot(kernel: &Path, initrd: &Path, console: &Path, result: &Path) -> Self {
        let file = |path: &Path| format!("file:{}", path.display());
        let process = Command::new(QEMU)
            .args(["-accel", "tcg", "-cpu", "max", "-smp", "1", "-m", &MEMORY_MB.to_string()])
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

    /// Whether it ended within that time.
    fn wait(&mut self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            if self.process.try_wait().expect("a child can be waited for").is_some() {
                return true;
            }
            thread::sleep(Duration::from_millis(20));
        }
        false
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
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
