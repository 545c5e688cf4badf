//! How long a watch waits before it asks again.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use futures::{Stream, StreamExt, stream};
use kube::runtime::watcher::{Error, Event};

/// The API server of `podnet up` starts together with its clients: the first retries come quickly.
const FIRST: Duration = Duration::from_millis(50);
/// Of a cluster whose API server is away for long, each node asks this often.
const LONGEST: Duration = Duration::from_secs(10);
/// And so often for a kind that the API server does not have.
const LONGEST_OF_UNKNOWN: Duration = Duration::from_secs(30);
/// For that it is waited as long again as this part of the time that it was asked for already: who waits for a kind that comes with others
/// of its cluster hears of it a quarter later at most.
const PART_OF_UNKNOWN: u32 = 4;

/// The events of a watcher, which is asked again after a pause where it failed. Pauses double from 50 ms to 10 s, and begin anew once the API
/// server has answered. For a kind that it does not have they grow to 30 s.
pub fn steadily<K>(
    watcher: impl Stream<Item = Result<Event<K>, Error>> + Send,
) -> impl Stream<Item = Result<Event<K>, Error>> + Send
where
    K: Send,
{
    steadily_by(watcher, tokio::time::sleep)
}

/// As [`steadily`], by another clock's sleep.
fn steadily_by<K: Send, S: Future<Output = ()> + Send>(
    watcher: impl Stream<Item = Result<Event<K>, Error>> + Send,
    sleep: impl Fn(Duration) -> S + Copy + Send,
) -> impl Stream<Item = Result<Event<K>, Error>> + Send {
    stream::unfold((Box::pin(watcher), Pauses::default(), None), move |(mut watcher, mut pauses, pause)| async move {
        if let Some(pause) = pause {
            sleep(pause).await;
        }
        let event = watcher.next().await?;
        let pause = match &event {
            // It is told before anything was asked.
            Ok(Event::Init) => None,
            Ok(_) => {
                pauses = Pauses::default();
                None
            }
            Err(error) => Some(pauses.next(is_unknown(error), Instant::now())),
        };
        Some((event, (watcher, pauses, pause)))
    })
}

/// Whether the API server does not have the kind, now.
#[must_use]
pub fn is_unknown(error: &Error) -> bool {
    matches!(error, Error::InitialListFailed(kube::Error::Api(status)) if status.code == 404)
}

/// The pauses of one watch since it last heard of something.
#[derive(Debug, Default)]
struct Pauses {
    failures: u32,
    /// Since when the kind is not there.
    unknown: Option<Instant>,
}

impl Pauses {
    fn next(&mut self, is_unknown: bool, now: Instant) -> Duration {
        if is_unknown {
            let since = *self.unknown.get_or_insert(now);
            return (now.duration_since(since) / PART_OF_UNKNOWN).clamp(FIRST, LONGEST_OF_UNKNOWN);
        }
        self.unknown = None;
        let pause = FIRST.saturating_mul(2_u32.saturating_pow(self.failures)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        pause
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    fn failed(code: u16) -> Error {
        Error::InitialListFailed(kube::Error::Api(Box::new(Status { code, ..Status::default() })))
    }

    #[test]
    fn pauses_double_up_to_the_longest() {
        let (mut pauses, now) = (Pauses::default(), Instant::now());
        let first: Vec<u128> = (0..9).map(|_| pauses.next(false, now).as_millis()).collect();
        assert_eq!(first, [50, 100, 200, 400, 800, 1600, 3200, 6400, 10_000]);
    }

    #[test]
    fn a_kind_that_is_not_there_is_asked_for_seldom_and_soon_where_it_is_missed_since_a_moment() {
        let start = Instant::now();
        let (mut pauses, mut now, mut asked) = (Pauses::default(), start, 0);
        while now < start + Duration::from_secs(3600) {
            let (waited, pause) = (now.duration_since(start), pauses.next(true, now));
            assert!(pause <= FIRST.max(waited / 4) && pause <= LONGEST_OF_UNKNOWN && pause >= FIRST, "{pause:?}");
            now += pause;
            asked += 1;
            assert!(waited > Duration::from_secs(7) || asked < 25, "{asked} times in {waited:?}");
        }
        assert!(asked < 160, "{asked}");
        assert_eq!(pauses.next(false, now), FIRST);
        assert_eq!(pauses.next(true, now), FIRST);
    }

    #[tokio::test]
    async fn pauses_begin_anew_once_the_api_server_has_answered_and_not_when_it_is_about_to_be_asked() {
        let listing = |error: Option<u16>| match error {
            Some(code) => vec![Ok(Event::Init), Err(failed(code))],
            None => vec![Ok(Event::Init), Ok(Event::InitApply(())), Ok(Event::InitDone)],
        };
        let tries = [Some(500), Some(500), Some(500), None, Some(500), Some(404)];
        let slept = std::sync::Mutex::new(Vec::new());
        let sleep = |pause: Duration| {
            slept.lock().unwrap().push(pause.as_millis());
            std::future::ready(())
        };
        steadily_by(stream::iter(tries.into_iter().flat_map(listing)), &sleep).for_each(|_| async {}).await;
        assert_eq!(slept.into_inner().unwrap(), [50, 100, 200, 50, 50]);
    }
}
