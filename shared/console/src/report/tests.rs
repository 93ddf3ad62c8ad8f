use super::*;
use crate::machine::{Machine, Versions};
use crate::metrics::{FinishReason, Run, Timeline};
use crate::results::JsonReport;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// What `draw` writes, without colour.
fn drawn(draw: impl FnOnce(&mut Report<&mut Vec<u8>>) -> io::Result<()>) -> String {
    let mut out = Vec::new();
    draw(&mut Report::plain(&mut out)).unwrap();
    String::from_utf8(out).unwrap()
}

fn widest(text: &str) -> usize {
    text.lines().map(UnicodeWidthStr::width).max().unwrap_or(0)
}

#[test]
fn a_card_aligns_its_values_and_wraps_long_ones() {
    let rows = [
        (
            "model",
            "mlx-community/Mistral-7B-v0.1-4bit-MLX, 4.50 bits/weight, 4.07 GB",
        ),
        (
            "machine",
            "Apple M4 Pro, 25.77 GB (sold as 24 GB), macOS 15.1, MLX 0.32.2 (metal), mlx-rs 0.33.0",
        ),
        (
            "unlike Llama",
            "grouped-query attention, 32 query heads share 8 key/value heads, sliding window of \
             4,096 positions, RoPE base 10,000",
        ),
        ("日本", "wide labels count two columns a character"),
    ];
    insta::assert_snapshot!(drawn(|report| report.card(&rows)));
}

#[test]
fn a_table_has_its_units_in_the_head_and_its_numbers_at_the_right() {
    let head = [
        "cache",
        "TTFT ms",
        "TPOT ms",
        "ITL p95",
        "decode tok/s",
        "peak GB",
        "vs off",
    ];
    let rows = [
        vec![
            "off",
            "212.4",
            "108.31",
            "131.20",
            "9.2 ± 0.1",
            "0.61",
            "1.00 ×",
        ],
        vec![
            "prealloc",
            "211.9",
            "39.06",
            "41.77",
            "25.6 ± 0.3",
            "0.59",
            "2.78 ×",
        ],
    ];
    insta::assert_snapshot!(drawn(|report| report.table(&head, &rows)));
}

#[test]
fn bars_share_one_scale_from_zero() {
    let values = [
        ("off", 9.23),
        ("concat", 24.9),
        ("prealloc", 1025.6),
        ("none", 0.0),
    ];
    insta::assert_snapshot!(drawn(|report| report.bars("decode", "tok/s", 1, &values)));
}

#[test]
fn sparklines_share_one_scale_and_name_their_ends() {
    let off: Vec<f64> = (0..128).map(|i| 8.0 + 0.25 * f64::from(i)).collect();
    let cached = vec![8.0; 128];
    let series: [(&str, &[f64]); 2] = [("off", &off), ("cached", &cached)];
    insta::assert_snapshot!(drawn(|report| report.sparklines("ms/token", 2, &series)));
}

#[test]
fn a_short_series_has_a_cell_per_value_and_a_long_one_its_means() {
    assert_eq!(means(&[1.0, 3.0, 10.0, 20.0, 7.0], 2), [2.0, 15.0, 7.0]);
    assert_eq!(means(&[1.0, f64::NAN, f64::INFINITY], 3), [1.0]);
    let line = drawn(|report| report.sparklines("ms", 0, &[("a", &[1.0, 4.0, 8.0])]));
    assert!(line.starts_with(" ms  a  ▁▄█  1 → 8\n"), "{line}");
}

#[test]
fn what_is_not_a_number_is_drawn_as_nothing() {
    assert_eq!(
        [0.0, 0.125, 0.126, 1.0, 2.0].map(spark),
        ['▁', '▁', '▂', '█', '█']
    );
    assert_eq!(spark(f64::NAN), ' ');
    assert_eq!(
        [f64::NAN, -1.0, 0.0].map(|share| bar(share, 10)),
        ["", "", ""]
    );
    assert_eq!(bar(1e-9, 10), "▏");
    assert_eq!(bar(0.5, 3), "█▌");
    assert_eq!(bar(f64::INFINITY, 2), "██");
}

#[test]
fn nothing_to_draw_is_drawn_without_a_fault() {
    let text = drawn(|report| {
        report.card::<&str, &str>(&[])?;
        report.table::<&str>(&["a"], &[])?;
        report.bars("decode", "tok/s", 1, &[])?;
        report.bars("decode", "tok/s", 1, &[("none", f64::NAN)])?;
        report.sparklines("ms", 1, &[])?;
        report.sparklines("ms", 1, &[("none", &[]), ("one", &[2.0])])
    });
    assert!(text.contains("one   █  2.0"), "{text}");
    assert!(text.contains("none     –"), "{text}");
}

