//! Tool calls: what a client says, what the answer has to be, and what is found in it.

#![allow(clippy::unwrap_used)] // a test that cannot go on should stop there

mod answers;

use std::fs;
use std::path::Path;

use answers::{Asked, Tiny};
use part6_pipeline::ask::Grammar;
use part6_pipeline::constraint::{Constraint, Vocabulary};
use part6_pipeline::tools::{Choice, Family, Piece, ToolParser, Tools};
use serde_json::{Value, json};
use shared::checkpoint::Checkpoint;
use shared::hub;
use shared::tokenizer::Tokenizer;
use tempfile::TempDir;

fn weather() -> Value {
    json!({"type": "function", "function": {"name": "get_weather", "description": "tells the weather", "parameters": {
        "type": "object",
        "$defs": {"unit": {"enum": ["celsius", "fahrenheit"]}},
        "properties": {"city": {"type": "string", "maxLength": 8}, "unit": {"$ref": "#/$defs/unit"}},
        "required": ["city", "unit"], "additionalProperties": false,
    }}})
}

fn clock() -> Value {
    json!({"type": "function", "function": {"name": "clock"}})
}

fn tools(choice: Value) -> Tools {
    let request = json!({"tools": [weather(), clock()], "tool_choice": choice});
    Tools::from_request(&request).unwrap().unwrap()
}

#[derive(Debug, Default, PartialEq)]
struct Found {
    text: String,
    calls: Vec<(String, String)>,
}

fn read(mut parser: ToolParser, parts: impl Iterator<Item = String>) -> Found {
    let mut found = Found::default();
    let mut pieces: Vec<Piece> = parts.flat_map(|part| parser.push(&part)).collect();
    pieces.extend(parser.finish());
    for piece in pieces {
        match piece {
            Piece::Text(text) => found.text.push_str(&text),
            Piece::Call { index, name } => {
                assert_eq!(index, found.calls.len());
                found.calls.push((name, String::new()));
            }
            Piece::Arguments { index, text } => {
                assert!(index + 1 == found.calls.len() && !text.is_empty());
                found.calls[index].1.push_str(&text);
            }
        }
    }
    found
}

/// However the text comes, it says the same.
fn found(family: Family, text: &str) -> Found {
    let tools = tools(json!("auto"));
    let whole = read(tools.parser(family), std::iter::once(text.to_owned()));
    for size in [1, 2, 3, 7] {
        let chars: Vec<char> = text.chars().collect();
        let parts = chars.chunks(size).map(|part| part.iter().collect());
        assert_eq!(
            read(tools.parser(family), parts),
            whole,
            "{text} in parts of {size}"
        );
    }
    whole
}

fn calls(all: &[(&str, &str)], text: &str) -> Found {
    let calls = all
        .iter()
        .map(|(name, arguments)| ((*name).to_owned(), (*arguments).to_owned()));
    Found {
        text: text.to_owned(),
        calls: calls.collect(),
    }
}

