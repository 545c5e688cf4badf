use super::{Expression, ExpressionData};

const DATA: ExpressionData<'static> = ExpressionData {
    bufsize: 1232,
    class: "IN",
    client_ip: std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 244, 1, 2)),
    port: 40_000,
    dnssec_ok: true,
    id: 7,
    name: "abc.x.example.com.",
    opcode: 0,
    proto: "udp",
    server_ip: std::net::IpAddr::V6(std::net::Ipv6Addr::LOCALHOST),
    server_port: 53,
    size: 48,
    rtype: "AAAA",
    meta: &|label| (label == "kubernetes/client-namespace").then(|| "shop".to_owned()),
};

fn holds(text: &str) -> Result<bool, String> {
    Expression::parse(text).map(|expression| expression.holds(&DATA)).map_err(|error| error.to_string())
}

#[test]
fn conditions_hold_for_the_question() {
    let cases = [
        ("client_ip() == '10.244.1.2'", true),
        ("incidr(client_ip(), '10.244.0.0/16')", true),
        ("incidr(client_ip(), '192.168.0.0/16')", false),
        ("incidr(server_ip(), \"::/64\")", true),
        ("server_ip() == '::1' and server_ip() == '[::1]' and '[::1]' == server_ip()", true),
        ("server_ip() != '[::1]' or server_ip() not in ['::2', '[::1]']", false),
        ("'[::1]' == '::1'", false),
        ("incidr('nonsense', '0.0.0.0/0')", false),
        ("incidr(client_ip(), metadata('kubernetes/client-namespace'))", false),
        ("type() in ['A', 'AAAA']", true),
        ("type() not in ['A', 'AAAA']", false),
        ("not (type() in [])", true),
        (r"name() matches '^abc\\..*\\.example\\.com\\.$'", true),
        (r"name() not matches `^x\.`", true),
        ("name() endsWith '.com.' && name() startsWith 'abc'", true),
        ("name() contains 'y' or proto() == 'udp'", true),
        ("(type() == 'A' && name() == 'example.com') || client_ip() == '1.2.3.4'", false),
        ("metadata('kubernetes/client-namespace') == 'shop'", true),
        ("metadata('a/b') == ''", true),
        ("port() == '40000' and server_port() == '53' and class() == 'IN'", true),
        ("do() and id() == 7 and opcode() == 0 and bufsize() >= 1232 and size() < 0x31", true),
        ("!do() or not do()", false),
        ("not do() == false", true),
        ("id() in 1..7 and id() not in 8..9", true),
        ("id() % 2 == 1 and id() * 2 - 4 == 10 and -id() < 0", true),
        ("id() % 0 == 1", false),
        ("not (id() % 0 == 1)", false),
        ("len(name()) == 18 and len(['a', 'b']) == 2 and len(1..3) == 3", true),
        ("upper(proto()) == 'UDP' and lower('A') + trim(' b ') == 'ab'", true),
        ("do() ? type() == 'AAAA' : false", true),
        ("'a' < 'b' and 2 > 1 and 1 <= 1 and 1 != 2", true),
        ("1 + 2 * 3 == 7 and (1 + 2) * 3 == 9", true),
        ("true or false and false", true),
    ];
    for (text, expected) in cases {
        assert_eq!(holds(text), Ok(expected), "{text}");
    }
}

#[test]
fn what_is_not_known_is_said_when_the_expression_is_loaded() {
    let cases = [
        ("", "behind this a value is missing (at character 1)"),
        ("name()", "the whole has to be true or false, it is a text"),
        ("name", "\"name\" is not known; a function is called as name() (at character 1)"),
        ("qname() == 'a'", "function \"qname\" is not known; known are bufsize, class, client_ip"),
        ("nothing()", "function \"nothing\" is not known"),
        ("name(1) == 'a'", "name() takes no arguments"),
        ("id() == '7'", "a number and a text do not go together here (at character 6)"),
        ("port() == 53", "a text and a number do not go together here"),
        ("type() in 'A'", "a text and a text do not go together here"),
        ("type() in [1]", "a text and a list of numbers do not go together here"),
        ("type() in ['A', 1]", "all values of a list have to be of one kind"),
        ("[true] == 1", "a list is of numbers or texts, not of a truth"),
        ("name() matches '('", "\"(\" is no regular expression: unclosed group (at character 16)"),
        ("name() matches type()", "a regular expression has to stand here as a text"),
        ("incidr(client_ip(), '10.0.0.0/40')", "\"10.0.0.0/40\" is no network such as 10.0.0.0/8"),
        ("incidr(client_ip())", "incidr() takes an address and a network"),
        ("metadata()", "metadata() has no arguments"),
        ("len(1) == 1", "len() takes one text or list"),
        ("not 1", "\"not\" is for what is true or false, not for a number"),
        ("-'a' == 1", "\"-\" is for numbers, not for a text"),
        ("1 == 1.5", "here only a whole number can stand (at character 6)"),
        ("true and", "behind this a value is missing (at character 6)"),
        ("true true", "here the expression has to end, \"true\" follows (at character 6)"),
        ("(true", "here \")\" is missing"),
        ("true ? 1 : 'a'", "both sides of \":\" have to be of one kind: a number and a text"),
        ("1 ? true : true", "before \"?\" has to stand what is true or false, it is a number"),
        ("name() == 'a", "this text never ends (at character 11)"),
        (r"name() == '\.'", "\"\\.\" is no escape; a backslash is written \"\\\\\" (at character 12)"),
        ("name() == {}", "'{' is not known"),
        ("any(['a'], true)", "function \"any\" is not known"),
    ];
    for (text, expected) in cases {
        let error = holds(text).expect_err(text);
        assert!(error.starts_with(expected), "{text}\n   says: {error}\n wanted: {expected}");
    }
    let deep = format!("{}true{}", "(".repeat(10_000), ")".repeat(10_000));
    assert!(holds(&deep).unwrap_err().contains("nested more than 64 deep"));
    assert!(holds(&format!("{}true", "not ".repeat(10_000))).unwrap_err().contains("nested more than 64 deep"));
}

proptest::proptest! {
    #[test]
    fn no_text_breaks_the_parser_or_what_it_parsed(text in r#"(name\(\)|id\(\)|type\(\)|incidr\(|metadata\(|len\(| and | or |not |!| in |matches|==|<|\.\.|\+|%|-|\?|:|\(|\)|\[|\]|,|'a'|'1\.1\.1\.0/24'|[0-9]|true| ){0,25}"#) {
        if let Ok(expression) = Expression::parse(&text) {
            let _ = expression.holds(&DATA);
        }
    }
}
