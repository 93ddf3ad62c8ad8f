//! What two files say of one thing, or one file in two places: one reader decides, and says so where
//! they differ.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use serde_json::{Value, json};
use shared::checkpoint::Checkpoint;
use shared::hub::ModelFiles;
use shared::testing::checkpoints::chain::{Chain, added_token};
use shared::testing::checkpoints::{self, edit};
use shared::testing::fixtures;
use shared::tokenizer::{Tokenizer, TokenizerFiles};
use tempfile::TempDir;

const WORDS: [&str; 8] = [
    "<|endoftext|>",
    "a",
    "H",
    "ello",
    "Ġworld",
    "!",
    "<|eot|>",
    "<|eom|>",
];

fn chain() -> Chain {
    Chain::new(&WORDS, &[1, 2, 3, 6, 4, 5, 0])
}

fn open(dir: &Path) -> Checkpoint {
    Checkpoint::open("model", ModelFiles::Directory(dir.to_owned())).unwrap()
}

fn open_gguf(file: &checkpoints::gguf::GgufFile) -> Checkpoint {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("model.gguf");
    std::fs::write(&path, file.bytes()).unwrap();
    Checkpoint::open("model", ModelFiles::Gguf(path)).unwrap()
}

fn stops(checkpoint: &Checkpoint) -> Vec<u32> {
    let tokenizer = Tokenizer::open(checkpoint).unwrap();
    tokenizer.stop_ids().iter().copied().collect()
}

/// The tokenizer of a chain, its files changed.
fn changed(chain: &Chain, tokenizer: impl Fn(&mut Value), config: Value) -> Tokenizer {
    let mut json = chain.tokenizer();
    tokenizer(&mut json);
    let mut all = chain.tokenizer_config();
    all.as_object_mut()
        .unwrap()
        .extend(config.as_object().unwrap().clone());
    let files = TokenizerFiles {
        name: "chain".to_owned(),
        tokenizer: Some(json.to_string()),
        tokenizer_config: Some(all.to_string()),
        vocab_size: chain.width,
        ..TokenizerFiles::default()
    };
    Tokenizer::from_files(&files).unwrap()
}

/// The one remark that holds all of `words`.
fn remarked(remarks: &[String], words: &[&str]) {
    let told = |remark: &&String| words.iter().all(|word| remark.contains(word));
    assert_eq!(
        remarks.iter().filter(told).count(),
        1,
        "{words:?} in {remarks:?}"
    );
}

// ---- stop tokens

#[test]
fn every_end_that_a_gguf_file_names_ends_the_answer() {
    let mut file = chain().gguf();
    assert_eq!(stops(&open_gguf(&file)), [0]);
    file.uint("tokenizer.ggml.eot_token_id", 6);
    assert_eq!(stops(&open_gguf(&file)), [0, 6]);
    file.uint("tokenizer.ggml.eom_token_id", 7);
    assert_eq!(stops(&open_gguf(&file)), [0, 6, 7]);
    file.text("tokenizer.chat_template", "{{ messages[0].content }}");
    assert_eq!(stops(&open_gguf(&file)), [0, 6, 7]);
}

#[test]
fn the_ends_of_all_files_in_hugging_face_layout_are_one_set() {
    let dir = TempDir::new().unwrap();
    chain().write(dir.path()).unwrap();
    edit(dir.path(), "config.json", "eos_token_id", json!([0, 1])).unwrap();
    let generation = json!({"eos_token_id": 2}).to_string();
    std::fs::write(dir.path().join("generation_config.json"), generation).unwrap();
    for (key, token) in [("eos_token", "ello"), ("eot_token", "<|eot|>")] {
        edit(dir.path(), "tokenizer_config.json", key, json!(token)).unwrap();
    }
    let map = json!({"eos_token": "!", "eom_token": {"content": "<|eom|>"}}).to_string();
    std::fs::write(dir.path().join("special_tokens_map.json"), map).unwrap();
    // tokenizer_config.json decides about eos_token, so `!` is none.
    assert_eq!(stops(&open(dir.path())), [0, 1, 2, 3, 6, 7]);
}

// ---- added tokens

