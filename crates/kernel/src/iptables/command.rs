//! A program that is run, and what it says when it refuses.

use std::{
    collections::BTreeSet,
    env, fs, io,
    io::Write as _,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use crate::{
    netns::{NetNs, NetNsError},
    nft::NftError,
};

/// Where Debian has them, and where a daemon does not always look.
const ELSEWHERE: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/local/sbin", "/usr/bin"];

/// An installed program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Program(PathBuf);

impl Program {
    /// By its name, in `PATH` and where such programs are.
    pub(super) fn find(name: &str) -> Option<Self> {
        let path = env::var_os("PATH").unwrap_or_default();
        let places = env::split_paths(&path).chain(ELSEWHERE.map(PathBuf::from));
        places.map(|place| place.join(name)).find(|file| is_executable(file)).map(Self)
    }

    /// What it says of its version; nothing where it cannot be run.
    pub(super) fn version(&self) -> String {
        let output = Command::new(&self.0).arg("--version").stdin(Stdio::null()).output();
        output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
    }
}

fn is_executable(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// Runs a program in a namespace, and returns what it printed.
pub(super) fn run(netns: &NetNs, program: &Program, arguments: &[&str], input: &str) -> Result<String, IptablesError> {
    run_as(netns, program, arguments, input)?.1
}

/// As [`run`]; tells which process it was as well.
pub(super) fn run_as(
    netns: &NetNs,
    program: &Program,
    arguments: &[&str],
    input: &str,
) -> Result<(u32, Result<String, IptablesError>), IptablesError> {
    let output = netns.run(|| spoken(program, arguments, input))?;
    let start = |source| IptablesError::Start { program: program.0.display().to_string(), source };
    let (process, output) = output.map_err(start)?;
    Ok((process, judged(program, input, &output)))
}

fn judged(program: &Program, input: &str, output: &Output) -> Result<String, IptablesError> {
    let name = || program.0.display().to_string();
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = each_once(String::from_utf8_lossy(&output.stderr).trim());
    // `RESOURCE_PROBLEM`: the lock, or a table that somebody else has just changed.
    if output.status.code() == Some(4) {
        return Err(IptablesError::Busy { program: name(), said });
    }
    let refused = refused_line(&said).and_then(|number| Some((number, input.lines().nth(number.checked_sub(1)?)?)));
    let line = refused.map(|(number, line)| format!(" at line {number}, `{line}`")).unwrap_or_default();
    let said = match said.is_empty() {
        true => output.status.to_string(),
        false => said,
    };
    Err(IptablesError::Refused { program: name(), line, said })
}

/// Without the lines that are said again: where an extension is missing there is a warning for each rule.
fn each_once(said: &str) -> String {
    let mut known = BTreeSet::new();
    said.lines().filter(|line| known.insert(*line)).collect::<Vec<_>>().join("\n")
}

/// Gives the input and takes the output side by side: either may be larger than a pipe holds.
fn spoken(program: &Program, arguments: &[&str], input: &str) -> io::Result<(u32, Output)> {
    let mut child = Command::new(&program.0)
        .args(arguments)
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let pipe = child.stdin.take();
    std::thread::scope(|scope| {
        // A program that ends early tells why by itself.
        scope.spawn(move || pipe.map(|mut pipe| pipe.write_all(input.as_bytes())));
        let process = child.id();
        child.wait_with_output().map(|output| (process, output))
    })
}

/// The number in `line 5 failed` or `Error occurred at line: 5`.
fn refused_line(said: &str) -> Option<usize> {
    let number = said.split("line").filter_map(|rest| {
        let rest = rest.trim_start_matches([':', ' ']);
        let digits = rest.find(|letter: char| !letter.is_ascii_digit()).map_or(rest, |end| &rest[..end]);
        digits.parse().ok()
    });
    number.last()
}

/// Why rules could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum IptablesError {
    /// It is not installed.
    #[error("there is no program {program}: install iptables, or choose another mode")]
    Missing {
        /// Its name.
        program: String,
    },
    /// It cannot be run.
    #[error("cannot run {program}")]
    Start {
        /// The file.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// Somebody else is at it; another attempt may do.
    #[error("{program} had to wait for somebody else for too long: {said}")]
    Busy {
        /// The file.
        program: String,
        /// What it said.
        said: String,
    },
    /// It refused.
    #[error("{program} refused the rules{line}: {said}")]
    Refused {
        /// The file.
        program: String,
        /// The line that it refused, where it says so.
        line: String,
        /// What it said.
        said: String,
    },
    /// The namespace cannot be entered.
    #[error(transparent)]
    NetNs(#[from] NetNsError),
    /// Whether the kernel has nf_tables is not known.
    #[error("cannot ask the kernel for nf_tables")]
    Nft(#[from] NftError),
    /// The kernel does not tell of a table.
    #[error("cannot ask the kernel about the tables of iptables")]
    Ask(#[from] io::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_refused_line_is_found_in_both_variants_words() {
        assert_eq!(refused_line("iptables-restore: line 12 failed"), Some(12));
        assert_eq!(refused_line("iptables-nft-restore: line 7 failed: No such file or directory."), Some(7));
        let long = "iptables-restore v1.8.9 (legacy): unknown option \"--x\"\nError occurred at line: 5\nTry `-h'";
        assert_eq!(refused_line(long), Some(5));
        assert_eq!(refused_line("online help"), None);
    }

    #[test]
    fn what_is_said_a_thousand_times_is_told_once() {
        let said = format!("{}line 7 failed", "Warning: Extension DNAT is not supported\n".repeat(1000));
        assert_eq!(each_once(&said), "Warning: Extension DNAT is not supported\nline 7 failed");
    }
}
