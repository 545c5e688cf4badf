//! Regular expressions of Corefiles, compiled when they are loaded.

use regex::{Regex, RegexBuilder};

use crate::corefile::{CorefileError, Word};

/// A regular expression; two are the same when their texts are.
///
/// Matching takes time linear in the text, as in CoreDNS, and the compiled form is bounded, so that a Corefile cannot take the
/// server's memory.
#[derive(Clone, Debug)]
pub struct Pattern(Regex);

/// How large a compiled expression may be, in bytes: ten thousand characters of plain text compile to less.
const COMPILED_SIZE: usize = 4 << 20;

impl Pattern {
    /// Compiles a word.
    ///
    /// # Errors
    /// When it is no regular expression, or too large a one.
    pub(super) fn read(word: &Word, what: &str) -> Result<Self, CorefileError> {
        Self::compile(&word.text).map_err(|reason| word.malformed(what, &reason))
    }

    /// Compiles a text; the error is the reason why it cannot be.
    pub(super) fn compile(text: &str) -> Result<Self, String> {
        let built = RegexBuilder::new(text).size_limit(COMPILED_SIZE).build();
        built.map(Self).map_err(|error| one_line(&error))
    }

    /// The compiled expression.
    #[must_use]
    pub fn regex(&self) -> &Regex {
        &self.0
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Eq for Pattern {}

/// The library draws the expression with a mark below it; here the last line says what is wrong.
fn one_line(error: &regex::Error) -> String {
    let text = error.to_string();
    let last = text.lines().last().unwrap_or_default();
    last.strip_prefix("error: ").unwrap_or(last).to_owned()
}
