//! The certificate that a port shows, and what it asks of clients (`tls`). Its files are read again when they change, without a
//! reload: who renews certificates only has to put them there.

mod clients;
mod keylog;

use std::{
    io,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::{Duration, Instant},
};

use podnet_dns::{
    Scheme,
    chain::{ClientAuth, TlsFiles, TlsOptions, TlsVersions, WebTls},
};
use rustls::{
    ALL_VERSIONS, ConfigBuilder, NoKeyLog, ServerConfig, SupportedProtocolVersion,
    server::{ResolvesServerCertUsingSni, WantsServerCert},
    version,
};
use tracing::{error, info};

use super::{corefile::Stamp, pem};

/// How often it is looked whether the files are others.
const LOOK: Duration = if cfg!(test) { Duration::from_millis(20) } else { Duration::from_secs(1) };

/// What a port shows to its clients.
#[derive(Debug)]
pub(crate) struct Identity {
    options: TlsOptions,
    offer: Offer,
    current: RwLock<Arc<ServerConfig>>,
    seen: Mutex<Seen>,
}

/// What is spoken on connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Offer {
    /// The names of what is spoken (RFC 7301): clients that name others are turned away, those that name none are not.
    protocols: &'static [&'static str],
    versions: TlsVersions,
}

#[derive(Debug)]
struct Seen {
    looked: Instant,
    files: Vec<Option<Stamp>>,
}

impl Identity {
    /// Reads a port's certificate. Where that has yet to be issued (`acme`), clients are turned away until it is there.
    ///
    /// # Errors
    /// When a file cannot be read, or certificate and key do not belong together.
    pub(crate) fn read(options: &TlsOptions, scheme: Scheme) -> io::Result<Arc<Self>> {
        Self::with(options, Offer::of(scheme))
    }

    /// Reads the certificate of a port of HTTP. The one `before` is kept where the same is wanted of it.
    ///
    /// # Errors
    /// As [`Identity::read`].
    pub(super) fn of_web(web: &WebTls, before: Option<Arc<Self>>) -> io::Result<Arc<Self>> {
        let protocols: &[&str] = if web.http2 { &["h2", "http/1.1"] } else { &["http/1.1"] };
        let offer = Offer { protocols, versions: web.versions };
        match before.filter(|before| before.is(&web.options) && before.offer == offer) {
            Some(before) => Ok(before),
            None => Self::with(&web.options, offer),
        }
    }

    fn with(options: &TlsOptions, offer: Offer) -> io::Result<Arc<Self>> {
        let files = stamps(&options.files);
        let current = match config(options, offer) {
            Err(error) if options.acme.is_some() => {
                let current = waiting(options, offer)?;
                if error.kind() != io::ErrorKind::NotFound {
                    error!(%error, "a certificate that was issued cannot be used; clients are turned away until there is another one");
                }
                current
            }
            read => read?,
        };
        Ok(Arc::new(Self {
            current: RwLock::new(current),
            options: options.clone(),
            offer,
            seen: Mutex::new(Seen { looked: Instant::now(), files }),
        }))
    }

    /// Whether it is what these options say.
    pub(super) fn is(&self, options: &TlsOptions) -> bool {
        self.options == *options
    }

    /// What a connection that begins now is served with.
    pub(crate) async fn config(self: &Arc<Self>) -> Arc<ServerConfig> {
        if self.due() {
            let own = Arc::clone(self);
            // Whatever happens to the look, there is still what was read last.
            let _ = tokio::task::spawn_blocking(move || own.look()).await;
        }
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether it is time to look at the files; the one who is told so does it.
    fn due(&self) -> bool {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let due = seen.looked.elapsed() >= LOOK;
        if due {
            seen.looked = Instant::now();
        }
        due
    }

    fn look(&self) {
        let files = stamps(&self.options.files);
        {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            if seen.files == files {
                return;
            }
            seen.files = files;
        }
        let certificate = self.options.files.certificate.as_deref().unwrap_or_default();
        match config(&self.options, self.offer) {
            Ok(new) => {
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = new;
                info!(certificate, "a changed certificate is in force");
            }
            // Half written, perhaps: with the next change it is read again.
            Err(error) => {
                error!(certificate, %error, "a changed certificate cannot be used, the one before stays in force");
            }
        }
    }
}

fn stamps(files: &TlsFiles) -> Vec<Option<Stamp>> {
    let paths = [&files.certificate, &files.key, &files.authorities];
    paths.into_iter().flatten().map(|path| std::fs::metadata(path).ok().map(|file| Stamp::of(&file))).collect()
}

fn config(options: &TlsOptions, offer: Offer) -> io::Result<Arc<ServerConfig>> {
    let (Some(certificate), Some(key)) = (&options.files.certificate, &options.files.key) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let config = builder(options, offer)?
        .with_single_cert(pem::certificates(certificate)?, pem::key(key)?)
        .map_err(|error| pem::bad(certificate, &error))?;
    spoken(config, options, offer)
}

/// As long as there is no certificate: nobody comes to an agreement.
fn waiting(options: &TlsOptions, offer: Offer) -> io::Result<Arc<ServerConfig>> {
    let nothing = Arc::new(ResolvesServerCertUsingSni::new());
    spoken(builder(options, offer)?.with_cert_resolver(nothing), options, offer)
}

/// What is asked of clients.
fn builder(options: &TlsOptions, offer: Offer) -> io::Result<ConfigBuilder<ServerConfig, WantsServerCert>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = match options.client_auth {
        ClientAuth::NoCertificate => None,
        auth => Some(clients::verifier(auth, options.files.authorities.as_deref(), &provider)?),
    };
    let builder = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(offer.spoken())
        .map_err(io::Error::other)?;
    Ok(match verifier {
        None => builder.with_no_client_auth(),
        Some(verifier) => builder.with_client_cert_verifier(verifier),
    })
}

fn spoken(mut config: ServerConfig, options: &TlsOptions, offer: Offer) -> io::Result<Arc<ServerConfig>> {
    config.alpn_protocols = offer.protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    config.key_log = match &options.keylog {
        None => Arc::new(NoKeyLog),
        Some(path) => keylog::open(path)?,
    };
    Ok(Arc::new(config))
}

static TLS12: [&SupportedProtocolVersion; 1] = [&version::TLS12];
static TLS13: [&SupportedProtocolVersion; 1] = [&version::TLS13];

impl Offer {
    /// What is spoken at a port of DNS.
    const fn of(scheme: Scheme) -> Self {
        let protocols: &[&str] = match scheme {
            Scheme::Https => &["h2", "http/1.1"],
            Scheme::Grpc => &["h2"],
            // RFC 7858 §3.1 came before the name did (RFC 9103 §7.1 uses it).
            _ => &["dot"],
        };
        Self { protocols, versions: TlsVersions::All }
    }

    fn spoken(self) -> &'static [&'static SupportedProtocolVersion] {
        match self.versions {
            TlsVersions::All => ALL_VERSIONS,
            TlsVersions::Tls12 => &TLS12,
            TlsVersions::Tls13 => &TLS13,
        }
    }
}
