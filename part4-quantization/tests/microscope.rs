//! One word under the microscope: the same numbers as MLX, drawn in 80 columns, and followed to where
//! they count.

#![allow(clippy::unwrap_used)] // a test that cannot go on should stop there

mod rows;

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::process::Command;

use assert_cmd::cargo::cargo_bin;
use console::cli::{ModelArgs, PromptArgs, SamplingArgs};
use console::report::Report;
use mlx_rs::{Array, Dtype, fast, ops};
use part4_quantization::floats::Fit;
use part4_quantization::generate::{Generator, PREFILL_STEP, generate};
use part4_quantization::kinds::{CacheKind, empty_cache};
use part4_quantization::microscope::follow::{Duel, Followed, Stage, Subject, follow};
use part4_quantization::microscope::picture;
use part4_quantization::microscope::specimen::{Specimen, groups};
use part4_quantization::model::Model;
use part4_quantization::quantize::quantize_weights;
use rows::{Rows, as_dtype, specimen_of};
use serde_json::Value;
use shared::config::{GroupQuantization, ModelConfig, Quantization};
use shared::layers::{ids_array, to_f32};
use shared::request::{Request, Step};
use shared::session::Session;
use shared::testing::fixtures;
use shared::testing::process::run;
use shared::weights::Weights;

const PLACE: &str = "layers.0.self_attn.q_proj[3,64..128]";

#[derive(clap::Parser)]
struct Flags {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    prompt: PromptArgs,
    #[command(flatten)]
    sampling: SamplingArgs,
}

/// The embedded model and a request for it.
fn tiny(max_tokens: &str) -> (Session, Request) {
    let flags = <Flags as clap::Parser>::parse_from(["part4", "--max-tokens", max_tokens]);
    let session = Session::open(&flags.model).unwrap();
    let request = session.request(&flags.prompt, &flags.sampling).unwrap().0;
    (session, request)
}

fn specimen(subject: &Subject, place: &str, bits: usize, group_size: usize) -> Specimen {
    let (session, _) = tiny("1");
    let place: part4_quantization::microscope::parse::Place = place.parse().unwrap();
    let module = place.module_of(&session.checkpoint).unwrap();
    Specimen::take(
        subject,
        &module,
        &place,
        GroupQuantization::affine(group_size, bits),
    )
    .unwrap()
}

fn drawn(specimen: &Specimen) -> String {
    let mut out = Vec::new();
    picture::specimen(&mut Report::plain(&mut out), specimen).unwrap();
    String::from_utf8(out).unwrap()
}

fn part4(args: &[&str], colour: bool) -> (i32, String, String) {
    let mut command = Command::new(cargo_bin("part4-quantization"));
    if colour {
        command.env("CLICOLOR_FORCE", "1");
    }
    run(command.args(args)).unwrap()
}

#[test]
fn words_codes_and_unpacked_weights_are_those_of_mlx() {
    let fixture = Rows::read();
    for case in &fixture.cases {
        let group = GroupQuantization::affine(case.group_size, case.bits);
        let row = as_dtype(&fixture.rows[&case.row], &case.dtype);
        let found = groups(&row, group, 0..128).unwrap();
        let words: String = found
            .iter()
            .flat_map(|group| &group.words)
            .map(|word| format!("{word:08x}"))
            .collect();
        assert_eq!(words, case.words, "{case:?}");
        let scales: Vec<f32> = found.iter().map(|group| group.scale).collect();
        let biases: Vec<f32> = found.iter().map(|group| group.bias).collect();
        assert_eq!((&scales, &biases), (&case.scales, &case.biases), "{case:?}");
        if let Some(unpacked) = &case.unpacked {
            let back = found.iter().flat_map(|group| group.unpacked.clone());
            assert_eq!(&back.collect::<Vec<f32>>(), unpacked, "{case:?}");
        }
    }
    assert!(fixture.cases.len() > 100);
}

