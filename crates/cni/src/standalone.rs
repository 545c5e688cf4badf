//! Networks of one machine, without an agent: `"ipam": {"type": "host-local", …}`.
//!
//! The plugin does everything itself, under a lock, with the same code for interfaces and rules that the agent has: addresses are files
//! as the `host-local` plugin writes them ([`leases`]), what was made is a record for as long as the machine runs ([`records`]), and
//! the rules are a table of their own ([`rules`]).

mod interface;
mod joined;
mod leases;
mod limit;
mod loopback;
mod lost;
mod records;
mod rules;

use std::{collections::BTreeSet, net::IpAddr, path::Path};

use ipnet::IpNet;
use podnet_kernel::{
    cni_wire::{Failure, Request, Verb},
    netlink::RtSocket,
    netns::NetNs,
    pod_interface,
};
use podnet_model::{
    HOST_MAC, LinkName,
    cni::{Choice, LocalIpam, Mode, Range, Wishes, choose},
    errors::chain,
};
use podnet_planner::ipam::Handle;
use serde_json::Value;

use interface::device;
use joined::{Asked, Joined};
use leases::Leases;
use records::{Record, Records};

/// As the `host-local` plugin has it.
const DATA_DIR: &str = "/var/lib/cni/networks";

/// Whether the configuration is of a network without an agent.
pub(crate) fn is_meant(config: &Value) -> bool {
    config["ipam"]["type"] == "host-local" && config.get("socket").is_none()
}

pub(crate) fn serve(request: &Request, netns: Option<NetNs>) -> Result<Option<Value>, Failure> {
    match request.verb {
        Verb::Add => Network::of(request)?.add(request, required(netns)?).map(Some),
        Verb::Del => {
            // The kernel takes its time, and whoever waits for the lock need not wait for that too.
            remove_device(&device(&request.container_id, &request.ifname))?;
            Network::of(request)?.del(&request.container_id, &request.ifname).map(|()| None)
        }
        Verb::Check => Network::of(request)?.check(request, required(netns)?).map(|()| None),
        Verb::Gc => Network::of(request)?.collect_garbage(request).map(|()| None),
        Verb::Status => status(&request.config).map(|()| None),
    }
}

