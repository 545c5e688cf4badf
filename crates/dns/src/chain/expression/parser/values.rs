//! Values: what stands between operators.

use super::{Argument, ExpressionError, Kind, Node, Parser, Token, Type, Typed, error, functions, told};
use crate::chain::expression::Current;

impl Parser<'_> {
    /// The value, or what stands in brackets behind it: an element, or a part.
    pub(super) fn parts(&mut self, mut value: Typed) -> Result<Typed, ExpressionError> {
        loop {
            let at = self.at();
            if !self.sign("[") {
                return Ok(value);
            }
            let from = if self.is(":") { None } else { Some(self.place()?) };
            let from = match from {
                Some(place) if !self.is(":") => {
                    self.needs("]")?;
                    value = element(at, value, place)?;
                    continue;
                }
                from => from,
            };
            self.needs(":")?;
            let to = if self.is("]") { None } else { Some(self.place()?) };
            self.needs("]")?;
            if !value.kind.fits(Type::TEXT) && value.kind.element().is_none() {
                return error(at, format!("{} has no parts", value.kind));
            }
            let below = [&from, &to].into_iter().flatten().map(|bound| bound.deep).fold(value.deep, Ord::max);
            let [from, to] = [from, to].map(|bound| bound.map(|bound| Box::new(bound.node)));
            value = Typed::over(at, Node::Part(Box::new(value.node), from, to), value.kind, below)?;
        }
    }

    /// A whole number between brackets.
    fn place(&mut self) -> Result<Typed, ExpressionError> {
        let at = self.at();
        let place = self.whole()?;
        if place.kind.fits(Type::INT) {
            return Ok(place);
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
            Kind::Sign("{") => error(token.at, "maps are not known here; braces hold what each element is asked"),
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
fn element(at: usize, value: Typed, place: Typed) -> Result<Typed, ExpressionError> {
    let Some(kind) = value.kind.element() else {
        let reason = match value.kind {
            Type::TEXT => "a text has no elements; a part of it is written [0:1]".to_owned(),
            kind => format!("{kind} has no elements"),
        };
        return error(at, reason);
    };
    let below = value.deep.max(place.deep);
    Typed::over(at, Node::Element(Box::new(value.node), Box::new(place.node)), kind, below)
}
