//! Elements of maps: one, some, or all.

use std::{io, os::fd::BorrowedFd};

use rustix::io::Errno;

use super::{address, call, number};

// enum bpf_cmd
const MAP_LOOKUP_ELEM: i32 = 1;
const MAP_UPDATE_ELEM: i32 = 2;
const MAP_LOOKUP_AND_DELETE_ELEM: i32 = 21;
const MAP_LOOKUP_BATCH: i32 = 24;
const MAP_UPDATE_BATCH: i32 = 26;
const MAP_DELETE_BATCH: i32 = 27;
/// `BPF_NOEXIST`: where there is none.
const NO_EXIST: u64 = 1;
/// Where a reading of a map goes on: a number of a hash map, a key of others. No map has longer ones.
const CURSOR: usize = 64;

#[repr(C)]
#[derive(Default)]
struct Element {
    map: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
#[derive(Default)]
struct Batch {
    from: u64,
    to: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    element_flags: u64,
    flags: u64,
}

/// Makes or changes elements, in order.
pub(crate) fn update<const K: usize, const V: usize>(
    map: BorrowedFd<'_>,
    elements: &[([u8; K], [u8; V])],
) -> io::Result<()> {
    if elements.is_empty() {
        return Ok(());
    }
    let mut keys: Vec<u8> = elements.iter().flat_map(|(key, _)| key).copied().collect();
    let mut values: Vec<u8> = elements.iter().flat_map(|(_, value)| value).copied().collect();
    let mut batch = Batch {
        keys: address(keys.as_mut_ptr()),
        values: address(values.as_mut_ptr()),
        count: elements.len() as u32,
        map: number(map),
        ..Batch::default()
    };
    call(MAP_UPDATE_BATCH, &mut batch).map(drop)
}

/// Removes elements; those that are not there are no obstacle.
pub(crate) fn delete<const K: usize>(map: BorrowedFd<'_>, keys: &[[u8; K]]) -> io::Result<()> {
    let mut left = keys;
    while !left.is_empty() {
        let mut bytes: Vec<u8> = left.concat();
        let mut batch =
            Batch { keys: address(bytes.as_mut_ptr()), count: left.len() as u32, map: number(map), ..Batch::default() };
        match call(MAP_DELETE_BATCH, &mut batch) {
            Ok(_) => return Ok(()),
            // The count is of those before the one that is missing.
            Err(error) if error.raw_os_error() == Some(Errno::NOENT.raw_os_error()) => {
                left = left.get(batch.count as usize + 1..).unwrap_or_default();
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// An element of a hash map or an array, as it is; none where it is not there.
pub(crate) fn lookup<const K: usize, const V: usize>(
    map: BorrowedFd<'_>,
    key: &[u8; K],
) -> io::Result<Option<[u8; V]>> {
    element(MAP_LOOKUP_ELEM, map, key)
}

/// Takes an element of a hash map out of it (Linux 5.14); none where it is not there.
pub(crate) fn take<const K: usize, const V: usize>(map: BorrowedFd<'_>, key: &[u8; K]) -> io::Result<Option<[u8; V]>> {
    element(MAP_LOOKUP_AND_DELETE_ELEM, map, key)
}

/// Takes out one that is as it was read. None where it is not, or is not there: it is put back, unless others are counted in its place by now.
pub(crate) fn take_read<const K: usize, const V: usize, T>(
    map: BorrowedFd<'_>,
    key: &[u8; K],
    read: impl FnOnce(&[u8; V]) -> T,
    is_same: impl FnOnce(&T) -> bool,
) -> io::Result<Option<T>> {
    let Some(value) = take::<K, V>(map, key)? else { return Ok(None) };
    let last = read(&value);
    // Nearly none changed since it was read a moment ago. What did is put back, unless others began to be counted in its place within the
    // microsecond: then this is a part of it.
    if !is_same(&last) && matches!(insert(map, key, &value), Ok(true)) {
        return Ok(None);
    }
    Ok(Some(last))
}

/// Makes an element of a hash map, where there is none of its key. Whether there was none.
fn insert<const K: usize, const V: usize>(map: BorrowedFd<'_>, key: &[u8; K], value: &[u8; V]) -> io::Result<bool> {
    let mut element = Element {
        map: number(map),
        key: address(key.as_ptr()),
        value: address(value.as_ptr()),
        flags: NO_EXIST,
        padding: 0,
    };
    match call(MAP_UPDATE_ELEM, &mut element) {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(Errno::EXIST.raw_os_error()) => Ok(false),
        Err(error) => Err(error),
    }
}

fn element<const K: usize, const V: usize>(
    command: i32,
    map: BorrowedFd<'_>,
    key: &[u8; K],
) -> io::Result<Option<[u8; V]>> {
    let mut value = [0_u8; V];
    let mut element = Element {
        map: number(map),
        key: address(key.as_ptr()),
        value: address(value.as_mut_ptr()),
        ..Element::default()
    };
    match call(command, &mut element) {
        Ok(_) => Ok(Some(value)),
        Err(error) if error.raw_os_error() == Some(Errno::NOENT.raw_os_error()) => Ok(None),
        Err(error) => Err(error),
    }
}

/// All elements of a map that were there all the time. What is made or removed meanwhile may be among them.
pub(crate) fn elements<const K: usize, const V: usize>(map: BorrowedFd<'_>) -> io::Result<Vec<([u8; K], [u8; V])>> {
    let mut found = Vec::new();
    each(map, |key: &[u8; K], value: &[u8; V]| found.push((*key, *value)))?;
    Ok(found)
}

/// The same, some thousands at a time, each as soon as it is read: so many are in memory and no more.
pub(crate) fn each<const K: usize, const V: usize>(
    map: BorrowedFd<'_>,
    mut visit: impl FnMut(&[u8; K], &[u8; V]),
) -> io::Result<()> {
    const { assert!(K <= CURSOR, "the kernel writes a key there") };
    let mut room = 4096;
    let (mut keys, mut values) = (vec![[0_u8; K]; room], vec![[0_u8; V]; room]);
    let mut cursor: Option<[u8; CURSOR]> = None;
    loop {
        let mut to = [0_u8; CURSOR];
        let mut batch = Batch {
            from: cursor.as_ref().map_or(0, |from| address(from.as_ptr())),
            to: address(to.as_mut_ptr()),
            keys: address(keys.as_mut_ptr()),
            values: address(values.as_mut_ptr()),
            count: room as u32,
            map: number(map),
            ..Batch::default()
        };
        let done = match call(MAP_LOOKUP_BATCH, &mut batch) {
            Ok(_) => false,
            Err(error) if error.raw_os_error() == Some(Errno::NOENT.raw_os_error()) => true,
            // One bucket of the map has more than that.
            Err(error) if error.raw_os_error() == Some(Errno::NOSPC.raw_os_error()) => {
                room *= 2;
                keys.resize(room, [0; K]);
                values.resize(room, [0; V]);
                continue;
            }
            Err(error) => return Err(error),
        };
        keys.iter().zip(&values).take(batch.count as usize).for_each(|(key, value)| visit(key, value));
        if done {
            return Ok(());
        }
        cursor = Some(to);
    }
}
