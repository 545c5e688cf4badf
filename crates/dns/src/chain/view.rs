//! `view`.

use super::{Expression, read, scope::Scope};
use crate::corefile::{CorefileError, Directive};

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
        let whole = crate::corefile::Word { text, ..first.clone() };
        if whole.text.contains("metadata(") {
            scope.served("view/metadata()", first);
        }
        let condition = Expression::parse(&whole.text);
        conditions.push(condition.map_err(|error| whole.malformed("the expression", &error.to_string()))?);
        Ok(())
    });
    if conditions.is_empty() {
        return Err(directive.missing("{ expr <expression> }"));
    }
    Ok(ViewOptions { name, conditions })
}
