//! What the process uses, as Prometheus' clients tell it (proc(5)); what cannot be read is left out.

use std::{
    fmt::Write as _,
    fs::{read_dir, read_to_string},
};

use rustix::{
    process::{Resource, getrlimit},
    time::{ClockId, clock_gettime},
};

/// How many ticks of a second the kernel counts in where it tells times (`USER_HZ`): the same wherever podnet runs.
const TICKS: f64 = 100.0;

/// The metrics in Prometheus' text format.
pub(super) fn metrics() -> String {
    let file = |path: &str| read_to_string(path).unwrap_or_default();
    let status = file("/proc/self/status");
    let used = clock_gettime(ClockId::ProcessCPUTime);
    // The directory itself is open while it is read.
    let open = read_dir("/proc/self/fd").ok().map(|files| files.count().saturating_sub(1) as f64);
    let limit = |resource| getrlimit(resource).current.unwrap_or(u64::MAX) as f64;
    rendered(&[
        ("process_cpu_seconds_total", "counter", Some(used.tv_sec as f64 + used.tv_nsec as f64 / 1e9)),
        ("process_max_fds", "gauge", Some(limit(Resource::Nofile))),
        ("process_open_fds", "gauge", open),
        ("process_resident_memory_bytes", "gauge", bytes(&status, "VmRSS")),
        ("process_start_time_seconds", "gauge", start(&file("/proc/self/stat"), &file("/proc/stat"))),
        ("process_virtual_memory_bytes", "gauge", bytes(&status, "VmSize")),
        ("process_virtual_memory_max_bytes", "gauge", Some(limit(Resource::As))),
    ])
}

fn rendered(values: &[(&str, &str, Option<f64>)]) -> String {
    let mut out = String::new();
    for (name, kind, value) in values {
        if let Some(value) = value {
            // Writing to a String cannot fail.
            let _ = writeln!(out, "# TYPE {name} {kind}\n{name} {value}");
        }
    }
    out
}

/// What `/proc/PID/status` tells of memory, in kilobytes.
fn bytes(status: &str, field: &str) -> Option<f64> {
    let value = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    let kilobytes: u64 = value.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    Some((kilobytes * 1024) as f64)
}

/// When a process began, in seconds since 1970: so many ticks after the machine did.
fn start(stat: &str, machine: &str) -> Option<f64> {
    // The second field is the program's name in parentheses, which may hold anything; the 22nd is the time.
    let ticks: f64 = stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(22 - 3)?.parse().ok()?;
    let booted: f64 = machine.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    Some(booted + ticks / TICKS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_tells_is_told_in_seconds_and_bytes() {
        let status = "Name:\tpodnet\nVmPeak:\t  300 kB\nVmSize:\t  200 kB\nVmRSS:\t   12 kB\nThreads:\t3\n";
        assert_eq!(bytes(status, "VmRSS"), Some(12.0 * 1024.0));
        assert_eq!(bytes(status, "VmSize"), Some(200.0 * 1024.0));
        assert_eq!(bytes(status, "VmSwap"), None);
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 12345 9 9";
        assert_eq!(start(stat, "cpu  1 2\nbtime 1700000000\nprocesses 9\n"), Some(1_700_000_123.45));
        assert_eq!(start(stat, "cpu  1 2\n"), None);
        assert_eq!(start("", "btime 1700000000\n"), None);
        assert_eq!(rendered(&[("a", "gauge", None), ("b", "gauge", Some(2.5))]), "# TYPE b gauge\nb 2.5\n");
    }

    #[test]
    fn of_this_process_all_of_it_is_known() {
        let text = metrics();
        let value = |name: &str| -> f64 {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.unwrap_or_else(|| panic!("{name}: {text}")).parse().unwrap()
        };
        assert!(value("process_open_fds") >= 3.0 && value("process_open_fds") <= value("process_max_fds"), "{text}");
        assert!(value("process_resident_memory_bytes") > 1024.0 * 1024.0, "{text}");
        assert!(value("process_virtual_memory_bytes") >= value("process_resident_memory_bytes"), "{text}");
        assert!(value("process_virtual_memory_max_bytes") > 0.0 && value("process_cpu_seconds_total") > 0.0, "{text}");
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        let age = now - value("process_start_time_seconds");
        // The kernel's clocks go a little apart.
        assert!((-60.0..86_400.0).contains(&age), "{age}");
    }
}
