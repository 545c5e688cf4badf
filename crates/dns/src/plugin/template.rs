//! `template`: answers that are made of the question.

use crate::{
    answer::{Answer, AnswerBuilder, ExtendedError, Owner, Section, composed},
    authority::{Record, rdata::mnemonic, zonefile},
    chain::{GoTemplate, TemplateData, TemplateOptions},
    message::{CLASS_CH, CLASS_IN, Rcode, expand, rtype},
    metrics::{Counting, Family, labels},
    name::Name,
    server::{Answering, Failure, Link, Look, Next, Pen, Query, Quick, Reply},
};

/// The class of questions for all classes.
const CLASS_ANY: u16 = 255;
/// The time to live of a record whose template has none, in seconds: CoreDNS's.
const DEFAULT_TTL: &str = "$TTL 3600\n";

/// The plugin: one template.
#[derive(Clone, Debug)]
pub struct Template {
    options: TemplateOptions,
    /// Some template tells of records of the message, or of options of its EDNS.
    reads_records: bool,
    /// Plugins of its block tell of questions (`metadata`).
    metadata: bool,
    counting: Counting,
}

/// What the expression that matched found in the name.
struct Matched<'a> {
    zone: String,
    regex: &'a str,
    /// All of the match, and then its groups.
    texts: Vec<&'a str>,
    /// The groups by number, and by name.
    groups: Vec<(&'a str, &'a str)>,
}

/// What a template says to a question.
enum Made {
    /// It has nothing to do with it.
    Nothing,
    /// This.
    Answer(Answer),
    /// This, and what the alias in it points to is still to be looked up.
    Alias(Answer, Name),
}

/// Why a template says nothing to a question that it has to do with.
enum Fault<'a> {
    /// No expression matches the name.
    NoMatch,
    /// A template of a section is at fault: it has no text for the question, or one that is no record.
    Bad { family: Family, section: &'static str, template: &'a str },
}

impl Fault<'_> {
    const fn failure(&self) -> Failure {
        match self {
            Self::NoMatch => Failure::NoPlugin,
            Self::Bad { .. } => Failure::Malformed,
        }
    }
}

const NUMBERS: [&str; 10] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];

impl Template {
    /// The plugin with its template. `metadata`: plugins of its block tell of questions.
    pub(crate) fn new(options: TemplateOptions, metadata: bool, counting: Counting) -> Self {
        let mut templates = options.answer.iter().chain(&options.authority).chain(&options.additional);
        let reads_records = templates.any(GoTemplate::reads_records);
        Self { options, reads_records, metadata, counting }
    }

    /// `query`: the same question with all that its message has, where that is known.
    fn say(
        &self,
        look: &Look<'_>,
        query: Option<&Query>,
        meta: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Made, Fault<'_>> {
        let Self { options, .. } = self;
        let Some(zone) = self.zone(look) else { return Ok(Made::Nothing) };
        let name = look.name.to_string();
        let Some(matched) = self.matched(zone, &name) else {
            let passes = options.fallthrough.holds(look.name);
            return if passes { Ok(Made::Nothing) } else { Err(Fault::NoMatch) };
        };
        let extended = options.extended_error.clone().map(|(code, text)| Box::new(ExtendedError { code, text }));
        if options.rcode == Rcode::SERVFAIL {
            return Ok(Made::Answer(Answer { extended, ..Answer::code(options.rcode) }));
        }
        let owner = Name::from_query(look.name);
        let mut builder = AnswerBuilder::of_class(&owner, look.qclass);
        let mut alias = None;
        for (section, called, templates) in [
            (Section::Answer, "answer", &options.answer),
            (Section::Authority, "authority", &options.authority),
            (Section::Additional, "additional", &options.additional),
        ] {
            for template in templates {
                let bad = |family| Fault::Bad { family, section: called, template: template.text() };
                let record = self.record(template, (look, query), meta, &name, &matched).map_err(bad)?;
                let of = if record.owner == owner { Owner::Question } else { Owner::Other(&record.owner) };
                builder.push(section, of, record.rtype, record.ttl, &record.rdata);
                if section == Section::Answer && record.rtype == rtype::CNAME {
                    let target = Name::from_wire(&record.rdata);
                    alias = Some(target.map_err(|_| bad(Family::TemplateRecordFailures))?);
                }
            }
        }
        let answer = Answer { rcode: options.rcode, extended, ..builder.build() };
        Ok(match alias.filter(|_| matches!(look.qtype, rtype::A | rtype::AAAA) && look.qclass == CLASS_IN) {
            Some(target) => Made::Alias(answer, target),
            None => Made::Answer(answer),
        })
    }

    /// The zone that the name lies in, when the question is of this template's kind.
    fn zone(&self, look: &Look<'_>) -> Option<&Name> {
        let Self { options, .. } = self;
        let any_or = |own: u16, asked: u16, any: u16| own == any || asked == any || own == asked;
        if !any_or(options.class, look.qclass, CLASS_ANY) || !any_or(options.rtype, look.qtype, rtype::ANY) {
            return None;
        }
        let zones = options.zones.iter().filter(|zone| look.name.within(zone).is_some());
        zones.max_by_key(|zone| zone.labels())
    }

