//! Selector text to expression, by recursive descent: `||` binds weakest, then `&&`, then `!`.

use super::{Expression, SelectorError};

/// How deep parentheses and `!` may nest: far beyond any selector that a person writes, far below the stack's end.
const DEPTH: usize = 64;

/// Reads a whole selector.
pub(super) fn parse(text: &str) -> Result<Expression, SelectorError> {
    let mut parser = Parser { tokens: tokens(text)?, at: 0 };
    let expression = parser.or(0)?;
    match parser.peek() {
        Token::End => Ok(expression),
        _ => Err(parser.unexpected("&&, || or the end")),
    }
}

struct Parser {
    /// Always ends with [`Token::End`].
    tokens: Vec<(usize, Token)>,
    at: usize,
}

impl Parser {
    fn or(&mut self, depth: usize) -> Result<Expression, SelectorError> {
        let mut parts = vec![self.and(depth)?];
        while self.take(&Token::Symbol("||")) {
            parts.push(self.and(depth)?);
        }
        Ok(if parts.len() == 1 { parts.swap_remove(0) } else { Expression::Or(parts) })
    }

    fn and(&mut self, depth: usize) -> Result<Expression, SelectorError> {
        let mut parts = vec![self.not(depth)?];
        while self.take(&Token::Symbol("&&")) {
            parts.push(self.not(depth)?);
        }
        Ok(if parts.len() == 1 { parts.swap_remove(0) } else { Expression::And(parts) })
    }

    fn not(&mut self, depth: usize) -> Result<Expression, SelectorError> {
        if depth >= DEPTH {
            return Err(self.unexpected("at most 64 nested parentheses and negations"));
        }
        if self.take(&Token::Symbol("!")) {
            return Ok(Expression::Not(Box::new(self.not(depth + 1)?)));
        }
        if self.take(&Token::Symbol("(")) {
            let inner = self.or(depth + 1)?;
            self.expect(")", "&&, || or )")?;
            return Ok(inner);
        }
        self.term()
    }

    fn term(&mut self) -> Result<Expression, SelectorError> {
        let Token::Word(word) = self.peek().clone() else {
            return Err(self.unexpected("a label's name, all(), has(…), ! or ("));
        };
        self.at += 1;
        if !matches!(self.peek(), Token::Symbol("(")) {
            return self.comparison(word);
        }
        match word.as_str() {
            "all" | "global" => {
                self.at += 1;
                self.expect(")", ")")?;
                Ok(Expression::All)
            }
            "has" => {
                self.at += 1;
                let key = self.word("a label's name")?;
                self.expect(")", ")")?;
                Ok(Expression::Has(key))
            }
            _ => {
                self.at -= 1;
                Err(self.unexpected("all(), global() or has(…): there is no other function"))
            }
        }
    }

    fn comparison(&mut self, key: String) -> Result<Expression, SelectorError> {
        const OPERATORS: &str = "==, !=, in, not in, contains, starts with or ends with";
        match self.peek().clone() {
            Token::Symbol("==") => self.operand().map(|value| Expression::Equals(key, value)),
            Token::Symbol("!=") => self.operand().map(|value| Expression::Differs(key, value)),
            Token::Word(word) => match word.as_str() {
                "in" => self.set().map(|values| Expression::In(key, values)),
                "not" => {
                    self.follows("in", "in after not")?;
                    self.set().map(|values| Expression::NotIn(key, values))
                }
                "contains" => self.operand().map(|value| Expression::Contains(key, value)),
                "starts" => {
                    self.follows("with", "with after starts")?;
                    self.operand().map(|value| Expression::StartsWith(key, value))
                }
                "ends" => {
                    self.follows("with", "with after ends")?;
                    self.operand().map(|value| Expression::EndsWith(key, value))
                }
                _ => Err(self.unexpected(OPERATORS)),
            },
            _ => Err(self.unexpected(OPERATORS)),
        }
    }

    /// The value after the operator that stands here.
    fn operand(&mut self) -> Result<String, SelectorError> {
        self.at += 1;
        self.text()
    }

