//! The language of `view`'s conditions, as far as questions of DNS have use for it.
//!
//! An expression is parsed and its types are checked when the Corefile is loaded; networks and regular expressions that stand in it
//! as texts are read then, too. What is not known is an error that names it.
//!
//! Known are texts, whole numbers, truths, lists and ranges (`1..5`); `and && or || not !`, `== != < <= > >=`, `in`, `contains`,
//! `startsWith`, `endsWith`, `matches` (each also with `not` before it), `+ - * %`, `a ? b : c`; `len`, `lower`, `upper`, `trim`;
//! and of the question `bufsize()`, `class()`, `client_ip()`, `do()`, `id()`, `name()`, `opcode()`, `port()`, `proto()`,
//! `server_ip()`, `server_port()`, `size()`, `type()`, `incidr(address, network)` and `metadata(label)`.

mod eval;
mod lexer;
mod parser;
#[cfg(test)]
mod tests;
mod types;

use std::net::IpAddr;

use ipnet::IpNet;

use super::Pattern;

/// A condition on a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expression {
    text: String,
    node: Node,
}

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
        Ok(Self { text: text.to_owned(), node: parser::parse(&lexer::tokens(text)?)? })
    }

    /// Whether it holds for a question. What cannot be computed (a remainder of a division by zero, a network that is none) does not
    /// hold, as in CoreDNS.
    #[must_use]
    pub fn holds(&self, data: &ExpressionData<'_>) -> bool {
        matches!(eval::value(&self.node, data), Some(eval::Value::Bool(true)))
    }

    /// The expression's own text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Node {
    Bool(bool),
    Int(i64),
    Text(String),
    List(Vec<Node>),
    Range(Box<Node>, Box<Node>),
    Field(Field),
    Metadata(Box<Node>),
    InNetwork(Box<Node>, IpNet),
    InNetworkOf(Box<Node>, Box<Node>),
    Not(Box<Node>),
    And(Box<Node>, Box<Node>),
    Or(Box<Node>, Box<Node>),
    Choose(Box<Node>, Box<Node>, Box<Node>),
    Compare(Compare, Box<Node>, Box<Node>),
    In(Box<Node>, Box<Node>),
    Test(TextTest, Box<Node>, Box<Node>),
    Matches(Box<Node>, Pattern),
    Number(Number, Box<Node>, Box<Node>),
    Join(Box<Node>, Box<Node>),
    Negative(Box<Node>),
    Len(Box<Node>),
    Change(Change, Box<Node>),
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
    Remainder,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Lower,
    Upper,
    Trim,
}

fn error<T>(at: usize, reason: impl Into<String>) -> Result<T, ExpressionError> {
    Err(ExpressionError { at, reason: reason.into() })
}
