//! Words of a Corefile.

use std::sync::Arc;

use super::{
    error::{CorefileError, Fault, Place},
    parser::Word,
};
use crate::chain::Environment;

/// Splits a text into words: white space separates, `#` outside of quotes begins a comment, wherever on a line (corefile(5)), quotes
/// hold a word together (`\"` is a quote within, and a backslash before anything else is one), and `{$NAME}` and `{%NAME%}` are replaced
/// from the environment. Beside the words, what is wrong.
pub(super) fn words(file: &Arc<str>, text: &str, environment: &Environment<'_>) -> (Vec<Word>, Option<CorefileError>) {
    let mut lexer = Lexer { file, rest: text.chars().peekable(), line: 1, column: 1, first: true };
    let mut words = Vec::new();
    // A word that is left out leaves its place at the line's start to the next one.
    let mut first = false;
    loop {
        let mut word = match lexer.word() {
            Ok(Some(word)) => word,
            Ok(None) => return (words, None),
            Err(error) => return (words, Some(error)),
        };
        first |= word.first;
        word.text = substitute(&word.text, environment);
        // A variable that is not set leaves no word behind, as in the shell.
        if word.quoted || !word.text.is_empty() {
            word.first = std::mem::take(&mut first);
            words.push(word);
        }
    }
}

struct Lexer<'a> {
    file: &'a Arc<str>,
    rest: std::iter::Peekable<std::str::Chars<'a>>,
    line: u32,
    column: u32,
    /// The next word is the first on its line.
    first: bool,
}

impl Lexer<'_> {
    fn place(&self) -> Place {
        Place { file: Arc::clone(self.file), line: self.line, column: self.column }
    }

    fn next(&mut self) -> Option<char> {
        let next = self.rest.next()?;
        if next == '\n' {
            self.line += 1;
            self.column = 1;
        } else {
            self.column += 1;
        }
        Some(next)
    }

    fn word(&mut self) -> Result<Option<Word>, CorefileError> {
        while let Some(&next) = self.rest.peek() {
            match next {
                '\u{feff}' => {}
                '#' => {
                    while self.rest.peek().is_some_and(|&next| next != '\n') {
                        self.next();
                    }
                    continue;
                }
                '"' => return self.quoted().map(Some),
                '\n' => self.first = true,
                next if next.is_whitespace() => {}
                _ => return Ok(Some(self.plain())),
            }
            self.next();
        }
        Ok(None)
    }

    fn plain(&mut self) -> Word {
        let (place, first) = (self.place(), std::mem::take(&mut self.first));
        let mut text = String::new();
        while let Some(&next) = self.rest.peek() {
            if next.is_whitespace() || next == '#' {
                break;
            }
            text.push(next);
            self.next();
        }
        Word { text, place, quoted: false, first }
    }

    fn quoted(&mut self) -> Result<Word, CorefileError> {
        let (place, first) = (self.place(), std::mem::take(&mut self.first));
        let mut text = String::new();
        self.next();
        while let Some(next) = self.next() {
            match next {
                '"' => return Ok(Word { text, place, quoted: true, first }),
                '\\' => {
                    // What stands behind it ends nothing: the second of two does not escape a quote.
                    let Some(escaped) = self.next() else { break };
                    if escaped != '"' {
                        text.push('\\');
                    }
                    text.push(escaped);
                }
                other => text.push(other),
            }
        }
        Err(CorefileError { place, fault: Fault::UnclosedQuote })
    }
}

fn substitute(text: &str, environment: &Environment<'_>) -> String {
    let mut out = String::new();
    let mut rest = text;
    'scan: while let Some(at) = rest.find('{') {
        for (open, close) in [("{$", "}"), ("{%", "%}")] {
            let Some((name, tail)) = rest[at..].strip_prefix(open).and_then(|name| name.split_once(close)) else {
                continue;
            };
            out.push_str(&rest[..at]);
            out.push_str(&(environment.variable)(name).unwrap_or_default());
            rest = tail;
            continue 'scan;
        }
        out.push_str(&rest[..=at]);
        rest = &rest[at + 1..];
    }
    out.push_str(rest);
    out
}
