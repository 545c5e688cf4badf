//! Paths inside a root directory whose links mean that root, not ours.
//!
//! Volumes are shared with containers that run already and may move things about meanwhile. So nothing is looked at by its path and then
//! used by its path: each step goes from an open directory to the next, and never through a link by the kernel's own rules.

use std::{
    ffi::{OsStr, OsString},
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Component, Path, PathBuf},
};

use rustix::{
    fs::{FileType, Mode, OFlags, ResolveFlags, fstat, mkdirat, openat, openat2, readlinkat},
    io::Errno,
};

use super::{Result, RootFsError, during};

/// As many links as the kernel follows in one path (path_resolution(7)).
const MAX_LINKS: usize = 40;
/// Only a place in the tree: nothing is read or written.
const PLACE: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);

/// The path of an open file, for system calls that take paths only. It means this file whatever happens to its name.
pub(in crate::pause) fn path_of(file: &impl AsRawFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// Opens what a process with the root `root` would reach as `path`; what is missing is made, the last part as a directory or an empty
/// file.
pub(in crate::pause) fn inside(root: BorrowedFd<'_>, path: &Path, as_directory: bool) -> Result<OwnedFd> {
    let what = || format!("following {}", path.display());
    let mut todo: Vec<OsString> = parts(path);
    todo.reverse();
    // The directories between the root and the place that is reached; `..` goes back along them.
    let mut reached: Vec<OwnedFd> = Vec::new();
    let mut detours = 0;
    while let Some(part) = todo.pop() {
        if part == ".." {
            reached.pop();
            continue;
        }
        let here = reached.last().map_or(root, AsFd::as_fd);
        match openat(here, &part, PLACE | OFlags::NOFOLLOW, Mode::empty()) {
            Ok(next) if is_link(&next).map_err(during(what))? => {
                detours += 1;
                let target = readlinkat(&next, "", Vec::new()).map_err(during(what))?;
                let target = Path::new(OsStr::from_bytes(target.as_bytes())).to_owned();
                if target.is_absolute() {
                    reached.clear();
                }
                todo.extend(parts(&target).into_iter().rev());
            }
            Ok(next) => reached.push(next),
            Err(Errno::NOENT) => {
                detours += 1;
                make(here, &part, as_directory || !todo.is_empty())
                    .map_err(during(|| format!("making {}", path.display())))?;
                todo.push(part);
            }
            Err(error) => return Err(during(what)(error)),
        }
        if detours > MAX_LINKS {
            let source = io::Error::other("too many symbolic links or missing directories");
            return Err(RootFsError { action: what(), source });
        }
    }
    match reached.pop() {
        Some(place) => Ok(place),
        None => root.try_clone_to_owned().map_err(during(what)),
    }
}

/// Opens a path below a directory; a link that leads out of it is an error. What is missing becomes directories, as Kubernetes does with
/// sub-paths of volumes.
pub(super) fn beneath(directory: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd> {
    let what = || format!("opening {} in a volume", path.display());
    let open = |path: &Path| {
        openat2(directory, path, PLACE, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS)
    };
    let mut parent = directory.try_clone_to_owned().map_err(during(what))?;
    let mut reached = PathBuf::new();
    for part in parts(path) {
        reached.push(&part);
        parent = match open(&reached) {
            Err(Errno::NOENT) => {
                make(parent.as_fd(), &part, true).map_err(during(what))?;
                open(&reached)
            }
            opened => opened,
        }
        .map_err(during(what))?;
    }
    Ok(parent)
}

fn is_link(file: &OwnedFd) -> rustix::io::Result<bool> {
    Ok(FileType::from_raw_mode(fstat(file)?.st_mode).is_symlink())
}

/// Done where somebody else was faster.
fn make(directory: BorrowedFd<'_>, name: &OsStr, as_directory: bool) -> rustix::io::Result<()> {
    let made = if as_directory {
        mkdirat(directory, name, Mode::from_raw_mode(0o755))
    } else {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat(directory, name, flags, Mode::from_raw_mode(0o644)).map(drop)
    };
    match made {
        Err(Errno::EXIST) => Ok(()),
        other => other,
    }
}

fn parts(path: &Path) -> Vec<OsString> {
    path.components()
        .filter_map(|part| match part {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, File},
        os::unix::fs::symlink,
    };

    use super::*;

    fn reach(root: &Path, path: &str, as_directory: bool) -> Result<PathBuf> {
        let place = inside(File::open(root).unwrap().as_fd(), Path::new(path), as_directory)?;
        Ok(fs::read_link(path_of(&place)).unwrap())
    }

    #[test]
    fn what_is_missing_is_made() {
        let root = tempfile::tempdir().unwrap();
        let file = reach(root.path(), "/etc/app/config", false).unwrap();
        assert!(file.is_file());
        assert_eq!(file, root.path().join("etc/app/config"));
        assert!(reach(root.path(), "data/deep", true).unwrap().is_dir());
        symlink("/run/later", root.path().join("etc/link")).unwrap();
        assert_eq!(reach(root.path(), "etc/link/x", true).unwrap(), root.path().join("run/later/x"));
    }

    #[test]
    fn links_and_parents_never_lead_out_of_the_root() {
        let root = tempfile::tempdir().unwrap();
        symlink("/etc", root.path().join("absolute")).unwrap();
        symlink("../../../..", root.path().join("parents")).unwrap();
        assert_eq!(reach(root.path(), "absolute/x", true).unwrap(), root.path().join("etc/x"));
        assert_eq!(reach(root.path(), "parents/y", true).unwrap(), root.path().join("y"));
        assert_eq!(reach(root.path(), "../../z", true).unwrap(), root.path().join("z"));
        assert_eq!(reach(root.path(), "/", true).unwrap(), root.path());
    }

    #[test]
    fn a_circle_of_links_is_an_error() {
        let root = tempfile::tempdir().unwrap();
        symlink("b", root.path().join("a")).unwrap();
        symlink("a", root.path().join("b")).unwrap();
        assert!(reach(root.path(), "a", true).is_err());
    }

    #[test]
    fn a_sub_path_is_made_inside_the_volume_and_nowhere_else() {
        let root = tempfile::tempdir().unwrap();
        let (volume, other) = (root.path().join("volume"), root.path().join("other"));
        fs::create_dir(&volume).unwrap();
        fs::create_dir(&other).unwrap();
        symlink("../other", volume.join("out")).unwrap();
        symlink(&other, volume.join("absolute")).unwrap();
        symlink("real", volume.join("within")).unwrap();
        let opened = File::open(&volume).unwrap();
        let below =
            |path: &str| beneath(opened.as_fd(), Path::new(path)).map(|place| fs::read_link(path_of(&place)).unwrap());
        assert_eq!(below("real/a/b").unwrap(), volume.join("real/a/b"));
        assert_eq!(below("within/a").unwrap(), volume.join("real/a"));
        for path in ["out/x", "absolute/x", "../other/x", "real/../../x"] {
            assert!(below(path).is_err(), "{path}");
        }
        assert_eq!(fs::read_dir(&other).unwrap().count(), 0);
        assert!(!root.path().join("x").exists());
    }
}
