//! How long it takes until what somebody damages is whole again.

use std::time::{Duration, Instant};

use podnet_testnet::vm;

/// What damage has to be mended within at best, and mostly: on a machine that does other things besides, seconds may go by in which the agent
/// does not run.
const MENDED: Duration = Duration::from_secs(1);
const MOSTLY: Duration = Duration::from_secs(5);
/// Where this is set in the environment (`make mending`) nothing else uses the machine: most tries have to be within [`MENDED`], too.
const ALONE: &str = "PODNET_TEST_ALONE";
/// So often it is tried at most.
const TRIES: usize = 11;
/// What takes longer is not mended at all.
const NEVER: Duration = Duration::from_secs(20);

/// Does the damage, and waits until all is whole, for which the best of the tries has to be within a second, and the median within five; tells the
/// best of them; where nothing else uses the machine (`PODNET_TEST_ALONE`), the median has to be within a second, too. Where the first one is in time, no other is needed. Where the processor is emulated, one of them is enough.
pub(crate) fn is_mended_in_time<T>(
    what: &str,
    mut damage: impl FnMut(),
    mut whole: impl FnMut() -> Result<T, String>,
) -> Duration {
    let mended = || {
        damage();
        let began = Instant::now();
        while let Err(error) = whole() {
            assert!(began.elapsed() < NEVER, "not mended after {what}: {error}");
        }
        began.elapsed()
    };
    is_mended_after(what, mended)
}

/// The same of damage that says itself, when all is whole, how long that took.
pub(crate) fn is_mended_after(what: &str, mut mended: impl FnMut() -> Duration) -> Duration {
    let most = if std::env::var_os(ALONE).is_some() { MENDED } else { MOSTLY };
    let mut seen = Vec::new();
    for _ in 0..TRIES {
        seen.push(mended());
        let mostly = seen.iter().filter(|took| **took < most).count() * 2 > seen.len();
        let best = seen.iter().min().copied().filter(|best| *best < MENDED);
        if let Some(best) = best.filter(|_| mostly || vm::is_here()) {
            println!("{what}: {seen:?} until all was whole");
            return best;
        }
    }
    panic!("not mended within {MENDED:?} once, and mostly within {most:?}, after {what}, but in {seen:?}");
}
