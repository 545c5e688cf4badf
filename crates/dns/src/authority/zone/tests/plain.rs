use super::*;

const HOST: &str = "\
$TTL 60
@        SOA  ns host 7 3600 600 86400 30
         NS   ns
         NS   ns.elsewhere.test.
         MX   10 mail
ns       A    192.0.2.1
         AAAA 2001:db8::1
mail     A    192.0.2.2
a.deep   TXT  x
www      CNAME mail
far      CNAME www.elsewhere.test.
one      CNAME two
two      CNAME one
gone     CNAME nowhere
child    NS   ns.child
         NS   ns.sibling
ns.child A    192.0.2.3
x.child  TXT  hidden
sibling  NS   ns.sibling
ns.sibling A  192.0.2.4
in-child CNAME a.child
many     A    192.0.2.5
         A    192.0.2.6
         TXT  y
";

fn host() -> Zone {
    zone("example", HOST)
}

const SOA: &str = "N example. 30 SOA ns.example. host.example. 7 3600 600 86400 30";

#[test]
fn rfc1034_4_3_2_answers_come_with_what_they_need() {
    let zone = host();
    assert_eq!(ask(&zone, "ns.example", "AAAA", false), ["0 aa Records", "A ns.example. 60 AAAA 2001:db8::1"]);
    assert_eq!(
        ask(&zone, "example", "MX", false),
        ["0 aa Records", "A example. 60 MX 10 mail.example.", "X mail.example. 60 A 192.0.2.2"]
    );
    assert_eq!(
        ask(&zone, "example", "NS", false),
        [
            "0 aa Records",
            "A example. 60 NS ns.example.",
            "A example. 60 NS ns.elsewhere.test.",
            "X ns.example. 60 A 192.0.2.1",
            "X ns.example. 60 AAAA 2001:db8::1",
        ]
    );
    assert_eq!(
        ask(&zone, "example", "SOA", false),
        ["0 aa Records", "A example. 60 SOA ns.example. host.example. 7 3600 600 86400 30"]
    );
    assert!(zone.lookup(&QueryName::from(&Name::parse("test").unwrap()), 1, false).is_none());
    assert_eq!(ask(&zone, "MANY.Example", "A", false).len(), 3);
}

#[test]
fn rfc2308_2_negative_answers_have_the_soa_for_as_long_as_they_may_be_kept() {
    let zone = host();
    assert_eq!(ask(&zone, "nowhere.example", "A", false), ["3 aa NoName", SOA]);
    assert_eq!(ask(&zone, "mail.example", "TXT", false), ["0 aa NoData", SOA]);
    // RFC 8020: a name that has names below it exists.
    assert_eq!(ask(&zone, "deep.example", "A", false), ["0 aa NoData", SOA]);
    assert_eq!(ask(&zone, "b.deep.example", "A", false), ["3 aa NoName", SOA]);
    // RFC 2308 §2.1: the code is that of the last alias' target.
    assert_eq!(
        ask(&zone, "gone.example", "A", false),
        ["3 aa NoName", "A gone.example. 60 CNAME nowhere.example.", SOA]
    );
}

#[test]
fn rfc1034_3_6_2_aliases_are_followed_within_the_zone() {
    let zone = host();
    let www = "A www.example. 60 CNAME mail.example.";
    assert_eq!(ask(&zone, "www.example", "A", false), ["0 aa Records", www, "A mail.example. 60 A 192.0.2.2"]);
    assert_eq!(ask(&zone, "www.example", "AAAA", false), ["0 aa NoData", www, SOA]);
    assert_eq!(ask(&zone, "www.example", "CNAME", false), ["0 aa Records", www]);
    let far = "A far.example. 60 CNAME www.elsewhere.test.";
    assert_eq!(ask(&zone, "far.example", "A", false), ["0 aa Records to www.elsewhere.test.", far]);
    let child = "A in-child.example. 60 CNAME a.child.example.";
    assert_eq!(ask(&zone, "in-child.example", "A", false), ["0 aa Records to a.child.example.", child]);
    let (one, two) = ("A one.example. 60 CNAME two.example.", "A two.example. 60 CNAME one.example.");
    assert_eq!(ask(&zone, "one.example", "A", false), ["0 aa Records", one, two]);
}

