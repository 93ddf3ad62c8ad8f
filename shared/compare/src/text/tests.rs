use super::*;

#[test]
fn a_model_cannot_speak_to_the_terminal() {
    assert_eq!(harmless("\x1b[2Jgone\x07\r\n"), "^[[2Jgone^G^M\n");
    assert_eq!(harmless("a\u{202e}b\tc"), "a\u{fffd}b c");
    assert_eq!(harmless("字 é 👩‍🚀"), "字 é 👩‍🚀");
    assert_eq!(one_line(" a\n\n b\t\u{9b}31m "), "a b \u{fffd}31m");
}

#[test]
fn a_character_that_comes_in_pieces_is_shown_whole() {
    for text in ["Löcher 字 🕳️", "plain"] {
        for size in 1..5 {
            let mut decoder = Decoder::default();
            let pieces = text
                .as_bytes()
                .chunks(size)
                .map(|bytes| decoder.push(bytes));
            let pieces: Vec<String> = pieces.collect();
            assert_eq!(pieces.concat(), text);
            assert!(!pieces.concat().contains('\u{fffd}'));
        }
    }
}

#[test]
fn bytes_that_are_no_text_hold_nothing_up() {
    let mut decoder = Decoder::default();
    assert_eq!(decoder.push(b"a\xffb"), "a\u{fffd}b");
    assert_eq!(decoder.push(b"\xe5\xad"), "");
    assert_eq!(decoder.push(b"!"), "\u{fffd}!");
}
