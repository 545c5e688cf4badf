use std::io;

use super::parse;
use crate::{Config, Environment};

const KUBEADM: &str = r"
.:53 {
    errors
    health {
       lameduck 5s
    }
    ready
    kubernetes cluster.local in-addr.arpa ip6.arpa {
       pods insecure
       fallthrough in-addr.arpa ip6.arpa
       ttl 30
    }
    prometheus :9153
    forward . /etc/resolv.conf {
       max_concurrent 1000
    }
    cache 30 {
       disable success cluster.local
       disable denial cluster.local
    }
    loop
    reload
    loadbalance
}
";

fn file(path: &str) -> io::Result<String> {
    match path {
        "/etc/resolv.conf" => Ok("search example.org\nnameserver 192.0.2.53\nnameserver 2001:db8::53\n".to_owned()),
        "extra" | "conf.d/a.conf" => Ok("errors\nlog\n".to_owned()),
        "conf.d/b.conf" => Ok("whoami\nimport c\n".to_owned()),
        "conf.d/c" => Ok("loadbalance\n".to_owned()),
        "conf.d/bad" => Ok("\n  log \"".to_owned()),
        "linked/one/a.conf" => Ok("whoami\n".to_owned()),
        _ => Err(io::ErrorKind::NotFound.into()),
    }
}

fn list(path: &str) -> io::Result<Vec<String>> {
    match path {
        "conf.d" => Ok(["b.conf", "a.conf", "c", "bad"].map(str::to_owned).to_vec()),
        // A link to a directory.
        "linked" => Ok(vec!["one//".to_owned()]),
        _ => Err(io::ErrorKind::NotFound.into()),
    }
}

fn variable(name: &str) -> Option<String> {
    match name {
        "ZONE" => Some("example.org".to_owned()),
        "PORT" => Some("1053".to_owned()),
        _ => None,
    }
}

fn environment() -> Environment<'static> {
    Environment { variable: &variable, file: &file, list: &list, ..Environment::EMPTY }
}

fn load(text: &str) -> Result<Config, String> {
    Config::load("Corefile", text, &environment()).map_err(|error| error.to_string())
}

#[test]
fn the_corefile_that_kubeadm_writes_loads_unmodified() {
    let config = load(KUBEADM).unwrap();
    assert_eq!(config.listeners().len(), 1);
    let chain = &config.blocks[0];
    assert!(chain.errors() && chain.loop_check() && chain.loadbalance().is_some());
    assert_eq!(config.process.metrics[0].listen.to_string(), "[::]:9153");
    let forward = chain.forwards().next().unwrap();
    assert_eq!((forward.upstreams.len(), forward.max_concurrent), (2, Some(1000)));
    let kubernetes = chain.kubernetes().unwrap();
    assert_eq!((kubernetes.zones.len(), kubernetes.reverse_zones.len(), kubernetes.ttl), (1, 2, 30));
    assert_eq!(config.process.lameduck().as_secs(), 5);
    assert_eq!(config.process.reload.unwrap().0.as_secs(), 30);
}

#[test]
fn the_corefile_of_scenario_05_loads_unmodified() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/scenarios/05-corefile.yaml");
    let yaml = std::fs::read_to_string(path).unwrap();
    let (_, corefile) = yaml.split_once("  Corefile: |\n").unwrap();
    let chain = &load(corefile).unwrap().blocks[0];
    assert_eq!(chain.forwards().next().unwrap().except.len(), 1);
    assert!(chain.hosts().is_some());
}

#[test]
fn words_keep_together_in_quotes_and_variables_are_replaced() {
    let text =
        "{$ZONE}:{%PORT%} \"b c.org\" { # a comment\n  log \"two words\" \"a \\\" quote\" {$NOTHING} x{$ZONE}y\n}\n";
    let corefile = parse("Corefile", &text.replace("\"b c.org\" ", ""), &environment());
    let block = &corefile.blocks[0];
    assert_eq!(block.keys[0].to_string(), "dns://example.org.:1053");
    let arguments: Vec<_> = block.directives[0].arguments.iter().map(|word| word.text.as_str()).collect();
    assert_eq!(arguments, ["two words", "a \" quote", "xexample.orgy"]);
    assert_eq!(parse("Corefile", text, &environment()).errors.len(), 1);
}

