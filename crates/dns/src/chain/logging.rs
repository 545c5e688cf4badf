//! `errors` and `log`.

use std::time::Duration;

use super::{LogFormat, Pattern, read, scope::Scope};
use crate::{
    corefile::{CorefileError, Directive},
    name::Name,
};

/// `errors`: how failures are reported.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ErrorsOptions {
    /// Messages that are reported together.
    pub consolidate: Vec<Consolidate>,
    /// A panic on the way to an answer is reported with its stack.
    pub stacktrace: bool,
}

/// Messages that are reported once for each period, with their number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consolidate {
    /// The period, from the first message on.
    pub period: Duration,
    /// What the messages look like; the first that fits a message counts.
    pub pattern: Pattern,
    /// How loud the report is.
    pub level: Level,
    /// The first message is reported at once.
    pub show_first: bool,
}

/// How loud a report is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// `debug`
    Debug,
    /// `info`
    Info,
    /// `warning`
    Warning,
    /// `error`
    Error,
}

/// `log`: which queries are reported, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogOptions {
    /// The names: these and those below.
    pub names: Vec<Name>,
    /// The format.
    pub format: LogFormat,
    /// The classes of answers; empty means all.
    pub classes: Vec<LogClass>,
    /// Answers of other classes, too, when they took longer than this.
    pub min_duration: Option<Duration>,
}

/// A class of answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogClass {
    /// There are records.
    Success,
    /// The name, or the type, does not exist.
    Denial,
    /// A code that is neither.
    Error,
}

pub(super) fn errors(directive: &Directive, scope: &mut Scope<'_>) -> Result<ErrorsOptions, CorefileError> {
    read::at_most(directive, 1)?;
    if let Some(word) = directive.arguments.first()
        && word.text != "stdout"
    {
        return Err(word.bad("the destination of errors", "stdout"));
    }
    let mut options = ErrorsOptions::default();
    scope.options(directive, |_, option| {
        match option.name.text.as_str() {
            "consolidate" => options.consolidate.push(consolidate(option)?),
            // The second is what it was called first.
            "stacktrace" | "panicRecoveryStacktrace" => {
                read::nothing(option)?;
                options.stacktrace = true;
            }
            _ => return Err(read::unknown("errors", option, &["consolidate", "stacktrace"])),
        }
        Ok(())
    });
    Ok(options)
}

/// `consolidate DURATION REGEXP [LEVEL] [show_first]`.
fn consolidate(option: &Directive) -> Result<Consolidate, CorefileError> {
    read::at_most(option, 4)?;
    let [period, pattern, rest @ ..] = option.arguments.as_slice() else {
        return Err(option.missing("a duration and a regular expression"));
    };
    let mut consolidate = Consolidate {
        period: read::duration(period, "the period of consolidate")?,
        pattern: Pattern::read(pattern, "the regular expression of consolidate")?,
        level: Level::Error,
        show_first: false,
    };
    for word in rest {
        match word.text.as_str() {
            "debug" => consolidate.level = Level::Debug,
            "info" => consolidate.level = Level::Info,
            "warning" => consolidate.level = Level::Warning,
            "error" => consolidate.level = Level::Error,
            "show_first" => consolidate.show_first = true,
            _ => return Err(word.bad("the level of consolidate", "debug, info, warning, error or show_first")),
        }
    }
    Ok(consolidate)
}

/// `log [NAMES…] [FORMAT]`.
pub(super) fn log(directive: &Directive, scope: &mut Scope<'_>) -> Result<LogOptions, CorefileError> {
    let (names, format) = match directive.arguments.split_last() {
        Some((last, names)) if last.text.contains('{') => (names, Some(last)),
        _ => (directive.arguments.as_slice(), None),
    };
    if let Some(word) = names.iter().find(|word| word.text != ".") {
        scope.served("log/names", word);
    }
    if let Some(word) = format {
        scope.served("log/format", word);
    }
    let own = read::zones(names, "a name of log")?;
    let (pieces, unknown) = LogFormat::read(format.map_or("{common}", |word| &word.text));
    if let Some(word) = format.filter(|_| !unknown.is_empty()) {
        scope.warnings.push(format!("{}: {} is no field of log and stays as it is", word.place, unknown.join(", ")));
    }
    let mut options = LogOptions {
        names: if own.is_empty() { vec![Name::root()] } else { own },
        format: pieces,
        classes: Vec::new(),
        min_duration: None,
    };
    let mut all = false;
    scope.options(directive, |_, option| {
        match option.name.text.as_str() {
            "class" => all |= classes(option, &mut options.classes)?,
            "minDuration" => {
                options.min_duration = Some(read::duration(read::one(option, "a duration")?, "minDuration")?);
            }
            _ => return Err(read::unknown("log", option, &["class", "minDuration"])),
        }
        Ok(())
    });
    if all {
        options.classes.clear();
    }
    Ok(options)
}

/// Whether one of the classes is all of them.
fn classes(option: &Directive, classes: &mut Vec<LogClass>) -> Result<bool, CorefileError> {
    if option.arguments.is_empty() {
        return Err(option.missing("success, denial, error or all"));
    }
    let mut all = false;
    for word in &option.arguments {
        match word.text.as_str() {
            "success" => classes.push(LogClass::Success),
            "denial" => classes.push(LogClass::Denial),
            "error" => classes.push(LogClass::Error),
            "all" => all = true,
            _ => return Err(word.bad("a class of log", "success, denial, error or all")),
        }
    }
    Ok(all)
}
