//! Lines to records.

use std::{io, sync::Arc};

use super::{
    directive,
    error::{ZoneFault, ZoneFileError},
    lexer::{Lexer, Line, Located},
};
use crate::{
    authority::{
        Record,
        rdata::{self, BadData, Word, Words},
        record::kind,
    },
    corefile::Place,
    message::{rtype, u32_at},
    name::Name,
};

/// How deep files may include each other.
const MAX_DEPTH: usize = 8;

/// What a zone file holds.
#[derive(Clone, Debug, Default)]
pub struct ZoneFile {
    /// The records, in the file's order.
    pub records: Vec<Record>,
    /// Where each of them stands.
    pub places: Vec<Place>,
    /// The files that `$INCLUDE` brought in, as they are named there.
    pub included: Vec<String>,
}

/// Reads a zone file. `name` is what errors call it, `origin` what relative names end in, `include` gives the text of a file that
/// `$INCLUDE` names.
///
/// # Errors
/// With the first thing that is wrong, and where.
pub fn parse(
    name: &str,
    text: &str,
    origin: &Name,
    include: &dyn Fn(&str) -> io::Result<String>,
) -> Result<ZoneFile, ZoneFileError> {
    let mut reader = Reader {
        file: ZoneFile::default(),
        origin: origin.wire().to_vec(),
        owner: None,
        default_ttl: None,
        last_ttl: None,
        include,
        depth: 0,
    };
    reader.file(&Arc::from(name), text)?;
    Ok(reader.file)
}

/// What lines before the present one have said.
pub(super) struct Reader<'a> {
    pub(super) file: ZoneFile,
    pub(super) origin: Vec<u8>,
    pub(super) owner: Option<Name>,
    /// `$TTL`.
    pub(super) default_ttl: Option<u32>,
    /// The last one that a record gave.
    pub(super) last_ttl: Option<u32>,
    pub(super) include: &'a dyn Fn(&str) -> io::Result<String>,
    pub(super) depth: usize,
}

/// What may go wrong while a line is read: here, or in a file that it includes.
pub(super) enum Trouble {
    Here(Located),
    There(ZoneFileError),
}

impl From<Located> for Trouble {
    fn from(located: Located) -> Self {
        Self::Here(located)
    }
}

impl Reader<'_> {
    fn file(&mut self, name: &Arc<str>, text: &str) -> Result<(), ZoneFileError> {
        let mut lexer = Lexer::new(text);
        let place = |at| place(name, text, at);
        loop {
            let line = lexer.next().map_err(|(at, fault)| ZoneFileError { place: place(at), fault })?;
            let Some(line) = line else { return Ok(()) };
            self.line(name, text, &line).map_err(|trouble| match trouble {
                Trouble::Here((at, fault)) => ZoneFileError { place: place(at), fault },
                Trouble::There(error) => error,
            })?;
        }
    }

    fn line(&mut self, name: &Arc<str>, text: &str, line: &Line<'_>) -> Result<(), Trouble> {
        let first = &line.words[0];
        if !line.indented && !first.quoted && first.text.starts_with('$') {
            return directive::run(self, name, text, line);
        }
        let place = place_of(name, text, first);
        self.record(&line.words, line.indented, line.end, place)
    }

    /// Includes a file, after which origin and owner are what they were (RFC 1035 §5.1).
    pub(super) fn include(&mut self, path: &Word<'_>, origin: Option<Vec<u8>>) -> Result<(), Trouble> {
        if self.depth == MAX_DEPTH {
            return Err((path.at, ZoneFault::Depth { limit: MAX_DEPTH }).into());
        }
        let text = (self.include)(&path.text).map_err(|error| {
            (path.at, ZoneFault::Include { path: path.text.clone().into_owned(), reason: error.to_string() })
        })?;
        self.file.included.push(path.text.clone().into_owned());
        let (outer, owner) = (self.origin.clone(), self.owner.clone());
        if let Some(origin) = origin {
            self.origin = origin;
        }
        self.depth += 1;
        let result = self.file(&Arc::from(&*path.text), &text).map_err(Trouble::There);
        self.depth -= 1;
        (self.origin, self.owner) = (outer, owner);
        result
    }

    /// `[owner] [ttl] [class] type data…`, time to live and class in either order.
    pub(super) fn record(&mut self, words: &[Word<'_>], same: bool, end: usize, place: Place) -> Result<(), Trouble> {
        let mut rest = words;
        let owner = if same {
            self.owner.clone().ok_or((words[0].at, ZoneFault::NoOwner))?
        } else {
            rest = &words[1..];
            self.name(&words[0])?
        };
        let mut ttl = None;
        let mut class = false;
        let rtype = loop {
            let Some((word, tail)) = rest.split_first() else {
                let needed = "a type such as A, and its data".to_owned();
                return Err((end, ZoneFault::Missing { needed }).into());
            };
            rest = tail;
            match (ttl, class, rdata::period(&word.text), class_named(&word.text)) {
                (None, _, Some(value), _) => ttl = Some(value),
                (_, false, _, Some(true)) => class = true,
                (_, _, _, Some(false)) => return Err(value(word, "the class", "IN")),
                _ => match rdata::type_named(&word.text) {
                    Some(rtype) if kind::is_meta(rtype) => {
                        return Err(value(word, "the type", "types of data, which this is not"));
                    }
                    Some(rtype) => break rtype,
                    None => return Err(value(word, "the type", "a mnemonic such as A, or TYPE<number> (RFC 3597)")),
                },
            }
        };
        let data = rdata::parse(rtype, Words::new(rest, &self.origin)).map_err(|bad| fault(bad, rest, end))?;
        let ttl = self.ttl(ttl, rtype, &data).ok_or((words[0].at, ZoneFault::NoTtl))?;
        self.owner = Some(owner.clone());
        self.file.records.push(Record { owner, rtype, ttl, rdata: data.into() });
        self.file.places.push(place);
        Ok(())
    }

    /// What holds for a record: its own, the file's, the last one given, or for the SOA its minimum (RFC 2308 §4, RFC 1035 §5.1).
    /// What has the top bit set counts as zero (RFC 2181 §8).
    fn ttl(&mut self, given: Option<u32>, rtype: u16, data: &[u8]) -> Option<u32> {
        if given.is_some() {
            self.last_ttl = given;
        }
        let minimum = || u32_at(data, data.len().checked_sub(4)?).filter(|_| rtype == rtype::SOA);
        let ttl = given.or(self.default_ttl).or(self.last_ttl).or_else(minimum)?;
        if self.last_ttl.is_none() {
            self.last_ttl = Some(ttl);
        }
        Some(if ttl > i32::MAX as u32 { 0 } else { ttl })
    }

    pub(super) fn wire(&self, word: &Word<'_>) -> Result<Vec<u8>, Trouble> {
        rdata::wire_name(&word.text, &self.origin)
            .map_err(|reason| (word.at, ZoneFault::Name { found: word.text.clone().into_owned(), reason }).into())
    }

    pub(super) fn name(&self, word: &Word<'_>) -> Result<Name, Trouble> {
        let wire = self.wire(word)?;
        Name::from_wire(&wire)
            .map_err(|reason| (word.at, ZoneFault::Name { found: word.text.clone().into_owned(), reason }).into())
    }
}