/// Ids and remarks of the embedded tokenizer, `tokenizer.json` changed.
fn tiny(change: impl Fn(&mut Vec<Value>)) -> (Vec<u32>, Vec<String>) {
    let dir = TempDir::new().unwrap();
    checkpoints::intact(dir.path()).unwrap();
    let path = dir.path().join("tokenizer.json");
    let mut json: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    change(json["added_tokens"].as_array_mut().unwrap());
    std::fs::write(&path, json.to_string()).unwrap();
    let tokenizer = Tokenizer::open(&open(dir.path())).unwrap();
    let ids = tokenizer
        .encode_prompt("Explain black holes", false)
        .unwrap();
    (ids, tokenizer.remarks().to_vec())
}

#[test]
fn a_mark_that_only_the_tokenizer_config_has_is_one_token_and_that_is_said() {
    let (expected, silence) = tiny(|_| {});
    assert_eq!((expected.len(), silence.len()), (12, 0));
    for mark in ["<|im_start|>", "<|im_end|>"] {
        let (ids, remarks) = tiny(|tokens| tokens.retain(|token| token["content"] != mark));
        assert_eq!(ids, expected, "{mark}");
        remarked(&remarks, &["tokenizer_config.json", "lacks", mark]);
    }
}

#[test]
fn a_tokenizer_that_is_opened_without_its_model_hears_the_same_files() {
    let dir = TempDir::new().unwrap();
    chain().write(dir.path()).unwrap();
    let entry = json!({"content": "<|eot|>", "special": true, "normalized": false});
    let list = json!({ "6": entry });
    edit(
        dir.path(),
        "tokenizer_config.json",
        "added_tokens_decoder",
        list,
    )
    .unwrap();
    let broken = json!([{"name": "rag", "template": ""}]);
    let alone = || Tokenizer::open_alone(dir.path().to_str().unwrap()).unwrap();
    let with_model = Tokenizer::open(&open(dir.path())).unwrap();
    assert_eq!(with_model.encode_raw("a<|eot|>").unwrap(), [1, 6]);
    assert_eq!(alone().encode_bare("a<|eot|>").unwrap(), [1, 6]);
    // It has no use for a template, so a broken one does no harm.
    edit(dir.path(), "tokenizer_config.json", "chat_template", broken).unwrap();
    assert_eq!(alone().encode_bare("a<|eot|>").unwrap(), [1, 6]);
}

#[test]
fn flags_of_added_tokens_are_those_of_the_tokenizer_config() {
    // The ids are those of transformers: `lstrip` takes the spaces before the token with it.
    let mut chain = chain();
    chain.tokens.push("Ġ".to_owned());
    chain.special.push(6);
    let with = |in_tokenizer: bool, in_config: bool| {
        let entry = json!({
            "content": "<|eot|>", "special": true, "normalized": false, "lstrip": in_config,
        });
        let list = json!({"added_tokens_decoder": {"6": entry}});
        let flag = |json: &mut Value| json["added_tokens"][1]["lstrip"] = json!(in_tokenizer);
        changed(&chain, flag, list)
    };
    for (in_tokenizer, in_config, ids) in [(false, true, &[1, 6][..]), (true, false, &[1, 8, 8, 6])]
    {
        let tokenizer = with(in_tokenizer, in_config);
        assert_eq!(tokenizer.encode_raw("a  <|eot|>").unwrap(), ids);
        remarked(tokenizer.remarks(), &["flags", "<|eot|>", "decides"]);
        assert!(with(in_config, in_config).remarks().is_empty());
    }
}

#[test]
fn a_token_whose_id_differs_keeps_that_of_the_vocabulary_and_that_is_said() {
    let entry = json!({"content": "<|eot|>", "special": true, "normalized": false});
    let tokenizer = changed(
        &chain(),
        |_| {},
        json!({"added_tokens_decoder": {"39": entry}}),
    );
    assert_eq!(tokenizer.encode_raw("<|eot|>").unwrap(), [6]);
    remarked(tokenizer.remarks(), &["other ids", "<|eot|>", "decides"]);
}

#[test]
fn a_named_special_token_is_one_token_wherever_it_is_named() {
    for config in [
        json!({"pad_token": "<|eot|>"}),
        json!({"additional_special_tokens": ["<|eot|>"]}),
        json!({"extra_special_tokens": {"turn": {"content": "<|eot|>"}}}),
    ] {
        let tokenizer = changed(&chain(), |_| {}, config);
        assert_eq!(tokenizer.encode_raw("a<|eot|>").unwrap(), [1, 6]);
        assert_eq!(tokenizer.decode(&[1, 6], true).unwrap(), "a");
    }
}

