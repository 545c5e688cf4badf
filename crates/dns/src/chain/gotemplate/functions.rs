//! The functions of templates.

use super::{Operand, Value, escape, print};

/// A function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Function {
    And,
    Or,
    Not,
    Len,
    Index,
    Slice,
    Print,
    Printf,
    Println,
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    Html,
    Js,
    UrlQuery,
    ParseInt,
}

/// Names, and the least and the most arguments.
const FUNCTIONS: [(&str, Function, usize, usize); 19] = [
    ("and", Function::And, 1, usize::MAX),
    ("or", Function::Or, 1, usize::MAX),
    ("not", Function::Not, 1, 1),
    ("len", Function::Len, 1, 1),
    ("index", Function::Index, 1, usize::MAX),
    ("slice", Function::Slice, 1, 4),
    ("print", Function::Print, 0, usize::MAX),
    ("printf", Function::Printf, 1, usize::MAX),
    ("println", Function::Println, 0, usize::MAX),
    ("eq", Function::Eq, 2, usize::MAX),
    ("ne", Function::Ne, 2, 2),
    ("lt", Function::Lt, 2, 2),
    ("le", Function::Le, 2, 2),
    ("gt", Function::Gt, 2, 2),
    ("ge", Function::Ge, 2, 2),
    ("html", Function::Html, 1, usize::MAX),
    ("js", Function::Js, 1, usize::MAX),
    ("urlquery", Function::UrlQuery, 1, usize::MAX),
    ("parseInt", Function::ParseInt, 3, 3),
];

impl Function {
    pub(super) fn named(name: &str) -> Option<Self> {
        FUNCTIONS.iter().find(|(known, ..)| *known == name).map(|(_, function, ..)| *function)
    }

    pub(super) fn names() -> String {
        FUNCTIONS.map(|(name, ..)| name).join(", ")
    }
}

