mod dnssec;
mod plain;
pub(crate) mod reference;

use super::*;
use crate::{
    authority::zonefile,
    message::expand,
    name::{Name, QueryName},
};

/// The zone of a file's text.
pub(crate) fn zone(origin: &str, text: &str) -> Zone {
    let (origin, file) = (Name::parse(origin).unwrap(), parsed(origin, text));
    Zone::from_file(&origin, &file, "db").unwrap_or_else(|error| panic!("{error}")).0
}

fn parsed(origin: &str, text: &str) -> zonefile::ZoneFile {
    let origin = Name::parse(origin).unwrap();
    zonefile::parse("db", text, &origin, &|_| Err(std::io::ErrorKind::NotFound.into())).unwrap()
}

/// An answer as lines: code and kind, then the records with their section's first letter.
fn ask(zone: &Zone, name: &str, qtype: &str, dnssec: bool) -> Vec<String> {
    let name = Name::parse(name).unwrap();
    let qtype = crate::authority::rdata::type_named(qtype).unwrap();
    let found = zone.lookup(&QueryName::from(&name), qtype, dnssec).unwrap();
    let aa = if found.answer.authoritative { "aa" } else { "-" };
    let next = found.next.as_ref().map(|next| format!(" to {next}")).unwrap_or_default();
    let mut lines = vec![format!("{} {aa} {:?}{next}", found.answer.rcode.0, found.kind)];
    let counts: u16 = found.answer.counts.iter().sum();
    let records = expand(&name, &found.answer);
    assert_eq!(records.len(), usize::from(counts), "the answer can be read");
    lines.extend(records.into_iter().map(|record| {
        let section = ["A", "N", "X"][record.section as usize];
        let record = Record { owner: record.owner, rtype: record.rtype, ttl: record.ttl, rdata: record.rdata.into() };
        let mut line = record.to_string().replace('\t', " ").replace(" IN ", " ");
        if record.rtype == kind::RRSIG {
            line = line.split(' ').take(3).collect::<Vec<_>>().join(" ");
        }
        format!("{section} {line}")
    }));
    lines
}
