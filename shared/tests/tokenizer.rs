//! The tokenizer against its references: ids, templates and text as transformers, SentencePiece and
//! `tokenizers` itself give them. `shared/xtask/python` makes the fixtures.

#![allow(clippy::unwrap_used)]

use std::path::PathBuf;
use std::sync::LazyLock;

use proptest::prelude::*;
use serde_json::{Value, json};
use shared::tokenizer::{GgufVocabulary, Message, Tokenizer, TokenizerFiles};

fn asset(path: &str) -> String {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../assets")
        .join(path);
    std::fs::read_to_string(&root).unwrap_or_else(|error| panic!("{}: {error}", root.display()))
}

fn fixture(name: &str) -> Value {
    serde_json::from_str(&asset(&format!("fixtures/tokenizers/{name}"))).unwrap()
}

fn texts() -> Vec<String> {
    serde_json::from_value(fixture("texts.json")).unwrap()
}

fn ids(list: &Value) -> Vec<u32> {
    serde_json::from_value(list.clone()).unwrap()
}

fn tiny_files() -> TokenizerFiles {
    TokenizerFiles {
        name: "tiny".to_owned(),
        tokenizer: Some(asset("models/tiny/tokenizer.json")),
        tokenizer_config: Some(asset("models/tiny/tokenizer_config.json")),
        special_tokens_map: Some(asset("models/tiny/special_tokens_map.json")),
        eos_token_ids: vec![2, 0],
        vocab_size: 4096,
        ..TokenizerFiles::default()
    }
}

static TINY: LazyLock<Tokenizer> = LazyLock::new(|| Tokenizer::from_files(&tiny_files()).unwrap());

/// `tiny` with another tokenizer_config.json, made from `changes`.
fn tiny_with(changes: Value) -> anyhow::Result<Tokenizer> {
    let mut files = tiny_files();
    let mut config: Value = serde_json::from_str(files.tokenizer_config.as_ref().unwrap()).unwrap();
    for (key, value) in changes.as_object().unwrap() {
        config[key] = value.clone();
    }
    files.tokenizer_config = Some(config.to_string());
    Tokenizer::from_files(&files)
}

fn gguf(name: &str) -> (Tokenizer, Value) {
    let fixture = fixture(name);
    let vocabulary: GgufVocabulary = serde_json::from_value(fixture["vocabulary"].clone()).unwrap();
    let rows = vocabulary.tokens.len();
    (
        Tokenizer::from_gguf(name, &vocabulary, rows).unwrap(),
        fixture,
    )
}

fn assert_same_ids(tokenizer: &Tokenizer, fixture: &Value, bos: &[u32]) {
    let texts = texts();
    let expected = fixture["ids"].as_array().unwrap();
    assert_eq!(texts.len(), expected.len());
    let mut compared = 0;
    for (text, expected) in texts.iter().zip(expected).filter(|(_, ids)| !ids.is_null()) {
        let expected = [bos, &ids(expected)].concat();
        assert_eq!(tokenizer.encode_raw(text).unwrap(), expected, "{text:?}");
        compared += 1;
    }
    assert!(compared > 200, "only {compared} texts compared");
}

fn one_line(error: &anyhow::Error) -> String {
    let text = format!("{error:#}");
    assert!(!text.contains('\n'), "more than one line: {text:?}");
    text
}

#[test]
fn the_embedded_tokenizer_gives_the_ids_of_transformers() {
    let fixture = fixture("tiny.json");
    assert_same_ids(&TINY, &fixture, &[]);
    for (text, expected) in texts().iter().zip(fixture["chat"].as_array().unwrap()) {
        assert_eq!(
            TINY.encode_prompt(text, false).unwrap(),
            ids(expected),
            "{text:?}"
        );
    }
}

#[test]
fn the_embedded_tokenizer_gives_the_text_of_transformers() {
    let fixture = fixture("tiny.json");
    let all = fixture["ids"]
        .as_array()
        .unwrap()
        .iter()
        .zip(fixture["decoded"].as_array().unwrap());
    for (list, text) in all {
        assert_eq!(
            TINY.decode(&ids(list), true).unwrap(),
            text.as_str().unwrap()
        );
    }
}

