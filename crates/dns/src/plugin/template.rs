//! `template`: answers that are made of the question.

use crate::{
    answer::{Answer, AnswerBuilder, ExtendedError, Owner, Section, composed},
    authority::{Record, rdata::mnemonic, zonefile},
    chain::{GoTemplate, TemplateData, TemplateOptions},
    message::{CLASS_CH, CLASS_IN, Rcode, expand, rtype},
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
    /// The template.
    pub options: TemplateOptions,
    /// Plugins of its block tell of questions (`metadata`).
    pub metadata: bool,
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

const NUMBERS: [&str; 10] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];

impl Template {
    fn say(&self, look: &Look<'_>, meta: &dyn Fn(&str) -> Option<String>) -> Result<Made, Failure> {
        let Self { options, .. } = self;
        let Some(zone) = self.zone(look) else { return Ok(Made::Nothing) };
        let name = look.name.to_string();
        let Some(matched) = self.matched(zone, &name) else {
            let passes = options.fallthrough.holds(look.name);
            return if passes { Ok(Made::Nothing) } else { Err(Failure::NoPlugin) };
        };
        let extended = options.extended_error.clone().map(|(code, text)| Box::new(ExtendedError { code, text }));
        if options.rcode == Rcode::SERVFAIL {
            return Ok(Made::Answer(Answer { extended, ..Answer::code(options.rcode) }));
        }
        let owner = Name::from_query(look.name);
        let mut builder = AnswerBuilder::of_class(&owner, look.qclass);
        let mut alias = None;
        for (section, templates) in [
            (Section::Answer, &options.answer),
            (Section::Authority, &options.authority),
            (Section::Additional, &options.additional),
        ] {
            for template in templates {
                let record = self.record(template, look, meta, &name, &matched)?;
                let of = if record.owner == owner { Owner::Question } else { Owner::Other(&record.owner) };
                builder.push(section, of, record.rtype, record.ttl, &record.rdata);
                if section == Section::Answer && record.rtype == rtype::CNAME {
                    alias = Some(Name::from_wire(&record.rdata).map_err(|_| Failure::Malformed)?);
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

    /// The record that a template is for a question.
    fn record(
        &self,
        template: &GoTemplate,
        look: &Look<'_>,
        meta: &dyn Fn(&str) -> Option<String>,
        name: &str,
        matched: &Matched<'_>,
    ) -> Result<Record, Failure> {
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
            meta,
        };
        let text = template.render(&data).map_err(|_| Failure::Malformed)?;
        // The class is the question's, whatever the text says: zone files know of one alone.
        let text = if class == "CH" { text.replacen(" CH ", " IN ", 1) } else { text };
        let none = |_: &str| Err(std::io::ErrorKind::NotFound.into());
        let file = zonefile::parse("template", &format!("{DEFAULT_TTL}{}", text.trim()), &Name::root(), &none);
        file.ok().and_then(|file| file.records.into_iter().next()).ok_or(Failure::Malformed)
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
        // What others tell of the question is asked for on the way through the chain.
        if self.metadata && self.zone(look).is_some() {
            return Quick::Slow;
        }
        match self.say(look, &|_| None) {
            Ok(Made::Nothing) => Quick::Pass,
            Ok(Made::Answer(answer)) => pen.answer(&answer),
            Ok(Made::Alias(..)) => Quick::Slow,
            Err(failure) => Quick::Fail(failure),
        }
    }

    fn serve<'a>(&'a self, query: &'a Query, next: Next<'a>) -> Answering<'a> {
        Box::pin(async move {
            let look = query.look();
            match self.say(&look, &|label| next.label(label, &look))? {
                Made::Nothing => next.run(query).await,
                Made::Answer(answer) => Ok(Reply::own(answer)),
                Made::Alias(answer, target) => Ok(Self::follow(query, next, answer, target).await),
            }
        })
    }
}
