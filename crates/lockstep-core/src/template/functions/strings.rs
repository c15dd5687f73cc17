//! Functions for text.

use std::collections::HashSet;

use gtmpl_ng::{Value, funcs};

use super::values::{
    MAX_VALUE, Outcome, TOO_LARGE, bounded, count, gathered, integer, is_nil, strings, text,
};

const CUTS_CHARACTER: &str = "it would cut a character in two";

pub(super) fn trim(arguments: &[Value]) -> Outcome {
    Ok(Value::from(text(&arguments[0]).trim()))
}

pub(super) fn trim_all(arguments: &[Value]) -> Outcome {
    // a set, because either text may be long
    let unwanted: HashSet<char> = text(&arguments[0]).chars().collect();
    Ok(Value::from(
        text(&arguments[1]).trim_matches(|character| unwanted.contains(&character)),
    ))
}

pub(super) fn trim_prefix(arguments: &[Value]) -> Outcome {
    let whole = text(&arguments[1]);
    Ok(Value::from(
        whole.strip_prefix(text(&arguments[0]).as_ref()).unwrap_or(&whole),
    ))
}

pub(super) fn trim_suffix(arguments: &[Value]) -> Outcome {
    let whole = text(&arguments[1]);
    Ok(Value::from(
        whole.strip_suffix(text(&arguments[0]).as_ref()).unwrap_or(&whole),
    ))
}

pub(super) fn lower(arguments: &[Value]) -> Outcome {
    bounded(text(&arguments[0]).to_lowercase())
}

pub(super) fn upper(arguments: &[Value]) -> Outcome {
    bounded(text(&arguments[0]).chars().map(single_upper).collect())
}

/// Converts a character to upper case. Like Go, it converts single characters, so `ß` stays.
fn single_upper(character: char) -> char {
    let mut upper = character.to_uppercase();
    match (upper.next(), upper.next()) {
        (Some(single), None) => single,
        _ => character,
    }
}

fn single_lower(character: char) -> char {
    character.to_lowercase().next().unwrap_or(character)
}

pub(super) fn title(arguments: &[Value]) -> Outcome {
    let mut previous = ' ';
    let whole = text(&arguments[0]);
    let titled = whole.chars().map(|character| {
        let starts = separates(previous);
        previous = character;
        if starts {
            single_upper(character)
        } else {
            character
        }
    });
    bounded(titled.collect())
}

/// Whether Go treats the character as a word separator: any ASCII character except letters, digits
/// and `_`, and any other white space.
fn separates(character: char) -> bool {
    if character.is_ascii() {
        !(character.is_ascii_alphanumeric() || character == '_')
    } else {
        character.is_whitespace()
    }
}

pub(super) fn untitle(arguments: &[Value]) -> Outcome {
    let mut starts = true;
    let whole = text(&arguments[0]);
    let untitled = whole.chars().map(|character| {
        let lowered = if starts {
            single_lower(character)
        } else {
            character
        };
        starts = character.is_whitespace();
        lowered
    });
    bounded(untitled.collect())
}

pub(super) fn swapcase(arguments: &[Value]) -> Outcome {
    let whole = text(&arguments[0]);
    let swapped = whole.chars().map(|character| {
        if character.is_uppercase() {
            single_lower(character)
        } else {
            single_upper(character)
        }
    });
    bounded(swapped.collect())
}

pub(super) fn repeat(arguments: &[Value]) -> Outcome {
    let (times, part) = (count(&arguments[0])?, text(&arguments[1]));
    if part.len().saturating_mul(times) > MAX_VALUE {
        return Err(TOO_LARGE);
    }
    Ok(Value::String(part.repeat(times)))
}

pub(super) fn substr(arguments: &[Value]) -> Outcome {
    let (start, end) = (integer(&arguments[0])?, integer(&arguments[1])?);
    let whole = text(&arguments[2]);
    let start = usize::try_from(start).unwrap_or(0);
    let end = usize::try_from(end).unwrap_or(whole.len()).min(whole.len());
    whole
        .get(start..end)
        .map(Value::from)
        .ok_or("the range lies outside of the text, or cuts a character in two")
}

pub(super) fn nospace(arguments: &[Value]) -> Outcome {
    Ok(Value::String(
        text(&arguments[0])
            .chars()
            .filter(|character| !character.is_whitespace())
            .collect(),
    ))
}

pub(super) fn trunc(arguments: &[Value]) -> Outcome {
    let (length, whole) = (integer(&arguments[0])?, text(&arguments[1]));
    let size = usize::try_from(length.unsigned_abs()).unwrap_or(usize::MAX);
    if size >= whole.len() {
        return Ok(Value::from(whole));
    }
    let part = if length < 0 {
        whole.get(whole.len() - size..)
    } else {
        whole.get(..size)
    };
    part.map(Value::from).ok_or(CUTS_CHARACTER)
}

pub(super) fn abbrev(arguments: &[Value]) -> Outcome {
    abbreviated(&text(&arguments[1]), 0, integer(&arguments[0])?)
}