    fn matched<'a>(&'a self, zone: &Name, name: &'a str) -> Option<Matched<'a>> {
        let zone = zone.to_string();
        if self.options.matches.is_empty() {
            return Some(Matched { zone, regex: ".*", texts: vec![name], groups: vec![("0", name)] });
        }
        let found =
            self.options.matches.iter().find_map(|pattern| Some((pattern.regex(), pattern.regex().captures(name)?)));
        let (regex, captures) = found?;
        let texts: Vec<&str> = captures.iter().map(|group| group.map_or("", |group| group.as_str())).collect();
        let names = regex.capture_names().zip(&texts).filter_map(|(name, text)| Some((name?, *text)));
        let groups = NUMBERS.into_iter().zip(texts.iter().copied()).chain(names).collect();
        Some(Matched { zone, regex: regex.as_str(), texts, groups })
    }

    /// Counts what came of a question that this template matched, and whether it failed.
    fn count(&self, look: &Look<'_>, said: &Result<Made, Fault<'_>>) {
        if matches!(said, Ok(Made::Nothing) | Err(Fault::NoMatch)) {
            return;
        }
        let Some(zone) = self.zone(look) else { return };
        let class = match look.qclass {
            CLASS_IN => "IN",
            CLASS_CH => "CH",
            CLASS_ANY => "ANY",
            _ => "other",
        };
        let (server, zone) = (look.arrival.port().to_string(), zone.to_string());
        let mut pairs = vec![
            ("server", server.as_str()),
            ("zone", zone.as_str()),
            ("view", self.counting.view.as_str()),
            ("class", class),
            ("type", rtype::mnemonic(look.qtype)),
        ];
        let metrics = &self.counting.metrics;
        metrics.counter(Family::TemplateMatches, labels(&pairs)).count();
        if let Err(Fault::Bad { family, section, template }) = said {
            pairs.extend([("section", *section), ("template", *template)]);
            metrics.counter(*family, labels(&pairs)).count();
        }
    }

    /// The record that a template is for a question; else what is counted of it.
    fn record(
        &self,
        template: &GoTemplate,
        (look, query): (&Look<'_>, Option<&Query>),
        meta: &dyn Fn(&str) -> Option<String>,
        name: &str,
        matched: &Matched<'_>,
    ) -> Result<Record, Family> {
        let query = query.filter(|_| self.reads_records);
        let known = |asked: u16, any: u16, own: u16| if asked == any { own } else { asked };
        let class = if known(look.qclass, CLASS_ANY, self.options.class) == CLASS_CH { "CH" } else { "IN" };
        let rtype = mnemonic(known(look.qtype, rtype::ANY, self.options.rtype));
        let data = TemplateData {
            zone: &matched.zone,
            name,
            class,
            rtype: &rtype,
            regex: matched.regex,
            matches: &matched.texts,
            groups: &matched.groups,
            remote: &look.arrival.from.ip().to_canonical().to_string(),
            question: (look.qtype, look.qclass),
            header: (look.head.id, look.head.flags),
            edns: look.head.edns.map(|edns| (edns.size, edns.dnssec_ok)),
            options: query.map_or(&[][..], |query| &query.options[..]),
            records: query.map_or(&[][..], |query| &query.records[..]),
            meta,
        };
        let text = template.render(&data).map_err(|_| Family::TemplateFailures)?;
        // The class is the question's, whatever the text says: zone files know of one alone.
        let text = if class == "CH" { text.replacen(" CH ", " IN ", 1) } else { text };
        let none = |_: &str| Err(std::io::ErrorKind::NotFound.into());
        let file = zonefile::parse("template", &format!("{DEFAULT_TTL}{}", text.trim()), &Name::root(), &none);
        file.ok().and_then(|file| file.records.into_iter().next()).ok_or(Family::TemplateRecordFailures)
    }

    /// Puts what the alias points to behind it; where that cannot be found out, the alias stands alone, as in CoreDNS.
    async fn follow(query: &Query, next: Next<'_>, answer: Answer, target: Name) -> Reply {
        let Ok(further) = next.look_up(query, &target, query.qtype).await else { return Reply::own(answer) };
        let name = Name::from_query(&query.name);
        let mut records = expand(&name, &answer);
        let others = records.iter().position(|record| record.section != Section::Answer).unwrap_or(records.len());
        let mut told = expand(&target, &further.answer);
        told.retain(|record| record.section == Section::Answer);
        records.splice(others..others, told);
        let whole = composed(&name, answer.rcode, &records);
        let answer = Answer { authoritative: true, extended: answer.extended, ..whole };
        Reply { truncated: further.truncated, ..Reply::own(answer) }
    }
}

impl Link for Template {
    fn takes_chaos(&self) -> bool {
        matches!(self.options.class, CLASS_CH | CLASS_ANY)
    }

    fn quick(&self, look: &Look<'_>, pen: &mut Pen<'_>) -> Quick {
        // What others tell of the question, and all of its message, are there on the way through the chain.
        if (self.metadata || self.reads_records) && self.zone(look).is_some() {
            return Quick::Slow;
        }
        let said = self.say(look, None, &|_| None);
        if matches!(said, Ok(Made::Alias(..))) {
            // It is said, and counted, once more.
            return Quick::Slow;
        }
        self.count(look, &said);
        match said {
            Ok(Made::Answer(answer)) => pen.answer(&answer),
            Ok(_) => Quick::Pass,
            Err(fault) => Quick::Fail(fault.failure()),
        }
    }

    fn serve<'a>(&'a self, query: &'a Query, next: Next<'a>) -> Answering<'a> {
        Box::pin(async move {
            let look = query.look();
            let said = self.say(&look, Some(query), &|label| next.label(label, &look));
            self.count(&look, &said);
            match said.map_err(|fault| fault.failure())? {
                Made::Nothing => next.run(query).await,
                Made::Answer(answer) => Ok(Reply::own(answer)),
                Made::Alias(answer, target) => Ok(Self::follow(query, next, answer, target).await),
            }
        })
    }
}
