//! `keylog`: the keys of connections, for who wants to read their traffic (draft-ietf-tls-keylogfile).

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    sync::{Arc, Mutex, PoisonError},
};

use rustls::KeyLog;

use crate::dns::pem;

/// A file to which keys are appended; nobody but its owner reads it.
pub(super) fn open(path: &str) -> io::Result<Arc<dyn KeyLog>> {
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path);
    Ok(Arc::new(Lines(Mutex::new(file.map_err(|error| pem::bad(path, &error))?))))
}

#[derive(Debug)]
struct Lines(Mutex<File>);

impl KeyLog for Lines {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let line = format!("{label} {} {}\n", hex(client_random), hex(secret));
        // A full disk costs who listens in some keys, and nobody an answer.
        let _ = self.0.lock().unwrap_or_else(PoisonError::into_inner).write_all(line.as_bytes());
    }
}
