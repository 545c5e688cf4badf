//! What `import` puts in place: snippets, files, and all files of a directory with some names.

use std::{io, path::PathBuf, sync::Arc};

use super::{
    error::{CorefileError, Fault, Place},
    lexer,
    parser::Word,
};
use crate::chain::Environment;

/// The most imports of one Corefile, as CoreDNS: beyond it they contain each other.
const MOST: usize = 1000;
/// The most words that imports may put in place, all together.
const MOST_WORDS: usize = 1_000_000;

/// What can be imported, and what was.
pub(super) struct Imports<'a> {
    environment: &'a Environment<'a>,
    snippets: Vec<Snippet>,
    files: Vec<PathBuf>,
    directories: Vec<PathBuf>,
    warnings: Vec<String>,
    count: usize,
    words: usize,
}

struct Snippet {
    name: String,
    place: Place,
    words: Vec<Word>,
}

impl<'a> Imports<'a> {
    pub(super) fn new(environment: &'a Environment<'a>) -> Self {
        let (files, directories, warnings) = Default::default();
        Self { environment, snippets: Vec::new(), files, directories, warnings, count: 0, words: 0 }
    }

    /// The files and directories that were read, and warnings.
    pub(super) fn into_found(self) -> (Vec<PathBuf>, Vec<PathBuf>, Vec<String>) {
        (self.files, self.directories, self.warnings)
    }

    /// Takes a snippet in; `word` is where its name stands.
    pub(super) fn define(&mut self, name: &str, word: &Word, words: Vec<Word>) -> Result<(), CorefileError> {
        if let Some(first) = self.snippets.iter().find(|snippet| snippet.name == name) {
            return Err(word.error(Fault::SnippetTwice { name: name.to_owned(), first: first.place.clone() }));
        }
        self.snippets.push(Snippet { name: name.to_owned(), place: word.place.clone(), words });
        Ok(())
    }

    /// What stands for `import` and the names behind it.
    pub(super) fn words(&mut self, import: &Word, names: &[Word]) -> Result<Vec<Word>, CorefileError> {
        let Some(name) = names.first() else { return Err(import.missing("the name of a snippet or file")) };
        if let Some(more) = names.get(1) {
            let allowed = "the end of the line: \"import\" takes one name".to_owned();
            return Err(more.error(Fault::Unexpected { found: more.text.clone(), allowed }));
        }
        let words = match self.snippets.iter().find(|snippet| snippet.name == name.text) {
            Some(snippet) => snippet.words.clone(),
            None => self.read_files(name)?,
        };
        self.count += 1;
        self.words += words.len();
        if self.count > MOST || self.words > MOST_WORDS {
            return Err(import.error(Fault::Imports { limit: MOST }));
        }
        Ok(words)
    }

    fn read_files(&mut self, name: &Word) -> Result<Vec<Word>, CorefileError> {
        // Beside the file in which the import stands.
        let beside = name.place.file.rsplit_once('/').map_or("", |(directory, _)| directory);
        let path = match (name.text.starts_with('/'), beside) {
            (true, _) | (false, "") => name.text.clone(),
            (false, beside) => format!("{beside}/{}", name.text),
        };
        if !path.contains(['*', '?']) {
            return self.file(name, &path);
        }
        let found = self.called(name, &path)?;
        if found.is_empty() {
            self.warnings.push(format!("{}: no file is called {:?}", name.place, name.text));
        }
        let mut words = Vec::new();
        for path in found {
            let mut more = self.file(name, &path)?;
            if let Some(first) = more.first_mut() {
                first.first = true;
            }
            words.append(&mut more);
        }
        Ok(words)
    }

    /// The files whose paths are of a pattern, directory by directory.
    fn called(&mut self, name: &Word, pattern: &str) -> Result<Vec<String>, CorefileError> {
        let has_wildcard = |part: &str| part.contains(['*', '?']);
        let (mut found, mut many) = (vec![String::new()], false);
        let mut parts = pattern.split('/').peekable();
        while let Some(part) = parts.next() {
            let end = if parts.peek().is_some() { "/" } else { "" };
            if !has_wildcard(part) {
                found.iter_mut().for_each(|path| path.push_str(&format!("{part}{end}")));
                continue;
            }
            let mut further = Vec::new();
            for path in found {
                let mut names = self.names(name, &path, many)?;
                names.retain(|name| name.ends_with('/') != end.is_empty() && matches(part, name.trim_end_matches('/')));
                names.sort_unstable();
                further.extend(names.iter().map(|name| format!("{path}{}{end}", name.trim_end_matches('/'))));
            }
            if further.len() > MOST {
                return Err(name.error(Fault::Imports { limit: MOST }));
            }
            (found, many) = (further, true);
        }
        // In some of the directories there may be no such file.
        let missing =
            |path: &String| (self.environment.file)(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
        let (gone, there): (Vec<String>, Vec<String>) = found.into_iter().partition(missing);
        self.files.extend(gone.into_iter().map(PathBuf::from));
        Ok(there)
    }

    /// What is in the directory that a path ends with; nothing where one of many is not there.
    fn names(&mut self, name: &Word, path: &str, many: bool) -> Result<Vec<String>, CorefileError> {
        let directory = match path.strip_suffix('/') {
            None => ".",
            Some("") => "/",
            Some(directory) => directory,
        };
        self.directories.push(PathBuf::from(directory));
        match (self.environment.list)(directory) {
            Err(error) if many && error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            listed => listed.map_err(|error| {
                name.error(Fault::Unreadable { path: directory.to_owned(), reason: error.to_string() })
            }),
        }
    }

    fn file(&mut self, name: &Word, path: &str) -> Result<Vec<Word>, CorefileError> {
        // Also where it cannot be read: when it can, the Corefile means something else.
        self.files.push(PathBuf::from(path));
        let text = (self.environment.file)(path).map_err(|error| {
            let known = self.snippets.iter().map(|snippet| snippet.name.clone()).collect();
            name.error(match error.kind() {
                io::ErrorKind::NotFound => Fault::NoSnippet { name: name.text.clone(), known },
                _ => Fault::Unreadable { path: path.to_owned(), reason: error.to_string() },
            })
        })?;
        match lexer::words(&Arc::from(path), &text, self.environment) {
            (words, None) => Ok(words),
            (_, Some(error)) => Err(error),
        }
    }
}

/// Whether a file's name is one of a pattern's: `*` stands for any characters, `?` for one.
fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut at, mut rest) = (0, 0);
    // Where the last star stood, and how much of the name it stands for.
    let mut star: Option<(usize, usize)> = None;
    while rest < name.len() {
        match pattern.get(at) {
            Some('*') => {
                star = Some((at, rest));
                at += 1;
            }
            Some(&c) if c == '?' || c == name[rest] => (at, rest) = (at + 1, rest + 1),
            _ => {
                let Some((star_at, taken)) = star else { return false };
                star = Some((star_at, taken + 1));
                (at, rest) = (star_at + 1, taken + 1);
            }
        }
    }
    pattern[at..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn stars_stand_for_any_characters_and_question_marks_for_one() {
        for (pattern, name) in [("*", ""), ("*.conf", "a.conf"), ("a*b*c", "aXbbYc"), ("?.db", "x.db"), ("a", "a")] {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [("*.conf", "a.config"), ("?", ""), ("a*b", "ac"), ("", "a"), ("a?", "a")] {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
        assert!(!matches(&"*a".repeat(50), &"a".repeat(49)));
    }
}
