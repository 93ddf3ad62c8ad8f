//! The tokenizer of a real GGUF file, and of the embedded model as the hub module finds it.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::sync::{LazyLock, OnceLock};

use serde_json::Value;
use shared::checkpoint::Checkpoint;
use shared::hub::{Embedded, ModelFiles};
use shared::testing::fixtures;
use shared::tokenizer::{Message, Tokenizer};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn fixture(name: &str) -> Value {
    let path = root().join("assets/fixtures/tokenizers").join(name);
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// Without the file the test that asks is skipped.
fn smollm2() -> Option<&'static Tokenizer> {
    static SMOLLM2: OnceLock<Tokenizer> = OnceLock::new();
    let path = fixtures::smollm2()?;
    Some(SMOLLM2.get_or_init(|| {
        Tokenizer::open(&Checkpoint::open("smollm2", ModelFiles::Gguf(path)).unwrap()).unwrap()
    }))
}

static TINY: LazyLock<Tokenizer> = LazyLock::new(|| {
    Tokenizer::open(&Checkpoint::open("tiny", ModelFiles::Embedded(Embedded::Tiny)).unwrap())
        .unwrap()
});

#[test]
fn smollm2_from_gguf_gives_the_ids_of_its_own_tokenizer_json() {
    let Some(smollm2) = smollm2() else { return };
    let texts: Vec<String> = serde_json::from_value(fixture("texts.json")).unwrap();
    let expected: Vec<Vec<u32>> =
        serde_json::from_value(fixture("smollm2.json")["ids"].clone()).unwrap();
    assert_eq!(texts.len(), expected.len());
    assert!(texts.len() > 200);
    for (text, expected) in texts.iter().zip(&expected) {
        assert_eq!(&smollm2.encode_raw(text).unwrap(), expected, "{text:?}");
        assert_eq!(&smollm2.decode(expected, false).unwrap(), text);
    }
}

#[test]
fn smollm2_from_gguf_writes_chatml_with_its_default_system_turn() {
    let Some(smollm2) = smollm2() else { return };
    let prompt = smollm2.render_chat(&[Message::user("Hi 🙂")]).unwrap();
    assert!(
        prompt.starts_with("<|im_start|>system\nYou are a helpful"),
        "{prompt:?}"
    );
    assert!(prompt.ends_with("<|im_start|>user\nHi 🙂<|im_end|>\n<|im_start|>assistant\n"));
    // Here BOS is <|im_start|>, which the template writes once for each turn, and nobody else adds.
    let ids = smollm2.encode_prompt("Hi 🙂", false).unwrap();
    assert_eq!(ids.iter().filter(|id| **id == 1).count(), 3);
    assert_ne!(ids[..2], [1, 1]);
    assert_eq!(smollm2.decode(&ids, false).unwrap(), prompt);
}

#[test]
fn smollm2_from_gguf_stops_at_its_end_of_turn() {
    let Some(smollm2) = smollm2() else { return };
    assert_eq!(smollm2.stop_ids().iter().copied().collect::<Vec<_>>(), [2]);
    assert_eq!(smollm2.vocab_size(), 49152);
}

#[test]
fn both_models_agree_with_mlx_lm() {
    let path = root().join("assets/fixtures/ops/tokenizer.json");
    let fixture: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let smollm2 = smollm2().map(|tokenizer| ("smollm2", tokenizer));
    for (name, tokenizer) in [Some(("tiny", &*TINY)), smollm2].into_iter().flatten() {
        let rows = fixture[name].as_array().unwrap();
        assert!(!rows.is_empty());
        for row in rows {
            let text = row["text"].as_str().unwrap();
            let raw: Vec<u32> = serde_json::from_value(row["raw"].clone()).unwrap();
            let chat: Vec<u32> = serde_json::from_value(row["chat"].clone()).unwrap();
            assert_eq!(tokenizer.encode_raw(text).unwrap(), raw, "{name} {text:?}");
            assert_eq!(
                tokenizer.encode_prompt(text, false).unwrap(),
                chat,
                "{name} {text:?}"
            );
            let rendered = tokenizer.render_chat(&[Message::user(text)]).unwrap();
            assert_eq!(rendered, row["rendered"], "{name} {text:?}");
            assert_eq!(
                tokenizer.decode(&raw, false).unwrap(),
                row["decoded"],
                "{name} {text:?}"
            );
        }
    }
}

#[test]
fn the_embedded_model_has_its_tokenizer_with_it() {
    let tokenizer = &*TINY;
    assert_eq!(
        tokenizer.stop_ids().iter().copied().collect::<Vec<_>>(),
        [0, 2]
    );
    let expected: Vec<u32> =
        serde_json::from_value(fixture("tiny.json")["chat"][0].clone()).unwrap();
    assert_eq!(
        tokenizer
            .encode_prompt("Explain black holes", false)
            .unwrap(),
        expected
    );
}

#[test]
fn a_directory_without_a_tokenizer_is_refused_with_a_way_to_go_on() {
    let files = ModelFiles::Directory(root().join("assets/fixtures/llama"));
    let checkpoint = Checkpoint::open("my-model", files).unwrap();
    let error = Tokenizer::open(&checkpoint).unwrap_err().to_string();
    assert!(error.contains("my-model has no tokenizer.json"), "{error}");
}
