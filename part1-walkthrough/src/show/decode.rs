//! Step 5 on a terminal.

use std::io::Write;

use anyhow::Result;
use console::numbers::fixed;

use super::{Screen, piece, short};
use crate::trace::{Round, Trace};

/// Characters of a round's input that have room.
const TAIL: usize = 16;

/// Characters of two runners-up that have room.
const RUNNERS_UP: usize = 16;

pub(super) fn show<W: Write>(screen: &mut Screen<'_, W>, trace: &Trace) -> Result<()> {
    screen.say(
        "One pass gives one token. For the next one the token is appended, and the whole sequence goes \
         through the model again:",
    )?;
    screen.report.blank()?;
    let rounds = &trace.decode.rounds;
    let rows: Vec<Vec<String>> = (0..rounds.len()).map(|round| row(trace, round)).collect();
    let head = [
        "round",
        "in",
        "the last of them",
        "out",
        "p",
        "runners-up",
        "ms",
    ];
    screen.picture(|report| report.text_table(&head, &rows, &[0, 2, 3, 5]))?;
    let ended = match trace.decode.ended_by.as_str() {
        "stop" => "The model ended the answer itself, with its end-of-turn token.",
        _ => "The limit of --max-tokens ended the answer.",
    };
    let before = if trace.templated { "" } else { &trace.text };
    screen.say(&format!("{ended} The text: {before}{}", trace.decode.text))?;
    screen.report.blank()?;
    Ok(())
}

fn row(trace: &Trace, index: usize) -> Vec<String> {
    let rounds = &trace.decode.rounds;
    let Round {
        input,
        chosen,
        top,
        micros,
    } = &rounds[index];
    let prompt = trace.tokens.iter().map(|token| token.piece.as_str());
    let answered = rounds[..index]
        .iter()
        .map(|round| round.chosen.piece.as_str());
    let sequence: Vec<&str> = prompt.chain(answered).collect();
    let others = top.iter().filter(|token| token.id != chosen.id).take(2);
    let mut others: Vec<String> = others.map(|token| short(&token.piece)).collect();
    if others.concat().chars().count() > RUNNERS_UP {
        others.truncate(1);
    }
    vec![
        (index + 1).to_string(),
        input.to_string(),
        piece(&tail(&sequence)),
        piece(&chosen.piece),
        fixed(f64::from(chosen.probability), 2),
        others.join(" "),
        fixed(micros / 1e3, 1),
    ]
}

/// The last pieces, as many as there is room for.
fn tail(sequence: &[&str]) -> String {
    let mut tail = String::new();
    for piece in sequence.iter().rev() {
        if tail.chars().count() + piece.chars().count() > TAIL {
            return format!("…{tail}");
        }
        tail.insert_str(0, piece);
    }
    tail
}