#[test]
fn gguf_gpt2_vocabularies_give_the_reference_ids() {
    let (tokenizer, fixture) = gguf("gguf-gpt2.json");
    assert_same_ids(&tokenizer, &fixture, &[]);
}

#[test]
fn gguf_llama3_vocabularies_give_the_reference_ids_after_bos() {
    let (tokenizer, fixture) = gguf("gguf-llama3.json");
    let (begun, rest): (Vec<_>, Vec<_>) = texts()
        .into_iter()
        .partition(|text| text.starts_with("<|endoftext|>"));
    assert!(!begun.is_empty() && !rest.is_empty());
    for (text, expected) in texts().iter().zip(fixture["ids"].as_array().unwrap()) {
        let bos: &[u32] = if text.starts_with("<|endoftext|>") {
            &[]
        } else {
            &[0]
        };
        let expected = [bos, &ids(expected)].concat();
        assert_eq!(tokenizer.encode_raw(text).unwrap(), expected, "{text:?}");
    }
}

#[test]
fn gguf_qwen2_vocabularies_give_the_reference_ids() {
    let (tokenizer, fixture) = gguf("gguf-qwen2.json");
    assert_same_ids(&tokenizer, &fixture, &[]);
}

#[test]
fn gguf_sentencepiece_vocabularies_give_the_ids_of_sentencepiece_after_bos() {
    let (tokenizer, fixture) = gguf("gguf-sentencepiece.json");
    assert_same_ids(&tokenizer, &fixture, &[1]);
}

#[test]
fn gguf_sentencepiece_vocabularies_give_the_text_of_sentencepiece() {
    let (tokenizer, fixture) = gguf("gguf-sentencepiece.json");
    let decoded = fixture["decoded"].as_array().unwrap();
    let all = fixture["ids"].as_array().unwrap().iter().zip(decoded);
    for (list, text) in all.filter(|(ids, _)| !ids.is_null()) {
        assert_eq!(
            tokenizer.decode(&ids(list), true).unwrap(),
            text.as_str().unwrap()
        );
    }
}

#[test]
fn a_space_prefix_is_not_added_where_the_file_says_so() {
    let fixture = fixture("gguf-sentencepiece.json");
    let mut vocabulary: GgufVocabulary =
        serde_json::from_value(fixture["vocabulary"].clone()).unwrap();
    let with = Tokenizer::from_gguf("with", &vocabulary, 800).unwrap();
    vocabulary.add_space_prefix = Some(false);
    vocabulary.add_bos_token = Some(false);
    let without = Tokenizer::from_gguf("without", &vocabulary, 800).unwrap();
    let ids = without.encode_raw(" the the").unwrap();
    assert_eq!(
        with.encode_raw("the the").unwrap(),
        [&[1], ids.as_slice()].concat()
    );
    assert_eq!(without.decode(&ids, true).unwrap(), " the the");
    assert_eq!(with.decode(&ids, true).unwrap(), "the the");
}

#[test]
fn an_unknown_gguf_pre_tokenizer_is_refused_by_name() {
    let fixture = fixture("gguf-gpt2.json");
    let mut vocabulary: GgufVocabulary =
        serde_json::from_value(fixture["vocabulary"].clone()).unwrap();
    vocabulary.pre = Some("falcon9".to_owned());
    let error = one_line(&Tokenizer::from_gguf("x.gguf", &vocabulary, 1000).unwrap_err());
    assert!(
        error.contains("x.gguf") && error.contains("\"falcon9\" is not supported"),
        "{error}"
    );
    vocabulary.model = "rwkv".to_owned();
    let error = one_line(&Tokenizer::from_gguf("x.gguf", &vocabulary, 1000).unwrap_err());
    assert!(error.contains("\"rwkv\" is not supported"), "{error}");
}

