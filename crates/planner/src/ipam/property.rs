//! Several nodes, one table of claims, and everything that can come between: no address twice, none lost.

mod world;

use std::{collections::BTreeMap, sync::Arc};

use podnet_model::PodKey;
use proptest::{collection, prelude::*, sample::Index};

use super::*;
use world::{NODES, Owner, World};

/// Steps of one run; the runs together make more than 100,000.
const STEPS: std::ops::Range<usize> = 100..141;
const RUNS: u32 = 900;

/// What may happen to one of the nodes.
#[derive(Clone, Debug)]
enum Event {
    /// A pod's ADD of an address of each of these families, of any address or of one of the pool's.
    Add { handle: u8, families: &'static [Family], fixed: Option<u8>, owner: Owner },
    /// A pod's DEL.
    Del { handle: u8 },
    /// `kill -9` and restart.
    Crash,
    /// As before, in the middle of writing the last record of an ADD.
    CrashInAdd { handle: u8, families: &'static [Family], keep: Index },
    /// As before, between claiming a block at the API and writing that down.
    CrashInClaim { handle: u8, family: Family },
    /// Give all surplus blocks back; or crash before the API hears of it.
    GiveBack { crash: bool },
    /// Ask for the return of loans that nobody uses.
    GiveLoansBack,
    /// Answer what other nodes asked; or crash before the answer.
    Serve { crash: bool },
    /// Tell the API what is held.
    Publish,
    /// Some of the waiting watch events arrive.
    Watch { count: u8 },
    /// Write the journal anew.
    Compact,
    /// Time passes, in seconds.
    Wait { seconds: u8 },
}

impl World {
    /// The next decision that is no claim and no loan; none where the ADD fails. `stop` ends it after its first successful claim, before
    /// that is written down.
    fn decide(
        &mut self,
        host: usize,
        handle: u8,
        family: Family,
        fixed: Option<u8>,
        owner: Owner,
        stop: bool,
    ) -> Option<Result<Assignment, IpamError>> {
        let addrs = fixed.map(|last| address(family, last)).into_iter().collect();
        let wish = Wish { addrs, ..Wish::default() };
        for _ in 0..20 {
            let asked = AllocationRequest {
                handle: handle_of(host, handle),
                pod: PodKey::new("test", &format!("p{host}-{handle}")),
                uid: Arc::from("u"),
                wish: &wish,
            };
            match self.hosts[host].ipam.allocate(&asked, family, self.now) {
                Ok(Decision::Assigned(assignment)) => return Some(Ok(assignment)),
                Err(error) => return Some(Err(error)),
                Ok(Decision::Borrow(from)) => return self.borrow(host, &asked, &from, owner).map(Ok),
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

    /// An address of each family, or none at all: where one cannot be had, what was given for this ADD is freed.
    fn add(&mut self, host: usize, handle: u8, families: &[Family], fixed: Option<u8>, owner: Owner) {
        let mut anew = Vec::new();
        for family in families {
            match self.decide(host, handle, *family, fixed, owner, false) {
                Some(Ok(assignment)) => {
                    self.write(host, &assignment.records);
                    if let Some(before) = self.given.get(&(host, handle, *family)) {
                        assert_eq!(*before, assignment.addr, "the same handle gets the same address");
                        continue;
                    }
                    if let Some(last) = fixed {
                        assert_eq!(assignment.addr.0, address(*family, last));
                    }
                    anew.push((*family, assignment.addr));
                }
                failed => {
                    if let Some(Err(IpamError::Full { .. })) = failed {
                        self.assert_full(host, *family);
                    }
                    return anew.iter().for_each(|(family, _)| self.free(host, &handle_of(host, handle), *family));
                }
            }
        }
        self.given.extend(anew.into_iter().map(|(family, addr)| ((host, handle, family), addr)));
    }

    /// With a current view, "full" is only said when no block is free and the own ones are held to the last address.
    fn assert_full(&self, host: usize, family: Family) {
        if !self.is_current() {
            return;
        }
        let all: Vec<_> = self.table.iter().filter(|(cidr, _)| cidr.family() == family).collect();
        let places = if family == Family::V4 { 4 + 2 } else { 4 };
        assert_eq!(all.len(), places, "every block is claimed");
        let own: Vec<_> = all.iter().filter(|(_, object)| object.owner == self.hosts[host].name).collect();
        let is_own = |addr: &PodAddr| own.iter().any(|(cidr, _)| cidr.0.contains(&addr.0));
        let held = self.hosts[host].ipam.holders().filter(|(addr, _)| is_own(addr)).count();
        assert_eq!(held, own.len() * 2, "every own address is held");
    }

    fn del(&mut self, host: usize, handle: u8) {
        for release in self.hosts[host].ipam.release(&handle_of(host, handle), self.now) {
            self.write(host, &release.records);
        }
        self.given.retain(|(at, of, _), _| (*at, *of) != (host, handle));
    }

    /// `kill -9` in the middle of writing the last record of an ADD; the restarted agent frees what has no interface.
    fn crash_in_add(&mut self, host: usize, handle: u8, families: &[Family], keep: Index) {
        for (place, family) in families.iter().enumerate() {
            let decided = self.decide(host, handle, *family, None, Owner::Answers, false);
            let Some(Ok(Assignment { records, .. })) = decided else { break };
            match &records[..] {
                [record] if place + 1 == families.len() => self.write_torn(host, record, |length| keep.index(length)),
                records => self.write(host, records),
            }
        }
        self.crash(host);
        self.adopt_loans(host);
        for family in Family::ALL {
            if self.given.contains_key(&(host, handle, family)) {
                continue;
            }
            self.free(host, &handle_of(host, handle), family);
        }
    }

    fn crash_in_claim(&mut self, host: usize, handle: u8, family: Family) {
        if let Some(decided) = self.decide(host, handle, family, None, Owner::Silent, true) {
            // The ADD needed no claim: it was written and not answered, and the runtime's DEL follows.
            self.write(host, &decided.map(|assignment| assignment.records).unwrap_or_default());
            if !self.given.contains_key(&(host, handle, family)) {
                self.free(host, &handle_of(host, handle), family);
            }
        }
        self.crash(host);
    }

    fn give_back(&mut self, host: usize, crash: bool) {
        for cidr in self.hosts[host].ipam.surplus_blocks(self.now) {
            let Some(records) = self.hosts[host].ipam.give_up(cidr, self.now) else { continue };
            self.write(host, &records);
            if crash {
                return self.crash(host);
            }
            self.delete(host, cidr);
        }
    }

    fn happen(&mut self, host: usize, event: &Event) {
        match event {
            Event::Add { handle, families, fixed, owner } => self.add(host, *handle, families, *fixed, *owner),
            Event::Del { handle } => self.del(host, *handle),
            Event::Crash => self.crash(host),
            Event::CrashInAdd { handle, families, keep } => self.crash_in_add(host, *handle, families, *keep),
            Event::CrashInClaim { handle, family } => self.crash_in_claim(host, *handle, *family),
            Event::GiveBack { crash } => self.give_back(host, *crash),
            Event::GiveLoansBack => self.give_loans_back(host),
            Event::Serve { crash } => self.serve(host, *crash),
            Event::Publish => self.publish(host),
            Event::Watch { count } => self.watch(host, (*count).into()),
            Event::Compact => self.compact(host),
            Event::Wait { seconds } => self.now.0 += u64::from(*seconds) * 1000,
        }
        self.check();
    }

    /// What must hold at all times.
    fn check(&self) {
        let mut holders = BTreeMap::new();
        for ((host, handle, _), addr) in &self.given {
            let other = holders.insert(*addr, (host, handle));
            assert_eq!(other, None, "{addr} was given twice");
            let block = self.table.iter().find(|(cidr, _)| cidr.0.contains(&addr.0));
            let owner = block.map(|(_, object)| object.owner.clone()).expect("its block is somebody's");
            let owner = self.hosts.iter().find(|host| host.name == owner).unwrap();
            let holder = owner.ipam.holder(*addr).map(|holder| (holder.handle.clone(), holder.node.clone()));
            let borrower = &self.hosts[*host].name;
            let node = Some(borrower.clone()).filter(|borrower| *borrower != owner.name);
            assert_eq!(holder, Some((handle_of(*host, *handle), node)), "{addr}: its block's owner knows who has it");
        }
        for (index, host) in self.hosts.iter().enumerate() {
            let own = host.ipam.holders().filter(|(_, holder)| holder.node.is_none());
            let known: Vec<_> = own.map(|(addr, holder)| (addr, holder.handle.clone())).collect();
            let told = self.given.iter().filter(|((at, ..), _)| *at == index);
            let mut told: Vec<_> = told.map(|((_, handle, _), addr)| (*addr, handle_of(index, *handle))).collect();
            told.sort();
            assert_eq!(known, told, "the ledger of node{index} holds what was given, and nothing else");
        }
    }

    /// After every pod has gone and time has passed, nothing is held and each node keeps at most a block of each pool.
    fn end(mut self) {
        for (host, handle, _) in self.given.keys().copied().collect::<Vec<_>>() {
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
        // Loans: the owners answer what waited, say what they lent, hear that nobody uses it, and say so.
        for round in 0..2 {
            (0..NODES).for_each(|host| self.serve(host, false));
            (0..NODES).for_each(|host| self.publish(host));
            (0..NODES).for_each(|host| self.watch(host, usize::MAX));
            (0..NODES).for_each(|host| assert!(round == 0 || self.hosts[host].ipam.unused_loans().is_empty()));
            (0..NODES).for_each(|host| self.give_loans_back(host));
        }
        self.now.0 += 60_000;
        for host in 0..NODES {
            self.give_back(host, false);
            assert_eq!(self.hosts[host].ipam.holders().count(), 0);
            for pool in &self.pools {
                let owned = self
                    .table
                    .iter()
                    .filter(|(cidr, object)| object.owner == self.hosts[host].name && pool.cidr.contains(&cidr.0));
                let left: Vec<_> = owned.map(|(cidr, _)| *cidr).collect();
                assert!(left.len() <= 1, "node{host} keeps {left:?}");
            }
        }
    }
}

/// An address of the pool `a` or `six`.
fn address(family: Family, last: u8) -> IpAddr {
    match family {
        Family::V4 => [10, 0, 0, last].into(),
        Family::V6 => [0xfd00, 0, 0, 0, 0, 0, 0, last.into()].into(),
    }
}

fn handle_of(host: usize, handle: u8) -> Handle {
    Handle::new(&format!("sandbox{host}-{handle}"), "eth0")
}

fn events() -> impl Strategy<Value = (usize, Event)> {
    let handle = 0..6_u8;
    let owner = prop_oneof![4 => Just(Owner::Answers), 1 => Just(Owner::Silent), 1 => Just(Owner::Dies)];
    let family = prop_oneof![Just(Family::V4), Just(Family::V6)];
    let families = prop_oneof![3 => Just(&[Family::V4][..]), 1 => Just(&[Family::V6][..]), 3 => Just(&Family::ALL[..])];
    let add = (handle.clone(), families.clone(), proptest::option::weighted(0.4, 0..6_u8), owner);
    let event = prop_oneof![
        8 => add.prop_map(|(handle, families, fixed, owner)| Event::Add { handle, families, fixed, owner }),
        6 => handle.clone().prop_map(|handle| Event::Del { handle }),
        1 => Just(Event::Crash),
        1 => (handle.clone(), families, any::<Index>())
            .prop_map(|(handle, families, keep)| Event::CrashInAdd { handle, families, keep }),
        1 => (handle, family).prop_map(|(handle, family)| Event::CrashInClaim { handle, family }),
        2 => proptest::bool::weighted(0.3).prop_map(|crash| Event::GiveBack { crash }),
        4 => Just(Event::GiveLoansBack),
        2 => proptest::bool::weighted(0.2).prop_map(|crash| Event::Serve { crash }),
        2 => Just(Event::Publish),
        3 => (1..5_u8).prop_map(|count| Event::Watch { count }),
        1 => Just(Event::Compact),
        2 => (1..40_u8).prop_map(|seconds| Event::Wait { seconds }),
    ];
    (0..NODES, event)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(RUNS))]

    #[test]
    fn no_interleaving_gives_an_address_twice_or_loses_one(events in collection::vec(events(), STEPS)) {
        let mut world = World::new();
        for (host, event) in &events {
            world.happen(*host, event);
        }
        world.end();
    }
}
