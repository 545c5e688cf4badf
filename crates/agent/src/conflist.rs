//! The CNI configuration that tells the runtime to call `podnet-cni`: written when the agent is ready, so that its presence means
//! "the network of this node works", as runtimes take it.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use podnet_planner::resolver::BRIDGE;
use serde_json::{Value, json};

/// Sorted before what other networks install, as Calico does.
pub const FILE_NAME: &str = "10-podnet.conflist";

/// The network's name.
pub const NETWORK: &str = "podnet";

/// The run of the machine in which it was written.
const BOOT: &str = "podnetBoot";

/// How pods are joined to the node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PodLink {
    /// Each by a link of its own, to which the node routes.
    #[default]
    Veth,
    /// All on a bridge of the node, `cni0`.
    Bridge,
}

/// Whether an agent wrote it since the machine was started: there was a network that worked, and what it needs of the kernel may still be there.
/// A file of before says nothing.
#[must_use]
pub fn is_of_this_boot(directory: &Path) -> bool {
    let Ok(text) = fs::read(directory.join(FILE_NAME)) else { return false };
    let written = serde_json::from_slice::<Value>(&text).unwrap_or_default();
    boot().is_some_and(|boot| written[BOOT] == boot)
}

/// What the kernel calls this run of the machine.
fn boot() -> Option<String> {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim().to_owned()).filter(|id| !id.is_empty())
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
        // Runtimes leave alone what they do not know; the plugin would not.
        BOOT: boot(),
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
        plugin["bridge"] = BRIDGE.into();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_written_since_the_machine_was_started_says_that_the_network_worked() {
        let directory = std::env::temp_dir().join(format!("podnet-test-conflist-{}", std::process::id()));
        assert!(!is_of_this_boot(&directory), "nothing is there");
        let path = write(&directory, Path::new("/a.sock"), Path::new("/t"), PodLink::Veth).unwrap();
        assert!(is_of_this_boot(&directory));
        let text = fs::read_to_string(&path).unwrap();
        for (text, what) in [
            (text.replace(&boot().unwrap(), "of-before"), "another boot"),
            (text.replace(BOOT, "other"), "an older agent's"),
            (String::new(), "half a file"),
        ] {
            fs::write(&path, text).unwrap();
            assert!(!is_of_this_boot(&directory), "{what}");
        }
        fs::remove_dir_all(&directory).unwrap();
    }
}
