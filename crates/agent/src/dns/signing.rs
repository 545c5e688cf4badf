//! Zone files that are signed (`sign`): written when that is due, each as a whole.

use std::{
    hash::{BuildHasher, RandomState},
    io::{self, Write},
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use podnet_dns::{
    Config,
    authority::sign::{UnsignedFile, signed_file},
    chain::{SignOptions, SignedZone},
};
use tracing::{error, info};

/// Signs the zone files whose time has come; true: some were written. What cannot be signed is told, and stays as it is.
pub(super) fn sign(config: &Config) -> bool {
    let mut written = false;
    for options in config.signs() {
        for zone in &options.zones {
            match sign_one(options, zone) {
                Ok(true) => {
                    let tags: Vec<u16> = zone.keys.iter().map(|key| key.tag()).collect();
                    info!(zone = %zone.origin, file = zone.file, keys = ?tags, "the zone file is signed");
                    written = true;
                }
                Ok(false) => {}
                Err(cause) => {
                    error!(zone = %zone.origin, file = options.path, %cause, "the zone file cannot be signed; what was signed before stays");
                }
            }
        }
    }
    written
}

/// Why a zone file was not signed.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error("cannot read {path}: {source}")]
    Read { path: String, source: io::Error },
    #[error("cannot write {path}: {source}")]
    Write { path: String, source: io::Error },
    #[error("{0}")]
    Sign(#[from] UnsignedFile),
}

fn sign_one(options: &SignOptions, zone: &SignedZone) -> Result<bool, Failed> {
    let text =
        std::fs::read_to_string(&options.path).map_err(|source| Failed::Read { path: options.path.clone(), source })?;
    let beside = Path::new(&options.path).parent().unwrap_or(Path::new(""));
    let include = |path: &str| std::fs::read_to_string(beside.join(path));
    let signed = std::fs::read_to_string(&zone.file).ok();
    // Modulo 2^32, as signatures have it (RFC 4034 §3.1.5).
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()) as u32;
    let chance = RandomState::new().hash_one(0);
    let spread = [chance as u16, (chance >> 16) as u16];
    let source = (options.path.as_str(), text.as_str());
    let Some(text) = signed_file(&zone.origin, source, &include, signed.as_deref(), &zone.keys, now, spread)? else {
        return Ok(false);
    };
    replace(Path::new(&zone.file), &text).map_err(|source| Failed::Write { path: zone.file.clone(), source })?;
    Ok(true)
}

/// Puts a whole file in the place of another: a crash, or a full disk, leaves the one before.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(directory)?;
    let new = path.with_extension("signed.new");
    let mut file = std::fs::File::create(&new)?;
    let done =
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).and_then(|()| std::fs::rename(&new, path));
    if done.is_err() {
        let _ = std::fs::remove_file(&new);
    }
    done?;
    std::fs::File::open(directory)?.sync_all()
}