pub(super) fn abbrevboth(arguments: &[Value]) -> Outcome {
    let (left, right) = (integer(&arguments[0])?, integer(&arguments[1])?);
    let whole = text(&arguments[2]);
    if left > 0 && right < 7 {
        return Ok(Value::from(whole));
    }
    abbreviated(&whole, usize::try_from(left).unwrap_or(0), right)
}

fn abbreviated(whole: &str, offset: usize, width: i64) -> Outcome {
    let width = usize::try_from(width).unwrap_or(0);
    if width < 4 || whole.len() <= width {
        return Ok(Value::from(whole));
    }
    let kept = width - 3;
    let offset = offset.min(whole.len() - kept);
    let shortened = if offset <= 4 {
        format!("{}...", whole.get(..kept).ok_or(CUTS_CHARACTER)?)
    } else if width < 7 {
        return Ok(Value::from(whole));
    } else if offset + kept < whole.len() {
        let middle = whole.get(offset..offset + kept - 3).ok_or(CUTS_CHARACTER)?;
        format!("...{middle}...")
    } else {
        format!("...{}", whole.get(whole.len() - kept..).ok_or(CUTS_CHARACTER)?)
    };
    Ok(Value::String(shortened))
}

pub(super) fn initials(arguments: &[Value]) -> Outcome {
    Ok(Value::String(
        text(&arguments[0])
            .split_whitespace()
            .filter_map(|word| word.chars().next())
            .collect(),
    ))
}

pub(super) fn contains(arguments: &[Value]) -> Outcome {
    Ok(Value::Bool(
        text(&arguments[1]).contains(text(&arguments[0]).as_ref()),
    ))
}

pub(super) fn has_prefix(arguments: &[Value]) -> Outcome {
    Ok(Value::Bool(
        text(&arguments[1]).starts_with(text(&arguments[0]).as_ref()),
    ))
}

pub(super) fn has_suffix(arguments: &[Value]) -> Outcome {
    Ok(Value::Bool(
        text(&arguments[1]).ends_with(text(&arguments[0]).as_ref()),
    ))
}

pub(super) fn quote(arguments: &[Value]) -> Outcome {
    let mut quoted = vec![];
    for argument in arguments.iter().filter(|argument| !is_nil(argument)) {
        match funcs::printf(&[Value::from("%q"), Value::from(text(argument))]) {
            Ok(Value::String(text)) => quoted.push(text),
            _ => return Err("the text cannot be quoted"),
        }
    }
    bounded(quoted.join(" "))
}

pub(super) fn squote(arguments: &[Value]) -> Outcome {
    let quoted = arguments
        .iter()
        .filter(|argument| !is_nil(argument))
        .map(|argument| format!("'{}'", text(argument)));
    bounded(quoted.collect::<Vec<_>>().join(" "))
}

pub(super) fn cat(arguments: &[Value]) -> Outcome {
    let parts: Vec<_> = arguments
        .iter()
        .filter(|argument| !is_nil(argument))
        .map(text)
        .collect();
    bounded(parts.join(" "))
}

pub(super) fn indent(arguments: &[Value]) -> Outcome {
    indented(arguments, "")
}

pub(super) fn nindent(arguments: &[Value]) -> Outcome {
    indented(arguments, "\n")
}

fn indented(arguments: &[Value], before: &str) -> Outcome {
    let (width, whole) = (count(&arguments[0])?, text(&arguments[1]));
    let lines = whole.bytes().filter(|byte| *byte == b'\n').count() + 1;
    if width.saturating_mul(lines).saturating_add(whole.len()) > MAX_VALUE {
        return Err(TOO_LARGE);
    }
    let pad = " ".repeat(width);
    Ok(Value::String(format!(
        "{before}{pad}{}",
        whole.replace('\n', &format!("\n{pad}"))
    )))
}

pub(super) fn replace(arguments: &[Value]) -> Outcome {
    let (old, new, whole) = (text(&arguments[0]), text(&arguments[1]), text(&arguments[2]));
    let replaced = whole.matches(old.as_ref()).count();
    if replaced.saturating_mul(new.len()).saturating_add(whole.len()) > MAX_VALUE {
        return Err(TOO_LARGE);
    }
    Ok(Value::String(whole.replace(old.as_ref(), &new)))
}

pub(super) fn plural(arguments: &[Value]) -> Outcome {
    Ok(arguments[usize::from(integer(&arguments[2])? != 1)].clone())
}

pub(super) fn snakecase(arguments: &[Value]) -> Outcome {
    bounded(words(&text(&arguments[0])).join("_"))
}

pub(super) fn kebabcase(arguments: &[Value]) -> Outcome {
    bounded(words(&text(&arguments[0])).join("-"))
}

