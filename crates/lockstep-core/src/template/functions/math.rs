//! Functions for numbers.

use gtmpl_ng::Value;

use super::values::{Outcome, float, integer, parse_integer, text};

const TOO_LARGE: &str = "the result is too large for a number of 64 bits";

fn fold(arguments: &[Value], start: i64, combine: fn(i64, i64) -> Option<i64>) -> Outcome {
    arguments
        .iter()
        .try_fold(start, |result, argument| {
            combine(result, integer(argument)?).ok_or(TOO_LARGE)
        })
        .map(Value::from)
}

pub(super) fn add(arguments: &[Value]) -> Outcome {
    fold(arguments, 0, i64::checked_add)
}

pub(super) fn add1(arguments: &[Value]) -> Outcome {
    fold(arguments, 1, i64::checked_add)
}

pub(super) fn sub(arguments: &[Value]) -> Outcome {
    fold(&arguments[1..], integer(&arguments[0])?, i64::checked_sub)
}

pub(super) fn mul(arguments: &[Value]) -> Outcome {
    fold(arguments, 1, i64::checked_mul)
}

pub(super) fn div(arguments: &[Value]) -> Outcome {
    divided(arguments, i64::checked_div)
}

pub(super) fn modulo(arguments: &[Value]) -> Outcome {
    divided(arguments, i64::checked_rem)
}

fn divided(arguments: &[Value], operation: fn(i64, i64) -> Option<i64>) -> Outcome {
    let (dividend, divisor) = (integer(&arguments[0])?, integer(&arguments[1])?);
    if divisor == 0 {
        return Err("it divides by zero");
    }
    operation(dividend, divisor).map(Value::from).ok_or(TOO_LARGE)
}

pub(super) fn max(arguments: &[Value]) -> Outcome {
    fold(arguments, integer(&arguments[0])?, |left, right| {
        Some(left.max(right))
    })
}

pub(super) fn min(arguments: &[Value]) -> Outcome {
    fold(arguments, integer(&arguments[0])?, |left, right| {
        Some(left.min(right))
    })
}

fn fold_float(arguments: &[Value], combine: fn(f64, f64) -> f64) -> Outcome {
    let (first, rest) = arguments.split_first().ok_or("it takes numbers")?;
    let mut result = float(first)?;
    for argument in rest {
        result = combine(result, float(argument)?);
    }
    number(result)
}

fn number(result: f64) -> Outcome {
    if result.is_finite() {
        Ok(Value::from(result))
    } else {
        Err("the result is no number")
    }
}

/// Rounds to 15 digits, which a float represents exactly, because Sprig computes in decimal.
fn decimal(result: f64) -> f64 {
    format!("{result:.14e}").parse().unwrap_or(result)
}

pub(super) fn addf(arguments: &[Value]) -> Outcome {
    fold_float(arguments, |left, right| decimal(left + right))
}

pub(super) fn add1f(arguments: &[Value]) -> Outcome {
    number(decimal(float(&arguments[0])? + 1.0))
}

pub(super) fn subf(arguments: &[Value]) -> Outcome {
    fold_float(arguments, |left, right| decimal(left - right))
}

pub(super) fn mulf(arguments: &[Value]) -> Outcome {
    fold_float(arguments, |left, right| decimal(left * right))
}

pub(super) fn divf(arguments: &[Value]) -> Outcome {
    fold_float(arguments, |left, right| left / right)
}

pub(super) fn maxf(arguments: &[Value]) -> Outcome {
    fold_float(arguments, f64::max)
}

pub(super) fn minf(arguments: &[Value]) -> Outcome {
    fold_float(arguments, f64::min)
}

pub(super) fn floor(arguments: &[Value]) -> Outcome {
    number(float(&arguments[0])?.floor())
}

pub(super) fn ceil(arguments: &[Value]) -> Outcome {
    number(float(&arguments[0])?.ceil())
}

pub(super) fn round(arguments: &[Value]) -> Outcome {
    let places = i32::try_from(integer(&arguments[1])?).map_err(|_| "too many digits")?;
    let round_on = arguments.get(2).map_or(Ok(0.5), float)?;
    let scale = 10_f64.powi(places);
    let digits = float(&arguments[0])? * scale;
    let rounded = if digits.fract() >= round_on {
        digits.ceil()
    } else {
        digits.floor()
    };
    number(rounded / scale)
}

/// Implements `int` and `int64`. Values that are not numbers become 0, as in Sprig.
pub(super) fn int(arguments: &[Value]) -> Outcome {
    Ok(Value::from(integer(&arguments[0]).unwrap_or(0)))
}

pub(super) fn atoi(arguments: &[Value]) -> Outcome {
    Ok(Value::from(parse_integer(&text(&arguments[0])).unwrap_or(0)))
}

pub(super) fn float64(arguments: &[Value]) -> Outcome {
    number(float(&arguments[0]).unwrap_or(0.0))
}

pub(super) fn to_decimal(arguments: &[Value]) -> Outcome {
    Ok(Value::from(
        i64::from_str_radix(&text(&arguments[0]), 8).unwrap_or_default(),
    ))
}
