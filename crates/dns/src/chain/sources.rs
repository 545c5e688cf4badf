//! The plugins that serve whole zones: `file`, `auto`, `secondary`, and `transfer` that hands them on.

use std::{net::SocketAddr, time::Duration};

use ipnet::IpNet;

use super::{
    Fallthrough, Pattern, read,
    scope::Scope,
    signing,
    zonefiles::{self, LoadedZone},
};
use crate::{
    authority::catalog::MEMBERS_BYTES,
    corefile::{CorefileError, Directive, Fault, Place, Word},
    name::Name,
};

/// `file`: zones of one file (RFC 1035 §5).
#[derive(Clone, Debug)]
pub struct FileOptions {
    /// The file.
    pub path: String,
    /// The zones; each is read from the file with itself as origin.
    pub zones: Vec<Name>,
    /// What was read, in the order of `zones`.
    pub loaded: Vec<LoadedZone>,
    /// How often the file is looked at; none: never again. A minute by default.
    pub reload: Option<Duration>,
    /// The names that go on to the next plugin when they do not exist.
    pub fallthrough: Fallthrough,
}

/// `auto`: the zone files of a directory and of those below it.
#[derive(Clone, Debug)]
pub struct AutoOptions {
    /// The zones whose names are answered.
    pub zones: Vec<Name>,
    /// The directory.
    pub directory: String,
    /// The names of files with zones.
    pub pattern: Pattern,
    /// A file's origin, with `{1}` for what the first group of the pattern matched.
    pub origin: String,
    /// What was found.
    pub loaded: Vec<LoadedZone>,
    /// How often the directory is looked at; none: never again. A minute by default.
    pub reload: Option<Duration>,
}

/// `secondary`: zones that are fetched from a primary server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecondaryOptions {
    /// The zones.
    pub zones: Vec<Name>,
    /// The primary servers: when one does not answer, the next is asked.
    pub primaries: Vec<SocketAddr>,
    /// The zones list other zones, which are fetched, too (RFC 9432): those within these names, any where there are none.
    pub catalog: Option<Vec<Name>>,
    /// How many bytes of records these may have together; podnet's own option.
    pub catalog_bytes: usize,
    /// The names that go on to the next plugin when they do not exist.
    pub fallthrough: Fallthrough,
    /// The key of `tsig` with which primaries are asked; podnet's own option. And where it is named.
    pub key: Option<(Name, Place)>,
}

/// `transfer`: who may fetch zones, and is told of changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransferOptions {
    /// The zones.
    pub zones: Vec<Name>,
    /// Who.
    pub to: Vec<Peer>,
    /// The key of `tsig` with which they are told of changes; podnet's own option. And where it is named.
    pub key: Option<(Name, Place)>,
}

/// Who may fetch zones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Everybody.
    All,
    /// A network's hosts.
    Network(IpNet),
    /// A server, which is also told of changes (RFC 1996).
    Server(SocketAddr),
}

/// `file DBFILE [ZONES…]`.
pub(super) fn file(directive: &Directive, scope: &mut Scope<'_>) -> Result<FileOptions, CorefileError> {
    let Some((path, zones)) = directive.arguments.split_first() else {
        return Err(directive.missing("the zone's file"));
    };
    let mut options = FileOptions {
        path: scope.path(&path.text),
        zones: scope.zones_or(read::zones(zones, "a zone of file")?),
        loaded: Vec::new(),
        reload: Some(Duration::from_secs(60)),
        fallthrough: Fallthrough::default(),
    };
    scope.options(directive, |_, option| {
        match option.name.text.as_str() {
            "reload" => options.reload = read::interval(option)?,
            // Files are compared as a whole, which a new time alone does not deceive, nor a serial number that stayed.
            "reload_by_mtime" => read::nothing(option)?,
            "fallthrough" => options.fallthrough = read::fallthrough(option)?,
            // It was an option once; aliases are followed by this server.
            "upstream" => {}
            _ => return Err(unknown("file", option, &["reload", "reload_by_mtime", "fallthrough"])),
        }
        Ok(())
    });
    for zone in &options.zones {
        options.loaded.push(zonefiles::load(path, &options.path, zone, options.reload, scope)?);
    }
    Ok(options)
}

pub(super) fn auto(directive: &Directive, scope: &mut Scope<'_>) -> Result<AutoOptions, CorefileError> {
    let zones = scope.zones_or(read::zones(&directive.arguments, "a zone of auto")?);
    let mut files = None;
    let mut reload = Some(Duration::from_secs(60));
    scope.options(directive, |scope, option| {
        match option.name.text.as_str() {
            "directory" => files = Some(zone_files(option, scope, &mut reload)?),
            "reload" => reload = read::interval(option)?,
            "upstream" => {}
            _ => return Err(unknown("auto", option, &["directory", "reload"])),
        }
        Ok(())
    });
    let (directory, pattern, origin) = files.ok_or_else(|| directive.missing("{ directory … }"))?;
    let mut options = AutoOptions { zones, directory, pattern, origin, loaded: Vec::new(), reload };
    options.loaded = zonefiles::found(&options, &directive.name, scope)?;
    Ok(options)
}

