//! `tsig`, `dnssec` and `sign`: keys.

use std::{path::PathBuf, sync::Arc};

use domain::utils::base64;

use super::{Chain, Plugin, read, scope::Scope};
use crate::{
    authority::{
        sign::SigningKey,
        tsig::{Algorithm, Key},
    },
    corefile::{CorefileError, Directive, Fault, Place, Word},
    name::Name,
};

/// `tsig`: signed messages (RFC 8945).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TsigOptions {
    /// The zones whose questions are looked at.
    pub zones: Vec<Name>,
    /// The shared secrets, of the whole server.
    pub secrets: Vec<TsigSecret>,
    /// Which questions have to be signed.
    pub require: TsigRequire,
    /// Messages of which kinds (opcodes) have to be signed.
    pub opcodes: TsigRequire,
}

impl TsigOptions {
    /// The keys.
    pub fn keys(&self) -> impl Iterator<Item = Key> {
        self.secrets.iter().map(|secret| Key::new(secret.name.clone(), secret.algorithm, &secret.secret))
    }
}

/// A shared secret.
#[derive(Clone, PartialEq, Eq)]
pub struct TsigSecret {
    /// The key's name.
    pub name: Name,
    /// How it signs.
    pub algorithm: Algorithm,
    /// The secret.
    pub secret: Vec<u8>,
}

/// Which questions have to be signed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum TsigRequire {
    /// None.
    #[default]
    None,
    /// All.
    All,
    /// Those of these types, or kinds.
    Types(Vec<u16>),
}

impl TsigRequire {
    /// Whether what is of this type has to be signed.
    #[must_use]
    pub fn holds(&self, rtype: u16) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::Types(types) => types.contains(&rtype),
        }
    }
}

/// The kinds of messages (RFC 6895 §2.2), in the order of their numbers.
const OPCODES: [&str; 6] = ["QUERY", "IQUERY", "STATUS", "", "NOTIFY", "UPDATE"];

/// `dnssec`: answers are signed when they are asked for.
#[derive(Clone, Debug)]
pub struct DnssecOptions {
    /// The zones that are signed.
    pub zones: Vec<Name>,
    /// The keys.
    pub keys: Vec<Arc<SigningKey>>,
    /// How many signatures are kept.
    pub cache_capacity: usize,
}

/// `sign`: zone files are signed and written anew.
#[derive(Clone, Debug)]
pub struct SignOptions {
    /// The zone's file.
    pub path: String,
    /// The zones.
    pub zones: Vec<SignedZone>,
}

/// A zone that is signed.
#[derive(Clone, Debug)]
pub struct SignedZone {
    /// Its name.
    pub origin: Name,
    /// The keys, at least one.
    pub keys: Vec<Arc<SigningKey>>,
    /// Where it is written, signed: `db.<zone>.signed` in the directory.
    pub file: String,
}

/// Where a key is.
enum KeyPlace {
    /// In two files, this with `.key` and this with `.private` behind it.
    Files(Word, String),
    /// In this directory, as `K<zone>+<algorithm>+<tag>`.
    Directory(Word, String),
}

/// Secrets are not printed.
impl std::fmt::Debug for TsigSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TsigSecret")
            .field("name", &self.name)
            .field("algorithm", &self.algorithm)
            .finish_non_exhaustive()
    }
}