#[test]
fn an_impossible_list_of_added_tokens_is_refused_by_name() {
    let mut files = TokenizerFiles {
        name: "chain".to_owned(),
        tokenizer: Some(chain().tokenizer().to_string()),
        vocab_size: 40,
        ..TokenizerFiles::default()
    };
    for list in [
        json!([]),
        json!({"x": {"content": "a"}}),
        json!({"1": {"special": true}}),
        json!({"-1": {"content": "a"}}),
    ] {
        files.tokenizer_config = Some(json!({ "added_tokens_decoder": list }).to_string());
        let error = format!("{:#}", Tokenizer::from_files(&files).unwrap_err());
        assert!(
            error.contains("tokenizer_config.json of chain")
                && error.contains("added_tokens_decoder"),
            "{error}"
        );
    }
}

#[test]
fn a_mark_of_the_template_that_is_cut_into_pieces_is_said() {
    let bytes: Vec<String> = (b'!'..=b'~')
        .map(|byte| char::from(byte).to_string())
        .collect();
    let mut tokens: Vec<&str> = vec!["<|endoftext|>", "<|user|>", "<tools>"];
    tokens.extend(bytes.iter().map(String::as_str));
    let chain = Chain {
        width: 100,
        ..Chain::new(&tokens, &[])
    };
    let with = |template: &str| changed(&chain, |_| {}, json!({"chat_template": template}));
    let remarks = |template| with(template).remarks().to_vec();
    remarked(
        &remarks("<|user|>{{ messages }}"),
        &["<|user|>", "several ids"],
    );
    remarked(&remarks("<tools>"), &["<tools>"]);
    assert!(remarks("<|endoftext|><b></b>").is_empty());
    let added = |json: &mut Value| json["added_tokens"] = json!([added_token(1, "<|user|>")]);
    let whole = changed(&chain, added, json!({"chat_template": "<|user|>"}));
    assert!(whole.remarks().is_empty(), "{:?}", whole.remarks());
}

// ---- spelling

/// The decoder of a SentencePiece tokenizer.
fn sentencepiece() -> Value {
    json!({"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0},
    ]})
}

#[test]
fn a_byte_level_vocabulary_is_spelled_in_bytes_whatever_its_decoder_says() {
    let hybrid = |json: &mut Value| json["decoder"] = sentencepiece();
    let tokenizer = changed(&chain(), hybrid, json!({}));
    assert_eq!(
        tokenizer.decode(&[2, 3, 4, 5], true).unwrap(),
        "Hello world!"
    );
    let in_a_sequence = |json: &mut Value| {
        hybrid(json);
        let steps = [
            json!({"type": "Digits", "individual_digits": true}),
            json["pre_tokenizer"].clone(),
        ];
        json["pre_tokenizer"] = json!({"type": "Sequence", "pretokenizers": steps});
    };
    let tokenizer = changed(&chain(), in_a_sequence, json!({}));
    assert_eq!(tokenizer.decode(&[4], true).unwrap(), " world");
}

#[test]
fn a_vocabulary_of_pieces_is_not_spelled_in_bytes_whatever_its_decoder_says() {
    let pieces = |json: &mut Value| {
        json["pre_tokenizer"] = json!({
            "type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true,
        });
    };
    let chain = Chain::new(&["<|endoftext|>", "▁a", "▁café"], &[]);
    let tokenizer = changed(&chain, pieces, json!({}));
    assert_eq!(tokenizer.decode(&[1, 2], true).unwrap(), "a café");
}

#[test]
fn an_added_token_is_printed_as_it_is_written() {
    // Each letter of it stands for a byte in GPT-2's alphabet.
    let chain = Chain {
        special: vec![],
        ..Chain::new(&["<|endoftext|>", "č-x", "Ö", "Ġ!"], &[])
    };
    let added = |json: &mut Value| {
        json["added_tokens"] = json!([added_token(1, "č-x"), added_token(2, "Ö")]);
    };
    let tokenizer = changed(&chain, added, json!({"eos_token": null}));
    assert_eq!(tokenizer.decode(&[1, 2, 3], false).unwrap(), "č-xÖ !");
    assert_eq!(tokenizer.piece(1).unwrap().unwrap().bytes, "č-x".as_bytes());
}

