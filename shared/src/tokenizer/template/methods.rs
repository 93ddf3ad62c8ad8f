//! Methods of Python's strings that templates call and `minijinja_contrib::pycompat` does not have.
//!
//! What can make a text much longer pays for it in fuel before the text is made.

use minijinja::value::{Kwargs, Tuple, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State, Value};
use minijinja_contrib::pycompat;

/// For [`Environment::set_unknown_method_callback`](minijinja::Environment::set_unknown_method_callback).
pub(super) fn unknown_method(
    state: &mut State,
    value: &Value,
    method: &str,
    args: &[Value],
) -> Result<Value, Error> {
    if value.kind() == ValueKind::String
        && let Some(text) = value.as_str()
        && let Some(result) = string_method(state, text, method, args)?
    {
        return Ok(result);
    }
    pycompat::unknown_method_callback(state, value, method, args)
}

/// None: no method of this name here.
fn string_method(
    state: &State,
    text: &str,
    method: &str,
    args: &[Value],
) -> Result<Option<Value>, Error> {
    let result = match method {
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(args)?;
            Value::from(text.strip_prefix(prefix).unwrap_or(text))
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(args)?;
            Value::from(text.strip_suffix(suffix).unwrap_or(text))
        }
        "index" => position(text, args, false)?,
        "rindex" => position(text, args, true)?,
        "partition" => partition(text, args, false)?,
        "rpartition" => partition(text, args, true)?,
        "split" => split(text, args, false)?,
        "rsplit" => split(text, args, true)?,
        "swapcase" => {
            let () = from_args(args)?;
            Value::from(swapcase(text))
        }
        "casefold" => {
            let () = from_args(args)?;
            Value::from(casefold(text))
        }
        "zfill" => {
            let (width,): (i64,) = from_args(args)?;
            let signed = text.starts_with(['+', '-']);
            let (sign, digits) = text.split_at(usize::from(signed));
            let zeros = fill(state, text, width, '0')?;
            Value::from(format!("{sign}{zeros}{digits}"))
        }
        "ljust" | "rjust" | "center" => justified(state, text, method, args)?,
        "expandtabs" => expandtabs(state, text, args)?,
        _ => return Ok(None),
    };
    Ok(Some(result))
}

fn refused(why: &str) -> Error {
    Error::new(ErrorKind::InvalidOperation, why.to_owned())
}

/// Where a text stands in another, in characters.
fn position(text: &str, args: &[Value], from_the_right: bool) -> Result<Value, Error> {
    let (wanted,): (&str,) = from_args(args)?;
    let found = if from_the_right {
        text.rfind(wanted)
    } else {
        text.find(wanted)
    };
    let at = found.ok_or_else(|| refused("substring not found"))?;
    Ok(Value::from(text[..at].chars().count()))
}

/// What is before the separator, the separator, and what is behind it. Without one, all of the text
/// stands on the side where the search ended.
fn partition(text: &str, args: &[Value], from_the_right: bool) -> Result<Value, Error> {
    let (separator,): (&str,) = from_args(args)?;
    if separator.is_empty() {
        return Err(refused("empty separator"));
    }
    let (cut, whole) = if from_the_right {
        (text.rsplit_once(separator), ["", "", text])
    } else {
        (text.split_once(separator), [text, "", ""])
    };
    let parts = cut.map_or(whole, |(before, after)| [before, separator, after]);
    Ok(Value::from(Tuple::from(parts.map(Value::from))))
}

/// `split` and `rsplit`: with `sep` and `maxsplit`, by place or by name.
fn split(text: &str, args: &[Value], from_the_right: bool) -> Result<Value, Error> {
    let (separator, most, named): (Option<Value>, Option<i64>, Kwargs) = from_args(args)?;
    let separator = match separator {
        Some(separator) => Some(separator),
        None => named.get("sep")?,
    };
    let most = match most {
        Some(most) => Some(most),
        None => named.get("maxsplit")?,
    };
    named.assert_all_used()?;
    let most = most.and_then(|most| usize::try_from(most).ok());
    let most = most.unwrap_or(usize::MAX - 1);
    let separator = separator.filter(|separator| !separator.is_none());
    let mut parts = match &separator {
        None if from_the_right => words_from_the_right(text, most),
        None => words(text, most),
        Some(separator) => {
            let separator = separator.as_str();
            let separator = separator.ok_or_else(|| refused("the separator is not a string"))?;
            if separator.is_empty() {
                return Err(refused("empty separator"));
            }
            if from_the_right {
                text.rsplitn(most + 1, separator).collect()
            } else {
                text.splitn(most + 1, separator).collect()
            }
        }
    };
    if from_the_right {
        parts.reverse();
    }
    Ok(parts.into_iter().map(Value::from).collect())
}

