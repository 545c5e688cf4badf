//! `view`.

use super::{Expression, ExpressionError, read, scope::Scope};
use crate::corefile::{CorefileError, Directive, Fault};

/// `view`: the server block answers only questions for which all its conditions hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ViewOptions {
    /// What metrics and metadata call it.
    pub name: String,
    /// The conditions, at least one.
    pub conditions: Vec<Expression>,
}

/// `view NAME { expr EXPRESSION }`.
pub(super) fn parse(directive: &Directive, scope: &mut Scope<'_>) -> Result<ViewOptions, CorefileError> {
    let name = read::one(directive, "the view's name")?.text.clone();
    let mut conditions = Vec::new();
    scope.options(directive, |scope, option| {
        if option.name.text != "expr" {
            return Err(read::unknown("view", option, &["expr"]));
        }
        let Some(first) = option.arguments.first() else { return Err(option.missing("an expression")) };
        let words: Vec<&str> = option.arguments.iter().map(|word| word.text.as_str()).collect();
        let text = words.join(" ");
        if text.contains("metadata(") {
            scope.served("view/metadata()", first);
        }
        let malformed = |ExpressionError { at, reason }| {
            let (what, found) = ("the expression".to_owned(), text.clone());
            let place = read::place_in(option, at.saturating_sub(1));
            CorefileError { place, fault: Fault::Malformed { what, found, reason } }
        };
        conditions.push(Expression::parse(&text).map_err(malformed)?);
        Ok(())
    });
    if conditions.is_empty() {
        return Err(directive.missing("{ expr <expression> }"));
    }
    Ok(ViewOptions { name, conditions })
}
