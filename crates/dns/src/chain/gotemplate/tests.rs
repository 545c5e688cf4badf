use std::time::{Duration, Instant};

use super::{GoTemplate, TemplateData};
use crate::{answer::Section, message::Expanded, name::Name};

const DATA: TemplateData<'static> = TemplateData {
    zone: "example.",
    name: "ip-10-1-2-3.example.",
    class: "IN",
    rtype: "A",
    regex: "ip-.*",
    matches: &["ip-10-1-2-3", "10", "1"],
    groups: &[("b", "ff"), ("a", "10")],
    remote: "10.244.1.2",
    question: (1, 1),
    header: (7, 0x0110),
    edns: Some((1232, true)),
    options: &[0, 10, 0, 2, 0xab, 0xcd, 0, 8, 0, 7, 0, 1, 24, 0, 192, 0, 2, 0xff, 0xf0, 0, 1, 7],
    records: &[],
    meta: &|label| (label == "kubernetes/client-namespace").then(|| "shop".to_owned()),
};

fn render(text: &str) -> Result<String, String> {
    render_for(text, &DATA)
}

fn render_for(text: &str, data: &TemplateData<'_>) -> Result<String, String> {
    let template = GoTemplate::parse(text, &["a", "b", "c"]).map_err(|error| format!("load: {error}"))?;
    template.render(data).map_err(|error| format!("render: {error}"))
}

#[test]
fn a_template_tells_of_the_question() {
    let cases = [
        ("plain } text {", "plain } text {"),
        ("{{ .Name }} 60 IN {{.Type}} {{ .Group.a }}.{{ .Group.b }}", "ip-10-1-2-3.example. 60 IN A 10.ff"),
        ("{{ .Zone }}{{ .Class }}{{ .Remote }}{{ .Regex }}", "example.IN10.244.1.2ip-.*"),
        ("{{ index .Match 1 }}/{{ index .Group \"b\" }}/{{ len .Match }}", "10/ff/3"),
        ("{{ parseInt .Group.b 16 8 }}", "255"),
        ("{{ .Question.Name }} {{ .Question.Qtype }} {{ .Question.Qclass }}", "ip-10-1-2-3.example. 1 1"),
        ("{{ .Message.Id }} {{ .Message.RecursionDesired }} {{ .Message.Truncated }}", "7 true false"),
        ("{{ .Message.CheckingDisabled }} {{ .Message.Opcode }}", "true 0"),
        ("{{ range .Message.Question }}{{ .Name }}{{ .Qtype }}{{ end }}", "ip-10-1-2-3.example.1"),
        ("{{ .Meta \"kubernetes/client-namespace\" }}|{{ .Meta \"x/y\" }}|{{ \"x/y\" | .Meta }}", "shop||"),
        ("{{ print (.Meta \"kubernetes/client-namespace\") 1 }}", "shop1"),
        ("{{ .Group.c }}|{{ .Group }}|{{ .Match }}", "|map[a:10 b:ff]|[ip-10-1-2-3 10 1]"),
        ("a {{- /* nothing */ -}} b {{- \"c\" -}} d", "abcd"),
        ("{{ \"q\\\"\\\\\" }}{{ `raw\\n` }}{{ 'A' }}{{ 0x1f }}{{ -5 }}", "q\"\\raw\\n6531-5"),
    ];
    for (text, expected) in cases {
        assert_eq!(render(text).as_deref(), Ok(expected), "{text}");
    }
}

