//! From words to a tree with types.

use super::{
    Compare, ExpressionError, Node, Number, TextTest, error,
    lexer::{Kind, Token},
    types::{FIELDS, Operator, Type, Typed, combine, function, name},
};

/// How deep expressions may be nested.
const DEPTH: usize = 64;

/// The whole is a truth.
pub(super) fn parse(tokens: &[Token]) -> Result<Node, ExpressionError> {
    let mut parser = Parser { tokens, next: 0, depth: 0 };
    let (node, kind) = parser.whole()?;
    if let Some(token) = parser.peek() {
        return error(token.at, format!("here the expression has to end, {} follows", told(&token.kind)));
    }
    match kind {
        Type::Bool => Ok(node),
        other => error(1, format!("the whole has to be true or false, it is {}", name(other))),
    }
}

struct Parser<'a> {
    tokens: &'a [Token],
    next: usize,
    depth: usize,
}

const OPERATORS: [(&str, Operator, u8); 21] = [
    ("or", Operator::Or, 1),
    ("||", Operator::Or, 1),
    ("and", Operator::And, 2),
    ("&&", Operator::And, 2),
    ("==", Operator::Compare(Compare::Equal), 3),
    ("!=", Operator::Compare(Compare::Differ), 3),
    ("<", Operator::Compare(Compare::Less), 3),
    ("<=", Operator::Compare(Compare::AtMost), 3),
    (">", Operator::Compare(Compare::More), 3),
    (">=", Operator::Compare(Compare::AtLeast), 3),
    ("in", Operator::In, 3),
    ("contains", Operator::Test(TextTest::Contains), 3),
    ("startsWith", Operator::Test(TextTest::StartsWith), 3),
    ("endsWith", Operator::Test(TextTest::EndsWith), 3),
    ("matches", Operator::Matches, 3),
    ("..", Operator::Range, 4),
    ("+", Operator::Number(Number::Plus), 5),
    ("-", Operator::Number(Number::Minus), 5),
    ("*", Operator::Number(Number::Times), 7),
    ("%", Operator::Number(Number::Remainder), 7),
    ("not", Operator::In, 3),
];
/// `not` before a value binds more strongly than a comparison.
const NOT: u8 = 6;
const NEGATIVE: u8 = 8;

