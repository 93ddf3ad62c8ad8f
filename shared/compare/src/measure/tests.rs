use super::*;
use crate::testing::{NAIVE, PREALLOC, ROTATING, contestant, report};

/// A report as recorded, with another decode speed and peak.
fn round(line: &str, decode_tps: f64, peak_bytes: u64) -> Answers {
    let mut report = report(line);
    report.runs[0].run.decode_tps = Some(decode_tps);
    report.runs[0].run.peak_bytes = Some(peak_bytes);
    report
}

#[test]
fn the_order_is_reversed_in_every_other_round() {
    assert_eq!(order(3, 0), [0, 1, 2]);
    assert_eq!(order(3, 1), [2, 1, 0]);
    assert_eq!(order(3, 2), [0, 1, 2]);
}

#[test]
fn a_step_has_the_median_the_half_iqr_and_the_largest_peak() {
    let rounds = [
        round(PREALLOC, 140.0, 5),
        round(PREALLOC, 100.0, 7),
        round(PREALLOC, 120.0, 6),
    ];
    let naive = report(NAIVE);
    let step = step(&contestant(3, &[], true), &rounds, naive.run()).unwrap();
    let expected = Summary {
        median: 120.0,
        half_iqr: 10.0,
        min: 100.0,
        max: 140.0,
    };
    assert_eq!(step.decode_tps, expected);
    assert_eq!(step.peak_bytes, Some(7));
    assert_eq!(
        (step.variant.as_str(), step.first_difference),
        ("prealloc", None)
    );
}

#[test]
fn one_round_with_other_tokens_is_enough_to_differ() {
    let naive = report(NAIVE);
    let rounds = [report(PREALLOC), report(ROTATING)];
    let step = step(&contestant(3, &[], true), &rounds, naive.run()).unwrap();
    assert_eq!(step.first_difference, Some(0));
}

#[test]
fn the_ratio_is_to_the_rung_of_part_2_and_missing_without_it() {
    let naive = report(NAIVE);
    let of = |number, line, tps| {
        let rounds = [round(line, tps, 1)];
        step(&contestant(number, &[], true), &rounds, naive.run()).unwrap()
    };
    let (two, three) = (of(2, NAIVE, 5.0), of(3, PREALLOC, 100.0));
    let steps = beside_part_2(vec![two, three.clone()]);
    let ratios: Vec<Option<f64>> = steps.iter().map(|step| step.ratio_to_part2).collect();
    assert_eq!(ratios, [Some(1.0), Some(20.0)]);
    assert_eq!(beside_part_2(vec![three])[0].ratio_to_part2, None);
}

#[test]
fn answers_that_cannot_be_compared_are_refused() {
    let naive = report(NAIVE);
    let told = |change: fn(&mut Run)| {
        let mut other = report(PREALLOC);
        change(&mut other.runs[0].run);
        let step = step(&contestant(3, &[], true), &[other], naive.run());
        format!("{:#}", step.unwrap_err())
    };
    let prompt = told(|run| run.prompt_tokens = 13);
    assert!(
        prompt.starts_with("part 3 reads the prompt as 13 tokens"),
        "{prompt}"
    );
    let single = told(|run| {
        run.tokens.truncate(1);
        run.tpot_ms = None;
    });
    assert_eq!(single, "part 3: no tpot_ms in an answer of 1 tokens");
}