#[test]
fn a_template_chooses_and_repeats() {
    let cases = [
        ("{{ if eq .Type \"A\" \"AAAA\" }}addr{{ else }}other{{ end }}", "addr"),
        ("{{ if eq .Type \"MX\" }}mx{{ else if .Group.c }}c{{ else }}none{{ end }}", "none"),
        ("{{ with .Group.a }}{{ . }}{{ $.Type }}{{ else }}no{{ end }}", "10A"),
        ("{{ with .Group.c }}{{ . }}{{ else with .Group.b }}{{ . }}{{ end }}", "ff"),
        ("{{ range $i, $m := .Match }}{{ if $i }},{{ end }}{{ $m }}{{ end }}", "ip-10-1-2-3,10,1"),
        ("{{ range $k, $v := .Group }}{{ $k }}={{ $v }};{{ end }}", "a=10;b=ff;"),
        ("{{ range slice .Match 3 }}x{{ else }}empty{{ end }}", "empty"),
        ("{{ range .Match }}{{ if eq . \"1\" }}{{ break }}{{ end }}{{ . }};{{ end }}", "ip-10-1-2-3;10;"),
        ("{{ range .Match }}{{ if eq . \"10\" }}{{ continue }}{{ end }}{{ . }};{{ end }}", "ip-10-1-2-3;1;"),
        ("{{ range 3 }}{{ . }}{{ end }}", "012"),
        ("{{ $x := \"a\" }}{{ if true }}{{ $x = \"b\" }}{{ $y := 1 }}{{ end }}{{ $x }}", "b"),
        ("{{ if and .Group.a (not .Group.c) (lt (len .Match) 4) }}yes{{ end }}", "yes"),
        ("{{ or .Group.c .Group.b }}{{ and .Group.c .Group.b }}", "ff"),
        ("{{ if or (gt 1 2) (ge 2 2) }}{{ ne 1 2 }}{{ le \"a\" \"b\" }}{{ end }}", "truetrue"),
    ];
    for (text, expected) in cases {
        assert_eq!(render(text).as_deref(), Ok(expected), "{text}");
    }
}

#[test]
fn a_template_prints_as_go_does() {
    let cases = [
        ("{{ printf \"%d-%03d-%x-%X-%b-%o\" 7 7 255 255 5 8 }}", "7-007-ff-FF-101-10"),
        ("{{ printf \"%s|%-5s|%5s|%.2s|%q\" .Type .Type .Type .Zone .Type }}", "A|A    |    A|ex|\"A\""),
        ("{{ printf \"%v %v %t %%\" 1 .Match true }}", "1 [ip-10-1-2-3 10 1] true %"),
        ("{{ .Group.b | printf \"%s%s\" \"x\" }}", "xff"),
        ("{{ printf \"%x\" .Type }}{{ printf \"%+d\" 5 }}{{ printf \"%#x\" 255 }}{{ printf \"%c\" 65 }}", "41+50xffA"),
        ("{{ print 1 2 \"a\" 3 }}|{{ println 1 \"a\" }}", "1 2a3|1 a\n"),
        ("{{ (index .Message.Question 0).Name }}", "ip-10-1-2-3.example."),
        ("{{ slice .Name 0 2 }}{{ index .Name 0 }}", "ip105"),
        ("{{ nil | print }}", "<no value>"),
        ("{{ printf \"%[2]s.%[1]s.%s\" .Group.a .Group.b }}", "ff.10.ff"),
        ("{{ printf \"%5[1]d|%U|%O|%O\" 7 65 8 -8 }}", "    7|U+0041|0o10|-0o10"),
        ("{{ \"\\x41\\u00e9\\101\\a\" }}{{ '\\n' }}{{ '\\'' }}{{ 017 }}{{ 0 }}", "AéA\u{7}1039150"),
        ("{{ html \"<a b='c'>\" \"&\" }}", "&lt;a b=&#39;c&#39;&gt;&amp;"),
        ("{{ js \"it's <b>\" | print }}{{ js \"\\n=\" }}", "it\\'s \\u003Cb\\u003E\\u000A\\u003D"),
        ("{{ urlquery .Name 1 2 }}{{ \"a b/é\" | urlquery }}", "ip-10-1-2-3.example.1+2a+b%2F%C3%A9"),
        ("{{ slice .Match 0 1 2 }}", "[ip-10-1-2-3]"),
    ];
    for (text, expected) in cases {
        assert_eq!(render(text).as_deref(), Ok(expected), "{text}");
    }
}

