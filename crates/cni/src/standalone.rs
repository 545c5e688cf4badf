//! Networks of one machine, without an agent: `"ipam": {"type": "host-local", …}`.
//!
//! The plugin does everything itself, under a lock, with the same code for interfaces and rules that the agent has: addresses are files
//! as the `host-local` plugin writes them ([`leases`]), what was made is a record for as long as the machine runs ([`records`]), and
//! the rules are a table of their own ([`rules`]).

mod interface;
mod leases;
mod lost;
mod records;
mod rules;

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
    path::Path,
};

use ipnet::{IpNet, Ipv4Net};
use podnet_kernel::{
    cni_wire::{Failure, Request, Verb},
    netlink::RtSocket,
    netns::NetNs,
    pod_interface::{self, PodInterface},
};
use podnet_model::{
    Mac,
    cni::{Choice, LocalIpam, Range, Wishes, choose},
    errors::chain,
};
use podnet_planner::ipam::Handle;
use serde_json::Value;

use interface::{device, mac, mtu};
use leases::Leases;
use records::{Record, Records};

/// As the `host-local` plugin has it.
const DATA_DIR: &str = "/var/lib/cni/networks";
const HOST_MAC: Mac = Mac([0xee, 0xee, 0xee, 0xee, 0xee, 0xee]);

/// Whether the configuration is of a network without an agent.
pub(crate) fn is_meant(config: &Value) -> bool {
    config["ipam"]["type"] == "host-local" && config.get("socket").is_none()
}

pub(crate) fn serve(request: &Request, netns: Option<NetNs>) -> Result<Option<Value>, Failure> {
    match request.verb {
        Verb::Add => Network::of(request)?.add(request, required(netns)?).map(Some),
        Verb::Del => Network::of(request)?.del(&request.container_id, &request.ifname).map(|()| None),
        Verb::Check => Network::of(request)?.check(request, required(netns)?).map(|()| None),
        Verb::Gc => Network::of(request)?.collect_garbage(request).map(|()| None),
        Verb::Status => LocalIpam::parse(&request.config).map(|_| None).map_err(Into::into),
    }
}

fn required(netns: Option<NetNs>) -> Result<NetNs, Failure> {
    netns.ok_or_else(|| Failure::new(Failure::INVALID_ENVIRONMENT, "CNI_NETNS: not set"))
}

/// A network, locked: whoever else is about to change something waits.
struct Network {
    name: String,
    ipam: LocalIpam,
    leases: Leases,
    records: Records,
}

impl Network {
    fn of(request: &Request) -> Result<Self, Failure> {
        let name = request.config["name"].as_str().unwrap_or_default().to_owned();
        let ipam = LocalIpam::parse(&request.config)?;
        let failed = |what: &str| {
            let what = format!("cannot lock {what} of network {name}");
            move |error| Failure::new(Failure::JOURNAL, format!("{what}: {error}"))
        };
        let records = Records::lock().map_err(failed("the records"))?;
        let data_dir = Path::new(ipam.data_dir.as_deref().unwrap_or(DATA_DIR)).join(&name);
        let leases = Leases::lock(&data_dir).map_err(failed("the addresses"))?;
        Ok(Self { name, ipam, leases, records })
    }

    fn add(&mut self, request: &Request, netns: NetNs) -> Result<Value, Failure> {
        let wishes = Wishes::parse(&request.config, &request.args)?;
        let mtu = mtu(&request.config)?;
        let handle = Handle::new(&request.container_id, &request.ifname);
        self.forget_lost()?;
        if self.records.of(&handle).is_some() {
            let what =
                format!("container {} is attached as {} already (CNI_IFNAME)", request.container_id, request.ifname);
            return Err(Failure::new(Failure::INTERFACE, what));
        }
        let addrs = self.lease(&handle, &wishes)?;
        let interface = PodInterface {
            netns,
            container_ifname: request.ifname.as_str().into(),
            host_ifname: device(&request.container_id, &request.ifname),
            addr: addrs.iter().map(|(addr, _)| *addr).collect(),
            routes: interface::routes(&addrs, &self.ipam.routes),
            mtu,
            pod_mac: wishes.mac.unwrap_or_else(|| mac(&addrs)),
            host_mac: HOST_MAC,
        };
        let record = Record {
            network: self.name.clone(),
            addrs: interface.addr.clone(),
            routes: interface.routes.clone(),
            mac: interface.pod_mac,
            ports: wishes.ports.clone(),
            masqueraded: masqueraded(&request.config, &addrs),
        };
        let made = self.make(&handle, &interface, &addrs, record);
        if let Err(failure) = made {
            let _ = self.leases.free(&handle);
            return Err(failure);
        }
        Ok(interface::result(request, &interface, &addrs, &wishes))
    }

