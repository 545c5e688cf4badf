//! Several nodes, one table of claims, and everything that can come between: no address twice, none lost.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use podnet_model::{Block, EncapMode};
use proptest::{collection, prelude::*, sample::Index};

use super::*;

const NODES: usize = 3;

/// What may happen to one of the nodes.
#[derive(Clone, Debug)]
enum Event {
    /// A pod's ADD, of any address or of one of the pool's.
    Add { handle: u8, fixed: Option<u8> },
    /// A pod's DEL.
    Del { handle: u8 },
    /// `kill -9` and restart.
    Crash,
    /// As before, in the middle of writing the last record of an ADD.
    CrashInAdd { handle: u8, keep: Index },
    /// As before, between claiming a block at the API and writing that down.
    CrashInClaim { handle: u8 },
    /// Give all surplus blocks back; or crash before the API hears of it.
    GiveBack { crash: bool },
    /// Some of the waiting watch events arrive.
    Watch { count: u8 },
    /// Write the journal anew.
    Compact,
    /// Time passes, in seconds.
    Wait { seconds: u8 },
}

/// A node: what is on its disk, what is in memory, and which watch events wait for it.
struct Host {
    name: NodeName,
    ipam: NodeIpam,
    journal: Vec<String>,
    inbox: VecDeque<Change>,
}

/// The cluster: the API's table of blocks, and the reference: who was told that an address is theirs.
struct World {
    now: Moment,
    pools: Vec<Pool>,
    table: BTreeMap<BlockCidr, NodeName>,
    hosts: Vec<Host>,
    given: BTreeMap<(usize, u8), PodAddr>,
}

