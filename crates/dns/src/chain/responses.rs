//! The plugins that shape answers without having records of their own, and those that make some up.

use std::{net::Ipv6Addr, path::PathBuf, time::Duration};

use ipnet::{IpNet, Ipv6Net};

use super::{
    read,
    scope::Scope,
    weights::{self, Weights},
};
use crate::{
    corefile::{CorefileError, Directive, Fault, Word},
    name::Name,
};

/// `dns64` (RFC 6147): IPv6 addresses are made of IPv4 addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dns64Options {
    /// The prefix before the IPv4 address (RFC 6052 §2.2).
    pub prefix: Ipv6Net,
    /// Also where there are IPv6 addresses.
    pub translate_all: bool,
    /// Also for clients that ask over IPv4.
    pub allow_ipv4: bool,
}

/// `chaos`: what questions of class CH are answered with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChaosOptions {
    /// `version.bind` and `version.server`; none means this program's.
    pub version: Option<String>,
    /// `authors.bind`.
    pub authors: Vec<String>,
}

/// `loadbalance`: the order of addresses and MX records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadbalanceOptions {
    /// How they are ordered.
    pub policy: Balance,
    /// The most records of an answer; none: all.
    pub limit_answers: Option<usize>,
    /// Addresses within these come first, those of an earlier one before those of a later one.
    pub prefer: Vec<IpNet>,
}

/// How records are ordered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Balance {
    /// In turn.
    RoundRobin,
    /// One is put first, by chance and weight.
    Weighted {
        /// What the file says.
        weights: Weights,
        /// How often the file is looked at; none: never again.
        reload: Option<Duration>,
    },
}

/// `header`: what happens to flags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderRule {
    /// Of the query, before other plugins see it, rather than of the response.
    pub query: bool,
    /// The flags are set rather than cleared.
    pub set: bool,
    /// The flags.
    pub flags: Vec<HeaderFlag>,
}

/// A flag of the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderFlag {
    /// `aa`
    Authoritative,
    /// `ra`
    RecursionAvailable,
    /// `rd`
    RecursionDesired,
}

/// `autopath`: search paths are followed by the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AutopathOptions {
    /// The zones whose names are searched for.
    pub zones: Vec<Name>,
    /// The search path.
    pub search: SearchPath,
}

/// Where a search path comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SearchPath {
    /// The plugin of this name knows it: `kubernetes` each client's, behind which stands that of this machine's `resolv.conf(5)`, as
    /// kubelets write it for pods; `erratic` these for all.
    Plugin(String, Vec<Name>),
    /// All clients have that of a `resolv.conf(5)`.
    Names(Vec<Name>),
    /// That of each client is known from outside (`Outside::search_of`): that of a pod of the cluster whose names end so.
    Client(Name),
}

impl AutopathOptions {
    /// With what is known once all plugins of the server block are: where one says the same for all clients, that; nothing where
    /// the block does not have it.
    #[must_use]
    pub(crate) fn among(self, plugins: &[&str]) -> Self {
        let search = match self.search {
            SearchPath::Plugin(plugin, names) if plugin != "kubernetes" => {
                SearchPath::Names(if plugins.contains(&plugin.as_str()) { names } else { Vec::new() })
            }
            other => other,
        };
        Self { zones: self.zones, search }
    }
}

/// `erratic`: answers that go wrong, for tests of clients. Each n-th query is concerned; 0 means none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErraticOptions {
    /// Not answered.
    pub drop: u32,
    /// Truncated.
    pub truncate: u32,
    /// Answered late.
    pub delay: u32,
    /// How late.
    pub delay_by: Duration,
    /// Answers with an IPv4 address have it thirty times, which is more than a datagram without EDNS holds.
    pub large: bool,
}

const WELL_KNOWN: Ipv6Addr = Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0);

/// `dns64 [PREFIX]`.
pub(super) fn dns64(directive: &Directive, scope: &mut Scope<'_>) -> Result<Dns64Options, CorefileError> {
    read::at_most(directive, 1)?;
    let prefix = Ipv6Net::new_assert(WELL_KNOWN, 96);
    let mut options = Dns64Options { prefix, translate_all: false, allow_ipv4: false };
    if let Some(word) = directive.arguments.first() {
        options.prefix = nat64_prefix(word)?;
    }
    scope.options(directive, |_, option| {
        match option.name.text.as_str() {
            "prefix" => options.prefix = nat64_prefix(read::one(option, "an IPv6 prefix")?)?,
            "translate_all" => options.translate_all = read::nothing(option).map(|()| true)?,
            "allow_ipv4" => options.allow_ipv4 = read::nothing(option).map(|()| true)?,
            _ => return Err(read::unknown("dns64", option, &["prefix", "translate_all", "allow_ipv4"])),
        }
        Ok(())
    });
    Ok(options)
}

