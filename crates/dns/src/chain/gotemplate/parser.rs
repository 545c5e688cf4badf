//! From words to a tree, with everything looked up.

use super::{
    Call, Command, Node, Operand, Parsed, Pipeline, TemplateError, Value, error,
    functions::{Function, check},
    lexer::{Item, Kind, Token},
    shape::{self, Shape},
};

/// How deep actions and parentheses may be nested.
const DEPTH: usize = 32;

pub(super) fn parse(items: Vec<Item>, groups: &[&str]) -> Result<Parsed, TemplateError> {
    let around = Around { root: Shape::Root, dots: vec![Shape::Root], variables: Vec::new(), loops: 0 };
    let (items, defined) = (items.into_iter(), Vec::new());
    let mut parser = Parser { items, groups, around, within: 0, defined, called: Vec::new(), reads_records: false };
    let (nodes, end) = parser.nodes()?;
    if let Some(End { at, word, .. }) = end {
        return error(at, format!("{word:?} closes nothing"));
    }
    let Parser { defined, called, reads_records, .. } = parser;
    let unknown = called.into_iter().find(|(_, name)| defined.iter().all(|(known, _)| known != name));
    match unknown {
        Some((at, name)) => error(at, format!("there is no template {name:?}")),
        None => Ok(Parsed { nodes, defined, reads_records }),
    }
}

struct Parser<'a> {
    items: std::vec::IntoIter<Item>,
    groups: &'a [&'a str],
    around: Around,
    /// How many templates, sections and parentheses' actions there are around.
    within: usize,
    /// The templates within this one.
    defined: Vec<(String, Vec<Node>)>,
    /// Those that are called, and where.
    called: Vec<(usize, String)>,
    reads_records: bool,
}

/// What is known at a place of a template; one that is called knows nothing of who calls it.
struct Around {
    /// What `$` is.
    root: Shape,
    /// What the dot is, innermost last.
    dots: Vec<Shape>,
    variables: Vec<(String, Shape)>,
    /// How many `range` there are around.
    loops: usize,
}

/// What ends a list of nodes: `end`, or `else` with what follows it.
struct End {
    at: usize,
    word: &'static str,
    tokens: Vec<Token>,
}

