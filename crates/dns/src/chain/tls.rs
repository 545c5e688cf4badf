//! What plugins say about TLS alike, files with a certificate, its key and the authorities, and `tls` itself.

use std::path::PathBuf;

use super::{
    AcmeOptions,
    acme::{self, Draft},
    read,
    scope::Scope,
};
use crate::corefile::{CorefileError, Directive, Fault};

/// Files for TLS, in PEM; their paths are below `root`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct TlsFiles {
    /// The own certificate, with its chain.
    pub certificate: Option<String>,
    /// Its private key; there is one when there is a certificate.
    pub key: Option<String>,
    /// The authorities that vouch for the other side; none: the system's.
    pub authorities: Option<String>,
}

/// `tls`: the certificate of a server block that is served over TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsOptions {
    /// Certificate and key are always named; with `acme` they are there once the certificate was issued.
    pub files: TlsFiles,
    /// How the certificate is come by; none: somebody else puts it there, and renews it.
    pub acme: Option<Box<AcmeOptions>>,
    /// What is asked of clients.
    pub client_auth: ClientAuth,
    /// Where keys of connections are written to, for who wants to read their traffic.
    pub keylog: Option<String>,
}

/// What is asked of clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientAuth {
    /// No certificate.
    #[default]
    NoCertificate,
    /// A certificate, which is not looked at.
    Request,
    /// Any certificate.
    Require,
    /// None, or one that an authority vouches for.
    VerifyIfGiven,
    /// One that an authority vouches for.
    RequireAndVerify,
}

/// `tls [CERT KEY] [CA]` of a client: no argument, the authorities, the certificate and its key, or all three.
pub(super) fn of_client(option: &Directive, scope: &mut Scope<'_>) -> Result<TlsFiles, CorefileError> {
    read::at_most(option, 3)?;
    let mut paths = paths(option, scope).into_iter();
    Ok(match paths.len() {
        0 | 1 => TlsFiles { authorities: paths.next(), ..TlsFiles::default() },
        _ => TlsFiles { certificate: paths.next(), key: paths.next(), authorities: paths.next() },
    })
}

fn paths(directive: &Directive, scope: &mut Scope<'_>) -> Vec<String> {
    let paths: Vec<String> = directive.arguments.iter().map(|word| scope.path(&word.text)).collect();
    scope.files.extend(paths.iter().map(PathBuf::from));
    paths
}

/// `tls CERT KEY [CA]` of a server block, or `tls { acme DOMAIN… }`.
pub(super) fn parse(directive: &Directive, scope: &mut Scope<'_>) -> Result<TlsOptions, CorefileError> {
    read::at_most(directive, 3)?;
    let fetched = directive.options.iter().any(|option| option.name.text == "acme");
    if let Some(word) = directive.arguments.first().filter(|_| fetched) {
        let allowed = "no files: acme has the certificate issued".to_owned();
        return Err(word.error(Fault::Unexpected { found: word.text.clone(), allowed }));
    }
    if directive.arguments.len() < 2 && !fetched {
        return Err(directive.missing("the files of a certificate and its key, or { acme DOMAIN… }"));
    }
    let mut paths = paths(directive, scope).into_iter();
    let files = TlsFiles { certificate: paths.next(), key: paths.next(), authorities: paths.next() };
    let mut options = TlsOptions { files, acme: None, client_auth: ClientAuth::default(), keylog: None };
    let mut draft = Draft::new(scope);
    scope.options(directive, |scope, option| {
        match option.name.text.as_str() {
            "client_auth" => {
                let allowed = "nocert, request, require, verify_if_given or require_and_verify";
                let word = read::one(option, allowed)?;
                options.client_auth = match word.text.as_str() {
                    "nocert" => ClientAuth::NoCertificate,
                    "request" => ClientAuth::Request,
                    "require" => ClientAuth::Require,
                    "verify_if_given" => ClientAuth::VerifyIfGiven,
                    "require_and_verify" => ClientAuth::RequireAndVerify,
                    _ => return Err(word.bad("client_auth", allowed)),
                };
            }
            "keylog" => options.keylog = Some(scope.path(&read::one(option, "a file")?.text)),
            name if acme::OPTIONS.contains(&name) && fetched => draft.take(scope, option)?,
            name if acme::OPTIONS.contains(&name) => return Err(option.missing("acme DOMAIN… beside it")),
            _ => {
                let known = [&["client_auth", "keylog"][..], &acme::OPTIONS].concat();
                return Err(read::unknown("tls", option, &known));
            }
        }
        Ok(())
    });
    if fetched {
        let acme = draft.done();
        options.files = acme.files();
        options.acme = Some(Box::new(acme));
    }
    Ok(options)
}
