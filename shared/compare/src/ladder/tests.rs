use super::*;
use unicode_width::UnicodeWidthStr;

use crate::testing::results;

fn plain(results: &Results) -> String {
    let mut text = Vec::new();
    print(&mut Report::plain(&mut text), results).unwrap();
    String::from_utf8(text).unwrap()
}

/// Columns of the widest line.
fn widest(text: &str) -> usize {
    text.lines().map(UnicodeWidthStr::width).max().unwrap_or(0)
}

#[test]
fn a_ladder_has_a_rung_per_part() {
    let mut results = results();
    results.steps.truncate(2);
    let text = plain(&results);
    assert!(widest(&text) <= WIDTH, "{text}");
    insta::assert_snapshot!(text);
}

#[test]
fn variants_stand_below_the_rung_and_other_tokens_are_marked() {
    let text = plain(&results());
    assert!(widest(&text) <= WIDTH, "{text}");
    insta::assert_snapshot!(text);
}

/// Part 4 with another token that is nearly as likely, and part 5 with eight rows.
fn whole() -> Results {
    let mut results = results();
    let quantized = Step {
        number: 4,
        variant: "4-bit".into(),
        adds: "quantization: smaller models that still work".into(),
        rung: true,
        first_difference: Some(5),
        margin_nats: Some(0.1234),
        weight_bytes: Some(4_137_472),
        ..results.steps[1].clone()
    };
    let mut batched = Step {
        number: 5,
        variant: "8 rows".into(),
        adds: "batching, throughput and latency".into(),
        rung: true,
        rows: 8,
        ..results.steps[1].clone()
    };
    batched.decode_tps.median = 100.0;
    batched.throughput_tps.median = 640.0;
    batched.ratio_to_part2 = Some(batched.decode_of_all() / 15.1);
    results.steps.truncate(2);
    results.steps.extend([quantized, batched]);
    results
}

#[test]
fn rows_have_a_speed_each_and_one_together_and_a_difference_its_margin() {
    let text = plain(&whole());
    assert!(widest(&text) <= WIDTH, "{text}");
    insta::assert_snapshot!(text);
}

#[test]
fn without_part_2_there_is_no_ratio() {
    let mut results = results();
    results.steps.remove(0);
    results
        .steps
        .iter_mut()
        .for_each(|step| step.ratio_to_part2 = None);
    let text = plain(&results);
    assert!(
        text.contains("–") && text.contains("differs from part 3 at token 1 of 8"),
        "{text}"
    );
}

#[test]
fn rounds_of_the_reference_that_differ_are_told() {
    let mut results = results();
    results.steps[0].first_difference = Some(3);
    let text = plain(&results);
    assert!(
        text.contains("≠ part 2: its own rounds differ from token 4 on"),
        "{text}"
    );
}

#[test]
fn no_name_and_no_number_is_wider_than_the_frame() {
    let mut results = results();
    results.model = "字".repeat(200);
    results.prompt = "\u{1b}[2J a\nb ".repeat(80);
    results.versions.mlx = "9".repeat(200);
    for step in &mut results.steps {
        step.variant = "字字字字字字字".into();
        step.adds = "very long ".repeat(30);
        step.peak_bytes = Some(999_999 << 20);
        step.weight_bytes = None;
        for spread in [
            &mut step.ttft_ms,
            &mut step.tpot_ms,
            &mut step.throughput_tps,
        ] {
            spread.median = 123_456.789;
        }
        step.decode_tps.median = 98_765.432;
        step.decode_tps.half_iqr = 1_234.5;
        step.ratio_to_part2 = Some(12_345.6);
    }
    let text = plain(&results);
    assert!(widest(&text) <= WIDTH, "{text}");
    assert!(
        !text.contains(|c: char| c.is_control() && c != '\n'),
        "{text:?}"
    );
}

#[test]
fn decimals_go_before_digits_do() {
    let texts = [0.0, 5.06, 99.999, 1234.5, 123_456.7].map(|number| narrow(Some(number), 2));
    assert_eq!(texts, ["0.00", "5.06", "100.00", "1234.5", "123457"]);
    assert_eq!(narrow(None, 2), "–");
}
