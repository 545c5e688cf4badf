//! Files in a directory, within a budget of bytes: the oldest go where there are too many.

use std::{
    fs::{self, DirBuilder, File},
    io::{self, Write},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use podnet_model::NodeName;
use tracing::warn;

use crate::flows::private;

/// Who talks to whom is nobody's business on this node but the agent's; a directory that is there already keeps what it has.
const MODE: u32 = 0o700;
const SUFFIX: &str = ".parquet";
/// What stands behind the node in a file's name: two numbers of 20 digits, and a dash between them.
const NUMBERS: usize = 41;

#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    bytes: u64,
    node: NodeName,
}

impl Directory {
    pub(super) fn new(path: PathBuf, bytes: u64, node: &NodeName) -> Self {
        Self { path, bytes, node: node.clone() }
    }

    /// Puts a file there: who reads it reads it whole, and it outlives the machine.
    pub(super) fn put(&self, name: &str, content: &[u8]) -> io::Result<()> {
        let failed = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", self.path.display()));
        self.replace(name, content).map_err(failed)?;
        if let Err(error) = self.shrink(name) {
            warn!(%error, directory = %self.path.display(), "files of flows beyond their budget stay where they are");
        }
        Ok(())
    }

    fn replace(&self, name: &str, content: &[u8]) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(MODE).create(&self.path)?;
        // One of the node's is written at a time: the next one takes the place of what an agent left that was killed.
        let new = self.path.join(format!(".{}.new", self.node));
        let mut file = private::options().write(true).create(true).truncate(true).open(&new)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&new, self.path.join(name))?;
        File::open(&self.path)?.sync_all()
    }

    /// Lets the oldest files of this node go, but for the one that was put there last.
    fn shrink(&self, last: &str) -> io::Result<()> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            if let Some(name) = entry.file_name().to_str().filter(|name| self.is_own(name)) {
                files.push((name.to_owned(), entry.metadata()?.len()));
            }
        }
        files.sort();
        let mut all: u64 = files.iter().map(|(_, bytes)| bytes).sum();
        for (name, bytes) in files.iter().filter(|(name, _)| name != last) {
            if all <= self.bytes {
                break;
            }
            remove(&self.path.join(name))?;
            all -= bytes;
        }
        Ok(())
    }

    /// Whether an agent of this node made a file of that name.
    fn is_own(&self, name: &str) -> bool {
        let behind = name.strip_prefix(self.node.as_str()).and_then(|rest| rest.strip_prefix('-'));
        let numbers = behind.and_then(|rest| rest.strip_suffix(SUFFIX));
        let numbers = numbers.map(|rest| rest.strip_suffix("-missing").unwrap_or(rest));
        numbers.is_some_and(|numbers| {
            numbers.len() == NUMBERS
                && numbers.char_indices().all(|(at, c)| if at == NUMBERS / 2 { c == '-' } else { c.is_ascii_digit() })
        })
    }
}

/// Somebody may have removed it before.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn name(node: &str, number: u64) -> String {
        format!("{node}-{:020}-{number:020}.parquet", 1)
    }

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn the_oldest_of_the_nodes_own_files_go_where_there_are_too_many_bytes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deep/flows");
        let own = Directory::new(path.clone(), 1000, &"a".into());
        let other = Directory::new(path.clone(), 1000, &"a-1".into());
        for number in 8..12 {
            own.put(&name("a", number), &[0; 300]).unwrap();
            other.put(&name("a-1", number), &[0; 100]).unwrap();
        }
        let mut expected: Vec<String> = (9..12).map(|number| name("a", number)).collect();
        expected.extend((8..12).map(|number| name("a-1", number)));
        expected.sort();
        assert_eq!(names(&path), expected);
        // One that is too large by itself stays.
        own.put(&name("a", 12), &[0; 2000]).unwrap();
        assert_eq!(names(&path).len(), 5);
        assert_eq!(fs::read(path.join(name("a", 12))).unwrap().len(), 2000);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(&path.join(name("a", 12)))), (0o700, 0o600));
    }

    #[test]
    fn a_file_of_the_same_name_takes_the_others_place_and_what_is_no_file_of_flows_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let own = Directory::new(directory.path().to_path_buf(), 10, &"a".into());
        for strange in ["a-1-2.parquet".to_owned(), "notes.txt".to_owned(), name("b", 1), ".a.new".to_owned()] {
            fs::write(directory.path().join(strange), "what was there before").unwrap();
        }
        own.put(&name("a", 1), b"first").unwrap();
        own.put(&name("a", 1), b"second").unwrap();
        assert_eq!(fs::read(directory.path().join(name("a", 1))).unwrap(), b"second");
        let (first, strange) = (name("a", 1), name("b", 1));
        assert_eq!(names(directory.path()), [first.as_str(), "a-1-2.parquet", strange.as_str(), "notes.txt"]);
        let nowhere = Directory::new(directory.path().join("notes.txt"), 10, &"a".into());
        let error = nowhere.put(&name("a", 1), b"first").unwrap_err().to_string();
        assert!(error.contains("notes.txt"), "{error}");
    }
}
