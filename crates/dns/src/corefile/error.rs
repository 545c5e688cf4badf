//! What can be wrong with a Corefile.

use std::{fmt, sync::Arc};

/// Where a word stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file, as the user named it.
    pub file: Arc<str>,
    /// The line, from 1.
    pub line: u32,
    /// The column in characters, from 1.
    pub column: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// A Corefile that cannot be loaded: the place, and what is wrong there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {fault}")]
pub struct CorefileError {
    /// Where.
    pub place: Place,
    /// What.
    pub fault: Fault,
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A word that cannot stand here.
    #[error("found {found:?}, allowed here: {allowed}")]
    Unexpected {
        /// The word.
        found: String,
        /// What may stand here.
        allowed: String,
    },
    /// The file or line ends where something has to follow.
    #[error("{after:?} ends here, needed: {needed}")]
    Missing {
        /// What ends.
        after: String,
        /// What has to follow.
        needed: String,
    },
    /// A brace that is never closed.
    #[error("this '{{' is never closed by a '}}' on a line of its own")]
    Unclosed,
    /// A quote that is never closed.
    #[error("this quotation never ends")]
    UnclosedQuote,
    /// A plugin that does not exist here.
    #[error("unknown plugin {found:?}{}; known plugins: {}", meant(found, known), known.join(", "))]
    UnknownPlugin {
        /// Its name.
        found: String,
        /// Those that can be used.
        known: Vec<&'static str>,
    },
    /// An option that the plugin does not have.
    #[error("plugin {plugin:?} has no option {found:?}{}; its options: {}", meant(found, known), known.join(", "))]
    UnknownOption {
        /// The plugin.
        plugin: &'static str,
        /// The option.
        found: String,
        /// Those that it has.
        known: Vec<&'static str>,
    },
    /// A value that is not one of its kind.
    #[error("{what} cannot be {found:?}; allowed: {allowed}")]
    BadValue {
        /// What it is the value of.
        what: String,
        /// The value.
        found: String,
        /// What is allowed.
        allowed: String,
    },
    /// A value that has the right form on the outside only: a regular expression, a template.
    #[error("{what} {found:?} cannot be read: {reason}")]
    Malformed {
        /// What it is.
        what: String,
        /// The value.
        found: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A plugin or option that is understood, but does nothing yet.
    #[error("{what:?} is understood, but not served by this server yet")]
    NotServed {
        /// The plugin, or plugin and option.
        what: String,
    },
    /// A plugin of CoreDNS that is no part of this server.
    #[error("plugin {plugin:?} is no part of this server: {why}")]
    NoPart {
        /// The plugin.
        plugin: String,
        /// Why not.
        why: &'static str,
    },
    /// A plugin that may stand only once in its server block.
    #[error("plugin {plugin:?} stands here a second time; once in each server block is allowed")]
    Twice {
        /// The plugin.
        plugin: String,
    },
    /// Two server blocks for the same zone and port.
    #[error("{key} is already served by the server block at {first}")]
    Served {
        /// Zone and port.
        key: String,
        /// Where the first one stands.
        first: Place,
    },
    /// Two server blocks at one place that do not ask the same of clients.
    #[error(
        "tls asks something else of the clients of {key} than in the server block at {first}, which listens at the same place; \
         allowed: the same client_auth and authorities, since a connection begins before it says what it asks for"
    )]
    Clients {
        /// Zone and port.
        key: String,
        /// Where the first one stands.
        first: Place,
    },
    /// A snippet with a name that another one has.
    #[error("snippet {name:?} is already defined at {first}")]
    SnippetTwice {
        /// Its name.
        name: String,
        /// Where the first one stands.
        first: Place,
    },
    /// An import of something that does not exist.
    #[error("no snippet is called {name:?}{}, and no file of that name can be read", snippets(known))]
    NoSnippet {
        /// The name.
        name: String,
        /// The snippets that exist.
        known: Vec<String>,
    },
    /// Imports that contain each other.
    #[error("there are more than {limit} imports, or they are too large: they contain each other")]
    Imports {
        /// The limit.
        limit: usize,
    },
    /// A file that cannot be read.
    #[error("cannot read {path}: {reason}")]
    Unreadable {
        /// The file.
        path: String,
        /// What the system says.
        reason: String,
    },
    /// A host's name without an address.
    #[error(
        "no address of upstream {host:?} is known: {reason}; write addresses, or name servers that know it with \"resolver\""
    )]
    Unresolved {
        /// The name.
        host: String,
        /// Why not.
        reason: String,
    },
    /// A key that no `tsig` has.
    #[error("there is no key {name:?}; known: {}", if known.is_empty() { "none".to_owned() } else { known.join(", ") })]
    UnknownKey {
        /// What is called.
        name: String,
        /// Those that there are.
        known: Vec<String>,
    },
    /// A file that is no zone.
    #[error("zone {zone} cannot be loaded: {reason}")]
    Zone {
        /// The zone.
        zone: String,
        /// Where and what.
        reason: String,
    },
    /// Nothing is served.
    #[error("there is no server block; needed: at least one, such as \".:53 {{ … }}\"")]
    Empty,
}

/// What a misspelled word may have meant: the known one that the fewest changes of letters lead to, at most two.
fn meant(found: &str, known: &[&'static str]) -> String {
    // A word that long is no misspelling; the distance takes time with its square.
    let near = known.iter().filter(|_| found.len() <= 40).map(|known| (distance(found, known), *known));
    match near.filter(|(distance, known)| *distance <= 2 && *distance < known.len()).min() {
        Some((_, known)) => format!("; did you mean {known:?}?"),
        None => String::new(),
    }
}

/// How many letters have to be put in, taken out, changed, or swapped with their neighbour.
fn distance(from: &str, to: &str) -> usize {
    let (from, to): (Vec<char>, Vec<char>) = (from.chars().collect(), to.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=to.len()).collect()];
    for i in 1..=from.len() {
        let mut row = vec![i];
        for j in 1..=to.len() {
            let same = from[i - 1] == to[j - 1];
            let mut least = (rows[i - 1][j - 1] + usize::from(!same)).min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && from[i - 1] == to[j - 2] && from[i - 2] == to[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[from.len()][to.len()]
}

fn snippets(known: &[String]) -> String {
    if known.is_empty() { String::new() } else { format!(" (there are: {})", known.join(", ")) }
}
