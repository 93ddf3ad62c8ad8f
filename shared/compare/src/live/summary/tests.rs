use super::*;
use crate::testing::{NAIVE, PREALLOC, ROTATING, contestant, status};

fn lane(number: u32, line: &str) -> Lane {
    let start = Instant::now();
    let mut lane = Lane::new(contestant(number, &[], true), 8, start);
    for (text, ms) in [("A", 100), (" black", 300), ("\n\n model    tiny\n", 340)] {
        lane.out(text.as_bytes(), start + Duration::from_millis(ms));
    }
    lane.out(line.as_bytes(), start + Duration::from_millis(350));
    lane
}

fn finished(number: u32, line: &str) -> Lane {
    let mut lane = lane(number, line);
    lane.ended(status(0), 1);
    lane
}

#[test]
fn a_summary_has_each_lane_and_says_whether_tokens_are_the_same() {
    let lanes = [finished(2, NAIVE), finished(3, PREALLOC)];
    let mut text = Vec::new();
    print(&mut Report::plain(&mut text), &lanes, Instant::now()).unwrap();
    insta::assert_snapshot!(String::from_utf8(text).unwrap());
}

#[test]
fn whoever_did_not_finish_is_left_out_of_the_comparison() {
    let (mut stopped, mut failed) = (lane(2, ""), lane(3, ""));
    stopped.stop();
    failed.ended(status(1), 1);
    assert!(numbers(&stopped, Instant::now()).contains("stopped"));
    assert_eq!(same_tokens(&[stopped, failed]), "None of them finished.");
    let alone = [lane(2, ""), finished(3, PREALLOC)];
    assert_eq!(
        same_tokens(&alone),
        "Only part 3 finished: no tokens to compare."
    );
}

#[test]
fn a_difference_is_told_with_its_place() {
    let lanes = [
        finished(2, NAIVE),
        finished(3, PREALLOC),
        finished(4, ROTATING),
    ];
    assert_eq!(
        same_tokens(&lanes),
        "part 4 differs from part 2 at token 1."
    );
}
