use std::io;

use super::*;
use crate::{authority::Record, name::Name};

fn zone(text: &str) -> Vec<String> {
    records(text, "example.com").unwrap_or_else(|error| panic!("{error}")).iter().map(plain).collect()
}

fn plain(record: &Record) -> String {
    record.to_string().replace('\t', " ")
}

fn fault(text: &str) -> String {
    records(text, "example.com").unwrap_err().to_string()
}

#[test]
fn rfc1035_5_3_the_example_is_read() {
    let text = "\
@   IN  SOA     VENERA      Action\\.domains (
                                 20     ; SERIAL
                                 7200   ; REFRESH
                                 600    ; RETRY
                                 3600000; EXPIRE
                                 60)    ; MINIMUM

        NS      A.ISI.EDU.
        NS      VENERA
        MX      10      VENERA

A       A       26.3.0.103
";
    assert_eq!(
        zone(text),
        [
            "example.com. 60 IN SOA VENERA.example.com. Action\\.domains.example.com. 20 7200 600 3600000 60",
            "example.com. 60 IN NS A.ISI.EDU.",
            "example.com. 60 IN NS VENERA.example.com.",
            "example.com. 60 IN MX 10 VENERA.example.com.",
            "a.example.com. 60 IN A 26.3.0.103",
        ]
    );
}

#[test]
fn rfc2308_4_times_to_live_are_the_records_or_the_files_or_the_last_one() {
    let text = "a 5 A 192.0.2.1\nb A 192.0.2.2\n$TTL 1h\nc A 192.0.2.3\nd IN 7 A 192.0.2.4\ne 8 IN A 192.0.2.5\nf 4294967295 A 192.0.2.6";
    let ttls: Vec<u32> = records(text, "example.com").unwrap().iter().map(|record| record.ttl).collect();
    assert_eq!(ttls, [5, 5, 3600, 7, 8, 0]);
    assert_eq!(
        fault("a A 192.0.2.1"),
        "db:1:1: the record has no time to live; give it one, or write \"$TTL <seconds>\" above it"
    );
}

#[test]
fn quotes_comments_and_escapes() {
    let text =
        "$TTL 1\n@ TXT \"a;b (c)\" d\\;e ; f\n  TXT ( \"x\"\n \"y\" )\n\\097\\.b.c A 192.0.2.1\r\n@ TXT \"caf\u{e9}\"";
    assert_eq!(
        zone(text),
        [
            "example.com. 1 IN TXT \"a;b (c)\" \"d;e\"",
            "example.com. 1 IN TXT \"x\" \"y\"",
            "a\\.b.c.example.com. 1 IN A 192.0.2.1",
            "example.com. 1 IN TXT \"caf\\195\\169\"",
        ]
    );
}

#[test]
fn origins_hold_until_the_next_and_not_beyond_an_include() {
    let include = |path: &str| match path {
        "sub" => Ok("$ORIGIN deep\n$TTL 9\nx A 192.0.2.1\n".to_owned()),
        "self" => Ok("$INCLUDE self".to_owned()),
        _ => Err(io::Error::from(io::ErrorKind::NotFound)),
    };
    let origin = Name::parse("example.com").unwrap();
    let text = "$TTL 5\na A 192.0.2.1\n$INCLUDE sub other.\n A 192.0.2.2\n$ORIGIN b\n@ A 192.0.2.3\n";
    let file = parse("db", text, &origin, &include).unwrap();
    let read: Vec<String> = file.records.iter().map(plain).collect();
    let expected = ["a.example.com. 5 IN A 192.0.2.1", "x.deep.other. 9 IN A 192.0.2.1"];
    assert_eq!(read[..2], expected);
    assert_eq!(read[2..], ["a.example.com. 9 IN A 192.0.2.2", "b.example.com. 9 IN A 192.0.2.3"]);
    assert_eq!(file.included, ["sub"]);
    assert_eq!(file.places[1].to_string(), "sub:3:1");
    let error = |text| parse("db", text, &origin, &include).unwrap_err().to_string();
    assert_eq!(error("\n$INCLUDE none"), "db:2:10: cannot read \"none\": entity not found");
    assert_eq!(error("$INCLUDE self"), "self:1:10: the files are nested more than 8 deep: they include each other");
}

