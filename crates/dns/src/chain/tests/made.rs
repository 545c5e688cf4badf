//! `template` and `view`: answers and conditions that are made of the question.

use super::{check, options, refused};
use crate::message::Rcode;

#[test]
fn template_has_all_its_options() {
    let template = options!(
        Template,
        "template IN ANY a.org {\n answer \"{{ .Name }} 60 IN A {{ .Group.a }}\" \"second\"\n match ^(?P<a>1)\\. \
         (?P<b>2)\n additional \"x {$HOSTNAME} {{ .Group.b }}\"\n authority y\n rcode nxdomain\n ederror 21 \"Blocked \
         here\"\n fallthrough a.org\n upstream\n}"
    );
    assert_eq!((template.class, template.rtype, template.matches.len()), (1, 255, 2));
    assert_eq!((template.answer.len(), template.additional[0].text()), (2, "x here {{ .Group.b }}"));
    assert_eq!((template.rcode, template.extended_error), (Rcode::NXDOMAIN, Some((21, "Blocked here".to_owned()))));
    let template = options!(Template, "template ANY ANY {\n rcode NXDOMAIN\n}");
    assert_eq!((template.class, template.matches.len()), (255, 0));
}

#[test]
fn views_have_conditions() {
    let view = options!(
        View,
        "view here {\n expr incidr(client_ip(), '127.0.0.0/24') || name() == 'a b'\n expr type() in ['A', 'AAAA']\n}"
    );
    assert_eq!((view.name.as_str(), view.conditions.len()), ("here", 2));
    assert_eq!(view.conditions[0].text(), "incidr(client_ip(), '127.0.0.0/24') || name() == 'a b'");
}

#[test]
fn what_they_do_not_mean_is_refused_at_its_place() {
    refused(&[
        ("template IN", "2:10: \"template\" ends here, needed: a class and a record type"),
        ("template XX A", "2:10: the class of template cannot be \"XX\""),
        ("template IN A {\n match (\n}", "3:8: an expression of template \"(\" cannot be read: unclosed group"),
        (
            "template IN A {\n answer \"{{ .Group.x }}\"\n}",
            "3:19: the template \"{{ .Group.x }}\" cannot be read: no expression has a group \"x\"",
        ),
        ("template IN A {\n rcode NOPE\n}", "3:8: rcode cannot be \"NOPE\""),
        ("template IN A {\n ederror x\n}", "3:10: the code of ederror cannot be \"x\""),
        ("template IN A {\n anser x\n}", "3:2: plugin \"template\" has no option \"anser\"; did you mean \"answer\"?"),
        ("view", "2:1: \"view\" ends here, needed: the view's name"),
        ("view x", "2:6: \"view\" ends here, needed: { expr"),
        (
            "view x {\n expr name() = 'a'\n}",
            "3:14: the expression \"name() = 'a'\" cannot be read: \"=\" stands only behind \"let\"",
        ),
        (
            "view x {\n expr  type()   in\t['A', nmae()]\n}",
            "3:26: the expression \"type() in ['A', nmae()]\" cannot be read: function \"nmae\" is not known",
        ),
        ("view x {\n expr \"type() == \\\"A\\\" or\n  no()\"\n}", "4:3: the expression"),
        ("view x {\n expr \"do() and\"\n}", "3:13: the expression \"do() and\" cannot be read: behind this a value"),
    ]);
}

#[test]
fn several_blocks_serve_one_zone_when_views_tell_them_apart() {
    let view = |name: &str| format!(". {{\n view {name} {{\n  expr do()\n }}\n whoami\n}}\n");
    let plain = ". {\n whoami\n}\n";
    assert_eq!(check(&format!("{}{}{plain}", view("a"), view("b"))).unwrap().blocks.len(), 3);
    // A block without a condition takes all: none can follow.
    let error = check(&format!("{plain}{}", view("a"))).unwrap_err();
    assert!(
        error.starts_with("Corefile:4:1: dns://.:53 is already served by the server block at Corefile:1:1"),
        "{error}"
    );
    let bound = |address: &str| format!(". {{\n bind {address}\n whoami\n}}\n");
    assert_eq!(check(&format!("{}{}", bound("10.0.0.1"), bound("10.0.0.2 10.0.0.3"))).unwrap().blocks.len(), 2);
    assert!(check(&format!("{}{}", bound("10.0.0.1"), bound("10.0.0.2 10.0.0.1"))).is_err());
    assert!(check(&format!("{}{plain}", bound("10.0.0.1"))).is_err());
}
