//! Waiting for a condition, with a deadline.

use std::{
    fmt::Display,
    thread,
    time::{Duration, Instant},
};

use crate::vm;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How many times as long everything may take in the virtual machine, whose processor is emulated on one that others use too.
const SLOWER_INSIDE: u32 = 8;
/// There a look takes about as long as the pause; of a long time only such a part is spent between two looks.
const PART_INSIDE: u32 = 8;

/// Looks until the answer is `Ok`, and returns it.
///
/// # Panics
///
/// After `patience`, with the last look's reason; in the virtual machine after many times that.
pub fn eventually<T, E: Display>(what: &str, patience: Duration, mut look: impl FnMut() -> Result<T, E>) -> T {
    let patience = if vm::is_here() { patience * SLOWER_INSIDE } else { patience };
    let began = Instant::now();
    let deadline = began + patience;
    loop {
        match look() {
            Ok(answer) => return answer,
            Err(reason) if Instant::now() >= deadline => panic!("{what}: not within {patience:?}: {reason}"),
            Err(_) if vm::is_here() => thread::sleep(LOOK_EVERY.max(began.elapsed() / PART_INSIDE)),
            Err(_) => thread::sleep(LOOK_EVERY),
        }
    }
}
