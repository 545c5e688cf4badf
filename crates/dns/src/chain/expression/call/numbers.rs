//! Functions of numbers.

use crate::chain::expression::{functions::OfNumber, value::Value};

pub(super) fn call<'a>(function: OfNumber, values: &[Value<'a>]) -> Option<Value<'a>> {
    match (function, values) {
        (OfNumber::Abs, [Value::Int(number)]) => Some(Value::Int(number.checked_abs()?)),
        (OfNumber::Abs, [value]) => Some(Value::Float(value.float()?.abs())),
        (OfNumber::Ceil, [value]) => Some(Value::Float(value.float()?.ceil())),
        (OfNumber::Floor, [value]) => Some(Value::Float(value.float()?.floor())),
        (OfNumber::Round, [value]) => Some(Value::Float(value.float()?.round())),
        (OfNumber::ToInt, [Value::Int(number)]) => Some(Value::Int(*number)),
        (OfNumber::ToInt, [Value::Float(number)]) => Some(Value::Int(*number as i64)),
        (OfNumber::ToInt, [Value::Text(text)]) => text.parse().ok().map(Value::Int),
        (OfNumber::ToFloat, [Value::Text(text)]) => text.parse().ok().map(Value::Float),
        (OfNumber::ToFloat, [value]) => value.float().map(Value::Float),
        (OfNumber::ToText, [value]) => Value::made(value.print()),
        (OfNumber::Max, values) => extreme(values, true),
        (OfNumber::Min, values) => extreme(values, false),
        (OfNumber::Not, [Value::Int(bits)]) => Some(Value::Int(!bits)),
        (_, [Value::Int(one), Value::Int(other)]) => Some(Value::Int(bits(function, *one, *other)?)),
        _ => None,
    }
}

/// The greatest or the smallest of numbers and of lists of them.
fn extreme<'a>(values: &[Value<'a>], greatest: bool) -> Option<Value<'a>> {
    let all = values.iter().flat_map(|value| match value {
        Value::List(list) => list.as_slice(),
        value => std::slice::from_ref(value),
    });
    let mut best: Option<&Value<'a>> = None;
    for one in all {
        let order = best.map(|best| one.order(best));
        let better = match order {
            None => true,
            Some(order) if greatest => order?.is_gt(),
            Some(order) => order?.is_lt(),
        };
        best = if better { Some(one) } else { best };
    }
    best.cloned()
}

/// What becomes of the bits of two numbers. To move them by fewer than no places means nothing; by more than there are leaves none, or
/// the sign alone.
fn bits(function: OfNumber, one: i64, other: i64) -> Option<i64> {
    Some(match function {
        OfNumber::And => one & other,
        OfNumber::Or => one | other,
        OfNumber::Xor => one ^ other,
        OfNumber::AndNot => one & !other,
        OfNumber::Left => one.checked_shl(u32::try_from(other).ok()?).unwrap_or(0),
        OfNumber::Right => one.checked_shr(u32::try_from(other).ok()?).unwrap_or(one >> 63),
        OfNumber::RightUnsigned => (one as u64).checked_shr(u32::try_from(other).ok()?).unwrap_or(0) as i64,
        _ => return None,
    })
}
