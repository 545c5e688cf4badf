//! Which connections a program in a process of its own passes on, for who tells flows in this one: a copy of its list, which is brought up to date
//! when it is asked.

use std::{
    io,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use podnet_flow::Key;
use tracing::debug;

use super::{
    away::{self, Link},
    passed::{self, Passed, Since},
    wire::{Purpose, Reply, Request},
};

/// The copy is this old at most. Flows are read every second, and then of all it is asked.
const AGE: Duration = Duration::from_millis(100);
/// When nobody can be asked.
const PAUSE: Duration = Duration::from_secs(1);
/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(1);

static MIRROR: Mutex<Option<Mirror>> = Mutex::new(None);

/// What a backend sees of a connection that a client began so, whoever passes it on.
pub(crate) fn onward(key: &Key) -> Option<Key> {
    passed::onward(key).or_else(|| ask(|passed| passed.onward(key)))
}

/// How a client began a connection of which a backend sees this.
pub(crate) fn origin(key: &Key) -> Option<Key> {
    passed::origin(key).or_else(|| ask(|passed| passed.origin(key)))
}

fn ask(question: impl FnOnce(&Passed) -> Option<Key>) -> Option<Key> {
    let socket = away::knows()?;
    let mut mirror = MIRROR.lock().unwrap_or_else(PoisonError::into_inner);
    let mirror = mirror.get_or_insert_default();
    let now = Instant::now();
    if mirror.next.is_none_or(|next| next <= now) {
        let open = || Link::open(socket, Purpose::Know, PATIENCE);
        let age = match mirror.refresh(open, now) {
            Ok(()) => AGE,
            Err(error) => {
                debug!(%error, "which connections to Services are passed on is not known");
                PAUSE
            }
        };
        mirror.next = Some(Instant::now() + age);
    }
    question(&mirror.passed)
}

#[derive(Debug, Default)]
struct Mirror {
    link: Option<Link>,
    passed: Passed,
    since: Since,
    /// When it is brought up to date again.
    next: Option<Instant>,
}

impl Mirror {
    fn refresh(&mut self, open: impl FnOnce() -> io::Result<Link>, now: Instant) -> io::Result<()> {
        // Whatever goes wrong, another link is made the next time; the program behind it may be another one.
        let link = match self.link.take() {
            Some(link) => link,
            None => {
                let link = open()?;
                if !link.is_own_version() {
                    return Err(io::Error::new(io::ErrorKind::Unsupported, "the program is another version"));
                }
                self.passed = Passed::default();
                self.since = Since::default();
                link
            }
        };
        let Reply::Passed(news) = link.ask(&Request::Passed(self.since))? else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        self.since = self.passed.take(news, now);
        self.link = Some(link);
        Ok(())
    }
}
