//! Python's `"…" % value`, which minijinja has only as the filter `format`.

use super::source::{string_length, word_length};

/// A tag in which each string in quotes that is followed by `%` goes through the filter instead:
/// `"%s of %s" % (a, b)` → `"%s of %s"|format(a, b)`.
///
/// What is formatted is one operand, with all that binds tighter than `%`: attributes, calls, filters.
/// A template that keeps its format in a variable is left as it is, and refused when it runs.
pub(super) fn formatted(tag: &str) -> String {
    let mut text = String::with_capacity(tag.len());
    let mut rest = tag;
    while let Some(start) = rest.find(['"', '\'']) {
        let quote = rest.as_bytes()[start];
        let end = start + string_length(&rest.as_bytes()[start..], quote);
        let (literal, after) = rest.split_at(end);
        text.push_str(literal);
        rest = after;
        if let Some((value, after)) = right_side(after) {
            // What is formatted may have formats in it.
            let value = formatted(value);
            let arguments = if is_tuple(&value) {
                value
            } else {
                format!("({value})")
            };
            text.push_str(&format!("|format{arguments}"));
            rest = after;
        }
    }
    text + rest
}

/// The operand behind `%`, and what follows it.
fn right_side(text: &str) -> Option<(&str, &str)> {
    let operand = text.trim_start().strip_prefix('%')?;
    // `%}` ends the tag.
    let operand = operand.strip_prefix(|c| c != '}').map(|_| operand)?;
    let operand = operand.trim_start();
    let (value, after) = operand.split_at(operand_length(operand));
    (!value.is_empty()).then_some((value, after))
}

/// How long the operand is: a name, a number, a string or something in brackets, and what hangs on it.
fn operand_length(text: &str) -> usize {
    let mut at = usize::from(text.starts_with(['-', '+']));
    at += item_length(&text[at..]);
    loop {
        let rest = &text[at..];
        let inner = rest.trim_start();
        let blanks = rest.len() - inner.len();
        let hanging = match inner.as_bytes() {
            [b'(' | b'[', ..] if blanks == 0 => item_length(inner),
            [b'.' | b'|', ..] => {
                let name = inner[1..].trim_start();
                match word_length(name.as_bytes()) {
                    0 => 0,
                    length => inner.len() - name.len() + length,
                }
            }
            _ => 0,
        };
        if hanging == 0 {
            return at;
        }
        at += blanks + hanging;
    }
}

fn item_length(text: &str) -> usize {
    let bytes = text.as_bytes();
    match bytes.first() {
        Some(&quote @ (b'"' | b'\'')) => string_length(bytes, quote),
        Some(b'(' | b'[' | b'{') => bracket_length(bytes),
        Some(byte) if byte.is_ascii_digit() => {
            let is_number = |byte: &&u8| byte.is_ascii_alphanumeric() || **byte == b'.';
            bytes.iter().take_while(is_number).count()
        }
        _ => word_length(bytes),
    }
}

fn bracket_length(bytes: &[u8]) -> usize {
    bracket(bytes).0
}

/// How far it is to the bracket that closes the first one, and how many commas stand between the two and
/// in no other brackets.
fn bracket(bytes: &[u8]) -> (usize, usize) {
    let (mut at, mut open, mut commas) = (0, 0_usize, 0);
    while at < bytes.len() {
        match bytes[at] {
            quote @ (b'"' | b'\'') => at += string_length(&bytes[at..], quote) - 1,
            b'(' | b'[' | b'{' => open += 1,
            b')' | b']' | b'}' => open -= 1,
            b',' if open == 1 => commas += 1,
            _ => {}
        }
        at += 1;
        if open == 0 {
            return (at, commas);
        }
    }
    (bytes.len(), commas)
}

/// `(a, b)`: the values of several signs. `(a)` is a value in brackets, and so is `(a, b).c`.
fn is_tuple(value: &str) -> bool {
    let (length, commas) = match value.as_bytes() {
        bytes @ [b'(', ..] => bracket(bytes),
        _ => return false,
    };
    length == value.len() && commas > 0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_string_before_a_percent_sign_goes_through_the_filter() {
        for (tag, expected) in [
            ("{{ '%s' % x }}", "{{ '%s'|format(x) }}"),
            (
                "{{'%s'%x.y[0].upper()|trim ~ 'b'}}",
                "{{'%s'|format(x.y[0].upper()|trim) ~ 'b'}}",
            ),
            (
                "{{ '%d, %d' % (a, f(b, c)) }}",
                "{{ '%d, %d'|format(a, f(b, c)) }}",
            ),
            ("{{ '%s' % (a) }}", "{{ '%s'|format((a)) }}"),
            ("{{ '%s' % (a, b)[0] }}", "{{ '%s'|format((a, b)[0]) }}"),
            ("{{ \"%s\" % '%s' % 1 }}", "{{ \"%s\"|format('%s') % 1 }}"),
            (
                "{{ '%s' % ('%s' % -1.5, ')') }}",
                "{{ '%s'|format('%s'|format(-1.5), ')') }}",
            ),
            (
                "{% set x = '%s' % {'a': 1} -%}",
                "{% set x = '%s'|format({'a': 1}) -%}",
            ),
        ] {
            assert_eq!(formatted(tag), expected);
        }
    }

    #[test]
    fn other_percent_signs_stay() {
        for tag in [
            "{{ 7 % 2 }}",
            "{% if x == 'a' %}",
            "{% if x == 'a'%}",
            "{%- set x = 'a' -%}",
            "{{ '%s' | format(x) }}",
            "{{ '% x' }}",
            "{{ fmt % x }}",
            "{{ '%s' % }}",
            "{{ 'never ends % x }}",
        ] {
            assert_eq!(formatted(tag), tag);
        }
    }

    proptest! {
        #[test]
        fn no_tag_makes_it_panic(tag in "[{}()\\[\\].,|%'\"a1é \\\\-]{0,40}") {
            formatted(&tag);
        }
    }
}