#[test]
fn colour_is_an_addition_that_changes_no_character() {
    let draw = |colour| {
        let mut out = Vec::new();
        let mut report = Report {
            out: &mut out,
            colour,
        };
        report.card(&[("model", "tiny")]).unwrap();
        report
            .table(&["cache", "ms"], &[vec!["off", "1"], vec!["on", "22"]])
            .unwrap();
        report
            .bars("decode", "tok/s", 1, &[("off", 1.0), ("on", 3.0)])
            .unwrap();
        report.sparklines("ms", 1, &[("off", &[1.0, 2.0])]).unwrap();
        String::from_utf8(out).unwrap()
    };
    let (plain, colour) = (draw(false), draw(true));
    assert!(!plain.contains('\x1b') && colour.contains('\x1b'));
    let stripped = anstream::adapter::strip_str(&colour).to_string();
    let trimmed: Vec<&str> = stripped.lines().map(str::trim_end).collect();
    assert_eq!(trimmed, plain.lines().collect::<Vec<_>>());
}

#[test]
fn the_json_line_is_one_line_with_the_keys_of_every_part() {
    let start = Instant::now();
    let after = |ms| start + Duration::from_millis(ms);
    let timeline = Timeline::from_instants(start, vec![after(100), after(120)]);
    let text = "one\ntwo \u{1b}[0m".to_owned();
    let run =
        Run::from_timeline("naive", 4, &timeline).output(vec![7, 8], text, FinishReason::Stop);
    let machine = Machine {
        name: "chip".into(),
        device: "cpu".into(),
        backend: "cpu".into(),
        ram_bytes: 1,
        os: "Linux".into(),
        cores: 2,
        bandwidth_bytes_per_s: None,
        bandwidth_is_measured: false,
        products: String::new(),
    };
    let versions = Versions {
        mlx: "0.32.2".into(),
        mlx_rs: "0.33.0".into(),
        mlx_sys: "0.7.0".into(),
    };
    let report = JsonReport {
        part: "part2-first-inference",
        model: "tiny",
        machine: &machine,
        versions: &versions,
        runs: &[run],
    };
    let line = drawn(|out| out.json_line(&report));
    assert_eq!(line.matches('\n').count(), 1);
    assert!(line.ends_with('\n') && !line.contains('\x1b'));
    let value: Value = serde_json::from_str(&line).unwrap();
    let keys: Vec<&String> = value.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["part", "model", "machine", "versions", "runs"]);
    assert_eq!(value["machine"]["name"], "chip");
    assert_eq!(value["runs"][0]["tokens"], json!([7, 8]));
    assert_eq!(value["runs"][0]["text"], "one\ntwo \u{1b}[0m");
}

#[test]
fn a_reader_that_has_gone_ends_a_report() {
    let mut full: [u8; 8] = [0; 8];
    let mut report = Report::plain(full.as_mut_slice());
    assert!(
        report
            .card(&[("model", "longer than eight bytes")])
            .is_err()
    );
}

/// Text as a hostile file name or a model id may have it.
fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![any::<String>(), "[ -~]{0,200}", "[字🕳é\u{301} ]{0,60}"]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_line_is_wider_than_the_frame(
        texts in prop::collection::vec((any_text(), any_text()), 1..6),
        values in prop::collection::vec(any::<f64>(), 0..200),
        decimals in 0_usize..4,
    ) {
        let head: Vec<&str> = texts.iter().map(|(label, _)| label.as_str()).collect();
        let row: Vec<&str> = texts.iter().map(|(_, value)| value.as_str()).collect();
        let bars: Vec<(&str, f64)> = head.iter().copied().zip(values.iter().copied()).collect();
        let lines: Vec<(&str, &[f64])> = head.iter().map(|label| (*label, &values[..])).collect();
        let text = drawn(|report| {
            report.card(&texts)?;
            report.table(&head, &[row])?;
            report.bars(&texts[0].1, "tok/s", decimals, &bars)?;
            report.sparklines(&texts[0].1, decimals, &lines)?;
            report.note(&texts[0].0)
        });
        prop_assert!(widest(&text) <= WIDTH, "{} columns:\n{text}", widest(&text));
        prop_assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{text:?}");
    }
}
