//! Which blocks the node claims and gives up.

use std::net::IpAddr;

use ipnet::IpNet;
use podnet_model::{BlockCidr, Family, NodeName, Pool};

use super::{ClaimCandidate, IpamError, JournalRecord, Known, Moment, NodeIpam, ledger, places::Places};

/// Whether a range is no larger than the largest block that a pool may ask for (Calico: /20 to /32, and /116 to /128).
pub(super) fn is_block(range: &IpNet) -> bool {
    match range {
        IpNet::V4(range) => range.prefix_len() >= 20,
        IpNet::V6(range) => range.prefix_len() >= 116,
    }
}

impl NodeIpam {
    /// The caller created the block's object, or found that the one there names this node as its owner. The records belong in
    /// the journal before an address is given.
    pub fn block_claimed(&mut self, block: BlockCidr) -> Vec<JournalRecord> {
        let cidr = block.0;
        self.leaving.remove(&cidr);
        self.known.entry(cidr).or_default().owner = Some(self.node.clone());
        if self.ledger.own.contains(&cidr) {
            return Vec::new();
        }
        let record = JournalRecord::Claimed { block: cidr };
        self.ledger.record(&record);
        vec![record]
    }

    /// The block's object was there already and names another owner, or none because it is being deleted.
    pub fn block_lost(&mut self, block: BlockCidr, owner: Option<NodeName>) {
        self.known.entry(block.0).or_default().owner = owner;
    }

    /// This node's blocks.
    pub fn blocks(&self) -> impl Iterator<Item = BlockCidr> {
        self.ledger.own.iter().map(|cidr| BlockCidr(*cidr))
    }

    /// Blocks of this node that the API says are another's: they keep their pods and give no more addresses.
    pub fn disputed(&self) -> impl Iterator<Item = (BlockCidr, Option<&NodeName>)> {
        let owners = self.ledger.own.iter().filter_map(|cidr| Some((*cidr, self.known.get(cidr)?.owner.as_ref())));
        owners.filter(|(_, owner)| *owner != Some(&self.node)).map(|(cidr, owner)| (BlockCidr(cidr), owner))
    }

    /// Blocks that the API says are this node's and the journal does not know: a crash came between the two. Nothing was given
    /// from them, unless the journal was lost (see [`NodeIpam::adopt`]). Where the API still says so, answer
    /// [`NodeIpam::block_claimed`]; those that are not needed are then surplus.
    pub fn strays(&self) -> impl Iterator<Item = BlockCidr> {
        let ours =
            self.known.iter().filter(|(_, known)| known.owner.as_ref() == Some(&self.node)).map(|(cidr, _)| cidr);
        let strays = ours.filter(|cidr| !self.ledger.own.contains(cidr) && !self.leaving.contains(cidr));
        strays.copied().filter(is_block).map(BlockCidr)
    }

    /// Blocks that the API says are this node's or lend it an address.
    #[must_use]
    pub fn concerned(&self) -> Vec<BlockCidr> {
        let here = |known: &Known| {
            known.owner.as_ref() == Some(&self.node) || known.loans.iter().any(|loan| loan.node == self.node)
        };
        let blocks = self.known.iter().filter(|(_, known)| here(known)).map(|(cidr, _)| BlockCidr(*cidr));
        blocks.collect()
    }

    /// Blocks of nodes that the cluster does not have. Sure they are gone only the API server knows; see [`NodeIpam::reclaims`].
    #[must_use]
    pub fn abandoned(&self) -> Vec<BlockCidr> {
        let gone = |known: &Known| known.owner.as_ref().is_some_and(|owner| !self.nodes.contains(owner));
        let blocks = self.known.iter().filter(|(_, known)| gone(known)).map(|(cidr, _)| BlockCidr(*cidr));
        blocks.collect()
    }

    /// Whether this node should take away now what is abandoned since so many looks. One node is enough: the first by name has the
    /// first turn, and as it may be down or without podnet, the next one has the next, and so on in circles.
    #[must_use]
    pub fn reclaims(&self, looks: usize) -> bool {
        let place = self.nodes.iter().position(|node| *node == self.node);
        place.is_some_and(|place| looks % self.nodes.len() == place)
    }

    /// Own blocks that can be given back: nobody holds an address, none rests, and either another own block of the pool has
    /// room, so that the next pod need not claim it again, or the pool gives this node no addresses any more.
    #[must_use]
    pub fn surplus_blocks(&self, now: Moment) -> Vec<BlockCidr> {
        let mut kept = self.ledger.own.clone();
        let mut surplus = Vec::new();
        let ours = |block: &IpNet| self.known.get(block).is_none_or(|known| known.owner.as_ref() == Some(&self.node));
        for block in self.ledger.own.iter().rev().filter(|block| ours(block) && self.is_idle(**block, now)) {
            let pool = self.pool_around(*block).filter(|pool| self.serves(pool));
            let has_room = |other: &IpNet| other != block && self.has_room(*other);
            let spare = pool.is_none_or(|pool| kept.iter().any(|other| pool.cidr.contains(other) && has_room(other)));
            if spare {
                kept.remove(block);
                surplus.push(BlockCidr(*block));
            }
        }
        surplus
    }

