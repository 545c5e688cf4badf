//! Who holds a client certificate that TLS has verified already, as Kubernetes reads it.

use x509_parser::prelude::{FromDer, X509Certificate};

/// Why a certificate says nothing about its holder.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// It is not a certificate.
    #[error("the client's certificate is malformed")]
    Malformed(#[source] x509_parser::nom::Err<x509_parser::error::X509Error>),
    /// It names nobody.
    #[error("the client's certificate has no common name")]
    Nameless,
}

/// The user (`CN`) and its groups (each `O`) of a DER certificate.
///
/// # Errors
///
/// When it is no certificate, or names nobody.
pub fn holder(der: &[u8]) -> Result<(String, Vec<String>), CertificateError> {
    let (_, certificate) = X509Certificate::from_der(der).map_err(CertificateError::Malformed)?;
    let subject = certificate.subject();
    let user = subject.iter_common_name().find_map(|name| name.as_str().ok()).ok_or(CertificateError::Nameless)?;
    let groups = subject.iter_organization().filter_map(|name| name.as_str().ok()).map(str::to_owned).collect();
    Ok((user.to_owned(), groups))
}
