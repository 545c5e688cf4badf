//! Zone files (RFC 1035 §5, RFC 2308 §4): text to records, each with its place.

mod directive;
mod error;
mod lexer;
mod parser;

pub use error::{ZoneFault, ZoneFileError};
pub use parser::{ZoneFile, parse};

/// The records of a text without includes.
#[cfg(test)]
pub(crate) fn records(text: &str, origin: &str) -> Result<Vec<super::Record>, ZoneFileError> {
    let origin = crate::name::Name::parse(origin).unwrap();
    parse("db", text, &origin, &|_| Err(std::io::ErrorKind::NotFound.into())).map(|file| file.records)
}

#[cfg(test)]
mod tests;
