//! Several nodes, the API's table of blocks, and the reference: who was told that an address is theirs.

use std::{
    collections::{BTreeMap, VecDeque},
    net::IpAddr,
    sync::Arc,
};

use podnet_model::{Block, EncapMode, Loan, Node, NodeAddr, PodKey};

use super::super::*;

pub(super) const NODES: usize = 3;

/// A node: what is on its disk, what is in memory, and which watch events wait for it.
pub(super) struct Host {
    pub(super) name: NodeName,
    pub(super) ipam: NodeIpam,
    journal: Vec<String>,
    inbox: VecDeque<Change>,
}

/// A block's object.
#[derive(Clone)]
pub(super) struct Object {
    pub(super) owner: NodeName,
    /// As last published: who holds what, and on which node.
    published: BTreeMap<IpAddr, (Handle, NodeName)>,
    asked: Vec<Asked>,
}

/// What waits in the annotation of a block's object.
#[derive(Clone)]
enum Asked {
    Borrow(LoanRequest),
    Return(Handle, IpAddr),
}

pub(super) struct World {
    pub(super) now: Moment,
    pub(super) pools: Vec<Pool>,
    pub(super) table: BTreeMap<BlockCidr, Object>,
    pub(super) hosts: Vec<Host>,
    pub(super) given: BTreeMap<(usize, u8, Family), PodAddr>,
}

/// How an ADD goes on when an address has to be borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// The owner answers.
    Answers,
    /// The owner's agent is down: the ADD fails, and the request waits.
    Silent,
    /// The owner writes the loan down and dies before it says so.
    Dies,
}

impl World {
    pub(super) fn new() -> Self {
        let pool = |name: &str, cidr: &str, block_size: u8| Pool {
            name: name.into(),
            cidr: cidr.parse().unwrap(),
            block_size,
            vxlan: EncapMode::Never,
            ipip: EncapMode::Never,
            nat_outgoing: false,
            disabled: false,
            manual: false,
            node_selector: Default::default(),
            namespace_selector: Default::default(),
        };
        let mut world = Self {
            now: Moment(0),
            pools: vec![pool("a", "10.0.0.0/29", 31), pool("b", "10.0.1.0/30", 31), pool("six", "fd00::/125", 127)],
            table: BTreeMap::new(),
            hosts: Vec::new(),
            given: BTreeMap::new(),
        };
        for index in 0..NODES {
            let name = NodeName::from(&format!("node{index}"));
            let ipam = world.boot(&name, &[]);
            world.hosts.push(Host { name, ipam, journal: Vec::new(), inbox: VecDeque::new() });
        }
        world
    }

    /// A node as it is after its start: the journal, then the first list of the watch.
    fn boot(&self, name: &NodeName, journal: &[String]) -> NodeIpam {
        let mut ipam = NodeIpam::new(name.clone(), IpamConfig::default());
        let replayed = ipam.replay(journal.iter().map(String::as_str));
        assert_eq!(replayed.damaged, []);
        for index in 0..NODES {
            let name = NodeName::from(&format!("node{index}"));
            let addr = NodeAddr([172, 16, 0, 1].into());
            let node = Node::new(name.clone(), addr);
            ipam.apply(&Change::Node(name, Some(node)));
        }
        for pool in &self.pools {
            ipam.apply(&Change::Pool(pool.name.clone(), Some(pool.clone())));
        }
        for (cidr, object) in &self.table {
            ipam.apply(&Change::Block(*cidr, Some(object.block(*cidr))));
        }
        ipam
    }

    pub(super) fn crash(&mut self, host: usize) {
        let Host { name, journal, .. } = &self.hosts[host];
        let ipam = self.boot(name, journal);
        // The restarted agent cuts a torn line off.
        self.hosts[host].journal.retain(|line| JournalRecord::from_line(line).is_some());
        self.hosts[host].ipam = ipam;
        self.hosts[host].inbox.clear();
    }

    pub(super) fn write(&mut self, host: usize, records: &[JournalRecord]) {
        self.hosts[host].journal.extend(records.iter().map(JournalRecord::to_line));
    }

    /// Half of the last record reaches the disk.
    pub(super) fn write_torn(&mut self, host: usize, record: &JournalRecord, keep: impl FnOnce(usize) -> usize) {
        let line = record.to_line();
        let length = keep(line.len());
        self.hosts[host].journal.push(line[..length].to_owned());
    }

    pub(super) fn compact(&mut self, host: usize) {
        self.hosts[host].journal = self.hosts[host].ipam.snapshot().iter().map(JournalRecord::to_line).collect();
    }

    /// Some of the waiting watch events arrive.
    pub(super) fn watch(&mut self, host: usize, count: usize) {
        for _ in 0..count {
            let Some(change) = self.hosts[host].inbox.pop_front() else { return };
            self.hosts[host].ipam.apply(&change);
        }
    }

    pub(super) fn is_current(&self) -> bool {
        self.hosts.iter().all(|host| host.inbox.is_empty())
    }

    fn announce(&mut self, cidr: BlockCidr) {
        let block = self.table.get(&cidr).map(|object| object.block(cidr));
        for host in &mut self.hosts {
            host.inbox.push_back(Change::Block(cidr, block.clone()));
        }
    }

    /// Creates the block's object, which succeeds once. True where this node owns it now.
    pub(super) fn create(&mut self, host: usize, cidr: BlockCidr) -> bool {
        let name = self.hosts[host].name.clone();
        match self.table.get(&cidr).map(|object| object.owner.clone()) {
            Some(owner) if owner == name => true,
            Some(owner) => {
                self.hosts[host].ipam.block_lost(cidr, Some(owner));
                false
            }
            None => {
                self.table.insert(cidr, Object { owner: name, published: BTreeMap::new(), asked: Vec::new() });
                self.announce(cidr);
                true
            }
        }
    }

