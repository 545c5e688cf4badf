//! From a tree to a text.

use super::{
    Call, Command, Node, Operand, Parsed, Pipeline, TemplateData, TemplateError, Value, error,
    functions::{Function, call, truth},
    message, print,
};
use crate::message::flag;

/// The longest text: no record's text comes near.
const LONGEST: usize = 65_536;
/// The most nodes that are looked at.
const STEPS: usize = 100_000;
/// How deep templates may call each other.
const CALLS: usize = 32;

pub(super) fn render(parsed: &Parsed, data: &TemplateData<'_>) -> Result<String, TemplateError> {
    let root = root(data);
    let (variables, out) = (Vec::new(), String::new());
    let (defined, meta) = (&parsed.defined[..], data.meta);
    let mut evaluation = Evaluation { root: root.clone(), defined, meta, variables, out, steps: 0, calls: 0 };
    evaluation.nodes(&parsed.nodes, &root)?;
    Ok(evaluation.out)
}

fn root(data: &TemplateData<'_>) -> Value {
    let text = |text: &str| Value::Text(text.to_owned());
    let number = |number: u16| Value::Int(number.into());
    let (id, flags) = data.header;
    let is = |flag: u16| Value::Bool(flags & flag != 0);
    let map = |entries: &[(&str, Value)]| {
        Value::Map(entries.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect())
    };
    let question =
        map(&[("Name", text(data.name)), ("Qtype", number(data.question.0)), ("Qclass", number(data.question.1))]);
    let edns = data.edns.map(|(size, dnssec_ok)| message::edns(size, dnssec_ok, data.options));
    let [answer, authority, additional] = message::sections(data.records, edns.as_ref());
    let message = map(&[
        ("Id", number(id)),
        ("Opcode", number((flags & flag::OPCODE) >> 11)),
        ("Rcode", number(flags & flag::RCODE)),
        ("Response", is(flag::QR)),
        ("Authoritative", is(flag::AA)),
        ("Truncated", is(flag::TC)),
        ("RecursionDesired", is(flag::RD)),
        ("RecursionAvailable", is(flag::RA)),
        ("Zero", is(0x0040)),
        ("AuthenticatedData", is(flag::AD)),
        ("CheckingDisabled", is(flag::CD)),
        ("Question", Value::List([question.clone()].into())),
        ("Answer", answer),
        ("Ns", authority),
        ("Extra", additional),
        ("IsEdns0", edns.unwrap_or(Value::Nil)),
    ]);
    let mut groups: Vec<(String, Value)> =
        data.groups.iter().map(|(name, value)| ((*name).to_owned(), text(value))).collect();
    groups.sort_by(|one, other| one.0.cmp(&other.0));
    map(&[
        ("Zone", text(data.zone)),
        ("Name", text(data.name)),
        ("Class", text(data.class)),
        ("Type", text(data.rtype)),
        ("Regex", text(data.regex)),
        ("Remote", text(data.remote)),
        ("Match", Value::List(data.matches.iter().map(|one| text(one)).collect())),
        ("Group", Value::Map(groups.into())),
        ("Question", question),
        ("Message", message),
    ])
}

struct Evaluation<'a> {
    /// What `$` is.
    root: Value,
    defined: &'a [(String, Vec<Node>)],
    meta: &'a dyn Fn(&str) -> Option<String>,
    variables: Vec<(&'a str, Value)>,
    out: String,
    steps: usize,
    /// How many templates have called each other.
    calls: usize,
}

/// How a list of nodes ended.
#[derive(PartialEq, Eq)]
enum Flow {
    On,
    Break,
    Continue,
}

impl<'a> Evaluation<'a> {
    fn nodes(&mut self, nodes: &'a [Node], dot: &Value) -> Result<Flow, TemplateError> {
        let known = self.variables.len();
        let mut flow = Flow::On;
        for node in nodes {
            flow = self.node(node, dot)?;
            if flow != Flow::On {
                break;
            }
        }
        self.variables.truncate(known);
        Ok(flow)
    }