#[test]
fn the_picture_of_a_group_of_the_built_in_model() {
    let (session, _) = tiny("1");
    let subject = Subject::load(&session).unwrap();
    insta::assert_snapshot!("four_bits", drawn(&specimen(&subject, PLACE, 4, 64)));
    let down = "model.layers.7.mlp.down_proj.weight[255,736..768]";
    insta::assert_snapshot!("three_bits", drawn(&specimen(&subject, down, 3, 32)));
    let two = "layers.0.self_attn.q_proj[3,64..128]";
    insta::assert_snapshot!(
        "eight_bits_two_groups",
        drawn(&specimen(&subject, two, 8, 32))
    );
}

#[test]
fn the_picture_of_groups_that_are_hard_to_draw() {
    let rows = Rows::read().rows;
    for name in ["equal", "zeros", "positive", "outlier", "subnormal"] {
        let group = GroupQuantization::affine(32, 4);
        let columns = 64..96;
        let specimen = specimen_of(&as_dtype(&rows[name], "f32"), group, columns);
        let drawn = drawn(&specimen);
        for line in drawn.lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
        insta::assert_snapshot!(name, drawn);
    }
}

#[test]
fn every_width_fits_80_columns() {
    let (session, _) = tiny("1");
    let subject = Subject::load(&session).unwrap();
    for bits in [2, 3, 4, 5, 6, 8] {
        for group_size in [32, 64, 128] {
            let place = "layers.7.mlp.gate_proj[767,128..256]";
            let drawn = drawn(&specimen(&subject, place, bits, group_size));
            for line in drawn.lines() {
                assert!(line.chars().count() <= 80, "{bits} {group_size}: {line}");
            }
        }
    }
}

#[test]
fn what_the_error_becomes_is_a_table_and_a_sentence_for_each_way() {
    let duel = |token, margin, now| Duel {
        token,
        before: " place".to_owned(),
        rival: "\n".to_owned(),
        margin,
        now,
    };
    let stage = Stage {
        quantized: "this matrix",
        weights: 0.0512,
        output: 0.0431,
        logits_rms: 0.0123,
        logits_max: 0.25,
        compared: 1116,
        change: None,
        closest: Some(duel(17, 0.5, 0.25)),
    };
    let followed = Followed {
        prompt_tokens: 12,
        most: 128,
        shown: 0.1,
        left_dense: 2,
        stages: vec![
            stage.clone(),
            Stage {
                quantized: "all matrices",
                change: Some(duel(3, 0.125, -0.5)),
                ..stage
            },
        ],
    };
    let mut out = Vec::new();
    picture::followed(&mut Report::plain(&mut out), &followed).unwrap();
    insta::assert_snapshot!(String::from_utf8(out).unwrap());
}

/// A greedy answer by the part's own loop, in f32.
fn answer(config: &ModelConfig, weights: Weights, request: &Request) -> Vec<u32> {
    let mut tensors: HashMap<String, Array> = weights.into_tensors();
    for tensor in tensors.values_mut() {
        if tensor.dtype() != Dtype::Uint32 {
            *tensor = tensor.as_dtype(Dtype::Float32).unwrap();
        }
    }
    let model = Model::new(config, Weights::new(tensors, config)).unwrap();
    let mut cache = empty_cache(CacheKind::Prealloc, config);
    let mut generator = Generator::new(&model, &mut cache, request, PREFILL_STEP).unwrap();
    let mut ids = Vec::new();
    generate(&mut generator, |step| {
        if let Step::Token { id, .. } = step {
            ids.push(id);
        }
        Ok(ControlFlow::Continue(()))
    })
    .unwrap();
    ids
}

