//! From words to a tree with types.

mod each;
mod values;

use super::{
    Compare, ExpressionError, Node, Number, TextTest, error,
    functions::{self, Argument},
    lexer::{Kind, Token},
    types::{Operator, Type, Typed, combine, too_deep},
};

/// How deep readers of parts may call each other: two for each pair of parentheses.
const NESTED: usize = 128;

/// How deep what stands between two comparisons may be: it is copied, and what is copied may have copies in it.
const COPIED: usize = 8;
const TOO_NESTED: &str = "what stands between two comparisons is nested too deep; give it a name with \"let\"";

/// The whole is a truth.
pub(super) fn parse(tokens: &[Token]) -> Result<Node, ExpressionError> {
    let mut parser = Parser { tokens, next: 0, depth: 0, variables: Vec::new(), frames: Vec::new() };
    let whole = parser.whole()?;
    match parser.peek() {
        None => {}
        Some(Token { at, kind: Kind::Sign("=") }) => {
            return error(*at, "\"=\" stands only behind \"let\" and a name; what is equal is compared by \"==\"");
        }
        Some(token) => {
            return error(token.at, format!("here the expression has to end, {} follows", told(&token.kind)));
        }
    }
    if whole.kind.fits(Type::BOOL) {
        return Ok(whole.node);
    }
    error(1, format!("the whole has to be true or false, it is {}", whole.kind))
}

struct Parser<'a> {
    tokens: &'a [Token],
    next: usize,
    depth: usize,
    /// What `let` has named, innermost last.
    variables: Vec<(String, Type)>,
    /// What the elements are that are asked, innermost last.
    frames: Vec<Frame>,
}

/// What `#` is here.
struct Frame {
    element: Type,
    /// There is an `#acc`.
    accumulates: bool,
}

/// How strongly operators bind, as in expr-lang.
const OPERATORS: [(&str, Operator, u16); 25] = [
    ("or", Operator::Or, 10),
    ("||", Operator::Or, 10),
    ("and", Operator::And, 15),
    ("&&", Operator::And, 15),
    ("==", Operator::Compare(Compare::Equal), 20),
    ("!=", Operator::Compare(Compare::Differ), 20),
    ("<", Operator::Compare(Compare::Less), 20),
    ("<=", Operator::Compare(Compare::AtMost), 20),
    (">", Operator::Compare(Compare::More), 20),
    (">=", Operator::Compare(Compare::AtLeast), 20),
    ("in", Operator::In, 20),
    ("contains", Operator::Test(TextTest::Contains), 20),
    ("startsWith", Operator::Test(TextTest::StartsWith), 20),
    ("endsWith", Operator::Test(TextTest::EndsWith), 20),
    ("matches", Operator::Matches, 20),
    ("..", Operator::Range, 25),
    ("+", Operator::Number(Number::Plus), 30),
    ("-", Operator::Number(Number::Minus), 30),
    ("*", Operator::Number(Number::Times), 60),
    ("/", Operator::Number(Number::Divide), 60),
    ("%", Operator::Number(Number::Remainder), 60),
    ("**", Operator::Number(Number::Power), POWER),
    ("^", Operator::Number(Number::Power), POWER),
    ("??", Operator::Else, 500),
    // It stands before those that it negates.
    ("not", Operator::In, 20),
];
const POWER: u16 = 100;
/// `not` before a value binds more strongly than a comparison.
const NOT: u16 = 50;
const SIGN: u16 = 90;

/// An operator that follows.
struct Found {
    at: usize,
    operator: Operator,
    binds: u16,
    negated: bool,
}

