//! Files that are written once and whole.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use super::PkiError;

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PkiError {
    let path = path.to_owned();
    move |source| PkiError::File { action, path, source }
}

/// Makes sure that the directory exists and is nobody else's business.
pub(super) fn private_directory(dir: &Path) -> Result<(), PkiError> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed("creating", dir))?;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).map_err(failed("restricting", dir))
}

/// The text of a file; when there is none, that of `make`, written so that the file appears whole. When several processes do this
/// at once, one text wins and all of them get it.
pub(super) fn write_once(
    path: &Path,
    mode: u32,
    make: impl FnOnce() -> Result<String, PkiError>,
) -> Result<String, PkiError> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        read => return read.map_err(failed("reading", path)),
    }
    let text = make()?;
    let draft = path.with_extension(format!("{}.draft", std::process::id()));
    write_synced(&draft, mode, &text).map_err(failed("writing", &draft))?;
    // A link, unlike a rename, does not replace what another process has put there meanwhile.
    let linked = fs::hard_link(&draft, path);
    fs::remove_file(&draft).map_err(failed("removing", &draft))?;
    match linked {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::read_to_string(path).map_err(failed("reading", path))
        }
        linked => linked.map(|()| text).map_err(failed("creating", path)),
    }
}

fn write_synced(path: &Path, mode: u32, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}
