//! Figures beside what is asked of them.

use std::fmt;

use serde::Serialize;

/// What is asked of a figure, and what it was. One that is missed ends no run: it is told.
#[derive(Serialize)]
pub(crate) struct Target {
    what: &'static str,
    asked: f64,
    measured: f64,
    is_held: bool,
}

impl Target {
    /// What has to be below a bound.
    pub(crate) fn below(what: &'static str, asked: f64, measured: f64) -> Self {
        Self { what, asked, measured, is_held: measured < asked }
    }

    /// What has to reach one.
    pub(crate) fn at_least(what: &'static str, asked: f64, measured: f64) -> Self {
        Self { what, asked, measured, is_held: measured >= asked }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, asked, measured, is_held } = self;
        let told = if *is_held { "held" } else { "MISSED" };
        write!(f, "\n  target  {what} {asked}: {measured:.2}, {told}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_is_below_what_is_missed() {
        assert!(!Target::below("seconds below", 1.0, 1.0).is_held);
        assert!(Target::at_least("of the peer's rate, at least", 1.0, 1.0).is_held);
        assert_eq!(Target::below("seconds below", 1.0, 0.25).to_string(), "\n  target  seconds below 1: 0.25, held");
    }
}
