//! What an answer must match, it matches; and what cannot be matched is told in one line.

#![allow(clippy::unwrap_used)] // a test that cannot go on should stop there

mod answers;

use std::io::Write;
use std::time::{Duration, Instant};

use answers::{Answer, Asked, Tiny, validity, wide};
use console::metrics::FinishReason;
use part6_pipeline::ask::Grammar;
use part6_pipeline::constraint::Constraint;
use part6_pipeline::kinds::CacheKind;
use part6_pipeline::limits::Limits;
use part6_pipeline::quantized_cache::KvBits;
use serde_json::{Value, json};
use shared::sampling::Sampling;

struct Named {
    name: String,
    schema: Value,
}

fn schemas() -> Vec<Named> {
    let lines = include_str!("schemas.jsonl").lines();
    let named = lines.map(|line| serde_json::from_str::<Value>(line).unwrap());
    let named = named.map(|mut named| Named {
        name: named["name"].as_str().unwrap().to_owned(),
        schema: named["schema"].take(),
    });
    named.collect()
}

/// How many draws of each kind: `DRAWS=100` for a night.
fn draws(usual: u64) -> u64 {
    let asked = std::env::var("DRAWS").ok();
    asked.map_or(usual, |count| count.parse().unwrap())
}

/// For `validate.py`, which asks another judge: `ANSWERS=FILE`.
fn write_down(all: &[(&Named, String)]) {
    let Ok(path) = std::env::var("ANSWERS") else {
        return;
    };
    let file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path);
    let mut file = file.unwrap();
    for (named, text) in all {
        let line = json!({"name": named.name, "schema": named.schema, "text": text});
        writeln!(file, "{line}").unwrap();
    }
}

#[track_caller]
fn assert_meets(named: &Named, text: &str) {
    let value: Value = serde_json::from_str(text)
        .unwrap_or_else(|error| panic!("{}: {text:?} is no JSON: {error}", named.name));
    if let Err(why) = validity::check(&value, &named.schema, &named.schema) {
        panic!("{}: {text} does not meet {why}", named.name);
    }
}

/// A stream of numbers below 2³².
struct Draw(u64);

impl Draw {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % limit
    }
}

/// Writes an answer without a model: of the ids that may come, `choose` takes one. The text, if it ended.
fn write(
    tiny: &Tiny,
    grammar: &Grammar,
    most: usize,
    mut choose: impl FnMut(&[u32]) -> u32,
) -> (Vec<u32>, bool) {
    let mut constraint = Constraint::new(&tiny.vocabulary, grammar).unwrap();
    let mut ids = Vec::new();
    while ids.len() < most {
        let mask = constraint.mask().unwrap();
        let allowed: Vec<u32> = (0..)
            .zip(&mask)
            .filter(|(_, ok)| **ok)
            .map(|(id, _)| id)
            .collect();
        let id = choose(&allowed);
        if constraint.is_end(id) {
            assert!(constraint.is_complete());
            return (ids, true);
        }
        ids.push(id);
        constraint.accept(id).unwrap();
        if constraint.must_stop() {
            return (ids, true);
        }
    }
    (ids, false)
}

fn texts(tiny: &Tiny, ids: &[u32]) -> String {
    tiny.tokenizer.decode(ids, false).unwrap()
}

#[test]
fn what_is_drawn_from_the_masks_alone_meets_every_schema() {
    let tiny = Tiny::open();
    let mut complete = 0;
    let mut all = Vec::new();
    let schemas = schemas();
    for (at, named) in schemas.iter().enumerate() {
        let grammar = Grammar::Schema(named.schema.clone());
        for seed in 0..draws(6) {
            let mut draw = Draw(1 + seed * 7919 + at as u64 * 104_729);
            (0..9).for_each(|_| {
                draw.below(2);
            });
            // Every other one prefers the ends of texts and lists, so that it ends itself.
            let ends =
                |id: &&u32| matches!(texts(&tiny, &[**id]).trim_end(), "\"" | "]" | "}" | "");
            let choose = |allowed: &[u32]| {
                let end = allowed.iter().filter(ends).copied().collect::<Vec<u32>>();
                let hurry = seed % 2 == 1 && !end.is_empty() && draw.below(2) == 0;
                let from = if hurry { &end[..] } else { allowed };
                from[draw.below(from.len())]
            };
            let (ids, ended) = write(&tiny, &grammar, 300, choose);
            if ended {
                let text = texts(&tiny, &ids);
                assert_meets(named, &text);
                all.push((named, text));
                complete += 1;
            }
        }
    }
    let asked = schemas.len() as u64 * draws(6);
    assert!(
        complete * 10 > asked * 7,
        "only {complete} of {asked} ended"
    );
    write_down(&all);
}