/// Splits a name into words in lower case: at `_`, `-` and white space, and before a capital letter
/// or a number that starts a word.
fn words(name: &str) -> Vec<String> {
    let characters: Vec<char> = name.chars().collect();
    let mut words = vec![];
    let mut word = String::new();
    for (index, &character) in characters.iter().enumerate() {
        if character == '_' || character == '-' || character.is_whitespace() {
            words.push(std::mem::take(&mut word));
            continue;
        }
        let before = index.checked_sub(1).and_then(|before| characters.get(before));
        let after = characters.get(index + 1);
        let begins = character.is_uppercase()
            && (before.is_some_and(|before| before.is_lowercase() || before.is_numeric())
                || before.is_some_and(|before| before.is_uppercase())
                    && after.is_some_and(|after| after.is_lowercase()));
        let number_begins = character.is_numeric()
            && before.is_some_and(|before| before.is_alphabetic())
            && characters[index..]
                .iter()
                .find(|next| !next.is_numeric())
                .is_some_and(|next| next.is_lowercase());
        if (begins || number_begins) && !word.is_empty() {
            words.push(std::mem::take(&mut word));
        }
        word.push(single_lower(character));
    }
    words.push(word);
    words
}

/// Converts to camel case as Sprig does. One connector is removed between words. Connectors at the
/// start and end stay. A capital letter after another one becomes lower case.
pub(super) fn camelcase(arguments: &[Value]) -> Outcome {
    let whole = text(&arguments[0]);
    let mut camel = String::new();
    let mut connectors = String::new();
    let mut previous = None;
    for character in whole.chars() {
        if character == '_' || character == '-' || character.is_whitespace() {
            connectors.push(character);
            continue;
        }
        let starts = previous.is_none() || !connectors.is_empty();
        if previous.is_some() {
            connectors.pop();
        }
        camel.push_str(&std::mem::take(&mut connectors));
        camel.push(match previous {
            _ if starts => single_upper(character),
            Some(previous) if char::is_uppercase(previous) => single_lower(character),
            _ => character,
        });
        previous = Some(character);
    }
    camel.push_str(&connectors);
    bounded(camel)
}

pub(super) fn join(arguments: &[Value]) -> Outcome {
    let separator = text(&arguments[0]);
    let Value::Array(items) = &arguments[1] else {
        return Ok(Value::from(text(&arguments[1])));
    };
    let parts: Vec<_> = items.iter().filter(|item| !is_nil(item)).map(text).collect();
    let size = parts.iter().map(|part| part.len()).sum::<usize>();
    if separator.len().saturating_mul(parts.len()).saturating_add(size) > MAX_VALUE {
        return Err(TOO_LARGE);
    }
    Ok(Value::String(parts.join(separator.as_ref())))
}

fn split_at(whole: &str, separator: &str, limit: usize) -> Result<Vec<String>, &'static str> {
    if separator.is_empty() {
        return gathered(whole.chars().map(String::from));
    }
    gathered(whole.splitn(limit, separator).map(str::to_owned))
}

pub(super) fn split_list(arguments: &[Value]) -> Outcome {
    strings(split_at(&text(&arguments[1]), &text(&arguments[0]), usize::MAX)?)
}

pub(super) fn split(arguments: &[Value]) -> Outcome {
    Ok(numbered(split_at(
        &text(&arguments[1]),
        &text(&arguments[0]),
        usize::MAX,
    )?))
}

pub(super) fn splitn(arguments: &[Value]) -> Outcome {
    Ok(numbered(split_at(
        &text(&arguments[2]),
        &text(&arguments[0]),
        count(&arguments[1])?,
    )?))
}

fn numbered(parts: Vec<String>) -> Value {
    Value::Map(
        parts
            .into_iter()
            .enumerate()
            .map(|(index, part)| (format!("_{index}"), Value::String(part)))
            .collect(),
    )
}

pub(super) fn to_string(arguments: &[Value]) -> Outcome {
    bounded(text(&arguments[0]).into_owned())
}

pub(super) fn to_strings(arguments: &[Value]) -> Outcome {
    let Value::Array(items) = &arguments[0] else {
        return strings([text(&arguments[0]).into_owned()]);
    };
    strings(
        items
            .iter()
            .filter(|item| !is_nil(item))
            .map(|item| text(item).into_owned()),
    )
}

pub(super) fn print(arguments: &[Value]) -> Outcome {
    funcs::print(arguments).map_err(|_| "the values cannot be printed")
}

pub(super) fn println(arguments: &[Value]) -> Outcome {
    funcs::println(arguments).map_err(|_| "the values cannot be printed")
}

pub(super) fn printf(arguments: &[Value]) -> Outcome {
    let Value::String(format) = &arguments[0] else {
        return Err("the first argument is the format, a text");
    };
    // a width is at most a million, so limit their number
    let widths = format.matches('%').count();
    if widths > 100 {
        return Err("the format has more than 100 verbs");
    }
    match funcs::printf(arguments).map_err(|_| "the values do not fit the format")? {
        Value::String(text) => bounded(text),
        other => Ok(other),
    }
}

pub(super) fn urlquery(arguments: &[Value]) -> Outcome {
    funcs::urlquery(arguments).map_err(|_| "the values cannot be escaped")
}

pub(super) fn html(arguments: &[Value]) -> Outcome {
    funcs::html(arguments).map_err(|_| "the values cannot be escaped")
}

pub(super) fn js(arguments: &[Value]) -> Outcome {
    funcs::js(arguments).map_err(|_| "the values cannot be escaped")
}
