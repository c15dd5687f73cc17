//! Functions for lists and ranges of numbers.

use gtmpl_ng::Value;

use super::values::{Outcome, count, integer, is_empty, list, strings, text};

/// Maximum number of elements in a range of numbers.
const MAX_NUMBERS: usize = 10_000;

pub(super) fn make(arguments: &[Value]) -> Outcome {
    Ok(Value::Array(arguments.to_vec()))
}

pub(super) fn first(arguments: &[Value]) -> Outcome {
    Ok(list(&arguments[0])?.first().cloned().unwrap_or(Value::NoValue))
}

pub(super) fn last(arguments: &[Value]) -> Outcome {
    Ok(list(&arguments[0])?.last().cloned().unwrap_or(Value::NoValue))
}

pub(super) fn rest(arguments: &[Value]) -> Outcome {
    Ok(Value::Array(
        list(&arguments[0])?.iter().skip(1).cloned().collect(),
    ))
}

pub(super) fn initial(arguments: &[Value]) -> Outcome {
    let items = list(&arguments[0])?;
    Ok(Value::Array(items[..items.len().saturating_sub(1)].to_vec()))
}

pub(super) fn append(arguments: &[Value]) -> Outcome {
    let mut items = list(&arguments[0])?.to_vec();
    items.push(arguments[1].clone());
    Ok(Value::Array(items))
}

pub(super) fn prepend(arguments: &[Value]) -> Outcome {
    let mut items = vec![arguments[1].clone()];
    items.extend_from_slice(list(&arguments[0])?);
    Ok(Value::Array(items))
}

pub(super) fn concat(arguments: &[Value]) -> Outcome {
    let mut items = vec![];
    for argument in arguments {
        items.extend_from_slice(list(argument)?);
    }
    Ok(Value::Array(items))
}

pub(super) fn reverse(arguments: &[Value]) -> Outcome {
    Ok(Value::Array(list(&arguments[0])?.iter().rev().cloned().collect()))
}

/// Maximum length of lists whose elements are compared with each other, which takes quadratic time.
const MAX_COMPARED: usize = 2_000;

fn comparable(items: &[Value]) -> Result<&[Value], &'static str> {
    if items.len() > MAX_COMPARED {
        Err("the list has more than 2000 elements")
    } else {
        Ok(items)
    }
}

pub(super) fn uniq(arguments: &[Value]) -> Outcome {
    let mut items: Vec<Value> = vec![];
    for item in comparable(list(&arguments[0])?)? {
        if !items.contains(item) {
            items.push(item.clone());
        }
    }
    Ok(Value::Array(items))
}

pub(super) fn without(arguments: &[Value]) -> Outcome {
    let (items, unwanted) = arguments.split_first().ok_or("it takes a list")?;
    Ok(Value::Array(
        list(items)?
            .iter()
            .filter(|item| !unwanted.contains(item))
            .cloned()
            .collect(),
    ))
}

pub(super) fn has(arguments: &[Value]) -> Outcome {
    Ok(Value::Bool(list(&arguments[1])?.contains(&arguments[0])))
}

pub(super) fn compact(arguments: &[Value]) -> Outcome {
    Ok(Value::Array(
        list(&arguments[0])?
            .iter()
            .filter(|item| !is_empty(item))
            .cloned()
            .collect(),
    ))
}

pub(super) fn slice(arguments: &[Value]) -> Outcome {
    const OUTSIDE: &str = "an index lies outside";
    let bound = |index: usize, default: usize| arguments.get(index).map_or(Ok(default), count);
    match &arguments[0] {
        Value::String(text) => {
            let (start, end) = (bound(1, 0)?, bound(2, text.len())?);
            text.get(start..end)
                .map(Value::from)
                .ok_or("an index lies outside, or inside of a character")
        }
        value => {
            let items = list(value)?;
            let (start, end) = (bound(1, 0)?, bound(2, items.len())?);
            items
                .get(start..end)
                .map(|items| Value::Array(items.to_vec()))
                .ok_or(OUTSIDE)
        }
    }
}

pub(super) fn chunk(arguments: &[Value]) -> Outcome {
    let size = count(&arguments[0])?;
    if size == 0 {
        return Err("the size must be at least 1");
    }
    Ok(Value::Array(
        list(&arguments[1])?
            .chunks(size)
            .map(|chunk| Value::Array(chunk.to_vec()))
            .collect(),
    ))
}

pub(super) fn sort_alpha(arguments: &[Value]) -> Outcome {
    let Value::Array(items) = &arguments[0] else {
        return strings([text(&arguments[0]).into_owned()]);
    };
    let mut texts: Vec<String> = items.iter().map(|item| text(item).into_owned()).collect();
    texts.sort();
    strings(texts)
}

pub(super) fn until(arguments: &[Value]) -> Outcome {
    let stop = integer(&arguments[0])?;
    numbers(0, stop, if stop < 0 { -1 } else { 1 }).map(list_of)
}

pub(super) fn until_step(arguments: &[Value]) -> Outcome {
    numbers(
        integer(&arguments[0])?,
        integer(&arguments[1])?,
        integer(&arguments[2])?,
    )
    .map(list_of)
}

pub(super) fn seq(arguments: &[Value]) -> Outcome {
    let direction = |start: i64, end: i64| if end < start { -1 } else { 1 };
    let (start, step, end) = match arguments {
        [] => return Ok(Value::from("")),
        [end] => {
            let end = integer(end)?;
            (1, direction(1, end), end)
        }
        [start, end] => {
            let (start, end) = (integer(start)?, integer(end)?);
            (start, direction(start, end), end)
        }
        [start, step, end, ..] => (integer(start)?, integer(step)?, integer(end)?),
    };
    let past = end.saturating_add(step.signum());
    let numbers = numbers(start, past, step)?;
    Ok(Value::from(
        numbers.iter().map(i64::to_string).collect::<Vec<_>>().join(" "),
    ))
}

fn list_of(numbers: Vec<i64>) -> Value {
    Value::Array(numbers.into_iter().map(Value::from).collect())
}

fn numbers(start: i64, stop: i64, step: i64) -> Result<Vec<i64>, &'static str> {
    let mut numbers = vec![];
    let mut next = start;
    while step > 0 && next < stop || step < 0 && next > stop {
        if numbers.len() == MAX_NUMBERS {
            return Err("the list would have more than 10000 elements");
        }
        numbers.push(next);
        let Some(following) = next.checked_add(step) else {
            break;
        };
        next = following;
    }
    Ok(numbers)
}