#[test]
fn what_the_model_answers_meets_every_schema() {
    let tiny = Tiny::open();
    let schemas = schemas();
    let mut all = Vec::new();
    for seed in 0..=draws(2) {
        let asked: Vec<Asked> = (schemas.iter())
            .map(|named| {
                let grammar = Grammar::Schema(named.schema.clone());
                let mut asked = match seed {
                    0 => Asked::greedy(grammar),
                    seed => Asked::drawn(grammar, seed),
                };
                asked.max_tokens = 120;
                asked
            })
            .collect();
        let answers = tiny.answers(&asked, wide(), CacheKind::Prealloc);
        for (named, answer) in schemas.iter().zip(answers) {
            if answer.reason == FinishReason::Stop {
                assert_meets(named, &answer.text);
                all.push((named, answer.text));
            }
        }
    }
    let asked = schemas.len() * (1 + draws(2) as usize);
    assert!(
        all.len() * 10 > asked * 7,
        "only {} of {asked} ended",
        all.len()
    );
    write_down(&all);
}

/// The longest run of white space outside of texts, in bytes.
fn longest_space(text: &str) -> usize {
    let (mut in_text, mut escaped, mut run, mut longest) = (false, false, 0, 0);
    for c in text.chars() {
        let was = escaped;
        escaped = in_text && c == '\\' && !was;
        in_text ^= c == '"' && !was;
        run = if !in_text && c.is_whitespace() {
            run + 1
        } else {
            0
        };
        longest = longest.max(run);
    }
    longest
}

fn spaces(tiny: &Tiny) -> Vec<bool> {
    let blank = |id: u32| {
        let text = texts(tiny, &[id]);
        !text.is_empty() && text.chars().all(char::is_whitespace)
    };
    (0..tiny.config.vocab_size as u32).map(blank).collect()
}

/// Small models do: without a bound they go on until their tokens are used up.
#[test]
fn whoever_likes_white_space_gets_a_line_and_an_indent_of_it() {
    let tiny = Tiny::open();
    let blank = spaces(&tiny);
    let schema = json!({"type": "array", "items": {"type": "integer", "maximum": 9, "minimum": 0}, "minItems": 2, "maxItems": 2});
    let choose = |allowed: &[u32]| {
        let wide = allowed.iter().filter(|id| blank[**id as usize]);
        let lines_first = |id: &&u32| {
            let text = texts(&tiny, &[**id]);
            (text.contains('\n'), text.len())
        };
        *wide.max_by_key(lines_first).unwrap_or(&allowed[0])
    };
    let (ids, ended) = write(&tiny, &Grammar::Schema(schema), 1000, choose);
    let text = texts(&tiny, &ids);
    assert!(ended, "{text:?}");
    let longest = longest_space(&text);
    assert!((3..=34).contains(&longest), "{longest} in {text:?}");
    assert!(!text.ends_with(char::is_whitespace), "{text:?}");
}

/// Without any, a model that would begin a line has only the end of the list left.
#[test]
fn lists_can_be_written_in_lines() {
    let tiny = Tiny::open();
    let schema = json!({"type": "object", "properties": {"tags": {"type": "array", "items": {"type": "string"}}}, "required": ["tags"], "additionalProperties": false});
    for text in [
        "{\n  \"tags\": [\n    \"a\",\n    \"b\"\n  ]\n}",
        "{\r\n\t\"tags\" : [\r\n\t\t\"a\"\r\n\t]\r\n}",
        "{\"tags\":[\"a\",\"b\"]}",
        "{ \"tags\": [ \"a\", \"b\" ] }",
    ] {
        let mut constraint =
            Constraint::new(&tiny.vocabulary, &Grammar::Schema(schema.clone())).unwrap();
        for id in tiny.tokenizer.encode_bare(text).unwrap() {
            assert!(constraint.mask().unwrap()[id as usize], "{text:?}");
            constraint.accept(id).unwrap();
        }
        assert!(
            constraint.is_complete() && constraint.must_stop(),
            "{text:?}"
        );
    }
}