/// Whether a word is the class of the Internet; none when it is no class.
fn class_named(text: &str) -> Option<bool> {
    match text.to_ascii_uppercase().as_str() {
        "IN" | "CLASS1" => Some(true),
        "CH" | "HS" | "CS" => Some(false),
        other => other.strip_prefix("CLASS")?.parse::<u16>().ok().map(|_| false),
    }
}

pub(super) fn value(word: &Word<'_>, what: &'static str, allowed: &str) -> Trouble {
    let found = word.text.clone().into_owned();
    Trouble::Here((word.at, ZoneFault::Value { found, what, allowed: allowed.to_owned() }))
}

fn fault(bad: BadData, words: &[Word<'_>], end: usize) -> Trouble {
    let word = |index: usize| {
        let word = words.get(index);
        (word.map_or(end, |word| word.at), word.map(|word| word.text.clone().into_owned()).unwrap_or_default())
    };
    Trouble::Here(match bad {
        BadData::Value { word: index, what, allowed } => {
            let (at, found) = word(index);
            (at, ZoneFault::Value { found, what, allowed: allowed.to_owned() })
        }
        BadData::Name { word: index, reason } => {
            let (at, found) = word(index);
            (at, ZoneFault::Name { found, reason })
        }
        BadData::Missing { what } => (end, ZoneFault::Missing { needed: what.to_owned() }),
        BadData::Extra { word: index } => {
            let (at, found) = word(index);
            (at, ZoneFault::Extra { found })
        }
        BadData::TooLong => (words.first().map_or(end, |word| word.at), ZoneFault::TooLong),
    })
}

/// The place of a word, whose line is known.
pub(super) fn place_of(file: &Arc<str>, text: &str, word: &Word<'_>) -> Place {
    Place { file: file.clone(), line: word.line, column: column(text, word.at) }
}

fn column(text: &str, at: usize) -> u32 {
    let start = text.as_bytes()[..at].iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
    text.get(start..at).map_or(at - start, |text| text.chars().count()) as u32 + 1
}

/// Line and column of a byte.
pub(super) fn place(file: &Arc<str>, text: &str, at: usize) -> Place {
    let at = at.min(text.len());
    let line = text.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count() as u32 + 1;
    Place { file: file.clone(), line, column: column(text, at) }
}
