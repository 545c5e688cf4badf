//! Values as text, as Go's `fmt` writes them.

use std::fmt::Write as _;

use super::Value;

/// `print`: a space between values of which neither is a text.
pub(super) fn print(values: &[Value]) -> String {
    let mut out = String::new();
    for (index, value) in values.iter().enumerate() {
        let texts = |value: &Value| matches!(value, Value::Text(_));
        if index > 0 && !texts(value) && !texts(&values[index - 1]) {
            out.push(' ');
        }
        plain(value, &mut out);
    }
    out
}

/// `println`: spaces between all, a new line at the end.
pub(super) fn println(values: &[Value]) -> String {
    let texts = values.iter().map(|value| print(std::slice::from_ref(value)));
    texts.collect::<Vec<_>>().join(" ") + "\n"
}

/// What `%v` writes.
fn plain(value: &Value, out: &mut String) {
    match value {
        Value::Nil => out.push_str("<no value>"),
        Value::Bool(truth) => out.push_str(if *truth { "true" } else { "false" }),
        Value::Int(number) => {
            let _ = write!(out, "{number}");
        }
        Value::Float(number) => out.push_str(&number.written('v', None)),
        Value::Text(text) => out.push_str(text),
        Value::Record(record) => out.push_str(&record.0),
        Value::List(list) => {
            out.push('[');
            for (index, value) in list.iter().enumerate() {
                out.push_str(if index > 0 { " " } else { "" });
                plain(value, out);
            }
            out.push(']');
        }
        Value::Map(map) => {
            out.push_str("map[");
            for (index, (key, value)) in map.iter().enumerate() {
                out.push_str(if index > 0 { " " } else { "" });
                out.push_str(key);
                out.push(':');
                plain(value, out);
            }
            out.push(']');
        }
    }
}

/// A verb: `%-5s`, `%05d`, `%.3s`, `%[1]s`.
struct Verb {
    /// Which of the values it writes, from 0.
    value: usize,
    left: bool,
    plus: bool,
    zeros: bool,
    alternate: bool,
    width: usize,
    precision: Option<usize>,
    letter: char,
}

/// The widest field: a format must not make an answer large.
const WIDEST: usize = 255;

/// How many values a format takes: the least, and the most where it does not say which ones it takes.
pub(super) fn takes(format: &str) -> Result<(usize, Option<usize>), String> {
    Ok(pieces(format)?.takes())
}

pub(super) fn printf(format: &str, values: &[Value]) -> Result<String, String> {
    let all = pieces(format)?;
    let (_, most) = all.takes();
    if most.is_some_and(|most| values.len() > most) {
        return Err("there are more values than the format has verbs".to_owned());
    }
    let mut out = String::new();
    for piece in all.pieces {
        match piece {
            Piece::Text(text) => out.push_str(&text),
            Piece::Verb(verb) => {
                let value = values.get(verb.value).ok_or("the format has more verbs than there are values")?;
                out.push_str(&verb.write(value)?);
            }
        }
    }
    Ok(out)
}

/// A format in pieces.
#[derive(Default)]
struct Pieces {
    pieces: Vec<Piece>,
    /// The value that the next verb writes.
    next: usize,
    /// Some verb says which value it writes.
    says_which: bool,
}

impl Pieces {
    /// As [`takes`].
    fn takes(&self) -> (usize, Option<usize>) {
        let value = |piece: &Piece| if let Piece::Verb(verb) = piece { Some(verb.value + 1) } else { None };
        let least = self.pieces.iter().filter_map(value).max().unwrap_or(0);
        (least, Some(least).filter(|_| !self.says_which))
    }
}

enum Piece {
    Text(String),
    Verb(Verb),
}

fn pieces(format: &str) -> Result<Pieces, String> {
    let mut all = Pieces::default();
    let mut chars = format.chars().peekable();
    let mut text = String::new();
    while let Some(next) = chars.next() {
        if next != '%' {
            text.push(next);
            continue;
        }
        if chars.next_if_eq(&'%').is_some() {
            text.push('%');
            continue;
        }
        all.pieces.push(Piece::Text(std::mem::take(&mut text)));
        let verb = verb(&mut chars, &mut all)?;
        all.pieces.push(Piece::Verb(verb));
    }
    all.pieces.push(Piece::Text(text));
    Ok(all)
}

