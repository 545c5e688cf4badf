//! Times as ages: `45s`, `3m12s`, `5d`, the way kubectl prints them.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

/// What stands where there is no time.
pub(super) const UNKNOWN: &str = "<unknown>";

/// The cell for an object's age.
pub(super) fn of(object: &Value, now: DateTime<Utc>) -> Value {
    json!(since(&object["metadata"]["creationTimestamp"], now))
}

/// How long ago a time of an object is.
pub(super) fn since(time: &Value, now: DateTime<Utc>) -> String {
    parse(time).map_or_else(|| UNKNOWN.to_owned(), |then| human(now - then))
}

/// A time of an object.
pub(super) fn parse(time: &Value) -> Option<DateTime<Utc>> {
    let time = DateTime::parse_from_rfc3339(time.as_str()?).ok()?;
    Some(time.with_timezone(&Utc))
}

/// A duration with two or three significant digits: the smaller unit is left out once it no longer matters.
pub(super) fn human(duration: TimeDelta) -> String {
    let seconds = duration.num_seconds();
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let (days, years) = (hours / 24, hours / 24 / 365);
    // Clocks may differ by a moment; more than that is no age.
    match seconds {
        ..-1 => "<invalid>".to_owned(),
        -1 => "0s".to_owned(),
        0..120 => format!("{seconds}s"),
        _ if minutes < 10 => pair(minutes, "m", seconds % 60, "s"),
        _ if minutes < 180 => format!("{minutes}m"),
        _ if hours < 8 => pair(hours, "h", minutes % 60, "m"),
        _ if hours < 48 => format!("{hours}h"),
        _ if days < 8 => pair(days, "d", hours % 24, "h"),
        _ if years < 2 => format!("{days}d"),
        _ if years < 8 => pair(years, "y", days % 365, "d"),
        _ => format!("{years}y"),
    }
}

fn pair(large: i64, large_unit: &str, small: i64, small_unit: &str) -> String {
    if small == 0 { format!("{large}{large_unit}") } else { format!("{large}{large_unit}{small}{small_unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_have_two_or_three_significant_digits() {
        const MINUTE: i64 = 60;
        const HOUR: i64 = 3600;
        const DAY: i64 = 24 * HOUR;
        for (seconds, wanted) in [
            (-5, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (192, "3m12s"),
            (10 * MINUTE + 5, "10m"),
            (179 * MINUTE, "179m"),
            (180 * MINUTE, "3h"),
            (7 * HOUR + 59 * MINUTE, "7h59m"),
            (8 * HOUR + MINUTE, "8h"),
            (47 * HOUR, "47h"),
            (2 * DAY, "2d"),
            (7 * DAY + 23 * HOUR, "7d23h"),
            (8 * DAY + HOUR, "8d"),
            (729 * DAY, "729d"),
            (730 * DAY, "2y"),
            (800 * DAY, "2y70d"),
            (8 * 365 * DAY + 5 * DAY, "8y"),
        ] {
            assert_eq!(human(TimeDelta::seconds(seconds)), wanted, "{seconds}");
        }
    }
}
