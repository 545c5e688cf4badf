//! From words to server blocks.

use std::{path::PathBuf, sync::Arc};

use super::{
    error::{CorefileError, Fault, Place},
    import::Imports,
    key::{self, Key, Scheme},
    lexer,
};
use crate::{chain::Environment, name::Name};

/// One word, with its place for errors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    /// The text, variables replaced.
    pub text: String,
    /// Where it stands.
    pub place: Place,
    /// It stood in quotes, so it is no brace and no directive's end.
    pub quoted: bool,
    /// It is the first on its line.
    pub first: bool,
}

impl Word {
    pub(super) fn is(&self, text: &str) -> bool {
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

    /// Where the character with this number, from 0, of the text stands. Behind a variable that was replaced it is about where it stands.
    #[must_use]
    pub fn place_of(&self, character: usize) -> Place {
        let mut place = self.place.clone();
        place.column += u32::from(self.quoted);
        for c in self.text.chars().take(character) {
            match c {
                '\n' => (place.line, place.column) = (place.line + 1, 1),
                // In quotes there is a backslash before it.
                '"' if self.quoted => place.column += 2,
                _ => place.column += 1,
            }
        }
        place
    }

    /// The error that something has to follow this word.
    #[must_use]
    pub fn missing(&self, needed: &str) -> CorefileError {
        self.error(Fault::Missing { after: self.text.clone(), needed: needed.to_owned() })
    }
}

/// A parsed Corefile.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Corefile {
    /// Its server blocks, in the file's order.
    pub blocks: Vec<Block>,
    /// Files that were imported.
    pub files: Vec<PathBuf>,
    /// Directories of which all files with some names were imported.
    pub directories: Vec<PathBuf>,
    /// What was accepted and has no effect, each with its place.
    pub warnings: Vec<String>,
    /// What is wrong; blocks before the first of these that ends the reading are there.
    pub errors: Vec<CorefileError>,
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

/// Parses a Corefile as far as it can be; `name` is what errors call it.
#[must_use]
pub fn parse(name: &str, text: &str, environment: &Environment<'_>) -> Corefile {
    let file: Arc<str> = Arc::from(name);
    let (words, error) = lexer::words(&file, text, environment);
    let mut parser =
        Parser { words, at: 0, imports: Imports::new(environment), corefile: Corefile::default(), depth: 0 };
    let ended = parser.all();
    let Parser { imports, mut corefile, .. } = parser;
    // A quotation without an end comes before what is missing behind it.
    corefile.errors.extend(match (error, ended) {
        (Some(error), _) => Some(error),
        (None, ended) => ended.err(),
    });
    if corefile.blocks.is_empty() && corefile.errors.is_empty() {
        corefile.errors.push(CorefileError { place: Place { file, line: 1, column: 1 }, fault: Fault::Empty });
    }
    (corefile.files, corefile.directories, corefile.warnings) = imports.into_found();
    corefile
}

struct Parser<'a> {
    words: Vec<Word>,
    at: usize,
    imports: Imports<'a>,
    corefile: Corefile,
    /// How many braces of directives are open.
    depth: usize,
}

/// How deep braces of directives may be nested: no plugin has more than one pair.
const DEPTH: usize = 8;

