//! What became of a flow, and what did that: from what was counted of it and what is known of whom it asked.

use crate::{
    entry::Way,
    record::{Cause, Verdict},
    refusal::Unserved,
};

/// What shows what became of a flow.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Evidence {
    /// It is a connection of TCP.
    pub(super) is_tcp: bool,
    /// Whoever gets what was sent answers it, if only by a word that it came.
    pub(super) wants_answer: bool,
    /// From the source.
    pub(super) sent: Way,
    /// To it.
    pub(super) received: Way,
    /// What an error of ICMP said, since which nothing was answered.
    pub(super) error: Option<Cause>,
    /// Its Service told the socket that there is nobody, so that nothing was sent.
    pub(super) at_socket: Option<Unserved>,
    /// The destination's own end was seen to reset it.
    pub(super) was_reset_by_destination: bool,
    /// The pod that sent it does not have the source's address.
    pub(super) is_spoofed: bool,
    /// It is known who answers for the Service that was asked.
    pub(super) has_backend: bool,
    /// The Service that was asked had nobody to answer here as it began.
    pub(super) was_unserved: bool,
    /// It has nobody now.
    pub(super) is_unserved: bool,
    /// It is over, the destination is on this node, and nothing came there.
    pub(super) never_came: bool,
    /// Rules lost or refused a packet of it as beyond a pod's limit.
    pub(super) is_beyond_limit: bool,
}

impl Evidence {
    /// The verdict, and its cause where something tells that.
    pub(super) fn outcome(&self) -> (Verdict, Option<Cause>) {
        if let Some(unserved) = self.at_socket {
            return (unserved.verdict(), Some(Cause::NoBackend));
        }
        let is_answered = self.received.packets > 0;
        if self.is_spoofed && !is_answered {
            return (Verdict::Dropped, Some(Cause::SpoofGuard));
        }
        if self.is_refused() {
            return (Verdict::Refused, self.refuser());
        }
        if let Some(error) = self.error {
            let cause = self.behind(error);
            let verdict = match cause {
                _ if is_answered => Verdict::Forwarded,
                // It was not lost: somebody was told so.
                Cause::Limit => error.verdict(),
                cause => cause.verdict(),
            };
            return (verdict, Some(cause));
        }
        if !is_answered && !self.has_backend && self.was_unserved && self.is_unserved {
            // A policy that leaves none here refuses nothing.
            return (Verdict::Dropped, Some(Cause::NoBackend));
        }
        if self.is_beyond_limit {
            // How many of its packets it was is not known: all of them, if it was one, or if nobody answered who would have.
            let is_lost = !is_answered && (self.wants_answer || self.never_came || self.sent.packets <= 1);
            return (if is_lost { Verdict::Dropped } else { Verdict::Forwarded }, Some(Cause::Limit));
        }
        if self.never_came && !is_answered {
            return (Verdict::Dropped, None);
        }
        (if self.wants_answer && !is_answered { Verdict::Unanswered } else { Verdict::Forwarded }, None)
    }

    /// A reset was the first answer to what opened it; of an association of SCTP, all that was answered (RFC 9260, section 5.1). One that was
    /// under way is aborted so as well, by a peer that began anew: what opened it must have been seen.
    fn is_refused(&self) -> bool {
        let Way { packets, resets, flags, .. } = self.received;
        if resets == 0 || self.sent.flags & Way::SYN == 0 {
            return false;
        }
        if self.is_tcp { flags & Way::SYN == 0 } else { packets == u64::from(resets) }
    }

    /// Who reset it. A firewall may do that in the destination's name, so only who stands at the destination knows it. What is refused by a limit
    /// does not come there, and is refused at once: of what was sent again before, the limit lost what was sent first, and the reset is to another one.
    const fn refuser(&self) -> Option<Cause> {
        if self.is_beyond_limit && !self.was_reset_by_destination && self.sent.retransmissions == 0 {
            Some(Cause::Limit)
        } else if !self.has_backend && (self.was_unserved || self.is_unserved) {
            Some(Cause::NoBackend)
        } else if self.was_reset_by_destination {
            Some(Cause::PortClosed)
        } else {
            None
        }
    }