/// `tsig [ZONES…]`.
pub(super) fn tsig(directive: &Directive, scope: &mut Scope<'_>) -> Result<TsigOptions, CorefileError> {
    let zones = scope.zones_or(read::zones(&directive.arguments, "a zone of tsig")?);
    let mut options =
        TsigOptions { zones, secrets: Vec::new(), require: TsigRequire::None, opcodes: TsigRequire::None };
    scope.options(directive, |scope, option| {
        match option.name.text.as_str() {
            "secret" => {
                read::at_most(option, 3)?;
                let [name, secret, rest @ ..] = option.arguments.as_slice() else {
                    return Err(option.missing("a key's name and its secret in base64"));
                };
                options.secrets.push(TsigSecret {
                    name: read::name(name, "a key's name")?,
                    algorithm: rest.first().map_or(Ok(Algorithm::Sha256), algorithm)?,
                    secret: secret_bytes(&secret.text).ok_or_else(|| bad_secret(secret))?,
                });
            }
            "secrets" => {
                let word = read::one(option, "a file")?;
                let text = read::text(word, scope)?;
                let found = key_file(&text).map_err(|reason| word.malformed("the file with secrets", &reason))?;
                options.secrets.extend(found);
            }
            "require" => {
                options.require = require(option, "record types", |word| read::record_type(word, "a type of require"))?;
            }
            "require_opcode" => options.opcodes = require(option, "kinds of messages", opcode)?,
            _ => return Err(read::unknown("tsig", option, &["secret", "secrets", "require", "require_opcode"])),
        }
        Ok(())
    });
    Ok(options)
}

fn algorithm(word: &Word) -> Result<Algorithm, CorefileError> {
    let allowed = "hmac-sha1, hmac-sha224, hmac-sha256, hmac-sha384 or hmac-sha512";
    Algorithm::named(&word.text).ok_or_else(|| word.bad("an algorithm of tsig", allowed))
}

fn secret_bytes(text: &str) -> Option<Vec<u8>> {
    base64::decode(text).ok().filter(|bytes: &Vec<u8>| !bytes.is_empty())
}

/// The secret itself is not told: errors end up in logs.
fn bad_secret(word: &Word) -> CorefileError {
    Word { text: "…".to_owned(), ..word.clone() }.bad("a secret of tsig", "base64")
}

fn require(
    option: &Directive,
    what: &str,
    read: impl Fn(&Word) -> Result<u16, CorefileError>,
) -> Result<TsigRequire, CorefileError> {
    match option.arguments.as_slice() {
        [] => Err(option.missing(&format!("{what}, all or none"))),
        [word] if word.text == "all" => Ok(TsigRequire::All),
        [word] if word.text == "none" => Ok(TsigRequire::None),
        words => words.iter().map(read).collect::<Result<_, _>>().map(TsigRequire::Types),
    }
}

fn opcode(word: &Word) -> Result<u16, CorefileError> {
    let found = OPCODES.iter().position(|name| name.eq_ignore_ascii_case(&word.text));
    let known = "QUERY, IQUERY, STATUS, NOTIFY, UPDATE, all or none";
    found.map(|number| number as u16).ok_or_else(|| word.bad("a kind of messages", known))
}

/// The option `key NAME`: what this server sends is signed with that key of `tsig`.
pub(super) fn key_name(option: &Directive) -> Result<(Name, Place), CorefileError> {
    let word = read::one(option, "the name of a key of tsig")?;
    Ok((read::name(word, "a key's name")?, word.place.clone()))
}

/// Keys that are named and that no `tsig` has.
pub(super) fn unknown_keys(chains: &[Chain]) -> Vec<CorefileError> {
    let plugins = || chains.iter().flat_map(|chain| &chain.plugins);
    let secrets =
        plugins().filter_map(|plugin| if let Plugin::Tsig(tsig) = plugin { Some(&tsig.secrets) } else { None });
    let known: Vec<&Name> = secrets.flatten().map(|secret| &secret.name).collect();
    let named = plugins().filter_map(|plugin| match plugin {
        Plugin::Secondary(options) => options.key.as_ref(),
        Plugin::Transfer(options) => options.key.as_ref(),
        _ => None,
    });
    let unknown = named.filter(|(name, _)| !known.contains(&name));
    let error = |(name, place): &(Name, Place)| CorefileError {
        place: place.clone(),
        fault: Fault::UnknownKey { name: name.to_string(), known: known.iter().map(ToString::to_string).collect() },
    };
    unknown.map(error).collect()
}

