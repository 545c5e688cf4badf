//! The zones of `file` and `auto`: read with the Corefile, and again whenever one of their files changes.

use std::{io, path::Path, sync::Arc, time::Duration};

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
/// said. `word` is where the Corefile names it; `every`: how often the file, and those that it includes, are looked at again.
pub(super) fn load(
    word: &Word,
    path: &str,
    origin: &Name,
    every: Option<Duration>,
    scope: &mut Scope<'_>,
) -> Result<LoadedZone, CorefileError> {
    scope.watch(path, every);
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
    for included in &file.included {
        scope.watch(&beside(included), every);
    }
    scope.warnings.extend(warnings.iter().map(ToString::to_string));
    Ok(LoadedZone { origin: origin.clone(), zone: Some(Arc::new(zone)) })
}
