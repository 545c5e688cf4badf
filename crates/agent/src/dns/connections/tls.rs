//! TLS towards upstreams (RFC 7858): their certificates have to be for the name, or the address, that is asked.

use std::{io, sync::Arc};

use podnet_dns::{Destination, Secure};
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::dns::pem;

/// Speaks TLS on a connection to a server, and one of `protocols` in it (RFC 7301), where there are any.
pub(super) async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    server: &Destination,
    secure: &Secure,
    protocols: &'static [&'static str],
) -> io::Result<TlsStream<S>> {
    let name = match (&secure.name, server) {
        (Some(name), _) => {
            let name = name.to_string();
            ServerName::try_from(name.trim_end_matches('.').to_owned()).map_err(io::Error::other)?
        }
        (None, Destination::Internet(addr)) => ServerName::IpAddress(addr.ip().into()),
        (None, Destination::Unix(_)) => {
            let nobody = "a unix socket has no name that a certificate could be for; tls_servername has to say it";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, nobody));
        }
    };
    let secure = secure.clone();
    // Read for every connection: certificates are replaced while this runs.
    let config = tokio::task::spawn_blocking(move || client(&secure, protocols)).await.map_err(io::Error::other)??;
    TlsConnector::from(config).connect(name, stream).await
}

/// What is needed to speak TLS, from the files that the Corefile names.
pub(super) fn client(secure: &Secure, protocols: &[&str]) -> io::Result<Arc<ClientConfig>> {
    let files = &secure.files;
    let roots = pem::authorities(files.authorities.as_deref())?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots);
    let mut config = match (&files.certificate, &files.key) {
        (Some(certificate), Some(key)) => config
            .with_client_auth_cert(pem::certificates(certificate)?, pem::key(key)?)
            .map_err(|error| pem::bad(certificate, &error))?,
        _ => config.with_no_client_auth(),
    };
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    Ok(Arc::new(config))
}