#[test]
fn comments_begin_anywhere_outside_of_quotes_and_a_backslash_escapes_a_quote_alone() {
    let text = ". {#one\n cache 30#two words\n log \"a#b\"#three\n log \"a\\\\\" \"b\\.c\" \"d\\\"e\"\n}#four";
    let corefile = parse("Corefile", text, &environment());
    assert!(corefile.errors.is_empty(), "{:?}", corefile.errors);
    let words = |at: usize| {
        corefile.blocks[0].directives[at].arguments.iter().map(|word| word.text.as_str()).collect::<Vec<_>>()
    };
    assert_eq!((words(0), words(1)), (vec!["30"], vec!["a#b"]));
    // As Caddy reads them: two backslashes stay two, and the quote behind them ends the word.
    assert_eq!(words(2), [r"a\\", r"b\.c", "d\"e"]);
    assert_eq!(load(". {\n log \"a\\").unwrap_err(), load(". {\n log \"a").unwrap_err(), "the quote is not closed");
}

#[test]
fn server_blocks_have_several_zones_and_ports_and_reverse_zones_of_networks() {
    let text = "dns://a.org, b.org:5300 {\n whoami\n}\n10.1.0.0/15 2001:db8::/32 {\n whoami\n}\n:54 {\n}\n";
    let corefile = parse("Corefile", text, &environment());
    let keys: Vec<_> = corefile.blocks.iter().flat_map(|block| &block.keys).map(ToString::to_string).collect();
    assert_eq!(
        keys,
        [
            "dns://a.org.:53",
            "dns://b.org.:5300",
            "dns://0.10.in-addr.arpa.:53",
            "dns://1.10.in-addr.arpa.:53",
            "dns://8.b.d.0.1.0.0.2.ip6.arpa.:53",
            "dns://.:54",
        ]
    );
}

#[test]
fn snippets_and_files_are_put_where_they_are_imported() {
    let text = "(inner) {\n whoami\n}\n(outer) {\n import inner\n loadbalance round_robin\n}\n. {\n import outer\n import extra\n}\n";
    let chain = &load(text).unwrap().blocks[0];
    assert!(chain.whoami() && chain.loadbalance().is_some() && chain.errors() && chain.log());
}

#[test]
fn files_are_imported_by_pattern_and_beside_the_file_that_imports_them() {
    let config = load(". {\n import conf.d/?.conf\n}").unwrap();
    let chain = &config.blocks[0];
    assert!(chain.errors() && chain.log() && chain.whoami() && chain.loadbalance().is_some());
    assert_eq!(config.files.len(), 3);
    assert_eq!(config.directories, [std::path::PathBuf::from("conf.d")]);
    assert!(load(". {\n import linked/*/a.conf\n}").unwrap().blocks[0].whoami());
    let config = load(". {\n import conf.d/*.none\n}").unwrap();
    assert_eq!(config.warnings, ["Corefile:2:9: no file is called \"conf.d/*.none\""]);
}

#[test]
fn lines_end_where_they_end() {
    // The only block of a file needs no braces, and its keys may go on behind a comma.
    let chain = &load("a.org,\nb.org\nerrors\nlog {\n class all\n}").unwrap().blocks[0];
    assert!(chain.keys.len() == 2 && chain.errors() && chain.log());
    // What follows a text of several lines is on the line where it ends.
    let corefile = parse("Corefile", ". {\n log \"two\nlines\" {\n class all\n }\n}", &environment());
    assert_eq!((corefile.blocks[0].directives[0].arguments.len(), corefile.errors.len()), (1, 0));
    assert_eq!(corefile.blocks[0].directives[0].options.len(), 1);
    // One snippet twice is two lines; a word that is left out gives its line to the next.
    let corefile = parse("Corefile", "(s) {\n log a\n}\n. {\n import s\n import s\n {$NOTHING} log\n}", &environment());
    assert_eq!(corefile.blocks[0].directives.len(), 3);
    // The brace may stand on the next line.
    assert!(load(".\n{\n errors\n}").is_ok());
    // An option may stand on the line of the opening brace, and there may be none.
    let config = load(". {\n health { lameduck 7s\n }\n log { }\n whoami\n}").unwrap();
    assert!(config.process.lameduck().as_secs() == 7 && config.blocks[0].log() && config.blocks[0].whoami());
}

