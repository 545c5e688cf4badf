//! Kinds that clusters do without: whether a list that fails is waited for.

use std::time::{Duration, Instant};

use kube::{Error as Refusal, runtime::watcher::Error};

/// For so long an API server that answers, but with no list, is waited for: one that starts has that behind it by then.
const PATIENCE: Duration = if cfg!(test) { Duration::from_millis(300) } else { Duration::from_secs(10) };

/// What a list that failed means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// It is asked again, and waited for.
    Wait,
    /// It may not be seen, by the role of who asks: that is meant.
    Forbidden,
    /// It cannot be had, and has not been for a while: what is known of it counts.
    Unheard,
}

/// Since when a kind is not to be had.
#[derive(Debug, Default)]
pub(super) struct Absence {
    since: Option<Instant>,
}

impl Absence {
    /// The API server listed it, or said that there is none.
    pub(super) const fn over(&mut self) {
        self.since = None;
    }

    /// What this failure means. An API server that does not answer at all is waited for: nothing else can be had from it either.
    pub(super) fn judge(&mut self, error: &Error, now: Instant) -> Finding {
        match error {
            Error::InitialListFailed(Refusal::Api(status)) if status.code == 403 => Finding::Forbidden,
            Error::InitialListFailed(Refusal::Api(_) | Refusal::SerdeError(_)) => {
                let since = *self.since.get_or_insert(now);
                if now.duration_since(since) < PATIENCE { Finding::Wait } else { Finding::Unheard }
            }
            _ => Finding::Wait,
        }
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    fn failed(code: u16) -> Error {
        Error::InitialListFailed(Refusal::Api(Box::new(Status { code, ..Status::default() })))
    }

    #[test]
    fn what_answers_with_no_list_is_waited_for_a_while_and_what_does_not_answer_for_ever() {
        let (mut absence, start) = (Absence::default(), Instant::now());
        let later = start + PATIENCE;
        let garbled = || {
            let error = serde_json::from_str::<u8>("x").unwrap_err();
            Error::InitialListFailed(Refusal::SerdeError(error))
        };
        let away = Error::InitialListFailed(Refusal::LinesCodecMaxLineLengthExceeded);
        assert_eq!(absence.judge(&away, start), Finding::Wait);
        assert_eq!(absence.judge(&away, later), Finding::Wait);
        assert_eq!(absence.judge(&failed(403), start), Finding::Forbidden);
        assert_eq!(absence.judge(&failed(500), start), Finding::Wait);
        assert_eq!(absence.judge(&garbled(), later - Duration::from_millis(1)), Finding::Wait);
        assert_eq!(absence.judge(&garbled(), later), Finding::Unheard);
        absence.over();
        assert_eq!(absence.judge(&failed(503), later), Finding::Wait);
    }
}
