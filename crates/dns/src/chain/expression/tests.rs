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
        ("metadata('kubernetes/client-namespace') startsWith 'sh' and metadata('a/b') == ''", true),
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
fn texts_and_lists_can_be_taken_apart() {
    let cases = [
        ("split(name(), '.')[0] == 'abc' and split(name(), '.')[-2] == 'com'", true),
        ("name() | trimSuffix('.') | split('.') | last() == 'com'", true),
        ("split('a,b,c', ',', 2) == ['a', 'b,c'] and splitAfter('a,b', ',') == ['a,', 'b']", true),
        ("split('ab', '') == ['a', 'b'] and split('', '') == [] and split('a', ',', 0) == []", true),
        ("name()[0:3] == 'abc' and name()[-5:] == '.com.' and name()[:-1] endsWith 'com' and name()[9:2] == ''", true),
        ("[1, 2, 3, 4][1:3] == [2, 3] and [1, 2][:] == 1..2 and [1, 2,][5:9] == []", true),
        ("hasPrefix(name(), 'abc') and hasSuffix(name(), 'com.') and trimPrefix('ab', 'a') == 'b'", true),
        ("indexOf(name(), 'x') == 4 and lastIndexOf(name(), '.') == 17 and indexOf(name(), 'y') == -1", true),
        ("replace('a-b-c', '-', '.') == 'a.b.c' and repeat('ab', 2) == 'abab' and trim('--a-', '-') == 'a'", true),
        ("join(['a', 'b'], '.') == 'a.b' and join(['a', 'b']) == 'ab' and '\\x41\\u00e9' == 'A\u{e9}'", true),
        ("first([1, 2]) == 1 and first([]) == nil and last([]) == nil and get([1], 5) == nil", true),
        ("get([1, 2], -1) == 2 and get([1], 0) == 1", true),
        ("(first(split('', '')) ?? 'none') == 'none' and nil ?? 1 == 1 and 2 ?? 1 == 2", true),
        ("take([1, 2, 3], 2) == [1, 2] and take([1], 5) == [1] and reverse([1, 2]) == [2, 1]", true),
        ("sort([3, 1, 2]) == 1..3 and sort(['b', 'a'], 'desc') == ['b', 'a'] and sort([2, 1.5]) == [1.5, 2]", true),
        ("uniq([1, 1.0, 2]) == [1, 2] and concat([1], ['a']) == [1, 'a'] and flatten([[1, [2]], 3]) == 1..3", true),
        ("count([true, false, true]) == 2 and len(filter(1..5, # > 3)) == 2", true),
        ("type() in ['A', 1] and 'x' in split(name(), '.')", false),
        ("1 in ['A', 1] and 'x' in split(name(), '.')", true),
        ("[1, 2][2] == 3", false),
        ("not ([1, 2][2] == 3)", false),
        ("[1, 2] == [1, 2.0] and [1] != [2] and nil != 1", true),
    ];
    for (text, expected) in cases {
        assert_eq!(holds(text), Ok(expected), "{text}");
    }
}

#[test]
fn each_element_of_a_list_can_be_asked() {
    let cases = [
        ("any(split(name(), '.'), # == 'x') and any(split(name(), '.'), {# == 'x'})", true),
        ("any([], true) or all([1, 2], # > 1)", false),
        ("all([], false) and none([1, 2], # > 2) and one([1, 2], # > 1) and not one([1, 2], # > 0)", true),
        ("split(name(), '.') | filter(len(#) == 3) | len() == 2", true),
        ("map(1..3, # * 2) == [2, 4, 6] and map(['a', 'b'], #index) == [0, 1]", true),
        ("count(1..5, # % 2 == 0) == 2 and ([true] | count()) == 1", true),
        ("find(1..5, # > 2) == 3 and findIndex(1..5, # > 2) == 2 and find([1], # > 2) == nil", true),
        ("findLast(1..5, # < 4) == 3 and findLastIndex(1..5, # < 4) == 2 and findIndex([1], # > 2) == nil", true),
        ("reduce(1..4, #acc + #) == 10 and reduce(['a', 'b'], #acc + #, '') == 'ab'", true),
        ("reduce([], #acc, 7) == 7", true),
        ("reduce(split(name(), '.'), #acc + len(#), 0) == 14", true),
        ("any(['10.0.0.0/8', '192.168.0.0/16'], incidr(client_ip(), #))", true),
        ("any(['10.0.0.0/33'], incidr(client_ip(), #))", false),
        ("let labels = split(name(), '.'); labels[1] == 'x' and len(labels) == 5", true),
        ("let n = 2; let m = n * n; any(1..5, let o = # + n; o == m)", true),
        ("any([[1, 2], [3]], any(#, # == 3))", true),
    ];
    for (text, expected) in cases {
        assert_eq!(holds(text), Ok(expected), "{text}");
    }
}

