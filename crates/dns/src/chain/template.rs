//! `template`.

use super::{Fallthrough, GoTemplate, Pattern, TemplateError, read, scope::Scope};
use crate::{
    corefile::{CorefileError, Directive, Fault, Word},
    message::Rcode,
    name::Name,
};

/// `template`: answers that are made of the question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateOptions {
    /// The class of questions; 255 (ANY): all.
    pub class: u16,
    /// The type of questions; 255 (ANY): all.
    pub rtype: u16,
    /// The zones.
    pub zones: Vec<Name>,
    /// What names look like, in lower case and with the dot at their end; the first that matches counts, none: all do.
    pub matches: Vec<Pattern>,
    /// Records of the answer, one for each template.
    pub answer: Vec<GoTemplate>,
    /// Records of the additional section.
    pub additional: Vec<GoTemplate>,
    /// Records of the authority section.
    pub authority: Vec<GoTemplate>,
    /// The response code.
    pub rcode: Rcode,
    /// The extended error (RFC 8914): its code, and what is said beside it.
    pub extended_error: Option<(u16, String)>,
    /// The names that go on to the next plugin when no expression matches; others are answered with SERVFAIL.
    pub fallthrough: Fallthrough,
}

const KNOWN: [&str; 7] = ["match", "answer", "additional", "authority", "rcode", "ederror", "fallthrough"];

/// `template CLASS TYPE [ZONES…]`.
pub(super) fn parse(directive: &Directive, scope: &mut Scope<'_>) -> Result<TemplateOptions, CorefileError> {
    let [class, rtype, zones @ ..] = directive.arguments.as_slice() else {
        return Err(directive.missing("a class and a record type, such as IN A or ANY ANY"));
    };
    let mut options = TemplateOptions {
        class: read::class(class, "the class of template")?,
        rtype: read::record_type(rtype, "the type of template")?,
        zones: scope.zones_or(read::zones(zones, "a zone of template")?),
        matches: Vec::new(),
        answer: Vec::new(),
        additional: Vec::new(),
        authority: Vec::new(),
        rcode: Rcode::NOERROR,
        extended_error: None,
        fallthrough: Fallthrough::default(),
    };
    scope.options(directive, |_, option| {
        if option.name.text == "match" {
            options.matches.extend(patterns(option)?);
        }
        Ok(())
    });
    // Templates may name groups of expressions that stand behind them.
    let matches = options.matches.clone();
    let groups: Vec<&str> = matches.iter().flat_map(|pattern| pattern.regex().capture_names().flatten()).collect();
    scope.options(directive, |_, option| apply(&mut options, option, &groups));
    Ok(options)
}

fn patterns(option: &Directive) -> Result<Vec<Pattern>, CorefileError> {
    if option.arguments.is_empty() {
        return Err(option.missing("a regular expression"));
    }
    option.arguments.iter().map(|word| Pattern::read(word, "an expression of template")).collect()
}

fn apply(options: &mut TemplateOptions, option: &Directive, groups: &[&str]) -> Result<(), CorefileError> {
    match option.name.text.as_str() {
        "answer" => options.answer.extend(templates(option, groups)?),
        "additional" => options.additional.extend(templates(option, groups)?),
        "authority" => options.authority.extend(templates(option, groups)?),
        "rcode" => options.rcode = read::response_code(read::one(option, "a response code")?, "rcode")?,
        "ederror" => {
            read::at_most(option, 2)?;
            let code = option.arguments.first().ok_or_else(|| option.missing("an extended error's code"))?;
            let reason = option.arguments.get(1).map_or("", |word| &word.text);
            let code = read::number(code, "the code of ederror", 0, u16::MAX.into())? as u16;
            options.extended_error = Some((code, reason.to_owned()));
        }
        "fallthrough" => options.fallthrough = read::fallthrough(option)?,
        // The first was read before; the second was an option once.
        "match" | "upstream" => {}
        _ => return Err(read::unknown("template", option, &KNOWN)),
    }
    Ok(())
}

fn templates(option: &Directive, groups: &[&str]) -> Result<Vec<GoTemplate>, CorefileError> {
    if option.arguments.is_empty() {
        return Err(option.missing("a record, such as \"{{ .Name }} 60 IN A 10.0.0.1\""));
    }
    let read = |word: &Word| {
        GoTemplate::parse(&word.text, groups).map_err(|TemplateError { at, reason }| {
            let (what, found) = ("the template".to_owned(), word.text.clone());
            let place = word.place_of(at.saturating_sub(1));
            CorefileError { place, fault: Fault::Malformed { what, found, reason } }
        })
    };
    option.arguments.iter().map(read).collect()
}
