//! The microscope's page in a real browser: the same words as MLX, whatever the sliders say.

#![allow(clippy::unwrap_used)] // a test that cannot go on should stop there

#[allow(dead_code)] // part 1's page has more to try
#[path = "../../part1-walkthrough/tests/browser/mod.rs"]
mod browser;
mod rows;

use assert_cmd::Command;
use browser::{Page, page};
use part4_quantization::microscope::follow::{Duel, Followed, Stage};
use part4_quantization::microscope::page::save;
use part4_quantization::microscope::specimen::{Specimen, groups};
use part4_quantization::quantize::{Grid, Rounding};
use rows::{Rows, as_dtype, specimen_of};
use serde_json::json;
use shared::config::GroupQuantization;

const FOUR: GroupQuantization = GroupQuantization::affine(64, 4);

/// The real row of the fixture, as a page that is written without a model.
fn real() -> Specimen {
    specimen_of(&as_dtype(&Rows::read().rows["real"], "f32"), FOUR, 64..128)
}

fn shown(specimen: &Specimen) -> Option<Page> {
    page(|path| {
        save(path, specimen).unwrap();
    })
}

/// The words on the page.
fn words(page: &Page) -> Vec<String> {
    page.json("[...document.querySelectorAll('.words .hex')].map((word) => word.textContent)")
}

/// Those of the program.
fn expected(bits: usize, group_size: usize, at: usize) -> Vec<String> {
    let row = as_dtype(&Rows::read().rows["real"], "f32");
    let group = GroupQuantization::affine(group_size, bits);
    let groups = groups(&row, group, at..at + 1).unwrap();
    let words = groups[0].words.iter();
    words.map(|word| format!("{word:08x}")).collect()
}

#[test]
fn the_program_writes_a_page_that_loads_without_an_error_or_a_request() {
    let page = page(|path| {
        let args = [
            "--show",
            "layers.0.self_attn.q_proj[3,64..128]",
            "--max-tokens",
            "2",
        ];
        let mut command = Command::cargo_bin("part4-quantization").unwrap();
        let output = command.args(args).arg("--page").arg(path).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    });
    let Some(page) = page else { return };
    assert_eq!(
        page.text("h1"),
        "model.layers.0.self_attn.q_proj[3, 64..128]"
    );
    let count =
        |selector: &str| page.number(&format!("document.querySelectorAll('{selector}').length"));
    assert_eq!(count("#line .dot"), 64.0);
    assert_eq!(count("#line .tick"), 16.0);
    assert_eq!(count(".words li"), 8.0);
    assert_eq!(count("#errors .error"), 64.0);
    assert_eq!(count(".far tbody tr"), 2.0);
    assert_eq!(page.complaints(), Vec::<String>::new());
}

#[test]
fn the_recipe_in_javascript_gives_the_words_of_mlx() {
    let Some(page) = shown(&real()) else { return };
    let path = shared::testing::fixtures::directory().join("ops/groups.json");
    let fixture = std::fs::read_to_string(path).unwrap();
    page.string(&format!("globalThis.fixture = {fixture}; ''"));
    let wrong: Vec<String> = page.json(
        "fixture.cases.filter((test) => {
           const row = fixture.rows[test.row].map((x) => recipe.store(Math.fround(x), test.dtype));
           const { group_size: size, bits } = test;
           const groups = test.scales.map((_, g) =>
             recipe.packGroup(row.slice(g * size, (g + 1) * size), bits, test.dtype, 'cpu'));
           const hex = groups.flatMap((g) => [...g.words].map((w) => w.toString(16).padStart(8, '0'))).join('');
           const same = (a, b) => a.length === b.length && a.every((x, i) => x === Math.fround(b[i]));
           return hex !== test.words || !same(groups.map((g) => g.scale), test.scales)
             || !same(groups.map((g) => g.bias), test.biases)
             || (test.unpacked && !same(groups.flatMap((g) => g.back), test.unpacked));
         }).map((test) => [test.row, test.dtype, test.bits, test.group_size].join(' '))",
    );
    assert_eq!(wrong, Vec::<String>::new());
    assert!(page.number("fixture.cases.length") > 100.0);
}

