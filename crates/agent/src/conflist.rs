//! The CNI configuration that tells the runtime to call `podnet-cni`: written when the agent is ready, so that its presence means
//! "the network of this node works", as runtimes take it.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use serde_json::json;

/// Sorted before what other networks install, as Calico does.
pub const FILE_NAME: &str = "10-podnet.conflist";

/// The network's name.
pub const NETWORK: &str = "podnet";

/// Writes the conflist, whole or not at all. The plugin finds the agent by the paths that stand in it.
///
/// # Errors
///
/// When the directory or the file cannot be written.
pub fn write(directory: &Path, socket: &Path, tombstones: &Path) -> io::Result<PathBuf> {
    let conflist = json!({
        "cniVersion": "1.1.0",
        "name": NETWORK,
        "plugins": [{
            "type": "podnet-cni",
            "socket": socket,
            "tombstones": tombstones,
            "ipam": {"type": "podnet-ipam"},
            "capabilities": {
                "portMappings": true,
                "ips": true,
                "mac": true,
                "ipRanges": true,
                "bandwidth": true,
                "dns": true,
                "aliases": true,
            },
        }],
    });
    fs::create_dir_all(directory)?;
    let path = directory.join(FILE_NAME);
    // Runtimes take every file that ends in .conf, .conflist or .json: the half-written one must not.
    let new = directory.join(format!("{FILE_NAME}.new"));
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(serde_json::to_string_pretty(&conflist)?.as_bytes())?;
    fs::rename(&new, &path)?;
    Ok(path)
}
