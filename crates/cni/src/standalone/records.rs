//! What was made for each container, for as long as the machine runs: a file for each, in a directory of the network namespace that
//! the plugin works in.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind},
    net::IpAddr,
    os::unix::fs::MetadataExt,
    path::PathBuf,
};

use ipnet::IpNet;
use podnet_kernel::netns::NetNs;
use podnet_model::{
    Mac,
    cni::{PortMapping, hosts_file},
};
use podnet_planner::ipam::Handle;
use serde::{Deserialize, Serialize};

use super::joined::OnSegment;

/// Gone with the machine's restart, as what it tells of is.
const DIRECTORY: &str = "/run/podnet-cni";
const LOCK: &str = ".lock";
/// How the names of records begin of which the container is lost. No container's id begins so.
const LOST: &str = "~";
/// How the names of files begin that tell the names of a network's containers. A record's name has an `@`, a network's has none.
const HOSTS: &str = "hosts.";

/// One container's attachment as it was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) network: String,
    pub(super) addrs: Vec<IpAddr>,
    #[serde(default)]
    pub(super) routes: Vec<IpNet>,
    pub(super) mac: Mac,
    pub(super) ports: Vec<PortMapping>,
    /// Further names that the runtime gave it (the capability `aliases`); they stand in the network's file of names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) aliases: Vec<String>,
    /// Subnets whose way out is translated.
    pub(super) masqueraded: Vec<IpNet>,
    /// How it is on a shared segment; none where it has a routed link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) segment: Option<OnSegment>,
}

/// The records of this namespace, locked as long as this lives.
pub(super) struct Records {
    directory: PathBuf,
    known: BTreeMap<Handle, Record>,
    lost: BTreeMap<Handle, Record>,
    _lock: File,
}

impl Records {
    /// Waits until nobody else has the lock.
    pub(super) fn lock() -> io::Result<Self> {
        let inode = NetNs::current().and_then(|netns| netns.inode()).map_err(io::Error::other)?;
        let directory = PathBuf::from(format!("{DIRECTORY}/{inode}"));
        let lock = loop {
            fs::create_dir_all(&directory)?;
            let path = directory.join(LOCK);
            let file = match OpenOptions::new().write(true).create(true).truncate(false).open(&path) {
                // Removed just now, with the last record.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                file => file?,
            };
            file.lock()?;
            if fs::metadata(&path).is_ok_and(|there| Some(there.ino()) == file.metadata().ok().map(|own| own.ino())) {
                break file;
            }
        };
        let (mut known, mut lost) = (BTreeMap::new(), BTreeMap::new());
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let (records, name) = name.strip_prefix(LOST).map_or((&mut known, &*name), |name| (&mut lost, name));
            let Some((id, ifname)) = name.split_once('@').filter(|(id, _)| !id.starts_with('.')) else { continue };
            // One that is no record is of a write that was cut off.
            if let Ok(record) = serde_json::from_slice(&fs::read(entry.path())?) {
                records.insert(Handle::new(id, ifname), record);
            }
        }
        Ok(Self { directory, known, lost, _lock: lock })
    }

    pub(super) fn of(&self, handle: &Handle) -> Option<Record> {
        self.known.get(handle).cloned()
    }

    pub(super) fn all(&self) -> Vec<(Handle, Record)> {
        self.known.iter().map(|(handle, record)| (handle.clone(), record.clone())).collect()
    }

    /// Those that were lost, and of which addresses may be held still.
    pub(super) fn lost(&self) -> Vec<(Handle, Record)> {
        self.lost.iter().map(|(handle, record)| (handle.clone(), record.clone())).collect()
    }

    /// Written whole or not at all.
    pub(super) fn put(&mut self, handle: &Handle, record: Record) -> io::Result<()> {
        self.remove(handle)?;
        let name = file_name(handle);
        let new = self.directory.join(format!(".{name}"));
        let written = fs::write(&new, serde_json::to_vec(&record)?);
        if let Err(error) = written.and_then(|()| fs::rename(&new, self.directory.join(&name))) {
            let _ = fs::remove_file(&new);
            return Err(error);
        }
        let (network, is_named) = (record.network.clone(), !record.aliases.is_empty());
        self.known.insert(handle.clone(), record);
        if !is_named {
            return Ok(());
        }
        self.tell_names(&network).inspect_err(|_| {
            let _ = self.remove(handle);
        })
    }

    /// The record is the last to go: where this is cut off or fails, whoever removes it again finds its names too.
    pub(super) fn remove(&mut self, handle: &Handle) -> io::Result<()> {
        let name = file_name(handle);
        let gone = [self.known.remove(handle), self.lost.remove(handle)].into_iter().flatten();
        let named = gone.filter(|record| !record.aliases.is_empty()).map(|record| record.network);
        named.collect::<BTreeSet<_>>().iter().try_for_each(|network| self.tell_names(network))?;
        for name in [name.clone(), format!("{LOST}{name}")] {
            match fs::remove_file(self.directory.join(name)) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Writes the names of a network's containers, for whoever resolves them (the plugin `hosts` of a Corefile, say); no file where
    /// nobody has a name.
    fn tell_names(&self, network: &str) -> io::Result<()> {
        let path = self.directory.join(format!("{HOSTS}{network}"));
        let of_network = self.known.values().filter(|record| record.network == network);
        let text = hosts_file(of_network.map(|record| (&record.addrs[..], &record.aliases[..])));
        let Some(text) = text else {
            return match fs::remove_file(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            };
        };
        let new = self.directory.join(format!(".{HOSTS}{network}"));
        fs::write(&new, text).and_then(|()| fs::rename(&new, &path)).inspect_err(|_| {
            let _ = fs::remove_file(&new);
        })
    }

    /// Sets those aside as lost of which `is_there` is not true.
    pub(super) fn keep(&mut self, is_there: impl Fn(&Handle, &Record) -> bool) -> io::Result<()> {
        let gone: Vec<Handle> = self
            .known
            .iter()
            .filter(|(handle, record)| !is_there(handle, record))
            .map(|(handle, _)| handle.clone())
            .collect();
        for handle in gone {
            let name = file_name(&handle);
            fs::rename(self.directory.join(&name), self.directory.join(format!("{LOST}{name}")))?;
            self.lost.extend(self.known.remove_entry(&handle));
            if let Some(record) = self.lost.get(&handle).filter(|record| !record.aliases.is_empty()) {
                self.tell_names(&record.network)?;
            }
        }
        Ok(())
    }
}

fn file_name(handle: &Handle) -> String {
    handle.as_str().replacen('/', "@", 1)
}

impl Drop for Records {
    /// Nothing is left of the last one, before the lock is free: whoever waits for it finds that it is no more, and makes another.
    fn drop(&mut self) {
        if self.known.is_empty() && self.lost.is_empty() {
            let _ = fs::remove_file(self.directory.join(LOCK));
            let _ = fs::remove_dir(&self.directory);
        }
    }
}