#[test]
fn the_first_change_is_where_the_answers_of_the_two_models_part() {
    let (session, request) = tiny("24");
    let subject = Subject::load(&session).unwrap();
    for (bits, group_size) in [(2, 32), (3, 64), (8, 64)] {
        let specimen = specimen(&subject, PLACE, bits, group_size);
        let found = follow(&session, &subject, &request, &specimen).unwrap();
        let config = &session.checkpoint.config;
        let load = || session.checkpoint.load_weights().unwrap();
        let dense = answer(config, load(), &request);
        let plan = Quantization {
            default: GroupQuantization::affine(group_size, bits),
            overrides: Default::default(),
        };
        let (config, weights) = quantize_weights(config, load(), &plan, Fit::Mlx).unwrap();
        let packed = answer(&config, weights, &request);
        let parts = dense.iter().zip(&packed).position(|(a, b)| a != b);
        let [alone, all] = found.stages.as_slice() else {
            panic!("{found:?}");
        };
        let change = all.change.as_ref();
        assert_eq!(change.map(|change| change.token - 1), parts, "{bits} bits");
        if let Some(change) = change {
            let at = change.token - 1;
            let text = |ids: &[u32]| session.tokenizer.decode(&ids[at..=at], false).unwrap();
            assert_eq!(
                (&change.before, &change.rival),
                (&text(&dense), &text(&packed))
            );
            assert!(change.margin > 0.0 && change.now <= 0.0, "{change:?}");
        }
        assert_eq!(found.left_dense, 0);
        // One matrix of 57 moves the logits less than all of them.
        assert!(alone.logits_rms < all.logits_rms && alone.logits_max < all.logits_max);
        assert!(alone.logits_rms > 0.0 && alone.logits_rms <= alone.logits_max);
        assert_eq!(alone.weights, all.weights, "it is the same matrix in both");
    }
}

#[test]
fn the_error_of_an_output_is_that_of_the_product_with_what_the_layer_sees() {
    let (session, request) = tiny("1");
    let subject = Subject::load(&session).unwrap();
    let specimen = specimen(&subject, PLACE, 4, 64);
    let found = follow(&session, &subject, &request, &specimen).unwrap();

    let tensors = session.checkpoint.load_weights().unwrap().into_tensors();
    let f32 = |name: &str| tensors[name].as_dtype(Dtype::Float32).unwrap();
    let embedding = f32("model.embed_tokens.weight");
    let x = embedding.take_axis(ids_array(&request.ids), 0).unwrap();
    let norm = f32("model.layers.0.input_layernorm.weight");
    let x = fast::rms_norm(&x, Some(&norm), session.checkpoint.config.rms_norm_eps).unwrap();
    let w = &tensors["model.layers.0.self_attn.q_proj.weight"];
    let (codes, scales, biases) = ops::quantize(w, 64, 4).unwrap();
    let [scales, biases] = [scales, biases].map(|a| a.as_dtype(Dtype::Float32).unwrap());
    let packed = ops::dequantize(&codes, &scales, &biases, 64, 4).unwrap();
    let product = |w: &Array| to_f32(&ops::matmul(&x, w.t()).unwrap()).unwrap();
    let (exact, packed) = (
        product(&w.as_dtype(Dtype::Float32).unwrap()),
        product(&packed),
    );
    let square = |a: f32| f64::from(a).powi(2);
    let error: f64 = exact.iter().zip(&packed).map(|(a, b)| square(a - b)).sum();
    let size: f64 = exact.iter().map(|a| square(*a)).sum();
    let expected = (error / size).sqrt();
    let output = found.stages[0].output;
    assert!(
        (output - expected).abs() < 1e-4 * expected,
        "{output} {expected}"
    );
}

#[test]
fn an_embedding_and_the_last_matrix_of_a_block_can_be_followed_too() {
    let (session, request) = tiny("2");
    let subject = Subject::load(&session).unwrap();
    for module in [
        "embed_tokens",
        "layers.7.mlp.down_proj",
        "layers.3.self_attn.o_proj",
    ] {
        let specimen = specimen(&subject, &format!("{module}[0,0..64]"), 4, 64);
        let found = follow(&session, &subject, &request, &specimen).unwrap();
        for stage in &found.stages {
            assert!((0.01..0.5).contains(&stage.weights), "{module}: {stage:?}");
            assert!((0.01..0.5).contains(&stage.output), "{module}: {stage:?}");
        }
    }
}

