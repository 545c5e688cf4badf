//! The cluster's certificate authority and what it issues.
//!
//! Everybody is known by a certificate of this authority (or by a token signed with its token key): `CN` is the user, each `O` a group,
//! as Kubernetes reads them. Keys are ECDSA P-256.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::Datelike;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

mod files;
#[cfg(test)]
mod tests;

/// Years that certificates are valid: longer than a cluster on one machine lives, since nothing renews a client's certificate.
const VALID_YEARS: i32 = 10;

/// Why a key or certificate could not be made, read or kept.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file could not be read or written.
    #[error("{action} {path}")]
    File {
        /// What was tried.
        action: &'static str,
        /// Which file.
        path: PathBuf,
        /// What the operating system says.
        #[source]
        source: io::Error,
    },
    /// Several groups are asked for; the library that encodes names writes one organisation.
    #[error("the certificate of {cn:?} can name one group, not {count}")]
    Groups {
        /// Whose certificate.
        cn: String,
        /// How many groups.
        count: usize,
    },
    /// A key or certificate is malformed or cannot be made.
    #[error("{action}")]
    Certificate {
        /// What was tried, on what.
        action: String,
        /// What the library says.
        #[source]
        source: rcgen::Error,
    },
}

fn failed(action: impl Into<String>) -> impl FnOnce(rcgen::Error) -> PkiError {
    let action = action.into();
    move |source| PkiError::Certificate { action, source }
}

/// A certificate with its key, both PEM.
#[derive(Clone)]
pub struct Issued {
    /// The certificate.
    pub cert_pem: String,
    /// The private key (PKCS#8).
    pub key_pem: String,
}

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issued").field("cert_pem", &self.cert_pem).finish_non_exhaustive()
    }
}

/// The authority: its directory, its key, and the key that signs service account tokens.
pub struct Pki {
    ca_pem: String,
    issuer: Issuer<'static, KeyPair>,
    token_key: KeyPair,
}

impl fmt::Debug for Pki {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pki").finish_non_exhaustive()
    }
}

impl Pki {
    /// Reads the authority in `dir`, or makes one there. Safe to call from several processes at once: the first one's files
    /// stay. Blocking.
    ///
    /// Files: `ca.key`, `ca.crt`, `service-accounts.key`; keys have mode 0600, the directory 0700.
    pub fn load_or_create(dir: &Path) -> Result<Self, PkiError> {
        files::private_directory(dir)?;
        let ca_key = key_at(&dir.join("ca.key"))?;
        let ca_pem = files::write_once(&dir.join("ca.crt"), 0o644, || authority(&ca_key))?;
        let issuer = Issuer::from_ca_cert_pem(&ca_pem, ca_key).map_err(failed("reading ca.crt"))?;
        let token_key = key_at(&dir.join("service-accounts.key"))?;
        Ok(Self { ca_pem, issuer, token_key })
    }

    /// The authority's certificate: whom to trust.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// The key that signs service account tokens.
    pub(crate) fn token_key(&self) -> &KeyPair {
        &self.token_key
    }

    /// A client's certificate: user `cn`, member of the group in `organisations`, of which there is one at most.
    pub fn issue_client(&self, cn: &str, organisations: &[&str]) -> Result<Issued, PkiError> {
        if organisations.len() > 1 {
            return Err(PkiError::Groups { cn: cn.to_owned(), count: organisations.len() });
        }
        let mut params = leaf(cn, organisations);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(cn, &params)
    }

    /// A server's certificate for these names and addresses.
    pub fn issue_server(&self, names: &[String], addresses: &[IpAddr]) -> Result<Issued, PkiError> {
        let cn =
            names.first().cloned().unwrap_or_else(|| addresses.first().map(ToString::to_string).unwrap_or_default());
        let mut params = leaf(&cn, &[]);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        for name in names {
            let name =
                name.as_str().try_into().map_err(failed(format!("using {name:?} as a name in a certificate")))?;
            params.subject_alt_names.push(SanType::DnsName(name));
        }
        params.subject_alt_names.extend(addresses.iter().map(|address| SanType::IpAddress(*address)));
        self.issue(&cn, &params)
    }

    fn issue(&self, cn: &str, params: &CertificateParams) -> Result<Issued, PkiError> {
        let key = KeyPair::generate().map_err(failed(format!("generating the key of {cn:?}")))?;
        let certificate =
            params.signed_by(&key, &self.issuer).map_err(failed(format!("signing the certificate of {cn:?}")))?;
        Ok(Issued { cert_pem: certificate.pem(), key_pem: key.serialize_pem() })
    }
}

/// A server's certificate for one name, which nobody vouches for but itself: clients have it.
///
/// # Errors
///
/// When the name cannot be one of a certificate, or there is no randomness for the key.
pub fn self_signed(name: &str) -> Result<Issued, PkiError> {
    let key = KeyPair::generate().map_err(failed(format!("generating the key of {name:?}")))?;
    let mut params = leaf(name, &[]);
    params.use_authority_key_identifier_extension = false;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let dns_name = name.try_into().map_err(failed(format!("using {name:?} as a name in a certificate")))?;
    params.subject_alt_names.push(SanType::DnsName(dns_name));
    let certificate = params.self_signed(&key).map_err(failed(format!("signing the certificate of {name:?}")))?;
    Ok(Issued { cert_pem: certificate.pem(), key_pem: key.serialize_pem() })
}

/// The key in a file, made when there is none.
fn key_at(path: &Path) -> Result<KeyPair, PkiError> {
    let pem = files::write_once(path, 0o600, || {
        let key = KeyPair::generate().map_err(failed("generating a key"))?;
        Ok(key.serialize_pem())
    })?;
    KeyPair::from_pem(&pem).map_err(failed(format!("reading the key {}", path.display())))
}

/// The certificate of the authority itself.
fn authority(key: &KeyPair) -> Result<String, PkiError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "podnet-ca");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    valid_from_now(&mut params);
    Ok(params.self_signed(key).map_err(failed("signing the certificate authority"))?.pem())
}

fn leaf(cn: &str, organisations: &[&str]) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, cn);
    for organisation in organisations {
        params.distinguished_name.push(DnType::OrganizationName, *organisation);
    }
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    valid_from_now(&mut params);
    params
}

/// Valid from yesterday's year on, so that a clock that is a little behind does not refuse it.
fn valid_from_now(params: &mut CertificateParams) {
    let year = chrono::Utc::now().year();
    params.not_before = rcgen::date_time_ymd(year - 1, 1, 1);
    params.not_after = rcgen::date_time_ymd(year + VALID_YEARS, 1, 1);
}

/// A kubeconfig with everything in it, for a client with this certificate.
pub fn kubeconfig(server_url: &str, ca_pem: &str, cert_pem: &str, key_pem: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: podnet\n\
         clusters:\n- name: podnet\n  cluster:\n    server: {server_url}\n    certificate-authority-data: {}\n\
         contexts:\n- name: podnet\n  context:\n    cluster: podnet\n    user: podnet\n\
         users:\n- name: podnet\n  user:\n    client-certificate-data: {}\n    client-key-data: {}\n",
        STANDARD.encode(ca_pem),
        STANDARD.encode(cert_pem),
        STANDARD.encode(key_pem),
    )
}