#[test]
fn a_template_tells_of_edns_where_there_is_any() {
    let text = "{{ with .Message.IsEdns0 }}{{ .UDPSize }} {{ .Do }} {{ .Version }}{{ else }}none{{ end }}";
    assert_eq!(render(text).as_deref(), Ok("1232 true 0"));
    let without = TemplateData { edns: None, ..DATA };
    assert_eq!(render_for(text, &without).as_deref(), Ok("none"));
    let error = render_for("{{ .Message.IsEdns0.Do }}", &without).unwrap_err();
    assert!(error.starts_with("render: this value has no field \"Do\""), "{error}");
    assert!(render("{{ .Message.IsEdns0.Opt }}").unwrap_err().starts_with("load: field \"Opt\" is not known"));
    let cases = [
        ("{{ range .Message.IsEdns0.Option }}{{ .Option }} {{ end }}", "10 8 65520 "),
        ("{{ (index .Message.IsEdns0.Option 0).Cookie }}", "abcd"),
        ("{{ with index .Message.IsEdns0.Option 1 }}{{ .Address }}/{{ .SourceNetmask }}{{ end }}", "192.0.2.0/24"),
        (
            "{{ (index .Message.IsEdns0.Option 2).Data }}{{ index .Message.IsEdns0.Option 2 }}",
            "[7]LOCAL OPT: 65520:0x07",
        ),
        ("{{ len .Message.Extra }}{{ (index .Message.Extra 0).Header.Rrtype }}", "141"),
    ];
    for (text, expected) in cases {
        assert_eq!(render(text).as_deref(), Ok(expected), "{text}");
        assert!(GoTemplate::parse(text, &[]).unwrap().reads_records(), "{text}");
    }
    assert!(!GoTemplate::parse("{{ .Message.IsEdns0.Do }}", &[]).unwrap().reads_records());
    let error = render("{{ (index .Message.IsEdns0.Option 0).Address }}").unwrap_err();
    assert!(error.starts_with("render: this value has no field \"Address\""), "{error}");
}

#[test]
fn what_a_template_does_not_tell_of_is_not_copied_each_time_that_it_tells_of_something() {
    const COUNT: usize = 4000;
    // Of the numbers for local use (RFC 6891 §9), and empty.
    let options = [0xff, 0xf0, 0, 0].repeat(COUNT);
    let data = TemplateData { options: &options, ..DATA };
    let began = Instant::now();
    let text = "{{ range .Message.IsEdns0.Option }}{{ $.Type }}{{ end }}";
    assert_eq!(render_for(text, &data), Ok("A".repeat(COUNT)));
    // It takes milliseconds; with a copy of all options for each of them it takes many times this.
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
}

#[test]
fn a_template_tells_of_all_records_of_the_message() {
    let record = |section, owner: &str| Expanded {
        section,
        owner: Name::parse(owner).unwrap(),
        rtype: 1,
        ttl: 60,
        rdata: vec![192, 0, 2, 1],
    };
    let records = [record(Section::Answer, "a.example"), record(Section::Additional, "b.example")];
    let data = TemplateData { records: &records, edns: None, ..DATA };
    let text = "{{ range .Message.Answer }}{{ .Header.Name }} {{ .Hdr.Ttl }}{{ end }}|{{ len .Message.Ns }}|{{ .Message.Extra }}";
    assert_eq!(render_for(text, &data).as_deref(), Ok("a.example. 60|0|[b.example.\t60\tIN\tA\t192.0.2.1]"));
    assert_eq!(render("{{ len .Message.Answer }}").as_deref(), Ok("0"));
}

