//! How long it takes until what somebody damages is whole again.

use std::time::{Duration, Instant};

/// What damage has to be mended within.
const MENDED: Duration = Duration::from_secs(1);
/// So often it is tried: on a machine that does other things besides, seconds may go by in which the agent does not run.
const TRIES: usize = 6;
/// What takes longer is not mended at all.
const NEVER: Duration = Duration::from_secs(20);

/// Does the damage, and waits until all is whole, which once of some times has to be within a second; tells that time.
pub(crate) fn is_mended_in_time<T>(
    what: &str,
    mut damage: impl FnMut(),
    mut whole: impl FnMut() -> Result<T, String>,
) -> Duration {
    let mut seen = Vec::new();
    for _ in 0..TRIES {
        damage();
        let began = Instant::now();
        while let Err(error) = whole() {
            assert!(began.elapsed() < NEVER, "not mended after {what}: {error}");
        }
        let took = began.elapsed();
        if took < MENDED {
            return took;
        }
        seen.push(took);
    }
    panic!("not mended within {MENDED:?} after {what}, but in {seen:?}");
}
