//! Tool calls: what a client says, what the answer has to be, and what is found in it.

#![allow(clippy::unwrap_used)] // a test that cannot go on should stop there

mod answers;

use answers::{Asked, Tiny};
use part6_pipeline::tools::{Choice, Family, Piece, ToolParser, Tools};
use serde_json::{Value, json};

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
