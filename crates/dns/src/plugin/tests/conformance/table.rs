//! Tables as text.

use std::collections::BTreeMap;

use crate::{Environment, corefile};

/// The table of a plugin.
pub(super) struct Table {
    pub(super) plugin: &'static str,
    /// With what the plugin's options are asked for.
    pub(super) arguments: String,
    /// The options of a plugin that does not tell them.
    pub(super) options: Vec<String>,
    pub(super) cases: Vec<Case>,
}

/// A Corefile, and what holds with it.
#[derive(Default)]
pub(super) struct Case {
    pub(super) title: String,
    pub(super) corefile: String,
    pub(super) files: BTreeMap<String, String>,
    pub(super) rows: Vec<Row>,
}

/// What holds.
pub(super) struct Row {
    pub(super) text: String,
    pub(super) kind: Kind,
}

pub(super) enum Kind {
    Question { asked: Question, answer: Answer, upstreams: Vec<Vec<String>> },
    At(u64),
    Check(Vec<Vec<String>>),
    Told(String),
    Waits(String),
    Counted(String),
    Etcd(String, String),
    Has(String),
    Warns(String),
    Refused(String),
}

/// A question, and how its client asks.
pub(super) struct Question {
    pub(super) name: String,
    pub(super) qtype: String,
    pub(super) client: Vec<String>,
}

/// What has to be answered; none: nothing.
pub(super) type Answer = Option<Told>;

/// An answer, as far as the table says.
pub(super) struct Told {
    pub(super) code: String,
    pub(super) checks: Vec<String>,
    pub(super) records: Vec<String>,
}

impl Table {
    pub(super) fn read(plugin: &'static str, text: &str) -> Self {
        let mut table = Self { plugin, arguments: String::new(), options: Vec::new(), cases: Vec::new() };
        let (mut rows, mut file) = (false, None);
        for line in text.lines() {
            let trimmed = line.trim();
            if let Some(title) = trimmed.strip_prefix("== ") {
                table.cases.push(Case { title: title.to_owned(), ..Case::default() });
                (rows, file) = (false, None);
            } else if let Some(arguments) = trimmed.strip_prefix("probe:") {
                arguments.trim().clone_into(&mut table.arguments);
            } else if let Some(options) = trimmed.strip_prefix("options: ") {
                table.options = words(options);
            } else if trimmed.is_empty() || trimmed.starts_with("# ") {
            } else if trimmed == "--" {
                rows = true;
            } else {
                let case = table.cases.last_mut().unwrap_or_else(|| panic!("{plugin}: {line} stands in no case"));
                match trimmed.strip_prefix('|') {
                    _ if rows => case.rows.push(Row::read(trimmed)),
                    Some(text) => {
                        *case.files.entry(file.clone().unwrap()).or_default() += &format!("{}\n", text.trim());
                    }
                    None if trimmed.starts_with('@') && !trimmed.contains(' ') => file = Some(trimmed[1..].to_owned()),
                    None => case.corefile += &format!("{line}\n"),
                }
            }
        }
        for case in &mut table.cases {
            assert!(!case.rows.is_empty(), "{plugin}: {} has no rows", case.title);
            case.corefile = match case.corefile.trim_start().strip_prefix("whole:\n") {
                Some(whole) => whole.to_owned(),
                None => format!(". {{\n{}}}\n", case.corefile),
            };
        }
        table
    }

    /// Whether the plugin has an option in a Corefile of the table that is taken.
    pub(super) fn uses(&self, option: &str) -> bool {
        let is_refused = |case: &&Case| case.rows.iter().any(|row| matches!(row.kind, Kind::Refused(_)));
        let taken = self.cases.iter().filter(|case| !is_refused(case));
        let corefiles = taken.map(|case| corefile::parse("Corefile", &case.corefile, &Environment::EMPTY));
        let directives = corefiles.flat_map(|corefile| corefile.blocks).flat_map(|block| block.directives);
        directives.filter(|directive| directive.name.text == self.plugin).any(|directive| {
            let options = directive.options.iter().map(|option| &option.name);
            directive.arguments.iter().chain(options).any(|word| word.text == option)
        })
    }
}

impl Row {
    fn read(text: &str) -> Self {
        let (step, rest) = text.split_once(' ').unwrap_or((text, ""));
        let rest = rest.trim();
        let kind = match step {
            "at" => Kind::At(rest.parse().unwrap()),
            "check" => Kind::Check(upstreams(rest.trim_start_matches("<-"))),
            "told" => Kind::Told(rest.to_owned()),
            "waits" => Kind::Waits(rest.to_owned()),
            "counted" => Kind::Counted(rest.to_owned()),
            "etcd" => {
                let (key, value) = rest.split_once(' ').unwrap();
                Kind::Etcd(key.to_owned(), value.trim().to_owned())
            }
            "has" => Kind::Has(rest.to_owned()),
            "warns" => Kind::Warns(rest.to_owned()),
            "refused" => Kind::Refused(rest.to_owned()),
            _ => question(text),
        };
        Self { text: text.to_owned(), kind }
    }
}

fn question(text: &str) -> Kind {
    let (asked, told) = text.split_once(" => ").unwrap_or_else(|| panic!("no row: {text}"));
    let (told, asked_of) = told.split_once("<-").unwrap_or((told, ""));
    let mut words = asked.split_whitespace().map(str::to_owned);
    let (Some(name), Some(qtype)) = (words.next(), words.next()) else { panic!("no question: {text}") };
    let mut pieces = told.split(" | ").map(str::trim);
    let mut first = words_of(pieces.next());
    let code = first.next().unwrap_or_else(|| panic!("no answer: {text}"));
    let told = Told { code, checks: first.collect(), records: pieces.map(str::to_owned).collect() };
    let answer = (told.code != "nothing").then_some(told);
    Kind::Question { asked: Question { name, qtype, client: words.collect() }, answer, upstreams: upstreams(asked_of) }
}

fn upstreams(text: &str) -> Vec<Vec<String>> {
    text.split(',').map(words).filter(|words| !words.is_empty()).collect()
}

fn words(text: &str) -> Vec<String> {
    words_of(Some(text)).collect()
}

fn words_of(text: Option<&str>) -> impl Iterator<Item = String> {
    text.unwrap_or_default().split_whitespace().map(str::to_owned)
}