    /// The set after the operator that stands here.
    fn set(&mut self) -> Result<Vec<String>, SelectorError> {
        self.at += 1;
        self.expect("{", "{")?;
        let mut values = Vec::new();
        if self.take(&Token::Symbol("}")) {
            return Ok(values);
        }
        loop {
            values.push(self.text()?);
            if self.take(&Token::Symbol("}")) {
                return Ok(values);
            }
            self.expect(",", ", or }")?;
        }
    }

    fn text(&mut self) -> Result<String, SelectorError> {
        let Token::Text(value) = self.peek().clone() else {
            return Err(self.unexpected("a value in quotes"));
        };
        self.at += 1;
        Ok(value)
    }

    fn word(&mut self, expected: &'static str) -> Result<String, SelectorError> {
        let Token::Word(word) = self.peek().clone() else {
            return Err(self.unexpected(expected));
        };
        self.at += 1;
        Ok(word)
    }

    /// Steps over the word here to the second word of the operator, where it stays.
    fn follows(&mut self, second: &str, expected: &'static str) -> Result<(), SelectorError> {
        self.at += 1;
        match self.peek() {
            Token::Word(word) if word == second => Ok(()),
            _ => Err(self.unexpected(expected)),
        }
    }

    fn expect(&mut self, symbol: &'static str, expected: &'static str) -> Result<(), SelectorError> {
        if self.take(&Token::Symbol(symbol)) { Ok(()) } else { Err(self.unexpected(expected)) }
    }

    fn take(&mut self, token: &Token) -> bool {
        let there = self.peek() == token;
        self.at += usize::from(there);
        there
    }

    fn peek(&self) -> &Token {
        self.tokens.get(self.at).map_or(&Token::End, |(_, token)| token)
    }

    fn unexpected(&self, expected: &'static str) -> SelectorError {
        let (column, found) = match self.tokens.get(self.at).or(self.tokens.last()) {
            Some((column, token)) => (*column, token.describe()),
            None => (1, Token::End.describe()),
        };
        SelectorError { column, expected, found }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Text(String),
    Symbol(&'static str),
    End,
}

impl Token {
    fn describe(&self) -> String {
        match self {
            Self::Word(word) => word.clone(),
            Self::Text(text) => format!("'{text}'"),
            Self::Symbol(symbol) => (*symbol).to_owned(),
            Self::End => "the end".to_owned(),
        }
    }
}

/// Longer ones first, since `!` begins `!=`.
const SYMBOLS: [&str; 10] = ["==", "!=", "&&", "||", "!", "(", ")", "{", "}", ","];

/// The text's tokens with their columns.
fn tokens(text: &str) -> Result<Vec<(usize, Token)>, SelectorError> {
    let mut found = Vec::new();
    let mut rest = text;
    let mut column = 1;
    while let Some(first) = rest.chars().next() {
        let (token, length) = if first.is_whitespace() {
            (None, first.len_utf8())
        } else if first == '\'' || first == '"' {
            let (value, length) = quoted(rest, first, column)?;
            (Some(Token::Text(value)), length)
        } else if let Some(symbol) = SYMBOLS.iter().find(|symbol| rest.starts_with(**symbol)) {
            (Some(Token::Symbol(symbol)), symbol.len())
        } else {
            let end = rest.find(|c: char| !is_word(c)).unwrap_or(rest.len());
            if end == 0 {
                let expected = "a label's name, a value in quotes, an operator or a parenthesis";
                return Err(SelectorError { column, expected, found: first.to_string() });
            }
            (Some(Token::Word(rest[..end].to_owned())), end)
        };
        found.extend(token.map(|token| (column, token)));
        column += rest[..length].chars().count();
        rest = &rest[length..];
    }
    found.push((column, Token::End));
    Ok(found)
}

/// The value between the quotes that `rest` begins with, and the length of all three.
fn quoted(rest: &str, quote: char, column: usize) -> Result<(String, usize), SelectorError> {
    let inner = &rest[1..];
    match inner.find(quote) {
        Some(end) => Ok((inner[..end].to_owned(), end + 2)),
        None => Err(SelectorError { column, expected: "a closing quote", found: rest.to_owned() }),
    }
}

/// Characters of a label's name, with its prefix (Kubernetes: "Labels and Selectors", syntax).
fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '/' | '-')
}