/// `key "name" { algorithm hmac-sha256; secret "…"; };`, as `named.conf` has it.
fn key_file(text: &str) -> Result<Vec<TsigSecret>, String> {
    let plain: String = text.lines().map(|line| without_comment(line) + "\n").collect();
    let spaced = plain.replace('{', " { ").replace('}', " } ").replace(';', " ; ");
    let mut words = spaced.split_ascii_whitespace().map(|word| word.trim_matches('"')).filter(|word| *word != ";");
    let mut secrets = Vec::new();
    while let Some(word) = words.next() {
        if word != "key" {
            return Err(format!("found {word:?}, allowed here: key"));
        }
        let name = words.next().unwrap_or_default();
        let bad = |what: &str| format!("key {name:?} {what}");
        let parsed = Name::parse(name).map_err(|_| bad("has no name of a key"))?;
        if words.next() != Some("{") {
            return Err(bad("has no {"));
        }
        let (mut algorithm, mut secret) = (Algorithm::Sha256, None);
        loop {
            match words.next() {
                Some("}") => break,
                Some("algorithm") => {
                    let named = words.next().and_then(Algorithm::named);
                    algorithm = named.ok_or_else(|| bad("has an unknown algorithm"))?;
                }
                Some("secret") => {
                    let bytes = words.next().and_then(secret_bytes);
                    secret = Some(bytes.ok_or_else(|| bad("has a secret that is no base64"))?);
                }
                Some(other) => return Err(bad(&format!("has {other:?}; allowed: algorithm, secret"))),
                None => return Err(bad("has no }")),
            }
        }
        secrets.push(TsigSecret { name: parsed, algorithm, secret: secret.ok_or_else(|| bad("has no secret"))? });
    }
    Ok(secrets)
}

/// A secret may have two slashes in it, so only those after white space begin a comment.
fn without_comment(line: &str) -> String {
    let line = line.split_once('#').map_or(line, |(code, _)| code);
    let line = if line.trim_start().starts_with("//") { "" } else { line };
    line.split_once(" //").map_or(line, |(code, _)| code).to_owned()
}

/// `dnssec [ZONES…]`.
pub(super) fn dnssec(directive: &Directive, scope: &mut Scope<'_>) -> Result<DnssecOptions, CorefileError> {
    let zones = scope.zones_or(read::zones(&directive.arguments, "a zone of dnssec")?);
    let mut options = DnssecOptions { zones, keys: Vec::new(), cache_capacity: 10_000 };
    scope.options(directive, |scope, option| {
        match option.name.text.as_str() {
            "key" => options.keys.extend(key_files(option, scope)?),
            "cache_capacity" => {
                let word = read::one(option, "a number")?;
                options.cache_capacity = read::number(word, "cache_capacity", 1, 100_000_000)? as usize;
            }
            _ => return Err(read::unknown("dnssec", option, &["key file", "cache_capacity"])),
        }
        Ok(())
    });
    if options.keys.is_empty() {
        scope.warnings.push(format!("{}: without a key nothing is signed", directive.name.place));
    }
    let fits = |key: &SigningKey| options.zones.iter().any(|zone| zone.within(key.owner()));
    for key in options.keys.iter().filter(|key| !fits(key)) {
        let (place, owner) = (&directive.name.place, key.owner());
        scope.warnings.push(format!("{place}: the key with tag {} was made for {owner}, and signs others", key.tag()));
    }
    Ok(options)
}

/// `key file KEY…`: the keys, each of which is in two files.
fn key_files(option: &Directive, scope: &mut Scope<'_>) -> Result<Vec<Arc<SigningKey>>, CorefileError> {
    let Some((kind, keys)) = option.arguments.split_first() else {
        return Err(option.missing("file, and the keys' files"));
    };
    if kind.text != "file" {
        return Err(kind.bad("where keys are", "file: keys are not fetched from a cloud vendor"));
    }
    if keys.is_empty() {
        return Err(option.missing("the keys' files"));
    }
    let read = |word: &Word| signing_key(word, &key_base(&scope.path(&word.text)), scope);
    keys.iter().map(read).collect()
}

