//! `hosts`.

use std::{io, time::Duration};

use super::{Environment, Fallthrough, read};
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
}

const KNOWN: [&str; 5] = ["<address> <name>…", "ttl", "no_reverse", "reload", "fallthrough"];

/// The options, and how often the file is looked at.
pub(super) fn parse(
    directive: &Directive,
    zones: Vec<Name>,
    environment: &Environment<'_>,
) -> Result<(HostsOptions, Option<Duration>), CorefileError> {
    let (path, own) = match directive.arguments.split_first() {
        Some((path, zones)) => (path.text.clone(), read::zones(zones, "a zone of hosts")?),
        None => ("/etc/hosts".to_owned(), Vec::new()),
    };
    let (mut ttl, mut reverse, mut interval) = (3600, true, Some(Duration::from_secs(5)));
    let mut fallthrough = Fallthrough::default();
    let mut inline = Vec::new();
    for option in &directive.options {
        match option.name.text.as_str() {
            "ttl" => ttl = read::number(read::one(option, "seconds")?, "ttl", 1, 65_535)? as u32,
            "no_reverse" => {
                read::nothing(option)?;
                reverse = false;
            }
            "reload" => {
                let every = read::duration(read::one(option, "a duration")?, "reload")?;
                interval = Some(every).filter(|every| !every.is_zero());
            }
            "fallthrough" => fallthrough = read::fallthrough(option)?,
            address => {
                let Ok(address) = address.parse() else { return Err(read::unknown("hosts", option, &KNOWN)) };
                if option.arguments.is_empty() {
                    return Err(option.missing("a name for the address"));
                }
                for name in &option.arguments {
                    let host = Name::parse(&name.text).map_err(|_| name.bad("a host's name", "a domain name"))?;
                    inline.push((address, host));
                }
            }
        }
    }
    let text = match (environment.file)(&path) {
        Ok(text) => text,
        // The file may appear later; until then there are the entries in the Corefile.
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => {
            return Err(directive.name.error(Fault::Unreadable { path, reason: error.to_string() }));
        }
    };
    let table = Hosts::new(&text, &inline, ttl, reverse);
    Ok((HostsOptions { path, zones: if own.is_empty() { zones } else { own }, table, fallthrough }, interval))
}
