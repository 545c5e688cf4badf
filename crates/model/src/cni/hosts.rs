//! The names of a network's attachments, as a file that resolvers and DNS servers read.

use std::{collections::BTreeMap, fmt::Write as _, net::IpAddr};

/// A hosts(5) file of addresses and the names that runtimes gave (the capability `aliases`); none where there is no name. A name that
/// several have stands with the addresses of all.
#[must_use]
pub fn hosts_file<'a>(named: impl IntoIterator<Item = (&'a [IpAddr], &'a [String])>) -> Option<String> {
    let mut names: BTreeMap<IpAddr, Vec<&str>> = BTreeMap::new();
    for (addrs, aliases) in named.into_iter().filter(|(_, aliases)| !aliases.is_empty()) {
        for addr in addrs {
            names.entry(*addr).or_default().extend(aliases.iter().map(String::as_str));
        }
    }
    if names.is_empty() {
        return None;
    }
    let mut text =
        "# Written by podnet: names that a container runtime gave (the CNI capability aliases).\n".to_owned();
    for (addr, mut names) in names {
        names.sort_unstable();
        names.dedup();
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{addr} {}", names.join(" "));
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_has_its_names_and_what_has_no_name_is_left_out() {
        let one: [IpAddr; 2] = ["10.0.0.2", "fd00::2"].map(|addr| addr.parse().unwrap());
        let two: [IpAddr; 1] = ["10.0.0.10".parse().unwrap()];
        let aliases = ["web", "www"].map(str::to_owned);
        let text = hosts_file([(&one[..], &aliases[..]), (&two[..], &aliases[..1])]).unwrap();
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(lines, ["10.0.0.2 web www", "10.0.0.10 web", "fd00::2 web www"]);
        assert_eq!(hosts_file([(&two[..], &[][..])]), None);
        assert_eq!(hosts_file([]), None);
    }
}