    fn node(&mut self, node: &'a Node, dot: &Value) -> Result<Flow, TemplateError> {
        self.steps += 1;
        if self.steps > STEPS || self.out.len() > LONGEST {
            return error(1, "the template goes on for too long");
        }
        match node {
            Node::Text(text) => self.out.push_str(text),
            Node::Print(pipeline) => {
                let value = self.pipeline(pipeline, dot)?;
                self.out.push_str(&print::print(&[value]));
            }
            Node::Set(pipeline) => {
                let value = self.pipeline(pipeline, dot)?;
                for variable in &pipeline.variables {
                    self.set(variable, value.clone(), pipeline.declares);
                }
            }
            Node::If { pipeline, then, otherwise } => return self.choose(pipeline, then, otherwise, dot, false),
            Node::With { pipeline, then, otherwise } => return self.choose(pipeline, then, otherwise, dot, true),
            Node::Range { pipeline, then, otherwise } => return self.range(pipeline, then, otherwise, dot),
            Node::Template { at, name, pipeline } => {
                let given = match pipeline {
                    Some(pipeline) => self.pipeline(pipeline, dot)?,
                    None => Value::Nil,
                };
                self.template(*at, name, &given)?;
            }
            Node::Break => return Ok(Flow::Break),
            Node::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::On)
    }

    /// Another template, which knows nothing but what it is given.
    fn template(&mut self, at: usize, name: &str, given: &Value) -> Result<(), TemplateError> {
        if self.calls == CALLS {
            return error(at, format!("templates call each other more than {CALLS} deep"));
        }
        let defined = self.defined;
        let Some((_, nodes)) = defined.iter().find(|(known, _)| known == name) else {
            return error(at, format!("there is no template {name:?}"));
        };
        let variables = std::mem::take(&mut self.variables);
        let root = std::mem::replace(&mut self.root, given.clone());
        self.calls += 1;
        let done = self.nodes(nodes, given);
        self.calls -= 1;
        (self.variables, self.root) = (variables, root);
        done.map(|_| ())
    }

    fn choose(
        &mut self,
        pipeline: &'a Pipeline,
        then: &'a [Node],
        otherwise: &'a [Node],
        dot: &Value,
        becomes_dot: bool,
    ) -> Result<Flow, TemplateError> {
        let known = self.variables.len();
        let value = self.pipeline(pipeline, dot)?;
        for variable in &pipeline.variables {
            self.set(variable, value.clone(), pipeline.declares);
        }
        let flow = match (truth(&value), becomes_dot) {
            (true, true) => self.nodes(then, &value),
            (true, false) => self.nodes(then, dot),
            (false, _) => self.nodes(otherwise, dot),
        };
        self.variables.truncate(known);
        flow
    }

    fn range(
        &mut self,
        pipeline: &'a Pipeline,
        then: &'a [Node],
        otherwise: &'a [Node],
        dot: &Value,
    ) -> Result<Flow, TemplateError> {
        let elements: Vec<(Value, Value)> = match self.pipeline(pipeline, dot)? {
            Value::List(list) => {
                list.iter().enumerate().map(|(index, value)| (Value::Int(index as i128), value.clone())).collect()
            }
            Value::Map(map) => map.iter().map(|(key, value)| (Value::Text(key.clone()), value.clone())).collect(),
            Value::Int(count) if (0..=STEPS as i128).contains(&count) => {
                (0..count).map(|index| (Value::Int(index), Value::Int(index))).collect()
            }
            Value::Nil => Vec::new(),
            _ => return error(pipeline.at, "range cannot go through this value"),
        };
        if elements.is_empty() {
            return self.nodes(otherwise, dot);
        }
        let known = self.variables.len();
        for (index, element) in elements {
            match pipeline.variables.as_slice() {
                [one] => self.set(one, element.clone(), pipeline.declares),
                [one, two] => {
                    self.set(one, index, pipeline.declares);
                    self.set(two, element.clone(), pipeline.declares);
                }
                _ => {}
            }
            let flow = self.nodes(then, &element)?;
            self.variables.truncate(known);
            if flow == Flow::Break {
                break;
            }
        }
        Ok(Flow::On)
    }

