//! The zones of `file` and `auto`: read with the Corefile, and again whenever one of their files changes.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use super::{AutoOptions, scope::Scope};
use crate::{
    authority::{Zone, zonefile},
    corefile::{CorefileError, Fault, Word},
    name::Name,
};

/// How many directories below each other `auto` goes down: those of names spelled backwards are fewer.
const DEPTH: usize = 32;
/// The most directories in which one `auto` looks, each of which is watched; as many as there may be imports.
const MOST: usize = 1000;

/// A zone of a file.
#[derive(Clone, Debug)]
pub struct LoadedZone {
    /// Its name.
    pub origin: Name,
    /// Its data; none while the file is missing, and of `auto` while it is no zone. What was served before is served on then.
    pub zone: Option<Arc<Zone>>,
}

/// The zones of the files in a directory and below it, called as `auto` says. One that cannot be loaded is left out, which is said, as
/// CoreDNS does: the others are right. `word` is where the Corefile names the directory.
pub(super) fn found(
    options: &AutoOptions,
    word: &Word,
    scope: &mut Scope<'_>,
) -> Result<Vec<LoadedZone>, CorefileError> {
    let mut loaded = Vec::new();
    let mut paths: BTreeMap<Name, String> = BTreeMap::new();
    for path in files(options, word, scope)? {
        let Some(origin) = origin_of(options, &path) else { continue };
        let Ok(origin) = Name::parse(&origin) else {
            scope.warnings.push(format!("{}: {path}: {origin:?} is no name of a zone", word.place));
            continue;
        };
        if !options.zones.iter().any(|zone| origin.within(zone)) {
            continue;
        }
        if let Some(first) = paths.get(&origin) {
            scope.warnings.push(format!("{}: {path} is not read: {first} is zone {origin} already", word.place));
            continue;
        }
        let zone = load(word, &path, &origin, options.reload, scope).unwrap_or_else(|error| {
            let so = format!("{path} alone is left out: its zone stays as it was read before, or is not served");
            scope.warnings.push(format!("{error}; {so}"));
            LoadedZone { origin: origin.clone(), zone: None }
        });
        loaded.push(zone);
        paths.insert(origin, path);
    }
    Ok(loaded)
}

/// The origin of a file, as text; none: it is not called as zone files are.
fn origin_of(options: &AutoOptions, path: &str) -> Option<String> {
    let groups = options.pattern.regex().captures(path.rsplit('/').next()?)?;
    let mut origin = options.origin.clone();
    for (number, group) in groups.iter().enumerate() {
        origin = origin.replace(&format!("{{{number}}}"), group.map_or("", |group| group.as_str()));
    }
    Some(origin)
}

/// The paths of the files in a directory and below it, in their order; each directory is watched. One that is not there yet has none.
fn files(options: &AutoOptions, word: &Word, scope: &mut Scope<'_>) -> Result<Vec<String>, CorefileError> {
    // What is left to look at, the next one last, and how deep it is. Directories end with a slash.
    let mut left = vec![(format!("{}/", options.directory.trim_end_matches('/')), 0)];
    let (mut files, mut read, mut beyond) = (Vec::new(), 0, None);
    while let Some((path, depth)) = left.pop() {
        if !path.ends_with('/') {
            files.push(path);
            continue;
        }
        if depth > DEPTH || read == MOST {
            beyond = beyond.or(Some(path));
            continue;
        }
        read += 1;
        let directory = if path == "/" { "/" } else { path.trim_end_matches('/') };
        scope.directories.push(PathBuf::from(directory));
        scope.watched.push((PathBuf::from(directory), options.reload));
        let mut names = match (scope.environment.list)(directory) {
            Ok(names) => names,
            Err(error) => {
                let what = match error.kind() {
                    io::ErrorKind::NotFound => format!("directory {directory} is missing"),
                    _ if depth > 0 => format!("cannot read {directory}: {error}"),
                    _ => {
                        let (path, reason) = (directory.to_owned(), error.to_string());
                        return Err(word.error(Fault::Unreadable { path, reason }));
                    }
                };
                scope.warnings.push(format!("{}: {what}: no zones are served from it", word.place));
                Vec::new()
            }
        };
        // As in CoreDNS no link to a directory is followed: it may lead out, or back.
        names.retain(|name| !name.ends_with("//"));
        // A directory's name ends before its slash, as CoreDNS orders them: of two files for one zone the same one is first.
        names.sort_unstable_by(|one, other| one.trim_end_matches('/').cmp(other.trim_end_matches('/')));
        left.extend(names.into_iter().rev().map(|name| (format!("{path}{name}"), depth + 1)));
    }
    if let Some(path) = beyond {
        let bounds = format!("zone files are looked for in {MOST} directories at most, up to {DEPTH} deep");
        scope.warnings.push(format!("{}: {path} is passed by: {bounds}", word.place));
    }
    Ok(files)
}

/// Reads a file as the zone `origin`. One that is missing may come later: until then the zone's names are failures, which is
/// said. `word` is where the Corefile names it; `every`: how often the file, and those that it includes, are looked at again.
pub(super) fn load(
    word: &Word,
    path: &str,
    origin: &Name,
    every: Option<Duration>,
    scope: &mut Scope<'_>,
) -> Result<LoadedZone, CorefileError> {
    scope.watch(path, every);
    let environment = scope.environment;
    let text = match (environment.file)(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            scope.warnings.push(format!("{}: {path} is missing: zone {origin} is not served", word.place));
            return Ok(LoadedZone { origin: origin.clone(), zone: None });
        }
        Err(error) => {
            return Err(word.error(Fault::Unreadable { path: path.to_owned(), reason: error.to_string() }));
        }
    };
    let directory = Path::new(path).parent().unwrap_or(Path::new(""));
    let included = RefCell::new(BTreeSet::new());
    let include = |name: &str| {
        let beside = directory.join(name).display().to_string();
        let text = (environment.file)(&beside);
        included.borrow_mut().insert(beside);
        text
    };
    let parsed = zonefile::parse(path, &text, origin, &include).and_then(|file| Zone::from_file(origin, &file, path));
    // Of a file that is no zone, too: it may become one by what it includes.
    for beside in included.into_inner() {
        scope.watch(&beside, every);
    }
    let bad = |reason: String| word.error(Fault::Zone { zone: origin.to_string(), reason });
    let (zone, warnings) = parsed.map_err(|error| bad(error.to_string()))?;
    scope.warnings.extend(warnings.iter().map(ToString::to_string));
    Ok(LoadedZone { origin: origin.clone(), zone: Some(Arc::new(zone)) })
}

#[cfg(test)]
mod tests {
    use super::{DEPTH, MOST};
    use crate::{Config, Environment};

    #[test]
    fn directories_without_end_are_walked_as_far_as_the_bounds_and_links_not_at_all() {
        let list = |_: &str| Ok(["a/", "b/", "link//"].map(str::to_owned).to_vec());
        let environment = Environment { list: &list, ..Environment::EMPTY };
        let config = Config::load("Corefile", ". {\n auto {\n directory /zones\n }\n}\n", &environment).unwrap();
        assert_eq!(config.directories.len(), MOST);
        assert!(!config.directories.iter().any(|path| path.ends_with("link")));
        // Behind "/" and "zones".
        let deepest = config.directories.iter().map(|path| path.components().count()).max();
        assert_eq!(deepest, Some(DEPTH + 2));
        assert!(config.warnings.len() == 1 && config.warnings[0].contains("is passed by"), "{:?}", config.warnings);
    }
}