#[test]
fn calls_of_each_family_are_found() {
    let paris = r#"{"city": "Paris }]", "unit": "celsius"}"#;
    let hermes = format!(
        "Let me see.\n<tool_call>\n{{\"name\": \"get_weather\", \"arguments\": {paris}}}\n</tool_call>\n<tool_call>{{\"name\": \"clock\", \"arguments\": {{}}}}</tool_call>"
    );
    let both = calls(&[("get_weather", paris), ("clock", "{}")], "Let me see.\n");
    assert_eq!(found(Family::Hermes, &hermes), both);
    let both = calls(&[("get_weather", paris), ("clock", "{}")], "");
    let llama = format!(
        "{{\"name\": \"get_weather\", \"parameters\": {paris}}}; {{\"name\": \"clock\", \"parameters\": {{}}}}"
    );
    assert_eq!(found(Family::Llama3, &llama), both);
    assert_eq!(
        found(Family::Llama3, &format!("<|python_tag|>{llama}")),
        both
    );
    let mistral = format!(
        "[{{\"name\": \"get_weather\", \"arguments\": {paris}}}, {{\"name\": \"clock\", \"arguments\": {{}}}}]"
    );
    assert_eq!(found(Family::Mistral, &mistral), both);
    assert_eq!(
        found(Family::Mistral, &format!("[TOOL_CALLS] {mistral}")),
        both
    );
    // The name may come last, and nested braces are no end.
    let last = r#"{"parameters": {"a": {"b": ["}"]}}, "name": "clock"}"#;
    let expected = calls(&[("clock", r#"{"a": {"b": ["}"]}}"#)], "");
    assert_eq!(found(Family::Llama3, last), expected);
}

#[test]
fn what_only_looks_like_a_call_is_text() {
    for (family, text) in [
        (Family::Hermes, "a < b, <tool and <tool_"),
        (
            Family::Hermes,
            "<tool_call>\n{\"name\": \"other\", \"arguments\": {}}\n</tool_call>",
        ),
        (Family::Hermes, "{\"name\": \"clock\", \"parameters\": {}}"),
        (Family::Llama3, "{\"answer\": 42}"),
        (
            Family::Llama3,
            "It is {\"name\": \"clock\", \"parameters\": {}}",
        ),
        (Family::Mistral, "[1, 2, 3] is a list"),
        (Family::Mistral, "[{\"a\": 1}]"),
        (Family::Llama3, "  "),
        (Family::Llama3, "{\"name\": "),
        (Family::Llama3, "{\"name\": 7, \"parameters\": {}}"),
    ] {
        assert_eq!(found(family, text), calls(&[], text));
    }
    // Cut off within the arguments: what came is what there is.
    let cut = found(
        Family::Hermes,
        "<tool_call>{\"name\": \"clock\", \"arguments\": {\"a\": 1",
    );
    assert_eq!(cut, calls(&[("clock", "{\"a\": 1")], ""));
}

#[test]
fn what_a_request_says_of_tools_is_read_or_told() {
    assert_eq!(
        Tools::from_request(&json!({"tools": null, "tool_choice": "auto"})).unwrap(),
        None
    );
    assert_eq!(tools(Value::Null).choice, Choice::Auto);
    assert!(tools(json!("none")).for_template().is_empty());
    let named = tools(json!({"type": "function", "function": {"name": "clock"}}));
    assert_eq!(named.choice, Choice::Function("clock".to_owned()));
    let told = |request: Value| format!("{:#}", Tools::from_request(&request).unwrap_err());
    insta::assert_snapshot!([
        told(json!({"tools": {}})),
        told(json!({"tools": [{"type": "web_search"}]})),
        told(json!({"tools": [{"type": "function"}]})),
        told(json!({"tools": [{"type": "function", "function": {"name": "a b"}}]})),
        told(json!({"tools": [{"type": "function", "function": {"name": "a", "parameters": 1}}]})),
        told(json!({"tool_choice": "required"})),
        told(json!({"tools": [clock()], "tool_choice": "any"})),
        told(json!({"tools": [clock()], "tool_choice": {"type": "function"}})),
        told(json!({"tools": [clock()], "tool_choice": {"type": "function", "function": {"name": "x"}}})),
        told(json!({"tools": [clock()], "parallel_tool_calls": "no"})),
        told(json!({"tools": vec![clock(); 129]})),
    ].join("\n"));
}

#[test]
fn the_family_is_that_of_the_template() {
    let family = |template: &str| Family::of_template(Some(template));
    assert_eq!(family("{% if tools %}<tool_call>").unwrap(), Family::Hermes);
    assert_eq!(
        family("{% if tools %}[TOOL_CALLS]").unwrap(),
        Family::Mistral
    );
    assert_eq!(
        family("{% if tools is not none %}<|python_tag|>").unwrap(),
        Family::Llama3
    );
    assert!(family("{{ messages }}").is_err() && family("{{ tools }}").is_err());
    assert!(Family::of_template(None).is_err());
}

#[test]
fn a_call_that_must_come_comes_with_arguments_of_its_schema() {
    let tiny = Tiny::open();
    for family in [Family::Hermes, Family::Llama3, Family::Mistral] {
        for choice in [
            json!("required"),
            json!({"type": "function", "function": {"name": "get_weather"}}),
        ] {
            let tools = tools(choice.clone());
            let grammar = tools.grammar(family).unwrap().unwrap();
            for seed in 0..3 {
                let answer = tiny.answer(&Asked::drawn(grammar.clone(), seed));
                let found = read(tools.parser(family), std::iter::once(answer.text.clone()));
                assert_eq!(found.text, "", "{answer:?}");
                let [(name, arguments)] = &found.calls[..] else {
                    panic!("{answer:?}");
                };
                if name == "get_weather" {
                    let arguments: Value = serde_json::from_str(arguments).unwrap();
                    let schema = &weather()["function"]["parameters"];
                    answers::validity::check(&arguments, schema, schema).unwrap();
                } else {
                    assert!(choice.is_string(), "{answer:?}");
                }
            }
        }
    }
    assert_eq!(tools(json!("auto")).grammar(Family::Hermes).unwrap(), None);
}

/// However it comes, what an answer says that is calls or a value.
fn found_or(family: Family, text: &str) -> Found {
    let tools = tools(json!("auto"));
    let whole = read(tools.parser_or(family), std::iter::once(text.to_owned()));
    for size in [1, 2, 3, 7] {
        let chars: Vec<char> = text.chars().collect();
        let parts = chars.chunks(size).map(|part| part.iter().collect());
        let in_parts = read(tools.parser_or(family), parts);
        assert_eq!(in_parts, whole, "{text} in parts of {size}");
    }
    whole
}

#[test]
fn an_answer_that_is_calls_or_a_value_is_what_it_begins_as() {
    for (family, text) in [
        (
            Family::Hermes,
            "{\"a\": \"<tool_call>{'name': 'clock', 'arguments': {}}</tool_call>\"}",
        ),
        (Family::Hermes, "{\"name\": \"clock\", \"arguments\": {}}"),
        (Family::Llama3, "{\"name\": \"Ann\", \"parameters\": {}}"),
        (
            Family::Llama3,
            "{\"age\": 1, \"name\": \"clock\", \"parameters\": {}}",
        ),
        (
            Family::Llama3,
            "[{\"name\": \"clock\", \"parameters\": {}}]",
        ),
        (Family::Llama3, "{\"name\": \"cl"), // cut off before it was clear
        (
            Family::Mistral,
            "[{\"title\": \"clock\", \"arguments\": {}}]",
        ),
        (Family::Mistral, "{\"name\": \"clock\", \"arguments\": {}}"),
        (Family::Mistral, "[\"{\", \"name\"]"),
        (Family::Mistral, "3.5"),
    ] {
        assert_eq!(found_or(family, text), calls(&[], text), "{text}");
    }
    let clock = calls(&[("clock", "{}")], "");
    let hermes = "<tool_call>\n{\"name\": \"clock\", \"arguments\": {}}\n</tool_call>";
    assert_eq!(found_or(Family::Hermes, hermes), clock);
    let twice = calls(&[("clock", "{}"), ("clock", "{}")], "");
    assert_eq!(
        found_or(Family::Hermes, &format!("{hermes}\n{hermes}")),
        twice
    );
    let llama = "{ \"name\":\n\"clock\", \"parameters\": {}}";
    assert_eq!(found_or(Family::Llama3, llama), clock);
    let mistral = "[ {\"name\":\"clock\", \"arguments\": {}} ]";
    assert_eq!(found_or(Family::Mistral, mistral), clock);
}

fn said() -> Grammar {
    Grammar::Schema(json!({
        "$id": "https://example.org/said", "type": "object",
        "$defs": {"word": {"type": "string", "maxLength": 6}},
        "properties": {"words": {"type": "array", "items": {"$ref": "#/$defs/word"}, "maxItems": 3}, "n": {"type": "number"}},
        "required": ["words", "n"], "additionalProperties": false,
    }))
}

fn or_said(family: Family, parallel: bool, vocabulary: &Vocabulary) -> (Tools, Grammar) {
    let mut tools = tools(json!("auto"));
    tools.parallel = parallel;
    tools.check_format(family, &said(), vocabulary).unwrap();
    let grammar = tools.grammar_or(family, &said(), vocabulary).unwrap();
    (tools, grammar)
}

#[test]
fn what_may_call_or_else_has_a_format_does_one_of_both() {
    let tiny = Tiny::open();
    let Grammar::Schema(schema) = said() else {
        unreachable!()
    };
    for family in [Family::Hermes, Family::Llama3, Family::Mistral] {
        let (tools, grammar) = or_said(family, false, &tiny.vocabulary);
        for seed in 0..6 {
            let answer = tiny.answer(&Asked::drawn(grammar.clone(), seed));
            let found = read(
                tools.parser_or(family),
                std::iter::once(answer.text.clone()),
            );
            let [(name, arguments)] = &found.calls[..] else {
                assert!(found.calls.is_empty(), "{answer:?}");
                let value: Value = serde_json::from_str(&found.text).unwrap();
                answers::validity::check(&value, &schema, &schema).unwrap();
                continue;
            };
            assert_eq!(found.text, "", "{answer:?}");
            let arguments: Value = serde_json::from_str(arguments).unwrap();
            if name == "get_weather" {
                let schema = &weather()["function"]["parameters"];
                answers::validity::check(&arguments, schema, schema).unwrap();
            } else {
                assert_eq!(arguments, json!({}));
            }
        }
    }
}

/// How much of a text may come, and whether more than white space may come after it.
fn may_come(tiny: &Tiny, grammar: &Grammar, text: &str) -> (bool, bool) {
    let mut constraint = Constraint::new(&tiny.vocabulary, grammar).unwrap();
    let ids = tiny.tokenizer.encode_bare(text).unwrap();
    let all = ids.iter().all(|id| constraint.accept(*id).is_ok());
    (
        all && constraint.is_complete(),
        all && !constraint.must_stop(),
    )
}

#[test]
fn several_calls_may_come_where_they_are_allowed_and_nothing_comes_after_a_value() {
    let tiny = Tiny::open();
    let hermes = "<tool_call>\n{\"name\": \"clock\", \"arguments\": {}}\n</tool_call>";
    let twice = format!("{hermes}\n{hermes}");
    let mistral =
        "[{\"name\": \"clock\", \"arguments\": {}}, {\"name\": \"clock\", \"arguments\": {}}]";
    let value = "{\"words\": [], \"n\": 2}";
    for parallel in [true, false] {
        let (_, grammar) = or_said(Family::Hermes, parallel, &tiny.vocabulary);
        assert_eq!(may_come(&tiny, &grammar, hermes), (true, parallel));
        assert_eq!(may_come(&tiny, &grammar, &twice).0, parallel);
        assert_eq!(may_come(&tiny, &grammar, value), (true, false));
        let mixed = format!("{hermes}\n{value}");
        assert!(!may_come(&tiny, &grammar, &mixed).0);
        let (_, grammar) = or_said(Family::Mistral, parallel, &tiny.vocabulary);
        assert_eq!(may_come(&tiny, &grammar, mistral).0, parallel);
        assert_eq!(may_come(&tiny, &grammar, value), (true, false));
    }
}

/// The embedded model's vocabulary, in which the mark of Mistral's calls is a token that is no text.
fn with_mark() -> (TempDir, Checkpoint) {
    let place = TempDir::new().unwrap();
    let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/models/tiny");
    for file in fs::read_dir(tiny).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), place.path().join(file.file_name())).unwrap();
    }
    let path = place.path().join("tokenizer.json");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("<|im_start|>", "[TOOL_CALLS]")).unwrap();
    let name = place.path().to_str().unwrap();
    let checkpoint = Checkpoint::open(name, hub::locate(name, None).unwrap()).unwrap();
    (place, checkpoint)
}

#[test]
fn a_mark_that_is_no_text_begins_calls_and_nothing_else() {
    let (_place, checkpoint) = with_mark();
    let tokenizer = Tokenizer::open(&checkpoint).unwrap();
    let vocabulary = Vocabulary::new(&tokenizer, checkpoint.config.vocab_size).unwrap();
    let mark = vocabulary.mark("[TOOL_CALLS]").unwrap();
    assert!(tokenizer.piece(mark).unwrap().unwrap().special);
    let (_, grammar) = or_said(Family::Mistral, true, &vocabulary);
    let id = |text: &str| tokenizer.encode_bare(text).unwrap()[0];
    let (list, object) = (id("["), id("{"));
    let mut constraint = Constraint::new(&vocabulary, &grammar).unwrap();
    let may = |constraint: &mut Constraint, id: u32| constraint.mask().unwrap()[id as usize];
    assert!(
        [mark, list, object]
            .iter()
            .all(|id| may(&mut constraint, *id))
    );
    constraint.accept(mark).unwrap();
    assert!(may(&mut constraint, list));
    assert!(!may(&mut constraint, object) && !may(&mut constraint, mark));
}
