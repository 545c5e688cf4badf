//! Hosts files: every line is read or passed over, and what was read answers.

use podnet_dns::{
    hosts::Hosts,
    message::{expand, rtype},
    name::{Name, QueryName, reverse_name},
};

/// Reads a text.
pub fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let hosts = Hosts::new(&text, &[], 60, true);
    let mut names: Vec<Name> =
        text.split_ascii_whitespace().take(32).filter_map(|word| Name::parse(word).ok()).collect();
    let addrs = text.split_ascii_whitespace().filter_map(|word| word.parse().ok());
    names.extend(addrs.take(32).map(reverse_name));
    for name in &names {
        for qtype in [rtype::A, rtype::AAAA, rtype::PTR, rtype::TXT] {
            let Some(answer) = hosts.answer(&QueryName::from(name), qtype) else { continue };
            let counts: usize = answer.counts.iter().map(|count| usize::from(*count)).sum();
            assert_eq!(expand(name, &answer).len(), counts, "{name} {qtype}: an answer that cannot be read");
        }
    }
}
