//! Backends in numbered slots: a random choice needs them to be 0 to N-1 without a gap.

use std::sync::Arc;

use super::serving::Backend;

/// The slots when exactly the wanted backends, which are sorted, are to fill them. Who stays keeps its slot; who comes takes the slot of one
/// who goes, or a new one at the end; a gap that remains is filled by the last. So one backend more or less renumbers at most one.
pub(super) fn reslot(current: &[Backend], wanted: &[Backend]) -> Arc<[Backend]> {
    let mut here: Vec<_> = current.iter().map(|backend| backend.at).collect();
    here.sort_unstable();
    let mut newcomers = wanted.iter().filter(|backend| here.binary_search(&backend.at).is_err()).copied();
    let still = |backend: &Backend| wanted.binary_search_by_key(&backend.at, |wanted| wanted.at).ok();
    let mut slots: Vec<Option<Backend>> = current
        .iter()
        .map(|backend| still(backend).and_then(|place| wanted.get(place).copied()).or_else(|| newcomers.next()))
        .collect();
    slots.extend(newcomers.map(Some));

    let mut slot = 0;
    while let Some(backend) = slots.get(slot) {
        if backend.is_some() {
            slot += 1;
        } else {
            slots.swap_remove(slot);
        }
    }
    slots.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::ruleset::BackendAddress;

    fn backends(numbers: &[u8]) -> Vec<Backend> {
        let at = |n: &u8| BackendAddress { addr: IpAddr::from([10, 0, 0, *n]), port: 80 };
        numbers.iter().map(|n| Backend { at: at(n), local: false, terminating: false }).collect()
    }

    fn after(current: &[u8], wanted: &[u8]) -> Vec<u8> {
        let slots = reslot(&backends(current), &backends(wanted));
        let number = |backend: &Backend| match backend.at.addr {
            IpAddr::V4(addr) => addr.octets()[3],
            IpAddr::V6(_) => unreachable!(),
        };
        slots.iter().map(number).collect()
    }

    #[test]
    fn a_newcomer_takes_a_new_slot_at_the_end() {
        assert_eq!(after(&[3, 1], &[1, 2, 3]), [3, 1, 2]);
    }

    #[test]
    fn the_last_fills_the_slot_of_one_who_goes() {
        assert_eq!(after(&[1, 2, 3, 4], &[1, 3, 4]), [1, 4, 3]);
        assert_eq!(after(&[1, 2, 3, 4], &[1, 4]), [1, 4]);
        assert_eq!(after(&[1, 2], &[1]), [1]);
        assert!(after(&[1, 2], &[]).is_empty());
    }

    #[test]
    fn a_newcomer_takes_the_slot_of_one_who_goes() {
        assert_eq!(after(&[1, 2, 3], &[1, 3, 9]), [1, 9, 3]);
        assert_eq!(after(&[1, 2, 3], &[7, 8, 9, 10]), [7, 8, 9, 10]);
    }
}
