//! Steps 5 and 6 on a terminal.

use std::io::Write;

use anyhow::Result;
use shared::report::{binary, count, fixed};

use super::{Screen, piece, short, tiny};
use crate::trace::{Recompute, Round, Trace};

/// Characters of a round's input that have room.
const TAIL: usize = 16;

/// Characters of two runners-up that have room.
const RUNNERS_UP: usize = 16;

pub(super) fn show_decode<W: Write>(screen: &mut Screen<'_, W>, trace: &Trace) -> Result<()> {
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

pub(super) fn show_recompute<W: Write>(screen: &mut Screen<'_, W>, trace: &Trace) -> Result<()> {
    let found = &trace.recompute;
    screen.say(&format!(
        "No token sees the ones after it, so what was computed for it cannot change. Keys and values of \
         the prompt in the first and the last round: largest difference {}. The loop \
         computes them again all the same:",
        tiny(found.largest_change)
    ))?;
    screen.report.blank()?;
    let rows = rounds(found);
    let head = [
        "round",
        "positions computed",
        "computed before",
        "with a cache",
    ];
    screen.picture(|report| report.table(&head, &rows))?;
    screen.say(&format!(
        "{} of {} positions for nothing, in each of {} layers: {} million operations where {} would do.",
        count(found.repeated.iter().sum()),
        count(found.computed.iter().sum()),
        trace.model.layers,
        fixed(found.flops_naive as f64 / 1e6, 0),
        fixed(found.flops_cached as f64 / 1e6, 0)
    ))?;
    screen.report.blank()?;
    screen.say(&kv(trace))?;
    screen.report.blank()?;
    answers(screen, trace)
}

fn rounds(found: &Recompute) -> Vec<Vec<String>> {
    let both = found.computed.iter().zip(&found.repeated).enumerate();
    let row = |(round, (computed, repeated)): (usize, (&u64, &u64))| {
        vec![
            (round + 1).to_string(),
            count(*computed),
            count(*repeated),
            count(computed - repeated),
        ]
    };
    both.map(row).collect()
}

fn kv(trace: &Trace) -> String {
    let model = &trace.model;
    let found = &trace.recompute;
    let all_heads = match model.heads == model.kv_heads {
        true => String::new(),
        false => format!(
            " (with all {} query heads it would be {}: only key/value heads are kept)",
            model.heads,
            binary(found.kv_bytes_per_token_all_heads)
        ),
    };
    format!(
        "A cache keeps keys and values: 2 · layers · Hkv · D · bytes = 2 · {} · {} · {} · {} = {} a \
         token{all_heads}.",
        model.layers,
        model.kv_heads,
        model.head_dim,
        model.activation_bytes,
        binary(found.kv_bytes_per_token)
    )
}

fn answers<W: Write>(screen: &mut Screen<'_, W>, trace: &Trace) -> Result<()> {
    screen.say(&format!(
        "After this prompt of p = {} tokens, an answer of n repeats (n-1)(p-1) + n(n-1)/2 positions in \
         every layer:",
        trace.tokens.len()
    ))?;
    screen.report.blank()?;
    let rows: Vec<Vec<String>> = trace
        .recompute
        .answers
        .iter()
        .map(|answer| {
            vec![
                count(answer.tokens),
                count(answer.repeated),
                count(answer.of_answer),
                binary(answer.kv_bytes),
            ]
        })
        .collect();
    let head = [
        "answer",
        "repeated",
        "of them the answer's",
        "a cache would take",
    ];
    screen.picture(|report| report.table(&head, &rows))
}
