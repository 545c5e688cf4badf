//! The rules of RFC 9432 for who consumes catalogs.

use super::*;
use crate::authority::zone::tests::zone;

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn read(origin: &str, lines: &str) -> Result<Catalog, CatalogError> {
    Catalog::read(&zone(origin, &format!("@ 0 SOA . . 1 60 60 3600 0\n@ 0 NS invalid.\n{lines}\n")))
}

/// A catalog of the current version.
fn catalog(origin: &str, lines: &str) -> Catalog {
    read(origin, &format!("version 0 TXT 2\n{lines}")).unwrap()
}

/// What a catalog says it lists, line by line.
fn told(catalog: &Catalog) -> Vec<String> {
    let told = catalog.members().map(|(zone, member)| {
        let heir = member.heir.as_ref().map(|heir| format!(" to {heir}")).unwrap_or_default();
        format!("{zone} {}{heir}", String::from_utf8_lossy(&member.id))
    });
    told.collect()
}

const ANY: Admits = |_, _| Ok(());
type Admits = fn(&Name, &Name) -> Result<(), LeftOut>;

fn steps(changes: &Changes) -> Vec<String> {
    let told = changes.steps.iter().map(|step| match step {
        Step::Remove { zone } => format!("- {zone}"),
        Step::Add { zone, catalog } => format!("+ {zone} {catalog}"),
        Step::Hand { zone, catalog } => format!("> {zone} {catalog}"),
    });
    told.collect()
}

#[test]
fn members_are_told_with_their_labels_and_heirs_and_what_is_not_known_says_nothing() {
    let read = catalog(
        "catalog.example",
        "A.zones 0 PTR One.Example.\ncoo.a.zones 0 PTR other.example.\ngroup.a.zones 0 TXT g\nb.zones 0 PTR two.example.\n\
         later.b.zones 0 PTR x.\nserial.ext 0 TXT 1\nmore.ext.b.zones 0 TXT x\nzones 0 TXT no\nc.zones 0 TXT no\n\
         x.c.zones 0 PTR deep.example.\ncoo.d.zones 0 PTR other.example.\nd.others 0 PTR far.example.\nversion 0 A 192.0.2.1",
    );
    assert_eq!(told(&read), ["one.example. a to other.example.", "two.example. b"]);
    assert_eq!(catalog("catalog.example", ""), Catalog::default());
}

#[test]
fn a_zone_of_another_version_of_none_or_of_several_is_no_catalog() {
    let origin = name("catalog.example");
    let versions = |found| Err(CatalogError::Versions { catalog: origin.clone(), found });
    let other = || Err(CatalogError::Version { catalog: origin.clone() });
    for (lines, wanted) in [
        ("a.zones 0 PTR one.example.", versions(0)),
        ("version 0 TXT 2\nversion 0 TXT 3", versions(2)),
        ("version 0 TXT 1", other()),
        ("version 0 TXT 2 2", other()),
        ("version 0 TXT \"\"", other()),
        ("x.version 0 TXT 2", versions(0)),
        ("version 0 TXT 2", Ok(Catalog::default())),
    ] {
        assert_eq!(read("catalog.example", lines), wanted, "{lines}");
    }
}

#[test]
fn a_node_of_several_zones_and_a_zone_of_several_nodes_break_a_catalog() {
    for (lines, wanted) in [
        (
            "a.zones 0 PTR one.example.\na.zones 0 PTR two.example.",
            CatalogError::Several { node: name("a.zones.catalog.example") },
        ),
        ("a.zones 0 PTR one.example.\nb.zones 0 PTR ONE.example.", CatalogError::Twice { zone: name("one.example") }),
        (
            "a.zones 0 PTR one.example.\ncoo.a.zones 0 PTR x.\ncoo.a.zones 0 PTR y.",
            CatalogError::Several { node: name("coo.a.zones.catalog.example") },
        ),
    ] {
        assert_eq!(read("catalog.example", &format!("version 0 TXT 2\n{lines}")), Err(wanted), "{lines}");
    }
}

#[test]
fn a_catalog_lists_so_many_zones_and_no_more() {
    use std::fmt::Write as _;
    let listed = |count: usize| {
        let mut lines = "version 0 TXT 2\n".to_owned();
        for number in 0..count {
            let _ = writeln!(lines, "m{number}.zones 0 PTR z{number}.example.");
        }
        read("catalog.example", &lines)
    };
    assert_eq!(listed(MOST_MEMBERS + 1), Err(CatalogError::TooMany));
    let full = listed(MOST_MEMBERS).unwrap();
    // Of all catalogs together, too: another one gets no place until one is free.
    let mut roster = Roster::default();
    assert_eq!(roster.take(&name("catalog.example"), full, &ANY).steps.len(), MOST_MEMBERS);
    let other = catalog("other.example", "a.zones 0 PTR more.example.");
    let changes = roster.take(&name("other.example"), other.clone(), &ANY);
    assert_eq!((changes.steps.len(), &changes.left_out[..]), (0, &[(name("more.example"), LeftOut::TooMany)][..]));
    roster.take(&name("catalog.example"), Catalog::default(), &ANY);
    assert_eq!(steps(&roster.take(&name("other.example"), other, &ANY)), ["+ more.example. other.example."]);
}

