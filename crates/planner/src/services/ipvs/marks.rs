//! Packet marks: which frontend's virtual server for the inside is whose.
//!
//! A frontend's number is a hash of what it is, so that it is the same after a restart: a virtual server of another mark would not know
//! the connections of the one before.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use podnet_model::Protocol;

use crate::ruleset::FrontendKey;

/// What kube-proxy and kubelet use by default, `masqueradeBit` 14, and 15 for what is dropped; and the port mapping of CNI's plugins
/// (`markMasqBit` 13), whose rules would take a mark with that bit for theirs.
const USED: u32 = 0xe000;
/// The bit that attracts, and another one where that is the one for masquerading. The marks of well-known tunnels (WireGuard's 0xca6c among
/// them) do not have it.
const ATTRACTION: [u32; 2] = [0x1000, 0x0080];

/// The marks that are given.
#[derive(Debug)]
pub(super) struct Marks {
    attraction: u32,
    /// The bits that can be set.
    free: u32,
    by_frontend: HashMap<FrontendKey, u32>,
    taken: BTreeMap<u32, FrontendKey>,
}

impl Marks {
    /// That leave the bit for masquerading alone.
    pub(super) fn new(masquerade: u32) -> Self {
        let attraction = if masquerade == ATTRACTION[0] { ATTRACTION[1] } else { ATTRACTION[0] };
        let free = !(attraction | masquerade | USED);
        Self { attraction, free, by_frontend: HashMap::new(), taken: BTreeMap::new() }
    }

    pub(super) const fn attraction(&self) -> u32 {
        self.attraction
    }

    /// All bits that a mark may have.
    pub(super) const fn all(&self) -> u32 {
        self.attraction | self.free
    }

    /// The mark of a frontend, the same for as long as it is not forgotten.
    pub(super) fn of(&mut self, key: &FrontendKey) -> u32 {
        if let Some(mark) = self.by_frontend.get(key) {
            return *mark;
        }
        // The lowest bit says it of a mark whose frontend is forgotten, too.
        let mut number = number_of(key) << 1 | u32::from(key.protocol == Protocol::Udp);
        let mark = loop {
            let mark = self.mark(number);
            if !self.taken.contains_key(&mark) {
                break mark;
            }
            number = number.wrapping_add(2);
        };
        self.by_frontend.insert(*key, mark);
        self.taken.insert(mark, *key);
        mark
    }

    /// The frontend has none any more.
    pub(super) fn forget(&mut self, key: &FrontendKey) {
        if let Some(mark) = self.by_frontend.remove(key) {
            self.taken.remove(&mark);
        }
    }

    /// The frontend that a mark is for.
    pub(super) fn frontend(&self, mark: u32) -> Option<&FrontendKey> {
        self.taken.get(&mark)
    }

    /// Whether a mark is a frontend's of UDP, also of one that is gone.
    pub(super) const fn is_of_datagrams(&self, mark: u32) -> bool {
        mark & self.free & self.free.wrapping_neg() != 0
    }

    /// Puts the bits of a number into those that are free.
    fn mark(&self, number: u32) -> u32 {
        let (mut mark, mut left, mut free) = (self.attraction, number, self.free);
        while free != 0 {
            let lowest = free & free.wrapping_neg();
            if left & 1 == 1 {
                mark |= lowest;
            }
            left >>= 1;
            free ^= lowest;
        }
        mark
    }
}

/// FNV-1a of what the frontend is.
fn number_of(key: &FrontendKey) -> u32 {
    const BASIS: u32 = 0x811c_9dc5;
    const PRIME: u32 = 0x0100_0193;
    let addr = match key.addr {
        IpAddr::V4(addr) => addr.to_ipv6_mapped(),
        IpAddr::V6(addr) => addr,
    };
    let bytes = addr.octets().into_iter().chain(key.port.to_be_bytes()).chain([key.protocol as u8]);
    bytes.fold(BASIS, |number, byte| (number ^ u32::from(byte)).wrapping_mul(PRIME))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u32, protocol: Protocol) -> FrontendKey {
        FrontendKey { addr: IpAddr::from(number.to_be_bytes()), protocol, port: 80 }
    }

    #[test]
    fn ten_thousand_frontends_have_marks_of_their_own_which_leave_other_bits_alone() {
        for masquerade in [0x4000, 0x2000, 0x1000, 0x1, 0x8000_0000] {
            let mut marks = Marks::new(masquerade);
            assert_eq!(marks.attraction() & masquerade, 0);
            let mut all = std::collections::BTreeSet::new();
            for number in 0..10_000 {
                let protocol = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp][number as usize % 3];
                let mark = marks.of(&key(number, protocol));
                assert_eq!((mark & marks.attraction(), mark & (0xe000 | masquerade)), (marks.attraction(), 0));
                assert_eq!(marks.frontend(mark), Some(&key(number, protocol)));
                assert_eq!(marks.is_of_datagrams(mark), protocol == Protocol::Udp);
                assert_eq!(marks.of(&key(number, protocol)), mark);
                assert!(all.insert(mark), "{mark:#x} twice");
            }
        }
    }

    #[test]
    fn a_mark_is_the_same_after_a_restart_and_free_once_it_is_forgotten() {
        let (mut one, mut other) = (Marks::new(0x4000), Marks::new(0x4000));
        let marks: Vec<_> = (0..100).map(|number| one.of(&key(number, Protocol::Tcp))).collect();
        let again: Vec<_> = (0..100).rev().map(|number| other.of(&key(number, Protocol::Tcp))).collect();
        assert!(marks.iter().eq(again.iter().rev()));
        (0..100).for_each(|number| one.forget(&key(number, Protocol::Tcp)));
        assert!(one.taken.is_empty() && one.by_frontend.is_empty());
    }
}
