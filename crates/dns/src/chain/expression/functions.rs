//! The functions of expressions: what they are called, what they take and what they give.

use super::{
    Each, ExpressionError, Field, Node, error,
    types::{Type, Typed},
};

/// A function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Function {
    InNetwork,
    Metadata,
    Text(OfText),
    Number(OfNumber),
    List(OfList),
    Map(OfMap),
}

/// A function of texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OfText {
    Trim,
    TrimPrefix,
    TrimSuffix,
    Upper,
    Lower,
    Split,
    SplitAfter,
    Replace,
    Repeat,
    IndexOf,
    LastIndexOf,
    HasPrefix,
    HasSuffix,
}

/// A function of numbers, or one that makes or tells them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OfNumber {
    Abs,
    Ceil,
    Floor,
    Round,
    ToInt,
    ToFloat,
    ToText,
    Max,
    Min,
    And,
    Or,
    Xor,
    AndNot,
    Not,
    Left,
    Right,
    RightUnsigned,
}

/// A function of lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OfList {
    Len,
    First,
    Last,
    Take,
    Get,
    Join,
    Sum,
    Mean,
    Median,
    Sort,
    Reverse,
    Uniq,
    Concat,
    Flatten,
    Count,
}

/// A function of maps, or one that writes values down in another way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OfMap {
    Keys,
    Values,
    ToPairs,
    FromPairs,
    ToJson,
    FromJson,
    ToBase64,
    FromBase64,
}

/// What an argument has to be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wants {
    Any,
    Text,
    Int,
    Number,
    List,
    Texts,
    Numbers,
    Truths,
    Map,
    Members,
    TextOrMembers,
    Place,
    NumberOrNumbers,
}

impl Wants {
    fn takes(self, kind: Type) -> bool {
        match self {
            Self::Any => true,
            Self::Text => kind.fits(Type::TEXT),
            Self::Int => kind.fits(Type::INT),
            Self::Number => kind.fits(Type::FLOAT),
            Self::List => kind.fits(Type::ANY.listed()),
            Self::Texts => kind.fits(Type::TEXT.listed()),
            Self::Numbers => kind.fits(Type::FLOAT.listed()),
            Self::Truths => kind.fits(Type::BOOL.listed()),
            Self::Map => kind.fits(Type::MAP),
            Self::Members => Self::List.takes(kind) || Self::Map.takes(kind),
            Self::TextOrMembers => Self::Text.takes(kind) || Self::Members.takes(kind),
            Self::Place => Self::Int.takes(kind) || Self::Text.takes(kind),
            Self::NumberOrNumbers => Self::Number.takes(kind) || Self::Numbers.takes(kind),
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Any => "value",
            Self::Text => "text",
            Self::Int => "whole number",
            Self::Number => "number",
            Self::List => "list",
            Self::Texts => "list of texts",
            Self::Numbers => "list of numbers",
            Self::Truths => "list of truths",
            Self::Map => "map",
            Self::Members => "list or map",
            Self::TextOrMembers => "text, list or map",
            Self::Place => "whole number or text",
            Self::NumberOrNumbers => "number or list of numbers",
        }
    }
}

/// What a function gives.
#[derive(Clone, Copy)]
enum Gives {
    This(Type),
    /// What its first argument is.
    First,
    /// What an element of its first argument is.
    Element,
    /// A number, and a fraction where one of its arguments has any.
    Number,
}

struct Known {
    name: &'static str,
    function: Function,
    wants: &'static [Wants],
    /// So many of them have to be there.
    needs: usize,
    gives: Gives,
}

const fn known(name: &'static str, function: Function, wants: &'static [Wants], needs: usize, gives: Gives) -> Known {
    Known { name, function, wants, needs, gives }
}

/// These take their last argument any number of times.
const REPEATED: [&str; 3] = ["concat", "max", "min"];