    /// Takes an idle block out of use; no address is given from it from now on. The records belong in the journal before the
    /// block's object is deleted; once it is, say so with [`NodeIpam::block_deleted`]. Nothing is done for a block that is in
    /// use again or not this node's, and the answer is none.
    pub fn give_up(&mut self, block: BlockCidr, now: Moment) -> Option<Vec<JournalRecord>> {
        let cidr = block.0;
        if !self.ledger.own.contains(&cidr) || !self.is_idle(cidr, now) {
            return None;
        }
        let record = JournalRecord::Unclaimed { block: cidr };
        self.ledger.record(&record);
        self.leaving.insert(cidr);
        Some(vec![record])
    }

    /// Blocks that were given up and whose object may still be there: to be deleted, also after an attempt that failed.
    pub fn leaving(&self) -> impl Iterator<Item = BlockCidr> {
        self.leaving.iter().map(|cidr| BlockCidr(*cidr))
    }

    /// The object of a block that was given up is deleted.
    pub fn block_deleted(&mut self, block: BlockCidr) {
        self.take_block(block.0, None);
    }

    /// What the API says of a block: not there, or there with its owner.
    pub(super) fn take_block(&mut self, cidr: IpNet, found: Option<Known>) {
        match found {
            Some(known) => {
                if known.owner.as_ref().is_some_and(|owner| *owner != self.node) {
                    self.leaving.remove(&cidr);
                }
                self.known.insert(cidr, known);
            }
            // The object of an own block vanished, or an old event comes late: the block is this node's until it gives it up.
            None if self.ledger.own.contains(&cidr) => {
                drop(self.known.insert(cidr, Known::of(Some(self.node.clone()))));
            }
            None => {
                self.leaving.remove(&cidr);
                self.known.remove(&cidr);
            }
        }
    }

    /// What it takes to give exactly this address: nothing, or a block to claim.
    pub(super) fn room_for(&self, addr: IpAddr) -> Result<Option<ClaimCandidate>, IpamError> {
        let host = IpNet::from(addr);
        let pool =
            self.pool_around(host).ok_or_else(|| IpamError::OutsidePools { addr, pools: self.describe_pools() })?;
        if pool.disabled {
            return Err(IpamError::DisabledPool { pool: pool.name.clone() });
        }
        self.ensure_unheld(addr)?;
        let candidate = |block: IpNet| ClaimCandidate { cidr: BlockCidr(block), pool: pool.name.clone() };
        let Some(found) = self.overlapping(host) else {
            let block = IpNet::new(addr, pool.block_size).map_or(host, |block| block.trunc());
            return match self.overlapping(block) {
                Some(other) => Err(IpamError::BlockInTheWay { addr, block, other }),
                None if !self.may_claim(Family::of(&addr)) => {
                    Err(IpamError::BlockLimit { addr, block, own: self.own_or_stray(Family::of(&addr)) })
                }
                None => Ok(Some(candidate(block))),
            };
        };
        match self.owner_of(found) {
            Some(owner) if *owner != self.node => {
                Err(IpamError::OwnedElsewhere { addr, block: found, owner: owner.clone() })
            }
            Some(_) if self.ledger.own.contains(&found) => Ok(None),
            Some(_) if !self.leaving.contains(&found) => Ok(Some(candidate(found))),
            _ => Err(IpamError::BlockLeaving { addr, block: found }),
        }
    }

    /// A block of the pool that this node should claim.
    ///
    /// The nodes' places in the order of names spread them over the pool: of n nodes the i-th tries i, i + n, i + 2n, …, each
    /// the next one that is free. So nodes that start together do not race for the same block, and a small cluster
    /// uses the low end of the pool.
    pub(super) fn candidate(&self, pool: &Pool) -> Option<BlockCidr> {
        let range = pool.cidr;
        if let Some(stray) = self.strays().find(|stray| range.contains(&stray.0)) {
            return Some(stray);
        }
        if !self.may_claim(Family::of_net(&range)) {
            return None;
        }
        let places = Places::of(range, pool.block_size)?;
        // In its own part of flannel's range there is nobody else.
        let others = self.nodes.iter().filter(|node| **node != self.node && !self.is_part(pool));
        let (before, all) =
            others.fold((0, 1), |(before, all), node| (before + u128::from(*node < self.node), all + 1));
        let own = self.ledger.own.iter().filter(|block| range.contains(*block)).count() as u128;
        let start = (before + own * all) % places.total;
        self.first_free(&places, start, places.total).or_else(|| self.first_free(&places, 0, start))
    }

