//! Who we are to a collector, by files that are read for each connection, as they change.

use std::fs;

use super::SendError;

/// A file's text, without what stands around it.
pub(super) fn read(path: &str) -> Result<String, SendError> {
    let text = fs::read_to_string(path).map_err(|error| SendError::Away(format!("{path}: {error}")))?;
    Ok(text.trim().to_owned())
}

/// A user and a password, with a colon between them.
#[cfg(any(feature = "amqp", feature = "kafka"))]
pub(super) fn user(path: &str) -> Result<(String, String), SendError> {
    let text = read(path)?;
    let (user, password) =
        text.split_once(':').ok_or_else(|| SendError::Away(format!("{path}: it is not user:password")))?;
    Ok((user.to_owned(), password.to_owned()))
}
