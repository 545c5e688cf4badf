//! Figures beside what is asked of them.

use std::{borrow::Cow, fmt};

use serde::Serialize;

/// What is asked of a figure, and what it was. One that is missed ends no run: it is told.
#[derive(Serialize)]
pub(crate) struct Target {
    what: Cow<'static, str>,
    asked: f64,
    measured: f64,
    is_held: bool,
    /// Between which values it would be if it were measured many times more, with 95 % certainty; none where that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    between: Option<[f64; 2]>,
}

impl Target {
    /// What has to be below a bound.
    pub(crate) fn below(what: impl Into<Cow<'static, str>>, asked: f64, measured: f64) -> Self {
        Self { what: what.into(), asked, measured, is_held: measured < asked, between: None }
    }

    /// What has to reach one.
    pub(crate) fn at_least(what: impl Into<Cow<'static, str>>, asked: f64, measured: f64) -> Self {
        Self { what: what.into(), asked, measured, is_held: measured >= asked, between: None }
    }

    /// The same of a figure that chance moves so far: what is asked may lie in between, where it is not sure whether it is held.
    pub(crate) fn between(self, low: f64, high: f64) -> Self {
        Self { between: Some([low, high]), ..self }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, asked, measured, is_held, between } = self;
        let told = if *is_held { "held" } else { "MISSED" };
        let Some([low, high]) = between else {
            return write!(f, "\n  target  {what} {asked}: {measured:.2}, {told}");
        };
        let surely = if (low..=high).contains(&asked) { "which may be chance" } else { "and not by chance" };
        write!(f, "\n  target  {what} {asked}: {measured:.3} ({low:.3} to {high:.3}), {told}, {surely}")
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

    #[test]
    fn a_miss_is_told_from_what_chance_may_have_done() {
        let told = |measured: f64, low, high| Target::at_least("ratio", 0.98, measured).between(low, high).to_string();
        assert_eq!(
            told(0.97, 0.95, 0.99),
            "\n  target  ratio 0.98: 0.970 (0.950 to 0.990), MISSED, which may be chance"
        );
        assert_eq!(told(0.9, 0.88, 0.92), "\n  target  ratio 0.98: 0.900 (0.880 to 0.920), MISSED, and not by chance");
        assert_eq!(told(1.0, 0.99, 1.01), "\n  target  ratio 0.98: 1.000 (0.990 to 1.010), held, and not by chance");
    }
}
