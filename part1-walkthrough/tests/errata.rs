//! What the series' first text says of tokens, and what GPT-2's own tokenizer says.

#![allow(clippy::unwrap_used)] // a test that cannot go on should stop there

use part1_walkthrough::tokenize::name;
use shared::testing::fixtures;
use shared::tokenizer::Tokenizer;

/// GPT-2's tokenizer, if it has been fetched.
fn gpt2() -> Option<Tokenizer> {
    let path = fixtures::gpt2_tokenizer()?;
    Some(Tokenizer::open_alone(path.to_str().unwrap()).unwrap())
}

fn ids(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
    tokenizer.encode_bare(text).unwrap()
}

fn pieces(tokenizer: &Tokenizer, text: &str) -> String {
    let ids = ids(tokenizer, text);
    let pieces: Vec<String> = ids.iter().map(|id| name(tokenizer, *id).unwrap()).collect();
    pieces.join("|")
}

#[test]
fn explain_black_holes_to_me_has_six_tokens_and_not_the_five_printed_ones() {
    let Some(gpt2) = gpt2() else { return };
    let text = "Explain black holes to me";
    assert_eq!(ids(&gpt2, text), [18438, 391, 2042, 10421, 284, 502]);
    assert_eq!(pieces(&gpt2, text), "Expl|ain|␣black|␣holes|␣to|␣me");
    let printed = [9004, 3543, 10349, 284, 502];
    let printed = printed.map(|id| name(&gpt2, id).unwrap());
    assert_eq!(printed[3..], ["␣to", "␣me"]); // these two are right
    assert!(
        ["␣black", "␣holes"]
            .iter()
            .all(|piece| !printed.contains(&(*piece).to_owned()))
    );
}

#[test]
fn unbelievable_has_four_tokens() {
    let Some(gpt2) = gpt2() else { return };
    assert_eq!(pieces(&gpt2, "unbelievable"), "un|bel|iev|able");
}

#[test]
fn chatgpt_has_three_tokens_and_hello_with_its_blank_has_one() {
    let Some(gpt2) = gpt2() else { return };
    assert_eq!(pieces(&gpt2, "ChatGPT"), "Chat|G|PT");
    assert_eq!(pieces(&gpt2, " hello"), "␣hello");
    assert_eq!(pieces(&gpt2, "cat"), "cat");
}

#[test]
fn king_is_not_776_and_man_is_not_1() {
    let Some(gpt2) = gpt2() else { return };
    assert_eq!(
        (name(&gpt2, 776).unwrap(), name(&gpt2, 1).unwrap()),
        ("ath".into(), "\"".into())
    );
    assert_eq!(
        (ids(&gpt2, " King"), ids(&gpt2, " Man")),
        (vec![2677], vec![1869])
    );
}

#[test]
fn the_vocabulary_is_that_of_gpt2() {
    let Some(gpt2) = gpt2() else { return };
    assert_eq!(gpt2.vocab_size(), 50_257);
    assert_eq!(ids(&gpt2, "<|endoftext|>"), [50_256]);
    assert_eq!(
        gpt2.decode(&ids(&gpt2, "naïve 🦀\n\tcafé"), false).unwrap(),
        "naïve 🦀\n\tcafé"
    );
}
