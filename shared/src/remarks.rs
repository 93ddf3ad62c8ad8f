//! Lines on stderr about files that contradict each other, or hold what was read past.
//!
//! A wrong guess without a word is the worst fault of a program that reads other people's files: the
//! answer looks right and is not. So whoever decides between two readings leaves a remark.

use console::report::warn;

/// Names in one line before the rest is only counted.
const LISTED: usize = 3;
/// Characters of a name.
const NAME: usize = 60;

/// Says all of them.
pub(crate) fn tell_all(remarks: &[String]) {
    for remark in remarks {
        warn(remark);
    }
}

/// `a, b, c and 4 more`
pub(crate) fn few(names: &[&str]) -> String {
    let listed: Vec<String> = names
        .iter()
        .take(LISTED)
        .map(|name| clipped(name, NAME))
        .collect();
    let text = listed.join(", ");
    match names.len().saturating_sub(LISTED) {
        0 => text,
        more => format!("{text} and {more} more"),
    }
}

/// `text`, cut to a number of characters.
pub(crate) fn clipped(text: &str, characters: usize) -> String {
    match text.char_indices().nth(characters) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_names_are_counted_and_long_ones_cut() {
        assert_eq!(few(&["a"]), "a");
        assert_eq!(few(&["a", "b", "c", "d", "e"]), "a, b, c and 2 more");
        assert_eq!(few(&[&"é".repeat(61)]), format!("{}…", "é".repeat(60)));
    }
}
