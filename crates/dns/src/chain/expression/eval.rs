//! What an expression is for a question.

use std::borrow::Cow;

use super::{
    Compare, Current, Each, ExpressionData, Node, TextTest,
    call::{call, grouped, place, sorted_by},
    functions::{Function, OfList},
    question::{bare, field, is_address, within},
    value::{LONGEST_LIST, Value, number},
};

/// The most nodes that are looked at, and the most bytes that are made on the way, for one question.
const STEPS: usize = 100_000;
const ROOM: usize = 1 << 20;

/// Whether an expression is true for a question.
pub(super) fn holds<'a>(node: &'a Node, data: &ExpressionData<'a>) -> bool {
    let mut evaluation = Evaluation { data, variables: Vec::new(), frames: Vec::new(), steps: 0, made: 0, cut: false };
    evaluation.truth(node) == Some(true)
}

struct Evaluation<'a, 'd> {
    data: &'d ExpressionData<'a>,
    variables: Vec<Value<'a>>,
    /// The elements that are being asked, innermost last.
    frames: Vec<Frame<'a>>,
    steps: usize,
    /// In bytes.
    made: usize,
    /// The chain that is being computed is `nil`.
    cut: bool,
}

struct Frame<'a> {
    element: Value<'a>,
    index: usize,
    accumulator: Value<'a>,
}