#[test]
fn whoever_likes_digits_comes_to_the_end_of_a_number() {
    let tiny = Tiny::open();
    let wanted = |allowed: &[u32], signs: &[&str]| {
        let found = signs.iter().find_map(|sign| {
            allowed
                .iter()
                .find(|id| texts(&tiny, &[**id]) == **sign)
                .copied()
        });
        found.unwrap_or(allowed[0])
    };
    let cases: [(Value, &[&str]); 4] = [
        (json!({"type": "integer"}), &["9"]),
        (json!({"type": "number"}), &["9", "."]),
        (json!({"type": "number"}), &["e", "9"]),
        (
            json!({"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}),
            &["9", ".", "e"],
        ),
    ];
    for (schema, signs) in cases {
        let grammar = Grammar::Schema(schema.clone());
        let (ids, ended) = write(&tiny, &grammar, 200, |allowed| wanted(allowed, signs));
        let text = texts(&tiny, &ids);
        assert!(ended, "{text}");
        let value: Value = serde_json::from_str(&text).unwrap();
        validity::check(&value, &schema, &schema).unwrap();
    }
    // A schema that wants more digits gets them.
    let large = Grammar::Schema(json!({"type": "integer", "minimum": 1e17}));
    let (ids, ended) = write(&tiny, &large, 40, |allowed| wanted(allowed, &["9", "1"]));
    assert!(ended, "{}", texts(&tiny, &ids));
    let text = texts(&tiny, &ids);
    assert!(
        text.len() == 18 && text.parse::<f64>().unwrap() >= 1e17,
        "{text}"
    );
    // Digits of a text are no number.
    let text = json!({"type": "string", "pattern": "^[0-9]{60}$"});
    let (ids, ended) = write(&tiny, &Grammar::Schema(text), 99, |allowed| {
        wanted(allowed, &["9"])
    });
    assert!(ended && texts(&tiny, &ids).len() == 62);
}

/// Those of the types of programming languages are in many schemas.
#[test]
fn bounds_that_no_f64_has_are_kept() {
    let tiny = Tiny::open();
    let first = |allowed: &[u32]| {
        let digits = allowed
            .iter()
            .filter(|id| texts(&tiny, &[**id]).parse::<u32>().is_ok());
        digits.copied().min().unwrap_or(allowed[0])
    };
    let last = |allowed: &[u32]| {
        let digits = allowed
            .iter()
            .filter(|id| texts(&tiny, &[**id]).parse::<u32>().is_ok());
        digits.copied().max().unwrap_or(allowed[0])
    };
    let odd = (1_i64 << 53) + 1;
    for (schema, least, most) in [
        (
            json!({"type": "integer", "minimum": odd, "maximum": odd + 9}),
            odd,
            odd + 9,
        ),
        (
            json!({"type": "integer", "exclusiveMinimum": odd, "exclusiveMaximum": odd + 9}),
            odd + 1,
            odd + 8,
        ),
        (
            json!({"type": "integer", "minimum": i64::MIN, "maximum": i64::MAX}),
            i64::MIN,
            i64::MAX,
        ),
        (
            json!({"type": "integer", "minimum": 0, "maximum": u64::MAX}),
            0,
            i64::MAX,
        ),
        (
            json!({"type": "integer", "minimum": -1e300, "maximum": 1e300}),
            i64::MIN,
            i64::MAX,
        ),
    ] {
        let grammar = Grammar::Schema(schema.clone());
        for choose in [&first as &dyn Fn(&[u32]) -> u32, &last] {
            let (ids, ended) = write(&tiny, &grammar, 40, choose);
            let text = texts(&tiny, &ids);
            assert!(ended, "{schema}: {text}");
            let number: i64 = text.trim().parse().unwrap();
            assert!((least..=most).contains(&number), "{schema}: {number}");
        }
    }
    for schema in [
        json!({"minimum": 1e19}),
        json!({"type": "integer", "maximum": -1e25}),
    ] {
        let told = refusal(&tiny, &Grammar::Schema(schema));
        assert!(told.contains("leaves only numbers beyond 1e17"), "{told}");
    }
}

#[test]
fn nothing_asked_for_is_an_object() {
    let tiny = Tiny::open();
    for grammar in [
        Grammar::Json,
        Grammar::Schema(json!({})),
        Grammar::Schema(json!(true)),
    ] {
        let mask = Constraint::new(&tiny.vocabulary, &grammar)
            .unwrap()
            .mask()
            .unwrap();
        let allowed = (0..)
            .zip(&mask)
            .filter(|(_, ok)| **ok)
            .map(|(id, _)| texts(&tiny, &[id]));
        let allowed: Vec<String> = allowed.collect();
        assert!(allowed.contains(&"{".to_owned()));
        assert!(
            allowed.iter().all(|text| text.starts_with('{')),
            "{allowed:?}"
        );
    }
}

#[test]
fn regular_expressions_and_lark_grammars_are_matched_as_a_whole() {
    let tiny = Tiny::open();
    let cases = [
        ("^(yes|no|perhaps they are)$", "^(yes|no|perhaps they are)$"),
        ("[A-Z][a-z]{3,9} [0-9]{2,4}", "^[A-Z][a-z]{3,9} [0-9]{2,4}$"),
        ("a\\$", "^a\\$$"),
        (
            "(The|A) (sun|star)[a-z ]{0,20}\\.",
            "^(The|A) (sun|star)[a-z ]{0,20}\\.$",
        ),
    ];
    for (regex, whole) in cases {
        for seed in 0..4 {
            let answer = tiny.answer(&Asked::drawn(Grammar::Regex(regex.to_owned()), seed));
            assert_eq!(answer.reason, FinishReason::Stop);
            assert!(
                regex::Regex::new(whole).unwrap().is_match(&answer.text),
                "{answer:?}"
            );
        }
    }
    let sum =
        "start: product (\" + \" product)*\nproduct: NUMBER (\"*\" NUMBER)*\nNUMBER: /[1-9][0-9]?/";
    let whole = regex::Regex::new(r"^[1-9]\d?(\*[1-9]\d?)*( \+ [1-9]\d?(\*[1-9]\d?)*)*$").unwrap();
    for seed in 0..4 {
        let answer = tiny.answer(&Asked::drawn(Grammar::Lark(sum.to_owned()), seed));
        let ended = answer.reason == FinishReason::Stop;
        assert!(!ended || whole.is_match(&answer.text), "{answer:?}");
    }
}

const RING: CacheKind = CacheKind::Rotating { size: 24, sinks: 4 };
const PACKED: CacheKind = CacheKind::Quantized(KvBits { keys: 8, values: 8 });

/// Long texts that must come, between some that may.
fn with_forced_text() -> Grammar {
    Grammar::Lark(
        "start: \"The sun is our nearest star \" /(and|or|but) [a-z]{2,6}/ \" the Milky Way is our galaxy; \" \
         /[a-z]{2,6}/ \" and that is all there is to say about the sun.\""
            .to_owned(),
    )
}

/// The same with every token in a step of its own.
fn step_by_step(tiny: &Tiny, asked: &Asked) -> Answer {
    let mut answers = tiny.answers_with(
        std::slice::from_ref(asked),
        wide(),
        CacheKind::Prealloc,
        true,
    );
    answers.remove(0)
}

#[test]
fn what_is_forced_is_skipped_and_changes_no_token() {
    let tiny = Tiny::open();
    for seed in 0..5 {
        let asked = match seed {
            0 => Asked::greedy(with_forced_text()),
            seed => Asked::drawn(with_forced_text(), seed),
        };
        let slow = step_by_step(&tiny, &asked);
        let fast = tiny.answer(&asked);
        assert_eq!((&fast.ids, fast.reason), (&slow.ids, slow.reason));
        assert_eq!(slow.forced, 0);
        assert!(fast.forced >= 8, "{fast:?}");
        // The tokenizer cuts the whole text in the same places.
        let (head, _) = fast.text.split_at("The sun is our nearest star ".len());
        let cut = tiny.tokenizer.encode_bare(head.trim_end()).unwrap();
        assert_eq!(fast.ids[..cut.len()], cut);
    }
}

#[test]
fn an_answer_ends_at_its_last_token_within_forced_ones() {
    let tiny = Tiny::open();
    let whole = tiny.answer(&Asked::greedy(with_forced_text()));
    for max_tokens in 1..whole.ids.len() {
        let asked = Asked {
            max_tokens,
            ..Asked::greedy(with_forced_text())
        };
        let answer = tiny.answer(&asked);
        assert_eq!(answer.ids, whole.ids[..max_tokens]);
        assert_eq!(answer.reason, FinishReason::Length);
    }
}

/// Constrained rows and free ones, with and without room for all.
#[test]
fn rows_with_a_grammar_and_without_one_do_not_disturb_each_other() {
    let tiny = Tiny::open();
    let schema = json!({"type": "object", "properties": {"name": {"enum": ["Milky Way galaxy", "Andromeda galaxy"]}, "n": {"type": "integer", "minimum": 1, "maximum": 300}}, "required": ["name", "n"], "additionalProperties": false});
    let free = Asked {
        grammar: None,
        max_tokens: 40,
        ..Asked::greedy(Grammar::Json)
    };
    let mut asked = vec![free.clone(), Asked::greedy(with_forced_text())];
    asked.push(Asked::drawn(Grammar::Schema(schema.clone()), 3));
    asked.push(Asked {
        sampling: Sampling {
            temperature: 0.8,
            repetition_penalty: 1.1,
            seed: 9,
            ..Sampling::default()
        },
        ..Asked::drawn(with_forced_text(), 4)
    });
    asked.push(Asked {
        sampling: asked[3].sampling,
        ..free
    });
    asked.push(Asked::greedy(Grammar::Schema(schema)));
    for asked in &mut asked {
        asked.max_tokens = asked.max_tokens.min(60);
    }
    let small = Limits {
        rows: 4,
        tokens_per_step: 32,
        piece: 16,
        kv_tokens: 150,
        ..wide()
    };
    for kind in [CacheKind::Prealloc, RING, PACKED] {
        let alone: Vec<Answer> = (asked.iter())
            .map(|one| {
                tiny.answers(std::slice::from_ref(one), wide(), kind)
                    .remove(0)
            })
            .collect();
        for limits in [wide(), small.clone()] {
            let together = tiny.answers(&asked, limits.clone(), kind);
            for (alone, together) in alone.iter().zip(&together) {
                let parts = |answer: &Answer| (answer.text.clone(), answer.reason);
                // A ring sees other positions where pieces have other lengths.
                if kind != RING || limits == wide() {
                    assert_eq!(parts(alone), parts(together), "{kind:?} {limits:?}");
                }
            }
        }
        assert_eq!(alone[1].forced > 0, kind != PACKED);
    }
}

/// One line within bounds of time.
#[track_caller]
fn refusal(tiny: &Tiny, grammar: &Grammar) -> String {
    let started = Instant::now();
    let told = Constraint::new(&tiny.vocabulary, grammar).map(drop);
    let told = told.expect_err(&format!("{grammar:?} is taken"));
    let told = format!("{told:#}");
    assert!(!told.contains('\n') && told.len() < 500, "{told}");
    assert!(
        started.elapsed() < Duration::from_secs(12),
        "{told}: {:?}",
        started.elapsed()
    );
    told
}

#[test]
fn keywords_that_are_not_supported_are_told_by_name_and_place() {
    let tiny = Tiny::open();
    let unsupported = [
        json!({"not": {}}),
        json!({"if": {}}),
        json!({"dependentRequired": {}}),
        json!({"contains": {}}),
        json!({"propertyNames": {}}),
        json!({"uniqueItems": true}),
        json!({"unevaluatedProperties": false}),
        json!({"$dynamicRef": "#a"}),
        json!({"x-guidance": {"lenient": true}}),
    ];
    for keyword in unsupported {
        let name = keyword.as_object().unwrap().keys().next().unwrap().clone();
        let schema =
            json!({"type": "object", "properties": {"a": {"anyOf": [{"type": "null"}, keyword]}}});
        let told = refusal(&tiny, &Grammar::Schema(schema));
        let expected = format!(
            "the keyword {name:?} of the schema, at #/properties/a/anyOf/1, is not supported"
        );
        assert!(told.starts_with(&expected), "{told}");
    }
    let told = |schema: Value| refusal(&tiny, &Grammar::Schema(schema));
    insta::assert_snapshot!(
        [
            told(json!({"type": "string", "format": "phone"})),
            told(json!({"$ref": "https://example.com/schema"})),
            told(json!({"$ref": "#/$defs/none"})),
            told(json!({"properties": {"a": {"$id": "b"}}})),
            told(json!({"properties": [1]})),
            told(json!({"type": "number", "minimum": "a"})),
            told(json!({"type": "sound"})),
            told(json!([])),
            told(json!({"oneOf": [{"minimum": 1}, {"maximum": 5}]})),
            told(json!({"type": "string", "pattern": "(?=a)b"})),
            told(json!({"type": "string", "pattern": "(a"})),
        ]
        .join("\n")
    );
    // What is not reached is not read.
    let unused = json!({"$defs": {"a": {"not": {}}}, "uniqueItems": false, "type": "null"});
    tiny.vocabulary.check(&Grammar::Schema(unused)).unwrap();
}

#[test]
fn what_cannot_be_met_is_told() {
    let tiny = Tiny::open();
    let told = |schema: Value| {
        format!(
            "{schema} → {}",
            refusal(&tiny, &Grammar::Schema(schema.clone()))
        )
    };
    insta::assert_snapshot!(
        [
            told(json!(false)),
            told(json!({"enum": []})),
            told(json!({"type": "integer", "minimum": 5, "maximum": 3})),
            told(json!({"type": "integer", "const": "a"})),
            told(json!({"type": "object", "properties": {"a": false}, "required": ["a"]})),
            told(json!({"type": "string", "pattern": "^a$", "minLength": 2})),
            told(json!({"type": "array", "items": {"type": "null"}, "minItems": 3, "maxItems": 1})),
            told(json!({"$ref": "#"})),
        ]
        .join("\n")
    );
}

#[test]
fn a_regular_expression_that_is_made_to_explode_is_told_in_time() {
    let tiny = Tiny::open();
    let nested =
        |open: &str, close: &str, times: usize| open.repeat(times) + "a" + &close.repeat(times);
    let regexes = [
        "a".repeat(70_000),
        nested("(", ")", 30_000),
        nested("(", ")*", 99),
        "(((a{1000}){1000}){1000}){1000}".to_owned(),
        "(a|aa)+b{1,100000}(c|cc){1,100000}".to_owned(),
        "(.*a.{20,30}){9}".to_owned(),
        "([a-z]*[0-9]*){500}x".to_owned(),
        "(?i)(\\p{L}{1,2000}){1,2000}".to_owned(),
        (0..3000)
            .map(|at| format!("x{at}y{at}"))
            .collect::<Vec<_>>()
            .join("|"),
        "(".to_owned(),
        "\\".to_owned(),
        "[z-a]".to_owned(),
        "\u{0}\u{ffff}".to_owned(),
    ];
    for regex in regexes {
        tells_or_answers(&tiny, Grammar::Regex(regex));
    }
}

#[test]
fn a_grammar_that_is_made_to_explode_is_told_in_time() {
    let tiny = Tiny::open();
    let chain: String = (0..4000)
        .map(|at| format!("r{at}: \"a\" r{}\n", at + 1))
        .collect();
    let larks = [
        String::new(),
        "start".to_owned(),
        "start: start".to_owned(),
        "start: start start | \"a\"".to_owned(),
        "start: a* \na: b*\nb: a* | \"c\"".to_owned(),
        format!("start: r0\n{chain}r4000: \"b\""),
        format!("start: {}", "(".repeat(60_000)),
        "start: /(a{1,1000}){1,1000}/".to_owned(),
        "start: \"a\"{100000000}".to_owned(),
        "start: %json {\"type\": \"object\"}".to_owned(),
        "start: <[999999]>".to_owned(),
        "%llguidance {\"no_forcing\": true}\nstart: \"a\"".to_owned(),
    ];
    for lark in larks {
        tells_or_answers(&tiny, Grammar::Lark(lark));
    }
}

#[test]
fn a_schema_that_is_made_to_explode_is_told_in_time() {
    let tiny = Tiny::open();
    let mut deep = json!({"type": "null"});
    let mut wide_any = json!({"type": "null"});
    for _ in 0..100 {
        deep = json!({"type": "array", "items": deep});
    }
    for _ in 0..14 {
        wide_any = json!({"anyOf": [wide_any, {"type": "array", "items": wide_any}]});
    }
    let properties = |count: usize, schema: Value| -> Value {
        let names = (0..count).map(|at| (format!("property {at}"), schema.clone()));
        json!({"type": "object", "properties": names.collect::<serde_json::Map<_, _>>(), "additionalProperties": false})
    };
    let all_of: Vec<Value> = (0..12)
        .map(|at| json!({"anyOf": [{"type": "object", "properties": {format!("a{at}"): {"type": "null"}}}, {"type": "object", "required": [format!("b{at}")]}]}))
        .collect();
    let schemas = [
        json!({"description": "d".repeat(1 << 20)}),
        properties(20_000, json!({"type": "string"})),
        properties(4_000, json!({"type": "string", "pattern": "^a+$"})),
        deep,
        wide_any,
        json!({"allOf": all_of}),
        json!({"type": "string", "maxLength": 1_000_000_000_u64}),
        json!({"type": "string", "minLength": 1_000_000, "pattern": "^(a|b)*c"}),
        json!({"type": "array", "items": {"type": "null"}, "minItems": 1_000_000_000_u64}),
        json!({"type": "array", "items": {"type": "string"}, "minItems": 100_000, "maxItems": 200_000}),
        json!({"type": "number", "multipleOf": 1e-300}),
        json!({"type": "integer", "multipleOf": 1_000_003, "minimum": -1e300, "maximum": 1e300}),
        json!({"type": "object", "patternProperties": {"(.*a){20}": {}, "(a.*){20}": {}}}),
        json!({"enum": (0..20_000).collect::<Vec<u32>>()}),
        json!({"pattern": format!("^({})$", "(a|b|c){0,50}".repeat(50))}),
        json!({"$defs": {"a": {"anyOf": [{"$ref": "#/$defs/b"}, {"$ref": "#/$defs/a"}]}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}),
        json!({"type": "string", "format": "é".repeat(99)}),
        json!({"minItems": "é".repeat(99)}),
    ];
    for schema in schemas {
        tells_or_answers(&tiny, Grammar::Schema(schema));
    }
}

/// A grammar that is refused is refused in one line, and one that is taken goes on for some tokens, all in time.
fn tells_or_answers(tiny: &Tiny, grammar: Grammar) {
    let what: String = format!("{grammar:?}").chars().take(120).collect();
    let started = Instant::now();
    let outcome = match Constraint::new(&tiny.vocabulary, &grammar) {
        Err(_) => refusal(tiny, &grammar),
        Ok(mut constraint) => {
            let ready = started.elapsed();
            let mut tokens = 0;
            let failed = loop {
                let mask = match constraint.mask() {
                    Ok(mask) => mask,
                    Err(error) => break format!("{error:#}"),
                };
                let id = mask.iter().position(|ok| *ok).unwrap() as u32;
                if constraint.is_end(id) || tokens == 50 {
                    break String::new();
                }
                if let Err(error) = constraint.follow(id, 10) {
                    break format!("{error:#}");
                }
                if constraint.must_stop() {
                    break String::new();
                }
                tokens += 1;
            };
            assert!(!failed.contains('\n'), "{failed}");
            format!("ready in {ready:?}, {tokens} tokens, {failed}")
        }
    };
    println!("{:>8.1?} {what} → {outcome}", started.elapsed());
    assert!(
        started.elapsed() < Duration::from_secs(25),
        "{what} → {outcome}"
    );
}
