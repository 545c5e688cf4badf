//! Backends in numbered slots: a random choice needs them to be 0 to N-1 without a gap.

use std::collections::BTreeSet;

use crate::ruleset::BackendAddress;

/// The slots when exactly the wanted backends are to fill them. Who stays keeps its slot; who comes takes the slot of one who
/// goes, or a new one at the end; a gap that remains is filled by the last. So one backend more or less renumbers at most one.
pub(super) fn reslot(current: &[BackendAddress], wanted: &BTreeSet<BackendAddress>) -> Vec<BackendAddress> {
    let here: BTreeSet<_> = current.iter().collect();
    let mut newcomers = wanted.iter().filter(|backend| !here.contains(backend)).copied();
    let mut slots: Vec<Option<BackendAddress>> = current
        .iter()
        .map(|backend| if wanted.contains(backend) { Some(*backend) } else { newcomers.next() })
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

    fn backends(numbers: &[u8]) -> Vec<BackendAddress> {
        numbers.iter().map(|n| BackendAddress { addr: IpAddr::from([10, 0, 0, *n]), port: 80 }).collect()
    }

    fn after(current: &[u8], wanted: &[u8]) -> Vec<u8> {
        let slots = reslot(&backends(current), &backends(wanted).into_iter().collect());
        let number = |backend: &BackendAddress| match backend.addr {
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
