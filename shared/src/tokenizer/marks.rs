//! Marks that a chat template writes, such as `<|im_start|>`: is each of them one token?

use std::collections::BTreeSet;

use super::{Tokenizer, guarded};
use crate::remarks::few;

/// Longer ones are no marks.
const LONGEST: usize = 48;
/// A template has some twenty.
const MOST: usize = 200;

impl Tokenizer {
    /// A line about the marks of the template that become several ids, if there are such marks.
    ///
    /// For some models that is as they were trained (Zephyr writes `<|user|>` without having such a
    /// token). For others a file of the tokenizer lost the mark, and the answers are nonsense.
    pub(super) fn remark_on_marks(&self) -> Option<String> {
        let found = marks(self.chat_template()?);
        let found = found.into_iter().take(MOST);
        let split: Vec<&str> = found.filter(|mark| self.splits(mark)).collect();
        (!split.is_empty()).then(|| {
            format!(
                "the chat template writes {}, which the tokenizer cuts into several ids: if the model \
                 was trained with it as one token, its tokenizer's files are incomplete",
                few(&split)
            )
        })
    }

    /// Whether a mark becomes several ids. A tag like `<tools>` may: it is text unless the vocabulary
    /// has it as a whole.
    fn splits(&self, mark: &str) -> bool {
        let is_mark = has_bars(mark) || self.inner.token_to_id(mark).is_some();
        is_mark && guarded::encode(&self.inner, mark, false).is_ok_and(|ids| ids.len() > 1)
    }
}

/// The texts between `<` and `>` without a space, a quote or another such sign in between.
fn marks(template: &str) -> BTreeSet<&str> {
    let mut found = BTreeSet::new();
    for (start, _) in template.match_indices('<') {
        let mut inside = template[start..].char_indices().skip(1).take(LONGEST);
        let end = inside.find(|(_, c)| !(c.is_alphanumeric() || "|_-/｜▁".contains(*c)));
        if let Some((end, '>')) = end.filter(|(end, _)| *end > 1) {
            found.insert(&template[start..=start + end]);
        }
    }
    found
}

/// `<|…|>`, or with the wide bars of DeepSeek.
fn has_bars(mark: &str) -> bool {
    ['|', '｜'].iter().any(|&bar| {
        mark[1..].starts_with(bar) && mark[..mark.len() - 1].ends_with(bar) && mark.len() > 4
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_found_and_expressions_are_not() {
        let template = "{{ '<|im_start|>' + role + '<|' + role + '|>' }}<tools></think><a b><>\
                        <｜User｜>{% if a < b and c > d %}{% if a<b and c>d %}";
        let found: Vec<&str> = marks(template).into_iter().collect();
        assert_eq!(found, ["</think>", "<tools>", "<|im_start|>", "<｜User｜>"]);
        let bars = found.iter().filter(|mark| has_bars(mark)).count();
        assert_eq!(bars, 2);
    }
}
