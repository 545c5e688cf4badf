//! What a directive is read in: its server block, its surroundings, and what was found out on the way.

use std::{path::PathBuf, time::Duration};

use super::{
    Environment,
    order::{NOT_SERVED, WITHOUT_EFFECT},
    read::no_options,
};
use crate::{
    corefile::{CorefileError, Directive, Fault, Key, Word},
    name::Name,
};

/// The surroundings of a directive.
pub(super) struct Scope<'a> {
    /// What the server block serves.
    pub(super) keys: &'a [Key],
    /// Variables and files.
    pub(super) environment: &'a Environment<'a>,
    /// What `root` says: before it, relative paths are as they are.
    pub(super) root: Option<String>,
    /// Interfaces that were looked at.
    pub(super) interfaces: Vec<String>,
    /// Files that were read.
    pub(super) files: Vec<PathBuf>,
    /// Directories whose files were listed.
    pub(super) directories: Vec<PathBuf>,
    /// Those of both that plugins look at by themselves, and how often; none: never again.
    pub(super) watched: Vec<(PathBuf, Option<Duration>)>,
    /// What has no effect.
    pub(super) warnings: Vec<String>,
    /// What is wrong.
    pub(super) errors: Vec<CorefileError>,
}

impl<'a> Scope<'a> {
    pub(super) fn new(keys: &'a [Key], environment: &'a Environment<'a>) -> Self {
        Self {
            keys,
            environment,
            root: None,
            interfaces: Vec::new(),
            files: Vec::new(),
            directories: Vec::new(),
            watched: Vec::new(),
            warnings: Vec::new(),
            errors: Vec::new(),
        }
    }

    /// The zones of the server block.
    pub(super) fn zones(&self) -> Vec<Name> {
        self.keys.iter().map(|key| key.zone.clone()).collect()
    }

    /// A plugin's own zones, or those of the server block where it names none.
    pub(super) fn zones_or(&self, own: Vec<Name>) -> Vec<Name> {
        if own.is_empty() { self.zones() } else { own }
    }

    /// A file's path below `root`.
    pub(super) fn path(&self, path: &str) -> String {
        match &self.root {
            Some(root) if !path.starts_with('/') => format!("{}/{path}", root.trim_end_matches('/')),
            _ => path.to_owned(),
        }
    }

    /// Notes a file that a plugin reads, and looks at so often by itself; none: never again.
    pub(super) fn watch(&mut self, path: &str, every: Option<Duration>) {
        self.files.push(PathBuf::from(path));
        self.watched.push((PathBuf::from(path), every));
    }

    /// Reads the options of a directive one by one, so that each can be wrong by itself.
    pub(super) fn options(
        &mut self,
        directive: &Directive,
        mut read: impl FnMut(&mut Self, &Directive) -> Result<(), CorefileError>,
    ) {
        for option in &directive.options {
            // No option has a block of its own.
            match read(self, option).and_then(|()| no_options(option)) {
                Ok(()) => self.served(&format!("{}/{}", directive.name.text, option.name.text), &option.name),
                Err(error) => self.errors.push(error),
            }
        }
    }

    /// How much is wrong, apart from what is only not served.
    pub(super) fn faults(&self) -> usize {
        self.errors.iter().filter(|error| !matches!(error.fault, Fault::NotServed { .. })).count()
    }

    /// Tells where `what` was read, and is right, but is not acted on.
    pub(super) fn served(&mut self, what: &str, word: &Word) {
        if NOT_SERVED.contains(&what) {
            self.errors.push(word.error(Fault::NotServed { what: what.replacen('/', " ", 1) }));
        } else if WITHOUT_EFFECT.contains(&what) {
            self.warnings.push(format!("{}: {:?} has no effect yet", word.place, what.replacen('/', " ", 1)));
        }
    }
}
