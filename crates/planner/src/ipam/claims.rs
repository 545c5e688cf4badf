//! Which pools a pod draws from, and which blocks the node claims and gives up.

use std::net::Ipv4Addr;

use ipnet::{IpNet, Ipv4Net};
use podnet_model::{BlockCidr, NodeName, Pool};

use super::{ClaimCandidate, IpamError, JournalRecord, Known, Moment, NodeIpam, PoolSource, Wish, ledger};

/// The prefix length of the largest block that a pool may ask for (Calico: 20 to 32).
pub(super) const LARGEST_BLOCK: u8 = 20;

impl NodeIpam {
    /// The caller created the block's object, or found that the one there names this node as its owner. The records belong in
    /// the journal before an address is given.
    pub fn block_claimed(&mut self, block: BlockCidr) -> Vec<JournalRecord> {
        let IpNet::V4(cidr) = block.0 else { return Vec::new() };
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
        if let IpNet::V4(cidr) = block.0 {
            self.known.entry(cidr).or_default().owner = owner;
        }
    }

    /// This node's blocks.
    pub fn blocks(&self) -> impl Iterator<Item = BlockCidr> {
        self.ledger.own.iter().map(|cidr| BlockCidr((*cidr).into()))
    }

    /// Blocks of this node that the API says are another's: they keep their pods and give no more addresses.
    pub fn disputed(&self) -> impl Iterator<Item = (BlockCidr, Option<&NodeName>)> {
        let owners = self.ledger.own.iter().filter_map(|cidr| Some((*cidr, self.known.get(cidr)?.owner.as_ref())));
        owners.filter(|(_, owner)| *owner != Some(&self.node)).map(|(cidr, owner)| (BlockCidr(cidr.into()), owner))
    }

    /// Blocks that the API says are this node's and the journal does not know: a crash came between the two. Nothing was given
    /// from them, unless the journal was lost (see [`NodeIpam::adopt`]). Where the API still says so, answer
    /// [`NodeIpam::block_claimed`]; those that are not needed are then surplus.
    pub fn strays(&self) -> impl Iterator<Item = BlockCidr> {
        let ours =
            self.known.iter().filter(|(_, known)| known.owner.as_ref() == Some(&self.node)).map(|(cidr, _)| cidr);
        let strays = ours.filter(|cidr| !self.ledger.own.contains(cidr) && !self.leaving.contains(cidr));
        strays.filter(|cidr| cidr.prefix_len() >= LARGEST_BLOCK).map(|cidr| BlockCidr((*cidr).into()))
    }

    /// Blocks of nodes that the cluster does not have. Sure they are gone only the API server knows; see [`NodeIpam::reclaims`].
    #[must_use]
    pub fn abandoned(&self) -> Vec<BlockCidr> {
        let gone = |known: &Known| known.owner.as_ref().is_some_and(|owner| !self.nodes.contains(owner));
        let blocks = self.known.iter().filter(|(_, known)| gone(known)).map(|(cidr, _)| BlockCidr((*cidr).into()));
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
        let ours = |block: &Ipv4Net| self.known.get(block).is_none_or(|known| known.owner.as_ref() == Some(&self.node));
        for block in self.ledger.own.iter().rev().filter(|block| ours(block) && self.is_idle(**block, now)) {
            let pool = self.pool_around(*block).filter(|(pool, _)| self.serves(pool));
            let has_room = |other: &Ipv4Net| other != block && self.has_room(*other);
            let spare = pool.is_none_or(|(_, range)| kept.iter().any(|other| range.contains(other) && has_room(other)));
            if spare {
                kept.remove(block);
                surplus.push(BlockCidr((*block).into()));
            }
        }
        surplus
    }

    /// Takes an idle block out of use; no address is given from it from now on. The records belong in the journal before the
    /// block's object is deleted; once it is, say so with [`NodeIpam::block_deleted`]. Nothing is done for a block that is in
    /// use again or not this node's, and the answer is none.
    pub fn give_up(&mut self, block: BlockCidr, now: Moment) -> Option<Vec<JournalRecord>> {
        let IpNet::V4(cidr) = block.0 else { return None };
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
        self.leaving.iter().map(|cidr| BlockCidr((*cidr).into()))
    }

    /// The object of a block that was given up is deleted.
    pub fn block_deleted(&mut self, block: BlockCidr) {
        if let IpNet::V4(cidr) = block.0 {
            self.take_block(cidr, None);
        }
    }

