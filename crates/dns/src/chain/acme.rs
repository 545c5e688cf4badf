//! `acme` of `tls`: a certificate that this server has signed by itself (RFC 8555), proving by DNS that the names are its own (§8.4).

use std::net::{IpAddr, SocketAddr};

use super::{Chain, Config, Plugin, TlsFiles, read, scope::Scope};
use crate::{
    corefile::{CorefileError, Directive, Fault, Scheme, Word},
    name::Name,
};

/// Whom a certificate is asked of where the Corefile names nobody: Let's Encrypt.
const DIRECTORY: &str = "https://acme-v02.api.letsencrypt.org/directory";
/// Where certificates are kept where the Corefile names nothing, below `root`.
const STORAGE: &str = ".coredns/acme";
/// The most names of one certificate: Let's Encrypt's limit.
const DOMAINS: usize = 100;
/// The label under which a domain is proved (RFC 8555 §8.4).
pub(crate) const CHALLENGE: &str = "_acme-challenge";
/// The options of `tls` that are about it.
pub(super) const OPTIONS: [&str; 6] = ["acme", "email", "ca", "storage", "ca_root", "resolver"];

/// How a certificate is come by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AcmeOptions {
    /// What it is for: 1 to 100 names, each once, whose first label may be `*`.
    pub domains: Vec<Name>,
    /// Where the authority writes to when something is wrong (`email`).
    pub email: Option<String>,
    /// The URL of the authority's directory (`ca`): HTTPS.
    pub directory: String,
    /// The directory for what comes from this authority, and for the keys.
    pub storage: String,
    /// A file with the authorities that vouch for the ACME server itself, in PEM (`ca_root`); none: the system's.
    pub authorities: Option<String>,
    /// The server that knows the address of the ACME server (`resolver`); none: as the system does.
    pub resolver: Option<SocketAddr>,
}

impl AcmeOptions {
    /// The file with the certificate, what stands behind it, and its key, in PEM. It is there once the certificate was issued.
    #[must_use]
    pub fn certificate(&self) -> String {
        let first = self.domains.first().map(|name| name.to_string().replacen('*', "wildcard_", 1)).unwrap_or_default();
        format!("{}/{}pem", self.storage, first)
    }

    /// The file with the account at the authority and its key, in JSON.
    #[must_use]
    pub fn account(&self) -> String {
        let of = self.email.as_deref().map(|email| format!("-{}", file_name(email))).unwrap_or_default();
        format!("{}/account{of}.json", self.storage)
    }

    /// As the files that `tls` would name otherwise. Certificate and key are one file, which is replaced as a whole.
    pub(super) fn files(&self) -> TlsFiles {
        let file = self.certificate();
        TlsFiles { certificate: Some(file.clone()), key: Some(file), authorities: None }
    }
}

/// The options as they are read.
pub(super) struct Draft {
    options: AcmeOptions,
    root: String,
}

impl Draft {
    pub(super) fn new(scope: &Scope<'_>) -> Self {
        let options = AcmeOptions {
            domains: Vec::new(),
            email: None,
            directory: DIRECTORY.to_owned(),
            storage: String::new(),
            authorities: None,
            resolver: None,
        };
        Self { options, root: scope.path(STORAGE) }
    }