    /// What is behind an error. Where a backend was known, it is that there is none any more only if a node said so and no backend.
    fn behind(&self, error: Cause) -> Cause {
        if self.is_beyond_limit && error == Cause::Prohibited {
            return Cause::Limit;
        }
        let is_unserved = self.was_unserved || self.is_unserved;
        if is_unserved && (!self.has_backend || error == Cause::Prohibited) { Cause::NoBackend } else { error }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYN: Way = Way { packets: 1, bytes: 60, retransmissions: 0, resets: 0, flags: Way::SYN };
    const RESET: Way = Way { packets: 1, bytes: 40, retransmissions: 0, resets: 1, flags: Way::RST };
    const SOME: Way = Way { packets: 3, bytes: 180, retransmissions: 0, resets: 0, flags: 0 };

    #[test]
    fn each_cause_is_told_with_its_verdict_and_none_where_nothing_tells_it() {
        let asked = Evidence { sent: SOME, ..Evidence::default() };
        let opened = Evidence { is_tcp: true, wants_answer: true, sent: SYN, ..asked };
        let refused = Evidence { received: RESET, ..opened };
        let answered = Evidence { received: SOME, ..asked };
        let aborted = |packets, resets| Evidence {
            wants_answer: true,
            sent: SYN,
            received: Way { packets, resets, ..SOME },
            ..asked
        };
        let with = |evidence: Evidence, error| Evidence { error: Some(error), ..evidence };
        let beyond = |evidence: Evidence| Evidence { is_beyond_limit: true, ..evidence };
        let unserved = |evidence: Evidence| Evidence { was_unserved: true, is_unserved: true, ..evidence };
        let rows = [
            (asked, Verdict::Forwarded, None),
            (opened, Verdict::Unanswered, None),
            // An association, or an echo request.
            (Evidence { wants_answer: true, ..asked }, Verdict::Unanswered, None),
            (Evidence { wants_answer: true, ..answered }, Verdict::Forwarded, None),
            (refused, Verdict::Refused, None),
            // An association: nobody there takes it, and says so again; one that was under way is aborted.
            (aborted(1, 1), Verdict::Refused, None),
            (aborted(2, 2), Verdict::Refused, None),
            (aborted(2, 1), Verdict::Forwarded, None),
            // It was idle for so long that what is counted begins with what was aborted.
            (Evidence { sent: SOME, ..aborted(1, 1) }, Verdict::Forwarded, None),
            (Evidence { was_reset_by_destination: true, ..aborted(1, 1) }, Verdict::Refused, Some(Cause::PortClosed)),
            (unserved(aborted(1, 1)), Verdict::Refused, Some(Cause::NoBackend)),
            (Evidence { never_came: true, ..asked }, Verdict::Dropped, None),
            (Evidence { is_spoofed: true, ..opened }, Verdict::Dropped, Some(Cause::SpoofGuard)),
            (Evidence { is_spoofed: true, ..answered }, Verdict::Forwarded, None),
            (Evidence { was_reset_by_destination: true, ..refused }, Verdict::Refused, Some(Cause::PortClosed)),
            (with(asked, Cause::PortClosed), Verdict::Refused, Some(Cause::PortClosed)),
            (with(asked, Cause::Prohibited), Verdict::Refused, Some(Cause::Prohibited)),
            (with(opened, Cause::NoRoute), Verdict::Dropped, Some(Cause::NoRoute)),
            (with(asked, Cause::PacketTooBig), Verdict::Dropped, Some(Cause::PacketTooBig)),
            (with(asked, Cause::HopLimit), Verdict::Dropped, Some(Cause::HopLimit)),
            // It went well before.
            (with(answered, Cause::PortClosed), Verdict::Forwarded, Some(Cause::PortClosed)),
            (unserved(refused), Verdict::Refused, Some(Cause::NoBackend)),
            (unserved(with(asked, Cause::Prohibited)), Verdict::Refused, Some(Cause::NoBackend)),
            // A policy that leaves none here drops in silence.
            (unserved(asked), Verdict::Dropped, Some(Cause::NoBackend)),
            (unserved(answered), Verdict::Forwarded, None),
            // Whatever is known of slices by then.
            (Evidence { at_socket: Some(Unserved::Nobody), ..opened }, Verdict::Refused, Some(Cause::NoBackend)),
            (Evidence { at_socket: Some(Unserved::NobodyHere), ..opened }, Verdict::Dropped, Some(Cause::NoBackend)),
            // A limit refuses a connection with a reset or an error that somebody on the way sends; what the destination says is its own.
            (beyond(refused), Verdict::Refused, Some(Cause::Limit)),
            (beyond(aborted(1, 1)), Verdict::Refused, Some(Cause::Limit)),
            (beyond(unserved(refused)), Verdict::Refused, Some(Cause::Limit)),
            (beyond(Evidence { was_reset_by_destination: true, ..refused }), Verdict::Refused, Some(Cause::PortClosed)),
            // The first SYN was beyond a rate, and the second one was refused by whoever it came to.
            (
                beyond(Evidence { sent: Way { packets: 2, retransmissions: 1, ..SYN }, ..refused }),
                Verdict::Refused,
                None,
            ),
            (beyond(with(asked, Cause::Prohibited)), Verdict::Refused, Some(Cause::Limit)),
            (beyond(with(answered, Cause::Prohibited)), Verdict::Forwarded, Some(Cause::Limit)),
            (beyond(with(asked, Cause::PortClosed)), Verdict::Refused, Some(Cause::PortClosed)),
            // Of packets some are lost, or all.
            (beyond(opened), Verdict::Dropped, Some(Cause::Limit)),
            (beyond(asked), Verdict::Forwarded, Some(Cause::Limit)),
            (beyond(answered), Verdict::Forwarded, Some(Cause::Limit)),
            (beyond(Evidence { sent: Way { packets: 1, ..SOME }, ..asked }), Verdict::Dropped, Some(Cause::Limit)),
            (beyond(Evidence { never_came: true, ..asked }), Verdict::Dropped, Some(Cause::Limit)),
            // There may be one by now: what says nothing may have come to it.
            (Evidence { is_unserved: false, ..unserved(asked) }, Verdict::Forwarded, None),
            (Evidence { is_unserved: false, ..unserved(refused) }, Verdict::Refused, Some(Cause::NoBackend)),
            // Its backend itself refused, and has gone since.
            (Evidence { has_backend: true, is_unserved: true, ..refused }, Verdict::Refused, None),
            (
                Evidence { has_backend: true, is_unserved: true, ..with(asked, Cause::PortClosed) },
                Verdict::Refused,
                Some(Cause::PortClosed),
            ),
            (
                Evidence { has_backend: true, is_unserved: true, ..with(answered, Cause::Prohibited) },
                Verdict::Forwarded,
                Some(Cause::NoBackend),
            ),
        ];
        for (evidence, verdict, cause) in rows {
            assert_eq!(evidence.outcome(), (verdict, cause), "{evidence:?}");
        }
    }
}
