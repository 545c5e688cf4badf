//! Puts archive entries into a directory and nowhere else.
//!
//! Every path is resolved by the kernel below the directory (`openat2` with `RESOLVE_BENEATH`), so a symbolic link that an earlier
//! entry made can lead within the layer and never out of it; an entry behind one that does is refused.

use std::{
    ffi::OsStr,
    fs::File,
    io::{self, Read},
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::{Component, Path, PathBuf},
};

use rustix::{
    fs::{
        AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags, chmodat,
        chownat, fchmod, fchown, fsetxattr, futimens, linkat, makedev, mkdirat, mknodat, openat, openat2, symlinkat,
        unlinkat, utimensat,
    },
    io::Errno,
};
use tar::{Entry, EntryType};

use super::ImageError;

/// The most entries of a layer: a bound on inodes, ten times what the largest images have.
const MAX_ENTRIES: usize = 2_000_000;
const WHITEOUT: &[u8] = b".wh.";
/// Nothing of the layers below shows in this directory.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Extended attributes in PAX records.
const XATTR: &str = "SCHILY.xattr.";

/// Unpacks one layer.
pub(super) struct Unpacker {
    root: OwnedFd,
    entries: usize,
}

/// Where an entry goes: an open directory and a name in it.
struct Place {
    directory: OwnedFd,
    name: Box<OsStr>,
}

/// Owner, permissions and time of an entry.
struct Metadata {
    uid: Uid,
    gid: Gid,
    mode: Mode,
    times: Timestamps,
}

impl Unpacker {
    pub(super) fn new(root: &Path) -> Result<Unpacker, ImageError> {
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat(CWD, root, flags, Mode::empty()).map_err(|e| ImageError::io("open", root)(e.into()))?;
        Ok(Unpacker { root, entries: 0 })
    }

    /// Unpacks one entry.
    pub(super) fn entry<R: Read>(&mut self, entry: &mut Entry<'_, R>) -> Result<(), ImageError> {
        let shown = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let refuse = |reason: String| ImageError::Entry { entry: shown.clone(), reason };
        self.entries += 1;
        if self.entries > MAX_ENTRIES {
            return Err(refuse(format!("a layer has at most {MAX_ENTRIES} entries")));
        }
        let path = entry.path().map_err(|error| refuse(error.to_string()))?.into_owned();
        let path = inner_path(&path).map_err(refuse)?;
        let Some(name) = path.file_name() else {
            // The layer's own root: only its permissions matter.
            let metadata = Metadata::of(entry).map_err(|error| refuse(error.to_string()))?;
            return metadata.apply(&self.root).map_err(|error| refuse(error.to_string()));
        };
        let parent = path.parent().unwrap_or(Path::new(""));
        let directory = self.directory(parent).map_err(|error| refuse(explain(&error)))?;
        let place = Place { directory, name: name.into() };
        if let Some(hidden) = place.name.as_bytes().strip_prefix(WHITEOUT) {
            return place.hide(hidden).map_err(|error| refuse(explain(&error)));
        }
        self.create(entry, &place).map_err(|error| refuse(explain(&error)))
    }

    fn create<R: Read>(&self, entry: &mut Entry<'_, R>, place: &Place) -> io::Result<()> {
        let metadata = Metadata::of(entry)?;
        let kind = entry.header().entry_type();
        match kind {
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => return place.file(entry, &metadata),
            EntryType::Directory => return place.subdirectory(&metadata),
            EntryType::Link => return self.hard_link(entry, place),
            EntryType::XGlobalHeader => return Ok(()),
            _ => {}
        }
        place.clear()?;
        match kind {
            EntryType::Symlink => {
                let target = entry.link_name_bytes().unwrap_or_default();
                symlinkat(OsStr::from_bytes(&target), &place.directory, &*place.name)?;
                return metadata.apply_to_link(place);
            }
            EntryType::Char => place.device(FileType::CharacterDevice, entry)?,
            EntryType::Block => place.device(FileType::BlockDevice, entry)?,
            EntryType::Fifo => mknodat(&place.directory, &*place.name, FileType::Fifo, Mode::empty(), 0)?,
            other => return Err(io::Error::new(io::ErrorKind::Unsupported, format!("entries of type {other:?}"))),
        }
        metadata.apply_to_link(place)?;
        Ok(chmodat(&place.directory, &*place.name, metadata.mode, AtFlags::empty())?)
    }

    /// Links to a file of this layer. One to a file of a lower layer cannot be: archives repeat such files.
    fn hard_link<R: Read>(&self, entry: &Entry<'_, R>, place: &Place) -> io::Result<()> {
        let target = entry.link_name_bytes().unwrap_or_default();
        let target = inner_path(Path::new(OsStr::from_bytes(&target))).map_err(io::Error::other)?;
        let name = target.file_name().ok_or(Errno::INVAL)?;
        let directory = self.open(target.parent().unwrap_or(Path::new("")))?;
        place.clear()?;
        Ok(linkat(&directory, name, &place.directory, &*place.name, AtFlags::empty())?)
    }