#[test]
fn zones_have_schemes_ports_and_networks_of_any_length() {
    let text = "tls://. https://a.org:8443 grpc://b quic://c https3://d 10.0.0.0/23:54 10.1.2.128/30 2001:db8::/31:55 \
                0.0.0.0/0 {\n}";
    let corefile = parse("Corefile", text, &environment());
    let keys: Vec<_> = corefile.blocks[0].keys.iter().map(ToString::to_string).collect();
    assert_eq!(
        keys,
        [
            "tls://.:853",
            "https://a.org.:8443",
            "grpc://b.:443",
            "quic://c.:853",
            "https3://d.:443",
            "dns://0.0.10.in-addr.arpa.:54",
            "dns://1.0.10.in-addr.arpa.:54",
            "dns://128.2.1.10.in-addr.arpa.:53",
            "dns://129.2.1.10.in-addr.arpa.:53",
            "dns://130.2.1.10.in-addr.arpa.:53",
            "dns://131.2.1.10.in-addr.arpa.:53",
            "dns://8.b.d.0.1.0.0.2.ip6.arpa.:55",
            "dns://9.b.d.0.1.0.0.2.ip6.arpa.:55",
            "dns://in-addr.arpa.:53",
        ]
    );
}

#[test]
fn reading_goes_on_behind_what_is_wrong() {
    let text = "a..b:0 {\n import nothing\n bogus\n}\n(s) {\n}\n(s) {\n}\n. {\n  errors now\n";
    let config = Config::check("Corefile", text, &environment());
    let told: Vec<_> = config.errors.iter().map(|error| error.place.line).collect();
    assert_eq!(told, [1, 2, 3, 7, 9], "{:?}", config.errors);
}

#[test]
fn braces_are_not_nested_without_end() {
    let text = format!(". {{\n{}", "a {\n".repeat(200_000));
    let error = load(&text).unwrap_err();
    assert!(
        error.starts_with("Corefile:10:3: found \"{\", allowed here: the end of the line: braces are nested"),
        "{error}"
    );
}