impl Parser<'_> {
    fn nodes(&mut self) -> Result<(Vec<Node>, Option<End>), TemplateError> {
        let mut nodes = Vec::new();
        while let Some(item) = self.items.next() {
            let (at, tokens) = match item {
                Item::Text(text) => {
                    nodes.push(Node::Text(text));
                    continue;
                }
                Item::Action { at, tokens } => (at, tokens),
            };
            let word = match tokens.first().map(|token| &token.kind) {
                Some(Kind::Word(word)) => word.clone(),
                _ => String::new(),
            };
            match word.as_str() {
                "end" => {
                    alone(&tokens)?;
                    return Ok((nodes, Some(End { at, word: "end", tokens: Vec::new() })));
                }
                "else" => return Ok((nodes, Some(End { at, word: "else", tokens: tokens[1..].to_vec() }))),
                "if" | "with" | "range" => nodes.push(self.section(&word, at, &tokens[1..])?),
                "define" => self.define(at, &tokens[1..])?,
                "template" | "block" => nodes.push(self.template(&word, at, &tokens[1..])?),
                "break" | "continue" => {
                    alone(&tokens)?;
                    if self.around.loops == 0 {
                        return error(at, format!("{word:?} stands in no range"));
                    }
                    nodes.push(if word == "break" { Node::Break } else { Node::Continue });
                }
                _ => {
                    let (pipeline, _) = self.pipeline(at, &tokens)?;
                    let set = !pipeline.variables.is_empty();
                    nodes.push(if set { Node::Set(pipeline) } else { Node::Print(pipeline) });
                }
            }
        }
        Ok((nodes, None))
    }

    /// `define "name"`, up to its `end`.
    fn define(&mut self, at: usize, tokens: &[Token]) -> Result<(), TemplateError> {
        if self.within > 0 {
            return error(at, "\"define\" stands in no other action");
        }
        match tokens {
            [Token { kind: Kind::Text(name), .. }] => self.body("define", at, name.clone()),
            _ => error(at, "\"define\" has one argument, a name between quotes"),
        }
    }

    /// `template "name"`, or `block "name"` up to its `end`, perhaps with what becomes the dot.
    fn template(&mut self, word: &str, at: usize, tokens: &[Token]) -> Result<Node, TemplateError> {
        let Some((Token { kind: Kind::Text(name), .. }, rest)) = tokens.split_first() else {
            return error(at, format!("behind {word:?} has to stand a name between quotes"));
        };
        let pipeline = match rest {
            [] if word == "block" => return error(at, "a \"block\" is given a value, such as a dot"),
            [] => None,
            rest => Some(self.pipeline(at, rest)?.0).filter(|pipeline| pipeline.variables.is_empty()),
        };
        if pipeline.is_none() && !rest.is_empty() {
            return error(at, format!("{word:?} has no variables"));
        }
        if word == "block" {
            self.body(word, at, name.clone())?;
        }
        self.called.push((at, name.clone()));
        Ok(Node::Template { at, name: name.clone(), pipeline })
    }

    /// The body of a template within this one, up to its `end`: what it is given is known only when it is called.
    fn body(&mut self, word: &str, at: usize, name: String) -> Result<(), TemplateError> {
        if self.within == DEPTH {
            return error(at, format!("actions are nested more than {DEPTH} deep"));
        }
        let inner = Around { root: Shape::Any, dots: vec![Shape::Any], variables: Vec::new(), loops: 0 };
        let outer = std::mem::replace(&mut self.around, inner);
        self.within += 1;
        let (nodes, end) = self.nodes()?;
        self.within -= 1;
        self.around = outer;
        match end {
            Some(End { word: "end", .. }) => {}
            Some(End { at, .. }) => return error(at, format!("{word:?} has no \"else\"")),
            None => return error(at, format!("this {word:?} has no \"end\"")),
        }
        // As in Go: one that says nothing takes no other's place, and gives way to any.
        let says_nothing =
            |nodes: &[Node]| nodes.iter().all(|node| matches!(node, Node::Text(text) if text.trim().is_empty()));
        match self.defined.iter().position(|(known, _)| *known == name) {
            None => self.defined.push((name, nodes)),
            Some(known) if says_nothing(&self.defined[known].1) => self.defined[known].1 = nodes,
            Some(_) if says_nothing(&nodes) => {}
            Some(_) => return error(at, format!("there is a template {name:?} already")),
        }
        Ok(())
    }

    /// `if`, `with` or `range`, up to its `end`.
    fn section(&mut self, word: &str, at: usize, tokens: &[Token]) -> Result<Node, TemplateError> {
        if self.within == DEPTH {
            return error(at, format!("actions are nested more than {DEPTH} deep"));
        }
        self.within += 1;
        let section = self.branches(word, at, tokens);
        self.within -= 1;
        section
    }

    fn branches(&mut self, word: &str, at: usize, tokens: &[Token]) -> Result<Node, TemplateError> {
        let known = self.around.variables.len();
        let (pipeline, shape) = self.pipeline(at, tokens)?;
        if pipeline.variables.len() > 1 && word != "range" {
            return error(at, format!("{word:?} has one variable at most"));
        }
        let dot = self.dot();
        let inner = match (word, shape) {
            ("if", _) => dot,
            ("with", shape) => shape,
            (_, Shape::Questions) => Shape::Question,
            (_, Shape::Texts | Shape::Groups) => Shape::Plain,
            _ => Shape::Any,
        };
        if word == "range" {
            self.around.loops += 1;
            self.reshape(&pipeline, inner);
        }
        self.around.dots.push(inner);
        let (then, end) = self.nodes()?;
        self.around.dots.pop();
        self.around.loops -= usize::from(word == "range");
        self.around.dots.push(dot);
        let otherwise = self.otherwise(word, at, end);
        self.around.dots.pop();
        self.around.variables.truncate(known);
        let otherwise = otherwise?;
        Ok(match word {
            "if" => Node::If { pipeline, then, otherwise },
            "with" => Node::With { pipeline, then, otherwise },
            _ => Node::Range { pipeline, then, otherwise },
        })
    }

    /// What stands behind `else`, up to the `end`.
    fn otherwise(&mut self, word: &str, at: usize, end: Option<End>) -> Result<Vec<Node>, TemplateError> {
        let Some(end) = end else { return error(at, format!("this {word:?} has no \"end\"")) };
        if end.word == "end" {
            return Ok(Vec::new());
        }
        let Some((first, rest)) = end.tokens.split_first() else {
            let (nodes, end) = self.nodes()?;
            return match end {
                Some(End { word: "end", .. }) => Ok(nodes),
                Some(End { at, .. }) => error(at, "here stands a second \"else\""),
                None => error(at, format!("this {word:?} has no \"end\"")),
            };
        };
        match &first.kind {
            // `else if` shares its end.
            Kind::Word(next) if next == word && word != "range" => {
                let next = next.clone();
                Ok(vec![self.section(&next, first.at, rest)?])
            }
            _ => error(first.at, format!("behind \"else\" of {word:?} nothing can stand, or {word:?} again")),
        }
    }

    /// The variables of a `range` are elements of what it goes through.
    fn reshape(&mut self, pipeline: &Pipeline, element: Shape) {
        if let (true, Some(last)) = (pipeline.declares, pipeline.variables.last()) {
            let own = self.around.variables.iter_mut().rev().find(|(name, _)| name == last);
            if let Some((_, shape)) = own {
                *shape = element;
            }
        }
    }

    fn pipeline(&mut self, at: usize, tokens: &[Token]) -> Result<(Pipeline, Shape), TemplateError> {
        let (variables, declares, from) = declaration(tokens);
        let mut words = Words { tokens, next: from, depth: 0 };
        let (commands, shape) = self.commands(at, &mut words)?;
        if let Some(token) = words.peek() {
            return error(token.at, "here the action has to end");
        }
        for variable in &variables {
            if declares {
                self.around.variables.push((variable.clone(), shape));
            } else if !self.around.variables.iter().any(|(name, _)| name == variable) {
                return error(at, format!("there is no variable \"${variable}\""));
            }
        }
        Ok((Pipeline { at, variables, declares, commands }, shape))
    }

    fn commands(&mut self, at: usize, words: &mut Words<'_>) -> Result<(Vec<Command>, Shape), TemplateError> {
        let mut commands = Vec::new();
        loop {
            let (command, shape) = self.command(at, words, !commands.is_empty())?;
            commands.push(command);
            match words.peek() {
                Some(Token { kind: Kind::Pipe, .. }) => words.next += 1,
                _ => return Ok((commands, shape)),
            }
        }
    }

    /// One command of a pipeline; `piped`: it gets the value of the one before as its last argument.
    fn command(&mut self, at: usize, words: &mut Words<'_>, piped: bool) -> Result<(Command, Shape), TemplateError> {
        let Some(first) = words.peek().cloned() else { return error(at, "here a value is missing") };
        let function = match &first.kind {
            Kind::Word(word) if !matches!(word.as_str(), "true" | "false" | "nil") => {
                words.next += 1;
                let Some(function) = Function::named(word) else {
                    return error(first.at, format!("function {word:?} is not known; known are {}", Function::names()));
                };
                Some(function)
            }
            _ => None,
        };
        let head = if function.is_none() { Some(self.operand(words)?) } else { None };
        let mut arguments = Vec::new();
        while let Some(token) = words.peek() {
            if matches!(token.kind, Kind::Pipe | Kind::Close) {
                break;
            }
            let at = token.at;
            let operand = self.operand(words)?.0;
            if matches!(&operand, Operand::Field(base, name) if name == "Meta" && self.is_root(base)) {
                return error(at, "a call of \".Meta\" as an argument stands between parentheses");
            }
            arguments.push(operand);
        }
        let count = arguments.len() + usize::from(piped);
        let (call, shape) = match (function, head) {
            (Some(function), _) => {
                check(function, &arguments, count).or_else(|reason| error(first.at, reason))?;
                (Call::Function(function), Shape::Any)
            }
            (None, Some((Operand::Field(base, name), _))) if name == "Meta" && self.is_root(&base) => {
                if count != 1 {
                    return error(first.at, "\".Meta\" takes one argument, the label");
                }
                (Call::Meta, Shape::Plain)
            }
            (None, Some((operand, shape))) if count == 0 => (Call::Value(operand), shape),
            _ => return error(first.at, "what is no function takes no arguments"),
        };
        Ok((Command { at: first.at, call, arguments }, shape))
    }

    fn is_root(&self, operand: &Operand) -> bool {
        matches!(operand, Operand::Root)
            // What a template is given may be that, too.
            || (matches!(operand, Operand::Dot) && matches!(self.dot(), Shape::Root | Shape::Any))
    }

    fn dot(&self) -> Shape {
        *self.around.dots.last().unwrap_or(&Shape::Any)
    }

    fn operand(&mut self, words: &mut Words<'_>) -> Result<(Operand, Shape), TemplateError> {
        let Some(token) = words.peek().cloned() else { return error(1, "here a value is missing") };
        words.next += 1;
        let dot = self.dot();
        let constant = |value| Ok((Operand::Constant(value), Shape::Plain));
        let (mut operand, mut shape) = match token.kind {
            Kind::Dot => (Operand::Dot, dot),
            Kind::Field(name) => self.field(Operand::Dot, dot, name, token.at)?,
            Kind::Variable(name) if name.is_empty() => (Operand::Root, self.around.root),
            Kind::Variable(name) => match self.around.variables.iter().rev().find(|(known, _)| *known == name) {
                Some((_, shape)) => (Operand::Variable(name), *shape),
                None => return error(token.at, format!("there is no variable \"${name}\"")),
            },
            Kind::Text(text) => return constant(Value::Text(text)),
            Kind::Int(value) => return constant(Value::Int(value)),
            Kind::Float(value) => return constant(Value::Float(value)),
            Kind::Word(word) => {
                return match word.as_str() {
                    "true" => constant(Value::Bool(true)),
                    "false" => constant(Value::Bool(false)),
                    "nil" => constant(Value::Nil),
                    _ => error(token.at, format!("{word:?} cannot be an argument; put a call between parentheses")),
                };
            }
            Kind::Open => {
                words.depth += 1;
                if words.depth > DEPTH {
                    return error(token.at, format!("parentheses are nested more than {DEPTH} deep"));
                }
                let (commands, shape) = self.commands(token.at, words)?;
                words.depth -= 1;
                match words.peek() {
                    Some(Token { kind: Kind::Close, .. }) => words.next += 1,
                    _ => return error(token.at, "this \"(\" is never closed"),
                }
                let pipeline = Pipeline { at: token.at, variables: Vec::new(), declares: false, commands };
                (Operand::Pipeline(Box::new(pipeline)), shape)
            }
            _ => return error(token.at, "here a value is missing"),
        };
        while let Some(Token { kind: Kind::Field(name), spaced: false, at }) = words.peek().cloned() {
            words.next += 1;
            (operand, shape) = self.field(operand, shape, name, at)?;
        }
        Ok((operand, shape))
    }

    fn field(&mut self, base: Operand, of: Shape, name: String, at: usize) -> Result<(Operand, Shape), TemplateError> {
        let shape = shape::field(of, &name, self.groups, at)?;
        self.reads_records |= shape::is_of_records(of, &name);
        Ok((Operand::Field(Box::new(base), name), shape))
    }
}

struct Words<'a> {
    tokens: &'a [Token],
    next: usize,
    depth: usize,
}

impl Words<'_> {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.next)
    }
}

/// The variables before `:=` or `=`, whether they are new, and how many words that are.
fn declaration(tokens: &[Token]) -> (Vec<String>, bool, usize) {
    let kinds: Vec<&Kind> = tokens.iter().take(4).map(|token| &token.kind).collect();
    match kinds.as_slice() {
        [Kind::Variable(one), sign @ (Kind::Declare | Kind::Assign), ..] if !one.is_empty() => {
            (vec![one.clone()], **sign == Kind::Declare, 2)
        }
        [Kind::Variable(one), Kind::Comma, Kind::Variable(two), sign @ (Kind::Declare | Kind::Assign)] => {
            (vec![one.clone(), two.clone()], **sign == Kind::Declare, 4)
        }
        _ => (Vec::new(), false, 0),
    }
}

/// The action is one word.
fn alone(tokens: &[Token]) -> Result<(), TemplateError> {
    match tokens.get(1) {
        None => Ok(()),
        Some(token) => error(token.at, "here the action has to end"),
    }
}