#[test]
fn an_added_run_of_sentencepiece_spaces_is_still_a_run_of_spaces() {
    let chain = Chain::new(&["<|endoftext|>", "▁▁", "a▁b", "▁c", "<0x0A>"], &[]);
    let pieces = |json: &mut Value| {
        json["pre_tokenizer"] = Value::Null;
        json["decoder"] = sentencepiece();
        let tokens = [
            added_token(1, "▁▁"),
            added_token(2, "a▁b"),
            added_token(4, "<0x0A>"),
        ];
        json["added_tokens"] = json!(tokens);
    };
    let tokenizer = changed(&chain, pieces, json!({}));
    assert_eq!(
        tokenizer.decode(&[3, 1, 2, 4, 3], false).unwrap(),
        "c  a▁b\n c"
    );
}

// ---- the map of quantized modules

/// The fixture of three modes in one checkpoint, its map changed.
fn mixed(change: impl Fn(&mut serde_json::Map<String, Value>)) -> Checkpoint {
    let name = "llama-nvfp4-mixed";
    let dir = TempDir::new().unwrap();
    let from = fixtures::directory().join(name);
    std::fs::copy(
        from.join("model.safetensors"),
        dir.path().join("model.safetensors"),
    )
    .unwrap();
    let mut config: Value = fixtures::json(&format!("{name}/config.json")).unwrap();
    change(config.as_object_mut().unwrap());
    std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    open(dir.path())
}

#[test]
fn modes_are_read_from_the_tensors_where_no_map_names_them() {
    let whole = mixed(|_| ());
    assert!(whole.remarks.is_empty(), "{:?}", whole.remarks);
    let alone = mixed(|config| {
        config.remove("quantization_config");
        config["quantization"] = json!({"group_size": 16, "bits": 4, "mode": "nvfp4"});
    });
    remarked(&alone.remarks, &["lm_head", "down_proj", "decide"]);
    let without = mixed(|config| {
        config.remove("quantization_config");
        config.remove("quantization");
    });
    let of = |checkpoint: &Checkpoint, module: &str| {
        checkpoint.config.quantization.as_ref().unwrap().of(module)
    };
    for module in [
        "lm_head",
        "model.layers.0.mlp.down_proj",
        "model.embed_tokens",
    ] {
        let said = of(&whole, module);
        assert!(said.is_some());
        assert_eq!(of(&alone, module), said, "{module}");
        assert_eq!(of(&without, module), said, "{module}");
    }
    assert_eq!(alone.parameters(), whole.parameters());
    assert_eq!(without.weight_bytes(), whole.weight_bytes());
}

#[test]
fn entries_of_the_map_are_matched_without_the_prefix_of_a_larger_model() {
    let with = |prefix: &str| {
        mixed(|config| {
            let map = config["quantization"].as_object().unwrap().clone();
            let renamed = map.into_iter().map(|(key, value)| match value {
                Value::Object(_) | Value::Bool(_) => (format!("{prefix}{key}"), value),
                _ => (key, value),
            });
            config["quantization"] = Value::Object(renamed.collect());
        })
    };
    let (plain, prefixed) = (with(""), with("language_model."));
    assert!(prefixed.remarks.is_empty(), "{:?}", prefixed.remarks);
    assert_eq!(prefixed.config.quantization, plain.config.quantization);
}

#[test]
fn an_entry_of_the_map_that_is_of_no_module_is_told() {
    let entry = "model.layers.9.mlp.up_proj";
    let checkpoint = mixed(|config| {
        config["quantization"][entry] = json!({"group_size": 32, "bits": 8});
    });
    remarked(&checkpoint.remarks, &[entry, "no module"]);
    assert_eq!(checkpoint.parameters(), mixed(|_| ()).parameters());
}

#[test]
fn activations_that_should_be_quantized_stay_floats_and_that_is_told() {
    let checkpoint = mixed(|config| {
        config.insert("quantize_activations".to_owned(), json!(true));
    });
    remarked(&checkpoint.remarks, &["quantize_activations", "floats"]);
}