fn nat64_prefix(word: &Word) -> Result<Ipv6Net, CorefileError> {
    let prefix = word.text.parse::<Ipv6Net>().ok();
    let prefix = prefix.filter(|prefix| matches!(prefix.prefix_len(), 32 | 40 | 48 | 56 | 64 | 96));
    prefix
        .map(|prefix| prefix.trunc())
        .ok_or_else(|| word.bad("the prefix of dns64", "an IPv6 prefix of length 32, 40, 48, 56, 64 or 96 (RFC 6052)"))
}

/// `chaos [VERSION] [AUTHORS…]`.
pub(super) fn chaos(directive: &Directive) -> Result<ChaosOptions, CorefileError> {
    read::no_options(directive)?;
    if let Some(word) = directive.arguments.iter().find(|word| word.text.len() > 255) {
        return Err(word.bad("a text of chaos", "at most 255 bytes (RFC 1035 §3.3.14)"));
    }
    let mut words = directive.arguments.iter().map(|word| word.text.clone());
    Ok(ChaosOptions { version: words.next(), authors: words.collect() })
}

/// `loadbalance [round_robin | weighted WEIGHTFILE]`.
pub(super) fn loadbalance(directive: &Directive, scope: &mut Scope<'_>) -> Result<LoadbalanceOptions, CorefileError> {
    let mut options = LoadbalanceOptions { policy: Balance::RoundRobin, limit_answers: None, prefer: Vec::new() };
    let weighted = directive.arguments.first().filter(|word| word.text == "weighted");
    match (directive.arguments.first(), weighted) {
        (_, Some(_)) => {
            read::at_most(directive, 2)?;
            let file = directive.arguments.get(1).ok_or_else(|| directive.missing("the file with the weights"))?;
            let reload = Some(Duration::from_secs(30));
            options.policy = Balance::Weighted { weights: weights::read(file, scope)?, reload };
        }
        (Some(word), None) if word.text != "round_robin" => {
            return Err(word.bad("the policy of loadbalance", "round_robin or weighted <file>"));
        }
        _ => read::at_most(directive, 1)?,
    }
    scope.options(directive, |_, option| {
        match (option.name.text.as_str(), &mut options.policy) {
            ("reload", Balance::Weighted { reload, .. }) => *reload = read::interval(option)?,
            ("reload", Balance::RoundRobin) => {
                let allowed = "limit_answers or prefer: only weights are reloaded".to_owned();
                return Err(option.name.error(Fault::Unexpected { found: "reload".to_owned(), allowed }));
            }
            ("limit_answers", _) => {
                let word = read::one(option, "a number")?;
                options.limit_answers = Some(read::number(word, "limit_answers", 1, u16::MAX.into())? as usize);
            }
            ("prefer", _) if option.arguments.is_empty() => return Err(option.missing("at least one network")),
            ("prefer", _) => {
                for word in &option.arguments {
                    options.prefer.push(read::network(word, "a network of prefer")?);
                }
            }
            _ => return Err(read::unknown("loadbalance", option, &["reload", "limit_answers", "prefer"])),
        }
        Ok(())
    });
    if let (Balance::Weighted { reload, .. }, Some(file)) = (&options.policy, directive.arguments.get(1)) {
        scope.watched.push((PathBuf::from(scope.path(&file.text)), *reload));
    }
    Ok(options)
}

/// `[query|response] set|clear FLAGS…`.
pub(super) fn header(directive: &Directive, scope: &mut Scope<'_>) -> Result<Vec<HeaderRule>, CorefileError> {
    read::at_most(directive, 0)?;
    if directive.options.is_empty() {
        return Err(directive.missing("{ set or clear with flags }"));
    }
    let mut rules = Vec::new();
    scope.options(directive, |_, option| {
        rules.push(header_rule(option)?);
        Ok(())
    });
    Ok(rules)
}

fn header_rule(option: &Directive) -> Result<HeaderRule, CorefileError> {
    let selector = option.name.text.to_ascii_lowercase();
    let (action, flags) = match selector.as_str() {
        "query" | "response" => {
            let (action, flags) = option.arguments.split_first().ok_or_else(|| option.missing("set or clear"))?;
            (action, flags)
        }
        _ => (&option.name, option.arguments.as_slice()),
    };
    let set = match action.text.to_ascii_lowercase().as_str() {
        "set" => true,
        "clear" => false,
        _ if action.place == option.name.place => {
            return Err(read::unknown("header", option, &["query", "response", "set", "clear"]));
        }
        _ => return Err(action.bad("what header does", "set or clear")),
    };
    if flags.is_empty() {
        return Err(option.missing("at least one of the flags aa, ra and rd"));
    }
    let flag = |word: &Word| match word.text.to_ascii_lowercase().as_str() {
        "aa" => Ok(HeaderFlag::Authoritative),
        "ra" => Ok(HeaderFlag::RecursionAvailable),
        "rd" => Ok(HeaderFlag::RecursionDesired),
        _ => Err(word.bad("a flag of header", "aa, ra or rd")),
    };
    Ok(HeaderRule { query: selector == "query", set, flags: flags.iter().map(flag).collect::<Result<_, _>>()? })
}

