//! Writes the files of a volume whose content comes from the API, all at once.

use std::{
    fs, io,
    os::unix::fs::{PermissionsExt, chown, symlink},
    path::{Component, Path},
};

/// A file of a projected volume.
pub(super) struct ProjectedFile {
    pub(super) path: String,
    pub(super) bytes: Vec<u8>,
    pub(super) mode: Option<i32>,
}

/// Writes one version of all files, unless the present one is the same.
pub(super) fn write_version(
    volume: &Path,
    files: &[ProjectedFile],
    default_mode: i32,
    group: Option<u32>,
) -> io::Result<()> {
    fs::create_dir_all(volume)?;
    fs::set_permissions(volume, fs::Permissions::from_mode(0o755))?;
    let data = volume.join("..data");
    let present = fs::read_link(&data).ok().filter(|version| is_version(version));
    let is_same = |file: &ProjectedFile| fs::read(data.join(&file.path)).is_ok_and(|bytes| bytes == file.bytes);
    if present.is_some() && files.iter().all(is_same) && count_files(&data)? == files.len() {
        return Ok(());
    }
    let version = format!("..{}", uuid::Uuid::new_v4().simple());
    let dir = volume.join(&version);
    fs::create_dir(&dir)?;
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755))?;
    for file in files {
        let path = dir.join(&file.path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&path, &file.bytes)?;
        let mut mode = u32::try_from(file.mode.unwrap_or(default_mode)).unwrap_or(0o644) & 0o777;
        if let Some(group) = group {
            chown(&path, None, Some(group))?;
            mode |= 0o440;
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
    }
    let turned = volume.join("..data_new");
    let _ = fs::remove_file(&turned);
    symlink(&version, &turned)?;
    fs::rename(&turned, &data)?;
    link_names(volume, files)?;
    if let Some(old) = present {
        let _ = fs::remove_dir_all(volume.join(old));
    }
    Ok(())
}

/// Whether a link leads to a version beside it: what it leads to is removed as a whole one day.
fn is_version(target: &Path) -> bool {
    let mut parts = target.components();
    matches!((parts.next(), parts.next()), (Some(Component::Normal(name)), None) if name.to_string_lossy().starts_with(".."))
}

/// Makes the visible names: links into `..data`.
fn link_names(volume: &Path, files: &[ProjectedFile]) -> io::Result<()> {
    let first =
        |file: &ProjectedFile| Path::new(&file.path).components().next().map(|part| part.as_os_str().to_owned());
    let wanted: std::collections::BTreeSet<_> = files.iter().filter_map(first).collect();
    for name in &wanted {
        let link = volume.join(name);
        if fs::symlink_metadata(&link).is_err() {
            symlink(Path::new("..data").join(name), &link)?;
        }
    }
    for entry in fs::read_dir(volume)? {
        let name = entry?.file_name();
        if !wanted.contains(&name) && !name.to_string_lossy().starts_with("..") {
            fs::remove_file(volume.join(name))?;
        }
    }
    Ok(())
}

fn count_files(dir: &Path) -> io::Result<usize> {
    let mut count = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        count += if entry.file_type()?.is_dir() { count_files(&entry.path())? } else { 1 };
    }
    Ok(count)
}
