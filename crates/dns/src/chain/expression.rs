//! The language of `view`'s conditions: that of CoreDNS's library (expr-lang), as far as questions of DNS have use for it.
//!
//! An expression is parsed and its types are checked when the Corefile is loaded; networks and regular expressions that stand in it
//! as texts are read then, too. What is not known is an error that names it and its place. Dates and durations are not known.
//!
//! - Values: texts (`'a'`, `"a"`, `` `a` ``), numbers (`42`, `0x2a`, `1.5`), `true`, `false`, `nil`, lists (`['A', 'AAAA']`), ranges
//!   (`1..5`), and parts of them (`x[0]`, `x[-1]`, `x[1:3]`); maps (`{'a': 1, b: 2}`) and what they have (`x.a`, `x['a']`, `x?.a`)
//! - Operators, from the loosest: `|`, `? :`, `or ||`, `and &&`, `== != < <= > >= in contains startsWith endsWith matches` (the last
//!   five with `not` before them, too), `..`, `+ -`, `not !`, `* / %`, `-`, `** ^`, `??`
//! - `let name = value; …`, and comments (`/* … */`, `// …`)
//! - Of the question: `bufsize()`, `class()`, `client_ip()`, `do()`, `id()`, `name()`, `opcode()`, `port()`, `proto()`,
//!   `server_ip()`, `server_port()`, `size()`, `type()`, `incidr(address, network)` and `metadata(label)`
//! - Functions of texts, numbers, lists and maps, JSON and base 64 (`functions`), and those that ask each element of a list (`any(list, # == 'a')`)

mod call;
mod eval;
mod functions;
mod lexer;
mod parser;
mod question;
#[cfg(test)]
mod tests;
mod types;
mod value;

use std::net::IpAddr;

use ipnet::IpNet;

use super::{Pattern, PodLabels};
use functions::Function;

/// A condition on a question; two are the same when their texts are.
#[derive(Clone, Debug)]
pub struct Expression {
    text: String,
    pod_labels: PodLabels,
    node: Node,
}

impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Expression {}

/// What a condition can ask of a question.
#[derive(Clone, Copy)]
pub struct ExpressionData<'a> {
    /// The UDP size that the client's EDNS told; 512 without it.
    pub bufsize: u16,
    /// The class, as text.
    pub class: &'a str,
    /// The client's address, …
    pub client_ip: IpAddr,
    /// … and port.
    pub port: u16,
    /// The client wants DNSSEC's records.
    pub dnssec_ok: bool,
    /// The message's id.
    pub id: u16,
    /// The name, in lower case and with the dot at its end.
    pub name: &'a str,
    /// The operation's code.
    pub opcode: u8,
    /// `udp` or `tcp`.
    pub proto: &'a str,
    /// The server's address, …
    pub server_ip: IpAddr,
    /// … and port.
    pub server_port: u16,
    /// The message's size in bytes.
    pub size: usize,
    /// The type, as text.
    pub rtype: &'a str,
    /// What plugins tell under a label.
    pub meta: &'a dyn Fn(&str) -> Option<String>,
}

/// What is wrong with an expression.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason} (at character {at})")]
pub struct ExpressionError {
    /// The character in the expression's text, from 1.
    pub at: usize,
    /// What is wrong.
    pub reason: String,
}

impl Expression {
    /// Parses a condition.
    ///
    /// # Errors
    /// With the first thing that is wrong.
    pub fn parse(text: &str) -> Result<Self, ExpressionError> {
        let tokens = lexer::tokens(text)?;
        Ok(Self { text: text.to_owned(), pod_labels: pod_labels(&tokens), node: parser::parse(&tokens)? })
    }

    /// Whether it holds for a question. What cannot be computed (a remainder of a division by zero, an element that is not there, a
    /// network that is none, what takes too much time or room) does not hold, as in CoreDNS.
    #[must_use]
    pub fn holds(&self, data: &ExpressionData<'_>) -> bool {
        eval::holds(&self.node, data)
    }

