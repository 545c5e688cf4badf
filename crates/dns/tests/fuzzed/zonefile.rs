//! Zone files: what can be read is printed and read again, makes a zone or a reason why not, and the zone answers. It may be a catalog.

use podnet_dns::{
    authority::{
        Zone,
        catalog::{Catalog, Changes, LeftOut, Roster},
        zonefile,
    },
    message::expand,
    name::{Name, QueryName},
};

/// A file that is included.
const INCLUDED: &str = "www 60 IN A 192.0.2.9\n@ IN TXT \"included\"\n";

/// Reads a text.
pub fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let origin = Name::parse("example.org").expect("it is a name");
    let include = |path: &str| match path {
        "self" => Ok(text.clone().into_owned()),
        _ => Ok(INCLUDED.to_owned()),
    };
    let file = match zonefile::parse("db", &text, &origin, &include) {
        Ok(file) => file,
        Err(error) => {
            assert!(error.place.line >= 1 && error.place.column >= 1, "an error without a place: {error}");
            return;
        }
    };
    assert_eq!(file.records.len(), file.places.len());
    for record in &file.records {
        let line = record.to_string();
        let again = zonefile::parse("db", &line, &Name::root(), &include);
        let again = again.unwrap_or_else(|error| panic!("{line:?} was printed and cannot be read: {error}"));
        assert_eq!(again.records.first(), Some(record), "{line:?}");
    }
    let Ok((zone, _)) = Zone::from_records(&origin, &file.records) else { return };
    list(&zone);
    let known = file.records.iter().take(8).map(|record| record.owner.clone());
    let others =
        ["example.org", "a.b.www.example.org", "zz.example.org"].into_iter().filter_map(|name| Name::parse(name).ok());
    for name in known.chain(others) {
        for qtype in [1, 2, 5, 6, 15, 16, 43, 47, 255] {
            let Some(found) = zone.lookup(&QueryName::from(&name), qtype, qtype % 2 == 0) else { continue };
            let counts: usize = found.answer.counts.iter().map(|count| usize::from(*count)).sum();
            assert_eq!(expand(&name, &found.answer).len(), counts, "{name} {qtype}: an answer that cannot be read");
        }
    }
}

/// What a catalog lists comes once, stays, and goes with it.
fn list(zone: &Zone) {
    let Ok(catalog) = Catalog::read(zone) else { return };
    let (mut roster, count) = (Roster::default(), catalog.members().count());
    let admits = |_: &Name, _: &Name| Ok::<(), LeftOut>(());
    let came = roster.take(zone.origin(), catalog.clone(), &admits);
    assert_eq!((came.steps.len(), came.left_out.len()), (count, 0), "{catalog:?}");
    assert_eq!(roster.take(zone.origin(), catalog, &admits), Changes::default(), "nothing has changed");
    assert_eq!(roster.take(zone.origin(), Catalog::default(), &admits).steps.len(), count, "all go");
    assert_eq!(roster.owners().count(), 0);
}