/// `directory DIR [REGEXP ORIGIN_TEMPLATE [TIMEOUT]]`.
fn zone_files(
    option: &Directive,
    scope: &Scope<'_>,
    reload: &mut Option<Duration>,
) -> Result<(String, Pattern, String), CorefileError> {
    read::at_most(option, 4)?;
    let Some((directory, rest)) = option.arguments.split_first() else {
        return Err(option.missing("the directory with the zones' files"));
    };
    let path = scope.path(&directory.text);
    if path.is_empty() {
        return Err(directory.bad("the directory of auto", "a path"));
    }
    let default = Word { text: r"db\.(.*)".to_owned(), ..directory.clone() };
    let pattern = Pattern::read(rest.first().unwrap_or(&default), "the names of zone files")?;
    let origin = match rest.get(1) {
        Some(origin) => read::replacement(origin, "the origin", &pattern)?,
        None if rest.len() == 1 => return Err(option.missing("the origin of a file, such as {1}")),
        None => "{1}".to_owned(),
    };
    if let Some(word) = rest.get(2) {
        *reload = Some(Duration::from_secs(read::number(word, "the time between looks", 1, 1 << 31)?));
    }
    Ok((path, pattern, origin))
}

pub(super) fn secondary(directive: &Directive, scope: &mut Scope<'_>) -> Result<SecondaryOptions, CorefileError> {
    let mut options = SecondaryOptions {
        zones: scope.zones_or(read::zones(&directive.arguments, "a zone of secondary")?),
        primaries: Vec::new(),
        catalog: None,
        catalog_bytes: MEMBERS_BYTES,
        fallthrough: Fallthrough::default(),
        key: None,
    };
    scope.options(directive, |_, option| {
        match option.name.text.as_str() {
            "key" => options.key = Some(signing::key_name(option)?),
            "transfer" => {
                let Some((from, servers)) = option.arguments.split_first() else {
                    return Err(option.missing("from, and the primary servers"));
                };
                if from.text != "from" {
                    return Err(from.bad("the direction of the transfer", "from; handing on is plugin \"transfer\""));
                }
                if servers.is_empty() {
                    return Err(option.missing("at least one primary server"));
                }
                for word in servers {
                    options.primaries.push(read::server(word, "a primary server", 53)?);
                }
            }
            "catalog" => options.catalog = Some(read::zones(&option.arguments, "a zone that a catalog may list")?),
            "catalog_bytes" => {
                let bytes = read::one(option, "a number of bytes")?;
                options.catalog_bytes = read::number(bytes, "catalog_bytes", 1, 1 << 40)? as usize;
            }
            "fallthrough" => options.fallthrough = read::fallthrough(option)?,
            "upstream" => {}
            _ => {
                let known = ["transfer from", "catalog", "catalog_bytes", "fallthrough", "key"];
                return Err(unknown("secondary", option, &known));
            }
        }
        Ok(())
    });
    if options.primaries.is_empty() {
        return Err(directive.missing("{ transfer from <address>… }"));
    }
    let bounds = directive.options.iter().find(|option| option.name.text == "catalog_bytes");
    if let Some(option) = bounds.filter(|_| options.catalog.is_none()) {
        return Err(option.name.bad("an option without catalog", "catalog beside it: it bounds what a catalog lists"));
    }
    Ok(options)
}

pub(super) fn transfer(directive: &Directive, scope: &mut Scope<'_>) -> Result<TransferOptions, CorefileError> {
    let zones = scope.zones_or(read::zones(&directive.arguments, "a zone of transfer")?);
    let (mut to, mut key) = (Vec::new(), None);
    scope.options(directive, |_, option| {
        match option.name.text.as_str() {
            "to" => {}
            "key" => {
                key = Some(signing::key_name(option)?);
                return Ok(());
            }
            _ => return Err(read::unknown("transfer", option, &["to", "key"])),
        }
        if option.arguments.is_empty() {
            return Err(option.missing("at least one address, network or *"));
        }
        for word in &option.arguments {
            to.push(peer(word)?);
        }
        Ok(())
    });
    if to.is_empty() {
        return Err(directive.missing("{ to <address>… }"));
    }
    Ok(TransferOptions { zones, to, key })
}

fn peer(word: &Word) -> Result<Peer, CorefileError> {
    if word.text == "*" {
        return Ok(Peer::All);
    }
    if let Ok(net) = word.text.parse::<IpNet>() {
        return Ok(Peer::Network(net.trunc()));
    }
    let allowed = "an address, address:port, a network such as 10.0.0.0/24, or *";
    read::server(word, "who may fetch zones", 53)
        .map(Peer::Server)
        .map_err(|_| word.bad("who may fetch zones", allowed))
}

/// An unknown option; what was one once is explained.
fn unknown(plugin: &'static str, option: &Directive, known: &[&'static str]) -> CorefileError {
    match option.name.text.as_str() {
        "transfer" => option.name.error(Fault::Unexpected {
            found: "transfer".to_owned(),
            allowed: format!("{}; zones are handed on by plugin \"transfer\"", known.join(", ")),
        }),
        _ => read::unknown(plugin, option, known),
    }
}