#[test]
fn ranges_make_records() {
    let text = "$TTL 1\n$GENERATE 1-3/2 host-$ A 192.0.2.$\n$GENERATE 9-10 $ PTR h${-8,3}.x\\$.\n\
                $GENERATE 10-10 ${0,3,n}.ip6 CNAME a${0,0,x}\n";
    assert_eq!(
        zone(text),
        [
            "host-1.example.com. 1 IN A 192.0.2.1",
            "host-3.example.com. 1 IN A 192.0.2.3",
            "9.example.com. 1 IN PTR h001.x\\$.",
            "10.example.com. 1 IN PTR h002.x\\$.",
            "a.0.ip6.example.com. 1 IN CNAME aa.example.com.",
        ]
    );
    assert_eq!(
        fault("$GENERATE 0-65536 a A 192.0.2.1"),
        "db:1:11: the range makes 65537 records, allowed: up to 65536"
    );
    assert!(fault("$GENERATE 5-1 a A 192.0.2.1").starts_with("db:1:11: found \"5-1\" as the range"));
    assert!(fault("$TTL 1\n$GENERATE 0-1 a-${-1} A 192.0.2.1").starts_with("db:2:15: found \"a-${-1}\""));
}

#[test]
fn faults_name_the_place_what_is_there_and_what_is_allowed() {
    let table = [
        ("$TTL 1\nwww A 1.2.3", "db:2:7: found \"1.2.3\" as an address, allowed: an IPv4 address"),
        ("$TTL 1\nwww MX 10", "db:2:10: the line ends here, needed: a name"),
        ("www", "db:1:4: the line ends here, needed: a type such as A, and its data"),
        ("$TTL 1\nwww CH A 1.2.3.4", "db:2:5: found \"CH\" as the class, allowed: IN"),
        ("$TTL 1\n  A 1.2.3.4", "db:2:3: a line that begins with space goes on with the owner of the record before it"),
        ("a..b 1 A 1.2.3.4", "db:1:1: \"a..b\" is no name: the name has an empty label"),
        ("a 1 A 1.2.3.4 5", "db:1:15: found \"5\" behind the record's end"),
        ("a 1 TXT (\n\"b\"", "db:1:9: this '(' is never closed by a ')'"),
        ("a 1 TXT b )", "db:1:11: this ')' closes nothing"),
        ("a 1 TXT \"b", "db:1:9: this quotation does not end on its line"),
        ("$FOO", "db:1:1: unknown directive \"$FOO\"; known ones: $ORIGIN, $TTL, $INCLUDE, $GENERATE"),
        ("a 1 FOO x", "db:1:5: found \"FOO\" as the type, allowed: a mnemonic such as A"),
        ("a 1 TSIG x", "db:1:5: found \"TSIG\" as the type, allowed: types of data"),
        ("$TTL x", "db:1:6: found \"x\" as the time to live"),
        ("$ORIGIN", "db:1:8: the line ends here, needed: a name"),
        ("\u{e4}\u{e4} 1 A x", "db:1:8: found \"x\" as an address"),
    ];
    for (text, expected) in table {
        let found = fault(text);
        assert!(found.starts_with(expected), "{text:?}: {found}");
    }
}

proptest::proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "[ -~\n\\\\\"();$@\u{e9}]{0,80}") {
        let _ = records(&text, "example.com");
        let _ = records(&format!("$TTL 1\n$GENERATE 1-2 {text}"), "example.com");
        let _ = records(&format!("a 1 HTTPS 1 . {text}"), "example.com");
    }
}