#[test]
fn templates_within_a_template_are_called_with_what_they_are_given() {
    let cases = [
        ("{{ define \"x\" }}<{{ . }}>{{ end }}{{ template \"x\" .Type }}{{ template \"x\" }}", "<A><<no value>>"),
        // It may stand behind its call, sees no variables, and its `$` is what it is given.
        ("{{ $v := 1 }}{{ template \"x\" . }}{{ define \"x\" }}{{ $.Type }}{{ .Group.a }}{{ end }}{{ $v }}", "A101"),
        ("{{ block \"x\" .Match }}{{ range . }}{{ . }};{{ end }}{{ end }}", "ip-10-1-2-3;10;1;"),
        ("{{ range .Match }}{{ template \"x\" . }}{{ end }}{{ define \"x\" }}{{ len . }},{{ end }}", "11,2,1,"),
        (
            "{{ define \"x\" }}{{ with .Meta \"kubernetes/client-namespace\" }}{{ . }}{{ end }}{{ end }}{{ template \"x\" . }}",
            "shop",
        ),
        ("{{ define \"x\" }} {{ end }}{{ define \"x\" }}new{{ end }}{{ template \"x\" }}", "new"),
        // One that calls itself, until there is nothing left.
        (
            "{{ define \"x\" }}{{ if . }}{{ slice . 0 1 }}.{{ template \"x\" slice . 1 }}{{ end }}{{ end }}{{ template \"x\" .Group.b }}",
            "f.f.",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(render(text).as_deref(), Ok(expected), "{text}");
    }
    let cases = [
        ("{{ template \"x\" }}", "load: there is no template \"x\" (at character 1)"),
        ("{{ template x }}", "load: behind \"template\" has to stand a name between quotes"),
        ("{{ define \"x\" . }}{{ end }}", "load: \"define\" has one argument"),
        ("{{ define \"x\" }}", "load: this \"define\" has no \"end\""),
        ("{{ define \"x\" }}{{ else }}{{ end }}", "load: \"define\" has no \"else\""),
        ("{{ if true }}{{ define \"x\" }}{{ end }}{{ end }}", "load: \"define\" stands in no other action"),
        ("{{ define \"x\" }}a{{ end }}{{ define \"x\" }}b{{ end }}", "load: there is a template \"x\" already"),
        ("{{ block \"x\" }}{{ end }}", "load: a \"block\" is given a value"),
        ("{{ template \"x\" $y := 1 }}{{ define \"x\" }}{{ end }}", "load: \"template\" has no variables"),
        ("{{ $v := 1 }}{{ define \"x\" }}{{ $v }}{{ end }}", "load: there is no variable \"$v\""),
        ("{{ range .Match }}{{ block \"x\" . }}{{ break }}{{ end }}{{ end }}", "load: \"break\" stands in no range"),
        (
            "{{ define \"x\" }}{{ .Nane }}{{ end }}{{ template \"x\" .Type }}",
            "render: this value has no field \"Nane\"",
        ),
        (
            "{{ define \"x\" }}{{ template \"x\" }}{{ end }}{{ template \"x\" }}",
            "render: templates call each other more than 32",
        ),
    ];
    for (text, expected) in cases {
        let error = render(text).expect_err(text);
        assert!(error.starts_with(expected), "{text}\n   says: {error}\n wanted: {expected}");
    }
}

#[test]
fn a_template_has_fractions() {
    let cases = [
        ("{{ 1.5 }} {{ -.25 }} {{ 1e3 }} {{ 2.5e-7 }} {{ .5 }}", "1.5 -0.25 1000 2.5e-07 0.5"),
        ("{{ printf \"%.2f|%6.1f|%g|%e\" 1.5 2.25 0.5 1500.0 }}", "1.50|   2.2|0.5|1.500000e+03"),
        ("{{ printf \"%+.1f|%06.2f\" 1.5 2.5 }}", "+1.5|002.50"),
        ("{{ lt 1.5 2.5 }}{{ eq 1.0 1.0 }}{{ if 0.0 }}yes{{ else }}no{{ end }}", "truetrueno"),
    ];
    for (text, expected) in cases {
        assert_eq!(render(text).as_deref(), Ok(expected), "{text}");
    }
    assert!(render("{{ lt 1 1.5 }}").unwrap_err().starts_with("render: these values have no order"));
}

#[test]
fn what_is_not_known_is_said_when_the_template_is_loaded() {
    let cases = [
        ("{{ .Nane }}", "load: field \"Nane\" is not known; known are Zone, Name"),
        ("{{ .Group.z }}", "load: no expression has a group \"z\" (at character 10)"),
        ("{{ .Message.Answers }}", "load: field \"Answers\" is not known (at character 12)"),
        ("{{ .Name.X }}", "load: field \"X\" is not known"),
        ("{{ range .Match }}{{ .Name }}{{ end }}", "load: field \"Name\" is not known (at character 22)"),
        ("{{ join .Match \".\" }}", "load: function \"join\" is not known; known are and, or, not, len"),
        ("{{ $x }}", "load: there is no variable \"$x\""),
        ("{{ $x = 1 }}", "load: there is no variable \"$x\""),
        ("{{ if true }}{{ $y := 1 }}{{ end }}{{ $y }}", "load: there is no variable \"$y\""),
        ("{{ parseInt .Name 16 }}", "load: \"parseInt\" has 2 arguments; it takes 3"),
        ("{{ eq 1 }}", "load: \"eq\" has 1 arguments; it takes at least 2"),
        ("{{ printf \"%y\" 1 }}", "load: verb \"%y\" is not known"),
        ("{{ printf \"%d %d\" 1 }}", "load: the format \"%d %d\" is for 2 values, there are 1"),
        ("{{ printf \"%[3]d\" 1 2 }}", "load: the format \"%[3]d\" is for 3 values, there are 2"),
        ("{{ printf \"%[0]d\" 1 }}", "load: which value a verb writes is said as in"),
        ("{{ '\\q' }}", "load: this character is not one between single quotes (at character 4)"),
        ("{{ \"\\q\" }}", "load: \"\\q\" is no escape of a text (at character 5)"),
        ("{{ slice .Name 0 1 1 }}", "render: a part of a text has two bounds"),
        ("{{ slice .Match 0 2 1 }}", "render: this part ends before it begins"),
        ("{{ printf \"%9999d\" 1 }}", "load: a field is at most 255 wide"),
        ("{{ .Meta }}", "load: \".Meta\" takes one argument"),
        ("{{ print .Meta \"a/b\" }}", "load: a call of \".Meta\" as an argument stands between parentheses"),
        ("{{ .Name 1 }}", "load: what is no function takes no arguments"),
        ("{{ if true }}", "load: this \"if\" has no \"end\" (at character 1)"),
        ("{{ end }}", "load: \"end\" closes nothing"),
        ("{{ else }}", "load: \"else\" closes nothing"),
        ("{{ if true }}{{ else }}{{ else }}{{ end }}", "load: here stands a second \"else\" (at character 24)"),
        ("{{ break }}", "load: \"break\" stands in no range"),
        ("{{ .Name", "load: this \"{{\" is never closed (at character 1)"),
        ("{{ \"x }}", "load: this text never ends (at character 4)"),
        ("{{ ( .Name }}", "load: this \"(\" is never closed"),
        ("{{ .Name ) }}", "load: here the action has to end"),
        ("{{}}", "load: here a value is missing"),
        ("{{ 1.5.2 }}", "load: \"1.5.2\" is no number"),
        ("{{ .Name @ }}", "load: '@' cannot stand in an action"),
        ("{{ /* x }}", "load: this comment never ends"),
        ("{{ index .Match 3 }}", "render: there is no element 3"),
        ("{{ parseInt .Name 16 8 }}", "render: \"ip-10-1-2-3.example.\" is no number of base 16 with 8 bits"),
        ("{{ parseInt \"100\" 16 8 }}", "render: \"100\" is no number of base 16 with 8 bits"),
        ("{{ eq 1 \"1\" }}", "render: values of different kinds cannot be compared"),
        ("{{ range 99999 }}{{ range 99999 }}x{{ end }}{{ end }}", "render: the template goes on for too long"),
    ];
    for (text, expected) in cases {
        let error = render(text).expect_err(text);
        assert!(error.starts_with(expected), "{text}\n   says: {error}\n wanted: {expected}");
    }
}

proptest::proptest! {
    #[test]
    fn no_text_breaks_the_parser_or_what_it_parsed(text in r#"(\{\{[- ]|[ -]\}\}|if|else|end|range|with|\.|\$x|:=|\||\(|\)|"|`|Group|Match| |1|eq|printf|%d|define|template|block|1[.]5|[a-z.\\{}]){0,30}"#) {
        if let Ok(template) = GoTemplate::parse(&text, &["a"]) {
            let _ = template.render(&DATA);
        }
    }
}
