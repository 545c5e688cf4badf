//! How much the client may be sent: the windows of SPDY/3.1.
//!
//! Go's `spdystream`, and so every kubectl, neither sends nor heeds `WINDOW_UPDATE`. Flow control therefore begins with the first
//! `SETTINGS` or `WINDOW_UPDATE` of a peer; until then TCP alone slows us down. What was sent before counts from the start.

use tokio::sync::watch;

/// The windows' size unless `SETTINGS` says otherwise.
const INITIAL_WINDOW: i64 = 64 * 1024;
/// `SETTINGS_INITIAL_WINDOW_SIZE`.
const INITIAL_WINDOW_SIZE: u32 = 7;

/// A stream towards the client that can be large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Output {
    Stdout,
    Stderr,
}

/// The windows of a session.
pub(super) struct Flow(watch::Sender<Windows>);

#[derive(Debug)]
struct Windows {
    spoken: bool,
    initial: i64,
    session: i64,
    stdout: i64,
    stderr: i64,
}

impl Default for Flow {
    fn default() -> Self {
        let windows = Windows {
            spoken: false,
            initial: INITIAL_WINDOW,
            session: INITIAL_WINDOW,
            stdout: INITIAL_WINDOW,
            stderr: INITIAL_WINDOW,
        };
        Flow(watch::Sender::new(windows))
    }
}

impl Flow {
    /// Waits until something may be sent and answers how much of `wanted` (at least 1) it is.
    pub(super) async fn take(&self, output: Output, wanted: usize) -> usize {
        let mut windows = self.0.subscribe();
        loop {
            // The sender is `self`, so this cannot end otherwise.
            drop(windows.wait_for(|windows| windows.free(output) > 0).await);
            let mut taken = 0;
            self.0.send_modify(|windows| taken = windows.take(output, wanted));
            if taken > 0 {
                return taken;
            }
        }
    }

    /// Whether the peer does flow control.
    pub(super) fn is_spoken(&self) -> bool {
        self.0.borrow().spoken
    }

    /// `SETTINGS`: identifiers and values.
    pub(super) fn settings(&self, settings: &[(u32, u32)]) {
        self.0.send_modify(|windows| {
            windows.spoken = true;
            for (_, size) in settings.iter().filter(|(id, _)| *id == INITIAL_WINDOW_SIZE) {
                let change = i64::from(*size) - windows.initial;
                windows.initial = i64::from(*size);
                windows.stdout += change;
                windows.stderr += change;
            }
        });
    }

    /// `WINDOW_UPDATE` of a stream.
    pub(super) fn grant(&self, output: Output, delta: u32) {
        self.0.send_modify(|windows| {
            windows.spoken = true;
            *windows.stream(output) += i64::from(delta);
        });
    }

    /// `WINDOW_UPDATE` of the session.
    pub(super) fn grant_session(&self, delta: u32) {
        self.0.send_modify(|windows| {
            windows.spoken = true;
            windows.session += i64::from(delta);
        });
    }
}

impl Windows {
    fn stream(&mut self, output: Output) -> &mut i64 {
        match output {
            Output::Stdout => &mut self.stdout,
            Output::Stderr => &mut self.stderr,
        }
    }

    fn free(&self, output: Output) -> i64 {
        let stream = match output {
            Output::Stdout => self.stdout,
            Output::Stderr => self.stderr,
        };
        if self.spoken { stream.min(self.session) } else { i64::MAX }
    }

    fn take(&mut self, output: Output, wanted: usize) -> usize {
        let wanted = i64::try_from(wanted).unwrap_or(i64::MAX);
        let taken = self.free(output).clamp(0, wanted);
        *self.stream(output) -= taken;
        self.session -= taken;
        usize::try_from(taken).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_peer_without_flow_control_is_never_waited_for() {
        let flow = Flow::default();
        for _ in 0..10 {
            assert_eq!(flow.take(Output::Stdout, 32 * 1024).await, 32 * 1024);
        }
    }

    #[tokio::test]
    async fn a_peer_with_flow_control_gets_what_it_grants() {
        let flow = Flow::default();
        flow.settings(&[(INITIAL_WINDOW_SIZE, 1000)]);
        assert_eq!(flow.take(Output::Stdout, 4000).await, 1000);
        assert!(flow.take(Output::Stdout, 1).now_or_never().is_none());
        assert_eq!(flow.take(Output::Stderr, 10).await, 10, "streams have windows of their own");
        flow.grant(Output::Stdout, 5);
        assert_eq!(flow.take(Output::Stdout, 4000).await, 5);
    }

    #[tokio::test]
    async fn the_session_window_bounds_all_streams_together() {
        let flow = Flow::default();
        flow.settings(&[(INITIAL_WINDOW_SIZE, 1 << 20)]);
        assert_eq!(flow.take(Output::Stdout, 1 << 20).await, 64 * 1024);
        assert!(flow.take(Output::Stderr, 1).now_or_never().is_none());
        flow.grant_session(7);
        assert_eq!(flow.take(Output::Stderr, 100).await, 7);
    }
}
