//! `rewrite`.

use super::{options, refused};
use crate::chain::{EdnsAction, EdnsData, EdnsOption, NameMatch, Rewrite};

fn name(text: &str, asked: &str) -> Option<String> {
    match options!(Rewrite, text).rewrite {
        Rewrite::Name { replacement, .. } => replacement.replace(asked),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_name_is_rewritten_as_the_rule_says() {
    let cases = [
        ("rewrite name Example.net example.com.", "example.net.", Some("example.com.")),
        ("rewrite name exact example.net example.com", "a.example.net.", None),
        ("rewrite name prefix web www", "web.example.org.", Some("www.example.org.")),
        ("rewrite stop name suffix .a.org .b.org.", "x.a.org.", Some("x.b.org.")),
        ("rewrite name suffix .a.org .b.org", "a.org.", None),
        ("rewrite name substring us-west .eu.", "ftp.us-west.org.", Some("ftp..eu..org.")),
        (r"rewrite name regex (.*)-(us-west-1)\.b\.org {1}.s.{2}.c", "ftp-us-west-1.b.org.", Some("ftp.s.us-west-1.c")),
        (r"rewrite continue name regex ^(?P<x>a+)\.org\.$ {0}{1}", "aa.org.", Some("aa.org.aa")),
        ("rewrite {\n name regex a b\n answer name c d\n}", "a.", Some("b")),
    ];
    for (text, asked, expected) in cases {
        assert_eq!(name(text, asked).as_deref(), expected, "{text}");
    }
}

#[test]
fn answers_are_rewritten_back() {
    let rule = options!(
        Rewrite,
        "rewrite continue {\n name suffix .a.org .b.org answer auto\n answer name (.*)\\.b\\.org {1}.a.org answer value x \
         y\n}"
    );
    assert!(rule.goes_on);
    let Rewrite::Name { answers, .. } = rule.rewrite else { panic!() };
    assert!(answers.auto);
    assert_eq!(answers.names[0].replace("z.b.org.").as_deref(), Some("z.a.org"));
    assert_eq!(answers.values.len(), 1);
    let Rewrite::Name { answers, .. } = options!(Rewrite, "rewrite name a b").rewrite else { panic!() };
    assert!(answers.auto);
    let Rewrite::Name { answers, .. } = options!(Rewrite, "rewrite name prefix a b").rewrite else { panic!() };
    assert!(!answers.auto);
}

#[test]
fn other_fields_are_rewritten() {
    let rewrite = |text: &str| options!(Rewrite, text).rewrite;
    assert_eq!(rewrite("rewrite type ANY HINFO"), Rewrite::Type { from: 255, to: 13 });
    assert_eq!(rewrite("rewrite class ch IN"), Rewrite::Class { from: 3, to: 1 });
    for (text, min, max) in [("15", 15, 15), ("5-60", 5, 60), ("-60", 0, 60), ("5-", 5, i32::MAX as u32)] {
        let expected = Rewrite::Ttl { names: NameMatch::Suffix(".a.org.".to_owned()), min, max };
        assert_eq!(rewrite(&format!("rewrite ttl suffix .a.org {text}")), expected);
    }
    let Rewrite::Rcode { names, from, to } = rewrite("rewrite rcode a.org SERVFAIL nxdomain") else { panic!() };
    assert_eq!((names, from.0, to.0), (NameMatch::Exact("a.org.".to_owned()), 2, 3));
    let Rewrite::Cname(replacement) = rewrite("rewrite cname suffix .a.org .b.org") else { panic!() };
    assert_eq!(replacement.replace("x.a.org.").as_deref(), Some("x.b.org."));
}

#[test]
fn edns_options_are_put_into_questions() {
    let edns = |text: &str| match options!(Rewrite, &format!("rewrite edns0 {text}")).rewrite {
        Rewrite::Edns(edns) => (edns.action, edns.option, edns.revert),
        other => panic!("{other:?}"),
    };
    let bytes = |code, text: &str| EdnsOption::Local { code, data: EdnsData::Bytes(text.as_bytes().to_vec()) };
    assert_eq!(edns("local set 0xffee 0x61626364"), (EdnsAction::Set, bytes(0xffee, "abcd"), false));
    assert_eq!(edns("local append 65518 abcd revert"), (EdnsAction::Append, bytes(0xffee, "abcd"), true));
    assert_eq!(edns("local unset 0xffee"), (EdnsAction::Unset, bytes(0xffee, ""), false));
    let data = |data| EdnsOption::Local { code: 1, data };
    assert_eq!(edns("local replace 1 {client_ip}"), (EdnsAction::Replace, data(EdnsData::ClientIp), false));
    assert_eq!(edns("local set 1 {a/b}"), (EdnsAction::Set, data(EdnsData::Metadata("a/b".to_owned())), false));
    assert_eq!(edns("nsid set"), (EdnsAction::Set, EdnsOption::Nsid, false));
    assert_eq!(edns("subnet set 24 56"), (EdnsAction::Set, EdnsOption::Subnet { v4: 24, v6: 56 }, false));
}

#[test]
fn what_rewrite_does_not_mean_is_refused_at_its_place() {
    refused(&[
        ("rewrite", "2:1: \"rewrite\" ends here, needed: what to rewrite: name, type"),
        ("rewrite color a b", "2:9: what to rewrite cannot be \"color\"; allowed: name, type, class"),
        ("rewrite answer name a b", "2:9: what to rewrite cannot be \"answer\"; allowed: name: what happens"),
        ("rewrite name a", "2:14: \"a\" ends here, needed: the new name"),
        ("rewrite name fuzzy a b", "2:14: how rewrite matches cannot be \"fuzzy\"; allowed: exact, prefix"),
        ("rewrite name regex ( b", "2:20: the expression of rewrite \"(\" cannot be read: unclosed group"),
        ("rewrite name regex a {1}", "2:22: the new name cannot be \"{1}\"; allowed: {0} to {0}"),
        ("rewrite name regex a b answer", "2:24: \"answer\" ends here, needed: auto, name or value"),
        ("rewrite name regex a b answer name c", "2:31: \"name\" ends here, needed: an expression and the new name"),
        ("rewrite name regex a b c", "2:24: a word of rewrite cannot be \"c\"; allowed: the end of the line"),
        ("rewrite type A", "2:14: \"A\" ends here, needed: two record types"),
        ("rewrite type A B C", "2:18: a word of rewrite cannot be \"C\""),
        ("rewrite type A NOTYPE", "2:16: a type of rewrite cannot be \"NOTYPE\""),
        ("rewrite class IN XX", "2:18: a class of rewrite cannot be \"XX\""),
        ("rewrite ttl a.org -", "2:19: the time to live of rewrite cannot be \"-\""),
        ("rewrite ttl a.org 9-5", "2:19: the time to live of rewrite cannot be \"9-5\""),
        ("rewrite rcode a.org 24 0", "2:21: a code of rewrite cannot be \"24\""),
        ("rewrite edns0 local set 0x10000 a", "2:25: the code of an EDNS option cannot be \"0x10000\""),
        ("rewrite edns0 local set 1 0xabc", "2:27: the data of an EDNS option cannot be \"0xabc\""),
        (
            "rewrite edns0 local set 1 {color}",
            "2:27: the data of an EDNS option cannot be \"{color}\"; allowed: {qname}",
        ),
        ("rewrite edns0 local add 1 a", "2:21: what happens to the option cannot be \"add\""),
        ("rewrite edns0 subnet set 33 0", "2:26: the bits of a subnet cannot be \"33\"; allowed: 0 to 32"),
        ("rewrite edns0 nsid set 1", "2:24: a word of rewrite cannot be \"1\"; allowed: the end of the line"),
        ("rewrite edns0 cookie set", "2:15: an EDNS option of rewrite cannot be \"cookie\""),
    ]);
}
