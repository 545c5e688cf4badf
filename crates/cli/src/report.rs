//! How failures reach the user: what failed, on what, why, and what to do.

use std::{error::Error, fmt, process::ExitCode};

use podnet_model::errors::chain;

/// A failed command.
pub(crate) struct Failure {
    what: String,
    cause: Option<Box<dyn Error + Send + Sync>>,
    /// More lines, for example the end of a log.
    detail: Vec<String>,
    remedy: Option<String>,
    /// See [`Failure::exit_code`].
    code: u8,
}

impl Failure {
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), cause: None, detail: Vec::new(), remedy: None, code: 1 }
    }

    pub(crate) fn because(what: impl Into<String>, cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { cause: Some(cause.into()), ..Self::new(what) }
    }

    /// Arguments that do not go together; what is wrong with one by itself is said by clap.
    pub(crate) fn usage(what: impl Into<String>) -> Self {
        Self { code: 2, ..Self::new(what) }
    }

    /// Nothing that was looked at is wrong, and not all could be looked at.
    pub(crate) fn incomplete(what: impl Into<String>) -> Self {
        Self { code: 3, ..Self::new(what) }
    }

    /// Lines to show below what failed.
    pub(crate) fn detail(mut self, lines: impl IntoIterator<Item = String>) -> Self {
        self.detail.extend(lines);
        self
    }

    /// What the user can do about it.
    pub(crate) fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// 2 for wrong usage, as clap's own errors have it; 3 where what is asked is not known as a whole; otherwise 1.
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code)
    }

    /// What failed and why, in one sentence.
    pub(crate) fn sentence(&self) -> String {
        match &self.cause {
            Some(cause) => format!("{}: {}", self.what, chain(&**cause)),
            None => self.what.clone(),
        }
    }

    pub(crate) fn print(&self) {
        eprintln!("{self}");
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "podnet: {}", self.sentence())?;
        for line in &self.detail {
            write!(f, "\n  | {line}")?;
        }
        if let Some(remedy) = &self.remedy {
            write!(f, "\n  → {remedy}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Attaches to an error what was being done.
pub(crate) trait Doing<T> {
    /// `what` reads as "cannot …".
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, Failure>;
}

impl<T, E: Into<Box<dyn Error + Send + Sync>>> Doing<T> for Result<T, E> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|error| Failure::because(what(), error))
    }
}

/// One line for those who are not root.
pub(crate) fn require_root(command: &str) -> Result<(), Failure> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    Err(Failure::new(format!("`podnet {command}` needs root: sudo podnet {command}")))
}