fn verb(chars: &mut std::iter::Peekable<std::str::Chars<'_>>, all: &mut Pieces) -> Result<Verb, String> {
    let mut verb = Verb {
        value: 0,
        left: false,
        plus: false,
        zeros: false,
        alternate: false,
        width: 0,
        precision: None,
        letter: 'v',
    };
    while let Some(flag) = chars.next_if(|c| matches!(c, '-' | '+' | '0' | '#' | ' ')) {
        match flag {
            '-' => verb.left = true,
            '+' => verb.plus = true,
            '0' => verb.zeros = true,
            '#' => verb.alternate = true,
            _ => {}
        }
    }
    let number = |chars: &mut std::iter::Peekable<std::str::Chars<'_>>| {
        let mut number = 0_usize;
        while let Some(digit) = chars.peek().and_then(|c| c.to_digit(10)) {
            number = number.saturating_mul(10).saturating_add(digit as usize);
            chars.next();
        }
        if number > WIDEST { Err(format!("a field is at most {WIDEST} wide")) } else { Ok(number) }
    };
    verb.width = number(chars)?;
    if chars.next_if_eq(&'.').is_some() {
        verb.precision = Some(number(chars)?);
    }
    if chars.next_if_eq(&'[').is_some() {
        let which = number(chars)?.checked_sub(1).filter(|_| chars.next_if_eq(&']').is_some());
        all.next = which.ok_or("which value a verb writes is said as in \"%[1]s\", from 1")?;
        all.says_which = true;
    }
    verb.value = all.next;
    all.next += 1;
    verb.letter = chars.next().ok_or("the format ends within a verb")?;
    if !"vsdxXoObqtcUeEfFgG".contains(verb.letter) {
        let letter = verb.letter;
        let known = "%v %s %d %x %X %o %O %b %q %t %c %U %e %E %f %F %g %G %%";
        return Err(format!("verb \"%{letter}\" is not known; known are {known}"));
    }
    Ok(verb)
}

impl Verb {
    fn write(&self, value: &Value) -> Result<String, String> {
        let text = match (self.letter, value) {
            ('v' | 'e' | 'E' | 'f' | 'F' | 'g' | 'G', Value::Float(number)) => {
                let text = number.written(self.letter, self.precision);
                let plus = if self.plus && !text.starts_with(['-', '+']) { "+" } else { "" };
                return Ok(self.aligned(&format!("{plus}{text}"), true));
            }
            ('v', value) | ('s', value @ (Value::Text(_) | Value::List(_) | Value::Map(_) | Value::Record(..))) => {
                self.cut(&print(std::slice::from_ref(value)))
            }
            ('t', Value::Bool(truth)) => truth.to_string(),
            ('q', Value::Text(text)) => format!("\"{}\"", self.cut(text).replace('\\', "\\\\").replace('"', "\\\"")),
            ('c', Value::Int(number)) => {
                u32::try_from(*number).ok().and_then(char::from_u32).unwrap_or(char::REPLACEMENT_CHARACTER).to_string()
            }
            ('x', Value::Text(text)) => text.bytes().map(|byte| format!("{byte:02x}")).collect(),
            ('X', Value::Text(text)) => text.bytes().map(|byte| format!("{byte:02X}")).collect(),
            ('U', Value::Int(number)) => format!("U+{number:04X}"),
            ('d' | 'x' | 'X' | 'o' | 'O' | 'b', Value::Int(number)) => {
                return Ok(self.padded(&self.digits(*number), true));
            }
            (letter, _) => return Err(format!("\"%{letter}\" cannot write this value")),
        };
        Ok(self.padded(&text, false))
    }

    fn cut(&self, text: &str) -> String {
        text.chars().take(self.precision.unwrap_or(usize::MAX)).collect()
    }

    fn digits(&self, number: i128) -> String {
        let size = number.unsigned_abs();
        let (prefix, digits) = match self.letter {
            'x' => ("0x", format!("{size:x}")),
            'X' => ("0X", format!("{size:X}")),
            'o' => ("0", format!("{size:o}")),
            'O' => ("0o", format!("{size:o}")),
            'b' => ("0b", format!("{size:b}")),
            _ => ("", size.to_string()),
        };
        let sign = if number < 0 {
            "-"
        } else if self.plus {
            "+"
        } else {
            ""
        };
        let zeros = "0".repeat(self.precision.unwrap_or(0).saturating_sub(digits.len()));
        let prefix = if self.alternate || self.letter == 'O' { prefix } else { "" };
        format!("{sign}{prefix}{zeros}{digits}")
    }

    fn padded(&self, text: &str, number: bool) -> String {
        self.aligned(text, number && self.precision.is_none())
    }

    /// In a field of its width; `zeros`: with zeros before it where the verb wants that.
    fn aligned(&self, text: &str, zeros: bool) -> String {
        let missing = self.width.saturating_sub(text.chars().count());
        match (self.left, self.zeros && zeros) {
            (true, _) => format!("{text}{}", " ".repeat(missing)),
            (false, true) => {
                let (sign, digits) = text.split_at(usize::from(text.starts_with(['-', '+'])));
                format!("{sign}{}{digits}", "0".repeat(missing))
            }
            (false, false) => format!("{}{text}", " ".repeat(missing)),
        }
    }
}
