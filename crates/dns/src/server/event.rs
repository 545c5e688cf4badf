//! What the shell hears of.

use crate::{chain::Level, destination::Destination, name::Name};

/// Something that the Corefile's `log` and `errors` plugins, or the operator, want to hear of.
#[derive(Clone, Debug)]
pub enum Event<'a> {
    /// A query was answered (`log`).
    Answered {
        /// What the Corefile's format says of it.
        line: &'a str,
    },
    /// Queries ended with SERVFAIL or REFUSED (`errors`): one, or several that are told as one.
    Failed {
        /// How loud to say it.
        level: Level,
        /// The code, the name and the type that were asked for, and why; or how many there were of what kind.
        message: &'a str,
    },
    /// Something became of a zone that this server is an authority of.
    Zone {
        /// The zone.
        zone: &'a Name,
        /// What.
        told: &'a str,
        /// It is a failure.
        failed: bool,
    },
    /// Something that is of interest to who looks for a fault (`debug`).
    Debug {
        /// What; the bytes of a message may stand behind it, on lines of their own.
        message: &'a str,
    },
    /// An upstream asks this server: it is no longer asked.
    Loop {
        /// The upstream.
        upstream: &'a Destination,
    },
}

/// Hears of events; called on the server's own path, so it has to be quick.
pub type Observer = Box<dyn Fn(&Event<'_>) + Send + Sync>;