const BOOL: Gives = Gives::This(Type::BOOL);
const INT: Gives = Gives::This(Type::INT);
const FLOAT: Gives = Gives::This(Type::FLOAT);
const TEXT: Gives = Gives::This(Type::TEXT);
const TEXTS: Gives = Gives::This(Type::TEXT.listed());
const LIST: Gives = Gives::This(Type::ANY.listed());

const MAP: Gives = Gives::This(Type::MAP);
const ANY: Gives = Gives::This(Type::ANY);

const KNOWN: [Known; 55] = [
    known("incidr", Function::InNetwork, &[Wants::Text, Wants::Text], 2, BOOL),
    known("metadata", Function::Metadata, &[Wants::Text], 1, TEXT),
    known("trim", Function::Text(OfText::Trim), &[Wants::Text, Wants::Text], 1, TEXT),
    known("trimPrefix", Function::Text(OfText::TrimPrefix), &[Wants::Text, Wants::Text], 2, TEXT),
    known("trimSuffix", Function::Text(OfText::TrimSuffix), &[Wants::Text, Wants::Text], 2, TEXT),
    known("upper", Function::Text(OfText::Upper), &[Wants::Text], 1, TEXT),
    known("lower", Function::Text(OfText::Lower), &[Wants::Text], 1, TEXT),
    known("split", Function::Text(OfText::Split), &[Wants::Text, Wants::Text, Wants::Int], 2, TEXTS),
    known("splitAfter", Function::Text(OfText::SplitAfter), &[Wants::Text, Wants::Text, Wants::Int], 2, TEXTS),
    known("replace", Function::Text(OfText::Replace), &[Wants::Text, Wants::Text, Wants::Text], 3, TEXT),
    known("repeat", Function::Text(OfText::Repeat), &[Wants::Text, Wants::Int], 2, TEXT),
    known("indexOf", Function::Text(OfText::IndexOf), &[Wants::Text, Wants::Text], 2, INT),
    known("lastIndexOf", Function::Text(OfText::LastIndexOf), &[Wants::Text, Wants::Text], 2, INT),
    known("hasPrefix", Function::Text(OfText::HasPrefix), &[Wants::Text, Wants::Text], 2, BOOL),
    known("hasSuffix", Function::Text(OfText::HasSuffix), &[Wants::Text, Wants::Text], 2, BOOL),
    known("abs", Function::Number(OfNumber::Abs), &[Wants::Number], 1, Gives::First),
    known("ceil", Function::Number(OfNumber::Ceil), &[Wants::Number], 1, FLOAT),
    known("floor", Function::Number(OfNumber::Floor), &[Wants::Number], 1, FLOAT),
    known("round", Function::Number(OfNumber::Round), &[Wants::Number], 1, FLOAT),
    known("int", Function::Number(OfNumber::ToInt), &[Wants::Any], 1, INT),
    known("float", Function::Number(OfNumber::ToFloat), &[Wants::Any], 1, FLOAT),
    known("string", Function::Number(OfNumber::ToText), &[Wants::Any], 1, TEXT),
    known("max", Function::Number(OfNumber::Max), &[Wants::NumberOrNumbers], 1, Gives::Number),
    known("min", Function::Number(OfNumber::Min), &[Wants::NumberOrNumbers], 1, Gives::Number),
    known("bitand", Function::Number(OfNumber::And), &[Wants::Int, Wants::Int], 2, INT),
    known("bitor", Function::Number(OfNumber::Or), &[Wants::Int, Wants::Int], 2, INT),
    known("bitxor", Function::Number(OfNumber::Xor), &[Wants::Int, Wants::Int], 2, INT),
    known("bitnand", Function::Number(OfNumber::AndNot), &[Wants::Int, Wants::Int], 2, INT),
    known("bitnot", Function::Number(OfNumber::Not), &[Wants::Int], 1, INT),
    known("bitshl", Function::Number(OfNumber::Left), &[Wants::Int, Wants::Int], 2, INT),
    known("bitshr", Function::Number(OfNumber::Right), &[Wants::Int, Wants::Int], 2, INT),
    known("bitushr", Function::Number(OfNumber::RightUnsigned), &[Wants::Int, Wants::Int], 2, INT),
    known("len", Function::List(OfList::Len), &[Wants::TextOrMembers], 1, INT),
    known("first", Function::List(OfList::First), &[Wants::List], 1, Gives::Element),
    known("last", Function::List(OfList::Last), &[Wants::List], 1, Gives::Element),
    known("take", Function::List(OfList::Take), &[Wants::List, Wants::Int], 2, Gives::First),
    known("get", Function::List(OfList::Get), &[Wants::Members, Wants::Place], 2, Gives::Element),
    known("join", Function::List(OfList::Join), &[Wants::Texts, Wants::Text], 1, TEXT),
    known("sum", Function::List(OfList::Sum), &[Wants::Numbers], 1, Gives::Number),
    known("mean", Function::List(OfList::Mean), &[Wants::Numbers], 1, FLOAT),
    known("median", Function::List(OfList::Median), &[Wants::Numbers], 1, FLOAT),
    known("sort", Function::List(OfList::Sort), &[Wants::List, Wants::Text], 1, Gives::First),
    known("reverse", Function::List(OfList::Reverse), &[Wants::List], 1, Gives::First),
    known("uniq", Function::List(OfList::Uniq), &[Wants::List], 1, Gives::First),
    known("concat", Function::List(OfList::Concat), &[Wants::List], 1, LIST),
    known("flatten", Function::List(OfList::Flatten), &[Wants::List], 1, LIST),
    known("count", Function::List(OfList::Count), &[Wants::Truths], 1, INT),
    known("keys", Function::Map(OfMap::Keys), &[Wants::Map], 1, TEXTS),
    known("values", Function::Map(OfMap::Values), &[Wants::Map], 1, LIST),
    known("toPairs", Function::Map(OfMap::ToPairs), &[Wants::Map], 1, LIST),
    known("fromPairs", Function::Map(OfMap::FromPairs), &[Wants::List], 1, MAP),
    known("toJSON", Function::Map(OfMap::ToJson), &[Wants::Any], 1, TEXT),
    known("fromJSON", Function::Map(OfMap::FromJson), &[Wants::Text], 1, ANY),
    known("toBase64", Function::Map(OfMap::ToBase64), &[Wants::Text], 1, TEXT),
    known("fromBase64", Function::Map(OfMap::FromBase64), &[Wants::Text], 1, TEXT),
];

