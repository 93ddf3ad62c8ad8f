//! Lines that end between words, for text that comes piece by piece.
//!
//! What has come is shown at once, so nobody knows yet how long the last word will be. When it
//! outgrows its line, it is taken back and stands at the beginning of the next one, as in an editor.

use unicode_width::UnicodeWidthChar;

/// Where the text stands on a terminal.
#[derive(Debug)]
pub(super) struct Wrap {
    /// Columns that are used. The last one of the terminal stays empty: terminals do not agree on
    /// where the cursor is behind it.
    columns: usize,
    /// Of the next character, without the blanks of `gap`.
    column: usize,
    /// Blanks that wait for a word: at the end of a line they are dropped.
    gap: usize,
    /// What stands at the end of the line and may go on.
    word: String,
    word_width: usize,
}

impl Wrap {
    /// The beginning of a line of a terminal that is so wide.
    pub(super) fn new(terminal: usize) -> Self {
        Self {
            columns: terminal.saturating_sub(1).max(2),
            column: 0,
            gap: 0,
            word: String::new(),
            word_width: 0,
        }
    }

    /// What to write for `text`, in which no character moves the cursor but newline and tab.
    pub(super) fn push(&mut self, text: &str) -> String {
        let mut out = String::with_capacity(text.len() + 8);
        for c in text.chars() {
            match c {
                '\n' => self.new_line(&mut out),
                '\t' => self.blanks(8 - (self.column + self.gap) % 8),
                ' ' => self.blanks(1),
                c => self.place(c, &mut out),
            }
        }
        out
    }

    fn new_line(&mut self, out: &mut String) {
        out.push('\n');
        (self.column, self.gap) = (0, 0);
        self.end_word();
    }

    fn blanks(&mut self, count: usize) {
        self.end_word();
        self.gap += count;
    }

    fn end_word(&mut self) {
        self.word.clear();
        self.word_width = 0;
    }

    fn place(&mut self, c: char, out: &mut String) {
        let width = c.width().unwrap_or(0);
        if self.may_break_before(c) {
            self.end_word();
        }
        if self.word.is_empty() {
            self.begin_word(width, out);
        } else if self.column + width > self.columns {
            self.move_word(width, out);
        }
        out.push(c);
        self.word.push(c);
        self.word_width += width;
        self.column += width;
    }

    fn begin_word(&mut self, width: usize, out: &mut String) {
        if self.column + self.gap + width > self.columns {
            self.new_line(out);
            return;
        }
        out.extend(std::iter::repeat_n(' ', self.gap));
        self.column += self.gap;
        self.gap = 0;
    }

    /// To the next line, as a whole if it has room there.
    fn move_word(&mut self, width: usize, out: &mut String) {
        let begins_line = self.word_width == self.column;
        if begins_line || self.word_width + width > self.columns {
            self.new_line(out);
            return;
        }
        if self.word_width > 0 {
            out.push_str(&format!("\x1b[{}D\x1b[K", self.word_width));
        }
        out.push('\n');
        out.push_str(&self.word);
        self.column = self.word_width;
    }

    /// Between the characters of scripts that have no blanks, and behind the hyphen of a compound.
    fn may_break_before(&self, c: char) -> bool {
        let Some(last) = self.word.chars().next_back() else {
            return false;
        };
        let wide = |c: char| c.width() == Some(2);
        if last == '\u{200d}' || c.width() == Some(0) || joins(c) {
            return false;
        }
        let hyphen = matches!(last, '-' | '—') && c.is_alphabetic();
        wide(c) || (wide(last) && c.is_alphanumeric()) || (hyphen && has_letters(&self.word))
    }
}

fn has_letters(word: &str) -> bool {
    word.contains(char::is_alphanumeric)
}

