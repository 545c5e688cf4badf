//! Values: what stands between operators.

use super::{Argument, ExpressionError, Kind, Node, Parser, Token, Type, Typed, error, functions, told};
use crate::chain::expression::Current;

impl Parser<'_> {
    /// The value, or what stands behind it: a name in a map, or in brackets an element or a part.
    pub(super) fn parts(&mut self, mut value: Typed) -> Result<Typed, ExpressionError> {
        let mut is_chain = false;
        loop {
            let at = self.at();
            let or_nil = self.sign("?.");
            is_chain |= or_nil;
            // Behind `?.` may stand a bracket, too.
            if (or_nil && !self.is("[")) || self.sign(".") {
                value = self.member(at, value, or_nil)?;
                continue;
            }
            if !self.sign("[") {
                return match is_chain {
                    true => Typed::over(at, Node::Chain(Box::new(value.node)), value.kind, value.deep),
                    false => Ok(value),
                };
            }
            let from = if self.is(":") { None } else { Some(self.place(value.kind)?) };
            let from = match from {
                Some(place) if !self.is(":") => {
                    self.needs("]")?;
                    value = element(at, value, place, or_nil)?;
                    continue;
                }
                from => from,
            };
            self.needs(":")?;
            let to = if self.is("]") { None } else { Some(self.place(Type::ANY.listed())?) };
            self.needs("]")?;
            if !value.kind.fits(Type::TEXT) && value.kind.element().is_none() {
                return error(at, format!("{} has no parts", value.kind));
            }
            let below = [&from, &to].into_iter().flatten().map(|bound| bound.deep).fold(value.deep, Ord::max);
            let [from, to] = [from, to].map(|bound| bound.map(|bound| Box::new(bound.node)));
            value = Typed::over(at, Node::Part(Box::new(value.node), from, to), value.kind, below)?;
        }
    }

    /// A name in a map, behind a dot.
    fn member(&mut self, at: usize, value: Typed, or_nil: bool) -> Result<Typed, ExpressionError> {
        let Some(Token { kind: Kind::Word(name), .. }) = self.peek().cloned() else {
            return error(self.at(), "behind a dot a name is missing");
        };
        self.next += 1;
        if !value.kind.fits(Type::MAP) {
            return error(at, format!("{} has nothing that is called {name:?}", value.kind));
        }
        let (value, name, below) = (Box::new(value.node), Box::new(Node::Text(name)), value.deep);
        let node = if or_nil { Node::ElementOrNil(value, name) } else { Node::Element(value, name) };
        Typed::over(at, node, Type::ANY, below)
    }

    /// What stands between brackets: a whole number, or of a map a name.
    fn place(&mut self, of: Type) -> Result<Typed, ExpressionError> {
        let at = self.at();
        let place = self.whole()?;
        if place.kind.fits(Type::INT) || (of.fits(Type::MAP) && place.kind.fits(Type::TEXT)) {
            return Ok(place);
        }
        if of == Type::MAP {
            return error(at, format!("a name in a map is a text, not {}", place.kind));
        }
        error(at, format!("a place in a list or text is a whole number, not {}", place.kind))
    }

    pub(super) fn value(&mut self) -> Result<Typed, ExpressionError> {
        let Some(token) = self.peek().cloned() else { return error(self.at(), "behind this a value is missing") };
        self.next += 1;
        let leaf = |node, kind| Ok(Typed::leaf(node, kind));
        match token.kind {
            Kind::Text(text) => leaf(Node::Text(text), Type::TEXT),
            Kind::Int(value) => leaf(Node::Int(value), Type::INT),
            Kind::Float(value) => leaf(Node::Float(value), Type::FLOAT),
            Kind::Word(word) if word == "true" || word == "false" => leaf(Node::Bool(word == "true"), Type::BOOL),
            Kind::Word(word) if word == "nil" => leaf(Node::Nil, Type::NIL),
            Kind::Word(word) => match self.variables.iter().position(|(name, _)| *name == word) {
                Some(slot) => leaf(Node::Variable(slot), self.variables[slot].1),
                None => self.call(&word, token.at, None),
            },
            Kind::Element(name) => self.current(&name, token.at),
            Kind::Sign("(") => {
                let inner = self.whole()?;
                self.needs(")")?;
                Ok(inner)
            }
            Kind::Sign("[") => self.list(token.at),
            Kind::Sign("{") => self.map(token.at),
            // Of the element that is asked, as `#.name`.
            Kind::Sign(".") if !self.frames.is_empty() => {
                self.next -= 1;
                self.current("", token.at)
            }
            kind => error(token.at, format!("here a value is missing, {} stands", told(&kind))),
        }
    }

    fn current(&self, name: &str, at: usize) -> Result<Typed, ExpressionError> {
        let Some(frame) = self.frames.last() else {
            return error(at, "\"#\" is an element that is asked something, as in any(['a'], # == 'b')");
        };
        match name {
            "" => Ok(Typed::leaf(Node::Current(Current::Element), frame.element)),
            "index" => Ok(Typed::leaf(Node::Current(Current::Index), Type::INT)),
            "acc" if frame.accumulates => Ok(Typed::leaf(Node::Current(Current::Accumulator), Type::ANY)),
            _ => error(at, format!("\"#{name}\" is not known here; known are #, #index and in reduce() #acc")),
        }
    }

    fn list(&mut self, at: usize) -> Result<Typed, ExpressionError> {
        let values = self.values("]")?;
        let below = values.iter().map(|argument| argument.value.deep).max().unwrap_or(0);
        let kinds = values.iter().map(|argument| Some(argument.value.kind));
        // Of several kinds only the question tells what an element is.
        let kind = kinds.reduce(|one, other| one?.joint(other?)).flatten().unwrap_or(Type::ANY);
        let nodes = values.into_iter().map(|argument| argument.value.node).collect();
        Typed::over(at, Node::List(nodes), kind.listed(), below)
    }

    /// Names and values, behind the brace.
    fn map(&mut self, at: usize) -> Result<Typed, ExpressionError> {
        let (mut entries, mut below) = (Vec::new(), 0);
        while !self.sign("}") {
            let at = self.at();
            let name = match self.peek().map(|token| token.kind.clone()) {
                Some(Kind::Word(name) | Kind::Text(name)) => Node::Text(name),
                Some(Kind::Int(name)) => Node::Int(name),
                // Its name is computed.
                Some(Kind::Sign("(")) => {
                    self.next += 1;
                    let name = self.whole()?;
                    if !self.is(")") || !name.kind.fits(Type::TEXT) {
                        return error(at, "the name of something in a map is a text");
                    }
                    below = below.max(name.deep);
                    name.node
                }
                _ => return error(at, "here the name of something in a map is missing"),
            };
            self.next += 1;
            self.needs(":")?;
            let value = self.whole()?;
            below = below.max(value.deep);
            entries.push((name, value.node));
            if !self.is("}") {
                self.needs(",")?;
            }
        }
        Typed::over(at, Node::Map(entries), Type::MAP, below)
    }

    /// Values with commas between them, up to a sign.
    fn values(&mut self, end: &str) -> Result<Vec<Argument>, ExpressionError> {
        let mut values = Vec::new();
        while !self.sign(end) {
            let at = self.at();
            values.push(Argument { at, value: self.whole()? });
            if !self.is(end) {
                self.needs(",")?;
            }
        }
        Ok(values)
    }

    /// The call of a function behind `|`, which has what stands before as its first argument.
    pub(super) fn piped(&mut self, first: Argument) -> Result<Typed, ExpressionError> {
        let at = self.at();
        let Some(Token { kind: Kind::Word(word), .. }) = self.peek().cloned() else {
            return error(at, "behind \"|\" the call of a function is missing");
        };
        self.next += 1;
        let value = self.call(&word, at, Some(first))?;
        self.parts(value)
    }

    fn call(&mut self, word: &str, at: usize, piped: Option<Argument>) -> Result<Typed, ExpressionError> {
        if !self.sign("(") {
            return error(at, format!("{word:?} is not known; a function is called as {word}()"));
        }
        if word == "reduce" {
            return self.reduce(at, piped);
        }
        if let Some(each) = functions::each(word) {
            return self.each(each, word, at, piped);
        }
        let mut arguments: Vec<Argument> = piped.into_iter().collect();
        arguments.extend(self.values(")")?);
        functions::call(word, at, arguments)
    }
}

/// An element of a list.
fn element(at: usize, value: Typed, place: Typed, or_nil: bool) -> Result<Typed, ExpressionError> {
    let kind = if value.kind == Type::MAP { Some(Type::ANY) } else { value.kind.element() };
    let Some(kind) = kind else {
        let reason = match value.kind {
            Type::TEXT => "a text has no elements; a part of it is written [0:1]".to_owned(),
            kind => format!("{kind} has no elements"),
        };
        return error(at, reason);
    };
    let below = value.deep.max(place.deep);
    let (value, place) = (Box::new(value.node), Box::new(place.node));
    let node = if or_nil { Node::ElementOrNil(value, place) } else { Node::Element(value, place) };
    Typed::over(at, node, kind, below)
}
