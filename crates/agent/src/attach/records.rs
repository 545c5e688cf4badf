//! What was made for each attachment.
//!
//! A file for each, replaced whole and not synced: it outlives the agent, as the interface does that it is about, and what a
//! power failure makes of it does not matter, since that took the interface as well.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use podnet_kernel::{cni_wire::host_ifname, pod_interface::OnBridge};
use podnet_model::{
    LinkName, Mac,
    cni::{PortMapping, hosts_file},
};
use podnet_planner::{ipam::Handle, trace::Link};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use tracing::warn;

/// One attachment as it was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The network that the runtime attached it to (the configuration's `name`).
    pub(crate) network: String,
    /// Its addresses, that of IPv4 first.
    #[serde(alias = "addr", deserialize_with = "one_or_more")]
    pub(crate) addrs: Vec<IpAddr>,
    /// Its Ethernet address.
    pub(crate) mac: Mac,
    /// Ports of the node that lead to it.
    #[serde(default)]
    pub(crate) ports: Vec<PortMapping>,
    /// Further names that the runtime gave it (the capability `aliases`); they stand in the network's file of names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) aliases: Vec<String>,
    /// What the runtime asked for its traffic beyond its pod's annotations: a value of the capability `bandwidth`.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub(crate) bandwidth: Value,
    /// How it is on a bridge of the node; none where it has a routed link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) bridge: Option<OnBridge>,
}

/// Records of earlier versions have one address.
fn one_or_more<'de, D: Deserializer<'de>>(value: D) -> Result<Vec<IpAddr>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        One(IpAddr),
        More(Vec<IpAddr>),
    }
    Ok(match Written::deserialize(value)? {
        Written::One(addr) => vec![addr],
        Written::More(addrs) => addrs,
    })
}

/// The records of this node.
#[derive(Debug)]
pub(crate) struct Records {
    directory: PathBuf,
    /// A hosts(5) file for each network in which somebody has names, under the network's name.
    hosts: PathBuf,
    known: Mutex<BTreeMap<Handle, Record>>,
}

impl Records {
    /// Reads what is there. A file that is no record is of a write that was cut off, before its attachment was made.
    pub(crate) fn open(directory: PathBuf) -> Self {
        let known = read(&directory).unwrap_or_else(|error| {
            warn!(%error, path = %directory.display(), "records of attachments not read");
            BTreeMap::new()
        });
        let hosts = directory.with_file_name("hosts");
        let records = Self { directory, hosts, known: Mutex::new(known) };
        records.tell_all_names();
        records
    }

    /// Files that an earlier agent left, and what it could not write.
    fn tell_all_names(&self) {
        let known = self.known();
        let left = fs::read_dir(&self.hosts).into_iter().flatten().flatten();
        let mut networks: BTreeSet<String> =
            left.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        networks
            .extend(known.values().filter(|record| !record.aliases.is_empty()).map(|record| record.network.clone()));
        for network in networks {
            if let Err(error) = self.tell_names(&known, &network) {
                warn!(%error, network, "names of attachments not written");
            }
        }
    }