/// Reads a key's two files, which are `base` with `.key` and with `.private` behind it. They are looked at again.
fn signing_key(word: &Word, base: &str, scope: &mut Scope<'_>) -> Result<Arc<SigningKey>, CorefileError> {
    let halves = [".key", ".private"].map(|end| format!("{base}{end}"));
    scope.files.extend(halves.iter().map(PathBuf::from));
    let [public, private] = halves.map(|path| {
        let text = (scope.environment.file)(&path);
        text.map_err(|error| word.error(Fault::Unreadable { path, reason: error.to_string() }))
    });
    let key = SigningKey::from_bind(&public?, &private?);
    key.map(Arc::new).map_err(|error| word.malformed("the key", &error.to_string()))
}

fn key_base(path: &str) -> String {
    [".key", ".private"].iter().find_map(|end| path.strip_suffix(end)).unwrap_or(path).to_owned()
}

/// `sign DBFILE [ZONES…]`.
pub(super) fn sign(directive: &Directive, scope: &mut Scope<'_>) -> Result<SignOptions, CorefileError> {
    let Some((path, zones)) = directive.arguments.split_first() else {
        return Err(directive.missing("the zone's file"));
    };
    let (mut places, mut directory) = (Vec::new(), "/var/lib/coredns".to_owned());
    scope.options(directive, |scope, option| {
        match option.name.text.as_str() {
            "key" => places.extend(key_places(option, scope)?),
            "directory" => directory = scope.path(&read::one(option, "a directory")?.text),
            _ => return Err(read::unknown("sign", option, &["key", "directory"])),
        }
        Ok(())
    });
    if places.is_empty() {
        return Err(directive.missing("{ key file <key>… }"));
    }
    let mut options = SignOptions { path: scope.path(&path.text), zones: Vec::new() };
    scope.files.push(PathBuf::from(&options.path));
    for origin in scope.zones_or(read::zones(zones, "a zone of sign")?) {
        let mut keys = Vec::new();
        for place in &places {
            match place {
                KeyPlace::Files(word, base) => keys.push(signing_key(word, base, scope)?),
                KeyPlace::Directory(word, path) => keys.append(&mut keys_of(word, path, &origin, scope)?),
            }
        }
        if keys.is_empty() {
            return Err(directive.missing(&format!("a key of {origin}: a file K{origin}+<algorithm>+<tag>.key")));
        }
        let file = format!("{}/db.{origin}signed", directory.trim_end_matches('/'));
        options.zones.push(SignedZone { origin, keys, file });
    }
    Ok(options)
}

/// The keys in a directory that were made for a zone.
fn keys_of(word: &Word, path: &str, zone: &Name, scope: &mut Scope<'_>) -> Result<Vec<Arc<SigningKey>>, CorefileError> {
    scope.directories.push(PathBuf::from(path));
    let unreadable = |error: std::io::Error| Fault::Unreadable { path: path.to_owned(), reason: error.to_string() };
    let names = (scope.environment.list)(path).map_err(|error| word.error(unreadable(error)))?;
    let begin = format!("K{zone}+");
    let bases = names.iter().filter(|name| name.starts_with(&begin)).filter_map(|name| name.strip_suffix(".key"));
    bases.map(|base| signing_key(word, &format!("{}/{base}", path.trim_end_matches('/')), scope)).collect()
}

fn key_places(option: &Directive, scope: &Scope<'_>) -> Result<Vec<KeyPlace>, CorefileError> {
    let [kind, paths @ ..] = option.arguments.as_slice() else {
        return Err(option.missing("file or directory, and paths"));
    };
    if paths.is_empty() {
        return Err(option.missing("at least one path"));
    }
    let place = |word: &Word| match kind.text.as_str() {
        "file" => Ok(KeyPlace::Files(word.clone(), key_base(&scope.path(&word.text)))),
        "directory" => Ok(KeyPlace::Directory(word.clone(), scope.path(&word.text))),
        _ => Err(kind.bad("where keys are", "file or directory")),
    };
    paths.iter().map(place).collect()
}
