//! Corefiles: text to a tree of server blocks and directives.
//!
//! The grammar is CoreDNS's own: server blocks `zone[:port] … { directives }`, directives `plugin arguments… [{ options }]`,
//! comments, quotes, environment variables, and snippets `(name) { … }` and files that `import name` puts in place. What the
//! directives mean is [`crate::chain`]'s part.

mod error;
mod import;
mod key;
mod lexer;
mod parser;

pub use error::{CorefileError, Fault, Place};
pub(crate) use key::zones;
pub use key::{Key, Scheme};
pub use parser::{Block, Corefile, Directive, Word, parse};

#[cfg(test)]
mod tests;