#[test]
fn maps_have_values_under_names() {
    let cases = [
        ("{'a': 1, b: 2}['a'] == 1 and {a: 1}.a == 1 and {a: {b: 'x'}}.a.b == 'x' and {a: 1,}.b == nil", true),
        ("{a: 1}?.b == nil and {a: nil}.a?.b == nil and 'a' in {a: 1} and 'b' not in {a: 1}", true),
        ("{a: nil}.a.b == nil", false),
        ("{a: nil}.a?.b.c == nil and {a: nil}.a?.b[0].c == nil and ({a: nil}.a?.b.c ?? 7) == 7", true),
        ("{a: nil}.a?.['b'] == nil and {a: {b: 1}}.a?.['b'] == 1", true),
        ("{a: nil}.a?.[0] == nil and {a: [7]}.a?.[0] == 7", true),
        // What is `nil` behind that, and a chain of its own between parentheses.
        ("{a: {b: nil}}.a?.b.c == nil", false),
        ("({a: nil}.a?.b).c == nil", false),
        ("{(lower('A')): 1, a: 2, 7: 3} == {a: 2, '7': 3} and {a: 1} != {a: 2} and {} == {}", true),
        ("let names = {'shop': ['A', 'AAAA']}; type() in names[metadata('kubernetes/client-namespace')]", true),
        ("len({a: 1, b: 2}) == 2 and keys({a: 1, b: 2}) == ['a', 'b'] and values({a: 1}) == [1]", true),
        (
            "toPairs({a: 1}) == [['a', 1]] and fromPairs([['a', 1]]).a == 1 and get({a: 1}, 'a') == 1 and get({}, 'a') == nil",
            true,
        ),
        ("fromPairs([[1, 2, 3]]) == {}", false),
        (
            "groupBy(1..5, # % 2 == 0 ? 'even' : 'odd') == {odd: [1, 3, 5], even: [2, 4]} and groupBy([7], #)['7'] == [7]",
            true,
        ),
        ("split(name(), '.') | groupBy(len(#)) | get('3') == ['abc', 'com']", true),
        ("sortBy(['bb', 'a', 'ccc'], len(#)) == ['a', 'bb', 'ccc'] and sortBy(1..3, -#) == [3, 2, 1]", true),
        (
            "sortBy([{n: 2}, {n: 1}], .n, 'desc')[0].n == 2 and map([{n: 2}], #.n) == [2] and any([{n: 2}], .n == 2)",
            true,
        ),
        ("sortBy([1, 'a'], #) == []", false),
        (
            "toJSON({b: [1, 1.5, 2.0], a: '<x>'}) == '{\n  \"a\": \"\\\\u003cx\\\\u003e\",\n  \"b\": [\n    1,\n    1.5,\n    2\n  ]\n}'",
            true,
        ),
        ("fromJSON('{\"a\": [1, null, true]}') == {a: [1, nil, true]} and fromJSON('[1]')[0] == 1", true),
        ("fromJSON('{') == nil", false),
        (
            "toBase64('hello') == 'aGVsbG8=' and fromBase64('aGVsbG8=') == 'hello' and string({b: 1, a: 'x'}) == 'map[a:x b:1]'",
            true,
        ),
        ("fromBase64('!') == ''", false),
    ];
    for (text, expected) in cases {
        assert_eq!(holds(text), Ok(expected), "{text}");
    }
}

