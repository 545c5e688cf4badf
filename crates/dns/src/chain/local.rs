//! `local`.

use super::{read, scope::Scope};
use crate::corefile::{CorefileError, Directive};

/// What the `local` plugin answers beside names of the local zones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalOptions {
    /// Names that begin with `localhost`, which a search path makes of it, are this machine's as well. They are unless the Corefile says
    /// otherwise: somebody may have a host of that name.
    pub localhost_prefix: bool,
}

/// `local { localhost_prefix on|off }`.
pub(super) fn parse(directive: &Directive, scope: &mut Scope<'_>) -> Result<LocalOptions, CorefileError> {
    read::at_most(directive, 0)?;
    let mut options = LocalOptions { localhost_prefix: true };
    scope.options(directive, |_, option| {
        if option.name.text != "localhost_prefix" {
            return Err(read::unknown("local", option, &["localhost_prefix"]));
        }
        let word = read::one(option, "on or off")?;
        options.localhost_prefix = match word.text.as_str() {
            "on" => true,
            "off" => false,
            _ => return Err(word.bad("localhost_prefix", "on or off")),
        };
        Ok(())
    });
    Ok(options)
}
