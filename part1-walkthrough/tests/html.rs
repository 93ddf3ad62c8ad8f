//! The page in a real browser: it loads in silence, and shows the trace's and the sampler's numbers.

#![allow(clippy::unwrap_used)] // a test that cannot go on should stop there

mod browser;

use std::sync::OnceLock;

use assert_cmd::Command;
use browser::{Page, page};
use console::cli::ModelArgs;
use mlx_rs::Array;
use part1_walkthrough::extras::compare as senses;
use part1_walkthrough::page::{page as html, save};
use part1_walkthrough::subject::{Plan, Subject};
use part1_walkthrough::trace::{Trace, WhatIf};
use part1_walkthrough::walk::walk;
use shared::sampling::Sampling;
use shared::sampling::{filter, greedy, log_softmax};
use shared::testing::fixtures;
use shared::tokenizer::Tokenizer;
use tempfile::TempDir;

/// 12 tokens of the embedded model.
const SENTENCE: &str = "A black hole is a place in space where gravity is so";

fn plan(text: &str) -> Plan {
    Plan {
        text: text.to_owned(),
        raw: true,
        max_tokens: 4,
        stops: true,
        sampling: Sampling::default(),
        layer: Some(4),
        head: Some(0),
        what_if: None,
    }
}

fn subject(model: &str) -> Subject {
    let args = ModelArgs {
        model: model.to_owned(),
        revision: None,
        dtype: None,
    };
    Subject::open(&args).unwrap()
}

/// The walk of [`SENTENCE`], which most tests look at.
fn sentence() -> &'static Trace {
    static TRACE: OnceLock<Trace> = OnceLock::new();
    TRACE.get_or_init(|| trace_of(SENTENCE))
}

fn trace_of(text: &str) -> Trace {
    walk(&subject("tiny"), &plan(text)).unwrap()
}

/// The page of a trace in a browser, if there is one.
fn shown(trace: &Trace) -> Option<Page> {
    page(|path| {
        save(path, trace).unwrap();
    })
}