/// What asks each element of a list.
const EACH: [(&str, Each); 13] = [
    ("all", Each::All),
    ("any", Each::Any),
    ("one", Each::One),
    ("none", Each::None),
    ("count", Each::Count),
    ("filter", Each::Filter),
    ("map", Each::Map),
    ("find", Each::Find),
    ("findIndex", Each::FindIndex),
    ("findLast", Each::FindLast),
    ("findLastIndex", Each::FindLastIndex),
    ("groupBy", Each::Group),
    ("sortBy", Each::Sort { backwards: false }),
];

/// What is told of a question.
const FIELDS: [(&str, Field, Type); 13] = [
    ("bufsize", Field::Bufsize, Type::INT),
    ("class", Field::Class, Type::TEXT),
    ("client_ip", Field::ClientIp, Type::TEXT),
    ("do", Field::Do, Type::BOOL),
    ("id", Field::Id, Type::INT),
    ("name", Field::Name, Type::TEXT),
    ("opcode", Field::Opcode, Type::INT),
    ("port", Field::Port, Type::TEXT),
    ("proto", Field::Proto, Type::TEXT),
    ("server_ip", Field::ServerIp, Type::TEXT),
    ("server_port", Field::ServerPort, Type::TEXT),
    ("size", Field::Size, Type::INT),
    ("type", Field::Type, Type::TEXT),
];

/// An argument of a call, and where it begins.
pub(super) struct Argument {
    pub(super) at: usize,
    pub(super) value: Typed,
}

/// What asks each element of a list.
pub(super) fn each(word: &str) -> Option<Each> {
    EACH.iter().find(|(name, _)| *name == word).map(|(_, each)| *each)
}

