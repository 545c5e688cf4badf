//! Calls that ask each element of a list: `any(list, # == 'a')`, `filter(list, {# > 1})`, `reduce(list, #acc + #)`.

use super::{Argument, ExpressionError, Frame, Kind, Node, Parser, Type, Typed, error, functions};
use crate::chain::expression::Each;

impl Parser<'_> {
    /// What stands behind `any(` and the like.
    pub(super) fn each(
        &mut self,
        each: Each,
        word: &str,
        at: usize,
        piped: Option<Argument>,
    ) -> Result<Typed, ExpressionError> {
        let is_piped = piped.is_some();
        let list = self.elements(word, piped)?;
        // Without a predicate the elements themselves are counted.
        if each == Each::Count && self.sign(")") {
            return functions::call(word, at, vec![list]);
        }
        // What was piped has no comma behind it.
        if !is_piped {
            self.needs(",")?;
        }
        let list = list.value;
        let element = list.kind.element().unwrap_or(Type::ANY);
        let (predicate_at, predicate) = self.predicate(Frame { element, accumulates: false })?;
        let each = if matches!(each, Each::Sort { .. }) { self.order()? } else { each };
        self.needs(")")?;
        let is_free = matches!(each, Each::Map | Each::Group | Each::Sort { .. });
        if !is_free && !predicate.kind.fits(Type::BOOL) {
            let reason = format!("{word}() asks what is true or false of each element, this is {}", predicate.kind);
            return error(predicate_at, reason);
        }
        let kind = match each {
            Each::All | Each::Any | Each::One | Each::None => Type::BOOL,
            Each::Count | Each::FindIndex | Each::FindLastIndex => Type::INT,
            Each::Find | Each::FindLast => element,
            Each::Filter | Each::Sort { .. } => element.listed(),
            Each::Group => Type::MAP,
            Each::Map => predicate.kind.listed(),
        };
        let below = list.deep.max(predicate.deep);
        Typed::over(at, Node::Each(each, Box::new(list.node), Box::new(predicate.node)), kind, below)
    }

    /// The order that `sortBy` may name behind what it asks.
    fn order(&mut self) -> Result<Each, ExpressionError> {
        if !self.sign(",") {
            return Ok(Each::Sort { backwards: false });
        }
        let at = self.at();
        let backwards = match self.peek().map(|token| &token.kind) {
            Some(Kind::Text(order)) if order == "asc" => false,
            Some(Kind::Text(order)) if order == "desc" => true,
            _ => return error(at, "the order is 'asc' or 'desc'"),
        };
        self.next += 1;
        Ok(Each::Sort { backwards })
    }

    /// What stands behind `reduce(`: a list, what is made of `#acc` and each element, and perhaps what `#acc` is at first.
    pub(super) fn reduce(&mut self, at: usize, piped: Option<Argument>) -> Result<Typed, ExpressionError> {
        let is_piped = piped.is_some();
        let list = self.elements("reduce", piped)?.value;
        if !is_piped {
            self.needs(",")?;
        }
        let element = list.kind.element().unwrap_or(Type::ANY);
        let (_, predicate) = self.predicate(Frame { element, accumulates: true })?;
        let first = if self.sign(",") { Some(self.whole()?) } else { None };
        self.needs(")")?;
        let below = list.deep.max(predicate.deep).max(first.as_ref().map_or(0, |first| first.deep));
        let kind = predicate.kind;
        let [list, step] = [list, predicate].map(|part| Box::new(part.node));
        let first = first.map(|first| Box::new(first.node));
        Typed::over(at, Node::Reduce(list, step, first), kind, below)
    }

    /// The list whose elements are asked: what was piped, or the first argument.
    fn elements(&mut self, word: &str, piped: Option<Argument>) -> Result<Argument, ExpressionError> {
        let at = self.at();
        let list = match piped {
            Some(list) => list,
            None => Argument { at, value: self.whole()? },
        };
        match list.value.kind.element() {
            Some(_) => Ok(list),
            None => error(list.at, format!("{word}() goes through a list, this is {}", list.value.kind)),
        }
    }

    /// What each element is asked, perhaps in braces, and where it begins.
    fn predicate(&mut self, frame: Frame) -> Result<(usize, Typed), ExpressionError> {
        self.frames.push(frame);
        let braces = self.sign("{");
        let at = self.at();
        let predicate = self.whole()?;
        if braces {
            self.needs("}")?;
        }
        self.frames.pop();
        Ok((at, predicate))
    }
}