#[test]
fn the_other_rounding_gives_the_codes_of_the_program() {
    let Some(page) = shown(&real()) else { return };
    let mut cases = Vec::new();
    for (name, row) in Rows::read().rows {
        for bits in [2, 3, 4, 5, 6, 8] {
            let values = &row[..64];
            let grid = Grid::of(values, bits, Rounding::Gpu);
            let codes: Vec<u32> = values.iter().map(|value| grid.code(*value)).collect();
            cases.push(
                json!({"name": name, "bits": bits, "values": values, "codes": codes,
                "scale": grid.scale, "bias": grid.bias}),
            );
        }
    }
    let cases = serde_json::to_string(&cases).unwrap();
    let wrong: Vec<String> = page.json(&format!(
        "{cases}.filter((test) => {{
           const found = recipe.packGroup(test.values.map(Math.fround), test.bits, 'f32', 'gpu');
           return found.codes.join() !== test.codes.join() || found.scale !== Math.fround(test.scale)
             || found.bias !== Math.fround(test.bias);
         }}).map((test) => test.name + ' ' + test.bits)"
    ));
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn the_sliders_pack_again_and_the_words_are_those_of_the_program() {
    let Some(page) = shown(&real()) else { return };
    assert_eq!(words(&page), expected(4, 64, 64));
    for (index, bits) in [2, 3, 4, 5, 6, 8].into_iter().enumerate() {
        page.slide("bits", index as f64);
        for (index, size) in [32, 64, 128].into_iter().enumerate() {
            page.slide("group", index as f64);
            let at: usize =
                page.json("Number(document.querySelector('.range').value.split('..')[0])");
            assert_eq!(
                words(&page),
                expected(bits, size, at),
                "{bits} bits, groups of {size}"
            );
        }
    }
    page.slide("column", 3.0);
    assert_eq!(words(&page), expected(8, 128, 0));
    page.slide("group", 0.0);
    assert_eq!(words(&page), expected(8, 32, 0));
    page.slide("column", 127.0);
    assert_eq!(words(&page), expected(8, 32, 96));
    assert_eq!(page.complaints(), Vec::<String>::new());
}

#[test]
fn a_keyboard_and_a_mouse_choose_what_is_followed() {
    let Some(page) = shown(&real()) else { return };
    page.focus("#bits");
    page.press("ArrowRight");
    assert_eq!(page.text("output[for=bits]"), "5");
    assert_eq!(words(&page), expected(5, 64, 64));
    page.focus("#column");
    page.press("Home");
    assert_eq!(page.text("output[for=column]"), "0");
    assert_eq!(words(&page), expected(5, 64, 0));
    page.click(".words i[data-column='7']");
    assert_eq!(page.text("output[for=column]"), "7");
    assert!(page.text(".one").starts_with("Weight 7 is "));
    page.click("#line .dot[data-column='9']");
    assert_eq!(page.text("output[for=column]"), "9");
}

#[test]
fn the_page_fits_a_phone_and_obeys_the_systems_colours() {
    let Some(page) = shown(&real()) else { return };
    let paper = || page.string("getComputedStyle(document.body).backgroundColor");
    page.prefer("light");
    let light = paper();
    page.prefer("dark");
    assert_ne!(light, paper());
    page.click(".theme");
    assert_eq!(light, paper(), "the button decides against the system");
    page.phone(360);
    for bits in 0..6 {
        page.slide("bits", f64::from(bits));
        let over = page.number("document.documentElement.scrollWidth - innerWidth");
        assert!(over <= 0.0, "{over} pixels too wide");
        let cut = page.number(
            "Math.max(...[...document.querySelectorAll('.digits')].map((d) => d.scrollWidth - d.clientWidth))",
        );
        assert!(cut <= 0.0, "{cut} pixels of a word are cut off");
    }
}

#[test]
fn names_and_tokens_are_text_and_never_a_program() {
    let evil = "</script><img src=x onerror=alert(1)><script>alert(2)</script>{{ 7 * 7 }}";
    let duel = Duel {
        token: 1,
        before: evil.to_owned(),
        rival: evil.to_owned(),
        margin: 1.0,
        now: -1.0,
    };
    let stage = Stage {
        quantized: "all matrices",
        change: Some(duel),
        ..Stage::default()
    };
    let specimen = Specimen {
        model: evil.to_owned(),
        module: evil.to_owned(),
        followed: Some(Followed {
            prompt_tokens: 1,
            most: 1,
            shown: 0.0,
            left_dense: 0,
            stages: vec![stage],
        }),
        ..real()
    };
    let Some(page) = shown(&specimen) else { return };
    assert!(page.text("h1").starts_with(evil));
    assert_eq!(page.text(".duel code"), evil);
    assert_eq!(page.number("document.images.length"), 0.0);
    assert_eq!(page.complaints(), Vec::<String>::new());
}