    /// What the API says of a block: not there, or there with its owner.
    pub(super) fn take_block(&mut self, cidr: Ipv4Net, found: Option<Known>) {
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

    /// The pools for a wish, in order of preference: those it names, otherwise all that serve this node and select the pod's
    /// namespace, by name.
    pub(super) fn pools_for(&self, wish: &Wish) -> Result<Vec<(Pool, Ipv4Net)>, IpamError> {
        if let Some(list) = &wish.pools {
            return list.names.iter().map(|name| self.named_pool(name, &list.source)).collect();
        }
        let selects = |pool: &&Pool| self.serves(pool) && pool.namespace_selector.matches(&wish.namespace_labels);
        let part = self.pools.values().find(|pool| self.is_part(pool));
        let serving = self.pools.values().filter(selects).filter(|pool| part.is_none_or(|part| part.name == pool.name));
        let pools: Vec<_> = serving.filter_map(|pool| Some((pool.clone(), v4(pool.cidr)?))).collect();
        if pools.is_empty() {
            let reason = |pool: &Pool| match (pool.cidr, pool.disabled) {
                (IpNet::V6(_), _) => format!("{} is of IPv6", pool.name),
                (_, true) => format!("{} is disabled", pool.name),
                _ if pool.manual => format!("{} is for pods that name it", pool.name),
                _ if self.serves(pool) => format!("{} selects namespaces {}", pool.name, pool.namespace_selector),
                _ => format!("{} selects nodes {}", pool.name, pool.node_selector),
            };
            let reasons: Vec<_> = self.pools.values().map(reason).collect();
            let reasons = if reasons.is_empty() { "there is none".to_owned() } else { reasons.join(", ") };
            return Err(IpamError::NoPool { node: self.node.clone(), reasons });
        }
        Ok(pools)
    }

    /// A pool that a pod asks for by name or range. It need not select this node: who names a pool overrides the selection.
    fn named_pool(&self, name: &str, source: &PoolSource) -> Result<(Pool, Ipv4Net), IpamError> {
        let by_cidr = || self.pools.values().find(|pool| name.parse() == Ok(pool.cidr));
        let pool = self.pools.get(&name.into()).or_else(by_cidr);
        let pool = pool.ok_or_else(|| IpamError::UnknownPool {
            name: name.to_owned(),
            from: source.clone(),
            pools: self.describe_pools(),
        })?;
        let range = v4(pool.cidr).ok_or_else(|| IpamError::WrongFamily {
            pool: pool.name.clone(),
            cidr: pool.cidr,
            from: source.clone(),
        })?;
        if pool.disabled {
            return Err(IpamError::DisabledPool { pool: pool.name.clone() });
        }
        Ok((pool.clone(), range))
    }

    /// What it takes to give exactly this address: nothing, or a block to claim.
    pub(super) fn room_for(&self, addr: Ipv4Addr) -> Result<Option<ClaimCandidate>, IpamError> {
        let host = Ipv4Net::from(addr);
        let (pool, _) =
            self.pool_around(host).ok_or_else(|| IpamError::OutsidePools { addr, pools: self.describe_pools() })?;
        if pool.disabled {
            return Err(IpamError::DisabledPool { pool: pool.name.clone() });
        }
        self.ensure_unheld(addr)?;
        let candidate = |block: Ipv4Net| ClaimCandidate { cidr: BlockCidr(block.into()), pool: pool.name.clone() };
        let Some(found) = self.overlapping(host) else {
            let block = Ipv4Net::new(addr, pool.block_size).map_or(host, |block| block.trunc());
            return match self.overlapping(block) {
                Some(other) => Err(IpamError::BlockInTheWay { addr, block, other }),
                None if !self.may_claim() => Err(IpamError::BlockLimit { addr, block, own: self.own_or_stray() }),
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
    pub(super) fn candidate(&self, pool: &Pool, range: Ipv4Net) -> Option<BlockCidr> {
        if let Some(stray) = self.strays().find(|stray| IpNet::V4(range).contains(&stray.0)) {
            return Some(stray);
        }
        if !self.may_claim() {
            return None;
        }
        let total = 1_u64.checked_shl(u32::from(pool.block_size.checked_sub(range.prefix_len())?))?;
        let others = self.nodes.iter().filter(|node| **node != self.node);
        let (before, all) = others.fold((0, 1), |(before, all), node| (before + u64::from(*node < self.node), all + 1));
        let own = self.ledger.own.iter().filter(|block| range.contains(*block)).count() as u64;
        let start = (before + own * all) % total;
        let block = |index: u64| {
            let offset = u32::try_from(index << 32_u8.saturating_sub(pool.block_size)).ok()?;
            Ipv4Net::new(Ipv4Addr::from(u32::from(range.network()).checked_add(offset)?), pool.block_size).ok()
        };
        let mut around = (start..total).chain(0..start).filter_map(block);
        around
            .find(|block| self.overlapping(*block).is_none() && !self.is_all_reserved(*block))
            .map(|block| BlockCidr(block.into()))
    }

    /// A known block that shares addresses with `block`.
    fn overlapping(&self, block: Ipv4Net) -> Option<Ipv4Net> {
        let prefixes = (0..=block.prefix_len()).rev();
        let mut around =
            prefixes.filter_map(|prefix| Ipv4Net::new(block.network(), prefix).ok()).map(|net| net.trunc());
        around.find(|around| self.known.contains_key(around)).or_else(|| {
            let (inside, _) = self.known.range(block..=Ipv4Net::from(block.broadcast())).next()?;
            Some(*inside)
        })
    }

    /// Whether pods of this node get addresses of the pool without naming it.
    fn serves(&self, pool: &Pool) -> bool {
        !pool.disabled && !pool.manual && pool.node_selector.matches(&self.labels)
    }

    /// Nobody on this node has the address.
    pub(super) fn ensure_unheld(&self, addr: Ipv4Addr) -> Result<(), IpamError> {
        match self.ledger.held.get(&addr) {
            Some(holder) => Err(IpamError::Held { addr, pod: holder.pod.clone() }),
            None => Ok(()),
        }
    }

    /// Whether this node may have one more block. Strays count: they are this node's already.
    fn may_claim(&self) -> bool {
        self.settings.max_blocks_per_host.is_none_or(|most| self.own_or_stray() < most)
    }

    fn own_or_stray(&self) -> usize {
        self.ledger.own.len() + self.strays().count()
    }

    /// Whether only pods that ask for this address get it.
    pub(super) fn is_reserved(&self, addr: Ipv4Addr) -> bool {
        self.reserved.values().flatten().any(|range| range.contains(&addr)) || self.sticky.touches(addr.into())
    }

    fn is_all_reserved(&self, block: Ipv4Net) -> bool {
        let touched = self.reserved.values().flatten().any(|range| range.contains(&block) || block.contains(range))
            || self.sticky.touches(block);
        touched && ledger::addresses(block).all(|addr| self.is_reserved(addr))
    }

    /// Whether a pod that asks for no address of its own can get one of this block.
    fn has_room(&self, block: Ipv4Net) -> bool {
        let taken = |addr: &Ipv4Addr| self.ledger.held.contains_key(addr) || self.is_reserved(*addr);
        ledger::addresses(block).any(|addr| !taken(&addr))
    }

    /// The smallest pool around a range; of equal ones the first by name.
    pub(super) fn pool_around(&self, range: Ipv4Net) -> Option<(&Pool, Ipv4Net)> {
        let pools = self.pools.values().filter_map(|pool| Some((pool, v4(pool.cidr)?)));
        let around = pools.filter(|(_, cidr)| cidr.contains(&range));
        around.min_by_key(|(pool, cidr)| (u8::MAX - cidr.prefix_len(), &pool.name))
    }

    /// Nobody holds an address of the block and none rests.
    fn is_idle(&self, block: Ipv4Net, now: Moment) -> bool {
        let rested = |(_, since): (Ipv4Addr, Moment)| now.since(since) >= self.config.cool_down;
        self.ledger.held_in(block).next().is_none() && self.ledger.resting_in(block).all(rested)
    }

    pub(super) fn full(&self, pools: &[(Pool, Ipv4Net)]) -> IpamError {
        let inside = |cidr: &Ipv4Net| pools.iter().any(|(_, range)| range.contains(cidr));
        let own: Vec<_> = self.ledger.own.iter().filter(|cidr| inside(cidr)).collect();
        let taken = self.known.keys().filter(|cidr| inside(cidr)).count();
        IpamError::Full {
            pools: pools
                .iter()
                .map(|(pool, _)| format!("{} ({})", pool.name, pool.cidr))
                .collect::<Vec<_>>()
                .join(", "),
            node: self.node.clone(),
            own: own.len(),
            held: own.iter().map(|cidr| self.ledger.held_in(**cidr).count()).sum(),
            size: own.iter().map(|cidr| ledger::size(**cidr)).sum(),
            others: taken.saturating_sub(own.len()),
            strict: self.settings.strict_affinity,
            limit: self.settings.max_blocks_per_host.filter(|_| !self.may_claim()),
        }
    }

    fn describe_pools(&self) -> String {
        let pools: Vec<_> = self.pools.values().map(|pool| format!("{} ({})", pool.name, pool.cidr)).collect();
        if pools.is_empty() { "none".to_owned() } else { pools.join(", ") }
    }
}

pub(super) fn v4(cidr: IpNet) -> Option<Ipv4Net> {
    match cidr {
        IpNet::V4(cidr) => Some(cidr.trunc()),
        IpNet::V6(_) => None,
    }
}