#[test]
fn colours_are_added_to_the_same_letters_and_only_where_they_are_wanted() {
    let args = ["--show", PLACE, "--max-tokens", "1"];
    let (code, plain, stderr) = part4(&args, false);
    assert_eq!(code, 0, "{stderr}");
    assert!(!plain.contains('\u{1b}'));
    let coloured = part4(&args, true).1;
    assert!(coloured.contains("\u{1b}[38;5;"), "the codes have colours");
    let mut letters = String::new();
    let mut rest = coloured.as_str();
    while let Some((before, after)) = rest.split_once('\u{1b}') {
        letters.push_str(before);
        rest = after.split_once('m').unwrap().1;
    }
    letters.push_str(rest);
    let trim = |text: &str| {
        text.lines()
            .map(|line| line.trim_end().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(trim(&letters), trim(&plain));
}

#[test]
fn the_numbers_are_there_as_json() {
    let (code, stdout, stderr) = part4(&["--show", PLACE, "--max-tokens", "1", "--json"], false);
    assert_eq!(code, 0, "{stderr}");
    let json: Value = serde_json::from_str(stdout.lines().last().unwrap()).unwrap();
    assert_eq!(json["module"], "model.layers.0.self_attn.q_proj");
    assert_eq!(json["groups"][0]["words"].as_array().unwrap().len(), 8);
    assert_eq!(json["followed"]["stages"].as_array().unwrap().len(), 2);
}

#[test]
fn a_model_that_is_packed_already_is_unpacked_with_a_word_about_it() {
    let Some(path) = fixtures::smollm2() else {
        return;
    };
    let place = "layers.0.mlp.down_proj[0,1472..1536]";
    let model = [
        "--model",
        path.to_str().unwrap(),
        "--prompt",
        "Stars",
        "--max-tokens",
        "1",
    ];
    let (code, stdout, stderr) = part4(&[&model[..], &["--show", place]].concat(), false);
    assert_eq!(code, 0, "{stderr}");
    assert!(
        stderr.contains("is quantized already: what is shown is"),
        "{stderr}"
    );
    for line in stdout.lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
}

#[test]
fn what_cannot_be_shown_gets_one_clear_line() {
    let show = |place: &str, more: &[&str]| part4(&[&["--show", place], more].concat(), false);
    for (place, more, code, says) in [
        (
            "layers.0.self_attn.qproj[3,64..128]",
            &[][..],
            1,
            "there is no matrix layers.0.self_attn.qproj in tiny; names like it: \
             model.layers.0.self_attn.q_proj,",
        ),
        ("norm[0,0..64]", &[], 1, "there is no matrix norm in tiny"),
        (
            "layers.0.self_attn.q_proj[256,64..128]",
            &[],
            1,
            "has 256 rows, 0 to 255: there is no row 256",
        ),
        (
            "layers.0.self_attn.q_proj[0,192..320]",
            &[],
            1,
            "has 256 columns: 192..320 goes beyond them",
        ),
        (
            "layers.0.self_attn.q_proj[0,64..128]",
            &["--group-size", "128"],
            1,
            "columns 64..128 are not whole groups of 128: try 0..128",
        ),
        ("q_proj", &[], 2, "must be MODULE[ROW,FROM..TO]"),
        (
            PLACE,
            &["--bits", "7"],
            2,
            "must be one of [2, 3, 4, 5, 6, 8]",
        ),
        (
            PLACE,
            &["--group-size", "48"],
            2,
            "must be one of [32, 64, 128]",
        ),
        (
            PLACE,
            &["--page", "/no/such/folder/page.html"],
            1,
            "--page /no/such/folder/page.html: there is no directory /no/such/folder: make it first",
        ),
        (PLACE, &["--page", "-"], 1, "`-` is no name of a file"),
    ] {
        let (found, stdout, stderr) = show(place, more);
        assert_eq!((found, stdout.as_str()), (code, ""), "{place}: {stderr}");
        assert!(stderr.contains(says), "{stderr}");
        if code == 1 {
            let errors = stderr.lines().filter(|line| line.starts_with("error: "));
            assert_eq!(errors.count(), 1, "{stderr}");
        }
    }
}

/// The texts of a drawing whose class begins with `class`, in the order in which they are drawn.
fn texts<'s>(svg: &'s str, class: &str) -> Vec<&'s str> {
    let has_class = format!("class=\"{class}");
    let all = svg.split("<text ").skip(1).filter_map(|text| {
        let (attributes, rest) = text.split_once('>')?;
        let text = rest.split_once("</text>")?.0;
        attributes.contains(&has_class).then_some(text)
    });
    all.collect()
}

