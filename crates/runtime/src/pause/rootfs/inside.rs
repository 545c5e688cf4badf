//! Paths inside a root directory whose links mean that root, not ours.

use std::{
    ffi::OsString,
    fs::{self, File},
    io,
    path::{Component, Path, PathBuf},
};

use super::{Result, RootFsError, during};

/// As many links as the kernel follows in one path (path_resolution(7)).
const MAX_LINKS: usize = 40;

/// The path below `root` that a process with that root would reach as `path`; what is missing is made, the last part as a directory
/// or an empty file. Nothing else changes the tree meanwhile: the container does not run yet.
pub(in crate::pause) fn inside(root: &Path, path: &Path, as_directory: bool) -> Result<PathBuf> {
    let mut todo: Vec<OsString> = parts(path);
    todo.reverse();
    let mut reached = root.to_owned();
    let mut links = 0;
    while let Some(part) = todo.pop() {
        if part == ".." {
            if reached != root {
                reached.pop();
            }
            continue;
        }
        let next = reached.join(&part);
        match fs::symlink_metadata(&next) {
            Ok(found) if found.is_symlink() => {
                links += 1;
                if links > MAX_LINKS {
                    let source = io::Error::other("too many symbolic links");
                    return Err(RootFsError { action: format!("following {}", path.display()), source });
                }
                let target = fs::read_link(&next).map_err(during(|| format!("reading the link {}", next.display())))?;
                if target.is_absolute() {
                    root.clone_into(&mut reached);
                }
                todo.extend(parts(&target).into_iter().rev());
            }
            Ok(_) => reached = next,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let what = || format!("making {}", next.display());
                if as_directory || !todo.is_empty() {
                    fs::create_dir(&next).map_err(during(what))?;
                } else {
                    File::create(&next).map_err(during(what))?;
                }
                reached = next;
            }
            Err(source) => return Err(RootFsError { action: format!("looking at {}", next.display()), source }),
        }
    }
    Ok(reached)
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
    use super::*;

    #[test]
    fn what_is_missing_is_made() {
        let root = tempfile::tempdir().unwrap();
        let file = inside(root.path(), Path::new("/etc/app/config"), false).unwrap();
        assert!(file.is_file());
        assert_eq!(file, root.path().join("etc/app/config"));
        assert!(inside(root.path(), Path::new("data/deep"), true).unwrap().is_dir());
    }

    #[test]
    fn links_and_parents_never_lead_out_of_the_root() {
        let root = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc", root.path().join("absolute")).unwrap();
        std::os::unix::fs::symlink("../../../..", root.path().join("parents")).unwrap();
        assert_eq!(inside(root.path(), Path::new("absolute/x"), true).unwrap(), root.path().join("etc/x"));
        assert_eq!(inside(root.path(), Path::new("parents/y"), true).unwrap(), root.path().join("y"));
        assert_eq!(inside(root.path(), Path::new("../../z"), true).unwrap(), root.path().join("z"));
    }

    #[test]
    fn a_circle_of_links_is_an_error() {
        let root = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("b", root.path().join("a")).unwrap();
        std::os::unix::fs::symlink("a", root.path().join("b")).unwrap();
        assert!(inside(root.path(), Path::new("a"), true).is_err());
    }
}
