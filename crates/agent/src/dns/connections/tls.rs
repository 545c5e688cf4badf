//! TLS towards upstreams (RFC 7858): their certificates have to be for the name, or the address, that is asked.

use std::{
    fs, io,
    net::IpAddr,
    sync::{Arc, OnceLock},
};

use podnet_dns::Secure;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

/// Speaks TLS on a connection to `address`.
pub(super) async fn connect(stream: TcpStream, address: IpAddr, secure: &Secure) -> io::Result<TlsStream<TcpStream>> {
    let name = match &secure.name {
        Some(name) => {
            let name = name.to_string();
            ServerName::try_from(name.trim_end_matches('.').to_owned()).map_err(io::Error::other)?
        }
        None => ServerName::IpAddress(address.into()),
    };
    let secure = secure.clone();
    // Read for every connection: certificates are replaced while this runs.
    let config = tokio::task::spawn_blocking(move || client(&secure)).await.map_err(io::Error::other)??;
    TlsConnector::from(config).connect(name, stream).await
}

/// What is needed to speak TLS, from the files that the Corefile names.
pub(super) fn client(secure: &Secure) -> io::Result<Arc<ClientConfig>> {
    let files = &secure.files;
    let roots = match &files.authorities {
        Some(path) => Arc::new(authorities(path)?),
        None => system()?,
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots);
    let config = match (&files.certificate, &files.key) {
        (Some(certificate), Some(key)) => {
            let text = read(key)?;
            let private = PrivateKeyDer::from_pem_slice(&text).map_err(|error| bad(key, &error))?;
            config
                .with_client_auth_cert(certificates(certificate)?, private)
                .map_err(|error| bad(certificate, &error))?
        }
        _ => config.with_no_client_auth(),
    };
    Ok(Arc::new(config))
}

fn authorities(path: &str) -> io::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|error| bad(path, &error))?;
    }
    Ok(roots)
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

fn certificates(path: &str) -> io::Result<Vec<CertificateDer<'static>>> {
    let text = read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let found = found.map_err(|error| bad(path, &error))?;
    if found.is_empty() {
        return Err(io::Error::other(format!("{path}: there is no certificate in it")));
    }
    Ok(found)
}

fn read(path: &str) -> io::Result<Vec<u8>> {
    fs::read(path).map_err(|error| io::Error::new(error.kind(), format!("{path}: {error}")))
}

fn bad(path: &str, error: &dyn std::fmt::Display) -> io::Error {
    io::Error::other(format!("{path}: {error}"))
}
