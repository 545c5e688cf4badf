//! `prometheus`: where metrics are served, and how.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use serde::{Deserialize, de::IgnoredAny};

use super::{ClientAuth, TlsFiles, TlsOptions, read, scope::Scope};
use crate::corefile::{CorefileError, Directive, Fault, Word};

/// `prometheus`: HTTP `/metrics`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrometheusOptions {
    /// Where it is served; port 9153 of the loopback by default.
    pub listen: SocketAddr,
    /// How it is encrypted; none: it is not.
    pub tls: Option<WebTls>,
}

/// How HTTP is served over TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebTls {
    /// The certificate, and what is asked of clients.
    pub options: TlsOptions,
    /// Which versions are spoken.
    pub versions: TlsVersions,
    /// HTTP/2 is spoken beside HTTP/1.1.
    pub http2: bool,
}

/// Versions of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsVersions {
    /// 1.2 and 1.3.
    #[default]
    All,
    /// 1.2 alone (RFC 5246).
    Tls12,
    /// 1.3 alone (RFC 8446).
    Tls13,
}

const KNOWN: [&str; 3] = ["runtime_metrics", "tls", "client_auth"];
/// What Go, and with it both forms of the option, calls what is asked of clients.
const CLIENT_AUTH: [(&str, ClientAuth); 5] = [
    ("NoClientCert", ClientAuth::NoCertificate),
    ("RequestClientCert", ClientAuth::Request),
    ("RequireAnyClientCert", ClientAuth::Require),
    ("VerifyClientCertIfGiven", ClientAuth::VerifyIfGiven),
    ("RequireAndVerifyClientCert", ClientAuth::RequireAndVerify),
];
const FILE: &str = "the web configuration";
/// What is served of a web configuration.
const SERVED: &str = "cert_file, key_file, client_auth_type, client_ca_file, min_version and max_version of \
                      tls_server_config, and http2 of http_server_config";

/// `prometheus [ADDRESS] { runtime_metrics, tls CONFIG_FILE, tls CERT KEY [CA], client_auth TYPE }`.
pub(super) fn parse(directive: &Directive, scope: &mut Scope<'_>) -> Result<PrometheusOptions, CorefileError> {
    read::at_most(directive, 1)?;
    let (mut tls, mut by_files, mut client_auth) = (None, false, None);
    scope.options(directive, |scope, option| {
        match option.name.text.as_str() {
            "runtime_metrics" => read::nothing(option)?,
            "tls" if tls.is_some() => {
                let (found, allowed) = (option.name.text.clone(), "tls once".to_owned());
                return Err(option.name.error(Fault::Unexpected { found, allowed }));
            }
            "tls" => {
                read::at_most(option, 3)?;
                (tls, by_files) = match option.arguments.as_slice() {
                    [] => return Err(option.missing("a web configuration, or the files of a certificate and its key")),
                    [file] => (Some(of_file(file, scope)?), false),
                    files => (Some(of_arguments(files, scope)), true),
                };
            }
            "client_auth" => {
                let word = read::one(option, "what is asked of clients")?;
                let policy = policy(&word.text).ok_or_else(|| word.bad("client_auth", &policies()))?;
                client_auth = Some((policy, option.name.clone()));
            }
            _ => return Err(read::unknown("prometheus", option, &KNOWN)),
        }
        Ok(())
    });
    if let Some((policy, word)) = client_auth {
        // A web configuration says it itself.
        let Some(WebTls { options, .. }) = tls.as_mut().filter(|_| by_files) else {
            return Err(word.missing("tls CERT KEY [CA] beside it"));
        };
        options.client_auth = policy;
    }
    let listen = match directive.arguments.first() {
        Some(word) => read::listen(word, "the address of prometheus")?,
        None => SocketAddr::from((Ipv4Addr::LOCALHOST, 9153)),
    };
    Ok(PrometheusOptions { listen, tls })
}

/// The error that a server block before has metrics at the same address served in another way.
pub(super) fn disagreement(
    options: &PrometheusOptions,
    before: &[PrometheusOptions],
    directives: &[Directive],
) -> Option<CorefileError> {
    let differs = |other: &PrometheusOptions| other.listen == options.listen && other.tls != options.tls;
    let directive = directives.iter().find(|directive| directive.name.text == "prometheus")?;
    let word = directive.arguments.first().unwrap_or(&directive.name);
    let allowed = "another address, or the same tls as in the server block before that serves metrics there";
    before.iter().any(differs).then(|| word.bad("the address of prometheus", allowed))
}

fn policy(name: &str) -> Option<ClientAuth> {
    CLIENT_AUTH.iter().find(|(known, _)| *known == name).map(|(_, policy)| *policy)
}

fn policies() -> String {
    CLIENT_AUTH.map(|(name, _)| name).join(", ")
}

/// `tls CERT KEY [CA]`: below `root`, as all files.
fn of_arguments(files: &[Word], scope: &mut Scope<'_>) -> WebTls {
    let paths: Vec<String> = files.iter().map(|word| scope.path(&word.text)).collect();
    scope.files.extend(paths.iter().map(PathBuf::from));
    let mut paths = paths.into_iter();
    let files = TlsFiles { certificate: paths.next(), key: paths.next(), authorities: paths.next() };
    let options = TlsOptions { files, acme: None, client_auth: ClientAuth::NoCertificate, keylog: None };
    WebTls { options, versions: TlsVersions::All, http2: true }
}