#[test]
fn what_is_found_for_an_alias_stands_behind_it() {
    let zone = host();
    let asked = QueryName::from(&Name::parse("far.example").unwrap());
    let found = zone.lookup(&asked, 1, false).unwrap();
    let target = found.next.clone().unwrap();
    let mut builder = crate::answer::AnswerBuilder::new(&target);
    builder.push_addr(crate::answer::Section::Answer, crate::answer::Owner::Question, 5, "192.0.2.9".parse().unwrap());
    let whole = found.followed(&asked, &target, &builder.build());
    let records = expand(&Name::parse("far.example").unwrap(), &whole);
    assert_eq!((records.len(), whole.counts), (2, [2, 0, 0]));
    assert_eq!((&records[1].owner, &records[1].rdata[..]), (&target, &[192, 0, 2, 9][..]));
}

#[test]
fn rfc1034_4_3_2_delegations_are_told_with_their_glue() {
    let zone = host();
    let referral = [
        "0 - Referral",
        "N child.example. 60 NS ns.child.example.",
        "N child.example. 60 NS ns.sibling.example.",
        "X ns.child.example. 60 A 192.0.2.3",
        "X ns.sibling.example. 60 A 192.0.2.4",
    ];
    for (name, qtype) in
        [("child.example", "NS"), ("child.example", "A"), ("x.child.example", "TXT"), ("ns.child.example", "A")]
    {
        assert_eq!(ask(&zone, name, qtype, false), referral, "{name} {qtype}");
    }
    // RFC 4035 §3.1.4.1: DS stands at the parent's side.
    assert_eq!(ask(&zone, "child.example", "DS", false), ["0 aa NoData", SOA]);
    assert_eq!(ask(&zone, "x.child.example", "DS", false)[0], "0 - Referral");
}

#[test]
fn rfc8482_4_1_one_set_answers_for_any() {
    let zone = host();
    assert_eq!(
        ask(&zone, "many.example", "ANY", false),
        ["0 aa Records", "A many.example. 60 A 192.0.2.5", "A many.example. 60 A 192.0.2.6"]
    );
    assert_eq!(ask(&zone, "www.example", "ANY", false), ["0 aa Records", "A www.example. 60 CNAME mail.example."]);
    assert_eq!(ask(&zone, "deep.example", "ANY", false), ["0 aa NoData", SOA]);
}

#[test]
fn rfc4592_2_2_1_wildcards() {
    let text = "\
$TTL 3600
$ORIGIN example.
example.                 SOA   a b 1 2 3 4 5
example.                 NS    ns.example.com.
example.                 NS    ns.example.net.
*.example.               TXT   \"this is a wildcard\"
*.example.               MX    10 host1.example.
sub.*.example.           TXT   \"this is not a wildcard\"
host1.example.           A     192.0.2.1
_ssh._tcp.host1.example. SRV   0 0 22 host1
_ssh._tcp.host2.example. SRV   0 0 22 host1
subdel.example.          NS    ns.example.com.
subdel.example.          NS    ns.example.net.
";
    let zone = zone("example", text);
    let ask = |name: &str, qtype: &str| super::ask(&zone, name, qtype, false);
    assert_eq!(
        ask("host3.example", "MX"),
        ["0 aa Records", "A host3.example. 3600 MX 10 host1.example.", "X host1.example. 3600 A 192.0.2.1"]
    );
    assert_eq!(ask("host3.example", "A")[0], "0 aa NoData");
    assert_eq!(ask("foo.bar.example", "TXT")[1], "A foo.bar.example. 3600 TXT \"this is a wildcard\"");
    assert_eq!(ask("host1.example", "MX")[0], "0 aa NoData");
    assert_eq!(ask("sub.*.example", "MX")[0], "0 aa NoData");
    assert_eq!(ask("_telnet._tcp.host1.example", "SRV")[0], "3 aa NoName");
    assert_eq!(ask("host.subdel.example", "A")[0], "0 - Referral");
    assert_eq!(ask("ghost.*.example", "MX")[0], "3 aa NoName");
    assert_eq!(ask("*.example", "TXT")[1], "A \\042.example. 3600 TXT \"this is a wildcard\"".replace("\\042", "*"));
}

