//! From words to server blocks.

use std::sync::Arc;

use super::{
    error::{CorefileError, Fault, Place},
    key::{self, Key},
    lexer,
};
use crate::chain::Environment;

/// How deep imports may be nested.
const IMPORT_DEPTH: usize = 16;

/// One word, with its place for errors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    /// The text, variables replaced.
    pub text: String,
    /// Where it stands.
    pub place: Place,
    /// It stood in quotes, so it is no brace and no directive's end.
    pub quoted: bool,
}

impl Word {
    fn is(&self, text: &str) -> bool {
        !self.quoted && self.text == text
    }

    /// An error at this word.
    #[must_use]
    pub fn error(&self, fault: Fault) -> CorefileError {
        CorefileError { place: self.place.clone(), fault }
    }

    /// The error that this word, a value of `what`, is not `allowed`.
    #[must_use]
    pub fn bad(&self, what: &str, allowed: &str) -> CorefileError {
        self.error(Fault::BadValue { what: what.to_owned(), found: self.text.clone(), allowed: allowed.to_owned() })
    }

    /// The error that this word, which should be `what`, cannot be read.
    #[must_use]
    pub fn malformed(&self, what: &str, reason: &str) -> CorefileError {
        self.error(Fault::Malformed { what: what.to_owned(), found: self.text.clone(), reason: reason.to_owned() })
    }

    /// The error that something has to follow this word.
    #[must_use]
    pub fn missing(&self, needed: &str) -> CorefileError {
        self.error(Fault::Missing { after: self.text.clone(), needed: needed.to_owned() })
    }
}

/// A parsed Corefile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Corefile {
    /// Its server blocks, in the file's order.
    pub blocks: Vec<Block>,
}

/// A server block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// The zones and ports that it serves, at least one.
    pub keys: Vec<Key>,
    /// Its directives, in the file's order.
    pub directives: Vec<Directive>,
}

/// A line: a name, arguments, and perhaps a block of such lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directive {
    /// The plugin's or option's name.
    pub name: Word,
    /// What follows it on its line.
    pub arguments: Vec<Word>,
    /// The lines between its braces.
    pub options: Vec<Directive>,
}

impl Directive {
    /// The error that something has to follow on this line.
    #[must_use]
    pub fn missing(&self, needed: &str) -> CorefileError {
        let last = self.arguments.last().unwrap_or(&self.name);
        last.error(Fault::Missing { after: self.name.text.clone(), needed: needed.to_owned() })
    }
}

/// Parses a Corefile; `name` is what errors call it.
///
/// # Errors
/// With the first thing that is wrong, and where.
pub fn parse(name: &str, text: &str, environment: &Environment<'_>) -> Result<Corefile, CorefileError> {
    let file: Arc<str> = Arc::from(name);
    let words = lexer::words(&file, text, environment)?;
    let mut parser = Parser { words, at: 0, snippets: Vec::new(), environment, imported: 0 };
    let mut blocks: Vec<Block> = Vec::new();
    while parser.peek().is_some() {
        if parser.snippet()? || parser.import()? {
            continue;
        }
        let block = parser.block()?;
        blocks.push(block);
    }
    if blocks.is_empty() {
        return Err(CorefileError { place: Place { file, line: 1, column: 1 }, fault: Fault::Empty });
    }
    Ok(Corefile { blocks })
}

struct Snippet {
    name: String,
    place: Place,
    words: Vec<Word>,
}

struct Parser<'a> {
    words: Vec<Word>,
    at: usize,
    snippets: Vec<Snippet>,
    environment: &'a Environment<'a>,
    imported: usize,
}