#[test]
fn numbers_are_computed_as_by_the_library_that_coredns_has() {
    let cases = [
        ("7 / 2 == 3.5 and 2 ** 3 == 8 and 2 ^ 3 ** 2 == 512 and -2 ** 2 == -4 and +1 == 1", true),
        ("1 / 0 > 1000000 and 1.5e1 == 15 and .5 + .5 == 1 and 0b11 == 3 and 0o17 == 15 and 1_000 == 1e3", true),
        ("abs(-5) == 5 and ceil(1.2) == 2 and floor(1.8) == 1 and round(2.5) == 3 and abs(-1.5) == 1.5", true),
        ("max(1, 2.5, [0, 3]) == 3 and min([4, 2], 3) == 2 and sum([1, 2.5]) == 3.5 and sum([]) == 0", true),
        ("mean([1, 2]) == 1.5 and median([3, 1, 2]) == 2 and median([4, 1]) == 2.5 and mean([]) == 0", true),
        ("int('12') == 12 and int(1.9) == 1 and float('1.5') == 1.5 and string(7) + string(true) == '7true'", true),
        ("int(port()) > 1024 and int('x') == 0", false),
        ("bitand(12, 10) == 8 and bitor(12, 10) == 14 and bitxor(12, 10) == 6 and bitnand(12, 10) == 4", true),
        ("bitnot(0) == -1 and bitshl(1, 3) == 8 and bitshr(-8, 1) == -4 and bitushr(-1, 63) == 1", true),
        ("bitshl(1, 64) == 0 and bitshr(-1, 99) == -1", true),
        ("bitshl(1, -1) == 0", false),
        ("1 < 2 < 3 and not (1 < 3 < 2) and 1 == 1.0 and 5 in 1..9", true),
        ("9223372036854775807 + 1 > 0", false),
        ("true == false == false and 1 == 1 == true and 1 < 2 == true", true),
        ("do() ?: false", true),
        ("not (false ?: id() != 7)", true),
        ("size() > 40 /* bytes */ and true // the rest", true),
    ];
    for (text, expected) in cases {
        assert_eq!(holds(text), Ok(expected), "{text}");
    }
}

