//! When a certificate is renewed, and when what failed is tried again.

use std::time::Duration;

/// The first pause after a failure; each one after it is twice as long. Let's Encrypt bears five failures of a name in an hour.
const FIRST: Duration = if cfg!(test) { Duration::from_millis(20) } else { Duration::from_secs(300) };
/// The longest pause, before chance makes it longer.
const LONGEST: Duration = Duration::from_secs(6 * 3600);
/// However soon a certificate ends, the pause is not made shorter than this.
const SOONEST: Duration = Duration::from_secs(60);

/// How long a certificate holds, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Validity {
    /// From.
    pub(super) begin: u64,
    /// To.
    pub(super) end: u64,
}

impl Validity {
    /// When it is renewed, in seconds since 1970: while a third of its time is left, or, for those with a larger share (0 to 1) of chance,
    /// up to a twenty-fourth more.
    pub(super) fn renewal(self, share: f64) -> u64 {
        let lifetime = self.end.saturating_sub(self.begin);
        let earlier = Duration::from_secs(lifetime / 24).mul_f64(share.clamp(0.0, 1.0)).as_secs();
        self.end.saturating_sub(lifetime / 3 + earlier)
    }
}

/// How long is waited after so many failures in a row, with this share (0 to 1) of half of it more; where there is a certificate that still
/// holds for so long, not longer than a quarter of that.
pub(super) fn pause(failures: u32, share: f64, left: Option<Duration>) -> Duration {
    let doubled = FIRST.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1))).min(LONGEST);
    let pause = doubled.mul_f64(1.0 + share.clamp(0.0, 1.0) / 2.0);
    left.map_or(pause, |left| pause.min((left / 4).max(SOONEST)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_renewed_while_a_third_of_its_time_is_left_or_a_little_more() {
        let day = 86_400;
        let ninety = Validity { begin: 1000 * day, end: 1090 * day };
        assert_eq!(ninety.renewal(0.0), 1060 * day);
        assert_eq!(ninety.renewal(1.0), 1060 * day - 90 * day / 24);
        assert_eq!(ninety.renewal(7.0), ninety.renewal(1.0));
        let six = Validity { begin: 1000 * day, end: 1006 * day };
        assert_eq!(six.renewal(0.0), 1004 * day, "short ones as well");
        let wrong = Validity { begin: 5, end: 3 };
        assert_eq!(wrong.renewal(0.5), 3, "it is over, whatever it says");
    }

    #[test]
    fn pauses_grow_and_have_an_end() {
        assert_eq!(pause(1, 0.0, None), FIRST);
        assert_eq!(pause(1, 1.0, None), FIRST * 3 / 2);
        assert_eq!(pause(3, 0.0, None), FIRST * 4);
        assert_eq!(pause(u32::MAX, 0.0, None), LONGEST);
    }

    #[test]
    fn pauses_are_short_while_a_certificate_ends_soon() {
        let hours = |hours: u64| Some(Duration::from_secs(hours * 3600));
        assert_eq!(pause(1, 0.0, hours(48)), FIRST);
        assert_eq!(pause(u32::MAX, 0.0, hours(48)), LONGEST);
        assert_eq!(pause(u32::MAX, 0.0, hours(4)), Duration::from_secs(3600));
        assert_eq!(pause(u32::MAX, 0.0, Some(Duration::from_secs(8))), SOONEST);
    }
}
