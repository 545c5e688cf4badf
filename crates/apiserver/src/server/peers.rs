//! Who is connected without a certificate: anybody who reaches the port can open connections and say nothing, so each address may
//! have a limited number of them. Connections with a certificate of the cluster are not counted.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// Connections of one address at most that have not shown a certificate: those of its pods, who have tokens, and those that are
/// still shaking hands.
const LIMIT: usize = 256;

/// The connections without a certificate. Clones count together.
#[derive(Debug, Clone, Default)]
pub(super) struct Peers {
    counts: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

impl Peers {
    /// Counts one more connection of an address, for as long as the answer lives; none when it has too many.
    pub(super) fn admit(&self, address: IpAddr) -> Option<Admission> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(address).or_default();
        if *count >= LIMIT {
            return None;
        }
        *count += 1;
        Some(Admission { peers: self.clone(), address })
    }
}

/// A connection that counts.
#[derive(Debug)]
pub(super) struct Admission {
    peers: Peers,
    address: IpAddr,
}

impl Drop for Admission {
    fn drop(&mut self) {
        let mut counts = self.peers.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_with_too_many_connections_gets_no_more_and_others_do() {
        let peers = Peers::default();
        let (greedy, other) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let mut open: Vec<Admission> = (0..LIMIT).map(|_| peers.admit(greedy).unwrap()).collect();
        assert!(peers.admit(greedy).is_none());
        assert!(peers.admit(other).is_some());
        open.pop();
        assert!(peers.admit(greedy).is_some());
        drop(open);
        assert!(peers.counts.lock().unwrap().is_empty());
    }
}