#[test]
fn gguf_tables_that_do_not_fit_are_refused() {
    let base = || -> GgufVocabulary {
        serde_json::from_value(fixture("gguf-gpt2.json")["vocabulary"].clone()).unwrap()
    };
    type Break = fn(&mut GgufVocabulary);
    let defects: [(&str, Break); 6] = [
        ("no tokenizer.ggml.tokens", |v| v.tokens.clear()),
        ("entries in tokenizer.ggml.token_type", |v| {
            v.token_type.truncate(7)
        }),
        ("special token 5000 is beyond", |v| {
            v.bos_token_id = Some(5000)
        }),
        ("is not a pair", |v| v.merges[3] = "alone".to_owned()),
        ("do not fit", |v| {
            v.merges[3] = "no_such other_one".to_owned()
        }),
        ("no tokenizer.ggml.scores", |v| v.model = "llama".to_owned()),
    ];
    for (expected, break_it) in defects {
        let mut vocabulary = base();
        break_it(&mut vocabulary);
        let error = one_line(&Tokenizer::from_gguf("x.gguf", &vocabulary, 1000).unwrap_err());
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn templates_render_as_transformers_renders_them() {
    let fixture = fixture("templates.json");
    let conversations = fixture["conversations"].as_array().unwrap();
    for case in fixture["cases"].as_array().unwrap() {
        let mut config = fixture["special_tokens"].clone();
        config["chat_template"] = case["template"].clone();
        let mut tokenizer = tiny_with(config).unwrap();
        tokenizer.freeze_clock(time::macros::datetime!(2024-07-26 09:05:03 UTC));
        for (messages, expected) in conversations
            .iter()
            .zip(case["expected"].as_array().unwrap())
        {
            let rendered = tokenizer.render_chat(&conversation(messages));
            match expected["raises"].as_str() {
                Some(message) => {
                    let error = one_line(&rendered.unwrap_err());
                    assert!(error.contains(message), "{}: {error}", case["name"]);
                }
                None => {
                    assert_eq!(rendered.unwrap(), expected["text"], "{}", case["name"]);
                }
            }
        }
    }
}

fn conversation(messages: &Value) -> Vec<Message> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let messages = messages.as_array().unwrap().iter();
    messages
        .map(|m| Message {
            role: text(&m["role"]),
            content: text(&m["content"]),
        })
        .collect()
}

#[test]
fn the_date_of_a_template_is_today_unless_the_clock_stands() {
    let mut tokenizer = tiny_with(json!({"chat_template": "{{ strftime_now('%Y') }}"})).unwrap();
    let year: i32 = tokenizer.render_chat(&[]).unwrap().parse().unwrap();
    assert!(year >= 2025, "{year}");
    tokenizer.freeze_clock(time::macros::datetime!(1999-12-31 00:00 UTC));
    assert_eq!(tokenizer.render_chat(&[]).unwrap(), "1999");
}

#[test]
fn a_template_file_wins_over_the_tokenizer_config() {
    let mut files = tiny_files();
    files.chat_template_json = Some(json!({"chat_template": "from json"}).to_string());
    assert_eq!(
        Tokenizer::from_files(&files)
            .unwrap()
            .render_chat(&[])
            .unwrap(),
        "from json"
    );
    files.chat_template_jinja = Some("from jinja".to_owned());
    assert_eq!(
        Tokenizer::from_files(&files)
            .unwrap()
            .render_chat(&[])
            .unwrap(),
        "from jinja"
    );
}

#[test]
fn a_list_without_a_default_template_is_refused_with_the_names() {
    let list = json!({"chat_template": [{"name": "rag", "template": ""}]});
    let error = one_line(&tiny_with(list).unwrap_err());
    assert!(
        error.contains("no template \"default\", only: rag"),
        "{error}"
    );
}

#[test]
fn a_template_that_raises_fails_with_its_own_words_in_one_line() {
    let template = "{{ raise_exception('no system\nrole, please') }}";
    let tokenizer = tiny_with(json!({ "chat_template": template })).unwrap();
    let error = one_line(&tokenizer.encode_prompt("hi", false).unwrap_err());
    assert!(
        error.contains("tiny") && error.contains("no system role, please"),
        "{error}"
    );
    assert!(error.contains("--raw"), "{error}");
    assert!(
        tokenizer.encode_prompt("hi", true).is_ok(),
        "--raw must still work"
    );
}

#[test]
fn a_broken_template_says_where_it_broke() {
    for (template, expected) in [
        ("a\n{% for %}", "in line 2"),
        ("\n\n{{ messages[0].name.first }}", "in line 3"),
        ("{{ strftime_now('%Q') }}", "strftime_now"),
        ("{{ messages | tojson(color=1) }}", "color"),
        ("{{ no_such_function() }}", "no_such_function"),
    ] {
        let tokenizer = tiny_with(json!({ "chat_template": template })).unwrap();
        let error = one_line(&tokenizer.encode_prompt("hi", false).unwrap_err());
        assert!(error.contains(expected), "{template:?}: {error}");
    }
}

#[test]
fn a_template_cannot_take_all_time_or_memory() {
    for template in [
        "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
        "{% set ns = namespace(s='x') %}{% for i in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
        "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}",
        "{{ 'x' * 1000000000000 }}",
        "{{ [1, [2]] | tojson(indent=10000000000) }}",
        "{{ range(100000) | list | tojson(separators=['x' * 1000000, '']) }}",
    ] {
        let tokenizer = tiny_with(json!({ "chat_template": template })).unwrap();
        one_line(&tokenizer.encode_prompt("hi", false).unwrap_err());
    }
}

/// The one line of a template that is not rendered.
fn refusal_of(template: &str) -> String {
    let tokenizer = tiny_with(json!({ "chat_template": template })).unwrap();
    let error = tokenizer.encode_prompt("hi", false).unwrap_err();
    one_line(&error);
    format!("{error:#}")
}

#[test]
fn a_value_cannot_contain_itself() {
    for stored in ["n", "[n]", "{'a': n}", "{n: 1}", "(1, n)"] {
        for end in ["n", "n|tojson", "n|pprint", "n ~ ''", "n == n2", "debug()"] {
            let template = format!(
                "{{% set n = namespace() %}}{{% set n2 = namespace() %}}{{% set n.x = {stored} %}}\
                 {{% set n2.x = {stored} %}}{{{{ {end} }}}}"
            );
            let refusal = refusal_of(&template);
            assert!(
                refusal.contains("a namespace cannot hold"),
                "{template}: {refusal}"
            );
        }
    }
    for template in [
        "{% set n = namespace() %}{% set a, n.x = 1, n %}{{ n }}",
        "{% set n = namespace() %}{% set n.x | batch(2, n) %}a{% endset %}{{ n }}",
        "{% set n = namespace() %}{% for m in [1, 2, n] %}{% set n.l = loop %}{% endfor %}{{ n }}",
        "{% set n = namespace() %}{% set m = namespace(n=n) %}{% set n.m = m %}{{ n }}",
        "{% set n = namespace() %}{% set m = namespace(n=n) %}{% set n.m = m.items() %}{{ n }}",
        "{% set n = namespace(x=[]) %}{% for i in range(90000) %}{% set n.x = [n.x] %}{% endfor %}{{ n.x }}",
    ] {
        refusal_of(template);
    }
}

#[test]
fn what_a_namespace_holds_is_what_it_was_given() {
    for (template, text) in [
        (
            "{% set n = namespace(x=1) %}{% set n.x = n.x + 1 %}{{ n.x }}",
            "2",
        ),
        (
            "{% set n = namespace() %}{% set n.x = (1, 'a') %}{{ n.x }}",
            "(1, 'a')",
        ),
        (
            "{% set n = namespace() %}{% set n.x = {'b': [1], 'a': none} %}{{ n.x }}",
            "{'b': [1], 'a': None}",
        ),
        (
            "{% set n = namespace() %}{% set n.x = messages[1:] %}{{ n.x|length }}",
            "0",
        ),
        (
            "{% set n = namespace() %}{% set n.x = messages %}{{ n.x[0].content }}",
            "hi",
        ),
        (
            "{% set n = namespace() %}{% set n.x = nobody %}{{ n.x is defined }}",
            "False",
        ),
        ("{{ '{% generation %}' }}", "{% generation %}"),
        (
            "{% raw %}{% set n.x = 1 %}{% endraw %}",
            "{% set n.x = 1 %}",
        ),
    ] {
        let tokenizer = tiny_with(json!({ "chat_template": template })).unwrap();
        assert_eq!(
            tokenizer.render_chat(&[Message::user("hi")]).unwrap(),
            text,
            "{template}"
        );
    }
}

#[test]
fn a_long_conversation_is_within_what_a_template_may_spend() {
    let fixture = fixture("templates.json");
    let content = "word ".repeat(400);
    let turn = |role: &str| Message {
        role: role.to_owned(),
        content: content.clone(),
    };
    let messages: Vec<Message> = (0..500)
        .flat_map(|_| [turn("user"), turn("assistant")])
        .collect();
    for case in fixture["cases"].as_array().unwrap() {
        let template = json!({"chat_template": case["template"]});
        let rendered = tiny_with(template).unwrap().render_chat(&messages).unwrap();
        assert!(!rendered.is_empty(), "{}", case["name"]);
    }
}

#[test]
fn there_are_never_two_bos_tokens() {
    let (tokenizer, _) = gguf("gguf-llama3.json");
    for text in ["hello", "<|endoftext|>hello", "<|endoftext|>", " <"] {
        let ids = tokenizer.encode_raw(text).unwrap();
        assert_eq!(
            ids.iter().filter(|id| **id == 0).count(),
            1,
            "{text:?}: {ids:?}"
        );
    }
    let mut vocabulary: GgufVocabulary =
        serde_json::from_value(fixture("gguf-llama3.json")["vocabulary"].clone()).unwrap();
    for (template, count) in [
        ("{{ bos_token }}{{ messages[0].content }}", 1),
        ("no bos", 0),
    ] {
        vocabulary.chat_template = Some(template.to_owned());
        let tokenizer = Tokenizer::from_gguf("x", &vocabulary, 1000).unwrap();
        let ids = tokenizer.encode_prompt("hello", false).unwrap();
        assert_eq!(
            ids.iter().filter(|id| **id == 0).count(),
            count,
            "{template}"
        );
    }
}

#[test]
fn stop_ids_are_those_of_config_tokenizer_and_template() {
    let stops = |tokenizer: &Tokenizer| tokenizer.stop_ids().iter().copied().collect::<Vec<_>>();
    assert_eq!(stops(&TINY), [0, 2]);
    let mut files = tiny_files();
    files.eos_token_ids = vec![77];
    let mut config: Value = serde_json::from_str(files.tokenizer_config.as_ref().unwrap()).unwrap();
    // The end of the document, from the tokenizer; the end of turn, from the template.
    config["eos_token"] = json!({"content": "<|endoftext|>"});
    files.tokenizer_config = Some(config.to_string());
    assert_eq!(stops(&Tokenizer::from_files(&files).unwrap()), [0, 2, 77]);
    // A template that never writes <|im_end|> does not make it a stop.
    config["chat_template"] = json!("{{ messages[0].content }} end");
    files.tokenizer_config = Some(config.to_string());
    assert_eq!(stops(&Tokenizer::from_files(&files).unwrap()), [0, 77]);
}

#[test]
fn an_ordinary_word_is_never_a_stop() {
    let mut files = tiny_files();
    files.tokenizer = files
        .tokenizer
        .map(|json| json.replace("\"special\": true", "\"special\": false"));
    files.eos_token_ids = Vec::new();
    let config: Value = serde_json::from_str(files.tokenizer_config.as_ref().unwrap()).unwrap();
    let without_eos = json!({"chat_template": config["chat_template"]});
    files.tokenizer_config = Some(without_eos.to_string());
    files.special_tokens_map = None;
    let tokenizer = Tokenizer::from_files(&files).unwrap();
    assert!(
        tokenizer.stop_ids().is_empty(),
        "{:?}",
        tokenizer.stop_ids()
    );
}

#[test]
fn a_missing_tokenizer_says_what_is_missing_and_how_to_go_on() {
    let files = TokenizerFiles {
        tokenizer: None,
        ..tiny_files()
    };
    let error = one_line(&Tokenizer::from_files(&files).unwrap_err());
    assert!(error.contains("tiny has no tokenizer.json"), "{error}");
    assert!(
        error.contains("tokenizer.model") && error.contains("convert"),
        "{error}"
    );
}

#[test]
fn broken_files_are_one_clear_line() {
    let whole = tiny_files();
    for length in [0, 1, 100, 5_000, 200_000] {
        let mut files = tiny_files();
        files.tokenizer = files
            .tokenizer
            .map(|text| text.chars().take(length).collect());
        let error = one_line(&Tokenizer::from_files(&files).unwrap_err());
        assert!(error.contains("tokenizer.json of tiny"), "{error}");
    }
    let files = TokenizerFiles {
        tokenizer_config: Some("{\"a\": ".to_owned()),
        ..whole.clone()
    };
    let error = one_line(&Tokenizer::from_files(&files).unwrap_err());
    assert!(error.contains("tokenizer_config.json of tiny"), "{error}");
    let files = TokenizerFiles {
        tokenizer: Some("[1, 2]".to_owned()),
        ..whole
    };
    one_line(&Tokenizer::from_files(&files).unwrap_err());
}

#[test]
fn each_part_of_a_tokenizer_json_may_be_nonsense_without_a_panic() {
    let text = asset("models/tiny/tokenizer.json");
    let whole: Value = serde_json::from_str(&text).unwrap();
    let nonsense = [
        json!(null),
        json!(7),
        json!("x"),
        json!([]),
        json!({"type": "Nothing"}),
    ];
    for key in [
        "added_tokens",
        "normalizer",
        "pre_tokenizer",
        "post_processor",
        "decoder",
        "model",
    ] {
        for value in &nonsense {
            let mut broken = whole.clone();
            broken[key] = value.clone();
            let files = TokenizerFiles {
                tokenizer: Some(broken.to_string()),
                ..tiny_files()
            };
            if let Err(error) = Tokenizer::from_files(&files) {
                one_line(&error);
            }
        }
    }
}

/// What is said when a text is encoded with `tiny`, one part of its tokenizer.json replaced.
fn refusal_with(part: &str, value: Value) -> String {
    let text = asset("models/tiny/tokenizer.json");
    let mut changed: Value = serde_json::from_str(&text).unwrap();
    match part.split_once('.') {
        Some((part, key)) => changed[part][key] = value,
        None => changed[part] = value,
    }
    let files = TokenizerFiles {
        tokenizer: Some(changed.to_string()),
        ..tiny_files()
    };
    let ids = Tokenizer::from_files(&files).and_then(|tokenizer| tokenizer.encode_raw("aaa bbb"));
    one_line(&ids.unwrap_err())
}

#[test]
fn a_tokenizer_json_that_ends_other_programs_is_one_line() {
    let replace =
        |pattern: Value, by: &str| json!({"type": "Replace", "pattern": pattern, "content": by});
    let sequence =
        |step: Value, count| json!({"type": "Sequence", "normalizers": vec![step; count]});
    let map = |text: &str| json!({"type": "Precompiled", "precompiled_charsmap": text});
    let piece = json!({"SpecialToken": {"id": "x", "type_id": 0}});
    let second = json!({"Sequence": {"id": "B", "type_id": 0}});
    let template = |single: Value| json!({"type": "TemplateProcessing", "single": [single], "pair": [], "special_tokens": {}});
    let letter = || json!({"String": "a"});
    for (part, value) in [
        ("normalizer", replace(json!({"String": ""}), "x")),
        ("normalizer", replace(json!({"Regex": ""}), "x")),
        (
            "normalizer",
            replace(json!({"Regex": "(.*)\\1\\1\\1"}), "x"),
        ),
        ("normalizer", sequence(replace(letter(), "aa"), 40)),
        (
            "normalizer",
            sequence(replace(json!({"String": ""}), "yy"), 30),
        ),
        ("normalizer", map("")),
        ("normalizer", map("AAAA")),
        ("normalizer", map("/////w==")),
        ("pre_tokenizer", json!({"type": "FixedLength", "length": 0})),
        ("post_processor", template(piece)),
        ("post_processor", template(second)),
        ("model.continuing_subword_prefix", json!("longer than any")),
    ] {
        let told = refusal_with(part, value.clone());
        assert!(
            told.contains("tiny") && told.contains("fetch"),
            "{part} {value}: {told}"
        );
        assert!(told.len() < 400, "{told}");
    }
}

#[test]
fn an_id_that_the_model_has_no_row_for_is_refused() {
    let files = TokenizerFiles {
        vocab_size: 300,
        ..tiny_files()
    };
    let tokenizer = Tokenizer::from_files(&files).unwrap();
    let error = one_line(
        &tokenizer
            .encode_prompt("Explain black holes", false)
            .unwrap_err(),
    );
    assert!(error.contains("only 300 embedding rows"), "{error}");
    assert!(tokenizer.encode_raw("a").is_ok());
}

#[test]
fn rows_that_only_pad_the_embedding_give_no_text() {
    let files = TokenizerFiles {
        vocab_size: 5000,
        ..tiny_files()
    };
    let tokenizer = Tokenizer::from_files(&files).unwrap();
    assert_eq!(tokenizer.vocab_size(), 4096);
    assert_eq!(tokenizer.decode(&[67, 4999, 68], true).unwrap(), "ab");
    let error = one_line(&tokenizer.decode(&[67, 5000], true).unwrap_err());
    assert!(error.contains("token id 5000"), "{error}");
    assert!(tokenizer.stream().push(u32::MAX).is_err());
}

#[test]
fn an_empty_prompt_is_refused_and_a_blank_one_is_not() {
    for raw in [false, true] {
        let error = one_line(&TINY.encode_prompt("", raw).unwrap_err());
        assert!(error.contains("the prompt is empty"), "{error}");
        assert!(!TINY.encode_prompt(" ", raw).unwrap().is_empty());
    }
}

#[test]
fn without_a_template_a_prompt_is_raw_and_a_conversation_an_error() {
    let tokenizer = tiny_with(json!({"chat_template": null})).unwrap();
    assert!(!tokenizer.has_chat_template());
    let raw = TINY.encode_raw("Once upon a time").unwrap();
    assert_eq!(
        tokenizer.encode_prompt("Once upon a time", false).unwrap(),
        raw
    );
    let error = one_line(&tokenizer.encode_chat(&[Message::user("hi")]).unwrap_err());
    assert!(error.contains("no chat template"), "{error}");
}

#[test]
fn training_settings_neither_cut_nor_pad_the_prompt() {
    let mut json: Value = serde_json::from_str(&asset("models/tiny/tokenizer.json")).unwrap();
    json["truncation"] =
        json!({"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0});
    json["padding"] = json!({"strategy": {"Fixed": 64}, "direction": "Left", "pad_to_multiple_of": null, "pad_id": 0, "pad_type_id": 0, "pad_token": "<|endoftext|>"});
    let files = TokenizerFiles {
        tokenizer: Some(json.to_string()),
        ..tiny_files()
    };
    let tokenizer = Tokenizer::from_files(&files).unwrap();
    let text = "one two three four five six";
    assert_eq!(
        tokenizer.encode_raw(text).unwrap(),
        TINY.encode_raw(text).unwrap()
    );
}

/// All pieces of a stream, each with the index of the id that completed it.
fn streamed(tokenizer: &Tokenizer, ids: &[u32]) -> Vec<(usize, String)> {
    let mut stream = tokenizer.stream();
    let mut pieces: Vec<(usize, String)> = Vec::new();
    for (index, id) in ids.iter().enumerate() {
        pieces.extend(stream.push(*id).unwrap().map(|text| (index, text)));
    }
    pieces.extend(stream.finish().unwrap().map(|text| (ids.len(), text)));
    pieces
}

fn joined(pieces: &[(usize, String)]) -> String {
    pieces.iter().map(|(_, text)| text.as_str()).collect()
}

#[test]
fn an_emoji_of_several_tokens_comes_out_whole_with_its_last_token() {
    let sentencepiece = gguf("gguf-sentencepiece.json").0;
    for (tokenizer, prefix) in [(&*TINY, 0), (&sentencepiece, 1)] {
        for text in ["🦀", "क्षत्रिय", "𒀀"] {
            let ids = &tokenizer.encode_raw(text).unwrap()[prefix..];
            assert!(ids.len() > 1, "{text} is one token: the test shows nothing");
            let pieces = streamed(tokenizer, ids);
            assert_eq!(joined(&pieces), text);
            assert!(
                pieces.iter().all(|(_, piece)| !piece.contains('\u{fffd}')),
                "{pieces:?}"
            );
        }
    }
}

#[test]
fn text_goes_out_as_soon_as_it_is_whole() {
    let ids = TINY.encode_raw("black holes are 🦀 not").unwrap();
    let pieces = streamed(&TINY, &ids);
    let crab = pieces
        .iter()
        .find(|(_, text)| text.contains('🦀'))
        .unwrap()
        .0;
    for (index, piece) in &pieces {
        let alone = TINY
            .decode(&ids[..=(*index).min(ids.len() - 1)], true)
            .unwrap();
        assert!(
            alone.ends_with(piece.as_str()),
            "{piece:?} came late (the emoji ends at {crab})"
        );
    }
}

#[test]
fn bytes_that_never_become_a_character_are_flushed_as_replacement_characters() {
    let crab = TINY.encode_raw("🦀").unwrap();
    let cut = &crab[..crab.len() - 1];
    let pieces = streamed(&TINY, cut);
    assert_eq!(pieces, [(cut.len(), "\u{fffd}".to_owned())]);
    // Followed by a letter, the half character is given up at once, and the letter is not lost.
    let ids = [cut, &TINY.encode_raw("a").unwrap()].concat();
    assert_eq!(joined(&streamed(&TINY, &ids)), "\u{fffd}a");
}

#[test]
fn special_tokens_are_not_streamed() {
    let ids = TINY.encode_raw("<|im_start|>user\nhi<|im_end|>").unwrap();
    assert_eq!(joined(&streamed(&TINY, &ids)), "user\nhi");
    assert_eq!(
        TINY.decode(&ids, false).unwrap(),
        "<|im_start|>user\nhi<|im_end|>"
    );
}

static REFERENCES: LazyLock<Vec<(Tokenizer, tokenizers::Tokenizer)>> = LazyLock::new(|| {
    let tiny = asset("models/tiny/tokenizer.json");
    let pieces = sentencepiece_json();
    let ours = |text: &str| {
        let tokenizer = Some(text.to_owned());
        Tokenizer::from_files(&TokenizerFiles {
            tokenizer,
            ..tiny_files()
        })
        .unwrap()
    };
    [tiny, pieces]
        .map(|text| (ours(&text), text.parse().unwrap()))
        .into()
});

/// The SentencePiece fixture as a tokenizer.json, so that the library can read it too.
fn sentencepiece_json() -> String {
    let vocabulary = &fixture("gguf-sentencepiece.json")["vocabulary"];
    let tokens = vocabulary["tokens"].as_array().unwrap();
    let vocab: serde_json::Map<String, Value> = (0..)
        .zip(tokens)
        .map(|(id, token): (u32, _)| (token.as_str().unwrap().to_owned(), json!(id)))
        .collect();
    let special = |id: u32| {
        json!({"id": id, "content": tokens[id as usize], "single_word": false, "lstrip": false,
               "rstrip": false, "normalized": false, "special": true})
    };
    json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [special(0), special(1), special(2)],
        "normalizer": null, "pre_tokenizer": null, "post_processor": null,
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
                  "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true,
                  "ignore_merges": false, "vocab": vocab, "merges": []},
    })
    .to_string()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_text_streams_back_as_it_was(text in any::<String>()) {
        for (ours, _) in &*REFERENCES {
            let ids = ours.encode_raw(&text).unwrap();
            let pieces = streamed(ours, &ids);
            prop_assert_eq!(joined(&pieces), ours.decode(&ids, true).unwrap());
        }
        let ids = TINY.encode_raw(&text).unwrap();
        prop_assert_eq!(TINY.decode(&ids, false).unwrap(), text);
    }

    /// Byte tokens are a third of the SentencePiece fixture, so these are mostly invalid UTF-8.
    #[test]
    fn any_ids_stream_as_the_library_decodes_them_at_once(
        picks in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
    ) {
        for (ours, library) in &*REFERENCES {
            let ids: Vec<u32> = picks.iter().map(|pick| pick.index(ours.vocab_size()) as u32).collect();
            let text = joined(&streamed(ours, &ids));
            prop_assert_eq!(&text, &ours.decode(&ids, true).unwrap());
            let whole = library.decode(&ids, true).unwrap();
            // Where byte tokens make no character, the library spoils the good ones beside them too.
            let comparable = ours.vocab_size() == 4096 || !whole.contains('\u{fffd}');
            prop_assert!(!comparable || text == whole, "{text:?} {whole:?}");
        }
    }
}