impl Parser<'_> {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.next)
    }

    fn at(&self) -> usize {
        self.peek().or_else(|| self.tokens.last()).map_or(1, |token| token.at)
    }

    fn sign(&mut self, sign: &str) -> bool {
        let is = self.peek().is_some_and(|token| matches!(&token.kind, Kind::Sign(own) if *own == sign));
        self.next += usize::from(is);
        is
    }

    fn needs(&mut self, sign: &str) -> Result<(), ExpressionError> {
        if self.sign(sign) { Ok(()) } else { error(self.at(), format!("here \"{sign}\" is missing")) }
    }

    /// An expression, perhaps with `? :`.
    fn whole(&mut self) -> Result<Typed, ExpressionError> {
        self.depth += 1;
        if self.depth > DEPTH {
            return error(self.at(), format!("the expression is nested more than {DEPTH} deep"));
        }
        let at = self.at();
        let (condition, kind) = self.binary(0)?;
        if !self.sign("?") {
            self.depth -= 1;
            return Ok((condition, kind));
        }
        if kind != Type::Bool {
            return error(at, format!("before \"?\" has to stand what is true or false, it is {}", name(kind)));
        }
        let (one, kind) = self.whole()?;
        self.needs(":")?;
        let at = self.at();
        let (other, second) = self.whole()?;
        self.depth -= 1;
        if kind != second {
            return error(
                at,
                format!("both sides of \":\" have to be of one kind: {} and {}", name(kind), name(second)),
            );
        }
        Ok((Node::Choose(Box::new(condition), Box::new(one), Box::new(other)), kind))
    }

    fn binary(&mut self, least: u8) -> Result<Typed, ExpressionError> {
        let mut left = self.unary()?;
        loop {
            let Some((at, operator, binds, negated)) = self.operator() else { return Ok(left) };
            if binds <= least {
                return Ok(left);
            }
            self.next += 1 + usize::from(negated);
            let right_at = self.at();
            let right = self.binary(binds)?;
            left = combine(at, right_at, operator, left, right)?;
            if negated {
                left.0 = Node::Not(Box::new(left.0));
            }
        }
    }

    /// The operator that follows, and whether `not` stands before it.
    fn operator(&self) -> Option<(usize, Operator, u8, bool)> {
        let named = |token: &Token| {
            let word = match &token.kind {
                Kind::Word(word) => word.as_str(),
                Kind::Sign(sign) => sign,
                _ => return None,
            };
            OPERATORS.iter().find(|(name, ..)| *name == word).copied()
        };
        let token = self.peek()?;
        let (word, operator, binds) = named(token)?;
        if word != "not" {
            return Some((token.at, operator, binds, false));
        }
        let (_, operator, binds) = named(self.tokens.get(self.next + 1)?)?;
        matches!(operator, Operator::In | Operator::Test(_) | Operator::Matches)
            .then_some((token.at, operator, binds, true))
    }

    fn unary(&mut self) -> Result<Typed, ExpressionError> {
        let at = self.at();
        let not = self.sign("!") || {
            let word = self.peek().is_some_and(|token| token.kind == Kind::Word("not".to_owned()));
            self.next += usize::from(word);
            word
        };
        let negative = !not && self.sign("-");
        if !not && !negative {
            return self.value();
        }
        self.depth += 1;
        if self.depth > DEPTH {
            return error(at, format!("the expression is nested more than {DEPTH} deep"));
        }
        let (node, kind) = self.binary(if not { NOT } else { NEGATIVE })?;
        self.depth -= 1;
        match (not, kind) {
            (true, Type::Bool) => Ok((Node::Not(Box::new(node)), kind)),
            (false, Type::Int) => Ok((Node::Negative(Box::new(node)), kind)),
            (true, _) => error(at, format!("\"not\" is for what is true or false, not for {}", name(kind))),
            (false, _) => error(at, format!("\"-\" is for numbers, not for {}", name(kind))),
        }
    }

    fn value(&mut self) -> Result<Typed, ExpressionError> {
        let Some(token) = self.peek().cloned() else { return error(self.at(), "behind this a value is missing") };
        self.next += 1;
        match token.kind {
            Kind::Text(text) => Ok((Node::Text(text), Type::Text)),
            Kind::Int(value) => Ok((Node::Int(value), Type::Int)),
            Kind::Word(word) if word == "true" || word == "false" => Ok((Node::Bool(word == "true"), Type::Bool)),
            Kind::Word(word) => self.call(&word, token.at),
            Kind::Sign("(") => {
                let inner = self.whole()?;
                self.needs(")")?;
                Ok(inner)
            }
            Kind::Sign("[") => self.list(token.at),
            kind => error(token.at, format!("here a value is missing, {} stands", told(&kind))),
        }
    }

    fn list(&mut self, at: usize) -> Result<Typed, ExpressionError> {
        let values = self.values("]")?;
        let kind = match values.first() {
            None => Type::Nothing,
            Some((_, Type::Int)) => Type::Ints,
            Some((_, Type::Text)) => Type::Texts,
            Some((_, other)) => return error(at, format!("a list is of numbers or texts, not of {}", name(*other))),
        };
        if values.iter().any(|(_, other)| *other != values[0].1) {
            return error(at, "all values of a list have to be of one kind");
        }
        Ok((Node::List(values.into_iter().map(|(node, _)| node).collect()), kind))
    }

    /// Values with commas between them, up to a sign.
    fn values(&mut self, end: &str) -> Result<Vec<Typed>, ExpressionError> {
        let mut values = Vec::new();
        while !self.sign(end) {
            if !values.is_empty() {
                self.needs(",")?;
            }
            values.push(self.whole()?);
        }
        Ok(values)
    }

    fn call(&mut self, word: &str, at: usize) -> Result<Typed, ExpressionError> {
        if !self.sign("(") {
            return error(at, format!("{word:?} is not known; a function is called as {word}()"));
        }
        let arguments = self.values(")")?;
        if let Some((_, field, kind)) = FIELDS.iter().find(|(name, ..)| *name == word) {
            return match arguments.len() {
                0 => Ok((Node::Field(*field), *kind)),
                _ => error(at, format!("{word}() takes no arguments")),
            };
        }
        function(word, at, arguments)
    }
}

fn told(kind: &Kind) -> String {
    match kind {
        Kind::Word(word) => format!("{word:?}"),
        Kind::Text(_) => "a text".to_owned(),
        Kind::Int(value) => value.to_string(),
        Kind::Sign(sign) => format!("{sign:?}"),
    }
}