impl Parser<'_> {
    /// All blocks; the error is one behind which nothing can be read.
    fn all(&mut self) -> Result<(), CorefileError> {
        while self.peek().is_some() {
            if self.snippet()? || self.import()? {
                continue;
            }
            let block = self.block()?;
            self.corefile.blocks.push(block);
        }
        Ok(())
    }

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
        if self.peek()?.first { None } else { self.next() }
    }

    fn snippet(&mut self) -> Result<bool, CorefileError> {
        let Some(word) = self.peek().cloned() else { return Ok(false) };
        let name = word.text.strip_prefix('(').and_then(|name| name.strip_suffix(')'));
        let Some(name) = name.filter(|_| !word.quoted) else { return Ok(false) };
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
        if let Err(error) = self.imports.define(name, &word, words) {
            self.corefile.errors.push(error);
        }
        Ok(true)
    }

    /// Replaces `import name` at the cursor by what it names.
    fn import(&mut self) -> Result<bool, CorefileError> {
        let Some(word) = self.peek().filter(|word| word.is("import")).cloned() else { return Ok(false) };
        let start = self.at;
        self.next();
        let mut names = Vec::new();
        while let Some(name) = self.same_line() {
            if name.is("}") {
                self.at -= 1;
                break;
            }
            names.push(name);
        }
        let mut words = match self.imports.words(&word, &names) {
            Ok(words) => words,
            Err(error) if matches!(error.fault, Fault::Imports { .. }) => return Err(error),
            Err(error) => {
                self.corefile.errors.push(error);
                Vec::new()
            }
        };
        if let Some(first) = words.first_mut() {
            first.first = true;
        }
        self.words.splice(start..self.at, words);
        self.at = start;
        Ok(true)
    }

    fn open(&mut self, after: &Word) -> Result<Word, CorefileError> {
        match self.next() {
            Some(word) if word.is("{") => Ok(word),
            Some(word) => Err(word.error(Fault::Unexpected { found: word.text.clone(), allowed: "\"{\"".to_owned() })),
            None => Err(after.missing("\"{\"")),
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
            if last.as_ref().is_some_and(|last| word.first && !last.text.ends_with(',')) {
                break;
            }
            self.next();
            for part in word.text.split(',').filter(|part| !part.is_empty()) {
                match key::keys(part, &word) {
                    Ok(more) => keys.extend(more),
                    Err(error) => {
                        self.corefile.errors.push(error);
                        // So that the plugins of the block are read, too. No other block is at port 0.
                        let (zone, place) = (Name::root(), word.place.clone());
                        keys.push(Key { scheme: Scheme::Dns, zone, port: 0, place });
                    }
                }
            }
            last = Some(word);
        }
        let Some(last) = last else {
            let word = self.next().unwrap_or_else(|| self.words[0].clone());
            let allowed = "a zone to serve before the \"{\"".to_owned();
            return Err(word.error(Fault::Unexpected { found: word.text.clone(), allowed }));
        };
        // The only block of a file needs no braces.
        let open = match self.peek() {
            Some(word) if !word.is("{") && self.corefile.blocks.is_empty() => None,
            _ => Some(self.open(&last)?),
        };
        Ok(Block { keys, directives: self.directives(open.as_ref())? })
    }

    /// The lines up to the closing brace, or to the end of the file where there is no opening one.
    fn directives(&mut self, open: Option<&Word>) -> Result<Vec<Directive>, CorefileError> {
        let mut directives = Vec::new();
        loop {
            if self.import()? {
                continue;
            }
            let name = match (self.next(), open) {
                (Some(name), _) => name,
                (None, Some(open)) => return Err(open.error(Fault::Unclosed)),
                (None, None) => return Ok(directives),
            };
            if name.is("}") && open.is_some() {
                return Ok(directives);
            }
            if name.is("{") || name.is("}") {
                let allowed = if open.is_some() { "a plugin's or option's name, or \"}\"" } else { "a plugin's name" };
                return Err(name.error(Fault::Unexpected { found: name.text.clone(), allowed: allowed.to_owned() }));
            }
            let mut directive = Directive { name, arguments: Vec::new(), options: Vec::new() };
            while let Some(word) = self.same_line() {
                if word.is("{") {
                    directive.options = self.nested(&word)?;
                    break;
                }
                if word.is("}") {
                    // CoreDNS takes it as an argument of the option. Reading goes on as if it stood there.
                    if self.depth > 0 {
                        let allowed = "the end of the line, and \"}\" on a line of its own".to_owned();
                        let fault = Fault::Unexpected { found: word.text.clone(), allowed };
                        self.corefile.errors.push(word.error(fault));
                    }
                    self.at -= 1;
                    break;
                }
                directive.arguments.push(word);
            }
            directives.push(directive);
        }
    }

    /// The options between a directive's braces. As in CoreDNS the first may stand on the line of the opening one.
    fn nested(&mut self, open: &Word) -> Result<Vec<Directive>, CorefileError> {
        self.depth += 1;
        if self.depth > DEPTH {
            let allowed = format!("the end of the line: braces are nested at most {DEPTH} deep");
            return Err(open.error(Fault::Unexpected { found: "{".to_owned(), allowed }));
        }
        let directives = self.directives(Some(open));
        self.depth -= 1;
        directives
    }
}