#[test]
fn an_error_names_place_finding_and_what_is_allowed() {
    let cases = [
        (". {\n  bogus\n}", "Corefile:2:3: unknown plugin \"bogus\"; known plugins: root, metadata"),
        (". {\n  errors\n  errors\n}", "Corefile:3:3: plugin \"errors\" stands here a second time"),
        (". {\n  errors\n", "Corefile:1:3: this '{' is never closed"),
        ("}\n", "Corefile:1:1: found \"}\", allowed here: a zone to serve"),
        (". {\n}\na\n  errors\n", "Corefile:4:3: found \"errors\", allowed here: \"{\""),
        (".\n errors\n}", "Corefile:3:1: found \"}\", allowed here: a plugin's name"),
        (".", "Corefile:1:1: \".\" ends here, needed: \"{\""),
        ("{\n errors\n}", "Corefile:1:1: found \"{\", allowed here: a zone to serve before the \"{\""),
        ("", "Corefile:1:1: there is no server block"),
        (". {\n log \"never ends\n}", "Corefile:2:6: this quotation never ends"),
        (". {\n import nothing\n}", "Corefile:2:9: no snippet is called \"nothing\""),
        (
            "(a) {\n import a\n}\n. {\n import a\n}",
            "Corefile:2:2: there are more than 1000 imports, or they are too large",
        ),
        ("(a) {\n}\n(a) {\n}\n. {\n}", "Corefile:3:1: snippet \"a\" is already defined at Corefile:1:1"),
        (". {\n}\n.:53 {\n}", "Corefile:3:1: dns://.:53 is already served by the server block at Corefile:1:1"),
        ("quic://. {\n}", "Corefile:1:1: \"quic://\" is understood, but not served by this server yet"),
        (
            "ftp://. {\n}",
            "Corefile:1:1: the zone of a server block cannot be \"ftp://.\"; allowed: dns://, tls://, https://",
        ),
        (". {\n import a b\n}", "Corefile:2:11: found \"b\", allowed here: the end of the line: \"import\" takes one"),
        (". {\n import\n}", "Corefile:2:2: \"import\" ends here, needed: the name of a snippet or file"),
        (". {\n import */a\n}", "Corefile:2:9: cannot read .: "),
        (". {\n import nowhere/*\n}", "Corefile:2:9: cannot read nowhere: "),
        (". {\n import conf.d/bad\n}", "conf.d/bad:2:7: this quotation never ends"),
        (
            ".:99999 {\n}",
            "Corefile:1:1: the zone of a server block cannot be \".:99999\"; allowed: a port from 1 to 65535",
        ),
        ("a..b {\n}", "Corefile:1:1: the zone of a server block cannot be \"a..b\"; allowed: a domain name"),
        (
            ". {\n  kubernetes cluster.local {\n    pods maybe\n  }\n}",
            "Corefile:3:10: pods cannot be \"maybe\"; allowed: disabled",
        ),
        (
            ". {\n  kubernetes cluster.local {\n    ttl 3601\n  }\n}",
            "Corefile:3:9: ttl cannot be \"3601\"; allowed: a whole number from 0 to 3600",
        ),
        (
            ". {\n  kubernetes cluster.local {\n    zoom\n  }\n}",
            "Corefile:3:5: plugin \"kubernetes\" has no option \"zoom\"; its options: pods, ttl",
        ),
        (
            ". {\n  kubernetes cluster.local {\n    fallthruogh\n  }\n}",
            "Corefile:3:5: plugin \"kubernetes\" has no option \"fallthruogh\"; did you mean \"fallthrough\"?; its options",
        ),
        (". {\n  forwrad . 1.1.1.1\n}", "Corefile:2:3: unknown plugin \"forwrad\"; did you mean \"forward\"?; known"),
        (
            ". {\n  route53 example.org.:Z1\n}",
            "Corefile:2:3: plugin \"route53\" is no part of this server: it serves the zones of a cloud vendor",
        ),
        (
            ". {\n  kubernetes cluster.local {\n    multicluster other.zone\n  }\n}",
            "Corefile:3:18: a zone of multicluster cannot be \"other.zone\"; allowed: one of the plugin's own zones",
        ),
        (". {\n  kubernetes in-addr.arpa\n}", "Corefile:2:14: \"kubernetes\" ends here, needed: a zone for Services"),
        (". {\n  forward .\n}", "Corefile:2:11: \"forward\" ends here, needed: at least one upstream"),
        (". {\n  forward . non!sense\n}", "Corefile:2:13: an upstream cannot be \"non!sense\""),
        (". {\n  forward . /nowhere/resolv.conf\n}", "Corefile:2:13: cannot read /nowhere/resolv.conf"),
        (". {\n  forward . 1.1.1.1 {\n    policy best\n  }\n}", "Corefile:3:12: policy cannot be \"best\""),
        (". {\n  cache 0\n}", "Corefile:2:9: the time to live of cache cannot be \"0\""),
        (". {\n  cache {\n    servfail 6m\n  }\n}", "Corefile:3:14: servfail cannot be \"6m\"; allowed: at most 5m"),
        (". {\n  hosts {\n    10.0.0.1\n  }\n}", "Corefile:3:5: \"10.0.0.1\" ends here, needed: a name"),
        (". {\n  reload 1s\n}", "Corefile:2:10: the interval of reload cannot be \"1s\"; allowed: at least 2s"),
        (". {\n  health 8080\n}", "Corefile:2:10: the address of health cannot be \"8080\"; allowed: [address]:port"),
        (". {\n cache {\n  ttl {\n  }\n }\n}", "Corefile:3:3: plugin \"cache\" has no option \"ttl\""),
        (". {\n cache {\n  success 5 {\n   x\n  }\n }\n}", "Corefile:4:4: found \"x\", allowed here: no options"),
        (". {\n  loop now\n}", "Corefile:2:8: found \"now\", allowed here: nothing"),
        (". {\n  health { x\n  }\n}", "Corefile:2:12: plugin \"health\" has no option \"x\""),
        (
            ". {\n  health { lameduck 5s }\n}",
            "Corefile:2:24: found \"}\", allowed here: the end of the line, and \"}\" on a line of its own",
        ),
    ];
    for (text, expected) in cases {
        let error = load(text).expect_err(text);
        assert!(error.starts_with(expected), "{text:?}\n   says: {error}\n wanted: {expected}");
    }
}

proptest::proptest! {
    #[test]
    fn no_text_breaks_the_parser(text in r#"(\{|\}|\n|"| |#|\\|,|:|\(s\)|import |s|conf\.d/\*|\{\$ZONE\}|\{%PORT%\}|tls://|10\.0\.0\.0/9|forward|cache|log|rewrite|template|view x|expr|kubernetes|answer|\{\{|[a-z.]{1,5}){0,60}"#) {
        let _ = Config::check("Corefile", &text, &environment());
    }
}