    /// The expression's own text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The labels of pods that it asks for.
    #[must_use]
    pub fn pod_labels(&self) -> &PodLabels {
        &self.pod_labels
    }
}

/// The labels of pods that are asked for: all where a label is computed.
fn pod_labels(tokens: &[lexer::Token]) -> PodLabels {
    let mut labels = PodLabels::default();
    for from in 0..tokens.len() {
        let mut kinds = tokens.iter().skip(from).map(|token| &token.kind);
        let is_call = matches!(kinds.next(), Some(lexer::Kind::Word(word)) if word == "metadata")
            && matches!(kinds.next(), Some(lexer::Kind::Sign("(")));
        if is_call {
            labels.ask(match (kinds.next(), kinds.next()) {
                (Some(lexer::Kind::Text(label)), Some(lexer::Kind::Sign(")"))) => Some(label.as_str()),
                _ => None,
            });
        }
    }
    labels
}

#[derive(Clone, Debug)]
enum Node {
    Nil,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    /// Names and their values; of two of one name the last one counts.
    Map(Vec<(Node, Node)>),
    Range(Box<Node>, Box<Node>),
    Field(Field),
    /// One of the variables that are known here, by its place among them.
    Variable(usize),
    /// Of the element that is asked.
    Current(Current),
    /// A variable more is known in what stands behind its value.
    Let(Box<Node>, Box<Node>),
    InNetwork(Box<Node>, IpNet),
    Not(Box<Node>),
    Negative(Box<Node>),
    /// All of them are true.
    All(Vec<Node>),
    /// One of them is true.
    Any(Vec<Node>),
    Choose(Box<Node>, Box<Node>, Box<Node>),
    /// The first, unless it is `nil`.
    Else(Box<Node>, Box<Node>),
    Compare(Compare, Box<Node>, Box<Node>),
    In(Box<Node>, Box<Node>),
    Test(TextTest, Box<Node>, Box<Node>),
    Matches(Box<Node>, Pattern),
    Number(Number, Box<Node>, Box<Node>),
    Element(Box<Node>, Box<Node>),
    /// The same; of what is `nil` the chain that it is in is `nil`.
    ElementOrNil(Box<Node>, Box<Node>),
    /// All that stands behind a value with a `?.` in it.
    Chain(Box<Node>),
    /// From one place to before another one.
    Part(Box<Node>, Option<Box<Node>>, Option<Box<Node>>),
    Call(Function, Vec<Node>),
    /// What comes of asking each element.
    Each(Each, Box<Node>, Box<Node>),
    /// Elements are made one value, which may have a first one.
    Reduce(Box<Node>, Box<Node>, Option<Box<Node>>),
}

/// What is told of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Bufsize,
    Class,
    ClientIp,
    Do,
    Id,
    Name,
    Opcode,
    Port,
    Proto,
    ServerIp,
    ServerPort,
    Size,
    Type,
}

/// What is known of the element that is asked: `#`, `#index`, `#acc`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Current {
    Element,
    Index,
    Accumulator,
}

/// What becomes of a list whose elements are asked one by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Each {
    All,
    Any,
    One,
    None,
    Count,
    Filter,
    Map,
    Find,
    FindIndex,
    FindLast,
    FindLastIndex,
    /// The elements by what comes of asking them.
    Group,
    /// In the order of what comes of asking them, or in its reverse.
    Sort {
        backwards: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compare {
    Equal,
    Differ,
    Less,
    AtMost,
    More,
    AtLeast,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TextTest {
    Contains,
    StartsWith,
    EndsWith,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Number {
    Plus,
    Minus,
    Times,
    Divide,
    Remainder,
    Power,
}

fn error<T>(at: usize, reason: impl Into<String>) -> Result<T, ExpressionError> {
    Err(ExpressionError { at, reason: reason.into() })
}
