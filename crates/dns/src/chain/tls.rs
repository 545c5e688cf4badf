//! What plugins say about TLS alike: files with a certificate, its key and the authorities.

use std::path::PathBuf;

use super::{read, scope::Scope};
use crate::corefile::{CorefileError, Directive};

/// Files for TLS, in PEM; their paths are below `root`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// The own certificate, with its chain.
    pub certificate: Option<String>,
    /// Its private key; there is one when there is a certificate.
    pub key: Option<String>,
    /// The authorities that vouch for the other side; none: the system's.
    pub authorities: Option<String>,
}

/// `tls [CERT KEY] [CA]` of a client: no argument, the authorities, the certificate and its key, or all three.
pub(super) fn of_client(option: &Directive, scope: &mut Scope<'_>) -> Result<TlsFiles, CorefileError> {
    read::no_options(option)?;
    read::at_most(option, 3)?;
    let paths: Vec<String> = option.arguments.iter().map(|word| scope.path(&word.text)).collect();
    scope.files.extend(paths.iter().map(PathBuf::from));
    let mut paths = paths.into_iter();
    Ok(match paths.len() {
        0 | 1 => TlsFiles { authorities: paths.next(), ..TlsFiles::default() },
        _ => TlsFiles { certificate: paths.next(), key: paths.next(), authorities: paths.next() },
    })
}
