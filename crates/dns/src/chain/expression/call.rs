//! Functions at work.

mod lists;
mod maps;
mod numbers;
mod texts;

pub(super) use lists::{place, sorted_by};
pub(super) use maps::grouped;

use super::{functions::Function, value::Value};

/// The value of a call, but of those that ask something of the question; none: it cannot be computed.
pub(super) fn call<'a>(function: Function, values: &[Value<'a>]) -> Option<Value<'a>> {
    match function {
        Function::Text(function) => texts::call(function, values),
        Function::Number(function) => numbers::call(function, values),
        Function::List(function) => lists::call(function, values),
        Function::Map(function) => maps::call(function, values),
        Function::InNetwork | Function::Metadata => None,
    }
}