#[test]
fn zones_come_and_go_with_a_catalog_and_with_another_label_they_begin_anew() {
    let (one, mut roster) = (name("one.catalog"), Roster::default());
    let mut take = |lines: &str| steps(&roster.take(&one, catalog("one.catalog", lines), &ANY));
    assert_eq!(
        take("a.zones 0 PTR a.example.\nb.zones 0 PTR b.example."),
        ["+ a.example. one.catalog.", "+ b.example. one.catalog."]
    );
    assert_eq!(take("a.zones 0 PTR a.example.\nb.zones 0 PTR b.example."), Vec::<String>::new());
    assert_eq!(
        take("a.zones 0 PTR a.example.\nc.zones 0 PTR c.example."),
        ["- b.example.", "+ c.example. one.catalog."]
    );
    assert_eq!(
        take("x.zones 0 PTR a.example.\nc.zones 0 PTR c.example."),
        ["- a.example.", "+ a.example. one.catalog."]
    );
    assert_eq!(take(""), ["- a.example.", "- c.example."]);
}

#[test]
fn a_zone_stays_with_its_catalog_until_that_gives_it_to_the_one_that_is_updated() {
    let (old, new) = (name("old.catalog"), name("new.catalog"));
    let mut roster = Roster::default();
    roster.take(&old, catalog("old.catalog", "a.zones 0 PTR z.example."), &ANY);
    let clash = vec![(name("z.example"), LeftOut::Clash { owner: old.clone() })];
    let listed = || catalog("new.catalog", "a.zones 0 PTR z.example.");
    let refused = Changes { steps: Vec::new(), left_out: clash.clone() };
    assert_eq!(roster.take(&new, listed(), &ANY), refused);
    // Given to somebody else; then to this one, which has to be updated after that.
    let giving = |heir: &str| catalog("old.catalog", &format!("a.zones 0 PTR z.example.\ncoo.a.zones 0 PTR {heir}"));
    roster.take(&old, giving("other.catalog."), &ANY);
    assert_eq!(roster.take(&new, listed(), &ANY).left_out, clash);
    assert_eq!(steps(&roster.take(&old, giving("new.catalog."), &ANY)), Vec::<String>::new());
    assert_eq!(steps(&roster.take(&new, listed(), &ANY)), ["> z.example. new.catalog."]);
    assert_eq!(roster.owner(&name("z.example")).unwrap().catalog, new);
    // The one before has nothing more to say of it.
    assert_eq!(steps(&roster.take(&old, Catalog::default(), &ANY)), Vec::<String>::new());
}

#[test]
fn a_zone_that_is_given_away_under_another_label_begins_anew() {
    let (old, new) = (name("old.catalog"), name("new.catalog"));
    let mut roster = Roster::default();
    let lines = "a.zones 0 PTR z.example.\ncoo.a.zones 0 PTR new.catalog.";
    roster.take(&old, catalog("old.catalog", lines), &ANY);
    let changes = roster.take(&new, catalog("new.catalog", "b.zones 0 PTR z.example."), &ANY);
    assert_eq!(steps(&changes), ["- z.example.", "+ z.example. new.catalog."]);
}

#[test]
fn a_zone_that_its_catalog_gives_up_goes_to_another_one_that_lists_it() {
    let (old, new) = (name("old.catalog"), name("new.catalog"));
    let mut roster = Roster::default();
    roster.take(&old, catalog("old.catalog", "a.zones 0 PTR z.example."), &ANY);
    roster.take(&new, catalog("new.catalog", "a.zones 0 PTR z.example."), &ANY);
    let changes = roster.take(&old, Catalog::default(), &ANY);
    assert_eq!(steps(&changes), ["- z.example.", "+ z.example. new.catalog."]);
}

#[test]
fn what_may_be_no_member_is_left_out_and_a_new_configuration_counts_for_what_was_known() {
    let one = name("one.catalog");
    let admits = |_: &Name, zone: &Name| match zone.to_string().as_str() {
        "www.example." => Err(LeftOut::Configured),
        _ => Ok(()),
    };
    let mut roster = Roster::default();
    let listed = catalog("one.catalog", "a.zones 0 PTR www.example.\nb.zones 0 PTR b.example.");
    let changes = roster.take(&one, listed, &admits);
    assert_eq!(steps(&changes), ["+ b.example. one.catalog."]);
    assert_eq!(changes.left_out, [(name("www.example"), LeftOut::Configured)]);
    let zones = |roster: &Roster| roster.owners().map(|(zone, _)| zone.to_string()).collect::<Vec<_>>();
    let before = [roster];
    // What was forbidden is allowed now, and what was allowed is forbidden; or the catalog is gone.
    assert_eq!(zones(&Roster::resumed(&before, std::slice::from_ref(&one), &ANY)), ["b.example.", "www.example."]);
    let none = Roster::resumed(&before, std::slice::from_ref(&one), &|_, _| Err(LeftOut::Forbidden));
    assert_eq!(zones(&none), Vec::<String>::new());
    // What it lists is known all the same.
    assert_eq!(zones(&Roster::resumed(&[none], std::slice::from_ref(&one), &ANY)), ["b.example.", "www.example."]);
    assert_eq!(Roster::resumed(&before, &[], &ANY), Roster::default());
}