/// Whether an ADD can be served.
fn status(config: &Value) -> Result<(), Failure> {
    LocalIpam::parse(config)?;
    match Mode::parse(config)? {
        Mode::Macvlan(macvlan) => joined::master(&macvlan).map(drop).map_err(|failure| {
            let what = format!("no container can be attached: {}", failure.msg);
            Failure { code: Failure::NOT_AVAILABLE, msg: what, details: failure.details }
        }),
        Mode::Routed | Mode::Bridge(_) => Ok(()),
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
    is_bridged: bool,
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
        // A DEL is not refused for what an ADD was refused for.
        let is_bridged = request.config["mode"] == "bridge";
        Ok(Self { name, ipam, leases, records, is_bridged })
    }

    fn add(&mut self, request: &Request, netns: NetNs) -> Result<Value, Failure> {
        let wishes = Wishes::parse(&request.config, &request.args)?;
        let mode = Mode::parse(&request.config)?;
        interface::mtu(&request.config)?;
        let limits = limit::wished(request)?;
        let handle = Handle::new(&request.container_id, &request.ifname);
        self.forget_lost()?;
        if self.records.of(&handle).is_some() {
            let what =
                format!("container {} is attached as {} already (CNI_IFNAME)", request.container_id, request.ifname);
            return Err(Failure::new(Failure::INTERFACE, what));
        }
        let addrs = self.lease(&handle, &wishes)?;
        let routes = self.ipam.routes.clone();
        let asked = Asked { request, mode: &mode, addrs: &addrs, routes: &routes, wishes: &wishes, limits: &limits };
        self.join(&handle, &asked, netns).inspect_err(|_| {
            let _ = self.leases.free(&handle);
        })
    }

    fn join(&mut self, handle: &Handle, asked: &Asked<'_>, netns: NetNs) -> Result<Value, Failure> {
        let (interface, segment) = Joined::asked(asked, netns)?;
        let (mac, routes) = match &interface {
            Joined::Routed(interface) => (interface.pod_mac, interface.routes.clone()),
            Joined::Segment(interface) => (interface.mac.unwrap_or(HOST_MAC), Vec::new()),
        };
        let record = Record {
            network: self.name.clone(),
            addrs: asked.addrs.iter().map(|(addr, _)| *addr).collect(),
            routes,
            mac,
            ports: asked.wishes.ports.clone(),
            aliases: asked.wishes.aliases.clone(),
            masqueraded: masqueraded(&asked.request.config, asked.addrs),
            segment,
        };
        self.make(handle, &interface, asked, &record)?;
        Ok(interface.result(asked))
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

    fn make(&mut self, handle: &Handle, interface: &Joined, asked: &Asked<'_>, record: &Record) -> Result<(), Failure> {
        let failed = |error: &dyn std::error::Error| {
            Failure::new(Failure::INTERFACE, format!("no interface for {handle}: {}", chain(error)))
        };
        let mut socket = RtSocket::open().map_err(|error| failed(&error))?;
        interface.prepare(&mut socket, asked)?;
        if record.segment.as_ref().is_some_and(|segment| segment.link.is_there().is_some()) {
            refuse_taken(interface, asked)?;
            // DEL knows by the record alone what is in the container's namespace and nowhere on the node.
            self.records.put(handle, record.clone()).map_err(|error| journal("write the record", &error))?;
        }
        let made = self.make_parts(handle, interface, asked, record, &mut socket);
        made.inspect_err(|_| {
            let _ = loopback::close(&mut socket, &self.records, handle, record);
            let _ = rules::remove(&self.records, handle, self.is_bridged);
            let _ = interface.undo(&mut socket);
            let _ = self.records.remove(handle);
        })
    }

    fn make_parts(
        &mut self,
        handle: &Handle,
        interface: &Joined,
        asked: &Asked<'_>,
        record: &Record,
        socket: &mut RtSocket,
    ) -> Result<(), Failure> {
        // On a segment an interface announces itself as soon as it is there: whoever checks senders has to know it by then.
        let is_known = record.segment.is_some();
        if is_known {
            rules::add(&self.records, handle, record)?;
            loopback::open(socket, record)?;
        }
        let created = match interface.create(socket) {
            Err(error) if error.is_exists() && interface.link().is_some() => {
                refuse_taken(interface, asked)?;
                // Of an earlier life of the container, in another namespace.
                interface.undo(socket).and_then(|()| interface.create(socket))
            }
            created => created,
        };
        let host_index = created.map_err(|error| {
            Failure::new(Failure::INTERFACE, format!("no interface for {handle}: {}", chain(&error)))
        })?;
        if let (Joined::Routed(routed), Some(index)) = (interface, host_index) {
            interface::prepare(socket, index, routed, asked.addrs)?;
        }
        if let Some((link, mtu)) = interface.link().filter(|_| !asked.limits.is_empty()) {
            limit::set(socket, link, asked.limits, mtu)?;
        }
        if !is_known {
            rules::add(&self.records, handle, record)?;
        }
        self.records.put(handle, record.clone()).map_err(|error| journal("write the record", &error))
    }

    fn del(&mut self, container_id: &str, ifname: &str) -> Result<(), Failure> {
        let handle = Handle::new(container_id, ifname);
        // Another ADD of it may have come in between.
        remove_device(&device(container_id, ifname))?;
        if let Some(segment) = self.records.of(&handle).and_then(|record| record.segment) {
            segment.link.remove(ifname)?;
        }
        if let Some(record) = self.records.of(&handle) {
            let mut socket = RtSocket::open().map_err(|error| Failure::new(Failure::INTERFACE, chain(&error)))?;
            loopback::close(&mut socket, &self.records, &handle, &record)?;
        }
        rules::remove(&self.records, &handle, self.is_bridged)?;
        self.records.remove(&handle).map_err(|error| journal("remove the record", &error))?;
        self.leases.free(&handle).map_err(|error| journal("free the address", &error))
    }

    fn check(&self, request: &Request, netns: NetNs) -> Result<(), Failure> {
        let handle = Handle::new(&request.container_id, &request.ifname);
        let Some(record) = self.records.of(&handle) else {
            let what = format!("container {} is not attached as {} here", request.container_id, request.ifname);
            return Err(Failure::new(Failure::UNKNOWN_CONTAINER, what));
        };
        let interface = Joined::recorded(request, &record, netns)?;
        let broken = |what: String| Failure::new(Failure::INTERFACE, format!("{handle} is not as it was made: {what}"));
        let taken = self.leases.taken().map_err(|error| journal("list the addresses in use", &error))?;
        if let Some(addr) = record.addrs.iter().find(|addr| !taken.contains(addr)) {
            return Err(broken(format!("its address {addr} is not written down")));
        }
        let mut socket = RtSocket::open().map_err(|error| broken(chain(&error)))?;
        let mut differences = interface.check(&mut socket).map_err(|error| broken(chain(&error)))?;
        if let Some((link, mtu)) = interface.link()
            && !limit::is_set(&mut socket, link, &limit::wished(request)?, mtu)?
        {
            differences.push(format!("the traffic of {link} is not limited as asked for"));
        }
        match differences.is_empty() {
            true => Ok(()),
            false => Err(broken(differences.join("; "))),
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

/// Removes the node's end of a container's link, and with it the other one. Done also where there is none.
fn remove_device(name: &LinkName) -> Result<(), Failure> {
    RtSocket::open()
        .map_err(|error| chain(&error))
        .and_then(|mut socket| pod_interface::remove(&mut socket, name).map_err(|error| chain(&error)))
        .map_err(|error| Failure::new(Failure::INTERFACE, format!("cannot remove interface {name}: {error}")))
}

fn refuse_taken(interface: &Joined, asked: &Asked<'_>) -> Result<(), Failure> {
    let name = &asked.request.ifname;
    match interface.is_name_taken() {
        Ok(false) => Ok(()),
        Ok(true) => {
            let what = format!("no interface: the sandbox has an interface {name} already (CNI_IFNAME)");
            Err(Failure::new(Failure::INTERFACE, what))
        }
        Err(error) => Err(Failure::new(Failure::INTERFACE, format!("no interface {name}: {}", chain(&error)))),
    }
}

/// The subnets whose way out is translated.
fn masqueraded(config: &Value, addrs: &[(IpAddr, Range)]) -> Vec<IpNet> {
    if config["ipMasq"] == true { addrs.iter().map(|(_, range)| range.subnet).collect() } else { Vec::new() }
}

fn journal(what: &str, error: &std::io::Error) -> Failure {
    Failure::new(Failure::JOURNAL, format!("cannot {what}: {error}"))
}
