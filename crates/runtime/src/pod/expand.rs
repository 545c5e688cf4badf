//! `$(NAME)` in commands, arguments and values of environment variables (Kubernetes API, `Container.command`).

/// Replaces `$(NAME)` where `value` knows the name; `$$` is one dollar sign; what is unknown stays as it is.
pub(crate) fn expand<'a>(text: &str, value: impl Fn(&str) -> Option<&'a str>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find('$') {
        out.push_str(&rest[..start]);
        let after = &rest[start + 1..];
        if let Some(after) = after.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = after.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            match value(name) {
                Some(known) => out.push_str(known),
                None => {
                    out.push_str("$(");
                    out.push_str(name);
                    out.push(')');
                }
            }
            rest = after;
        } else {
            out.push('$');
            rest = after;
        }
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_names_are_replaced_and_everything_else_stays() {
        let value = |name: &str| (name == "WHO").then_some("world");
        for (text, expected) in [
            ("hello $(WHO)!", "hello world!"),
            ("$$(WHO)", "$(WHO)"),
            ("$(NOBODY) $(WHO)", "$(NOBODY) world"),
            ("$WHO $(WHO", "$WHO $(WHO"),
            ("100$", "100$"),
            ("$$$(WHO)", "$world"),
        ] {
            assert_eq!(expand(text, value), expected, "{text}");
        }
    }
}