/// Python counts four control characters as white space that Unicode does not.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// The words of a text; behind the last cut, the rest as it stands.
fn words(text: &str, most: usize) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = text.trim_start_matches(is_space);
    while !rest.is_empty() {
        let end = rest.find(is_space).filter(|_| parts.len() < most);
        let (word, after) = rest.split_at(end.unwrap_or(rest.len()));
        parts.push(word);
        rest = after.trim_start_matches(is_space);
    }
    parts
}

/// The same from the end, last word first.
fn words_from_the_right(text: &str, most: usize) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = text.trim_end_matches(is_space);
    while !rest.is_empty() {
        let space = rest.char_indices().rev().find(|(_, c)| is_space(*c));
        let start = space.filter(|_| parts.len() < most);
        let start = start.map_or(0, |(at, space)| at + space.len_utf8());
        parts.push(&rest[start..]);
        rest = rest[..start].trim_end_matches(is_space);
    }
    parts
}

/// Small letters to capitals and the other way round; a sigma at the end of a word has a small letter
/// of its own.
fn swapcase(text: &str) -> String {
    let mut swapped = String::with_capacity(text.len());
    let mut before = ' ';
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        let within = rest.peek().is_some_and(|next| next.is_alphabetic());
        if c == 'Σ' && before.is_alphabetic() && !within {
            swapped.push('ς');
        } else if c.is_uppercase() {
            swapped.extend(c.to_lowercase());
        } else if c.is_lowercase() {
            swapped.extend(c.to_uppercase());
        } else {
            swapped.push(c);
        }
        before = c;
    }
    swapped
}

/// Unicode's case folding by way of capitals, which turns `ß` into `ss` and the two small sigmas into
/// one. Cherokee alone folds the other way.
fn casefold(text: &str) -> String {
    let fold = |c: char| -> Vec<char> {
        match c {
            'ı' => vec![c],
            'ẞ' => vec!['s', 's'],
            _ => c.to_uppercase().flat_map(char::to_lowercase).collect(),
        }
    };
    text.chars().flat_map(fold).collect()
}

/// As many times `with` as `text` lacks to be `width` characters long.
fn fill(state: &State, text: &str, width: i64, with: char) -> Result<String, Error> {
    let width = usize::try_from(width).unwrap_or(0);
    let missing = width.saturating_sub(text.chars().count());
    pay(state, missing.saturating_mul(with.len_utf8()))?;
    Ok(String::from(with).repeat(missing))
}

/// Takes the fuel for so many bytes of text.
fn pay(state: &State, bytes: usize) -> Result<(), Error> {
    state.consume_fuel((bytes / 64) as u64)
}

fn justified(state: &State, text: &str, method: &str, args: &[Value]) -> Result<Value, Error> {
    let (width, with): (i64, Option<&str>) = from_args(args)?;
    let mut with = with.unwrap_or(" ").chars();
    let (Some(with), None) = (with.next(), with.next()) else {
        return Err(refused(
            "the fill character must be exactly one character long",
        ));
    };
    let fill = fill(state, text, width, with)?;
    Ok(Value::from(match method {
        "ljust" => format!("{text}{fill}"),
        "rjust" => format!("{fill}{text}"),
        _ => {
            // Where both sides cannot be equal, Python gives the odd one to the left of an odd width.
            let missing = fill.len() / with.len_utf8();
            let left = missing / 2 + (missing & width as usize & 1);
            let (left, right) = fill.split_at(left * with.len_utf8());
            format!("{left}{text}{right}")
        }
    }))
}

fn expandtabs(state: &State, text: &str, args: &[Value]) -> Result<Value, Error> {
    let (size, named): (Option<i64>, Kwargs) = from_args(args)?;
    let size = match size {
        Some(size) => size,
        None => named.get::<Option<i64>>("tabsize")?.unwrap_or(8),
    };
    let size = usize::try_from(size).unwrap_or(0);
    named.assert_all_used()?;
    pay(state, text.matches('\t').count().saturating_mul(size))?;
    let (mut expanded, mut column) = (String::new(), 0_usize);
    for c in text.chars() {
        match c {
            '\t' => {
                let blanks = size - column.checked_rem(size).unwrap_or(0);
                expanded.push_str(&" ".repeat(blanks));
                column += blanks;
            }
            _ => {
                expanded.push(c);
                column = if matches!(c, '\n' | '\r') {
                    0
                } else {
                    column + 1
                };
            }
        }
    }
    Ok(Value::from(expanded))
}