    /// The first block at a place in `from..to` that nothing is in the way of. What is in the way is stepped over as a whole: an IPv6
    /// pool has more blocks than anybody could look at.
    fn first_free(&self, places: &Places, from: u128, to: u128) -> Option<BlockCidr> {
        let mut place = from;
        while place < to {
            let block = places.block(place)?;
            match self.overlapping(block).or_else(|| self.reserved_around(block)) {
                Some(obstacle) => place = places.of_addr(obstacle.broadcast())?.max(place) + 1,
                None if self.is_all_reserved(block) => place += 1,
                None => return Some(BlockCidr(block)),
            }
        }
        None
    }

    /// A known block that shares addresses with `block`.
    fn overlapping(&self, block: IpNet) -> Option<IpNet> {
        let prefixes = (0..=block.prefix_len()).rev();
        let mut around = prefixes.filter_map(|prefix| IpNet::new(block.network(), prefix).ok()).map(|net| net.trunc());
        around.find(|around| self.known.contains_key(around)).or_else(|| {
            let (inside, _) = self.known.range(block..=IpNet::from(block.broadcast())).next()?;
            Some(*inside)
        })
    }

    fn reserved_around(&self, block: IpNet) -> Option<IpNet> {
        self.reserved.values().flatten().find(|range| range.contains(&block)).copied()
    }

    /// Nobody on this node has the address.
    pub(super) fn ensure_unheld(&self, addr: IpAddr) -> Result<(), IpamError> {
        match self.ledger.held.get(&addr) {
            Some(holder) => Err(IpamError::Held { addr, pod: holder.pod.clone() }),
            None => Ok(()),
        }
    }

    /// Whether this node may have one more block of a family; the limit is for each, as Calico's is. Strays count: they are this
    /// node's already.
    fn may_claim(&self, family: Family) -> bool {
        self.settings.max_blocks_per_host.is_none_or(|most| self.own_or_stray(family) < most)
    }

    fn own_or_stray(&self, family: Family) -> usize {
        self.blocks().chain(self.strays()).filter(|block| block.family() == family).count()
    }

    /// Whether only pods that ask for this address get it.
    pub(super) fn is_reserved(&self, addr: IpAddr) -> bool {
        self.reserved.values().flatten().any(|range| range.contains(&addr)) || self.sticky.touches(addr.into())
    }

    fn is_all_reserved(&self, block: IpNet) -> bool {
        let touched = self.reserved.values().flatten().any(|range| range.contains(&block) || block.contains(range))
            || self.sticky.touches(block);
        touched && ledger::addresses(block).all(|addr| self.is_reserved(addr))
    }

    /// Whether a pod that asks for no address of its own can get one of this block.
    fn has_room(&self, block: IpNet) -> bool {
        let taken = |addr: &IpAddr| self.ledger.held.contains_key(addr) || self.is_reserved(*addr);
        ledger::addresses(block).any(|addr| !taken(&addr))
    }

    /// Nobody holds an address of the block and none rests.
    fn is_idle(&self, block: IpNet, now: Moment) -> bool {
        let rested = |(_, since): (IpAddr, Moment)| now.since(since) >= self.config.cool_down;
        self.ledger.held_in(block).next().is_none() && self.ledger.resting_in(block).all(rested)
    }

    pub(super) fn full(&self, pools: &[Pool]) -> IpamError {
        let inside = |cidr: &IpNet| pools.iter().any(|pool| pool.cidr.contains(cidr));
        let own: Vec<_> = self.ledger.own.iter().filter(|cidr| inside(cidr)).collect();
        let is_limited = pools.first().is_some_and(|pool| !self.may_claim(Family::of_net(&pool.cidr)));
        let taken = self.known.keys().filter(|cidr| inside(cidr)).count();
        IpamError::Full {
            pools: pools.iter().map(|pool| format!("{} ({})", pool.name, pool.cidr)).collect::<Vec<_>>().join(", "),
            node: self.node.clone(),
            own: own.len(),
            held: own.iter().map(|cidr| self.ledger.held_in(**cidr).count()).sum(),
            size: own.iter().map(|cidr| BlockCidr(**cidr).size()).sum(),
            others: taken.saturating_sub(own.len()),
            strict: self.settings.strict_affinity,
            limit: self.settings.max_blocks_per_host.filter(|_| is_limited),
        }
    }
}
