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

/// How pods are joined to the node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PodLink {
    /// Each by a link of its own, to which the node routes.
    #[default]
    Veth,
    /// All on a bridge of the node, `cni0`.
    Bridge,
}

/// Whether an earlier agent wrote it: the runtime takes the network for one that works.
#[must_use]
pub fn is_there(directory: &Path) -> bool {
    directory.join(FILE_NAME).exists()
}

/// Writes the conflist, whole or not at all. The plugin finds the agent by the paths that stand in it.
///
/// # Errors
///
/// When the directory or the file cannot be written.
pub fn write(directory: &Path, socket: &Path, tombstones: &Path, link: PodLink) -> io::Result<PathBuf> {
    let mut conflist = json!({
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
    if link == PodLink::Bridge {
        // As flannel's delegate has it, whose users know these keys.
        let plugin = &mut conflist["plugins"][0];
        plugin["mode"] = "bridge".into();
        plugin["bridge"] = "cni0".into();
        plugin["hairpinMode"] = true.into();
        plugin["isDefaultGateway"] = true.into();
    }
    fs::create_dir_all(directory)?;
    let path = directory.join(FILE_NAME);
    // Runtimes take every file that ends in .conf, .conflist or .json: the half-written one must not.
    let new = directory.join(format!("{FILE_NAME}.new"));
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(serde_json::to_string_pretty(&conflist)?.as_bytes())?;
    fs::rename(&new, &path)?;
    Ok(path)
}
