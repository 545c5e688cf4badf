//! Corefiles: text to a tree of server blocks and directives.
//!
//! The grammar is CoreDNS's own: server blocks `zone[:port] … { directives }`, directives `plugin arguments… [{ options }]`,
//! comments, quotes, environment variables, and snippets `(name) { … }` that `import name` puts in place. What the directives
//! mean is [`crate::chain`]'s part.

mod error;
mod key;
mod lexer;
mod parser;

pub use error::{CorefileError, Fault, Place};
pub use key::Key;
pub(crate) use key::zones;
pub use parser::{Block, Corefile, Directive, Word, parse};

#[cfg(test)]
mod tests;