/// Whether a word means something already.
pub(super) fn is_taken(word: &str) -> bool {
    const WORDS: [&str; 14] = [
        "and",
        "or",
        "not",
        "in",
        "contains",
        "startsWith",
        "endsWith",
        "matches",
        "true",
        "false",
        "nil",
        "let",
        "if",
        "else",
    ];
    WORDS.contains(&word) || names().any(|name| name == word)
}

fn names() -> impl Iterator<Item = &'static str> {
    let fields = FIELDS.iter().map(|(name, ..)| *name);
    let of_each = EACH.iter().map(|(name, _)| *name).filter(|name| *name != "count");
    fields.chain(KNOWN.iter().map(|known| known.name)).chain(of_each).chain(["reduce"])
}

/// A call of a function.
pub(super) fn call(word: &str, at: usize, arguments: Vec<Argument>) -> Result<Typed, ExpressionError> {
    if let Some((_, field, kind)) = FIELDS.iter().find(|(name, ..)| *name == word) {
        return match arguments.first() {
            None => Ok(Typed::leaf(Node::Field(*field), *kind)),
            Some(first) => error(first.at, format!("{word}() takes no arguments")),
        };
    }
    let Some(known) = KNOWN.iter().find(|known| known.name == word) else {
        let known: Vec<&str> = names().collect();
        return error(at, format!("function {word:?} is not known; known are {}", known.join(", ")));
    };
    let repeated = REPEATED.contains(&word);
    if arguments.len() < known.needs || (arguments.len() > known.wants.len() && !repeated) {
        return error(at, format!("{word}() is called as {}", known.signature()));
    }
    for (index, argument) in arguments.iter().enumerate() {
        let wanted = known.wants.get(index).or(known.wants.last()).copied().unwrap_or(Wants::Any);
        if !wanted.takes(argument.value.kind) {
            let (signature, kind) = (known.signature(), argument.value.kind);
            return error(argument.at, format!("{word}() is called as {signature}, and this is {kind}"));
        }
    }
    let gives = known.gives(&arguments);
    let below = arguments.iter().map(|argument| argument.value.deep).max().unwrap_or(0);
    let network_at = arguments.get(1).map_or(at, |argument| argument.at);
    let nodes: Vec<Node> = arguments.into_iter().map(|argument| argument.value.node).collect();
    let node = match (known.function, <[Node; 2]>::try_from(nodes)) {
        // A network that stands there is read once.
        (Function::InNetwork, Ok([address, Node::Text(text)])) => match text.parse() {
            Ok(network) => Node::InNetwork(Box::new(address), network),
            Err(_) => return error(network_at, format!("{text:?} is no network such as 10.0.0.0/8")),
        },
        (function, Ok(two)) => Node::Call(function, two.into()),
        (function, Err(nodes)) => Node::Call(function, nodes),
    };
    Typed::over(at, node, gives, below)
}

impl Known {
    /// How it is called: `split(text, text[, whole number])`.
    fn signature(&self) -> String {
        let mut text = format!("{}(", self.name);
        for (index, wants) in self.wants.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            let wanted = format!("{comma}{}", wants.name());
            text += &if index < self.needs { wanted } else { format!("[{wanted}]") };
        }
        text + if REPEATED.contains(&self.name) { ", …)" } else { ")" }
    }

    fn gives(&self, arguments: &[Argument]) -> Type {
        let first = arguments.first().map_or(Type::ANY, |argument| argument.value.kind);
        match self.gives {
            Gives::This(kind) => kind,
            Gives::First => first,
            Gives::Element => first.element().unwrap_or(Type::ANY),
            Gives::Number => {
                let kinds = arguments.iter().map(|argument| argument.value.kind);
                let numbers = kinds.map(|kind| kind.element().unwrap_or(kind));
                numbers.reduce(|one, other| one.joint(other).unwrap_or(Type::FLOAT)).unwrap_or(Type::ANY)
            }
        }
    }
}
