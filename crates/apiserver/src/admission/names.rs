//! Which texts are names (Kubernetes documentation, "Object Names and IDs", "Labels and Selectors"): RFC 1123 and RFC 1035 labels,
//! subdomains, qualified names, service names of ports. Each check answers with what is wrong, in Kubernetes' words.

/// What a kind's names have to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NameRule {
    /// Lower case letters, digits and `-`, at most 63.
    Label,
    /// As [`NameRule::Label`], beginning with a letter.
    Rfc1035Label,
    /// Labels joined by dots, at most 253 characters.
    Subdomain,
    /// Anything that can be one segment of a URL's path.
    PathSegment,
}

impl NameRule {
    /// The rule for a kind.
    pub(super) fn of(group: &str, kind: &str) -> Self {
        match (group, kind) {
            ("", "Namespace") => Self::Label,
            ("", "Service") => Self::Rfc1035Label,
            ("rbac.authorization.k8s.io", _) => Self::PathSegment,
            _ => Self::Subdomain,
        }
    }

    /// What is wrong with a name.
    pub(super) fn check(self, name: &str) -> Result<(), String> {
        match self {
            Self::Label => label(name),
            Self::Rfc1035Label => rfc1035_label(name),
            Self::Subdomain => subdomain(name),
            Self::PathSegment => path_segment(name),
        }
    }
}

const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and \
     end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
     '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const RFC1035_LABEL: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an \
     alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is \
     '[a-z]([-a-z0-9]*[a-z0-9])?')";
const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and \
     must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
     '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const QUALIFIED_NAME: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with \
     an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
     '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and \
     must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is \
     '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const CONFIG_KEY: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or \
     'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";

pub(super) fn label(text: &str) -> Result<(), String> {
    at_most(text, 63)?;
    require(is_label(text), LABEL)
}

pub(super) fn rfc1035_label(text: &str) -> Result<(), String> {
    at_most(text, 63)?;
    require(is_label(text) && text.starts_with(|c: char| c.is_ascii_lowercase()), RFC1035_LABEL)
}

pub(super) fn subdomain(text: &str) -> Result<(), String> {
    at_most(text, 253)?;
    require(text.split('.').all(is_label), SUBDOMAIN)
}

fn path_segment(text: &str) -> Result<(), String> {
    require(text != "." && text != "..", "may not be '.' or '..'")?;
    require(!text.contains('/'), "may not contain '/'")?;
    require(!text.contains('%'), "may not contain '%'")
}

/// A label's or annotation's key: `name` or `prefix/name`.
pub(super) fn qualified_name(text: &str) -> Result<(), String> {
    let name = match text.split_once('/') {
        None => text,
        Some((_, name)) if name.contains('/') => {
            return Err(
                "a qualified name must consist of a name, with an optional DNS subdomain prefix and '/' (e.g. \
                        'example.com/MyName')"
                    .to_owned(),
            );
        }
        Some(("", _)) => return Err("prefix part must be non-empty".to_owned()),
        Some((prefix, name)) => {
            subdomain(prefix).map_err(|e| format!("prefix part {e}"))?;
            name
        }
    };
    require(!name.is_empty(), "name part must be non-empty")?;
    at_most(name, 63).map_err(|e| format!("name part {e}"))?;
    require(is_free_label(name), QUALIFIED_NAME)
}

pub(super) fn label_value(text: &str) -> Result<(), String> {
    at_most(text, 63)?;
    require(text.is_empty() || is_free_label(text), LABEL_VALUE)
}

/// A key of a ConfigMap or Secret, which may become a file's name.
pub(super) fn config_key(text: &str) -> Result<(), String> {
    at_most(text, 253)?;
    let allowed = !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
    require(allowed, CONFIG_KEY)?;
    require(text != ".", "must not be '.'")?;
    require(!text.starts_with(".."), "must not start with '..'")
}

/// A port's name (RFC 6335, section 5.1, in lower case).
pub(super) fn port_name(text: &str) -> Result<(), String> {
    at_most(text, 15)?;
    let allowed = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    require(allowed, "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)")?;
    require(text.bytes().any(|b| b.is_ascii_lowercase()), "must contain at least one letter (a-z)")?;
    require(!text.contains("--"), "must not contain consecutive hyphens")?;
    require(!text.starts_with('-') && !text.ends_with('-'), "must not begin or end with a hyphen")
}

/// The name of an environment variable: what POSIX forbids, `=`, and nothing else that is printable.
pub(super) fn environment_name(text: &str) -> Result<(), String> {
    let allowed = !text.is_empty() && text.bytes().all(|b| (0x20..0x7f).contains(&b) && b != b'=');
    require(allowed, "a valid environment variable name must consist only of printable ASCII characters other than '='")
}

fn is_label(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    bounded(text, inner, |b| inner(b) || b == b'-')
}

fn is_free_label(text: &str) -> bool {
    bounded(text, |b| b.is_ascii_alphanumeric(), |b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

/// Not empty, all bytes of one class, the first and last of a narrower one.
fn bounded(text: &str, edge: impl Fn(u8) -> bool, inner: impl Fn(u8) -> bool) -> bool {
    match text.as_bytes() {
        [] => false,
        bytes @ [first, ..] => {
            edge(*first) && bytes.last().is_some_and(|last| edge(*last)) && bytes.iter().all(|b| inner(*b))
        }
    }
}

fn at_most(text: &str, max: usize) -> Result<(), String> {
    if text.len() <= max { Ok(()) } else { Err(format!("must be no more than {max} characters")) }
}

fn require(holds: bool, message: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(message.to_owned()) }
}