    /// An address of each set, or none at all.
    fn lease(&mut self, handle: &Handle, wishes: &Wishes) -> Result<Vec<(IpAddr, Range)>, Failure> {
        // What an ADD that was killed took.
        self.leases.free(handle).map_err(|error| journal("free the addresses of an earlier attempt", &error))?;
        let mut given = Vec::new();
        for (place, set) in self.ipam.sets.clone().iter().enumerate() {
            match self.choose(place, set, wishes) {
                Ok(found) => given.push(found),
                Err(failure) => {
                    let _ = self.leases.free(handle);
                    return Err(failure);
                }
            }
            let (addr, _) = given[place];
            if let Err(error) = self.leases.take(addr, handle, place) {
                let _ = self.leases.free(handle);
                return Err(journal("write down an address", &error));
            }
        }
        match wishes.addrs.iter().find(|wished| !given.iter().any(|(addr, _)| addr == *wished)) {
            None => Ok(given),
            Some(wished) => {
                let _ = self.leases.free(handle);
                let what = format!("address {wished} is asked for, which is of no range of network {}", self.name);
                Err(Failure::new(Failure::NO_ADDRESS, what))
            }
        }
    }

    fn choose(&mut self, place: usize, set: &[Range], wishes: &Wishes) -> Result<(IpAddr, Range), Failure> {
        let taken = self.leases.taken().map_err(|error| journal("list the addresses in use", &error))?;
        let last = self.leases.last(place);
        let choice = match choose(set, &wishes.addrs, last, |addr| taken.contains(&addr)) {
            Choice::Full => {
                let left = self.reclaim().map_err(|error| journal("free the addresses of lost containers", &error))?;
                choose(set, &wishes.addrs, last, |addr| left.contains(&addr))
            }
            choice => choice,
        };
        match choice {
            Choice::Given(addr, range) => Ok((addr, range)),
            Choice::Taken(addr) => {
                Err(Failure::new(Failure::NO_ADDRESS, format!("address {addr} of network {} is in use", self.name)))
            }
            Choice::Full => {
                let ranges: Vec<String> = set.iter().map(|range| format!("{}–{}", range.first, range.last)).collect();
                let what = format!("no address is free in {} of network {}", ranges.join(", "), self.name);
                let others = self.not_known().map_err(|error| journal("list the addresses in use", &error))?;
                Err(Failure::new(Failure::NO_ADDRESS, what + &others))
            }
        }
    }

    fn make(
        &mut self,
        handle: &Handle,
        interface: &PodInterface,
        addrs: &[(IpAddr, Range)],
        record: Record,
    ) -> Result<(), Failure> {
        let failed = |error: &dyn std::error::Error| {
            Failure::new(Failure::INTERFACE, format!("no interface for {handle}: {}", chain(error)))
        };
        let mut socket = RtSocket::open().map_err(|error| failed(&error))?;
        let created = match interface.create(&mut socket) {
            Err(error) if error.is_exists() => {
                if interface.is_name_taken().map_err(|error| failed(&error))? {
                    let name = &interface.container_ifname;
                    let what = format!("no interface: the sandbox has an interface {name} already (CNI_IFNAME)");
                    return Err(Failure::new(Failure::INTERFACE, what));
                }
                // Of an earlier life of the container, in another namespace.
                pod_interface::remove(&mut socket, &interface.host_ifname).map_err(|error| failed(&error))?;
                interface.create(&mut socket)
            }
            created => created,
        };
        let created = created.map_err(|error| failed(&error))?;
        let made = interface::prepare(&mut socket, created.host_index, interface, addrs)
            .and_then(|()| rules::add(&self.records, handle, interface, &record))
            .and_then(|()| self.records.put(handle, record).map_err(|error| journal("write the record", &error)));
        made.inspect_err(|_| {
            let _ = rules::remove(&self.records, handle);
            let _ = pod_interface::remove(&mut socket, &interface.host_ifname);
        })
    }