impl World {
    fn new() -> Self {
        let pool = |name: &str, cidr: &str| Pool {
            name: name.into(),
            cidr: cidr.parse().unwrap(),
            block_size: 31,
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
            pools: vec![pool("a", "10.0.0.0/29"), pool("b", "10.0.1.0/30")],
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
        for pool in &self.pools {
            ipam.apply(&Change::Pool(pool.name.clone(), Some(pool.clone())));
        }
        for (cidr, owner) in &self.table {
            ipam.apply(&Change::Block(*cidr, Some(Block::new(*cidr, Some(owner.clone())))));
        }
        ipam
    }

    fn crash(&mut self, host: usize) {
        let Host { name, journal, .. } = &self.hosts[host];
        let ipam = self.boot(name, journal);
        // The restarted agent cuts a torn line off.
        self.hosts[host].journal.retain(|line| JournalRecord::from_line(line).is_some());
        self.hosts[host].ipam = ipam;
        self.hosts[host].inbox.clear();
    }

    fn write(&mut self, host: usize, records: &[JournalRecord]) {
        self.hosts[host].journal.extend(records.iter().map(JournalRecord::to_line));
    }

    fn announce(&mut self, cidr: BlockCidr, owner: Option<NodeName>) {
        let block = owner.map(|owner| Block::new(cidr, Some(owner)));
        for host in &mut self.hosts {
            host.inbox.push_back(Change::Block(cidr, block.clone()));
        }
    }

    /// Creates the block's object, which succeeds once. True where this node owns it now.
    fn create(&mut self, host: usize, cidr: BlockCidr) -> bool {
        let name = self.hosts[host].name.clone();
        match self.table.get(&cidr).cloned() {
            Some(owner) if owner == name => true,
            Some(owner) => {
                self.hosts[host].ipam.block_lost(cidr, Some(owner));
                false
            }
            None => {
                self.table.insert(cidr, name.clone());
                self.announce(cidr, Some(name));
                true
            }
        }
    }

    /// The next decision that is no claim. `stop` ends the ADD after its first successful claim, before that is written down.
    fn decide(
        &mut self,
        host: usize,
        handle: u8,
        fixed: Option<u8>,
        stop: bool,
    ) -> Option<Result<Assignment, IpamError>> {
        let addrs = fixed.map(|addr| Ipv4Addr::new(10, 0, 0, addr).into()).into_iter().collect();
        let wish = Wish { addrs, ..Wish::default() };
        for _ in 0..20 {
            let asked = AllocationRequest {
                handle: self.handle(host, handle),
                pod: PodKey::new("test", &format!("p{host}-{handle}")),
                uid: Arc::from("u"),
                wish: &wish,
            };
            match self.hosts[host].ipam.allocate(&asked, self.now) {
                Ok(Decision::Assigned(assignment)) => return Some(Ok(assignment)),
                Err(error) => return Some(Err(error)),
                Ok(Decision::NeedBlock(candidate)) => {
                    if self.create(host, candidate.cidr) {
                        if stop {
                            return None;
                        }
                        let records = self.hosts[host].ipam.block_claimed(candidate.cidr);
                        self.write(host, &records);
                    }
                }
            }
        }
        panic!("node{host} claims without end");
    }

    fn handle(&self, host: usize, handle: u8) -> Handle {
        Handle::new(&format!("sandbox{host}-{handle}"), "eth0")
    }

    fn add(&mut self, host: usize, handle: u8, fixed: Option<u8>) {
        match self.decide(host, handle, fixed, false) {
            Some(Ok(assignment)) => {
                self.write(host, &assignment.records);
                if let Some(before) = self.given.insert((host, handle), assignment.addr) {
                    assert_eq!(before, assignment.addr, "the same handle gets the same address");
                } else if let Some(fixed) = fixed {
                    assert_eq!(assignment.addr.0, Ipv4Addr::new(10, 0, 0, fixed));
                }
            }
            Some(Err(IpamError::Full { .. })) => self.assert_full(host),
            _ => {}
        }
    }

    /// With a current view, "full" is only said when no block is free and the own ones are held to the last address.
    fn assert_full(&self, host: usize) {
        if self.hosts.iter().any(|host| !host.inbox.is_empty()) {
            return;
        }
        assert_eq!(self.table.len(), 4 + 2, "every block is claimed");
        let own = self.table.values().filter(|owner| **owner == self.hosts[host].name).count();
        let held = self.given.keys().filter(|(at, _)| *at == host).count();
        assert_eq!(held, own * 2, "every own address is held");
    }

    fn del(&mut self, host: usize, handle: u8) {
        let key = self.handle(host, handle);
        let release = self.hosts[host].ipam.release(&key, self.now);
        self.write(host, &release.map(|release| release.records).unwrap_or_default());
        self.given.remove(&(host, handle));
    }

    fn give_back(&mut self, host: usize, crash: bool) {
        for cidr in self.hosts[host].ipam.surplus_blocks(self.now) {
            let Some(records) = self.hosts[host].ipam.give_up(cidr, self.now) else { continue };
            self.write(host, &records);
            if crash {
                return self.crash(host);
            }
            assert_eq!(
                self.table.remove(&cidr).as_ref(),
                Some(&self.hosts[host].name),
                "only own blocks are given back"
            );
            self.announce(cidr, None);
            self.hosts[host].ipam.block_deleted(cidr);
        }
    }

    fn happen(&mut self, host: usize, event: &Event) {
        match event {
            Event::Add { handle, fixed } => self.add(host, *handle, *fixed),
            Event::Del { handle } => self.del(host, *handle),
            Event::Crash => self.crash(host),
            Event::CrashInAdd { handle, keep } => {
                if let Some(Ok(assignment)) = self.decide(host, *handle, None, false)
                    && let [record] = &assignment.records[..]
                {
                    let line = record.to_line();
                    self.hosts[host].journal.push(line[..keep.index(line.len())].to_owned());
                }
                self.crash(host);
            }
            Event::CrashInClaim { handle } => {
                if let Some(decided) = self.decide(host, *handle, None, true) {
                    // The ADD needed no claim: it was written and not answered, and the runtime's DEL follows.
                    self.write(host, &decided.map(|assignment| assignment.records).unwrap_or_default());
                    if !self.given.contains_key(&(host, *handle)) {
                        self.del(host, *handle);
                    }
                }
                self.crash(host);
            }
            Event::GiveBack { crash } => self.give_back(host, *crash),
            Event::Watch { count } => {
                for _ in 0..*count {
                    if let Some(change) = self.hosts[host].inbox.pop_front() {
                        self.hosts[host].ipam.apply(&change);
                    }
                }
            }
            Event::Compact => {
                self.hosts[host].journal =
                    self.hosts[host].ipam.snapshot().iter().map(JournalRecord::to_line).collect();
            }
            Event::Wait { seconds } => self.now.0 += u64::from(*seconds) * 1000,
        }
        self.check();
    }

    /// What must hold at all times.
    fn check(&self) {
        let mut holders = BTreeMap::new();
        for (key, addr) in &self.given {
            let other = holders.insert(*addr, *key);
            assert_eq!(other, None, "{addr} was given twice");
            let owner = self.table.iter().find(|(cidr, _)| cidr.0.contains(&addr.0)).map(|(_, owner)| owner);
            assert_eq!(owner, Some(&self.hosts[key.0].name), "{addr} is of a block that the node owns");
        }
        for (index, host) in self.hosts.iter().enumerate() {
            let known: Vec<_> = host.ipam.holders().map(|(addr, holder)| (addr, holder.handle.clone())).collect();
            let told = self.given.iter().filter(|((at, _), _)| *at == index);
            let mut told: Vec<_> = told.map(|((_, handle), addr)| (*addr, self.handle(index, *handle))).collect();
            told.sort();
            assert_eq!(known, told, "the ledger of node{index} holds what was given, and nothing else");
        }
    }

    /// After every pod has gone and time has passed, nothing is held and each node keeps at most a block of each pool.
    fn end(mut self) {
        for (host, handle) in self.given.keys().copied().collect::<Vec<_>>() {
            self.del(host, handle);
        }
        self.now.0 += 60_000;
        for host in 0..NODES {
            self.crash(host);
            for cidr in self.hosts[host].ipam.strays().collect::<Vec<_>>() {
                assert!(self.create(host, cidr), "a stray is this node's");
                let records = self.hosts[host].ipam.block_claimed(cidr);
                self.write(host, &records);
            }
        }
        self.now.0 += 60_000;
        for host in 0..NODES {
            self.give_back(host, false);
            assert_eq!(self.hosts[host].ipam.holders().count(), 0);
            for pool in &self.pools {
                let owned = |(cidr, owner): &(&BlockCidr, &NodeName)| {
                    **owner == self.hosts[host].name && pool.cidr.contains(&cidr.0)
                };
                let left: Vec<_> = self.table.iter().filter(owned).map(|(cidr, _)| *cidr).collect();
                assert!(left.len() <= 1, "node{host} keeps {left:?}");
            }
        }
    }
}

fn events() -> impl Strategy<Value = (usize, Event)> {
    let handle = 0..6_u8;
    let event = prop_oneof![
        6 => (handle.clone(), proptest::option::weighted(0.2, 0..8_u8)).prop_map(|(handle, fixed)| Event::Add { handle, fixed }),
        4 => handle.clone().prop_map(|handle| Event::Del { handle }),
        1 => Just(Event::Crash),
        1 => (handle.clone(), any::<Index>()).prop_map(|(handle, keep)| Event::CrashInAdd { handle, keep }),
        1 => handle.prop_map(|handle| Event::CrashInClaim { handle }),
        2 => proptest::bool::weighted(0.3).prop_map(|crash| Event::GiveBack { crash }),
        3 => (1..9_u8).prop_map(|count| Event::Watch { count }),
        1 => Just(Event::Compact),
        2 => (1..40_u8).prop_map(|seconds| Event::Wait { seconds }),
    ];
    (0..NODES, event)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_interleaving_gives_an_address_twice_or_loses_one(events in collection::vec(events(), 0..120)) {
        let mut world = World::new();
        for (host, event) in &events {
            world.happen(*host, event);
        }
        world.end();
    }
}
