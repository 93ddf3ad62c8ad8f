//! A template's text before it is parsed: what is refused, and what is written in another way.

use std::borrow::Cow;

use anyhow::{Result, bail, ensure};

use super::percent::formatted;
use crate::remarks::clipped;

/// The longest template that is read, in bytes: fifteen times the longest that we know of.
const LONGEST: usize = 256 << 10;

/// The most words and signs between `{{` and `}}`, or `{%` and `%}`.
///
/// The parser makes a tree out of `a.b|c+d…` that is as deep as the chain is long, and a tree is
/// freed and compiled by recursion, some of it in quadratic time. A table of all languages takes
/// 3,000.
const LONGEST_CHAIN: usize = 6_000;

/// What the function is called that [`prepared`] puts around what a namespace is given. No template may
/// give the name to something else.
pub(crate) const STORED: &str = "__stored_in_a_namespace";

/// The text that minijinja gets.
///
/// `{% generation %}…{% endgeneration %}` marks, for training, what the model itself said. It prints
/// its content and nothing else, so `if true` stands for it.
///
/// What `{% set ns.x = … %}` stores goes through [`STORED`], because it is the only way to build a
/// value that contains itself, and such a value is printed, compared and freed without an end.
///
/// # Errors
/// If it is too long, or an expression of it.
pub(crate) fn prepared(source: &str) -> Result<String> {
    ensure!(
        source.len() <= LONGEST,
        "it has {} bytes, more than the {LONGEST} that are read",
        source.len()
    );
    ensure!(
        !source.contains(STORED),
        "the name {STORED} is not supported"
    );
    let mut text = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = tag_start(rest) {
        let (before, tag) = rest.split_at(start);
        text.push_str(before);
        let end = if tag.starts_with("{#") {
            after(tag, "#}")
        } else {
            tag_end(tag)?
        };
        let (tag, mut after) = tag.split_at(end);
        text.push_str(&rewritten(&with_formats(tag))?);
        if words(tag) == "raw" {
            let (raw, last) = after.split_at(raw_end(after));
            text.push_str(raw);
            after = last;
        }
        rest = after;
    }
    Ok(text + rest)
}

/// Where the next tag or comment begins.
fn tag_start(text: &str) -> Option<usize> {
    let mut braces = text.match_indices('{').map(|(at, _)| at);
    braces.find(|at| matches!(text.as_bytes().get(at + 1), Some(b'{' | b'%' | b'#')))
}

/// Behind `end`, or behind everything.
fn after(text: &str, end: &str) -> usize {
    text.find(end).map_or(text.len(), |at| at + end.len())
}

/// Where the tag ends that `text` begins with: its own `}}` or `%}`, not one in a string.
fn tag_end(text: &str) -> Result<usize> {
    let close: &[u8] = if text.starts_with("{{") { b"}}" } else { b"%}" };
    let bytes = text.as_bytes();
    let (mut at, mut open, mut chain) = (2, 0_usize, 0);
    while at < bytes.len() {
        // `{{ {"a": {}} }}`: braces of an expression come first.
        if open == 0 && bytes[at..].starts_with(close) {
            return Ok(at + 2);
        }
        let length = match bytes[at] {
            quote @ (b'\'' | b'"') => string_length(&bytes[at..], quote),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' => word_length(&bytes[at..]),
            _ => 1,
        };
        match bytes[at] {
            b'{' => open += 1,
            b'}' => open = open.saturating_sub(1),
            _ => {}
        }
        chain += usize::from(!bytes[at].is_ascii_whitespace());
        if chain > LONGEST_CHAIN {
            bail!("an expression of it has more than {LONGEST_CHAIN} words and signs");
        }
        at += length;
    }
    Ok(text.len())
}

/// Of a string in quotes, the escaped ones skipped.
pub(super) fn string_length(bytes: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            byte if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

pub(super) fn word_length(bytes: &[u8]) -> usize {
    let is_word = |byte: &&u8| byte.is_ascii_alphanumeric() || **byte == b'_';
    bytes.iter().take_while(is_word).count()
}

/// What stands between `{%` and `%}`, without the signs that eat white space. What is white space is
/// minijinja's word: a tag that is read otherwise here than there is a way around all checks.
fn words(tag: &str) -> &str {
    let inner = tag
        .strip_prefix("{%")
        .and_then(|tag| tag.strip_suffix("%}"));
    inner
        .unwrap_or_default()
        .trim_matches(|c: char| c.is_ascii_whitespace() || matches!(c, '-' | '+'))
}

/// In front of `{% endraw %}`: nothing before it is a tag.
fn raw_end(text: &str) -> usize {
    let mut tags = text.match_indices("endraw").filter_map(|(at, word)| {
        let open = text[..at].trim_end().trim_end_matches(['-', '+']);
        let close = text[at + word.len()..].trim_start();
        let close = close.trim_start_matches(['-', '+']);
        (open.ends_with("{%") && close.starts_with("%}")).then(|| open.len() - 2)
    });
    tags.next().unwrap_or(text.len())
}

/// The text of a comment is no expression.
fn with_formats(tag: &str) -> Cow<'_, str> {
    if tag.starts_with("{#") || !tag.contains(['"', '\'']) {
        return Cow::Borrowed(tag);
    }
    Cow::Owned(formatted(tag))
}

