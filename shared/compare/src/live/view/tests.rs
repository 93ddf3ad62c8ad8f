use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::*;
use crate::testing::{PREALLOC, contestant, status};

const TEXT: &str = "A black hole is a place in space where gravity is so strong that nothing can \
    escape, not even light. Most black holes form when a very massive star runs out of fuel.";

/// A lane whose words came `ms` apart, each one a little later than the one before.
fn lane(number: u32, start: Instant, words: usize, ms: u64) -> Lane {
    let mut lane = Lane::new(contestant(number, &[], true), 40, start);
    let mut at = 100;
    for (i, word) in TEXT.split_inclusive(' ').take(words).enumerate() {
        at += ms + i as u64 * ms / 10;
        lane.out(word.as_bytes(), start + Duration::from_millis(at));
    }
    lane
}

fn finished(mut lane: Lane, line: &str, place: usize, start: Instant) -> Lane {
    let report = format!("\n\n model    tiny\n{line}");
    lane.out(report.as_bytes(), start + Duration::from_millis(900));
    lane.ended(status(0), place);
    lane
}

fn drawn(lanes: &[Lane], start: Instant, width: u16, height: u16) -> String {
    terminal(lanes, start, width, height).backend().to_string()
}

fn terminal(lanes: &[Lane], start: Instant, width: u16, height: u16) -> Terminal<TestBackend> {
    let header = Header {
        model: "tiny".into(),
        prompt: "Explain black holes".into(),
    };
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    let now = start + Duration::from_millis(2500);
    terminal
        .draw(|frame| draw(frame, lanes, &header, now))
        .unwrap();
    terminal
}

/// Part 2 at work, part 3 there already.
fn two(start: Instant) -> Vec<Lane> {
    let slow = lane(2, start, 9, 60);
    let fast = finished(lane(3, start, 20, 5), PREALLOC, 1, start);
    vec![slow, fast]
}

#[test]
fn two_lanes_stand_side_by_side_in_80_columns() {
    let start = Instant::now();
    insta::assert_snapshot!(drawn(&two(start), start, 80, 24));
}

#[test]
fn three_lanes_stand_side_by_side_in_120_columns() {
    let start = Instant::now();
    let mut lanes = two(start);
    let mut failed = lane(4, start, 3, 50);
    failed.err(b"error: the model needs 12.1 GB, this machine has 8.0: take a smaller one\n");
    failed.ended(status(1), 0);
    lanes.push(failed);
    insta::assert_snapshot!(drawn(&lanes, start, 120, 24));
}

/// The ladder on its way: part 3 is there, part 5 has eight rows, part 6 has not begun to speak.
fn five(start: Instant) -> Vec<Lane> {
    let slow = lane(2, start, 9, 60);
    let fast = finished(lane(3, start, 20, 12), PREALLOC, 1, start);
    let quantized = lane(4, start, 24, 10);
    let batched = lane(5, start, 14, 22);
    let mut late = lane(6, start, 0, 1);
    late.err(b"opening tiny\n");
    vec![slow, fast, quantized, batched, late]
}

#[test]
fn five_lanes_share_80_columns() {
    let start = Instant::now();
    insta::assert_snapshot!(drawn(&five(start), start, 80, 24));
}

#[test]
fn five_lanes_share_120_columns() {
    let start = Instant::now();
    insta::assert_snapshot!(drawn(&five(start), start, 120, 40));
}

#[test]
fn a_lane_that_dies_is_told_in_its_place_and_among_the_scores() {
    let start = Instant::now();
    let mut lanes = five(start);
    let mut died = lane(5, start, 3, 50);
    died.err(b"error: 8 rows: they need 12.1 GB, this machine has 8.0: take fewer --rows\n");
    died.ended(status(1), 0);
    lanes[3] = died;
    insta::assert_snapshot!(drawn(&lanes, start, 80, 30));
}

#[test]
fn a_lane_without_text_says_what_it_does() {
    let start = Instant::now();
    let mut lane = lane(2, start, 0, 1);
    lane.err(b"downloading\nloading \x1b[2Jtiny\n");
    insta::assert_snapshot!(drawn(&[lane], start, 40, 10));
}

#[test]
fn no_terminal_is_too_small() {
    let start = Instant::now();
    for width in 1..50 {
        for height in 1..16 {
            drawn(&two(start), start, width, height);
            drawn(&five(start), start, width, height);
        }
    }
}

/// Cells right of the first lane.
fn beside(terminal: &Terminal<TestBackend>) -> Vec<String> {
    let buffer = terminal.backend().buffer();
    let cells = buffer.area.positions().filter(|place| place.x >= 40);
    cells
        .map(|place| buffer[place].symbol().to_owned())
        .collect()
}

#[test]
fn nothing_that_a_model_says_leaves_its_lane() {
    let start = Instant::now();
    let mut lanes = two(start);
    let clean = beside(&terminal(&lanes, start, 80, 24));
    for text in [
        "\x1b[2J\x1b[1;1HX\r\x08\x07\u{9b}5A",
        "字字字字字字字字字字字字字字字字字字字字字字字字字字字字",
        "e\u{301}\u{301}\u{200b}\u{202e}\u{feff}👩‍🚀🏳️‍🌈 \u{ad}x",
        "\t\t\t\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n",
    ] {
        lanes[0].out(text.as_bytes(), start + Duration::from_millis(170));
        let terminal = terminal(&lanes, start, 80, 24);
        assert_eq!(beside(&terminal), clean, "{text:?}\n{}", terminal.backend());
        let harmful = |c: char| c.is_control() && c != '\n';
        assert!(!terminal.backend().to_string().contains(harmful));
    }
}