/// Where this machine's search path stands.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// `searchpath [DOMAIN]`: the cluster's domain.
pub(super) fn searchpath(directive: &Directive) -> Result<AutopathOptions, CorefileError> {
    read::no_options(directive)?;
    let domain = match directive.arguments.as_slice() {
        [] => Name::parse("cluster.local").map_err(|_| directive.missing("the cluster's domain"))?,
        [_] => read::zones(&directive.arguments, "the domain of searchpath")?.remove(0),
        [_, more, ..] => return Err(more.bad("searchpath", "one domain")),
    };
    Ok(AutopathOptions { zones: vec![domain.clone()], search: SearchPath::Client(domain) })
}

/// `autopath [ZONES…] RESOLV-CONF|@PLUGIN`, of plugins those that know search paths.
pub(super) fn autopath(directive: &Directive, scope: &mut Scope<'_>) -> Result<AutopathOptions, CorefileError> {
    read::no_options(directive)?;
    let Some((source, zones)) = directive.arguments.split_last() else {
        return Err(directive.missing("a resolv.conf, @kubernetes or @erratic"));
    };
    let zones = scope.zones_or(read::zones(zones, "a zone of autopath")?);
    let search = match source.text.strip_prefix('@') {
        Some("kubernetes") => {
            // Without such a file, or with one that cannot be read, there is nothing behind the cluster's own names.
            let host = Word { text: RESOLV_CONF.to_owned(), ..source.clone() };
            SearchPath::Plugin("kubernetes".to_owned(), search_names(&host, scope).unwrap_or_default())
        }
        // What CoreDNS's says, for tests of this plugin.
        Some("erratic") => {
            let names = ["a.example.org", "b.example.org"].map(Name::parse).into_iter().flatten().collect();
            SearchPath::Plugin("erratic".to_owned(), names)
        }
        Some(_) => {
            let allowed = "the path of a resolv.conf, @kubernetes or @erratic";
            return Err(source.bad("the search path of autopath", allowed));
        }
        None => SearchPath::Names(search_names(source, scope)?),
    };
    Ok(AutopathOptions { zones, search })
}

/// The last `search` line of a `resolv.conf(5)`.
fn search_names(word: &Word, scope: &mut Scope<'_>) -> Result<Vec<Name>, CorefileError> {
    let text = read::text(word, scope)?;
    let line = text.lines().rev().find_map(|line| line.trim_start().strip_prefix("search"));
    let names = line.unwrap_or_default().split_ascii_whitespace();
    names
        .map(|name| Name::parse(name).map_err(|_| word.malformed("the search line of", &format!("{name:?}"))))
        .collect()
}

pub(super) fn erratic(directive: &Directive, scope: &mut Scope<'_>) -> Result<ErraticOptions, CorefileError> {
    read::at_most(directive, 0)?;
    let mut options =
        ErraticOptions { drop: 2, truncate: 0, delay: 0, delay_by: Duration::from_millis(100), large: false };
    let mut drops = false;
    scope.options(directive, |_, option| {
        let amount = |most, none| {
            read::at_most(option, most)?;
            option.arguments.first().map_or(Ok(none), |word| {
                read::number(word, "an amount of erratic", 0, i32::MAX as u64).map(|amount| amount as u32)
            })
        };
        match option.name.text.as_str() {
            "drop" => {
                options.drop = amount(1, 2)?;
                drops |= !option.arguments.is_empty();
            }
            "truncate" => options.truncate = amount(1, 2)?,
            "delay" => {
                options.delay = amount(2, 2)?;
                if let Some(word) = option.arguments.get(1) {
                    options.delay_by = read::duration(word, "the delay of erratic")?;
                }
            }
            "large" => options.large = read::nothing(option).map(|()| true)?,
            _ => return Err(read::unknown("erratic", option, &["drop", "truncate", "delay", "large"])),
        }
        Ok(())
    });
    // Who only asked for the others does not get lost answers, too.
    if (options.delay > 0 || options.truncate > 0) && !drops {
        options.drop = 0;
    }
    Ok(options)
}
