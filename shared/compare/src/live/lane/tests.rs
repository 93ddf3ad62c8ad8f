use super::*;
use crate::testing::{PREALLOC, contestant, status};

fn lane(start: Instant) -> Lane {
    Lane::new(contestant(3, &["--cache", "prealloc"], true), 8, start)
}

fn after(start: Instant, ms: u64) -> Instant {
    start + Duration::from_millis(ms)
}

#[test]
fn text_grows_piece_by_piece_and_its_speed_with_it() {
    let start = Instant::now();
    let mut lane = lane(start);
    assert_eq!(
        (lane.text(), lane.rate(), lane.status().as_str()),
        ("", None, "starting")
    );
    lane.err(b"loading tiny\n");
    assert_eq!(lane.status(), "loading tiny");
    for (piece, ms) in [("A", 100), (" black", 150), (" hole", 200)] {
        lane.out(piece.as_bytes(), after(start, ms));
    }
    assert_eq!(lane.text(), "A black hole");
    assert_eq!((lane.tokens(), lane.rate()), (3, Some(20.0)));
    assert_eq!(lane.gaps(), [50, 50]);
    assert_eq!(lane.first_text(), Some(Duration::from_millis(100)));
    assert_eq!(lane.elapsed(after(start, 900)), Duration::from_millis(900));
}

#[test]
fn the_report_is_no_text_however_it_is_cut_into_pieces() {
    let stdout = "A black hole\n\n model    tiny, 16.00 bits\n machine  x\n";
    for size in 1..stdout.len() {
        let mut lane = lane(Instant::now());
        for bytes in stdout.as_bytes().chunks(size) {
            lane.out(bytes, Instant::now());
        }
        assert_eq!(lane.text(), "A black hole", "in pieces of {size}");
    }
}

#[test]
fn line_ends_before_the_report_are_no_tokens() {
    let start = Instant::now();
    let mut lane = lane(start);
    let pieces = [
        ("A", 100),
        ("\n", 150),
        ("b", 200),
        ("\n", 250),
        ("\n", 251),
    ];
    for (piece, ms) in pieces {
        lane.out(piece.as_bytes(), after(start, ms));
    }
    lane.out(b" model    tiny\n", after(start, 252));
    assert_eq!(lane.text(), "A\nb");
    assert_eq!((lane.tokens(), lane.gaps()), (3, [50, 50].as_slice()));
}

#[test]
fn the_end_has_the_numbers_of_the_part_itself() {
    let start = Instant::now();
    let mut lane = lane(start);
    lane.out(b"A black", after(start, 100));
    lane.out(b" hole\n\n model    tiny\n", after(start, 300));
    lane.out(PREALLOC.as_bytes(), after(start, 310));
    lane.ended(status(0), 2);
    assert_eq!(lane.place(), Some(2));
    assert_eq!(lane.text(), "A black hole is a place in space");
    assert_eq!(lane.tokens(), 8);
    assert_eq!(lane.rate(), Some(139.93790395449923));
    assert_eq!(lane.elapsed(after(start, 9000)), Duration::from_millis(300));
    assert!(lane.is_over() && !lane.is_stopped());
}

#[test]
fn a_part_that_fails_has_a_reason_and_no_place() {
    let mut lane = lane(Instant::now());
    lane.out(b"A bl", Instant::now());
    lane.err(b"error: out of\x1b[31m memory\n");
    lane.ended(status(1), 1);
    assert_eq!(lane.failure(), Some("part 3: out of memory"));
    assert_eq!((lane.place(), lane.text()), (None, "A bl"));
    lane.stop();
    assert!(!lane.is_stopped());
}

#[test]
fn what_is_stopped_keeps_its_text() {
    let mut lane = lane(Instant::now());
    lane.out("字".as_bytes(), Instant::now());
    lane.out(&"字".as_bytes()[..2], Instant::now());
    lane.stop();
    assert!(lane.is_over() && lane.is_stopped());
    assert_eq!(lane.text(), "字");
}
