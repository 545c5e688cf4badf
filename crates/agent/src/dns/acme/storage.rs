//! Accounts and certificates in files that only their owner reads. A file is replaced as a whole.

use std::{
    fs::{DirBuilder, File},
    io::{self, Write as _},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use podnet_dns::{chain::AcmeOptions, name::Name};
use rustls::{
    crypto::ring::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    sign::CertifiedKey,
};
use tempfile::NamedTempFile;
use tracing::warn;
use x509_parser::{
    extensions::GeneralName,
    prelude::{FromDer as _, X509Certificate},
};

use super::renewal::Validity;

/// More bytes than an account or a certificate has.
const ROOM: usize = 1 << 16;

/// How long the certificate holds that is there; none: there is none, or none that can be used.
pub(super) async fn held(options: &AcmeOptions) -> Option<Validity> {
    let path = options.certificate();
    let read = tokio::fs::read(&path).await;
    let held = read.and_then(|pem| usable(&pem, &options.domains).map_err(io::Error::other));
    match held {
        Ok(validity) => Some(validity),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            warn!(certificate = path, %error, "the certificate that is there is not used on; another one is asked for");
            None
        }
    }
}

/// How long a certificate holds, which has to be for these names and to fit the key beside it.
///
/// # Errors
/// With why it cannot be used.
pub(super) fn usable(pem: &[u8], domains: &[Name]) -> Result<Validity, String> {
    let chain: Result<Vec<CertificateDer<'static>>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let chain = chain.map_err(|error| format!("it is not PEM: {error}"))?;
    let key = PrivateKeyDer::from_pem_slice(pem).map_err(|error| format!("its key cannot be read: {error}"))?;
    let first = chain.first().cloned().ok_or("there is no certificate in it")?;
    CertifiedKey::from_der(chain, key, &default_provider())
        .map_err(|error| format!("its key does not fit: {error}"))?;
    let (_, certificate) = X509Certificate::from_der(&first).map_err(|error| format!("it cannot be read: {error}"))?;
    let names = certificate.subject_alternative_name().map_err(|error| format!("its names cannot be read: {error}"))?;
    let names = names.map(|extension| extension.value.general_names.as_slice()).unwrap_or_default();
    let is_for = |domain: &Name| {
        names.iter().any(|name| matches!(name, GeneralName::DNSName(text) if Name::parse(text).as_ref() == Ok(domain)))
    };
    if let Some(domain) = domains.iter().find(|domain| !is_for(domain)) {
        return Err(format!("it is not for {domain}"));
    }
    let validity = certificate.validity();
    let seconds = |time: i64| u64::try_from(time).unwrap_or(0);
    Ok(Validity { begin: seconds(validity.not_before.timestamp()), end: seconds(validity.not_after.timestamp()) })
}

/// The account that is there, as it was put.
pub(super) async fn account(options: &AcmeOptions) -> io::Result<Option<Vec<u8>>> {
    match tokio::fs::read(options.account()).await {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes an account, where it is still the one that was there.
pub(super) async fn forget(options: &AcmeOptions, account: &[u8]) -> io::Result<()> {
    if self::account(options).await?.is_some_and(|now| now == account) {
        tokio::fs::remove_file(options.account()).await?;
    }
    Ok(())
}

/// Sees whether a file could be put there, by writing another one that goes again.
pub(super) async fn has_room(path: String) -> io::Result<()> {
    let write = move || {
        let path = PathBuf::from(path);
        let mut file = NamedTempFile::new_in(directory(&path)?)?;
        file.write_all(&vec![b'-'; ROOM])?;
        file.as_file().sync_all()
    };
    tokio::task::spawn_blocking(write).await.map_err(io::Error::other)?
}

/// Puts a whole file in the place of another: a crash, or a full disk, leaves the one before.
pub(super) async fn put(path: String, text: String) -> io::Result<()> {
    let write = move || {
        let path = PathBuf::from(path);
        let directory = directory(&path)?;
        // It is its owner's alone from the beginning.
        let mut file = NamedTempFile::new_in(directory)?;
        file.write_all(text.as_bytes())?;
        file.as_file().sync_all()?;
        file.persist(&path).map_err(|error| error.error)?;
        File::open(directory)?.sync_all()
    };
    tokio::task::spawn_blocking(write).await.map_err(io::Error::other)?
}

/// The directory that a file is in, which is made where it is not there.
fn directory(path: &Path) -> io::Result<&Path> {
    let directory = path.parent().unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    Ok(directory)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn names(texts: &[&str]) -> Vec<Name> {
        texts.iter().map(|text| Name::parse(text).unwrap()).collect()
    }

    #[test]
    fn a_certificate_is_used_where_it_is_for_all_names_and_fits_its_key() {
        let made = rcgen::generate_simple_self_signed(["A.example".to_owned(), "*.b.example".to_owned()]).unwrap();
        let pem = made.cert.pem() + &made.signing_key.serialize_pem();
        // What the library says where nothing else is said (1975 to 4096).
        let validity = usable(pem.as_bytes(), &names(&["*.b.example", "a.example"])).unwrap();
        assert!(validity.begin < 200_000_000 && validity.end > 60_000_000_000, "{validity:?}");
        let error = usable(pem.as_bytes(), &names(&["a.example", "c.b.example"])).unwrap_err();
        assert_eq!(error, "it is not for c.b.example.");
        let other = rcgen::KeyPair::generate().unwrap().serialize_pem();
        let mixed = made.cert.pem() + &other;
        assert!(usable(mixed.as_bytes(), &names(&["a.example"])).unwrap_err().starts_with("its key does not fit"));
        assert_eq!(usable(other.as_bytes(), &[]).unwrap_err(), "there is no certificate in it");
        assert!(usable(made.cert.pem().as_bytes(), &[]).unwrap_err().starts_with("its key cannot be read"));
    }

    #[tokio::test]
    async fn what_is_put_is_its_owner_s_alone_and_replaced_as_a_whole() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("acme/ca");
        let path = directory.join("x.pem");
        for text in ["a long one", "short"] {
            put(path.display().to_string(), text.to_owned()).await.unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(&directory), mode(&root.path().join("acme"))), (0o600, 0o700, 0o700));
        has_room(path.display().to_string()).await.unwrap();
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 1, "nothing else is left");
        has_room(path.join("y.pem").display().to_string()).await.unwrap_err();
    }

    #[tokio::test]
    async fn an_account_that_another_one_has_replaced_is_not_forgotten() {
        let root = tempfile::tempdir().unwrap();
        let options = AcmeOptions {
            domains: names(&["a.example"]),
            email: None,
            directory: String::new(),
            storage: root.path().display().to_string(),
            authorities: None,
            resolver: None,
        };
        put(options.account(), "new".to_owned()).await.unwrap();
        forget(&options, b"old").await.unwrap();
        assert_eq!(account(&options).await.unwrap().as_deref(), Some(&b"new"[..]));
        for _ in 0..2 {
            forget(&options, b"new").await.unwrap();
            assert_eq!(account(&options).await.unwrap(), None);
        }
    }
}