    fn set(&mut self, name: &'a str, value: Value, declares: bool) {
        match self.variables.iter_mut().rev().find(|(known, _)| *known == name && !declares) {
            Some((_, known)) => *known = value,
            None => self.variables.push((name, value)),
        }
    }

    fn pipeline(&mut self, pipeline: &'a Pipeline, dot: &Value) -> Result<Value, TemplateError> {
        let mut last = None;
        for command in &pipeline.commands {
            last = Some(self.command(command, last.take(), dot)?);
        }
        Ok(last.unwrap_or(Value::Nil))
    }

    fn command(&mut self, command: &'a Command, piped: Option<Value>, dot: &Value) -> Result<Value, TemplateError> {
        self.steps += 1;
        let function = match &command.call {
            Call::Value(operand) => return self.operand(operand, dot, command.at),
            Call::Meta => None,
            Call::Function(function) => Some(*function),
        };
        // These stop at the first argument that decides.
        if let Some(function @ (Function::And | Function::Or)) = function {
            let mut value = Value::Nil;
            for operand in &command.arguments {
                value = self.operand(operand, dot, command.at)?;
                if truth(&value) == (function == Function::Or) {
                    return Ok(value);
                }
            }
            return Ok(piped.unwrap_or(value));
        }
        let mut arguments = Vec::new();
        for operand in &command.arguments {
            arguments.push(self.operand(operand, dot, command.at)?);
        }
        arguments.extend(piped);
        match (function, arguments.as_slice()) {
            (Some(function), arguments) => call(function, arguments).or_else(|reason| error(command.at, reason)),
            (None, [Value::Text(label)]) => Ok(Value::Text((self.meta)(label).unwrap_or_default())),
            (None, _) => error(command.at, "the label of \".Meta\" has to be a text"),
        }
    }

    fn operand(&mut self, operand: &'a Operand, dot: &Value, at: usize) -> Result<Value, TemplateError> {
        if let Some(value) = self.place(operand, dot) {
            return Ok(value.clone());
        }
        let no_field = |name: &str| error(at, format!("this value has no field {name:?}"));
        match operand {
            Operand::Pipeline(pipeline) => self.pipeline(pipeline, dot),
            Operand::Field(base, name) => match self.operand(base, dot, at)? {
                Value::Map(map) => {
                    let found = map.iter().find(|(known, _)| known == name);
                    // A group that did not take part, or that another expression has.
                    Ok(found.map_or(Value::Text(String::new()), |(_, value)| value.clone()))
                }
                Value::Record(record) if name == "String" => Ok(Value::Text(record.0.clone())),
                Value::Record(record) => match record.1.iter().find(|(known, _)| known == name) {
                    Some((_, value)) => Ok(value.clone()),
                    None => no_field(name),
                },
                _ => no_field(name),
            },
            // A variable that is not there; all others have a place.
            Operand::Variable(_) | Operand::Dot | Operand::Root | Operand::Constant(_) => Ok(Value::Nil),
        }
    }

    /// What an operand names, where it stands: what it is a field of need not be copied.
    fn place<'v>(&'v self, operand: &'v Operand, dot: &'v Value) -> Option<&'v Value> {
        match operand {
            Operand::Dot => Some(dot),
            Operand::Root => Some(&self.root),
            Operand::Constant(value) => Some(value),
            Operand::Variable(name) => {
                self.variables.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value)
            }
            Operand::Pipeline(_) => None,
            Operand::Field(base, name) => {
                let fields = match self.place(base, dot)? {
                    Value::Map(map) => &map[..],
                    Value::Record(record) if name != "String" => &record.1[..],
                    _ => return None,
                };
                fields.iter().find(|(known, _)| known == name).map(|(_, value)| value)
            }
        }
    }
}