#[test]
fn what_takes_too_much_time_or_room_does_not_hold() {
    for text in [
        "len(map(1..100000, #)) == 100000",
        "any(1..1000, any(1..1000, any(1..1000, # == -1))) or true",
        "len(repeat('x', 100000)) == 100000",
        "len(replace(repeat('x', 60000), 'x', 'xx')) == 120000",
        "len(map(1..1000, repeat('x', 60000))) == 1000",
        "let x = repeat('x', 60000); len(map(1..1000, x)) == 1000",
        "len(reduce(1..1000, [#acc], [])) == 1",
        "len(reduce(1..1000, ({a: #acc}), {})) == 1",
        "len(map(1..1000, ({a: repeat('x', 60000)}))) == 1000",
    ] {
        assert_eq!(holds(text), Ok(false), "{text}");
    }
    assert_eq!(holds("len(1..100000) == 100000 and 70000 in 1..100000"), Ok(true), "what need not be made");
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
        ("[true] == 1", "a list of truths and a number do not go together here"),
        ("[[1]] == ['a']", "a list of lists of numbers and a list of texts do not go together here"),
        ("name() matches '('", "\"(\" is no regular expression: unclosed group (at character 16)"),
        ("name() matches type()", "a regular expression has to stand here as a text"),
        ("incidr(client_ip(), '10.0.0.0/40')", "\"10.0.0.0/40\" is no network such as 10.0.0.0/8"),
        ("incidr(client_ip())", "incidr() is called as incidr(text, text) (at character 1)"),
        ("metadata()", "metadata() is called as metadata(text) (at character 1)"),
        ("len(1) == 1", "len() is called as len(text, list or map), and this is a number (at character 5)"),
        ("split('a', '.', 'x') == []", "split() is called as split(text, text[, whole number]), and this is a text"),
        ("max('a') == 1", "max() is called as max(number or list of numbers, …), and this is a text"),
        ("any('a', true)", "any() goes through a list, this is a text (at character 5)"),
        ("any([1], # + 1)", "any() asks what is true or false of each element, this is a number (at character 10)"),
        ("any([1])", "here \",\" is missing"),
        ("any([1], {# == 1)", "here \"}\" is missing"),
        ("# == 1", "\"#\" is an element that is asked something"),
        ("any([1], #acc == 1)", "\"#acc\" is not known here"),
        ("name()[0] == 'a'", "a text has no elements; a part of it is written [0:1] (at character 7)"),
        ("[1]['a'] == 1", "a place in a list or text is a whole number, not a text (at character 5)"),
        ("id()[1:] == 1", "a number has no parts (at character 5)"),
        ("let name = 1; true", "\"name\" means something already; a variable needs a name of its own (at character 5)"),
        ("let x = 1; let x = 2; true", "\"x\" means something already"),
        ("let x == 1; true", "here \"=\" is missing"),
        ("x == 1", "\"x\" is not known; a function is called as x() (at character 1)"),
        ("name() | 'a'", "behind \"|\" the call of a function is missing (at character 10)"),
        ("name() == /* never", "this comment never ends (at character 11)"),
        ("id() == 1x", "\"1x\" is no number"),
        ("id() == 99999999999999999999", "\"99999999999999999999\" is no number, or too large a one"),
        ("7.5 % 2 == 1", "a fraction and a number do not go together here (at character 5)"),
        ("1 < 'a' < 2", "a number and a text do not go together here (at character 3)"),
        ("not 1", "\"not\" is for what is true or false, not for a number"),
        ("-'a' == 1", "\"-\" is for numbers, not for a text"),
        ("true and", "behind this a value is missing (at character 6)"),
        ("true true", "here the expression has to end, \"true\" follows (at character 6)"),
        ("(true", "here \")\" is missing"),
        ("true ? 1 : 'a'", "both sides of \":\" have to be of one kind: a number and a text"),
        ("1 ? true : true", "before \"?\" has to stand what is true or false, it is a number"),
        ("name() == 'a", "this text never ends (at character 11)"),
        (r"name() == '\.'", "\"\\.\" is no escape; a backslash is written \"\\\\\" (at character 12)"),
        ("name() == {}", "a text and a map do not go together here (at character 8)"),
        ("{'a'} == {}", "here \":\" is missing"),
        ("{a: 1 b: 2} == {}", "here \",\" is missing"),
        ("{+: 1} == {}", "here the name of something in a map is missing (at character 2)"),
        ("{(1): 1} == {}", "the name of something in a map is a text"),
        ("{a: 1}[true] == 1", "a name in a map is a text, not a truth (at character 8)"),
        ("id().a == 1", "a number has nothing that is called \"a\" (at character 5)"),
        ("{a: 1}.1 == 1", "here the expression has to end, 0.1 follows"),
        ("{a: 1}. == 1", "behind a dot a name is missing"),
        ("keys([1]) == []", "keys() is called as keys(map), and this is a list of numbers"),
        ("any({a: 1}, true)", "any() goes through a list, this is a map"),
        ("sortBy([1], #, 'up') == []", "the order is 'asc' or 'desc' (at character 16)"),
        ("name() = 'a'", "\"=\" stands only behind \"let\" and a name; what is equal is compared"),
        ("name() == ~1", "'~' is not known (at character 11)"),
    ];
    for (text, expected) in cases {
        let error = holds(text).expect_err(text);
        assert!(error.starts_with(expected), "{text}\n   says: {error}\n wanted: {expected}");
    }
    let deep = format!("{}true{}", "(".repeat(10_000), ")".repeat(10_000));
    assert!(holds(&deep).unwrap_err().contains("nested more than 64 deep"));
    for chain in ["not ", "- ", "1 ** ", "true ? true : ", "let x = "] {
        assert!(holds(&format!("{}true", chain.repeat(10_000))).unwrap_err().contains("nested more than 64 deep"));
    }
    let sum = format!("1{} == 1", " + 1".repeat(10_000));
    assert!(holds(&sum).unwrap_err().contains("nested more than 64 deep"));
    let chosen = format!("{}id() == 7{}", "(".repeat(30), " ?: false)".repeat(30));
    assert_eq!(holds(&chosen), Ok(true), "a condition is not copied");
    let between = |nested| (0..nested).fold("1".to_owned(), |middle, _| format!("(1 <= {middle} < 3 ? 1 : 2)"));
    assert_eq!(holds(&format!("{} == 1", between(3))), Ok(true));
    let error = holds(&format!("{} == 1", between(12))).unwrap_err();
    assert!(error.starts_with("what stands between two comparisons is nested too deep; give it a name"), "{error}");
    let long = format!("false{}", " or id() == 7 and do()".repeat(1000));
    assert_eq!(holds(&long), Ok(true), "chains of them are no nesting");
}

proptest::proptest! {
    #[test]
    fn no_text_breaks_the_parser_or_what_it_parsed(text in r#"(name\(\)|id\(\)|type\(\)|incidr\(|metadata\(|len\(|split\(|any\(|map\(|reduce\(| and | or |not |!| in |matches|==|<|\.\.|\+|%|-|\*\*|/|\?\?|\?|:|;|let x =| x|#acc|#|\||\{|\}|\(|\)|\[|\]|,|'a'|\.a|a:|\?\.|groupBy\(|toJSON\(|fromJSON\(|'1\.1\.1\.0/24'|[0-9]|1\.5|true|nil| ){0,25}"#) {
        if let Ok(expression) = Expression::parse(&text) {
            let _ = expression.holds(&DATA);
        }
    }
}