impl Parser<'_> {
    fn peek(&self) -> Option<&Word> {
        self.words.get(self.at)
    }

    fn next(&mut self) -> Option<Word> {
        let word = self.words.get(self.at).cloned();
        self.at += usize::from(word.is_some());
        word
    }

    /// The next word where it stands on the same line as the one before it.
    fn same_line(&mut self) -> Option<Word> {
        let before = self.at.checked_sub(1).and_then(|at| self.words.get(at))?;
        let next = self.peek()?;
        // A quoted word may span lines; what follows it counts by where the word began, which is what CoreDNS does too.
        let same = next.place.line == before.place.line && next.place.file == before.place.file;
        if same { self.next() } else { None }
    }

    fn snippet(&mut self) -> Result<bool, CorefileError> {
        let Some(word) = self.peek().cloned() else { return Ok(false) };
        let name = word.text.strip_prefix('(').and_then(|name| name.strip_suffix(')'));
        let Some(name) = name.filter(|_| !word.quoted) else { return Ok(false) };
        if let Some(first) = self.snippets.iter().find(|snippet| snippet.name == name) {
            return Err(word.error(Fault::SnippetTwice { name: name.to_owned(), first: first.place.clone() }));
        }
        let name = name.to_owned();
        self.next();
        let open = self.open(&word)?;
        let start = self.at;
        let mut depth = 1;
        while depth > 0 {
            let Some(word) = self.next() else { return Err(open.error(Fault::Unclosed)) };
            depth += usize::from(word.is("{"));
            depth -= usize::from(word.is("}"));
        }
        let words = self.words[start..self.at - 1].to_vec();
        self.snippets.push(Snippet { name, place: word.place, words });
        Ok(true)
    }

    /// Replaces `import name` at the cursor by what it names.
    fn import(&mut self) -> Result<bool, CorefileError> {
        let Some(word) = self.peek().filter(|word| word.is("import")).cloned() else { return Ok(false) };
        let start = self.at;
        self.next();
        let Some(name) = self.same_line() else {
            return Err(word.error(Fault::Missing {
                after: "import".to_owned(),
                needed: "the name of a snippet or file".to_owned(),
            }));
        };
        self.imported += 1;
        if self.imported > IMPORT_DEPTH * 16 {
            return Err(word.error(Fault::ImportDepth { limit: IMPORT_DEPTH }));
        }
        let words = match self.snippets.iter().find(|snippet| snippet.name == name.text) {
            Some(snippet) => snippet.words.clone(),
            None => match (self.environment.file)(&name.text) {
                Ok(text) => lexer::words(&Arc::from(name.text.as_str()), &text, self.environment)?,
                Err(_) => {
                    let known = self.snippets.iter().map(|snippet| snippet.name.clone()).collect();
                    return Err(name.error(Fault::NoSnippet { name: name.text.clone(), known }));
                }
            },
        };
        self.words.splice(start..self.at, words);
        self.at = start;
        Ok(true)
    }

    fn open(&mut self, after: &Word) -> Result<Word, CorefileError> {
        match self.next() {
            Some(word) if word.is("{") => Ok(word),
            Some(word) => Err(word.error(Fault::Unexpected { found: word.text.clone(), allowed: "\"{\"".to_owned() })),
            None => Err(after.error(Fault::Missing { after: after.text.clone(), needed: "\"{\"".to_owned() })),
        }
    }

    fn block(&mut self) -> Result<Block, CorefileError> {
        let mut keys = Vec::new();
        let mut last: Option<Word> = None;
        while let Some(word) = self.peek().filter(|word| !word.is("{")).cloned() {
            if word.is("}") {
                let allowed = "a zone to serve, or \"(name)\" of a snippet".to_owned();
                return Err(word.error(Fault::Unexpected { found: word.text.clone(), allowed }));
            }
            // Keys of one block stand on one line, or go on after a comma.
            if let Some(last) = &last
                && last.place.line != word.place.line
                && !last.text.ends_with(',')
            {
                break;
            }
            self.next();
            for part in word.text.split(',').filter(|part| !part.is_empty()) {
                keys.extend(key::keys(part, &word)?);
            }
            last = Some(word);
        }
        let Some(last) = last else {
            let word = self.next().unwrap_or_else(|| self.words[0].clone());
            let allowed = "a zone to serve before the \"{\"".to_owned();
            return Err(word.error(Fault::Unexpected { found: word.text.clone(), allowed }));
        };
        let open = self.open(&last)?;
        Ok(Block { keys, directives: self.directives(&open)? })
    }

    /// The lines up to the closing brace.
    fn directives(&mut self, open: &Word) -> Result<Vec<Directive>, CorefileError> {
        let mut directives = Vec::new();
        loop {
            if self.import()? {
                continue;
            }
            let Some(name) = self.next() else { return Err(open.error(Fault::Unclosed)) };
            if name.is("}") {
                return Ok(directives);
            }
            if name.is("{") {
                let allowed = "a plugin's or option's name, or \"}\"".to_owned();
                return Err(name.error(Fault::Unexpected { found: name.text.clone(), allowed }));
            }
            let mut directive = Directive { name, arguments: Vec::new(), options: Vec::new() };
            while let Some(word) = self.same_line() {
                if word.is("{") {
                    directive.options = self.nested(&word)?;
                    break;
                }
                if word.is("}") {
                    self.at -= 1;
                    break;
                }
                directive.arguments.push(word);
            }
            directives.push(directive);
        }
    }

    fn nested(&mut self, open: &Word) -> Result<Vec<Directive>, CorefileError> {
        if let Some(word) = self.peek()
            && word.place.line == open.place.line
            && !word.is("}")
        {
            let allowed = "the end of the line".to_owned();
            return Err(word.error(Fault::Unexpected { found: word.text.clone(), allowed }));
        }
        self.directives(open)
    }
}
