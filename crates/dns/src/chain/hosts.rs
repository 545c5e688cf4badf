//! `hosts`.

use std::{io, time::Duration};

use super::{Fallthrough, read, scope::Scope};
use crate::{
    corefile::{CorefileError, Directive, Fault},
    hosts::Hosts,
    name::Name,
};

/// What the `hosts` plugin answers.
#[derive(Clone, Debug)]
pub struct HostsOptions {
    /// The hosts file.
    pub path: String,
    /// The zones whose names it answers.
    pub zones: Vec<Name>,
    /// The names.
    pub table: Hosts,
    /// The names that go on to the next plugin.
    pub fallthrough: Fallthrough,
    /// Those that it knows go on, too, with questions for types that it has nothing of.
    pub fallthrough_unsupported: bool,
    /// How often the file is looked at; none: never again. Five seconds by default.
    pub reload: Option<Duration>,
}

const KNOWN: [&str; 6] = ["<address> <name>…", "ttl", "no_reverse", "reload", "fallthrough", "fallthrough_unsupported"];

/// `hosts [FILE [ZONES…]]`.
pub(super) fn parse(directive: &Directive, scope: &mut Scope<'_>) -> Result<HostsOptions, CorefileError> {
    let (path, own) = match directive.arguments.split_first() {
        Some((path, zones)) => (scope.path(&path.text), read::zones(zones, "a zone of hosts")?),
        None => ("/etc/hosts".to_owned(), Vec::new()),
    };
    let (mut ttl, mut reverse, mut reload) = (3600, true, Some(Duration::from_secs(5)));
    let mut fallthrough = Fallthrough::default();
    let mut unsupported = None;
    let mut inline = Vec::new();
    scope.options(directive, |_, option| {
        match option.name.text.as_str() {
            "ttl" => ttl = read::number(read::one(option, "seconds")?, "ttl", 1, 65_535)? as u32,
            "no_reverse" => reverse = read::nothing(option).map(|()| false)?,
            "reload" => reload = read::interval(option)?,
            "fallthrough" => fallthrough = read::fallthrough(option)?,
            "fallthrough_unsupported" => {
                read::nothing(option)?;
                unsupported = Some(option.name.clone());
            }
            address => {
                let Ok(address) = address.parse() else { return Err(read::unknown("hosts", option, &KNOWN)) };
                if option.arguments.is_empty() {
                    return Err(option.missing("a name for the address"));
                }
                for name in &option.arguments {
                    inline.push((address, read::name(name, "a host's name")?));
                }
            }
        }
        Ok(())
    });
    if let Some(word) = unsupported.as_ref().filter(|_| fallthrough == Fallthrough::default()) {
        return Err(word.bad("fallthrough_unsupported", "this option beside fallthrough, whose zones it has"));
    }
    let text = match (scope.environment.file)(&path) {
        Ok(text) => text,
        // The file may appear later; until then there are the entries in the Corefile.
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => {
            return Err(directive.name.error(Fault::Unreadable { path, reason: error.to_string() }));
        }
    };
    scope.watch(&path, reload);
    let table = Hosts::new(&text, &inline, ttl, reverse);
    Ok(HostsOptions {
        path,
        zones: scope.zones_or(own),
        table,
        fallthrough,
        fallthrough_unsupported: unsupported.is_some(),
        reload,
    })
}
