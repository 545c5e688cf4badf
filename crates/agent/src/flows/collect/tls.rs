//! With whom TLS is spoken.

use std::{io, sync::Arc};

use rustls::ClientConfig;

use crate::dns::pem;

/// How TLS is spoken: with whom these authorities vouch for, or those that the system trusts. Read for each connection, as files change.
pub(super) fn tls(authorities: Option<&str>) -> io::Result<Arc<ClientConfig>> {
    let roots = match authorities {
        Some(path) => pem::authorities(Some(path))?,
        None => pem::authorities(None).map_err(|error| io::Error::other(format!("{error}; or name one: ?ca=FILE")))?,
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}
