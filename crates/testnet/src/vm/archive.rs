//! The file system that a kernel unpacks when it starts (`Documentation/driver-api/early-userspace/buffer-format.rst`).

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

const DIRECTORY: u32 = 0o040_000;
const FILE: u32 = 0o100_000;

/// Files one after the other, in `cpio`'s form `newc`.
#[derive(Default)]
pub(super) struct Archive {
    bytes: Vec<u8>,
    entries: u32,
    names: BTreeSet<String>,
}

impl Archive {
    /// A directory, and those above it. One that is there already stays.
    pub(super) fn directory(&mut self, path: &str) {
        for (end, _) in path.match_indices('/').skip(1).chain([(path.len(), "")]) {
            if self.names.insert(path[..end].to_owned()) {
                self.entry(&path[..end], DIRECTORY | 0o755, &[]);
            }
        }
    }

    /// A file, and the directories above it. One that is there already stays.
    pub(super) fn file(&mut self, path: &str, mode: u32, content: &[u8]) {
        let (directory, _) = path.rsplit_once('/').expect("paths inside begin with a slash");
        if !directory.is_empty() {
            self.directory(directory);
        }
        if self.names.insert(path.to_owned()) {
            self.entry(path, FILE | mode, content);
        }
    }

    /// An executable of this machine, with its libraries at the paths that they have here.
    pub(super) fn program(&mut self, path: &str, source: &Path) {
        self.copy(path, source);
        self.libraries(&[source]);
    }

    /// Files that programs load, with their libraries, all at the paths that they have here.
    pub(super) fn objects(&mut self, files: &[PathBuf]) {
        for file in files {
            self.copy(&file.display().to_string(), file);
        }
        self.libraries(&files.iter().map(PathBuf::as_path).collect::<Vec<_>>());
    }

    fn libraries(&mut self, of: &[&Path]) {
        for library in libraries(of) {
            self.copy(&library, Path::new(&library));
        }
    }

    fn copy(&mut self, path: &str, source: &Path) {
        if self.names.contains(path) {
            return;
        }
        let content = fs::read(source).unwrap_or_else(|error| panic!("cannot read {}: {error}", source.display()));
        self.file(path, 0o755, &content);
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        self.entry("/TRAILER!!!", 0, &[]);
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) {
        let name = path.trim_start_matches('/');
        self.entries += 1;
        let size = u32::try_from(content.len()).expect("a file is smaller than 4 GiB");
        let name_size = u32::try_from(name.len() + 1).expect("a path is short");
        // Inode, mode, owner, group, links, time, size, device, device of a special file, length of the name, check sum.
        let fields = [self.entries, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08x}").bytes());
        }
        self.bytes.extend(name.bytes().chain([0]));
        self.pad();
        self.bytes.extend(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// Paths of the shared libraries of executables, their loader included; none for a static one.
fn libraries(executables: &[&Path]) -> BTreeSet<String> {
    let output = Command::new("ldd").args(executables).output().expect("ldd can be started");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    // With several executables each has a line of its own, which begins with its path and ends with a colon.
    let lines = text.lines().filter(|line| !line.ends_with(':'));
    lines.filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/'))).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_begins_at_a_multiple_of_four_and_each_directory_is_there_once() {
        let mut archive = Archive::default();
        archive.file("/a/b/c", 0o644, b"12345");
        archive.file("/a/b/d", 0o644, b"");
        let bytes = archive.finish();
        let text = String::from_utf8_lossy(&bytes);
        let starts: Vec<usize> = text.match_indices("070701").map(|(at, _)| at).collect();
        // a, a/b, a/b/c, a/b/d, the trailer.
        assert_eq!(starts.len(), 5);
        assert!(starts.iter().all(|at| at % 4 == 0), "{starts:?}");
    }

    #[test]
    fn a_program_brings_its_libraries_along() {
        let found = libraries(&[Path::new("/bin/sh")]);
        assert!(found.iter().any(|path| path.contains("libc.so")), "{found:?}");
    }
}
