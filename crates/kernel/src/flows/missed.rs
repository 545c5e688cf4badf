//! What found no room in the map of entries: told once, to the last packet, by whichever agent.
//!
//! What a program adds to an element that is just being taken out is lost, as it looked that up before. So an element stays while anything is added
//! to it, and beside it stands how much of it was told. Of marks, which only an estimate comes from, that little may be lost.

use std::{
    collections::HashMap,
    io,
    os::fd::BorrowedFd,
    time::{Duration, Instant},
};

use podnet_ebpf::flows::{MARKS_SIZE, Missed, marked};

use crate::sockets::call;

/// What found no room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Missing {
    /// Packets.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Connections of TCP and associations of SCTP that were opened, to the last one; also those that were counted, as one with the one before from the same
    /// port. And an estimate of how many flows of other protocols these packets were of, of each of which more packets may be missing the next time: right
    /// within some hundredths up to 400,000 of one interface from one reading to the next; beyond that fewer than there were.
    pub flows: u64,
}

/// What was told of each interface, and when anything was for the last time.
pub(super) type Told = HashMap<u32, (Missed, Instant)>;

/// In the key of a note of what was told: no interface has such an index.
const NOTE: u32 = 1 << 31;
/// What nothing is added to for so long is taken out.
const QUIET: Duration = Duration::from_millis(if cfg!(test) { 20 } else { 10_000 });

/// What is in the map and was not told yet, by the index of the interface. What fails when some of it is to be told is left for the next time.
pub(super) fn read(
    (map, marks): (BorrowedFd<'_>, BorrowedFd<'_>),
    told: &mut Told,
    now: Instant,
) -> io::Result<Vec<(u32, Missing)>> {
    let elements: Vec<([u8; 4], [u8; Missed::SIZE])> = call::elements(map)?;
    let elements = elements.iter().map(|(key, value)| (u32::from_le_bytes(*key), Missed::from_bytes(value)));
    let (notes, counted): (HashMap<u32, Missed>, HashMap<u32, Missed>) = elements.partition(|(key, _)| key & NOTE != 0);
    told.retain(|device, _| counted.contains_key(device));
    let stale = notes.keys().filter(|key| !counted.contains_key(&(*key & !NOTE)));
    call::delete(map, &stale.map(|key| key.to_le_bytes()).collect::<Vec<_>>())?;
    let mut new = Vec::new();
    for (device, found) in counted {
        let noted = notes.get(&(device | NOTE)).copied().filter(|noted| is_within(noted, &found));
        let (before, since) = *told.entry(device).or_insert((noted.unwrap_or_default(), now));
        let is_new = after(&before, &found) != Missed::default();
        // Where there is no room for a note it goes at once.
        let last = if is_new && note(map, device, &found).is_ok() {
            told.insert(device, (found, now));
            Ok(found)
        } else if is_new || now.duration_since(since) >= QUIET {
            take(map, device).map(|last| {
                told.remove(&device);
                last.unwrap_or(found)
            })
        } else {
            continue;
        };
        match last.map(|last| after(&before, &last)) {
            Ok(Missed { packets, bytes, connections }) => {
                // A mark may come after its packet was told.
                let missing = Missing { packets, bytes, flows: connections + take_marks(marks, device) };
                if missing != Missing::default() {
                    new.push((device, missing));
                }
            }
            Err(error) if new.is_empty() => return Err(error),
            Err(_) => break,
        }
    }
    Ok(new)
}

fn note(map: BorrowedFd<'_>, device: u32, told: &Missed) -> io::Result<()> {
    call::update(map, &[((device | NOTE).to_le_bytes(), told.to_bytes())])
}

fn take(map: BorrowedFd<'_>, device: u32) -> io::Result<Option<Missed>> {
    let last: Option<[u8; Missed::SIZE]> = call::take(map, &device.to_le_bytes())?;
    // One that stays tells of more than what is counted next, and is not believed.
    let _ = call::delete(map, &[(device | NOTE).to_le_bytes()]);
    Ok(last.map(|value| Missed::from_bytes(&value)))
}

/// About how many flows have made marks since the last time; 0 also where that cannot be told.
fn take_marks(map: BorrowedFd<'_>, device: u32) -> u64 {
    let marks: io::Result<Option<[u8; MARKS_SIZE]>> = call::take(map, &device.to_le_bytes());
    marks.ok().flatten().map_or(0, |marks| marked(&marks))
}

/// Whether a note may be of what is counted.
const fn is_within(noted: &Missed, found: &Missed) -> bool {
    noted.packets <= found.packets && noted.bytes <= found.bytes && noted.connections <= found.connections
}

fn after(before: &Missed, found: &Missed) -> Missed {
    Missed {
        packets: found.packets.saturating_sub(before.packets),
        bytes: found.bytes.saturating_sub(before.bytes),
        connections: found.connections.saturating_sub(before.connections),
    }
}
