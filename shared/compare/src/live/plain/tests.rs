use super::*;
use crate::testing::{PREALLOC, contestant, status};

#[test]
fn a_line_is_printed_once_and_when_it_is_full() {
    let now = Instant::now();
    let mut lane = Lane::new(contestant(3, &[], true), 8, now);
    let mut printer = Printer::default();
    let words = "word ".repeat(20);
    lane.out(words.as_bytes(), now);
    let full = "word ".repeat(15);
    assert_eq!(printer.new_lines(&lane), [full.trim_end()]);
    assert!(printer.new_lines(&lane).is_empty());
    lane.out(b"\n\n model    tiny\n", now);
    lane.out(PREALLOC.as_bytes(), now);
    lane.ended(status(0), 1);
    let last = printer.new_lines(&lane);
    let end = "── finished as number 1: 8 tokens in 0.0 s, 139.9 tok/s";
    assert_eq!(last.last().unwrap(), end);
    assert!(printer.new_lines(&lane).is_empty());
}

#[test]
fn a_part_that_fails_ends_its_lines() {
    let now = Instant::now();
    let mut lane = Lane::new(contestant(3, &[], true), 8, now);
    lane.out(b"A bl", now);
    lane.ended(status(1), 1);
    assert_eq!(Printer::default().new_lines(&lane), ["A bl", "── failed"]);
}
