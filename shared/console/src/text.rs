//! Text as it comes from files, models and other programs, made fit for 80 columns of a terminal.

use std::borrow::Cow;

use serde::Serialize;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Columns of every line, on every terminal: what fits a frame of the video.
pub const WIDTH: usize = 80;

/// Text with its control characters made visible: caret notation below U+0020 and for DEL, U+FFFD
/// for U+0080 to U+009F (some terminals obey those). Newline and tab stay.
pub fn harmless(text: &str) -> Cow<'_, str> {
    let harmful = |c: char| c.is_control() && c != '\n' && c != '\t';
    if !text.contains(harmful) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match u8::try_from(c) {
            Ok(byte @ (0..0x20 | 0x7f)) if harmful(c) => out.extend(['^', (byte ^ 0x40) as char]),
            _ => out.push(if harmful(c) {
                char::REPLACEMENT_CHARACTER
            } else {
                c
            }),
        }
    }
    Cow::Owned(out)
}

/// [`harmless`] text on one line: breaks and tabs become single spaces.
pub fn one_line(text: &str) -> String {
    let parts: Vec<&str> = text.split(['\n', '\r', '\t']).map(str::trim).collect();
    let kept: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    harmless(&kept.join(" ")).into_owned()
}

/// Characters of the longest message.
const LONGEST_MESSAGE: usize = 600;

/// What an error says, [on one line](one_line) of a few hundred characters: a message may quote a name
/// that fills a file. Its beginning says what was done, its end what to try.
pub fn message(text: &str) -> String {
    let text = one_line(&without_arrays(text));
    let length = text.chars().count();
    if length <= LONGEST_MESSAGE {
        return text;
    }
    let half = LONGEST_MESSAGE / 2 - 1;
    let head: String = text.chars().take(half).collect();
    let tail: String = text.chars().skip(length - half).collect();
    format!("{head}…{tail}")
}

/// MLX puts the values of whole arrays into some of its messages, and nothing behind them.
fn without_arrays(text: &str) -> Cow<'_, str> {
    match text.split_once("array([") {
        Some((before, _)) => Cow::Owned(format!("{before}array(…)")),
        None => Cow::Borrowed(text),
    }
}

/// `text` clipped or filled with blanks to exactly `width` columns.
pub fn pad(text: &str, width: usize) -> String {
    let text = clip(text, width);
    let blanks = width.saturating_sub(text.width());
    format!("{text}{:blanks$}", "")
}

/// At most `width` columns of `text`, with an ellipsis where it was cut.
pub fn clip(text: &str, width: usize) -> Cow<'_, str> {
    if text.width() <= width {
        return text.into();
    }
    let (mut kept, mut used) = (String::new(), 0);
    for c in text.chars() {
        used += c.width().unwrap_or(0);
        if used + 1 > width {
            break;
        }
        kept.push(c);
    }
    if width > 0 {
        kept.push('…');
    }
    kept.into()
}

/// JSON that a `<script>` can hold. Inside one, a browser looks for `</script` and `<!--` before it
/// looks at quotes; U+2028 and U+2029 end a line in old scripts. All of them only occur in strings,
/// where JSON has a second spelling for every character.
///
/// # Errors
/// If the value cannot be written as JSON.
pub fn script_json<T: Serialize>(value: &T) -> serde_json::Result<String> {
    let mut text = serde_json::to_string(value)?;
    for character in ['<', '>', '&', '\u{2028}', '\u{2029}'] {
        text = text.replace(character, &format!("\\u{:04x}", u32::from(character)));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_model_cannot_speak_to_the_terminal() {
        assert_eq!(harmless("\x1b[2Jgone\x07\r\x7f"), "^[[2Jgone^G^M^?");
        assert_eq!(harmless("\u{9b}31m\0"), "\u{fffd}31m^@");
        assert_eq!(harmless("a\n\tb é 字 👩‍🚀"), "a\n\tb é 字 👩‍🚀");
        assert!(matches!(harmless("plain\n"), Cow::Borrowed(_)));
    }

    #[test]
    fn a_message_of_many_lines_becomes_one() {
        let text = "reading x\n\n   at line 3\r\n\tcolumn 7\x1b[0m";
        assert_eq!(one_line(text), "reading x at line 3 column 7^[[0m");
        assert_eq!(one_line("two  spaces  stay"), "two  spaces  stay");
    }

    #[test]
    fn a_message_ends_after_a_few_hundred_characters() {
        assert_eq!(message("reading x:\n  no"), "reading x: no");
        let long = format!("reading {}: give another", "x".repeat(100_000));
        let told = message(&long);
        assert!(told.starts_with("reading xxx") && told.ends_with(": give another"));
        assert_eq!(told.chars().count(), 599);
        let array = "loading m.gguf: Duplicate parameter name array([[1, 2],\n [3, 4]]) x.scales";
        let told = "loading m.gguf: Duplicate parameter name array(…)";
        assert_eq!(message(array), told);
    }

    /// Text as a hostile file name or a model id may have it.
    #[test]
    fn json_in_a_script_cannot_end_the_script() {
        let text = "</script><!-- & \u{2028}\u{2029} \"";
        let json = script_json(&text).unwrap();
        assert!(json.is_ascii() && !json.contains(['<', '>', '&']), "{json}");
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
    }

    fn any_text() -> impl Strategy<Value = String> {
        prop_oneof![any::<String>(), "[ -~]{0,200}", "[字🕳é\u{301} ]{0,60}"]
    }

    proptest! {
        #[test]
        fn padding_gives_the_exact_width_and_clipping_never_more(
            text in any_text(),
            width in 0_usize..90,
        ) {
            let text = one_line(&text);
            prop_assert!(clip(&text, width).width() <= width);
            prop_assert_eq!(pad(&text, width).width(), width);
        }
    }
}