fn rewritten(tag: &str) -> Result<String> {
    Ok(match words(tag) {
        "generation" => tag.replace("generation", "if true"),
        "endgeneration" => tag.replace("endgeneration", "endif"),
        words => match words
            .strip_prefix("set")
            .filter(|set| word_length(set.as_bytes()) == 0)
        {
            Some(set) => checked_set(tag, set)?,
            None => tag.to_owned(),
        },
    })
}

/// `{% set ns.x = value %}` → `{% set ns.x = stored((value)) %}`
fn checked_set(tag: &str, set: &str) -> Result<String> {
    // Without `=`, or with one in the arguments of a filter, it is the text up to `endset` that is set; a
    // filter could make anything of it.
    let (target, value) = set.split_once('=').unwrap_or((set, ""));
    ensure!(
        !(target.contains('.') && target.contains('|')),
        "a block of text that goes through a filter into a namespace is not supported"
    );
    if value.is_empty() || !target.contains('.') {
        return Ok(tag.to_owned());
    }
    let from = tag.find('=').unwrap_or_default() + 1;
    let to = tag.len() - 2 - usize::from(tag.ends_with("-%}") || tag.ends_with("+%}"));
    let (head, value, tail) = (&tag[..from], &tag[from..to], &tag[to..]);
    ensure!(
        is_balanced(value.as_bytes()),
        "a bracket in `{}` has no other half",
        clipped(set.trim(), 80)
    );
    Ok(format!("{head} {STORED}(({value})) {tail}"))
}

/// Whether no bracket closes one that is not opened there: `1)), n, ((2` would leave the brackets that it
/// is put into.
fn is_balanced(bytes: &[u8]) -> bool {
    let (mut at, mut open) = (0, 0_usize);
    while at < bytes.len() {
        match bytes[at] {
            quote @ (b'\'' | b'"') => at += string_length(&bytes[at..], quote) - 1,
            b'(' | b'[' | b'{' => open += 1,
            b')' | b']' | b'}' if open == 0 => return false,
            b')' | b']' | b'}' => open -= 1,
            _ => {}
        }
        at += 1;
    }
    open == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_without_attributes_set_stays_as_it_is() {
        for text in [
            "",
            "{{",
            "{% set x = 1 %}{{ x == '}}' }} {# {% set a.b = 1 %} #}",
            "{{ '{% generation %}' }}{{ {'a': {}} }}",
            "{% raw %}{% generation %}{{ }}{% endraw %}",
            "{% set x %}a.b{% endset %}",
            "{{ 'it\\'s }}' }}{% if a.b == 1 %}",
        ] {
            assert_eq!(prepared(text).unwrap(), text);
        }
    }

    #[test]
    fn what_a_namespace_is_given_is_looked_at() {
        let checked = |text: &str| prepared(text).unwrap().replace(STORED, "f");
        assert_eq!(checked("{%- set n.x=1 -%}"), "{%- set n.x= f((1 )) -%}");
        assert_eq!(
            checked("{% set\nn . x = '=%}' %}"),
            "{% set\nn . x = f(( '=%}' )) %}"
        );
        assert_eq!(
            checked("{% set a, n.x = 1, 2 %}"),
            "{% set a, n.x = f(( 1, 2 )) %}"
        );
        assert_eq!(
            checked("{%set n.x = a if a == 1%}"),
            "{%set n.x = f(( a if a == 1)) %}"
        );
        assert!(prepared("{% set n.x | batch(2, n) %}a{% endset %}").is_err());
    }

    #[test]
    fn marks_of_training_print_what_is_in_them() {
        let text = "{%- generation -%}a{% endgeneration %}";
        assert_eq!(prepared(text).unwrap(), "{%- if true -%}a{% endif %}");
    }

    #[test]
    fn a_template_of_a_megabyte_and_a_chain_without_end_are_refused() {
        let refused = |text: String| prepared(&text).unwrap_err().to_string();
        assert!(refused("a".repeat(1 << 20)).contains("it has 1048576 bytes"));
        assert!(refused(format!("{{{{ {} }}}}", "x~".repeat(20_000))).contains("words and signs"));
        assert!(prepared(&format!("{{{{ '{}' }}}}", "x~".repeat(20_000))).is_ok());
    }
}