/// What no line begins with: closing punctuation of East Asia, and the colours of a skin.
fn joins(c: char) -> bool {
    "、。，．！？：；）」』】〕》〉".contains(c) || ('\u{1f3fb}'..='\u{1f3ff}').contains(&c)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use unicode_width::UnicodeWidthStr;

    /// A terminal that knows what [`Wrap`] writes: its lines, without blanks at their ends.
    fn screen(written: &str) -> Vec<String> {
        let mut lines = vec![String::new()];
        let mut rest = written;
        while let Some(c) = rest.chars().next() {
            let line = lines.last_mut().unwrap();
            if let Some(sequence) = rest.strip_prefix("\x1b[") {
                let (columns, after) = sequence.split_once("D\x1b[K").unwrap();
                let mut left: usize = columns.parse().unwrap();
                while left > 0 {
                    left -= line.pop().unwrap().width().unwrap();
                }
                rest = after;
                continue;
            }
            if c == '\n' {
                lines.push(String::new());
            } else {
                line.push(c);
            }
            rest = &rest[c.len_utf8()..];
        }
        lines
            .iter()
            .map(|line| line.trim_end().to_owned())
            .collect()
    }

    fn shown(columns: usize, pieces: &[&str]) -> Vec<String> {
        let mut wrap = Wrap::new(columns);
        screen(
            &pieces
                .iter()
                .map(|piece| wrap.push(piece))
                .collect::<String>(),
        )
    }

    #[test]
    fn a_word_that_outgrows_its_line_moves_to_the_next_one() {
        let pieces = [
            "so strong that",
            " not",
            "hing",
            " can esc",
            "ape, not",
            " even",
        ];
        assert_eq!(
            shown(20, &pieces),
            ["so strong that", "nothing can escape,", "not even"]
        );
        let mut wrap = Wrap::new(11);
        assert_eq!(wrap.push("a black"), "a black");
        assert_eq!(wrap.push("bird"), "bir\x1b[8D\x1b[K\nblackbird");
    }

    #[test]
    fn a_word_that_is_longer_than_a_line_is_cut() {
        assert_eq!(
            shown(11, &["see ", "https://huggingface.co"]),
            ["see", "https://hu", "ggingface.", "co"]
        );
    }

    #[test]
    fn blanks_at_the_end_of_a_line_are_dropped_and_those_that_indent_stay() {
        assert_eq!(shown(11, &["0123456789", "  ", "x"]), ["0123456789", "x"]);
        assert_eq!(
            shown(11, &["if:\n    y", "\n\n\tz"]),
            ["if:", "    y", "", "        z"]
        );
    }

    #[test]
    fn wide_characters_count_two_columns_and_may_stand_apart() {
        assert_eq!(
            shown(8, &["黒い穴は", "、光も"]),
            ["黒い穴", "は、光", "も"]
        );
        assert_eq!(
            shown(8, &["abcd", "👩\u{200d}", "🚀 c"]),
            ["abcd", "👩\u{200d}🚀 c"]
        );
    }

    #[test]
    fn a_compound_may_end_a_line_with_its_hyphen_and_a_flag_may_not() {
        assert_eq!(shown(11, &["a well-known"]), ["a well-", "known"]);
        assert_eq!(shown(11, &["with --cache"]), ["with", "--cache"]);
    }

    fn any_words() -> impl Strategy<Value = String> {
        "([a-zé]{1,12}[,.]?[ \n]{1,2}){0,30}"
    }

    proptest! {
        #[test]
        fn however_a_text_is_cut_into_pieces_its_lines_are_the_same(
            text in any_words(),
            cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..20),
            columns in 14_usize..60,
        ) {
            let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
            places.retain(|place| text.is_char_boundary(*place));
            places.extend([0, text.len()]);
            places.sort_unstable();
            let pieces: Vec<&str> = places.windows(2).map(|pair| &text[pair[0]..pair[1]]).collect();
            let lines = shown(columns, &pieces);
            prop_assert_eq!(&lines, &shown(columns, &[&text]));
            for line in &lines {
                prop_assert!(UnicodeWidthStr::width(line.as_str()) < columns, "{:?}", line);
            }
            let words: Vec<&str> = lines.iter().flat_map(|line| line.split_whitespace()).collect();
            prop_assert_eq!(words, text.split_whitespace().collect::<Vec<_>>());
        }
    }
}