impl<'a> Evaluation<'a, '_> {
    /// The value; none when it cannot be computed.
    fn value(&mut self, node: &'a Node) -> Option<Value<'a>> {
        self.steps += 1;
        if self.steps > STEPS {
            return None;
        }
        match node {
            Node::Nil => Some(Value::Nil),
            Node::Bool(truth) => Some(Value::Bool(*truth)),
            Node::Int(number) => Some(Value::Int(*number)),
            Node::Float(number) => Some(Value::Float(*number)),
            Node::Text(text) => Some(Value::Text(Cow::Borrowed(text))),
            Node::List(nodes) => {
                let values = self.values(nodes)?;
                self.charged(Value::List(values))
            }
            Node::Map(entries) => {
                let mut all = Vec::new();
                for (name, value) in entries {
                    all.push((self.value(name)?.name()?, self.value(value)?));
                }
                self.charged(Value::map(all)?)
            }
            Node::Range(from, to) => self.range(from, to),
            Node::Field(told) => Some(field(*told, self.data)),
            Node::Variable(slot) => {
                let value = self.variables.get(*slot)?.clone();
                self.charged(value)
            }
            Node::Current(what) => self.current(*what),
            Node::Let(value, body) => {
                let value = self.value(value)?;
                self.variables.push(value);
                let whole = self.value(body);
                self.variables.pop();
                whole
            }
            Node::Negative(inner) => match self.value(inner)? {
                Value::Int(number) => number.checked_neg().map(Value::Int),
                value => value.float().map(|number| Value::Float(-number)),
            },
            Node::Choose(condition, one, other) => {
                let chosen = if self.truth(condition)? { one } else { other };
                self.value(chosen)
            }
            Node::Else(one, other) => match self.value(one)? {
                Value::Nil => self.value(other),
                value => Some(value),
            },
            Node::Number(how, one, other) => {
                let (one, other) = (self.value(one)?, self.value(other)?);
                let value = number(*how, &one, &other)?;
                self.charged(value)
            }
            Node::Element(value, index) => self.element(value, index, false),
            Node::ElementOrNil(value, index) => self.element(value, index, true),
            Node::Chain(inner) => {
                let value = self.value(inner);
                if std::mem::take(&mut self.cut) { Some(Value::Nil) } else { value }
            }
            Node::Part(value, from, to) => self.part(value, from.as_deref(), to.as_deref()),
            Node::Call(function, arguments) => self.call(*function, arguments),
            Node::Each(each, list, predicate) => self.each(*each, list, predicate),
            Node::Reduce(list, predicate, first) => self.reduce(list, predicate, first.as_deref()),
            condition => self.condition(condition).map(Value::Bool),
        }
    }

    /// The truth of what is nothing else.
    fn condition(&mut self, node: &'a Node) -> Option<bool> {
        match node {
            Node::Not(inner) => Some(!self.truth(inner)?),
            Node::All(nodes) => self.first(nodes, false).map(|found| !found),
            Node::Any(nodes) => self.first(nodes, true),
            Node::Compare(how, one, other) => self.compare(*how, one, other),
            Node::In(one, list) => {
                let wanted = self.value(one)?;
                self.contains(list, &wanted, is_address(one))
            }
            Node::Test(test, one, other) => {
                let (one, other) = (self.text(one)?, self.text(other)?);
                Some(match test {
                    TextTest::Contains => one.contains(&*other),
                    TextTest::StartsWith => one.starts_with(&*other),
                    TextTest::EndsWith => one.ends_with(&*other),
                })
            }
            Node::Matches(one, pattern) => Some(pattern.regex().is_match(&self.text(one)?)),
            Node::InNetwork(address, network) => Some(within(&self.text(address)?, network)),
            // All others are values of `value`.
            _ => None,
        }
    }

    /// Whether one of these is `wanted`; those behind it are not looked at.
    fn first(&mut self, nodes: &'a [Node], wanted: bool) -> Option<bool> {
        for node in nodes {
            if self.truth(node)? == wanted {
                return Some(true);
            }
        }
        Some(false)
    }

    fn truth(&mut self, node: &'a Node) -> Option<bool> {
        match self.value(node)? {
            Value::Bool(truth) => Some(truth),
            _ => None,
        }
    }

    fn int(&mut self, node: &'a Node) -> Option<i64> {
        match self.value(node)? {
            Value::Int(number) => Some(number),
            _ => None,
        }
    }

    fn text(&mut self, node: &'a Node) -> Option<Cow<'a, str>> {
        match self.value(node)? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    fn values(&mut self, nodes: &'a [Node]) -> Option<Vec<Value<'a>>> {
        nodes.iter().map(|node| self.value(node)).collect()
    }

    /// A value that was made, where there is room for it.
    fn charged(&mut self, value: Value<'a>) -> Option<Value<'a>> {
        self.made = self.made.saturating_add(value.bytes());
        (self.made <= ROOM).then_some(value)
    }

    fn range(&mut self, from: &'a Node, to: &'a Node) -> Option<Value<'a>> {
        let (from, to) = (self.int(from)?, self.int(to)?);
        if from <= to && to.checked_sub(from)? >= LONGEST_LIST as i64 {
            return None;
        }
        self.charged(Value::List((from..=to).map(Value::Int).collect()))
    }

    fn current(&mut self, what: Current) -> Option<Value<'a>> {
        let frame = self.frames.last()?;
        let value = match what {
            Current::Element => frame.element.clone(),
            Current::Accumulator => frame.accumulator.clone(),
            Current::Index => Value::Int(i64::try_from(frame.index).ok()?),
        };
        self.charged(value)
    }

    fn compare(&mut self, how: Compare, one: &'a Node, other: &'a Node) -> Option<bool> {
        let with_address = is_address(one) || is_address(other);
        let (one, other) = (self.value(one)?, self.value(other)?);
        let (one, other) = if with_address { (bare(one), bare(other)) } else { (one, other) };
        let order = || one.order(&other);
        Some(match how {
            Compare::Equal => one.same(&other),
            Compare::Differ => !one.same(&other),
            Compare::Less => order()?.is_lt(),
            Compare::AtMost => order()?.is_le(),
            Compare::More => order()?.is_gt(),
            Compare::AtLeast => order()?.is_ge(),
        })
    }

    /// Whether a value is in a list. One that stands there, or is a range, is not made for that.
    fn contains(&mut self, list: &'a Node, wanted: &Value<'a>, is_address: bool) -> Option<bool> {
        let is_it = |one: Value<'a>| if is_address { bare(one).same(wanted) } else { one.same(wanted) };
        match list {
            Node::List(nodes) => {
                for node in nodes {
                    if is_it(self.value(node)?) {
                        return Some(true);
                    }
                }
                Some(false)
            }
            Node::Range(from, to) => {
                let range = self.int(from)?..=self.int(to)?;
                Some(match wanted {
                    Value::Int(wanted) => range.contains(wanted),
                    Value::Float(wanted) => wanted.fract() == 0.0 && range.contains(&(*wanted as i64)),
                    _ => false,
                })
            }
            Node::Choose(condition, one, other) => {
                let chosen = if self.truth(condition)? { one } else { other };
                self.contains(chosen, wanted, is_address)
            }
            list => match self.value(list)? {
                Value::List(values) => Some(values.into_iter().any(is_it)),
                Value::Map(map) => {
                    Some(wanted.name().is_some_and(|wanted| map.iter().any(|(name, _)| *name == wanted)))
                }
                _ => None,
            },
        }
    }

    /// An element of a list, or what a map has under a name. `or_nil`: of `nil` the whole chain is `nil`.
    fn element(&mut self, value: &'a Node, index: &'a Node, or_nil: bool) -> Option<Value<'a>> {
        let value = self.value(value)?;
        if or_nil && matches!(value, Value::Nil) {
            self.cut = true;
            return None;
        }
        match (value, self.value(index)?) {
            (Value::List(mut list), Value::Int(index)) => {
                let index = place(index, list.len())?;
                Some(list.swap_remove(index))
            }
            (map, name) => map.member(&name),
        }
    }

    /// A part of a list or of a text, whose places are bytes. Bounds below zero are counted from the end, and those beyond it are the
    /// end.
    fn part(&mut self, value: &'a Node, from: Option<&'a Node>, to: Option<&'a Node>) -> Option<Value<'a>> {
        let value = self.value(value)?;
        let len = match &value {
            Value::List(list) => list.len(),
            Value::Text(text) => text.len(),
            _ => return None,
        };
        let end = i64::try_from(len).ok()?;
        let mut bound = |node: Option<&'a Node>, none: i64| {
            let at = node.map_or(Some(none), |node| self.int(node))?;
            let at = if at < 0 { at.saturating_add(end) } else { at };
            usize::try_from(at.clamp(0, end)).ok()
        };
        let (from, to) = (bound(from, 0)?, bound(to, end)?);
        let from = from.min(to);
        match value {
            Value::List(mut list) => Some(Value::List(list.drain(from..to).collect())),
            Value::Text(text) => self.charged(Value::made(text.get(from..to)?.to_owned())?),
            _ => None,
        }
    }

    fn call(&mut self, function: Function, arguments: &'a [Node]) -> Option<Value<'a>> {
        if let (Function::List(OfList::Len), [Node::Range(from, to)]) = (function, arguments) {
            let (from, to) = (self.int(from)?, self.int(to)?);
            return Some(Value::Int(if from > to { 0 } else { to.checked_sub(from)?.checked_add(1)? }));
        }
        let values = self.values(arguments)?;
        let value = match (function, values.as_slice()) {
            (Function::Metadata, [Value::Text(label)]) => Value::made((self.data.meta)(label).unwrap_or_default())?,
            (Function::InNetwork, [Value::Text(address), Value::Text(network)]) => {
                let network: ipnet::IpNet = network.parse().ok()?;
                Value::Bool(within(address, &network))
            }
            (function, values) => call(function, values)?,
        };
        self.charged(value)
    }

    /// What a predicate is for an element.
    fn ask(&mut self, element: Value<'a>, index: usize, predicate: &'a Node) -> Option<Value<'a>> {
        self.frames.push(Frame { element, index, accumulator: Value::Nil });
        let value = self.value(predicate);
        self.frames.pop();
        value
    }

    fn each(&mut self, each: Each, list: &'a Node, predicate: &'a Node) -> Option<Value<'a>> {
        let Value::List(list) = self.value(list)? else { return None };
        let backwards = matches!(each, Each::FindLast | Each::FindLastIndex);
        let (mut count, mut kept, mut asked) = (0, Vec::new(), Vec::new());
        for step in 0..list.len() {
            let index = if backwards { list.len() - 1 - step } else { step };
            let element = self.charged(list[index].clone())?;
            let value = self.ask(element, index, predicate)?;
            match each {
                Each::Map => {
                    kept.push(value);
                    continue;
                }
                Each::Group | Each::Sort { .. } => {
                    asked.push(value);
                    continue;
                }
                _ => {}
            }
            let Value::Bool(holds) = value else { return None };
            match (each, holds) {
                (Each::All, false) | (Each::None, true) => return Some(Value::Bool(false)),
                (Each::Any, true) => return Some(Value::Bool(true)),
                (Each::Find | Each::FindLast, true) => return list.into_iter().nth(index),
                (Each::FindIndex | Each::FindLastIndex, true) => return i64::try_from(index).ok().map(Value::Int),
                (Each::Filter, true) => kept.push(list[index].clone()),
                (_, true) => count += 1,
                (_, false) => {}
            }
        }
        match each {
            Each::All | Each::None => Some(Value::Bool(true)),
            Each::Any => Some(Value::Bool(false)),
            Each::One => Some(Value::Bool(count == 1)),
            Each::Count => Some(Value::Int(count)),
            Each::Filter | Each::Map => self.charged(Value::List(kept)),
            Each::Group => self.charged(grouped(list, &asked)?),
            Each::Sort { backwards } => self.charged(Value::List(sorted_by(list, asked, backwards)?)),
            Each::Find | Each::FindIndex | Each::FindLast | Each::FindLastIndex => Some(Value::Nil),
        }
    }

    fn reduce(&mut self, list: &'a Node, predicate: &'a Node, first: Option<&'a Node>) -> Option<Value<'a>> {
        let Value::List(list) = self.value(list)? else { return None };
        let mut elements = list.into_iter().enumerate();
        let mut accumulator = match first {
            Some(node) => self.value(node)?,
            None => elements.next()?.1,
        };
        for (index, element) in elements {
            self.frames.push(Frame { element, index, accumulator });
            let value = self.value(predicate);
            self.frames.pop();
            accumulator = value?;
        }
        Some(accumulator)
    }
}
