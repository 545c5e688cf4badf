//! Waiting for a condition, with a deadline.

use std::{
    fmt::Display,
    thread,
    time::{Duration, Instant},
};

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Looks until the answer is `Ok`, and returns it.
///
/// # Panics
///
/// After `patience`, with the last look's reason.
pub fn eventually<T, E: Display>(what: &str, patience: Duration, mut look: impl FnMut() -> Result<T, E>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        match look() {
            Ok(answer) => return answer,
            Err(reason) if Instant::now() >= deadline => panic!("{what}: not within {patience:?}: {reason}"),
            Err(_) => thread::sleep(LOOK_EVERY),
        }
    }
}