#[test]
fn the_drawing_has_the_numbers_of_the_built_in_model() {
    let path = fixtures::directory().join("../diagrams/quantization.svg");
    let svg = std::fs::read_to_string(path).unwrap();
    let (session, request) = tiny("128");
    let subject = Subject::load(&session).unwrap();
    let shown = specimen(&subject, PLACE, 4, 64);
    let [group] = shown.groups.as_slice() else {
        panic!("{shown:?}");
    };
    let recipe = group.recipe(4);
    assert_eq!(svg.matches("class=\"dot\"").count(), group.values.len());
    let steps = texts(&svg, "small step").join(" ").replace('−', "-");
    for expected in [
        format!("{:.4} to {:.4}", recipe.low, recipe.high),
        format!("each {:.5}", recipe.step),
        format!("is {:.4}", recipe.edge),
        format!("{:.3} steps away", recipe.edge / recipe.step),
        format!("moved to {}", recipe.zero),
        format!("a word: {:08x}", group.words[0]),
        format!("scale {:.6}", group.scale),
        format!("bias {:.6}", group.bias),
    ] {
        assert!(steps.contains(&expected), "{expected}: {steps}");
    }

    let cells = texts(&svg, "mid small far");
    let mut cells = cells.iter();
    let mut next = || cells.next().unwrap();
    for bits in [4, 3] {
        let specimen = specimen(&subject, PLACE, bits, 64);
        let found = follow(&session, &subject, &request, &specimen).unwrap();
        for stage in &found.stages {
            for (value, rounding) in [
                (100.0 * stage.weights, 0.05),
                (100.0 * stage.output, 0.05),
                (stage.logits_rms, 0.0005),
            ] {
                let drawn: f64 = next().trim_end_matches(" %").parse().unwrap();
                assert!((value - drawn).abs() < 1.2 * rounding, "{value} {drawn}");
            }
            let expected = match &stage.change {
                None => format!("none of {}", stage.compared),
                Some(Duel {
                    token,
                    before,
                    rival,
                    ..
                }) => {
                    format!("token {token}: “{}” for “{}”", rival.trim(), before.trim())
                }
            };
            assert_eq!(*next(), expected);
        }
    }
}

#[test]
fn the_readme_quotes_the_picture() {
    let readme = include_str!("../README.md").replace("\r\n", "\n");
    let section = readme
        .split("## One word under the microscope")
        .nth(1)
        .unwrap();
    let section = section.split("\n## ").next().unwrap();
    let quotes: Vec<&str> = section
        .split("```text\n")
        .skip(1)
        .map(|block| block.split("```").next().unwrap())
        .collect();
    let [picture, summary, followed] = quotes.as_slice() else {
        panic!("{} quotes", quotes.len());
    };
    let (session, request) = tiny("128");
    let subject = Subject::load(&session).unwrap();
    let drawn = drawn(&specimen(&subject, PLACE, 4, 64));
    assert!(drawn.contains(picture.trim_end()), "{drawn}");
    assert!(drawn.contains(summary.trim_end()), "{drawn}");
    let found = follow(
        &session,
        &subject,
        &request,
        &specimen(&subject, PLACE, 3, 64),
    )
    .unwrap();
    let mut out = Vec::new();
    picture::followed(&mut Report::plain(&mut out), &found).unwrap();
    // Another BLAS adds in another order: the last digits may be others, the drawing has the numbers.
    let shape = |text: &str| text.replace(|c: char| c.is_ascii_digit(), "0");
    assert_eq!(
        shape(String::from_utf8(out).unwrap().trim()),
        shape(followed.trim())
    );
}