impl Parser<'_> {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.next)
    }

    fn at(&self) -> usize {
        self.peek().or_else(|| self.tokens.last()).map_or(1, |token| token.at)
    }

    fn is(&self, sign: &str) -> bool {
        self.peek().is_some_and(|token| matches!(&token.kind, Kind::Sign(own) if *own == sign))
    }

    fn sign(&mut self, sign: &str) -> bool {
        let is = self.is(sign);
        self.next += usize::from(is);
        is
    }

    fn word(&mut self, word: &str) -> bool {
        let is = self.peek().is_some_and(|token| matches!(&token.kind, Kind::Word(own) if own == word));
        self.next += usize::from(is);
        is
    }

    fn needs(&mut self, sign: &str) -> Result<(), ExpressionError> {
        if self.sign(sign) { Ok(()) } else { error(self.at(), format!("here \"{sign}\" is missing")) }
    }

    /// Reads a part one deeper.
    fn deeper(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<Typed, ExpressionError>,
    ) -> Result<Typed, ExpressionError> {
        if self.depth >= NESTED {
            return too_deep(self.at());
        }
        self.depth += 1;
        let part = read(self);
        self.depth -= 1;
        part
    }

    /// An expression, perhaps with `let` before it or `? :` behind it.
    fn whole(&mut self) -> Result<Typed, ExpressionError> {
        self.deeper(|parser| if parser.word("let") { parser.declaration() } else { parser.choice() })
    }

    /// `NAME = VALUE; WHOLE`, behind `let`.
    fn declaration(&mut self) -> Result<Typed, ExpressionError> {
        let at = self.at();
        let name = match self.peek() {
            Some(Token { kind: Kind::Word(name), .. }) => name.clone(),
            _ => return error(at, "behind \"let\" a name is missing"),
        };
        if functions::is_taken(&name) || self.variables.iter().any(|(known, _)| *known == name) {
            return error(at, format!("{name:?} means something already; a variable needs a name of its own"));
        }
        self.next += 1;
        self.needs("=")?;
        let value = self.whole()?;
        self.needs(";")?;
        self.variables.push((name, value.kind));
        let whole = self.whole()?;
        self.variables.pop();
        let below = value.deep.max(whole.deep);
        Typed::over(at, Node::Let(Box::new(value.node), Box::new(whole.node)), whole.kind, below)
    }

    fn choice(&mut self) -> Result<Typed, ExpressionError> {
        let at = self.at();
        let condition = self.binary(0)?;
        if !self.sign("?") {
            return Ok(condition);
        }
        if !condition.kind.fits(Type::BOOL) {
            return error(at, format!("before \"?\" has to stand what is true or false, it is {}", condition.kind));
        }
        // `a ?: b` is `a ? a : b`, and where `a` is chosen it is true.
        let one = if self.is(":") { Typed::leaf(Node::Bool(true), condition.kind) } else { self.whole()? };
        self.needs(":")?;
        let other_at = self.at();
        let other = self.whole()?;
        let Some(kind) = one.kind.joint(other.kind) else {
            let (one, other) = (one.kind, other.kind);
            return error(other_at, format!("both sides of \":\" have to be of one kind: {one} and {other}"));
        };
        let below = condition.deep.max(one.deep).max(other.deep);
        let [condition, one, other] = [condition, one, other].map(|part| Box::new(part.node));
        Typed::over(at, Node::Choose(condition, one, other), kind, below)
    }

    /// Values with operators between them that bind at least so strongly.
    fn binary(&mut self, least: u16) -> Result<Typed, ExpressionError> {
        self.deeper(|parser| parser.chain(least))
    }

    fn chain(&mut self, least: u16) -> Result<Typed, ExpressionError> {
        let start = self.at();
        let mut left = self.unary()?;
        // What the comparison before was made with, and where it stands.
        let mut compared: Option<Argument> = None;
        loop {
            if least == 0 && self.sign("|") {
                left = self.piped(Argument { at: start, value: left })?;
                compared = None;
                continue;
            }
            let Some(Found { at, operator, binds, negated }) = self.operator().filter(|found| found.binds >= least)
            else {
                return Ok(left);
            };
            self.next += 1 + usize::from(negated);
            let right_at = self.at();
            // Powers are of what stands to their right.
            let right = self.binary(if binds == POWER { binds } else { binds + 1 })?;
            // As in expr-lang, `a == b == c` is no chain: it is `(a == b) == c`.
            let compares =
                matches!(operator, Operator::Compare(how) if !matches!(how, Compare::Equal | Compare::Differ));
            let behind = compares.then(|| Argument { at: right_at, value: right.clone() });
            left = match compared.take().filter(|_| compares) {
                // `1 < x < 5` is both of them.
                Some(middle) => {
                    if middle.value.deep > COPIED {
                        return error(middle.at, TOO_NESTED);
                    }
                    let second = combine(at, right_at, operator, middle.value, right)?;
                    combine(at, right_at, Operator::And, left, second)?
                }
                None => combine(at, right_at, operator, left, right)?,
            };
            compared = behind;
            if negated {
                left = Typed::over(at, Node::Not(Box::new(left.node)), Type::BOOL, left.deep)?;
            }
        }
    }

    /// The operator that follows, and whether `not` stands before it.
    fn operator(&self) -> Option<Found> {
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
            return Some(Found { at: token.at, operator, binds, negated: false });
        }
        let (word, operator, binds) = named(self.tokens.get(self.next + 1)?)?;
        let negates = word != "not" && matches!(operator, Operator::In | Operator::Test(_) | Operator::Matches);
        negates.then_some(Found { at: token.at, operator, binds, negated: true })
    }

    fn unary(&mut self) -> Result<Typed, ExpressionError> {
        let at = self.at();
        if self.sign("!") || self.word("not") {
            let inner = self.binary(NOT)?;
            if !inner.kind.fits(Type::BOOL) {
                return error(at, format!("\"not\" is for what is true or false, not for {}", inner.kind));
            }
            return Typed::over(at, Node::Not(Box::new(inner.node)), Type::BOOL, inner.deep);
        }
        let negative = self.is("-");
        if !self.sign("-") && !self.sign("+") {
            let value = self.value()?;
            return self.parts(value);
        }
        let inner = self.binary(SIGN)?;
        let sign = if negative { "-" } else { "+" };
        match inner.kind.fits(Type::FLOAT) {
            false => error(at, format!("\"{sign}\" is for numbers, not for {}", inner.kind)),
            true if negative => Typed::over(at, Node::Negative(Box::new(inner.node)), inner.kind, inner.deep),
            true => Ok(inner),
        }
    }
}

fn told(kind: &Kind) -> String {
    match kind {
        Kind::Word(word) => format!("{word:?}"),
        Kind::Text(_) => "a text".to_owned(),
        Kind::Int(value) => value.to_string(),
        Kind::Float(value) => value.to_string(),
        Kind::Element(name) => format!("\"#{name}\""),
        Kind::Sign(sign) => format!("{sign:?}"),
    }
}
