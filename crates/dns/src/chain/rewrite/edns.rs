//! EDNS options that are put into questions (RFC 6891 §6.1.2).

use crate::corefile::{CorefileError, Word};

/// What happens to an EDNS option of the question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EdnsRewrite {
    /// What happens.
    pub action: EdnsAction,
    /// The option.
    pub option: EdnsOption,
    /// The response's option becomes again what the client sent.
    pub revert: bool,
}

/// What happens to an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EdnsAction {
    /// It is put in the place of what there is, or added.
    Set,
    /// It is added where there is none.
    Append,
    /// It is put in the place of what there is.
    Replace,
    /// It is taken out.
    Unset,
}

/// An option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EdnsOption {
    /// Any option.
    Local {
        /// Its code.
        code: u16,
        /// Its data; empty where it is taken out.
        data: EdnsData,
    },
    /// The question for the server's identity (RFC 5001).
    Nsid,
    /// The client's subnet (RFC 7871).
    Subnet {
        /// How many bits of an IPv4 address are told.
        v4: u8,
        /// How many bits of an IPv6 address are told.
        v6: u8,
    },
}

/// An option's data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EdnsData {
    /// These bytes.
    Bytes(Vec<u8>),
    /// The name that is asked for, as text.
    QueryName,
    /// The type that is asked for, two bytes.
    QueryType,
    /// The client's address, 4 or 16 bytes.
    ClientIp,
    /// The client's port, two bytes.
    ClientPort,
    /// `udp` or `tcp`.
    Protocol,
    /// The server's address, 4 or 16 bytes.
    ServerIp,
    /// The server's port, two bytes.
    ServerPort,
    /// What a plugin tells under this label (`metadata`).
    Metadata(String),
}

/// `local|nsid|subnet set|append|replace|unset … [revert]`.
pub(super) fn parse(values: &[&Word], last: &Word) -> Result<EdnsRewrite, CorefileError> {
    let [kind, action, rest @ ..] = values else {
        return Err(last.missing("local, nsid or subnet, and set, append, replace or unset"));
    };
    let (rest, revert) = match rest {
        [rest @ .., word] if word.text == "revert" => (rest, true),
        _ => (rest, false),
    };
    let action = match action.text.to_ascii_lowercase().as_str() {
        "set" => EdnsAction::Set,
        "append" => EdnsAction::Append,
        "replace" => EdnsAction::Replace,
        "unset" => EdnsAction::Unset,
        _ => return Err(action.bad("what happens to the option", "set, append, replace or unset")),
    };
    if let (EdnsAction::Unset, true) = (action, revert) {
        return Err(last.bad("a word of rewrite", "the end of the line: what is taken out does not come back"));
    }
    let unset = action == EdnsAction::Unset;
    let option = match (kind.text.to_ascii_lowercase().as_str(), rest) {
        ("local", [code]) if unset => EdnsOption::Local { code: option_code(code)?, data: EdnsData::Bytes(Vec::new()) },
        ("local", [code, data]) if !unset => EdnsOption::Local { code: option_code(code)?, data: option_data(data)? },
        ("nsid", []) => EdnsOption::Nsid,
        ("subnet", []) if unset => EdnsOption::Subnet { v4: 0, v6: 0 },
        ("subnet", [v4, v6]) if !unset => EdnsOption::Subnet { v4: bits(v4, 32)?, v6: bits(v6, 128)? },
        (kind @ ("local" | "nsid" | "subnet"), _) => {
            let needed = match (kind, unset) {
                ("local", true) => "exactly the option's code",
                ("local", false) => "exactly the option's code and its data",
                ("subnet", false) => "exactly the bits of IPv4 and of IPv6 addresses",
                _ => return Err(last.bad("a word of rewrite", "the end of the line")),
            };
            return Err(last.missing(needed));
        }
        _ => return Err(kind.bad("an EDNS option of rewrite", "local, nsid or subnet")),
    };
    Ok(EdnsRewrite { action, option, revert })
}

fn option_code(word: &Word) -> Result<u16, CorefileError> {
    number(&word.text).ok_or_else(|| word.bad("the code of an EDNS option", "0 to 65535, or 0x0 to 0xffff"))
}

/// A number as Go reads it without a base.
fn number(text: &str) -> Option<u16> {
    let lower = text.to_ascii_lowercase();
    for (prefix, radix) in [("0x", 16), ("0b", 2), ("0o", 8)] {
        if let Some(digits) = lower.strip_prefix(prefix) {
            return u16::from_str_radix(digits, radix).ok();
        }
    }
    match lower.strip_prefix('0').filter(|digits| !digits.is_empty()) {
        Some(digits) => u16::from_str_radix(digits, 8).ok(),
        None => lower.parse().ok(),
    }
}

fn bits(word: &Word, most: u8) -> Result<u8, CorefileError> {
    let bits = number(&word.text).and_then(|bits| u8::try_from(bits).ok()).filter(|bits| *bits <= most);
    bits.ok_or_else(|| word.bad("the bits of a subnet", &format!("0 to {most}")))
}

fn option_data(word: &Word) -> Result<EdnsData, CorefileError> {
    if let Some(digits) = word.text.strip_prefix("0x") {
        return hex(digits)
            .map(EdnsData::Bytes)
            .ok_or_else(|| word.bad("the data of an EDNS option", "pairs of hex digits"));
    }
    let Some(variable) = word.text.strip_prefix('{').and_then(|text| text.strip_suffix('}')) else {
        return Ok(EdnsData::Bytes(word.text.clone().into_bytes()));
    };
    Ok(match variable {
        "qname" => EdnsData::QueryName,
        "qtype" => EdnsData::QueryType,
        "client_ip" => EdnsData::ClientIp,
        "client_port" => EdnsData::ClientPort,
        "protocol" => EdnsData::Protocol,
        "server_ip" => EdnsData::ServerIp,
        "server_port" => EdnsData::ServerPort,
        // A plugin's name, and a label.
        label if label.split_once('/').is_some_and(|(plugin, label)| !plugin.is_empty() && !label.is_empty()) => {
            EdnsData::Metadata(label.to_owned())
        }
        _ => {
            let allowed = "{qname}, {qtype}, {client_ip}, {client_port}, {protocol}, {server_ip}, {server_port} or \
                           {plugin/label}";
            return Err(word.bad("the data of an EDNS option", allowed));
        }
    })
}

fn hex(digits: &str) -> Option<Vec<u8>> {
    let pairs = digits.as_bytes().chunks(2);
    pairs
        .map(|pair| std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2))
        .map(|pair| u8::from_str_radix(pair?, 16).ok())
        .collect()
}