/// Whether a call can be right: `count` arguments, of which these stand in the call itself.
pub(super) fn check(function: Function, arguments: &[Operand], count: usize) -> Result<(), String> {
    let (name, _, least, most) = FUNCTIONS.iter().find(|(_, known, ..)| *known == function).unwrap_or(&FUNCTIONS[0]);
    if count < *least || count > *most {
        let wanted = if least == most { format!("{least}") } else { format!("at least {least}") };
        return Err(format!("{name:?} has {count} arguments; it takes {wanted}"));
    }
    match (function, arguments.first()) {
        (Function::Printf, Some(Operand::Constant(Value::Text(format)))) => {
            let (least, most) = print::takes(format)?;
            if count - 1 < least || most.is_some_and(|most| count - 1 > most) {
                return Err(format!("the format {format:?} is for {least} values, there are {}", count - 1));
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Whether a value counts as true.
pub(super) fn truth(value: &Value) -> bool {
    match value {
        Value::Nil => false,
        Value::Bool(truth) => *truth,
        Value::Int(number) => *number != 0,
        Value::Float(number) => number.value() != 0.0,
        Value::Text(text) => !text.is_empty(),
        Value::List(list) => !list.is_empty(),
        Value::Map(map) => !map.is_empty(),
        Value::Record(..) => true,
    }
}

/// The value of a call, but not of `and` and `or`, which do not look at all of their arguments.
pub(super) fn call(function: Function, arguments: &[Value]) -> Result<Value, String> {
    match (function, arguments) {
        (Function::Not, [value]) => Ok(Value::Bool(!truth(value))),
        (Function::Len, [Value::Text(text)]) => Ok(Value::Int(text.len() as i128)),
        (Function::Len, [Value::List(list)]) => Ok(Value::Int(list.len() as i128)),
        (Function::Len, [Value::Map(map)]) => Ok(Value::Int(map.len() as i128)),
        (Function::Index, [value, indices @ ..]) => {
            indices.iter().try_fold(value.clone(), |value, index| element(&value, index))
        }
        (Function::Slice, [value, bounds @ ..]) => slice(value, bounds),
        (Function::Print, values) => Ok(Value::Text(print::print(values))),
        (Function::Println, values) => Ok(Value::Text(print::println(values))),
        (Function::Printf, [Value::Text(format), values @ ..]) => print::printf(format, values).map(Value::Text),
        (Function::Eq, [first, others @ ..]) => {
            let mut equal = false;
            for other in others {
                equal |= same(first, other)?;
            }
            Ok(Value::Bool(equal))
        }
        (Function::Ne, [one, other]) => same(one, other).map(|same| Value::Bool(!same)),
        (Function::Lt, [one, other]) => order(one, other).map(|order| Value::Bool(order.is_lt())),
        (Function::Le, [one, other]) => order(one, other).map(|order| Value::Bool(order.is_le())),
        (Function::Gt, [one, other]) => order(one, other).map(|order| Value::Bool(order.is_gt())),
        (Function::Ge, [one, other]) => order(one, other).map(|order| Value::Bool(order.is_ge())),
        (Function::Html, values) => Ok(Value::Text(escape::html(&print::print(values)))),
        (Function::Js, values) => Ok(Value::Text(escape::js(&print::print(values)))),
        (Function::UrlQuery, values) => Ok(Value::Text(escape::url_query(&print::print(values)))),
        (Function::ParseInt, [Value::Text(text), Value::Int(base), Value::Int(bits)]) => parse_int(text, *base, *bits),
        _ => Err("a value is not of the kind that the function takes".to_owned()),
    }
}

fn element(value: &Value, index: &Value) -> Result<Value, String> {
    let place = |len: usize| match index {
        Value::Int(index) => usize::try_from(*index).ok().filter(|index| *index < len),
        _ => None,
    };
    let beyond = || format!("there is no element {}", print::print(std::slice::from_ref(index)));
    match value {
        Value::List(list) => place(list.len()).map(|at| list[at].clone()).ok_or_else(beyond),
        Value::Text(text) => place(text.len()).map(|at| Value::Int(text.as_bytes()[at].into())).ok_or_else(beyond),
        Value::Map(map) => {
            let Value::Text(key) = index else { return Err(beyond()) };
            let found = map.iter().find(|(name, _)| name == key).map(|(_, value)| value.clone());
            Ok(found.unwrap_or_else(|| Value::Text(String::new())))
        }
        _ => Err("this value has no elements".to_owned()),
    }
}

fn slice(value: &Value, bounds: &[Value]) -> Result<Value, String> {
    let len = match value {
        Value::List(list) => list.len(),
        Value::Text(text) => text.len(),
        _ => return Err("this value has no parts".to_owned()),
    };
    let bound = |index: usize, none: usize| match bounds.get(index) {
        None => Ok(none),
        Some(Value::Int(at)) => usize::try_from(*at).ok().filter(|at| *at <= len).ok_or("this part is beyond the end"),
        Some(_) => Err("a bound has to be a number"),
    };
    let (from, to) = (bound(0, 0)?, bound(1, len)?);
    // The third bound of a list's part is how far it may grow, which nothing here does.
    if from > to || to > bound(2, len)? {
        return Err("this part ends before it begins".to_owned());
    }
    if bounds.len() > 2 && matches!(value, Value::Text(_)) {
        return Err("a part of a text has two bounds".to_owned());
    }
    match value {
        Value::List(list) => Ok(Value::List(list[from..to].to_vec().into())),
        Value::Text(text) => {
            text.get(from..to).map(|text| Value::Text(text.to_owned())).ok_or("it cuts a character".to_owned())
        }
        _ => Ok(Value::Nil),
    }
}

fn same(one: &Value, other: &Value) -> Result<bool, String> {
    match (one, other) {
        (Value::Nil, _) | (_, Value::Nil) => Ok(one == other),
        (Value::Bool(_), Value::Bool(_)) | (Value::Int(_), Value::Int(_)) | (Value::Text(_), Value::Text(_)) => {
            Ok(one == other)
        }
        (Value::Float(one), Value::Float(other)) => Ok(one.value() == other.value()),
        _ => Err("values of different kinds cannot be compared".to_owned()),
    }
}

fn order(one: &Value, other: &Value) -> Result<std::cmp::Ordering, String> {
    match (one, other) {
        (Value::Int(one), Value::Int(other)) => Ok(one.cmp(other)),
        (Value::Float(one), Value::Float(other)) => Ok(one.value().total_cmp(&other.value())),
        (Value::Text(one), Value::Text(other)) => Ok(one.cmp(other)),
        _ => Err("these values have no order".to_owned()),
    }
}

/// `parseInt TEXT BASE BITS`: a number without a sign.
fn parse_int(text: &str, base: i128, bits: i128) -> Result<Value, String> {
    let radix = u32::try_from(base).ok().filter(|base| (2..=36).contains(base)).ok_or("a base is 2 to 36")?;
    let bits = u32::try_from(bits).ok().filter(|bits| *bits <= 64).ok_or("there are 0 to 64 bits")?;
    let number = u64::from_str_radix(text, radix).ok().filter(|_| !text.starts_with('+'));
    let most = if matches!(bits, 0 | 64) { u64::MAX } else { (1 << bits) - 1 };
    match number {
        Some(number) if number <= most => Ok(Value::Int(number.into())),
        _ => Err(format!("{text:?} is no number of base {base} with {bits} bits")),
    }
}
