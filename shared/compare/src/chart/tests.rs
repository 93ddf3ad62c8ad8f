use super::*;
use crate::testing::results;

#[test]
fn a_chart_names_every_step_and_its_numbers() {
    let svg = draw(&results()).unwrap();
    assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
    for text in [
        "tiny on AMD EPYC",
        "naive",
        "prealloc",
        "rotating",
        "139.9 (9.3 × part 2)",
    ] {
        assert!(svg.contains(text), "no {text} in {svg}");
    }
}

#[test]
fn the_bar_of_several_rows_is_that_of_all_and_has_a_piece_for_each() {
    let mut results = results();
    let cuts = |results: &Results| draw(results).unwrap().matches("stroke=\"#FFFFFF\"").count();
    let before = cuts(&results);
    results.steps[1].rows = 8;
    results.steps[1].ratio_to_part2 = Some(74.1);
    let svg = draw(&results).unwrap();
    assert!(svg.contains("1119.2 (74.1 × part 2)"), "{svg}");
    assert_eq!(cuts(&results), before + 7);
}

#[test]
fn a_name_from_outside_stays_text() {
    let mut results = results();
    results.model = "<script>&\u{1b}".into();
    let svg = draw(&results).unwrap();
    assert!(svg.contains("&lt;script&gt;&amp;^[ on"), "{svg}");
}

#[test]
fn a_step_that_does_not_know_its_memory_is_drawn_without_it() {
    let mut results = results();
    for step in &mut results.steps {
        (step.peak_bytes, step.weight_bytes, step.kv_bytes) = (None, None, None);
    }
    assert!(draw(&results).unwrap().contains("–"));
}
