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
    #[error("unknown plugin {found:?}; known plugins: {}", known.join(", "))]
    UnknownPlugin {
        /// Its name.
        found: String,
        /// Those that can be used.
        known: Vec<&'static str>,
    },
    /// An option that the plugin does not have.
    #[error("plugin {plugin:?} has no option {found:?}; its options: {}", known.join(", "))]
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
    #[error("the imports are nested more than {limit} deep: they contain each other")]
    ImportDepth {
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
    /// Nothing is served.
    #[error("there is no server block; needed: at least one, such as \".:53 {{ … }}\"")]
    Empty,
}

fn snippets(known: &[String]) -> String {
    if known.is_empty() { String::new() } else { format!(" (there are: {})", known.join(", ")) }
}