#[test]
fn rfc6672_3_dname_redirects_what_lies_below_it() {
    let text = "\
$TTL 10
@    SOA a b 1 2 3 4 5
     NS  ns.elsewhere.test.
d    DNAME to
     TXT own
h.to A   192.0.2.1
out  DNAME away.test.
x.d  TXT hidden
long DNAME aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb.test.
";
    let zone = zone("example", text);
    let dname = "A d.example. 10 DNAME to.example.";
    assert_eq!(
        ask(&zone, "h.d.example", "A", false),
        ["0 aa Records", dname, "A h.d.example. 10 CNAME h.to.example.", "A h.to.example. 10 A 192.0.2.1"]
    );
    assert_eq!(ask(&zone, "x.d.example", "TXT", false)[0], "3 aa NoName", "records below a DNAME are not there");
    assert_eq!(ask(&zone, "d.example", "TXT", false), ["0 aa Records", "A d.example. 10 TXT \"own\""]);
    assert_eq!(ask(&zone, "d.example", "DNAME", false), ["0 aa Records", dname]);
    assert_eq!(ask(&zone, "h.d.example", "CNAME", false).len(), 3);
    assert_eq!(ask(&zone, "a.b.out.example", "A", false)[0], "0 aa Records to a.b.away.test.");
    let label = "c".repeat(60);
    let too_long = format!("{label}.{label}.{label}.long.example");
    assert_eq!(ask(&zone, &too_long, "A", false)[0], "6 aa Records");
}

#[test]
fn what_is_no_zone_is_told_with_its_place() {
    let fault = |text: &str| {
        let origin = Name::parse("example").unwrap();
        Zone::from_file(&origin, &parsed("example", text), "db").unwrap_err().to_string()
    };
    let soa = "@ 5 SOA a b 1 2 3 4 5\n";
    assert_eq!(fault("a 5 A 192.0.2.1"), "db:1:1: the zone example. has no SOA record; its name needs exactly one");
    assert!(
        fault(&format!("{soa}{soa}").replace("5\n@ 5 SOA a", "5\n@ 5 SOA x"))
            .starts_with("db:2:1: a second SOA record, at example.")
    );
    assert!(fault(&format!("{soa}b SOA a b 1 2 3 4 5")).starts_with("db:2:1: a second SOA record, at b.example."));
    assert_eq!(
        fault(&format!("{soa}b CNAME a\nb TXT x")),
        "db:3:1: b.example. has a CNAME record, which may have nothing beside it, and a record of type TXT; remove one of them"
    );
    assert!(
        fault(&format!("{soa}b CNAME a\nb CNAME c"))
            .starts_with("db:3:1: b.example. has several records of type CNAME")
    );
    assert!(fault(&format!("{soa}b DNAME a\nb DNAME c")).contains("several records of type DNAME"));
}

#[test]
fn what_a_zone_can_do_without_is_a_warning() {
    let origin = Name::parse("example").unwrap();
    let text = "@ 5 SOA a b 1 2 3 4 5\na 5 A 192.0.2.1\na 7 A 192.0.2.2\na 5 A 192.0.2.1\nx.other. A 192.0.2.1\n";
    let (zone, warnings) = Zone::from_file(&origin, &parsed("example", text), "db").unwrap();
    let warnings: Vec<String> = warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        [
            "db:5:1: x.other. does not lie in the zone example.; the record is left out",
            "db:3:1: the records of a.example., type A, differ in time to live; 5 s is used",
            "db:1:1: the zone example. has no NS records; give it at least one",
        ]
    );
    assert_eq!(zone.len(), 3);
}

#[test]
fn a_zone_written_and_read_again_is_the_same() {
    let text = host().to_text();
    assert_eq!(zone("example", &text).to_text(), text);
    assert_eq!(host().len(), host().records().count());
}

#[test]
fn the_root_is_a_zone_too() {
    let zone =
        zone(".", "$TTL 5\n. SOA a. b. 1 2 3 4 5\n. NS a.\na. A 192.0.2.1\ncom. NS ns.com.\nns.com. A 192.0.2.2\n");
    assert_eq!(ask(&zone, "x.com", "A", false)[0], "0 - Referral");
    assert_eq!(ask(&zone, "a", "A", false)[1], "A a. 5 A 192.0.2.1");
    assert_eq!(ask(&zone, ".", "NS", false).len(), 3);
    assert_eq!(ask(&zone, "net", "A", false)[0], "3 aa NoName");
}
