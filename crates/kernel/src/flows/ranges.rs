//! The map of ranges whose flows are counted.

use std::{collections::BTreeSet, io, os::fd::BorrowedFd};

use crate::sockets::call;

/// A range in its map (`podnet_ebpf::flows::range`).
pub(super) type RangeKey = [u8; 20];

/// Puts those into the map of ranges that are not there.
pub(super) fn insert(
    map: BorrowedFd<'_>,
    written: &mut BTreeSet<RangeKey>,
    wanted: &BTreeSet<RangeKey>,
) -> io::Result<()> {
    for key in wanted.difference(&written.clone()) {
        call::update(map, &[(*key, [1, 0, 0, 0])])?;
        written.insert(*key);
    }
    Ok(())
}

/// Takes others out of it.
pub(super) fn remove(
    map: BorrowedFd<'_>,
    written: &mut BTreeSet<RangeKey>,
    wanted: &BTreeSet<RangeKey>,
) -> io::Result<()> {
    for key in written.clone().difference(wanted) {
        call::delete(map, &[*key])?;
        written.remove(key);
    }
    Ok(())
}
