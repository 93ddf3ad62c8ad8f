//! The numbers in `assets/diagrams` are those of the built-in model.

#![allow(clippy::unwrap_used)] // a test that cannot go on should stop there

use std::fs;
use std::path::Path;

use console::cli::FloatType;
use mlx_rs::{Array, ops};
use part1_walkthrough::subject::{Plan, Subject};
use part1_walkthrough::walk::walk;
use shared::checkpoint::Checkpoint;
use shared::hub::{Embedded, ModelFiles};
use shared::layers::to_f32;
use shared::sampling::Sampling;

fn diagram(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/diagrams");
    fs::read_to_string(folder.join(name)).unwrap()
}

/// The texts of a drawing whose class is `class`, in the order in which they are drawn.
fn texts<'s>(svg: &'s str, class: &str) -> Vec<&'s str> {
    let has_class = format!("class=\"{class}\"");
    svg.split("<text ")
        .skip(1)
        .filter_map(|text| {
            let (attributes, rest) = text.split_once('>').unwrap();
            let text = rest.split_once("</text>").unwrap().0;
            attributes.contains(&has_class).then_some(text)
        })
        .collect()
}

fn number(text: &str) -> f32 {
    text.replace('−', "-").parse().unwrap()
}

/// Computed in float32, as the walkthrough does.
fn tiny() -> Checkpoint {
    let checkpoint = Checkpoint::open("tiny", ModelFiles::Embedded(Embedded::Tiny)).unwrap();
    Checkpoint {
        dtype: Some(FloatType::F32),
        ..checkpoint
    }
}

#[test]
fn the_attention_that_is_drawn_is_that_of_the_model() {
    let svg = diagram("attention.svg");
    let subject = Subject::load(&tiny()).unwrap();
    let plan = Plan {
        text: "The black hole pulls the light".to_owned(),
        raw: true,
        max_tokens: 1,
        stops: true,
        sampling: Sampling::default(),
        layer: Some(3),
        head: Some(3),
        what_if: None,
    };
    assert!(svg.contains(&format!("“{}”: layer 3, head 3", plan.text)));
    let trace = walk(&subject, &plan).unwrap();
    let l = trace.tokens.len();
    let seen = |at: &usize| at % l <= at / l;
    let all: Vec<usize> = (0..l * l).collect();
    let causal: Vec<usize> = all.iter().copied().filter(seen).collect();
    let focus = &trace.focus;
    let shown = [
        (&focus.raw, &all, 0.5),
        (&focus.scaled, &causal, 0.05),
        (&focus.weights, &causal, 0.005),
    ];
    let cells = texts(&svg, "mid cell");
    let mut cells = cells.iter().map(|cell| number(cell));
    for (matrix, places, rounding) in shown {
        for place in places {
            let (drawn, found) = (cells.next().unwrap(), matrix.0[*place]);
            let most = 1.1 * rounding;
            assert!(
                (drawn - found).abs() < most,
                "{drawn} is drawn for {found}, {l}: {place}"
            );
        }
    }
    assert_eq!(cells.next(), None);
}

#[test]
fn the_word_that_is_drawn_is_what_mlx_packs() {
    let svg = diagram("quantization-word.svg");
    let mut weights = tiny().load_weights().unwrap().into_tensors();
    let matrix = weights
        .remove("model.layers.0.mlp.down_proj.weight")
        .unwrap();
    let row = matrix.take_axis(Array::from_slice(&[0], &[1]), 0).unwrap();
    let (packed, scales, biases) = ops::quantize(&row, 64, 4).unwrap();
    packed.eval().unwrap(); // its bits are read here
    let word = packed.as_slice::<u32>()[0];
    assert!(svg.contains(&format!("0x{word:08X}")), "{word:08X}");

    let first = &to_f32(&row).unwrap()[..8];
    let codes: Vec<u32> = (0..8).map(|code| word >> (4 * code) & 15).collect();
    let mut mono = texts(&svg, "mid mono").into_iter();
    for value in first {
        assert!((number(mono.next().unwrap()) - value).abs() < 6e-4);
    }
    for code in &codes {
        assert_eq!(mono.next().unwrap(), code.to_string());
    }
    for code in &codes {
        assert_eq!(mono.next().unwrap(), format!("{code:04b}"));
    }
    let in_word: Vec<String> = codes
        .iter()
        .rev()
        .map(|code| format!("{code:04b}"))
        .collect();
    assert_eq!(texts(&svg, "mid mono t-blue"), in_word);

    let (scale, bias) = (to_f32(&scales).unwrap()[0], to_f32(&biases).unwrap()[0]);
    let shown = format!("scale {scale:+.5}   bias {bias:+.5}").replace('-', "−");
    assert!(svg.contains(&shown), "{shown}");
    let back = format!("= {:.4}", scale * codes[0] as f32 + bias);
    assert!(svg.contains(&back), "{back}");
}

#[test]
fn what_the_cache_saves_is_counted_in_the_drawing() {
    let svg = diagram("kv-cache.svg");
    let count = |class: &str| texts(&svg, &format!("mid small {class}")).len();
    let (new, again, kept) = (count("t-green"), count("t-red"), count("t-blue"));
    assert_eq!((new, again), (2 * 8, kept));
    assert!(svg.contains(&format!("{} positions computed, ", 8 + again)));
    assert!(svg.contains(&format!("{again} of them again")));
    // (n−1)(p−1) + n(n−1)/2 of a prompt of p, and n, the other way of counting: see part 2's report
    let (p, n) = (4, 5);
    assert_eq!(again, (n - 1) * (p - 1) + n * (n - 1) / 2);
}

#[test]
fn the_batches_compute_each_token_once() {
    let svg = diagram("continuous-batch.svg");
    let (fixed, continuous) = svg.split_once("<!-- continuous batching -->").unwrap();
    for (half, steps) in [(fixed, 16), (continuous, 11)] {
        for (name, length) in "ABCDEFGH".chars().zip([3, 9, 4, 6, 7, 2, 5, 4]) {
            assert_eq!(
                half.matches(&format!(">{name}</text>")).count(),
                length,
                "{name}"
            );
        }
        assert!(half.contains(&format!(">{steps} steps</text>")));
    }
}

#[test]
fn every_drawing_says_what_it_shows_and_follows_the_readers_colours() {
    for name in [
        "pipeline",
        "attention",
        "kv-cache",
        "quantization-word",
        "continuous-batch",
    ] {
        let svg = diagram(&format!("{name}.svg"));
        for part in [
            "viewBox=",
            "<title id=",
            "<desc id=",
            "prefers-color-scheme: dark",
        ] {
            assert!(svg.contains(part), "{name} has no {part}");
        }
        assert!(
            !svg.contains("http://") || svg.matches("http").count() == 1,
            "{name}"
        ); // the namespace
    }
}
