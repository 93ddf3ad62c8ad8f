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
        let found: Vec<&str> = found
            .into_iter()
            .filter(|mark| self.is_mark(mark))
            .take(MOST)
            .collect();
        // What the tokenizer cannot encode is told when it is asked for.
        let texts = found.iter().map(|&mark| mark.to_owned()).collect();
        let lengths = guarded::lengths(&self.inner, texts).ok()?;
        let split = found
            .into_iter()
            .zip(lengths)
            .filter(|(_, length)| *length > 1);
        let split: Vec<&str> = split.map(|(mark, _)| mark).collect();
        (!split.is_empty()).then(|| {
            format!(
                "the chat template writes {}, which the tokenizer cuts into several ids: if the model \
                 was trained with it as one token, its tokenizer's files are incomplete",
                few(&split)
            )
        })
    }

    /// A tag like `<tools>` may become several ids: it is text unless the vocabulary has it as a whole.
    fn is_mark(&self, mark: &str) -> bool {
        has_bars(mark) || self.inner.token_to_id(mark).is_some()
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
    use crate::tokenizer::TokenizerFiles;

    #[test]
    fn marks_are_found_and_expressions_are_not() {
        let template = "{{ '<|im_start|>' + role + '<|' + role + '|>' }}<tools></think><a b><>\
                        <｜User｜>{% if a < b and c > d %}{% if a<b and c>d %}";
        let found: Vec<&str> = marks(template).into_iter().collect();
        assert_eq!(found, ["</think>", "<tools>", "<|im_start|>", "<｜User｜>"]);
        let bars = found.iter().filter(|mark| has_bars(mark)).count();
        assert_eq!(bars, 2);
    }

    /// Each try could take as long as its limit, and its thread keeps the memory that it has.
    #[test]
    fn a_tokenizer_that_fails_on_one_mark_is_not_tried_on_the_next() {
        let longer = serde_json::json!({
            "type": "Replace", "pattern": {"String": "a"}, "content": "a".repeat(2000)
        });
        let tokenizer = |steps: usize| {
            let json = serde_json::json!({
                "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
                "normalizer": {"type": "Sequence", "normalizers": vec![&longer; steps]},
                "pre_tokenizer": null, "post_processor": null, "decoder": {"type": "Fuse"},
                "model": {"type": "BPE", "dropout": null, "unk_token": null,
                    "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": false,
                    "byte_fallback": false, "ignore_merges": false,
                    "vocab": {"<": 0, "|": 1, "b": 2, "a": 3}, "merges": []},
            });
            Tokenizer::from_files(&TokenizerFiles {
                name: "it".to_owned(),
                tokenizer: Some(json.to_string()),
                chat_template_jinja: Some("<|a|><|b|>".to_owned()),
                vocab_size: 4,
                ..TokenizerFiles::default()
            })
        };
        assert!(tokenizer(0).unwrap().remarks()[0].contains("<|a|>, <|b|>,"));
        assert_eq!(tokenizer(3).unwrap().remarks(), [""; 0]);
    }
}