    /// Writes the names of a network's attachments, for whoever resolves them; no file where nobody has a name.
    fn tell_names(&self, known: &BTreeMap<Handle, Record>, network: &str) -> io::Result<()> {
        let path = self.hosts.join(network);
        let of_network = known.values().filter(|record| record.network == network);
        let text = hosts_file(of_network.map(|record| (&record.addrs[..], &record.aliases[..])));
        let Some(text) = text else {
            return match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            };
        };
        fs::create_dir_all(&self.hosts)?;
        let new = self.hosts.join(format!(".{network}"));
        fs::write(&new, text).and_then(|()| fs::rename(&new, &path)).inspect_err(|_| {
            let _ = fs::remove_file(&new);
        })
    }

    /// Another attachment than this one that is on the bridge with that Ethernet address.
    pub(crate) fn holder_of(&self, bridge: &LinkName, mac: Mac, but: &Handle) -> Option<Handle> {
        let is_there =
            |record: &Record| record.mac == mac && record.bridge.as_ref().is_some_and(|on| on.bridge == *bridge);
        self.known()
            .iter()
            .find(|(handle, record)| *handle != but && is_there(record))
            .map(|(handle, _)| handle.clone())
    }

    /// Remembers an attachment.
    ///
    /// # Errors
    ///
    /// When the file cannot be written; nothing is remembered then.
    pub(crate) fn put(&self, handle: &Handle, record: Record) -> io::Result<()> {
        let path = self.path(handle);
        // The dot keeps it from being read as a record.
        let new = self.directory.join(format!(".{}", file_name(handle)));
        let text = serde_json::to_vec(&record)?;
        let written = fs::write(&new, &text).or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => fs::create_dir_all(&self.directory).and_then(|()| fs::write(&new, &text)),
            _ => Err(error),
        });
        if let Err(error) = written.and_then(|()| fs::rename(&new, path)) {
            // On a full disk the file may be there and empty.
            let _ = fs::remove_file(&new);
            return Err(error);
        }
        let mut known = self.known();
        let (network, is_named) = (record.network.clone(), !record.aliases.is_empty());
        let before = known.insert(handle.clone(), record).filter(|before| !before.aliases.is_empty());
        if is_named || before.is_some() { self.tell_names(&known, &network) } else { Ok(()) }
    }

    /// Forgets an attachment.
    ///
    /// # Errors
    ///
    /// When the file cannot be removed; the attachment is forgotten all the same.
    pub(crate) fn remove(&self, handle: &Handle) -> io::Result<()> {
        let mut known = self.known();
        let Some(gone) = known.remove(handle) else { return Ok(()) };
        if !gone.aliases.is_empty()
            && let Err(error) = self.tell_names(&known, &gone.network)
        {
            warn!(%error, network = gone.network, "a name of an attachment that is gone stays");
        }
        drop(known);
        match fs::remove_file(self.path(handle)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    pub(crate) fn of(&self, handle: &Handle) -> Option<Record> {
        self.known().get(handle).cloned()
    }

    pub(crate) fn all(&self) -> Vec<(Handle, Record)> {
        self.known().iter().map(|(handle, record)| (handle.clone(), record.clone())).collect()
    }

    fn path(&self, handle: &Handle) -> PathBuf {
        self.directory.join(file_name(handle))
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<Handle, Record>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The node's ends of what was made, by the addresses behind them, as an agent's records in this directory have it.
///
/// # Errors
///
/// When they cannot be read.
pub fn links(directory: &Path) -> io::Result<BTreeMap<IpAddr, Link>> {
    let of = |(handle, record): (Handle, Record)| {
        let device = handle.as_str().rsplit_once('/').map(|(container, ifname)| host_ifname(container, ifname));
        let link = device.map(|device| {
            let (bridge, segments) = record.bridge.map(|on| (on.bridge, on.segments)).unzip();
            Link { device, bridge, mac: Some(record.mac), segments: segments.unwrap_or_default(), ports: record.ports }
        });
        record.addrs.into_iter().filter_map(move |addr| Some((addr, link.clone()?)))
    };
    Ok(read(directory)?.into_iter().flat_map(of).collect())
}

/// Named as tombstones are: the container's id holds no `@`, and neither part a `/`.
fn file_name(handle: &Handle) -> String {
    handle.as_str().replacen('/', "@", 1)
}

fn read(directory: &Path) -> io::Result<BTreeMap<Handle, Record>> {
    let mut known = BTreeMap::new();
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(known),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some((container_id, ifname)) = name.split_once('@') else { continue };
        if container_id.starts_with('.') {
            continue;
        }
        let text = match fs::read(entry.path()) {
            // It is being removed just now.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            text => text?,
        };
        match serde_json::from_slice(&text) {
            Ok(record) => drop(known.insert(Handle::new(container_id, ifname), record)),
            Err(error) => warn!(%error, path = %entry.path().display(), "record of an attachment is damaged"),
        }
    }
    Ok(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(network: &str) -> Record {
        Record {
            network: network.to_owned(),
            addrs: ["10.0.0.1", "fd00::1"].map(|addr| addr.parse().unwrap()).to_vec(),
            mac: Mac([2, 0, 0, 0, 0, 1]),
            ports: Vec::new(),
            aliases: vec!["web".to_owned()],
            bandwidth: Value::Null,
            bridge: None,
        }
    }

    #[test]
    fn what_was_put_is_there_after_a_restart_and_what_was_removed_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deep/attachments");
        let records = Records::open(path.clone());
        let (a, b) = (Handle::new("a.b-c", "eth0"), Handle::new("b", "x@y"));
        records.put(&a, record("one")).unwrap();
        records.put(&b, record("two")).unwrap();
        records.put(&a, record("three")).unwrap();
        let again = Records::open(path.clone());
        assert_eq!(again.all(), [(a.clone(), record("three")), (b.clone(), record("two"))]);
        again.remove(&a).unwrap();
        again.remove(&a).unwrap();
        assert_eq!(Records::open(path).all(), [(b, record("two"))]);
    }

    #[test]
    fn links_are_told_by_the_addresses_behind_them_also_to_who_does_not_keep_them() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("attachments");
        assert_eq!(links(&path).unwrap(), BTreeMap::new());
        let segments: Vec<ipnet::IpNet> = vec!["10.0.0.0/26".parse().unwrap()];
        let on = segments.clone();
        let bridge = OnBridge { bridge: "cni0".into(), hairpin: false, segments: on, gateways: Vec::new() };
        let on_bridge = Record { addrs: vec!["10.0.0.2".parse().unwrap()], bridge: Some(bridge), ..record("n") };
        let records = Records::open(path.clone());
        let (host_ip, protocol) = (std::net::Ipv4Addr::UNSPECIFIED.into(), podnet_model::Protocol::Tcp);
        let ports = vec![PortMapping { host_ip, protocol, host_port: 8080, container_port: 80 }];
        records.put(&Handle::new("routed", "eth0"), Record { ports: ports.clone(), ..record("n") }).unwrap();
        records.put(&Handle::new("port", "net1"), on_bridge).unwrap();
        let link = |container: &str, ifname: &str, bridge: Option<&str>| Link {
            device: host_ifname(container, ifname),
            bridge: bridge.map(LinkName::from),
            mac: Some(Mac([2, 0, 0, 0, 0, 1])),
            segments: Vec::new(),
            ports: Vec::new(),
        };
        let routed = Link { ports, ..link("routed", "eth0", None) };
        let port = Link { segments, ..link("port", "net1", Some("cni0")) };
        let all = [("10.0.0.1", &routed), ("10.0.0.2", &port), ("fd00::1", &routed)];
        let all = all.map(|(addr, link)| (addr.parse().unwrap(), link.clone()));
        assert_eq!(links(&path).unwrap(), BTreeMap::from(all));
    }

    #[test]
    fn names_stand_in_a_file_of_their_network_as_long_as_somebody_has_them() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("attachments");
        let names = || fs::read_to_string(directory.path().join("hosts/net")).ok();
        let records = Records::open(path.clone());
        let (a, b) = (Handle::new("a", "eth0"), Handle::new("b", "eth0"));
        let nameless = Record { aliases: Vec::new(), ..record("net") };
        records.put(&b, nameless.clone()).unwrap();
        assert_eq!(names(), None);
        records.put(&a, record("net")).unwrap();
        assert!(names().unwrap().ends_with("\n10.0.0.1 web\nfd00::1 web\n"));
        // What an agent that died in between did not write, or left, is put right.
        fs::remove_file(directory.path().join("hosts/net")).unwrap();
        fs::write(directory.path().join("hosts/gone"), "10.0.0.9 old\n").unwrap();
        let records = Records::open(path);
        assert!(names().is_some() && !directory.path().join("hosts/gone").exists());
        records.put(&a, nameless).unwrap();
        assert_eq!(names(), None);
        records.put(&a, record("net")).unwrap();
        records.remove(&a).unwrap();
        assert_eq!(names(), None);
    }

    #[test]
    fn a_record_of_an_earlier_version_has_one_address() {
        let directory = tempfile::tempdir().unwrap();
        let text = r#"{"network":"n","addr":"10.0.0.1","mac":[2,0,0,0,0,1]}"#;
        fs::write(directory.path().join("old@eth0"), text).unwrap();
        let known = Records::open(directory.path().to_path_buf()).all();
        let old = Record { addrs: vec!["10.0.0.1".parse().unwrap()], aliases: Vec::new(), ..record("n") };
        assert_eq!(known, [(Handle::new("old", "eth0"), old)]);
    }

    #[test]
    fn a_write_that_was_cut_off_hides_no_other_record() {
        let directory = tempfile::tempdir().unwrap();
        let records = Records::open(directory.path().to_path_buf());
        records.put(&Handle::new("whole", "eth0"), record("n")).unwrap();
        fs::write(directory.path().join("torn@eth0"), b"{\"netw").unwrap();
        fs::write(directory.path().join(".half@eth0"), serde_json::to_vec(&record("n")).unwrap()).unwrap();
        let known = Records::open(directory.path().to_path_buf()).all();
        assert_eq!(known, [(Handle::new("whole", "eth0"), record("n"))]);
    }
}
