use super::*;

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
    insta::assert_snapshot!(drawn(|report| heat_map(report, &labels, &cells)));
}

#[test]
fn a_heat_map_of_any_size_stays_within_the_frame() {
    for n in [0, 1, 14, 15, 20, 31, 40, 62, 64] {
        let labels = vec!["token"; n];
        let cells = vec![0.5; n * n];
        let text = drawn(|report| heat_map(report, &labels, &cells));
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
    let text = drawn(|report| before_after(report, ["before", "after"], &rows));
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
    let text = drawn(|report| plane(report, &dots));
    assert!(text.contains("•prompt") && text.contains("•far"), "{text}");
    assert!(
        !text.contains("neighbour") && widest(&text) <= WIDTH,
        "{text}"
    );
    assert_eq!(drawn(|report| plane(report, &[])).trim(), "");
}

#[test]
fn a_heading_is_as_wide_as_the_frame() {
    let text = drawn(|report| heading(report, "3 attend", "vectors → vectors"));
    assert_eq!(widest(&text), WIDTH, "{text}");
}

#[test]
fn only_text_from_right_to_left_is_shut_in() {
    assert_eq!(isolated("crane"), "crane");
    assert_eq!(isolated("שלום"), "\u{2068}שלום\u{2069}");
}
