//! Groups of processes (`cgroups(7)`, version 2): what is started in one can be ended as a whole, whatever it has become.

mod ending;

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

/// Where the version 2 hierarchy is mounted: by itself, or beside version 1.
const MOUNTS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
/// The file system type of version 2 (`linux/magic.h`).
const CGROUP2_SUPER_MAGIC: u64 = 0x6367_7270;

/// A group of the version 2 hierarchy, which need not exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// The group of that name; `name` is relative to the hierarchy's root and may have several parts.
    ///
    /// # Errors
    /// Where no version 2 hierarchy is mounted.
    pub fn v2(name: impl AsRef<Path>) -> Result<Self, CgroupError> {
        let is_v2 =
            |mount: &str| rustix::fs::statfs(mount).is_ok_and(|found| found.f_type as u64 == CGROUP2_SUPER_MAGIC);
        let mount = MOUNTS.into_iter().find(|mount| is_v2(mount)).ok_or(CgroupError::NoHierarchy)?;
        Ok(Self { path: Path::new(mount).join(name) })
    }

    /// A group inside this one.
    #[must_use]
    pub fn child(&self, name: impl AsRef<Path>) -> Self {
        Self { path: self.path.join(name) }
    }

    /// The group's directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// It is there.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.path.is_dir()
    }

    /// Makes the group and those that it is in. Done also where they are there.
    ///
    /// # Errors
    /// What the file system refused.
    pub fn create(&self) -> Result<(), CgroupError> {
        fs::create_dir_all(&self.path).map_err(|source| self.failed("make", source))
    }

    /// Moves a process into the group; those that it starts later are in it as well.
    ///
    /// # Errors
    /// Where there is no such process or group.
    pub fn add(&self, pid: u32) -> Result<(), CgroupError> {
        self.write("cgroup.procs", &pid.to_string()).map_err(|source| self.failed("move a process into", source))
    }

    /// Moves the calling process into the group.
    ///
    /// # Errors
    /// Where there is no such group.
    pub fn add_self(&self) -> Result<(), CgroupError> {
        self.write("cgroup.procs", "0").map_err(|source| self.failed("enter", source))
    }

    /// The processes in the group itself; none where there is no such group. One of which single threads are in groups of their own (threaded
    /// ones) is in the group above these.
    ///
    /// # Errors
    /// What the file system refused.
    pub fn pids(&self) -> Result<Vec<u32>, CgroupError> {
        match fs::read_to_string(self.path.join("cgroup.procs")) {
            Ok(text) => Ok(text.lines().filter_map(|line| line.parse().ok()).collect()),
            // The group may go while it is read (ENODEV); one of threads cannot be read.
            Err(error) if is_gone(&error) || is_of_threads(&error) => Ok(Vec::new()),
            Err(source) => Err(self.failed("list the processes of", source)),
        }
    }

    /// The processes in the group and in all groups inside it.
    ///
    /// # Errors
    /// What the file system refused.
    pub fn all_pids(&self) -> Result<Vec<u32>, CgroupError> {
        let mut pids = self.pids()?;
        for child in self.children()? {
            pids.extend(child.all_pids()?);
        }
        Ok(pids)
    }

    /// The groups directly inside this one; none where there is no such group.
    ///
    /// # Errors
    /// What the file system refused.
    pub fn children(&self) -> Result<Vec<Self>, CgroupError> {
        let entries = match fs::read_dir(&self.path) {
            Ok(entries) => entries,
            Err(error) if is_gone(&error) => return Ok(Vec::new()),
            Err(source) => return Err(self.failed("list the groups of", source)),
        };
        let directories =
            entries.filter_map(Result::ok).filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        Ok(directories.map(|entry| Self { path: entry.path() }).collect())
    }

    /// Kills every process in the group and in all groups inside it, at once where the kernel can (`cgroup.kill`, Linux 5.14). Killed
    /// processes may be there until their parents have waited for them.
    ///
    /// # Errors
    /// What the kernel refused. A group that is not there has no processes.
    pub fn kill(&self) -> Result<(), CgroupError> {
        ending::kill(self)
    }

    /// Kills all processes, then removes the group and all groups inside it. Done also where there is no such group.
    ///
    /// # Errors
    /// [`CgroupError::StillPopulated`] where `patience` ends first, otherwise what the file system refused.
    pub fn remove_tree(&self, patience: Duration) -> Result<(), CgroupError> {
        ending::remove_tree(self, patience)
    }

    fn write(&self, file: &str, value: &str) -> io::Result<()> {
        fs::write(self.path.join(file), value)
    }

    fn failed(&self, action: &'static str, source: io::Error) -> CgroupError {
        CgroupError::Failed { action, path: self.path.clone(), source }
    }
}

/// The group is not there, or went away under the call's hands.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error())
}

/// The group is a threaded one (`cgroup.type`): only threads are in it.
fn is_of_threads(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::OPNOTSUPP.raw_os_error())
}

/// Why something could not be done to a group.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// Version 2 is not mounted.
    #[error("no cgroup v2 hierarchy is mounted at {} or {}", MOUNTS[0], MOUNTS[1])]
    NoHierarchy,
    /// The file system refused.
    #[error("cannot {action} cgroup {}", path.display())]
    Failed {
        /// What was tried.
        action: &'static str,
        /// The group.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Processes are left that do not die.
    #[error("cgroup {} still has processes after {patience:?}: {pids:?}", path.display())]
    StillPopulated {
        /// The group.
        path: PathBuf,
        /// How long it was waited for.
        patience: Duration,
        /// The processes.
        pids: Vec<u32>,
    },
}

#[cfg(test)]
mod tests;