    /// Deletes the object of a block that its owner gave up.
    pub(super) fn delete(&mut self, host: usize, cidr: BlockCidr) {
        let owner = self.table.remove(&cidr).map(|object| object.owner);
        assert_eq!(owner.as_ref(), Some(&self.hosts[host].name), "only own blocks are given back");
        self.announce(cidr);
        self.hosts[host].ipam.block_deleted(cidr);
    }

    /// Writes what the node holds of its blocks into their objects.
    pub(super) fn publish(&mut self, host: usize) {
        let name = self.hosts[host].name.clone();
        for occupancy in self.hosts[host].ipam.occupancy().collect::<Vec<_>>() {
            let Some(object) = self.table.get_mut(&occupancy.cidr()).filter(|object| object.owner == name) else {
                continue;
            };
            let on = |holder: &Holder| (holder.handle.clone(), holder.node.clone().unwrap_or_else(|| name.clone()));
            object.published = occupancy.held.iter().map(|(addr, holder)| (*addr, on(holder))).collect();
            self.announce(occupancy.cidr());
        }
    }

    /// The owner answers all that is asked of its blocks; or dies when it has written it down, and before it says so.
    pub(super) fn serve(&mut self, host: usize, dies: bool) {
        let name = self.hosts[host].name.clone();
        let own = self.table.iter().filter(|(_, object)| object.owner == name && !object.asked.is_empty());
        for (cidr, asked) in own.map(|(cidr, object)| (*cidr, object.asked.clone())).collect::<Vec<_>>() {
            for one in &asked {
                let records = match one {
                    Asked::Borrow(request) => {
                        self.hosts[host].ipam.lend(cidr, request, self.now).map(|(_, records)| records).ok()
                    }
                    Asked::Return(handle, addr) => self.hosts[host].ipam.take_back(handle, *addr, self.now),
                };
                self.write(host, &records.unwrap_or_default());
            }
            if dies {
                return self.crash(host);
            }
            self.table.get_mut(&cidr).unwrap().asked.clear();
            self.publish(host);
        }
    }

    /// Asks a block's owner and reads its answer.
    pub(super) fn borrow(
        &mut self,
        host: usize,
        request: &AllocationRequest<'_>,
        from: &LoanCandidate,
        owner: Owner,
    ) -> Option<Assignment> {
        let object = self.table.get_mut(&from.block).filter(|object| object.owner == from.owner)?;
        let node = self.hosts[host].name.clone();
        object.asked.push(Asked::Borrow(LoanRequest {
            node: node.clone(),
            handle: request.handle.clone(),
            pod: request.pod.clone(),
            uid: Arc::clone(&request.uid),
            addr: from.addr,
        }));
        let lender = self.hosts.iter().position(|host| host.name == from.owner).unwrap();
        match owner {
            Owner::Silent => return None,
            Owner::Dies => {
                self.serve(lender, true);
                return None;
            }
            Owner::Answers => self.serve(lender, false),
        }
        let mut published = self.table[&from.block].published.iter();
        let lent = (request.handle.clone(), node);
        let Some((addr, _)) =
            published.find(|(addr, held)| **held == lent && from.addr.is_none_or(|wanted| wanted == **addr))
        else {
            self.hosts[host].ipam.not_lent(from.block);
            return None;
        };
        Some(self.hosts[host].ipam.borrowed(*addr, request))
    }

    /// Frees a handle's address of a family.
    pub(super) fn free(&mut self, host: usize, handle: &Handle, family: Family) {
        let release = self.hosts[host].ipam.release_one(handle, family, self.now);
        self.write(host, &release.map(|release| release.records).unwrap_or_default());
    }

    /// Asks the owners to take back what this node does not use.
    pub(super) fn give_loans_back(&mut self, host: usize) {
        for (cidr, loan) in self.hosts[host].ipam.unused_loans() {
            if let Some(object) = self.table.get_mut(&cidr) {
                object.asked.push(Asked::Return(Handle::from(&*loan.handle), loan.addr));
            }
        }
    }

    /// At the start: what the API says of this node's loans is believed where the journal does not know it; nobody has an interface, so
    /// that the sweep frees all but those that `given` says are in use.
    pub(super) fn adopt_loans(&mut self, host: usize) {
        let used: Vec<PodAddr> = self.given.iter().filter(|((at, ..), _)| *at == host).map(|(_, addr)| *addr).collect();
        for (_, loan) in self.hosts[host].ipam.unused_loans() {
            let holder = Holder {
                handle: Handle::from(&*loan.handle),
                pod: PodKey::new("", ""),
                uid: Arc::from(""),
                node: Some(loan.node.clone()),
            };
            let occupancy = Occupancy {
                block: IpNet::from(loan.addr),
                held: [(loan.addr, holder.clone())].into(),
                free: Vec::new(),
            };
            let records = self.hosts[host].ipam.adopt_loans(&occupancy);
            self.write(host, &records);
            if !used.contains(&PodAddr(loan.addr)) && !records.is_empty() {
                self.free(host, &holder.handle, Family::of(&loan.addr));
            }
        }
    }
}

impl Object {
    fn block(&self, cidr: BlockCidr) -> Block {
        let mut block = Block::new(cidr, Some(self.owner.clone()));
        block.free -= self.published.len();
        let lent = self.published.iter().filter(|(_, (_, node))| *node != self.owner);
        block.loans = lent
            .map(|(addr, (handle, node))| Loan { addr: *addr, node: node.clone(), handle: Arc::from(handle.as_str()) })
            .collect();
        block
    }
}
