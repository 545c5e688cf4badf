//! Functions of lists.

use crate::chain::expression::{
    Number,
    functions::OfList,
    value::{LONGEST_LIST, LONGEST_TEXT, Value, number},
};

pub(super) fn call<'a>(function: OfList, values: &[Value<'a>]) -> Option<Value<'a>> {
    match (function, values) {
        (OfList::Len, [Value::Text(text)]) => i64::try_from(text.chars().count()).ok().map(Value::Int),
        (OfList::Len, [Value::Map(map)]) => i64::try_from(map.len()).ok().map(Value::Int),
        (OfList::Len, [Value::List(list)]) => i64::try_from(list.len()).ok().map(Value::Int),
        (OfList::First, [Value::List(list)]) => Some(list.first().cloned().unwrap_or(Value::Nil)),
        (OfList::Last, [Value::List(list)]) => Some(list.last().cloned().unwrap_or(Value::Nil)),
        (OfList::Take, [Value::List(list), Value::Int(count)]) => {
            let count = usize::try_from(*count).ok()?.min(list.len());
            Some(Value::List(list[..count].to_vec()))
        }
        (OfList::Get, [Value::List(list), Value::Int(index)]) => {
            let found = place(*index, list.len()).and_then(|index| list.get(index));
            Some(found.cloned().unwrap_or(Value::Nil))
        }
        (OfList::Get, [map @ Value::Map(_), name]) => map.member(name),
        (OfList::Join, [Value::List(list)]) => join(list, ""),
        (OfList::Join, [Value::List(list), Value::Text(separator)]) => join(list, separator),
        (OfList::Sum, [Value::List(list)]) => sum(list),
        (OfList::Mean, [Value::List(list)]) => {
            let sum = sum(list)?.float()?;
            Some(Value::Float(if list.is_empty() { 0.0 } else { sum / list.len() as f64 }))
        }
        (OfList::Median, [Value::List(list)]) => median(list),
        (OfList::Sort, [Value::List(list)]) => sorted(list).map(Value::List),
        (OfList::Sort, [Value::List(list), Value::Text(order)]) => {
            let mut list = sorted(list)?;
            match &**order {
                "asc" => {}
                "desc" => list.reverse(),
                _ => return None,
            }
            Some(Value::List(list))
        }
        (OfList::Reverse, [Value::List(list)]) => Some(Value::List(list.iter().rev().cloned().collect())),
        (OfList::Uniq, [Value::List(list)]) => {
            let mut uniq: Vec<Value<'a>> = Vec::new();
            for value in list {
                if !uniq.iter().any(|known| known.same(value)) {
                    uniq.push(value.clone());
                }
            }
            Some(Value::List(uniq))
        }
        (OfList::Concat, lists) => {
            let mut all = Vec::new();
            for list in lists {
                let Value::List(list) = list else { return None };
                all.extend(list.iter().cloned());
            }
            Value::list(all)
        }
        (OfList::Flatten, [Value::List(list)]) => {
            let mut flat = Vec::new();
            flatten(list, &mut flat).then_some(Value::List(flat))
        }
        (OfList::Count, [Value::List(list)]) => {
            let truths = list.iter().filter(|value| matches!(value, Value::Bool(true)));
            i64::try_from(truths.count()).ok().map(Value::Int)
        }
        _ => None,
    }
}

/// The place that an index means: one below zero is counted from the end.
pub(in crate::chain::expression) fn place(index: i64, len: usize) -> Option<usize> {
    let index = if index < 0 { index.checked_add(i64::try_from(len).ok()?)? } else { index };
    usize::try_from(index).ok().filter(|index| *index < len)
}

fn join<'a>(list: &[Value<'a>], separator: &str) -> Option<Value<'a>> {
    let texts = list.iter().map(text).collect::<Option<Vec<&str>>>()?;
    let longest = separator.len() * texts.len() + texts.iter().map(|text| text.len()).sum::<usize>();
    if longest <= LONGEST_TEXT { Value::made(texts.join(separator)) } else { None }
}

fn text<'v>(value: &'v Value<'_>) -> Option<&'v str> {
    if let Value::Text(text) = value { Some(&**text) } else { None }
}

fn sum<'a>(list: &[Value<'a>]) -> Option<Value<'a>> {
    list.iter().try_fold(Value::Int(0), |sum, value| number(Number::Plus, &sum, value))
}

/// The one in the middle, or between the two in the middle; 0 of none.
fn median<'a>(list: &[Value<'a>]) -> Option<Value<'a>> {
    let mut numbers = list.iter().map(Value::float).collect::<Option<Vec<f64>>>()?;
    numbers.sort_by(f64::total_cmp);
    let middle = numbers.len() / 2;
    Some(Value::Float(match numbers.as_slice() {
        [] => 0.0,
        numbers if numbers.len().is_multiple_of(2) => f64::midpoint(numbers[middle - 1], numbers[middle]),
        numbers => numbers[middle],
    }))
}

/// Numbers or texts in order; none: these have no order.
fn sorted<'a>(list: &[Value<'a>]) -> Option<Vec<Value<'a>>> {
    let mut list = list.to_vec();
    let whole = list.iter().all(|value| matches!(value, Value::Int(_)));
    if whole || list.iter().all(|value| matches!(value, Value::Text(_))) {
        list.sort_by(|one, other| one.order(other).unwrap_or(std::cmp::Ordering::Equal));
        return Some(list);
    }
    // Whole numbers beside fractions: all as fractions, of which any two have an order.
    let mut numbers = Vec::new();
    for value in list {
        numbers.push((value.float()?, value));
    }
    numbers.sort_by(|(one, _), (other, _)| one.total_cmp(other));
    Some(numbers.into_iter().map(|(_, value)| value).collect())
}

/// The elements in the order of what came of asking them, each of which is a number, or each a text.
pub(in crate::chain::expression) fn sorted_by<'a>(
    list: Vec<Value<'a>>,
    asked: Vec<Value<'a>>,
    backwards: bool,
) -> Option<Vec<Value<'a>>> {
    let texts = asked.iter().all(|value| matches!(value, Value::Text(_)));
    if !texts && !asked.iter().all(|value| value.float().is_some_and(|number| !number.is_nan())) {
        return None;
    }
    let mut pairs: Vec<(Value<'a>, Value<'a>)> = asked.into_iter().zip(list).collect();
    pairs.sort_by(|(one, _), (other, _)| {
        let order = one.order(other).unwrap_or(std::cmp::Ordering::Equal);
        if backwards { order.reverse() } else { order }
    });
    Some(pairs.into_iter().map(|(_, element)| element).collect())
}

/// Puts the elements of lists within a list in their place; false: there are too many.
fn flatten<'a>(list: &[Value<'a>], flat: &mut Vec<Value<'a>>) -> bool {
    list.iter().all(|value| match value {
        Value::List(inner) => flatten(inner, flat),
        value => {
            flat.push(value.clone());
            flat.len() <= LONGEST_LIST
        }
    })
}
