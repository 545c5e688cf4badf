//! Text to lines of words: quotes, comments, and parentheses that join lines (RFC 1035 §5.1).

use std::borrow::Cow;

use super::error::ZoneFault;
use crate::authority::rdata::Word;

/// A line, or several that parentheses join.
#[derive(Debug)]
pub(super) struct Line<'a> {
    /// It begins with space.
    pub(super) indented: bool,
    /// Its words, at least one.
    pub(super) words: Vec<Word<'a>>,
    /// Where its text ends.
    pub(super) end: usize,
}

/// Reads lines.
pub(super) struct Lexer<'a> {
    text: &'a str,
    at: usize,
    line: u32,
}

/// A fault at a byte of the text.
pub(super) type Located = (usize, ZoneFault);

impl<'a> Lexer<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        // A byte order mark is no part of the first name.
        let at = if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
        Self { text, at, line: 1 }
    }

    /// The next line that has words.
    pub(super) fn next(&mut self) -> Result<Option<Line<'a>>, Located> {
        let bytes = self.text.as_bytes();
        let mut words = Vec::new();
        let mut indented = false;
        let mut open = Vec::new();
        let mut start = true;
        let mut glued = false;
        while let Some(&byte) = bytes.get(self.at) {
            match byte {
                b'\n' => {
                    self.at += 1;
                    self.line += 1;
                    glued = false;
                    if open.is_empty() {
                        if !words.is_empty() {
                            return Ok(Some(Line { indented, words, end: self.at - 1 }));
                        }
                        (start, indented) = (true, false);
                        continue;
                    }
                }
                b' ' | b'\t' | b'\r' => {
                    indented |= start && words.is_empty();
                    glued = false;
                    self.at += 1;
                }
                b';' => self.at += bytes[self.at..].iter().take_while(|byte| **byte != b'\n').count(),
                b'(' => {
                    open.push(self.at);
                    glued = false;
                    self.at += 1;
                }
                b')' => {
                    open.pop().ok_or((self.at, ZoneFault::CloseParenthesis))?;
                    glued = false;
                    self.at += 1;
                }
                b'"' => {
                    words.push(self.quoted(glued)?);
                    glued = true;
                }
                _ => {
                    words.push(self.bare(glued));
                    glued = true;
                }
            }
            start = false;
        }
        if let Some(at) = open.pop() {
            return Err((at, ZoneFault::OpenParenthesis));
        }
        Ok((!words.is_empty()).then_some(Line { indented, words, end: self.at }))
    }

    fn quoted(&mut self, glued: bool) -> Result<Word<'a>, Located> {
        let bytes = self.text.as_bytes();
        let start = self.at + 1;
        let mut at = start;
        loop {
            match bytes.get(at) {
                Some(b'"') => break,
                Some(b'\\') => at += 2,
                Some(b'\n') | None => return Err((self.at, ZoneFault::Quote)),
                Some(_) => at += 1,
            }
        }
        let word =
            Word { text: Cow::Borrowed(&self.text[start..at]), quoted: true, glued, at: self.at, line: self.line };
        self.at = at + 1;
        Ok(word)
    }

    fn bare(&mut self, glued: bool) -> Word<'a> {
        let bytes = self.text.as_bytes();
        let start = self.at;
        while let Some(&byte) = bytes.get(self.at) {
            match byte {
                b' ' | b'\t' | b'\r' | b'\n' | b';' | b'(' | b')' | b'"' => break,
                // An escaped character belongs to the word, whatever it is; a line's end does not.
                b'\\' if bytes.get(self.at + 1).is_some_and(|next| *next != b'\n') => self.at += 2,
                _ => self.at += 1,
            }
        }
        // An escape may have gone into the middle of a character.
        while !self.text.is_char_boundary(self.at) {
            self.at += 1;
        }
        Word { text: Cow::Borrowed(&self.text[start..self.at]), quoted: false, glued, at: start, line: self.line }
    }
}
