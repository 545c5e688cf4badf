//! Who has which address: a file for each in `<dataDir>/<network>`, as the `host-local` plugin writes them, so that one can take over
//! from the other. Its name is the address, its lines are the container's id and the interface.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind},
    net::IpAddr,
    path::{Path, PathBuf},
    time::SystemTime,
};

use podnet_planner::ipam::Handle;

/// A lease that is being written.
const NEW: &str = "new-lease";

/// The addresses of a network, locked as long as this lives.
pub(super) struct Leases {
    directory: PathBuf,
    _lock: File,
}

impl Leases {
    /// Waits until nobody else has the lock.
    pub(super) fn lock(directory: &Path) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        let lock = OpenOptions::new().write(true).create(true).truncate(false).open(directory.join("lock"))?;
        lock.lock()?;
        Ok(Self { directory: directory.to_path_buf(), _lock: lock })
    }

    /// All of them: address, container and interface.
    pub(super) fn all(&self) -> io::Result<Vec<(IpAddr, String, String)>> {
        let mut all = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let Some(addr) = entry.file_name().to_str().and_then(|name| name.parse::<IpAddr>().ok()) else { continue };
            let text = fs::read_to_string(entry.path())?;
            let mut lines = text.lines().map(str::trim);
            // Older versions of `host-local` wrote no interface.
            let (id, ifname) = (lines.next().unwrap_or_default(), lines.next().unwrap_or("eth0"));
            all.push((addr, id.to_owned(), ifname.to_owned()));
        }
        Ok(all)
    }

    pub(super) fn taken(&self) -> io::Result<BTreeSet<IpAddr>> {
        Ok(self.all()?.into_iter().map(|(addr, ..)| addr).collect())
    }

    /// When an address was written down.
    pub(super) fn written(&self, addr: IpAddr) -> io::Result<SystemTime> {
        fs::metadata(self.directory.join(addr.to_string()))?.modified()
    }

    /// The address that was given last from the set at this place.
    pub(super) fn last(&self, set: usize) -> Option<IpAddr> {
        fs::read_to_string(self.last_file(set)).ok()?.trim().parse().ok()
    }

    /// Writes an address down, whole or not at all: a file without a holder would keep the address for ever, be it that the disk is full
    /// or the plugin killed.
    pub(super) fn take(&self, addr: IpAddr, handle: &Handle, set: usize) -> io::Result<()> {
        let path = self.directory.join(addr.to_string());
        let (id, ifname) = handle.as_str().split_once('/').unwrap_or_default();
        let new = self.directory.join(NEW);
        let written = fs::write(&new, format!("{id}\r\n{ifname}"))
            // Refused where there is one, as a rename would not be.
            .and_then(|()| fs::hard_link(&new, &path))
            .and_then(|()| {
                fs::write(self.last_file(set), addr.to_string()).inspect_err(|_| {
                    let _ = fs::remove_file(&path);
                })
            });
        let _ = fs::remove_file(&new);
        written
    }

    pub(super) fn release(&self, addr: IpAddr) -> io::Result<()> {
        match fs::remove_file(self.directory.join(addr.to_string())) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Frees all that an attachment holds.
    pub(super) fn free(&self, handle: &Handle) -> io::Result<()> {
        for (addr, id, ifname) in self.all()? {
            if Handle::new(&id, &ifname) == *handle {
                self.release(addr)?;
            }
        }
        Ok(())
    }

    fn last_file(&self, set: usize) -> PathBuf {
        self.directory.join(format!("last_reserved_ip.{set}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_plugin_left_is_nobodys_lease_and_a_taken_address_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path();
        let leases = Leases::lock(directory).unwrap();
        fs::write(directory.join(NEW), "").unwrap();
        assert!(leases.taken().unwrap().is_empty());
        let addr = "10.0.0.2".parse().unwrap();
        let [first, second] = ["a", "b"].map(|id| Handle::new(id, "eth0"));
        leases.take(addr, &first, 0).unwrap();
        assert_eq!(leases.take(addr, &second, 0).unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert_eq!(leases.all().unwrap(), [(addr, "a".to_owned(), "eth0".to_owned())]);
        assert!(!directory.join(NEW).exists());
        leases.free(&first).unwrap();
        leases.take(addr, &second, 0).unwrap();
    }
}