    /// Takes one of [`OPTIONS`].
    pub(super) fn take(&mut self, scope: &mut Scope<'_>, option: &Directive) -> Result<(), CorefileError> {
        let options = &mut self.options;
        match option.name.text.as_str() {
            "acme" => {
                if option.arguments.is_empty() {
                    return Err(option.missing("the domains that the certificate is for"));
                }
                for word in &option.arguments {
                    let name = domain(word)?;
                    if options.domains.len() == DOMAINS {
                        let allowed = format!("at most {DOMAINS} domains");
                        return Err(word.error(Fault::Unexpected { found: word.text.clone(), allowed }));
                    }
                    if !options.domains.contains(&name) {
                        options.domains.push(name);
                    }
                }
            }
            "email" => {
                let word = read::one(option, "an address for mail")?;
                // RFC 8555 §7.3: one address, without header fields.
                let is_address = |(user, host): (&str, &str)| !user.is_empty() && !host.is_empty();
                let plain = word.text.chars().all(|c| c.is_ascii_graphic() && !",?/".contains(c));
                if !plain || word.text.len() > 200 || !word.text.split_once('@').is_some_and(is_address) {
                    return Err(word.bad("email", "an address such as hostmaster@example.org"));
                }
                options.email = Some(word.text.clone());
            }
            "ca" => {
                let word = read::one(option, "the URL of an ACME directory")?;
                let host = word.text.strip_prefix("https://").and_then(|rest| rest.chars().next());
                let begins = host.is_some_and(|first| first.is_ascii_alphanumeric() || first == '[');
                let is_url = |c: char| c.is_ascii_alphanumeric() || "-._~:/?%=&+[]".contains(c);
                if !begins || word.text.len() > 200 || !word.text.chars().all(is_url) {
                    let allowed = "the URL of an ACME directory, such as https://acme.example.org/directory";
                    return Err(word.bad("ca", allowed));
                }
                options.directory.clone_from(&word.text);
            }
            "storage" => self.root = scope.path(&read::one(option, "a directory")?.text),
            "ca_root" => {
                let word = read::one(option, "a file with certificates")?;
                // What is in it is looked at by who asks; that it is not there is known now.
                read::text(word, scope)?;
                options.authorities = Some(scope.path(&word.text));
            }
            _ => options.resolver = Some(read::server(read::one(option, "a name server")?, "resolver", 53)?),
        }
        Ok(())
    }

    /// The options, once all were read. What one authority gives stays apart from what another one does.
    pub(super) fn done(self) -> AcmeOptions {
        let Self { mut options, root } = self;
        let authority = options.directory.strip_prefix("https://").unwrap_or_default();
        options.storage = format!("{}/{}", root.trim_end_matches('/'), file_name(authority));
        options
    }
}

/// A name that a certificate can be for: letters, digits and hyphens, and `*` for the first label. The name of its challenge must be one.
fn domain(word: &Word) -> Result<Name, CorefileError> {
    let bad = || word.bad("a domain of acme", "a host's name such as dns.example.org or *.example.org");
    let text = word.text.strip_prefix("*.").unwrap_or(&word.text);
    let is_host = text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '.');
    if !is_host || text.is_empty() || text.parse::<IpAddr>().is_ok() {
        return Err(bad());
    }
    let name = Name::parse(&word.text).map_err(|_| bad())?;
    if name.labels() == 0 || name.child(CHALLENGE).is_err() {
        return Err(bad());
    }
    Ok(name)
}

/// A text as the name of a file.
fn file_name(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' || c == '-' { c } else { '_' }).collect()
}

/// The error that a domain is in the certificate of a server block before, which comes by other means or is for other domains, too.
pub(super) fn disagreement(options: &AcmeOptions, before: &[Chain], directives: &[Directive]) -> Option<CorefileError> {
    let mut others = before.iter().flat_map(|chain| &chain.plugins).filter_map(of);
    let shares = |other: &AcmeOptions| other.domains.iter().any(|domain| options.domains.contains(domain));
    let word = directives
        .iter()
        .filter(|directive| directive.name.text == "tls")
        .flat_map(|directive| &directive.options)
        .find(|option| option.name.text == "acme")
        .map(|option| option.arguments.first().unwrap_or(&option.name))?;
    let allowed = "domains that no server block before has in a certificate, or all options of acme as they are there";
    others.any(|other| other != options && shares(other)).then(|| word.bad("a domain of acme", allowed))
}

fn of(plugin: &Plugin) -> Option<&AcmeOptions> {
    if let Plugin::Tls(options) = plugin { options.acme.as_deref() } else { None }
}

impl Config {
    /// The certificates that have to be come by for what is served, each once.
    #[must_use]
    pub fn acme(&self) -> Vec<AcmeOptions> {
        let mut all: Vec<AcmeOptions> = Vec::new();
        for listener in self.listeners().into_iter().filter(|listener| listener.port.scheme != Scheme::Dns) {
            let Some(options) = listener.tls.and_then(|tls| tls.acme) else { continue };
            if !all.contains(&options) {
                all.push(*options);
            }
        }
        all
    }
}