    fn del(&mut self, container_id: &str, ifname: &str) -> Result<(), Failure> {
        let (handle, name) = (Handle::new(container_id, ifname), device(container_id, ifname));
        RtSocket::open()
            .map_err(|error| chain(&error))
            .and_then(|mut socket| pod_interface::remove(&mut socket, &name).map_err(|error| chain(&error)))
            .map_err(|error| Failure::new(Failure::INTERFACE, format!("cannot remove interface {name}: {error}")))?;
        rules::remove(&self.records, &handle)?;
        self.records.remove(&handle).map_err(|error| journal("remove the record", &error))?;
        self.leases.free(&handle).map_err(|error| journal("free the address", &error))
    }

    fn check(&self, request: &Request, netns: NetNs) -> Result<(), Failure> {
        let handle = Handle::new(&request.container_id, &request.ifname);
        let Some(record) = self.records.of(&handle) else {
            let what = format!("container {} is not attached as {} here", request.container_id, request.ifname);
            return Err(Failure::new(Failure::UNKNOWN_CONTAINER, what));
        };
        let interface = PodInterface {
            netns,
            container_ifname: request.ifname.as_str().into(),
            host_ifname: device(&request.container_id, &request.ifname),
            addr: record.addrs.clone(),
            routes: record.routes.clone(),
            mtu: mtu(&request.config)?,
            pod_mac: record.mac,
            host_mac: HOST_MAC,
        };
        let broken = |what: String| Failure::new(Failure::INTERFACE, format!("{handle} is not as it was made: {what}"));
        let taken = self.leases.taken().map_err(|error| journal("list the addresses in use", &error))?;
        if let Some(addr) = record.addrs.iter().find(|addr| !taken.contains(addr)) {
            return Err(broken(format!("its address {addr} is not written down")));
        }
        let differences = RtSocket::open()
            .map_err(|error| broken(chain(&error)))
            .and_then(|mut socket| interface.check(&mut socket).map_err(|error| broken(chain(&error))))?;
        match differences.is_empty() {
            true => Ok(()),
            false => Err(broken(differences.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))),
        }
    }

    /// Frees what belongs to none of the attachments that the runtime still knows.
    fn collect_garbage(&mut self, request: &Request) -> Result<(), Failure> {
        let known = podnet_kernel::cni_wire::valid_attachments(&request.config)?;
        let records = self.records.all().into_iter().chain(self.records.lost());
        let records = records.filter(|(_, record)| record.network == self.name);
        let mut held: BTreeSet<(String, String)> = records
            .filter_map(|(handle, _)| {
                handle.as_str().split_once('/').map(|(id, name)| (id.to_owned(), name.to_owned()))
            })
            .collect();
        let leases = self.leases.all().map_err(|error| journal("list the addresses in use", &error))?;
        held.extend(leases.into_iter().map(|(_, id, ifname)| (id, ifname)));
        let strays = held.into_iter().filter(|attachment| !known.contains(attachment));
        let failures: Vec<Failure> = strays.filter_map(|(id, ifname)| self.del(&id, &ifname).err()).collect();
        failures.into_iter().next().map_or(Ok(()), Err)
    }
}

/// The subnets whose way out is translated.
fn masqueraded(config: &Value, addrs: &[(IpAddr, Range)]) -> Vec<Ipv4Net> {
    let subnets = addrs.iter().filter_map(|(_, range)| match range.subnet {
        IpNet::V4(subnet) => Some(subnet),
        IpNet::V6(_) => None,
    });
    if config["ipMasq"] == true { subnets.collect() } else { Vec::new() }
}

fn journal(what: &str, error: &std::io::Error) -> Failure {
    Failure::new(Failure::JOURNAL, format!("cannot {what}: {error}"))
}

/// What is never translated: it leads to whoever listens on the link.
const MULTICAST: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(224, 0, 0, 0), 4);
