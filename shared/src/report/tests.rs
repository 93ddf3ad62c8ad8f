use super::*;
use crate::metrics::{FinishReason, Run, Timeline};
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

/// 128 tokens of naive decode after a prompt of 18, and what they cost.
fn naive_decode() -> (Vec<u64>, Vec<f64>) {
    let recomputed: Vec<u64> = (0..128).map(|i| if i == 0 { 0 } else { 17 + i }).collect();
    let ms = (0..128).map(|i| 8.0 + 0.25 * f64::from(i)).collect();
    (recomputed, ms)
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
            "Apple M4 Pro, 24.00 GiB, macOS 15.1, MLX 0.32.2 (metal), mlx-rs 0.33.0",
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
        "peak GiB",
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
    let (_, off) = naive_decode();
    let cached = vec![8.0; 128];
    let series: [(&str, &[f64]); 2] = [("off", &off), ("cached", &cached)];
    insta::assert_snapshot!(drawn(|report| report.sparklines("ms/token", 2, &series)));
}

#[test]
fn the_cost_meter_shows_growth_and_total() {
    let (recomputed, ms) = naive_decode();
    insta::assert_snapshot!(drawn(|report| report.cost_meter(&recomputed, &ms)));
}

#[test]
fn the_total_is_split_only_if_the_positions_are_those_of_naive_decode() {
    let (recomputed, _) = naive_decode();
    assert_eq!(recomputed.iter().sum::<u64>(), 127 * 18 + 127 * 126 / 2);
    let lines = redundancy(&recomputed);
    assert_eq!(lines[0], "10,287 positions computed again for 128 tokens");
    assert_eq!(
        lines[1],
        "= 127 × 17 of the prompt + 128 × 127 / 2 of the answer"
    );
    assert_eq!(
        redundancy(&[0, 0, 0]),
        ["0 positions computed again for 3 tokens"]
    );
    assert_eq!(
        redundancy(&[0, 18, 20]),
        ["38 positions computed again for 3 tokens"]
    );
    assert_eq!(redundancy(&[0]), ["0 positions computed again for 1 token"]);
    assert_eq!(redundancy(&[]), ["0 positions computed again for 0 tokens"]);
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
        report.sparklines("ms", 1, &[("none", &[]), ("one", &[2.0])])?;
        report.cost_meter(&[], &[])
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
    let machine = json!({"name": "chip", "device": "cpu", "backend": "cpu", "ram_bytes": 1});
    let report = JsonReport {
        part: "part2-first-inference",
        model: "tiny",
        machine: &machine,
        versions: &json!({"mlx": "0.32.2"}),
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

    #[test]
    fn padding_gives_the_exact_width_and_clipping_never_more(text in any_text(), width in 0_usize..90) {
        let text = one_line(&text);
        prop_assert!(clip(&text, width).width() <= width);
        prop_assert_eq!(padded(&text, width).width(), width);
    }
}

#[test]
fn a_heat_map_hides_what_the_mask_hides_and_shades_the_rest() {
    let labels = ["the", "longer than a column is", "שלום"];
    let cells = [
        1.0,
        f32::NAN,
        f32::NAN,
        0.34,
        0.66,
        f32::NAN,
        0.004,
        0.1,
        0.896,
    ];
    insta::assert_snapshot!(drawn(|report| report.heat_map(&labels, &cells)));
}

#[test]
fn a_heat_map_of_any_size_stays_within_the_frame() {
    for n in [0, 1, 14, 15, 20, 31, 40, 62, 64] {
        let labels = vec!["token"; n];
        let cells = vec![0.5; n * n];
        let text = drawn(|report| report.heat_map(&labels, &cells));
        assert_eq!(text.lines().count(), n + 1);
        // One column a token does not leave room for more than this.
        assert!(widest(&text) <= WIDTH.max(17 + n), "{n}: {}", widest(&text));
    }
}

#[test]
fn bars_in_pairs_share_one_scale_and_a_zero_is_a_dash() {
    let rows = [
        ("␣breathe", 0.736, 0.924, "stays"),
        ("␣have", 0.128, 0.076, "stays"),
        (
            "␣eat",
            0.026,
            0.0,
            "min-p: 0.026 < 0.037, and then a good deal more",
        ),
    ];
    let rows = rows.map(|(label, before, after, note)| BeforeAfter {
        label,
        before,
        after,
        note,
    });
    let text = drawn(|report| report.before_after(["before", "after"], &rows));
    assert!(widest(&text) <= WIDTH, "{text}");
    insta::assert_snapshot!(text);
}

#[test]
fn points_that_crowd_give_up_their_names_and_important_ones_last() {
    let dot = |label, x, y, important| Dot {
        label,
        x,
        y,
        important,
    };
    let dots = [
        dot("neighbour", 0.1, 1.0, false),
        dot("prompt", 0.0, 1.0, true),
        dot("far", 4.0, -1.0, true),
    ];
    let text = drawn(|report| report.plane(&dots));
    assert!(text.contains("•prompt") && text.contains("•far"), "{text}");
    assert!(
        !text.contains("neighbour") && widest(&text) <= WIDTH,
        "{text}"
    );
    assert_eq!(drawn(|report| report.plane(&[])).trim(), "");
}

#[test]
fn a_heading_is_as_wide_as_the_frame() {
    let text = drawn(|report| report.heading("3 attend", "vectors → vectors"));
    assert_eq!(widest(&text), WIDTH, "{text}");
}

#[test]
fn only_text_from_right_to_left_is_shut_in() {
    assert_eq!(isolated("crane"), "crane");
    assert_eq!(isolated("שלום"), "\u{2068}שלום\u{2069}");
}
