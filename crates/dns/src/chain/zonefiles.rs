//! The zones of `file` and `auto`: read with the Corefile, and again whenever one of their files changes.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::scope::Scope;
use crate::{
    authority::{Zone, zonefile},
    corefile::{CorefileError, Fault, Word},
    name::Name,
};

/// A zone of a file.
#[derive(Clone, Debug)]
pub struct LoadedZone {
    /// Its name.
    pub origin: Name,
    /// Its data; none while the file is missing.
    pub zone: Option<Arc<Zone>>,
}

/// Reads a file as the zone `origin`. One that is missing may come later: until then the zone's names are failures, which is
/// said. `word` is where the Corefile names it; `watched`: the file, and those that it includes, are looked at again.
pub(super) fn load(
    word: &Word,
    path: &str,
    origin: &Name,
    watched: bool,
    scope: &mut Scope<'_>,
) -> Result<LoadedZone, CorefileError> {
    if watched {
        scope.files.push(PathBuf::from(path));
    }
    let text = match (scope.environment.file)(path) {
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
    let beside = |included: &str| directory.join(included).display().to_string();
    let parsed = zonefile::parse(path, &text, origin, &|included| (scope.environment.file)(&beside(included)))
        .and_then(|file| Zone::from_file(origin, &file, path).map(|(zone, warnings)| (file, zone, warnings)));
    let bad = |reason: String| word.error(Fault::Zone { zone: origin.to_string(), reason });
    let (file, zone, warnings) = parsed.map_err(|error| bad(error.to_string()))?;
    if watched {
        scope.files.extend(file.included.iter().map(|included| PathBuf::from(beside(included))));
    }
    scope.warnings.extend(warnings.iter().map(ToString::to_string));
    Ok(LoadedZone { origin: origin.clone(), zone: Some(Arc::new(zone)) })
}