fn part1(args: &[&str]) -> (i32, String) {
    let mut command = Command::cargo_bin("part1-walkthrough").unwrap();
    let output = command
        .args(["--raw", "--step", "tokenize"])
        .args(args)
        .output()
        .unwrap();
    (
        output.status.code().unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

#[test]
fn the_program_writes_a_page_that_loads_without_an_error_or_a_request() {
    let page = page(|path| {
        let path = path.to_str().unwrap();
        let (code, stderr) = part1(&["--prompt", SENTENCE, "--html", path]);
        assert_eq!(code, 0, "{stderr}");
    });
    let Some(page) = page else { return };
    assert_eq!(
        page.number("document.querySelectorAll('.cards .token').length"),
        12.0
    );
    for chart in [".projection", ".lens", ".costs"] {
        let marks = format!("document.querySelectorAll('{chart} svg [aria-label]').length");
        assert!(page.number(&marks) > 0.0, "{chart}");
    }
    assert_eq!(
        page.number("document.querySelectorAll('.heat .cell').length"),
        144.0
    );
    assert_eq!(
        page.number("document.querySelectorAll('.checks .no').length"),
        0.0
    );
    assert_eq!(page.complaints(), Vec::<String>::new());
}

#[test]
fn no_file_is_left_beside_the_page_and_another_run_replaces_it() {
    let place = TempDir::new().unwrap();
    let file = place.path().join("page.html");
    let path = file.to_str().unwrap();
    for prompt in ["Penguins are birds that", SENTENCE] {
        let (code, stderr) = part1(&["--prompt", prompt, "--html", path]);
        assert_eq!(code, 0, "{stderr}");
        let page = std::fs::read_to_string(&file).unwrap();
        assert!(page.contains(&format!("<title>{prompt}</title>")));
        assert!(page.trim_end().ends_with("</html>"));
    }
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 1);
}

#[test]
fn a_directory_that_does_not_exist_gets_one_clear_line_before_the_model_runs() {
    let (code, stderr) = part1(&["--html", "no/such/place/page.html"]);
    assert_eq!(code, 1);
    let expected = "error: --html no/such/place/page.html: there is no directory no/such/place: make it first\n";
    assert_eq!(stderr, expected);
}

#[test]
fn a_page_of_twelve_tokens_is_smaller_than_2_mb() {
    let trace = sentence();
    assert_eq!(trace.tokens.len(), 12);
    assert!(html(trace).unwrap().len() < 1_000_000);
    let Some(path) = fixtures::smollm2() else {
        return;
    };
    let plan = Plan {
        max_tokens: 1,
        ..plan(SENTENCE)
    };
    let trace = walk(&subject(path.to_str().unwrap()), &plan).unwrap();
    assert_eq!(trace.tokens.len(), 12);
    let size = html(&trace).unwrap().len();
    assert!(size < 2_000_000, "{size} bytes");
}

/// What the Rust sampler draws from, by id: what its filters leave, divided by the temperature.
///
/// The draw itself needs no probabilities. They are computed here in f64, since MLX's softmax on a CPU
/// has errors of 1e-5.
fn sampler(logits: &[f32], args: &Sampling) -> Vec<f64> {
    let logits = Array::from_slice(logits, &[1, logits.len() as i32]);
    if args.temperature == 0.0 {
        let mut probabilities = vec![0.0; logits.size()];
        probabilities[greedy(&logits).unwrap().item_exact::<u32>() as usize] = 1.0;
        return probabilities;
    }
    let kept = filter(&log_softmax(&logits).unwrap(), args).unwrap();
    let cooled = kept
        .multiply(Array::from_f32(1.0 / args.temperature))
        .unwrap();
    let cooled: Vec<f32> = cooled.to_vec_exact().unwrap();
    let best = cooled.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weights = cooled.iter().map(|value| f64::from(value - best).exp());
    let sum: f64 = weights.clone().sum();
    weights.map(|weight| weight / sum).collect()
}

#[test]
fn the_sliders_give_the_probabilities_of_the_rust_sampler() {
    let trace = trace_of("The stars in the night sky are");
    let Some(page) = shown(&trace) else { return };
    page.click(".bars + .buttons button"); // more than the first few bars
    for (temperature, top_k, top_p, min_p) in [
        (1.0, 0, 1.0, 0.0),
        (0.2, 0, 1.0, 0.0),
        (2.0, 0, 1.0, 0.0),
        (1.0, 5, 1.0, 0.0),
        (1.0, 1, 1.0, 0.0),
        (0.7, 0, 0.9, 0.0),
        (0.7, 0, 0.05, 0.0),
        (1.5, 0, 1.0, 0.1),
        (1.5, 40, 0.99, 0.01),
        (0.8, 3, 0.6, 0.3),
        (0.0, 3, 0.6, 0.3),
    ] {
        let args = Sampling {
            temperature,
            top_k,
            top_p,
            min_p,
            ..Sampling::default()
        };
        for (slider, value) in [
            ("temperature", f64::from(temperature)),
            ("top_k", top_k as f64),
            ("top_p", f64::from(top_p)),
            ("min_p", f64::from(min_p)),
        ] {
            page.slide(slider, value);
        }
        let expected = sampler(&trace.prediction.logits.0, &args);
        compare(&page, &expected, &args);
    }
    assert_eq!(page.complaints(), Vec::<String>::new());
}

/// Bars, their reasons and the number of tokens that are left, beside the sampler's probabilities.
fn compare(page: &Page, expected: &[f64], args: &Sampling) {
    let bars: Vec<(usize, f64, Option<String>)> = page.json(
        "[...document.querySelectorAll('.bars li[data-id]')].map(({ dataset }) => \
         [Number(dataset.id), Number(dataset.probability), dataset.removed ?? null])",
    );
    assert_eq!(bars.len(), 64);
    for (id, probability, removed) in bars {
        let rust = expected[id];
        // The page computes in f64. The sampler's log-probabilities are f32: those that matter here are
        // right to 1e-6, and 1/T multiplies that by at most 5.
        assert!(
            (probability - rust).abs() < 1e-5,
            "{args:?}, id {id}: {probability} and {rust}"
        );
        if args.temperature > 0.0 {
            assert_eq!(
                removed.is_some(),
                rust == 0.0,
                "{args:?}, id {id}: {removed:?}"
            );
        }
    }
    if args.temperature > 0.0 {
        let kept = expected
            .iter()
            .filter(|probability| **probability > 0.0)
            .count();
        let shown = page.number("Number(document.querySelector('.bars').dataset.kept)");
        assert_eq!(shown, kept as f64, "{args:?}");
    }
}

#[test]
fn a_drawn_token_is_one_of_those_that_the_filters_left() {
    let trace = trace_of("The stars in the night sky are");
    let Some(page) = shown(&trace) else { return };
    page.slide("top_k", 3.0);
    page.slide("top_p", 1.0);
    page.slide("min_p", 0.0);
    for _ in 0..20 {
        page.click(".sampling button.main");
    }
    let drawn: Vec<String> = page
        .json("[...document.querySelectorAll('.drawn .token')].map((token) => token.textContent)");
    assert_eq!(drawn.len(), 20);
    let left: Vec<&str> = trace.prediction.named[..3]
        .iter()
        .map(|named| named.piece.as_str())
        .collect();
    assert!(
        drawn.iter().all(|piece| left.contains(&piece.as_str())),
        "{drawn:?}, {left:?}"
    );
}

#[test]
fn layer_and_head_pickers_show_the_weights_of_the_trace() {
    let trace = sentence();
    let Some(page) = shown(trace) else { return };
    let l = trace.tokens.len();
    for (layer, head) in [(0, 0), (3, 2), (7, 3)] {
        page.choose("pick-layer", layer);
        page.choose("pick-head", head);
        let cells: Vec<f32> = page
            .json("[...document.querySelectorAll('.heat .cell')].map((cell) => Number(cell.dataset.weight))");
        let expected = &trace.layers[layer].weights.0[head * l * l..][..l * l];
        assert_eq!(cells, expected, "layer {layer}, head {head}");
        assert_eq!(
            page.text(".map-title"),
            format!("Layer {layer}, head {head}")
        );
    }
    // The same with the small pictures: the button of layer 5, head 1.
    page.click(".mosaic button[aria-label='layer 5, head 1']");
    assert_eq!(page.text(".map-title"), "Layer 5, head 1");
    assert_eq!(
        page.number("document.querySelectorAll('.heat .masked').length"),
        66.0
    );
}

#[test]
fn the_keyboard_reaches_what_the_mouse_reaches() {
    let trace = sentence();
    let Some(page) = shown(trace) else { return };
    page.focus(".heat .cell[data-query='2'][data-key='1']");
    page.press("ArrowDown");
    page.press("ArrowLeft");
    let (layer, head) = (trace.focus.layer, trace.focus.head);
    let l = trace.tokens.len();
    let weight = trace.layers[layer].weights.0[(head * l + 3) * l];
    let pieces = [&trace.tokens[3].piece, &trace.tokens[0].piece];
    let label = format!("{} looks at {}: {weight:.2}", pieces[0], pieces[1]);
    assert_eq!(page.focused("getAttribute('aria-label')"), label);
    assert_eq!(
        page.text(".says"),
        format!("{} (3) looks at {} (0): {weight:.2}", pieces[0], pieces[1])
    );

    page.focus(".mosaic button[aria-pressed='true']");
    page.press("ArrowRight");
    page.press("Enter");
    assert_eq!(
        page.text(".map-title"),
        format!("Layer {layer}, head {}", head + 1)
    );

    page.focus("#top_k");
    let before = page.number("Number(document.querySelector('#top_k').value)");
    page.press("ArrowRight");
    assert_eq!(
        page.number("Number(document.querySelector('#top_k').value)"),
        before + 1.0
    );
    assert_eq!(
        page.text(".slider output[for='top_k']"),
        format!("{}", before + 1.0)
    );
}

#[test]
fn a_token_that_is_chosen_is_followed_in_every_picture() {
    let trace = sentence();
    let Some(page) = shown(trace) else { return };
    page.click(".strip .token[data-token='9']");
    let piece = &trace.tokens[9].piece;
    for (place, text) in [
        (".neighbours h3", format!("Nearest to {piece}")),
        (".reads h3", format!("{piece} reads")),
        (".detail .piece", piece.clone()),
    ] {
        assert_eq!(page.text(place), text);
    }
    let nearest: Vec<String> =
        page.json("[...document.querySelectorAll('.neighbours .meter .piece')].map((node) => node.textContent)");
    let expected: Vec<&str> = trace.embedding.tokens[9]
        .neighbours
        .iter()
        .map(|n| n.piece.as_str())
        .collect();
    assert_eq!(nearest, expected);
}

/// What the strongest head of a layer does is never called a rest, and every habit has its numbers.
#[test]
fn no_head_is_said_to_rest_that_adds_much() {
    let trace = trace_of("The fish looked at the bird.");
    let Some(page) = shown(&trace) else { return };
    let (heads, l) = (trace.model.heads, trace.tokens.len());
    for (layer, picture) in trace.layers.iter().enumerate() {
        page.choose("pick-layer", layer);
        for head in 0..heads {
            page.choose("pick-head", head);
            let says = page.text(".map figcaption");
            let norms = &picture.head_norms.0;
            let strongest = |token: usize| {
                let of = |head: usize| norms[head * l + token];
                (0..heads).all(|other| of(other) <= of(head))
            };
            if (2..l).all(strongest) {
                assert!(!says.contains("rests"), "{layer}.{head}: {says}");
            }
            assert!(!says.contains("sink"), "{layer}.{head}: {says}");
        }
    }
}

#[test]
fn numbers_of_the_page_are_named_as_they_were_made() {
    let chat = Plan {
        raw: false,
        ..plan("Explain black holes")
    };
    let trace = walk(&subject("tiny"), &chat).unwrap();
    let Some(page) = shown(&trace) else { return };
    let text = trace.tokens.iter().filter(|token| !token.special);
    let bytes: usize = text.map(|token| token.bytes.len()).sum();
    let marks = trace.tokens.iter().filter(|token| token.special).count();
    let shape = page.text("#tokenize .shape");
    let expected = format!("{bytes} bytes of text and {marks} marks → ids");
    assert!(shape.starts_with(&expected), "{shape}");
    assert!(
        page.text("#budget .idea")
            .contains("the median of five passes")
    );
    let cache = console::numbers::decimal(trace.recompute.kv_bytes).replace(' ', "\u{a0}");
    assert!(page.text(".again .facts").contains(&cache), "{cache}");
    // Why a token is out is told in the terminal's words.
    let told: Vec<(u32, String)> = page.json(
        "[...document.querySelectorAll('.bars li[data-removed]')].map((li) => [Number(li.dataset.id), li.querySelector('.reason').textContent])",
    );
    assert!(!told.is_empty());
    for bar in &trace.prediction.bars {
        let on_page = told
            .iter()
            .find(|(id, _)| *id == bar.id)
            .map(|(_, reason)| reason);
        assert_eq!(on_page, bar.reason.as_ref(), "{}", bar.piece);
    }
}

/// The pieces that the page makes of a text, as ids.
fn typed(page: &Page, text: &str) -> Vec<u32> {
    let text = serde_json::to_string(text).unwrap();
    page.act(&format!(
        "{{ const field = document.getElementById('typed'); field.value = {text}; field.dispatchEvent(new Event('input')); }}"
    ));
    page.json(
        "[...document.querySelectorAll('.chips .token')].map((node) => Number(node.dataset.id))",
    )
}

#[test]
fn a_text_that_is_typed_is_cut_as_the_tokenizer_cuts_it() {
    let trace = sentence();
    let Some(page) = shown(trace) else { return };
    let tokenizer = Tokenizer::open_alone("tiny").unwrap();
    let texts = std::fs::read_to_string(fixtures::directory().join("../texts/alice.txt")).unwrap();
    let alice = texts.split("\n\n").filter(|text| !text.is_empty()).take(40);
    let alice = alice.map(|text| text.chars().take(300).collect::<String>());
    let odd = [
        "",
        " ",
        "  two  blanks  ",
        "unbelievable ChatGPT hello",
        "I'm don't WE'LL they've",
        "1234567 12a3",
        "a\n\n  b\tc \u{a0}d\u{3000}e\u{85}f",
        "<|im_start|>user\nhi<|im_end|>",
        "<|im_start <|im_start|><|im_start|>x",
        "मुझे ब्लैक होल",
        "👩\u{200d}🚀 🚀 🕳️ ❤️ 🤷🏽",
        "שלום 猫が魚を食べた。 é e\u{301} ß ſ Ⅷ ½ ²",
        "\u{feff}x\u{200b}y",
        "--- ... !?",
        "x²+y₃=①",
    ];
    for text in odd.map(str::to_owned).into_iter().chain(alice) {
        assert_eq!(
            typed(&page, &text),
            tokenizer.encode_plain(&text).unwrap(),
            "{text:?}"
        );
    }
    assert_eq!(page.complaints(), Vec::<String>::new());
}

#[test]
fn the_merges_of_a_word_are_played_one_by_one() {
    let trace = trace_of("Penguins are birds that");
    let Some(page) = shown(&trace) else { return };
    let merging = trace.merging.as_ref().unwrap();
    let parts = || -> Vec<String> {
        page.json("[...document.querySelectorAll('.stage .part')].map((node) => node.textContent)")
    };
    assert_eq!(parts(), merging.words[0].pieces());
    for _ in 0..5 {
        page.click(".merging .player [aria-label='Merges: back']");
    }
    assert_eq!(parts(), merging.words[0].bytes);
    for step in &merging.words[0].steps {
        page.click(".merging .player [aria-label='Merges: next']");
        assert_eq!(parts(), step.pieces);
        let rank = console::numbers::count(step.rank as u64);
        assert!(
            page.text(".merging .told")
                .starts_with(&format!("Rank {rank} makes "))
        );
    }
    page.act("document.querySelectorAll('.chips .word')[2].click()");
    assert_eq!(parts(), ["␣birds"]);
    page.click(".merging .play");
    page.wait_for("document.querySelector('.merging .where').textContent.startsWith('2 of')");
    assert_eq!(parts(), merging.words[2].steps[0].pieces);
    assert_eq!(page.complaints(), Vec::<String>::new());
}

#[test]
fn two_senses_of_a_word_part_layer_by_layer() {
    let sentences = ["A movie has a famous star.", "The sun is a hot star."];
    let page = page(|path| {
        let mut command = Command::cargo_bin("part1-walkthrough").unwrap();
        let output = command
            .args(["--compare", sentences[0], sentences[1], "--html"])
            .arg(path)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
    });
    let Some(page) = page else { return };
    let found = senses::compare(&subject("tiny"), sentences, None, None).unwrap();
    let drift = &found.first;
    assert!(page.text("#senses .idea").contains("“star”"));
    let cosine = || page.text(".cosine .number");
    let shown = |at: usize| format!("{:.3}", drift.cosines[at]);
    let layers = drift.cosines.len() - 1;
    assert_eq!(cosine(), shown(layers));
    for at in (0..layers).rev() {
        page.click("[aria-label='Layers: back']");
        assert_eq!(cosine(), shown(at));
        let said: Vec<String> = page.json("[...document.querySelectorAll('.senses .meter .piece')].map((node) => node.textContent)");
        let expected = drift.next.iter().flat_map(|side| &side[at]);
        let expected: Vec<String> = expected.map(|guess| guess.piece.clone()).collect();
        assert_eq!(said, expected);
    }
    // It stood apart before: two different senses, 0.334 at last; the same sense of a word 0.590.
    assert!(drift.cosines[layers] < 0.4, "{:?}", drift.cosines);
    let birds = [
        "The fish looked at the bird.",
        "In the cage there was a small bird.",
    ];
    let same = senses::compare(&subject("tiny"), birds, None, None).unwrap();
    assert!(
        same.first.cosines[layers] > 0.55,
        "{:?}",
        same.first.cosines
    );
    assert!(page.text("h1").contains("famous star."));
    assert_eq!(page.complaints(), Vec::<String>::new());
}

#[test]
fn attention_is_drawn_as_arcs_that_follow_token_head_and_layer() {
    let trace = sentence();
    let Some(page) = shown(trace) else { return };
    let l = trace.tokens.len();
    let strong = |query: usize| -> Vec<usize> {
        page.json(&format!("[...document.querySelectorAll('.arcs path[data-query=\"{query}\"]')].map((arc) => Number(arc.dataset.key)).sort((a, b) => a - b)"))
    };
    let expected = |layer: usize, head: usize, query: usize| -> Vec<usize> {
        let row = trace.layers[layer].weights.row(head * l + query, l);
        (0..=query).filter(|key| row[*key] >= 0.01).collect()
    };
    assert_eq!(strong(l - 1), expected(4, 0, l - 1));
    page.click("[aria-label='Layers of this head: next']");
    assert_eq!(strong(l - 1), expected(5, 0, l - 1));
    assert_eq!(page.text(".map-title"), "Layer 5, head 0");
    page.choose("pick-layer", 2);
    page.choose("pick-head", 3);
    page.click(".strip .token[data-token='7']");
    assert_eq!(strong(7), expected(2, 3, 7));
    assert_eq!(
        page.text(".arcs .where"),
        format!("3 of {}", trace.layers.len())
    );
    page.click(".arcs .play");
    page.wait_for("document.querySelector('.arcs .where').textContent.startsWith('4 of')");
    assert_eq!(page.text(".map-title"), "Layer 3, head 3");
    assert_eq!(page.complaints(), Vec::<String>::new());
}

/// `softmax(q kᵀ / √D + mask)` of any head: the numbers are MLX's, the page sums the products itself.
#[test]
fn one_row_in_slow_motion_follows_the_head_that_is_chosen() {
    let trace = sentence();
    let Some(page) = shown(trace) else { return };
    let l = trace.tokens.len();
    let rows = || -> Vec<Vec<f64>> {
        page.json(
            "[...document.querySelectorAll('.worked tbody tr')].map((row) => [...row.querySelectorAll('td:not(.wide)')].map((cell) => cell.textContent === '−∞' ? -1e9 : Number(cell.textContent.replace('−', '-'))))",
        )
    };
    let (layer, head) = (trace.focus.layer, trace.focus.head);
    let own = rows();
    for (key, row) in own.iter().enumerate() {
        let raw = f64::from(trace.focus.raw.row(l - 1, l)[key]);
        assert!(
            (row[0] - raw).abs() < 2e-3 * raw.abs().max(1.0),
            "{} {raw}",
            row[0]
        );
    }
    page.choose("pick-layer", 6);
    page.choose("pick-head", 3);
    page.click(".strip .token[data-token='5']");
    let title = page.text(".worked summary");
    assert!(
        title.starts_with("One row in slow motion: layer 6, head 3, "),
        "{title}"
    );
    assert_ne!(rows(), own, "{layer}.{head}");
    let found = rows();
    let best = found.iter().map(|row| row[2]).fold(f64::MIN, f64::max);
    let sum: f64 = found.iter().map(|row| (row[2] - best).exp()).sum();
    for (key, row) in found.iter().enumerate() {
        let weight = f64::from(trace.layers[6].weights.row(3 * l + 5, l)[key]);
        assert!((row[3] - weight).abs() < 1e-4, "{key}: {row:?}, {weight}");
        assert!(
            ((row[2] - best).exp() / sum - weight).abs() < 2e-3,
            "{key}: {row:?}"
        );
        assert_eq!(row[2] < -1e8, key > 5);
    }
    assert_eq!(
        page.number("document.querySelectorAll('.worked canvas').length"),
        (3 * l + 2) as f64
    );
    assert_eq!(page.complaints(), Vec::<String>::new());
}

#[test]
fn the_map_of_meanings_has_every_word() {
    let trace = sentence();
    let Some(page) = shown(trace) else { return };
    let found = trace.embedding.meanings.as_ref().unwrap();
    let words: Vec<String> = page.json("[...document.querySelectorAll('.meanings [aria-label=text] text')].map((node) => node.textContent)");
    let expected: Vec<String> = found
        .points
        .iter()
        .map(|point| point.piece.replace('␣', ""))
        .collect();
    assert_eq!(words, expected);
    assert_eq!(page.complaints(), Vec::<String>::new());
}

#[test]
fn the_price_of_width_and_the_bitten_man_are_the_traces() {
    let trace = sentence();
    let Some(page) = shown(trace) else { return };
    let cells: Vec<String> = page
        .json("[...document.querySelectorAll('.widths tbody tr td:first-of-type')].map((cell) => cell.textContent)");
    assert_eq!(cells, ["256", "768", "4,096", "12,288"]);
    let found = trace.embedding.order.as_ref().unwrap();
    let differences: Vec<String> = page.json(
        "[...document.querySelectorAll('.reading .number')].map((number) => number.textContent)",
    );
    let expected =
        [&found.without, &found.with].map(|reading| format!("{:.2}", reading.difference));
    assert_eq!(differences, expected);
    let pieces = |nth: usize| -> Vec<String> {
        page.json(&format!(
            "[...document.querySelectorAll('.reading .tokens')[{nth}].querySelectorAll('.piece')].map((piece) => piece.textContent)"
        ))
    };
    assert_eq!(pieces(0), found.pieces);
    assert_eq!(pieces(0).len(), pieces(1).len());
    assert_ne!(pieces(0), pieces(1));
    assert!(
        page.text(".elsewhere")
            .contains("GPT-2 small has 12 layers")
    );
    assert_eq!(page.complaints(), Vec::<String>::new());
}

#[test]
fn a_long_prompt_keeps_the_strips_of_the_layers_that_have_room_and_says_so() {
    let trace = trace_of(
        "The sun is a star and a star is a sun, says the old man who reads books all day long.",
    );
    let l = trace.tokens.len();
    let inside: Vec<usize> = trace.strips.iter().map(|strips| strips.layer).collect();
    assert!((1..8).contains(&inside.len()), "{l} tokens: {inside:?}");
    assert_eq!(inside[0], trace.focus.layer);
    let Some(page) = shown(&trace) else { return };
    let canvases = || page.number("document.querySelectorAll('.worked canvas').length");
    assert_eq!(canvases(), (3 * l + 2) as f64);
    let told = page.text(".worked .note");
    assert!(told.contains("more than this page has room for"), "{told}");
    let missing = (0..8).find(|layer| !inside.contains(layer)).unwrap();
    page.choose("pick-layer", missing);
    let told = page.text(".worked .note");
    assert!(
        told.contains(&format!("Layer {missing} is not among them")),
        "{told}"
    );
    assert_eq!(canvases(), (3 * l + 2) as f64);
    assert_eq!(page.complaints(), Vec::<String>::new());
}

#[test]
fn the_page_says_of_the_cranes_what_a_decoder_cannot_know() {
    let cranes = ["The crane ate a fish.", "The crane lifted the steel."];
    let found = senses::compare(&subject("tiny"), cranes, None, None).unwrap();
    let mut trace = trace_of(cranes[0]);
    trace.comparison = Some(found.clone());
    let Some(page) = shown(&trace) else { return };
    let cosines: Vec<String> =
        page.json("[...document.querySelectorAll('.unknown td')].map((cell) => cell.textContent)");
    assert_eq!(cosines, vec!["1.000"; found.first.cosines.len()]);
    let later: Vec<String> = page.json(
        "[...document.querySelectorAll('.unknown .later')].map((piece) => piece.textContent)",
    );
    let after = |side: usize| {
        let side = &found.first.sides[side];
        side.tokens[side.position + 1..]
            .iter()
            .map(|token| token.piece.clone())
    };
    assert_eq!(later, after(0).chain(after(1)).collect::<Vec<_>>());
    let repeated = found.repeated.unwrap();
    assert_eq!(
        page.text(".cosine .number"),
        format!("{:.3}", repeated.cosines.last().unwrap())
    );
    assert_eq!(page.complaints(), Vec::<String>::new());
}

#[test]
fn the_stream_has_the_words_of_the_lens_and_the_lengths_that_layers_add() {
    let trace = sentence();
    let Some(page) = shown(trace) else { return };
    page.click(".strip .token[data-token='4']");
    let words: Vec<String> =
        page.json("[...document.querySelectorAll('.line .piece')].map((node) => node.textContent)");
    let expected: Vec<&str> = trace
        .lens
        .iter()
        .map(|row| row.each[4].piece.as_str())
        .collect();
    assert_eq!(words, expected);
    page.click("[aria-label='Layers of the stream: back']");
    let lengths: Vec<String> = page
        .json("[...document.querySelectorAll('.added .number')].map((node) => node.textContent)");
    let layer = &trace.layers[trace.layers.len() - 2];
    let expected = [
        layer.attention_norms[4],
        layer.mlp_norms[4],
        layer.stream_norms[4],
    ];
    assert_eq!(lengths, expected.map(|value| format!("{value:.1}")));
    assert_eq!(page.complaints(), Vec::<String>::new());
}

#[test]
fn the_loop_is_played_beside_its_cached_twin() {
    let trace = sentence();
    let Some(page) = shown(trace) else { return };
    let found = &trace.recompute;
    let counts = || -> Vec<String> {
        page.json(
            "[...document.querySelectorAll('.twin .count b')].map((node) => node.textContent)",
        )
    };
    let fresh = |rounds: usize| -> u64 {
        let pairs = found.computed.iter().zip(&found.repeated).take(rounds);
        pairs.map(|(computed, repeated)| computed - repeated).sum()
    };
    let all: u64 = found.computed.iter().sum();
    assert_eq!(counts(), [all.to_string(), fresh(4).to_string()]);
    for _ in 0..3 {
        page.click("[aria-label='Rounds: back']");
    }
    assert_eq!(
        counts(),
        [found.computed[0].to_string(), fresh(1).to_string()]
    );
    page.click("[aria-label='Rounds: next']");
    let two: u64 = found.computed[..2].iter().sum();
    assert_eq!(counts(), [two.to_string(), fresh(2).to_string()]);
    let visible = page.number("[...document.querySelectorAll('.twin i.new')].filter((cell) => getComputedStyle(cell).visibility === 'visible').length");
    assert_eq!(visible as u64, 2 * fresh(2), "new ones in both pictures");
}

#[test]
fn three_temperatures_stand_side_by_side() {
    let trace = sentence();
    let Some(page) = shown(trace) else { return };
    for column in &trace.prediction.temperatures {
        let place = format!(".temperatures [data-temperature='{}']", column.temperature);
        let there = format!("document.querySelectorAll(\"{place}\").length");
        if page.number(&there) == 0.0 {
            continue;
        }
        let shares: Vec<f64> = page.json(&format!("[...document.querySelectorAll(\"{place} .meter\")].map((node) => Number(node.style.getPropertyValue('--v')))"));
        assert_eq!(shares.len(), 6);
        for (share, expected) in shares.iter().zip(&column.probabilities) {
            assert!(
                (share - f64::from(*expected)).abs() < 1e-4,
                "{share} {expected}"
            );
        }
    }
    assert_eq!(
        page.number("document.querySelectorAll('.temperatures .panel').length"),
        3.0
    );
}

#[test]
fn the_page_is_walked_step_by_step_with_buttons_and_keys() {
    let Some(page) = shown(sentence()) else {
        return;
    };
    page.act("document.documentElement.style.scrollBehavior = 'auto'");
    assert_eq!(page.text(".guide .where"), "8 steps");
    for (at, name) in ["Tokenize", "Embed", "Attend"].iter().enumerate() {
        page.click(".guide [aria-label='Next, key N']");
        let expected = format!("{} of 8 · {name}", at + 1);
        page.wait_for(&format!(
            "document.querySelector('.guide .where').textContent === '{expected}'"
        ));
        assert_eq!(page.focused("textContent"), *name);
    }
    page.press("n");
    page.wait_for("document.querySelector('.guide .where').textContent === '4 of 8 · Predict'");
    page.press("b");
    page.wait_for("document.querySelector('.guide .where').textContent === '3 of 8 · Attend'");
    // Whoever types a sentence types.
    page.focus("#typed");
    page.press("n");
    assert!(page.number("document.querySelector('#typed').value.length") > 0.0);
    assert_eq!(page.complaints(), Vec::<String>::new());
}

#[test]
fn text_is_text_whatever_it_says() {
    let nasty = "</script><b id=nasty>x</b><!--&\"'\u{2028}\u{202e}ab של \u{1b}[1m{{ 7 }}";
    let trace = trace_of(nasty);
    let Some(page) = shown(&trace) else { return };
    assert_eq!(
        page.number("document.querySelectorAll('#nasty').length"),
        0.0
    );
    assert!(
        page.text(".sentence").starts_with(nasty),
        "{}",
        page.text(".sentence")
    );
    let pieces: Vec<String> = page
        .json("[...document.querySelectorAll('.cards .piece')].map((node) => node.textContent)");
    let expected: Vec<&str> = trace
        .tokens
        .iter()
        .map(|token| token.piece.as_str())
        .collect();
    assert_eq!(pieces, expected);
    assert_eq!(page.complaints(), Vec::<String>::new());
}

#[test]
fn the_page_follows_the_systems_colours_until_one_is_chosen() {
    let Some(page) = shown(&trace_of("Penguins are birds that")) else {
        return;
    };
    let paper = || page.string("getComputedStyle(document.body).backgroundColor");
    page.prefer("light");
    let light = paper();
    let canvas = "[...document.querySelector('.mosaic canvas').getContext('2d').getImageData(0, 0, 1, 1).data]";
    let painted: Vec<u8> = page.json(canvas);
    page.prefer("dark");
    let dark = paper();
    assert_ne!(light, dark);
    assert_ne!(
        page.json::<Vec<u8>>(canvas),
        painted,
        "the small pictures are painted again"
    );
    page.click(".theme");
    assert_eq!(paper(), light, "the first click chooses light");
    page.click(".theme");
    page.prefer("light");
    assert_eq!(paper(), dark, "the second click chooses dark");
}

#[test]
fn nothing_scrolls_sideways_on_a_phone() {
    let many = "star ".repeat(60);
    for text in ["a", "Penguins are birds that", SENTENCE, many.trim_end()] {
        let Some(page) = shown(&trace_of(text)) else {
            return;
        };
        page.phone(360);
        let width = page.number("document.documentElement.scrollWidth");
        assert_eq!(width, 360.0, "{text:?}");
        assert_eq!(page.complaints(), Vec::<String>::new(), "{text:?}");
    }
}

#[test]
fn what_was_left_out_has_a_section_of_its_own() {
    let with = |what_if| {
        let plan = Plan {
            what_if,
            ..plan("Penguins are birds that")
        };
        walk(&subject("tiny"), &plan).unwrap()
    };
    let trace = with(Some(WhatIf::NoMask));
    let Some(page) = shown(&trace) else { return };
    assert!(page.text("#what-if .idea").contains("mask is left out"));
    let text = &trace.what_if.as_ref().unwrap().text_after;
    assert!(page.text("#what-if").contains(text.as_str()));
    assert_eq!(page.complaints(), Vec::<String>::new());
    let page = shown(&with(None)).unwrap();
    assert_eq!(
        page.number("document.querySelectorAll('#what-if[hidden]').length"),
        1.0
    );
}

#[test]
fn without_a_script_the_page_still_tells_the_story() {
    let trace = trace_of("Penguins <b> & birds");
    let page = html(&trace).unwrap();
    let (_, rest) = page.split_once("<noscript>").unwrap();
    let (summary, _) = rest.split_once("</noscript>").unwrap();
    assert!(
        summary.contains("Penguins &lt;b&gt; &amp; birds"),
        "{summary}"
    );
    for token in &trace.tokens {
        assert!(
            summary.contains(&format!("<td>{}</td>", token.id)),
            "{summary}"
        );
    }
}
