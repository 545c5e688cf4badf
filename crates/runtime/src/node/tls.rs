//! The streaming server's side of TLS: its own certificate, and clients only of the cluster's authority.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};

use crate::config::NodeConfig;

/// A certificate or key of the streaming server is not usable.
#[derive(Debug, thiserror::Error)]
#[error("cannot use {} for the streaming server: {reason}", path.display())]
pub struct TlsError {
    path: PathBuf,
    reason: String,
}

/// Reads the files and makes the configuration.
pub(super) fn server(config: &NodeConfig) -> Result<Arc<ServerConfig>, TlsError> {
    let fail = |path: &Path| {
        let path = path.to_owned();
        move |reason: String| TlsError { path, reason }
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    for authority in certificates(&config.client_ca)? {
        roots.add(authority).map_err(|error| fail(&config.client_ca)(error.to_string()))?;
    }
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .map_err(|error| fail(&config.client_ca)(error.to_string()))?;
    let own = certificates(&config.serving_certificate)?;
    let key = fs::read(&config.serving_key)
        .map_err(|error| error.to_string())
        .and_then(|text| PrivateKeyDer::from_pem_slice(&text).map_err(|error| error.to_string()))
        .map_err(fail(&config.serving_key))?;
    let server = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| fail(&config.serving_certificate)(error.to_string()))?
        .with_client_cert_verifier(clients)
        .with_single_cert(own, key)
        .map_err(|error| fail(&config.serving_certificate)(error.to_string()))?;
    Ok(Arc::new(server))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |reason: String| TlsError { path: path.to_owned(), reason };
    let text = fs::read(path).map_err(|error| failed(error.to_string()))?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match found {
        Ok(found) if found.is_empty() => Err(failed("there is no certificate in it".into())),
        Ok(found) => Ok(found),
        Err(error) => Err(failed(error.to_string())),
    }
}