/// A web configuration of Prometheus' exporters (exporter-toolkit, `web-configuration.md`), as far as it is served.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct WebConfig {
    tls_server_config: Option<TlsServer>,
    http_server_config: Option<HttpServer>,
    basic_auth_users: Option<IgnoredAny>,
    rate_limit: Option<IgnoredAny>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct TlsServer {
    cert_file: Option<String>,
    key_file: Option<String>,
    client_auth_type: Option<String>,
    client_ca_file: Option<String>,
    min_version: Option<String>,
    max_version: Option<String>,
    /// Go does not look at it any more.
    #[serde(rename = "prefer_server_cipher_suites")]
    _prefers: Option<bool>,
    cert: Option<IgnoredAny>,
    key: Option<IgnoredAny>,
    client_ca: Option<IgnoredAny>,
    client_allowed_sans: Option<IgnoredAny>,
    cipher_suites: Option<IgnoredAny>,
    curve_preferences: Option<IgnoredAny>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct HttpServer {
    http2: Option<bool>,
    headers: Option<IgnoredAny>,
}

impl WebConfig {
    /// The first thing that would have to be served and is not.
    fn beyond(&self, tls: &TlsServer) -> Option<&'static str> {
        let fields = [
            ("basic_auth_users", &self.basic_auth_users),
            ("rate_limit", &self.rate_limit),
            ("cert", &tls.cert),
            ("key", &tls.key),
            ("client_ca", &tls.client_ca),
            ("client_allowed_sans", &tls.client_allowed_sans),
            ("cipher_suites", &tls.cipher_suites),
            ("curve_preferences", &tls.curve_preferences),
        ];
        fields.into_iter().find(|(_, value)| value.is_some()).map(|(name, _)| name)
    }
}

/// `tls CONFIG_FILE`: relative paths in it begin where it stands itself.
fn of_file(word: &Word, scope: &mut Scope<'_>) -> Result<WebTls, CorefileError> {
    let text = read::text(word, scope)?;
    let wrong = |reason: &str| word.malformed(FILE, reason);
    let mut config: WebConfig = serde_norway::from_str(&text).map_err(|error| wrong(&error.to_string()))?;
    let tls = config.tls_server_config.take().unwrap_or_default();
    if let Some(field) = config.beyond(&tls) {
        return Err(wrong(&format!("{field} is not served by this server yet; served: {SERVED}")));
    }
    let (Some(certificate), Some(key)) = (tls.cert_file, tls.key_file) else {
        return Err(wrong("tls_server_config needs cert_file and key_file"));
    };
    let client_auth = match tls.client_auth_type.as_deref().unwrap_or_default() {
        "" => ClientAuth::NoCertificate,
        // What the toolkit called it first.
        "RequireClientCert" => ClientAuth::Require,
        name => policy(name).ok_or_else(|| wrong(&format!("client_auth_type is none of {}", policies())))?,
    };
    if tls.client_ca_file.is_some() && client_auth == ClientAuth::NoCertificate {
        return Err(wrong("client_ca_file has no use without a client_auth_type"));
    }
    let versions = versions(tls.min_version.as_deref(), tls.max_version.as_deref()).map_err(|reason| wrong(&reason))?;
    let http = config.http_server_config.unwrap_or_default();
    if http.headers.is_some() {
        scope.warnings.push(format!("{}: headers of {FILE} {:?} have no effect", word.place, word.text));
    }
    let directory = PathBuf::from(scope.path(&word.text)).parent().map(Path::to_path_buf).unwrap_or_default();
    // What is absolute stays so.
    let mut beside = |file: String| {
        let path = directory.join(file);
        let text = path.display().to_string();
        scope.files.push(path);
        text
    };
    let files = TlsFiles {
        certificate: Some(beside(certificate)),
        key: Some(beside(key)),
        authorities: tls.client_ca_file.map(beside),
    };
    let options = TlsOptions { files, acme: None, client_auth, keylog: None };
    Ok(WebTls { options, versions, http2: http.http2.unwrap_or(true) })
}

/// What lies between two versions; what is older than TLS 1.2 is spoken by nobody here.
fn versions(oldest: Option<&str>, newest: Option<&str>) -> Result<TlsVersions, String> {
    let oldest_13 = match oldest {
        None | Some("TLS10" | "TLS11" | "TLS12") => false,
        Some("TLS13") => true,
        Some(other) => return Err(format!("min_version cannot be {other:?}; allowed: TLS10, TLS11, TLS12, TLS13")),
    };
    match (oldest_13, newest) {
        (false, None | Some("TLS13")) => Ok(TlsVersions::All),
        (true, None | Some("TLS13")) => Ok(TlsVersions::Tls13),
        (false, Some("TLS12")) => Ok(TlsVersions::Tls12),
        (true, Some("TLS12")) => Err("max_version is older than min_version".to_owned()),
        (_, Some(other)) => Err(format!("max_version cannot be {other:?}; allowed: TLS12, TLS13")),
    }
}

#[cfg(test)]
mod tests;
