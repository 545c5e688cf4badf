//! What is learned of an upstream from its answers: how fast it is, and what it can do.

use std::time::{Duration, Instant};

use super::{ATTEMPT_TIMEOUT, cookie::CLIENT};
use crate::server::Outside;

/// How an upstream speaks.
#[derive(Clone, Debug, Default)]
pub(super) struct Manners {
    /// Our part of the cookie, of this upstream alone: upstreams cannot know from it that they are asked by the same one.
    pub(super) client_cookie: Option<[u8; CLIENT]>,
    /// Its part, where it knows cookies.
    pub(super) server_cookie: Option<Box<[u8]>>,
    /// It takes queries with a cookie for broken ones.
    pub(super) refuses_cookies: bool,
    /// It was seen to change the case of questions: since then.
    pub(super) folds: Option<Instant>,
}

impl Manners {
    /// The cookie for the next query.
    pub(super) fn cookie(&mut self, outside: &dyn Outside) -> Vec<u8> {
        let client = self.client_cookie.get_or_insert_with(|| outside.random().to_be_bytes());
        [client.as_slice(), self.server_cookie.as_deref().unwrap_or_default()].concat()
    }
}

/// How fast an upstream answers: a smoothed time and its variation, as TCP reckons them (RFC 6298 §2).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace(Option<(Duration, Duration)>);

/// How long an upstream of which nothing is known may be silent until the next one is asked besides.
const UNKNOWN: Duration = Duration::from_millis(400);
/// The shortest such time: names that the upstream has to ask for itself take longer than those that it knows.
const SHORTEST: Duration = Duration::from_millis(100);

impl Pace {
    /// Takes a time in.
    pub(super) fn heard(&mut self, took: Duration) {
        self.0 = Some(match self.0 {
            None => (took, took / 2),
            Some((smooth, varies)) => ((smooth * 7 + took) / 8, (varies * 3 + smooth.abs_diff(took)) / 4),
        });
    }

    /// How long it may be silent.
    pub(super) fn pause(self) -> Duration {
        self.0.map_or(UNKNOWN, |(smooth, varies)| (smooth + varies * 4).clamp(SHORTEST, ATTEMPT_TIMEOUT))
    }
}
