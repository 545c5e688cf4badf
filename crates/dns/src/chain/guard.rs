//! `cookies` and `rrl`: what keeps this server from flooding others.

use std::time::Duration;

use data_encoding::HEXLOWER_PERMISSIVE;
use ipnet::IpNet;

use super::{read, scope::Scope};
use crate::{
    corefile::{CorefileError, Directive, Word},
    name::Name,
};

/// `cookies`: DNS cookies (RFC 7873). A directive of this server's own; without it clients that send cookies get ours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CookieOptions {
    /// There are none.
    pub off: bool,
    /// Secrets that several servers share: the first makes cookies, the second is known still. None: chance makes one each day.
    pub secrets: Vec<[u8; 16]>,
    /// Who sends a cookie over UDP has to send one of ours: others are told BADCOOKIE, with one.
    pub require: bool,
    /// The largest response over UDP to those who have no cookie of ours, in bytes (512–1232).
    pub unverified_size: Option<u16>,
}

/// `rrl`: how many responses of one kind go to a network each second; 0 means any number.
#[derive(Clone, Debug, PartialEq)]
pub struct RrlOptions {
    /// The names to which responses are counted.
    pub zones: Vec<Name>,
    /// For how long who asked too much is held back at most.
    pub window: Duration,
    /// The length of an IPv4 network's prefix, in bits.
    pub ipv4_prefix: u8,
    /// The same of IPv6.
    pub ipv6_prefix: u8,
    /// Responses with records, without records, of names that are not there, referrals, errors.
    pub per_second: [f64; 5],
    /// Questions of all kinds.
    pub requests_per_second: f64,
    /// Each so manieth response that is held back is sent, cut and without records; 0: none.
    pub slip_ratio: u32,
    /// Networks that are never held back.
    pub exempt: Vec<IpNet>,
    /// How many kinds of responses to how many networks are counted at a time.
    pub max_table_size: usize,
    /// Nothing is held back; it is only counted.
    pub report_only: bool,
}

const COOKIES: [&str; 3] = ["secret", "require", "unverified_size"];

/// `cookies [off] { secret HEX [HEX]; require; unverified_size BYTES }`.
pub(super) fn cookies(directive: &Directive, scope: &mut Scope<'_>) -> Result<CookieOptions, CorefileError> {
    read::at_most(directive, 1)?;
    let mut options = CookieOptions::default();
    if let Some(word) = directive.arguments.first() {
        if word.text != "off" {
            return Err(word.bad("what follows cookies", "off, or nothing"));
        }
        options.off = true;
    }
    scope.options(directive, |_, option| {
        match option.name.text.as_str() {
            "secret" => {
                read::at_most(option, 2)?;
                if option.arguments.is_empty() {
                    return Err(option.missing("32 hexadecimal digits"));
                }
                options.secrets = option.arguments.iter().map(secret).collect::<Result<_, _>>()?;
            }
            "require" => {
                read::nothing(option)?;
                options.require = true;
            }
            "unverified_size" => {
                let size = read::number(read::one(option, "a size in bytes")?, "unverified_size", 512, 1232)?;
                options.unverified_size = Some(size as u16);
            }
            _ => return Err(read::unknown("cookies", option, &COOKIES)),
        }
        Ok(())
    });
    Ok(options)
}

fn secret(word: &Word) -> Result<[u8; 16], CorefileError> {
    let octets = HEXLOWER_PERMISSIVE.decode(word.text.as_bytes()).ok();
    octets
        .and_then(|octets| octets.try_into().ok())
        .ok_or_else(|| word.bad("a secret of cookies", "32 hexadecimal digits"))
}

const RRL: [&str; 12] = [
    "window",
    "ipv4-prefix-length",
    "ipv6-prefix-length",
    "responses-per-second",
    "nodata-per-second",
    "nxdomains-per-second",
    "referrals-per-second",
    "errors-per-second",
    "requests-per-second",
    "slip-ratio",
    "max-table-size",
    "exempt",
];
const REPORT: &str = "report-only";

/// `rrl [ZONES…] { … }`, as the plugin of that name from outside CoreDNS's own has it, but for `exempt` and the default of
/// `slip-ratio`: 2, as in BIND, so that who really asks is answered.
pub(super) fn rrl(directive: &Directive, scope: &mut Scope<'_>) -> Result<RrlOptions, CorefileError> {
    let mut options = RrlOptions {
        zones: scope.zones_or(read::zones(&directive.arguments, "a zone of rrl")?),
        window: Duration::from_secs(15),
        ipv4_prefix: 24,
        ipv6_prefix: 56,
        per_second: [0.0; 5],
        requests_per_second: 0.0,
        slip_ratio: 2,
        exempt: Vec::new(),
        max_table_size: 100_000,
        report_only: false,
    };
    let mut rates = [None; 5];
    scope.options(directive, |_, option| rrl_option(option, &mut options, &mut rates));
    // What is not said is as many as positive ones.
    options.per_second = rates.map(|rate| rate.or(rates[0]).unwrap_or(0.0));
    Ok(options)
}

fn rrl_option(option: &Directive, options: &mut RrlOptions, rates: &mut [Option<f64>; 5]) -> Result<(), CorefileError> {
    let name = option.name.text.as_str();
    if name == REPORT {
        options.report_only = true;
        return read::nothing(option);
    }
    let Some(known) = RRL.iter().position(|known| *known == name) else {
        return Err(read::unknown("rrl", option, &[&RRL[..], &[REPORT]].concat()));
    };
    if name == "exempt" {
        let nets = option.arguments.iter().map(|word| read::network(word, "a network of exempt"));
        options.exempt.extend(nets.collect::<Result<Vec<_>, _>>()?);
        return if option.arguments.is_empty() { Err(option.missing("networks")) } else { Ok(()) };
    }
    let word = read::one(option, "a number")?;
    let number = |min, max| read::number(word, name, min, max);
    match name {
        "window" => {
            let seconds = decimal(word, name)?;
            if seconds <= 0.0 || seconds > 3600.0 {
                return Err(word.bad(name, "seconds above 0, at most 3600"));
            }
            options.window = Duration::from_secs_f64(seconds);
        }
        "ipv4-prefix-length" => options.ipv4_prefix = number(1, 32)? as u8,
        "ipv6-prefix-length" => options.ipv6_prefix = number(1, 128)? as u8,
        "requests-per-second" => options.requests_per_second = decimal(word, name)?,
        "slip-ratio" => options.slip_ratio = number(0, 1000)? as u32,
        "max-table-size" => options.max_table_size = number(8, 10_000_000)? as usize,
        _ => rates[known - 3] = Some(decimal(word, name)?),
    }
    Ok(())
}

fn decimal(word: &Word, what: &str) -> Result<f64, CorefileError> {
    let value = word.text.parse().ok().filter(|value| (0.0..=1e6).contains(value));
    value.ok_or_else(|| word.bad(what, "a number from 0 to 1000000"))
}
