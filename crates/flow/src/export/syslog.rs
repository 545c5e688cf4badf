//! Syslog (RFC 5424), with the item as JSON for its text.

use super::{json, micros};
use crate::{Item, Numbered};

/// Facility local0 (16).
const FACILITY: u8 = 16 * 8;
/// Severities: informational, and warning where flows are missing.
const INFORMATIONAL: u8 = 6;
const WARNING: u8 = 4;
/// The highest `sequenceId` (section 7.3.1), behind which they begin at 1 again.
const HIGHEST: u64 = 2_147_483_647;

/// One message, without a frame.
#[must_use]
pub fn message(item: &Numbered) -> String {
    let severity = match item.item {
        Item::Flow(_) | Item::Drops(_) => INFORMATIONAL,
        Item::Gap(_) => WARNING,
    };
    let kind = item.item.kind();
    let (priority, at) = (FACILITY + severity, micros(item.item.at()));
    let (node, sequence) = (&item.record.node, item.record.sequence % HIGHEST + 1);
    format!("<{priority}>1 {at} {node} podnet - {kind} [meta sequenceId=\"{sequence}\"] {}", json(item))
}

/// A message in a stream, behind its length (RFC 6587, section 3.4.1; RFC 5425, section 4.3).
#[must_use]
pub fn counted(message: &str) -> String {
    format!("{} {message}", message.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{drops, flow, gap};

    #[test]
    fn a_message_has_all_that_the_rfc_asks_for_and_the_item() {
        let sent = message(&flow(7));
        let head = "<134>1 2026-01-01T00:00:02.5Z node1 podnet - flow [meta sequenceId=\"8\"] ";
        assert_eq!(serde_json::from_str::<Numbered>(sent.strip_prefix(head).unwrap()).unwrap(), flow(7));
        assert!(
            message(&gap(HIGHEST))
                .starts_with("<132>1 2026-01-01T00:00:01Z node1 podnet - gap [meta sequenceId=\"1\"] {")
        );
        assert!(message(&drops(7)).starts_with("<134>1 2026-01-01T00:00:10Z node1 podnet - drops [meta "));
        assert_eq!(counted("<1>1 ä"), "7 <1>1 ä", "bytes, and not characters");
    }

    #[test]
    fn a_time_has_six_places_at_most() {
        let mut item = flow(0);
        if let Item::Flow(record) = &mut item.item {
            std::sync::Arc::make_mut(record).end = "2026-01-01T00:00:02.123456789Z".parse().unwrap();
        }
        assert!(message(&item).starts_with("<134>1 2026-01-01T00:00:02.123456Z "));
    }
}
