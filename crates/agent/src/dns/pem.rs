//! Certificates and keys from files (PEM, RFC 7468), and the authorities that vouch for others.

use std::{
    fs, io,
    sync::{Arc, OnceLock},
};

use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

/// The authorities of a file, or those that the system trusts.
pub(crate) fn authorities(path: Option<&str>) -> io::Result<Arc<RootCertStore>> {
    let Some(path) = path else { return system() };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|error| bad(path, &error))?;
    }
    Ok(Arc::new(roots))
}

/// The authorities that the system trusts, read once.
fn system() -> io::Result<Arc<RootCertStore>> {
    static SYSTEM: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    if let Some(roots) = SYSTEM.get() {
        return Ok(Arc::clone(roots));
    }
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let reason = found.errors.first().map_or_else(|| "there are none".to_owned(), ToString::to_string);
        return Err(io::Error::other(format!(
            "the system has no certificates of authorities ({reason}); name a file with them: tls <file>"
        )));
    }
    Ok(Arc::clone(SYSTEM.get_or_init(|| Arc::new(roots))))
}

/// A certificate and what stands behind it: at least one.
pub(super) fn certificates(path: &str) -> io::Result<Vec<CertificateDer<'static>>> {
    let text = read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let found = found.map_err(|error| bad(path, &error))?;
    if found.is_empty() {
        return Err(io::Error::other(format!("{path}: there is no certificate in it")));
    }
    Ok(found)
}

/// A private key.
pub(super) fn key(path: &str) -> io::Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_slice(&read(path)?).map_err(|error| bad(path, &error))
}

/// The error that a file is not what it has to be.
pub(super) fn bad(path: &str, error: &dyn std::fmt::Display) -> io::Error {
    io::Error::other(format!("{path}: {error}"))
}

fn read(path: &str) -> io::Result<Vec<u8>> {
    fs::read(path).map_err(|error| io::Error::new(error.kind(), format!("{path}: {error}")))
}