    /// Opens a directory of the layer; what is missing is made, as an archive may leave parents out.
    fn directory(&self, path: &Path) -> io::Result<OwnedFd> {
        match self.open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            opened => return opened,
        }
        let (Some(name), Some(parent)) = (path.file_name(), path.parent()) else { return Err(Errno::INVAL.into()) };
        let parent = self.directory(parent)?;
        match mkdirat(&parent, name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => self.open(path),
            Err(error) => Err(error.into()),
        }
    }

    fn open(&self, path: &Path) -> io::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        Ok(openat2(&self.root, path, flags, Mode::empty(), resolve)?)
    }
}

impl Place {
    fn file<R: Read>(&self, entry: &mut Entry<'_, R>, metadata: &Metadata) -> io::Result<()> {
        self.clear()?;
        let attributes = extended_attributes(entry)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(openat(&self.directory, &*self.name, flags, Mode::from_raw_mode(0o600))?);
        io::copy(entry, &mut file)?;
        metadata.apply(&file)?;
        // After the owner, which clears file capabilities.
        for (name, value) in attributes {
            fsetxattr(&file, &*name, &value, XattrFlags::empty())?;
        }
        Ok(futimens(&file, &metadata.times)?)
    }

    fn subdirectory(&self, metadata: &Metadata) -> io::Result<()> {
        let open = || {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            openat(&self.directory, &*self.name, flags, Mode::empty())
        };
        let directory = match open() {
            Ok(directory) => directory,
            Err(_) => {
                self.clear()?;
                mkdirat(&self.directory, &*self.name, Mode::from_raw_mode(0o700))?;
                open()?
            }
        };
        metadata.apply(&directory)
    }

    fn device<R: Read>(&self, kind: FileType, entry: &Entry<'_, R>) -> io::Result<()> {
        let header = entry.header();
        let (major, minor) = (header.device_major()?.unwrap_or_default(), header.device_minor()?.unwrap_or_default());
        Ok(mknodat(&self.directory, &*self.name, kind, Mode::empty(), makedev(major, minor))?)
    }

    /// A whiteout: overlayfs hides what a character device 0/0 lies upon, and everything below an opaque directory.
    fn hide(&self, hidden: &[u8]) -> io::Result<()> {
        if *self.name.as_bytes() == *OPAQUE {
            return Ok(fsetxattr(&self.directory, "trusted.overlay.opaque", b"y", XattrFlags::empty())?);
        }
        // What aufs kept for itself.
        if hidden.starts_with(WHITEOUT) {
            return Ok(());
        }
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(Errno::INVAL.into());
        }
        match mknodat(
            &self.directory,
            OsStr::from_bytes(hidden),
            FileType::CharacterDevice,
            Mode::empty(),
            makedev(0, 0),
        ) {
            // Only lower layers are hidden; what this one has at that name stays.
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes what an earlier entry put here.
    fn clear(&self) -> io::Result<()> {
        match unlinkat(&self.directory, &*self.name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(Errno::ISDIR) => Ok(unlinkat(&self.directory, &*self.name, AtFlags::REMOVEDIR)?),
            Err(error) => Err(error.into()),
        }
    }
}

impl Metadata {
    fn of<R: Read>(entry: &Entry<'_, R>) -> io::Result<Metadata> {
        let header = entry.header();
        let id = |id: u64| u32::try_from(id).map_err(|_| io::Error::from(Errno::INVAL));
        let seconds = i64::try_from(header.mtime()?).unwrap_or_default();
        let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
        Ok(Metadata {
            uid: Uid::from_raw(id(header.uid()?)?),
            gid: Gid::from_raw(id(header.gid()?)?),
            mode: Mode::from_raw_mode(header.mode()? & 0o7777),
            times: Timestamps { last_access: time, last_modification: time },
        })
    }

    /// The mode last: changing the owner clears set-user-ID bits.
    fn apply(&self, file: impl std::os::fd::AsFd) -> io::Result<()> {
        fchown(&file, Some(self.uid), Some(self.gid))?;
        Ok(fchmod(&file, self.mode)?)
    }

    fn apply_to_link(&self, place: &Place) -> io::Result<()> {
        let (directory, name) = (&place.directory, &*place.name);
        chownat(directory, name, Some(self.uid), Some(self.gid), AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(utimensat(directory, name, &self.times, AtFlags::SYMLINK_NOFOLLOW)?)
    }
}

fn extended_attributes<R: Read>(entry: &mut Entry<'_, R>) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut attributes = Vec::new();
    for extension in entry.pax_extensions()?.into_iter().flatten() {
        let extension = extension?;
        // Others, such as those of SELinux, mean something on the machine that wrote the archive only.
        if let Some(name) = extension.key().ok().and_then(|key| key.strip_prefix(XATTR))
            && (name == "security.capability" || name.starts_with("user."))
        {
            attributes.push((name.to_owned(), extension.value_bytes().to_vec()));
        }
    }
    Ok(attributes)
}

/// The path below the layer's root; leading slashes go, `..` is refused.
fn inner_path(path: &Path) -> Result<PathBuf, String> {
    let mut inner = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => inner.push(name),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
            Component::ParentDir => return Err("a path with .. in it".to_owned()),
        }
    }
    Ok(inner)
}

fn explain(error: &io::Error) -> String {
    match Errno::from_io_error(error) {
        Some(Errno::XDEV) => "it lies behind a symbolic link that leads out of the layer".to_owned(),
        Some(Errno::LOOP) => "it lies behind symbolic links that lead to each other".to_owned(),
        _ => error.to_string(),
    }
}
