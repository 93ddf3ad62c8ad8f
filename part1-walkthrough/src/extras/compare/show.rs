//! One word in two sentences, on a terminal.

use std::io::Write;

use anyhow::Result;
use console::numbers::fixed;
use console::report::Report;

use super::{Comparison, Drift, HeadShift, Side};
use crate::extras::what_if::show::described;
use crate::show::{Pace, Screen, after_layer, model_card, picture, short};
use crate::trace::{Candidate, Token};

/// One word in two sentences.
///
/// # Errors
/// If stdout fails, or Ctrl-C was pressed.
pub fn comparison<W: Write>(report: &mut Report<W>, pace: Pace, found: &Comparison) -> Result<()> {
    let mut rows = model_card(&found.model);
    if let Some(switch) = found.what_if {
        rows.push(("what if", described(switch).0));
    }
    report.card(&rows)?;
    report.blank()?;
    let title = format!("{:?} in two sentences", found.word);
    picture::heading(report, &title, "the same vector, until attention")?;
    report.blank()?;
    let mut screen = Screen { report, pace };
    match &found.repeated {
        None => drift(&mut screen, found, &found.first),
        Some(repeated) => {
            screen.say(&only_what_came_before(found))?;
            screen.report.blank()?;
            drift(&mut screen, found, repeated)
        }
    }
}

fn only_what_came_before(found: &Comparison) -> String {
    let lowest = found.first.cosines.iter().copied().fold(1.0, f32::min);
    format!(
        "{:?} stands behind the same tokens in both sentences, and a decoder's token sees only what came \
         before it. So the two vectors are the same after every layer (lowest cosine {lowest:.3}): what \
         follows cannot tell one from the other. Read each sentence twice, and the second {:?} has the \
         whole sentence behind it:",
        found.word, found.word
    )
}

fn drift<W: Write>(screen: &mut Screen<'_, W>, found: &Comparison, drift: &Drift) -> Result<()> {
    let marked: Vec<(&str, String)> = drift
        .sides
        .iter()
        .zip(["A", "B"])
        .map(|(side, name)| (name, mark(side)))
        .collect();
    screen.picture(|report| report.card(&marked))?;
    screen.say(&format!(
        "Cosine between the two vectors of {:?} (its last piece), the length of their difference, and what \
         each would go on with, if the layer were the last one:",
        found.word
    ))?;
    screen.report.blank()?;
    let rows: Vec<Vec<String>> = drift
        .cosines
        .iter()
        .zip(&drift.distances)
        .enumerate()
        .map(|(after, (cosine, distance))| {
            let number = |value: f32| fixed(f64::from(value), 3);
            let next = |i: usize| drift.next[i][after].iter().take(1).map(likely).collect();
            vec![
                after_layer(after),
                number(*cosine),
                gauge(*cosine),
                fixed(f64::from(*distance), 1),
                next(0),
                next(1),
            ]
        })
        .collect();
    screen.picture(|report| {
        let head = ["after", "cosine", "", "differ by", "A goes on", "B goes on"];
        report.text_table(&head, &rows, &[0, 2, 4, 5])
    })?;
    screen.say("The heads that moved it most, and where it looks most in each sentence:")?;
    screen.report.blank()?;
    let rows: Vec<Vec<String>> = drift
        .heads
        .iter()
        .map(|head| head_row(drift, head))
        .collect();
    let head = [
        "layer.head",
        "moved by",
        "in A it looks at",
        "in B it looks at",
    ];
    screen.picture(|report| report.text_table(&head, &rows, &[0, 2, 3]))
}

fn likely(token: &Candidate) -> String {
    format!("{} {:.2}", short(&token.piece), token.probability)
}

/// A bar from 0 to 1 of fixed width.
fn gauge(cosine: f32) -> String {
    const CELLS: usize = 12;
    let filled = (cosine.clamp(0.0, 1.0) * CELLS as f32).round() as usize;
    "█".repeat(filled) + &"░".repeat(CELLS - filled)
}

/// The sentence's pieces, the followed one in brackets.
fn mark(side: &Side) -> String {
    let piece = |(position, token): (usize, &Token)| {
        if position == side.position {
            format!("[{}]", token.piece)
        } else {
            token.piece.clone()
        }
    };
    let pieces: Vec<String> = side.tokens.iter().enumerate().map(piece).collect();
    pieces.join(" ")
}

fn head_row(drift: &Drift, head: &HeadShift) -> Vec<String> {
    let looks = |i: usize| {
        let row = &head.attention[i];
        let mut order: Vec<usize> = (0..row.len()).collect();
        order.sort_by(|a, b| row[*b].total_cmp(&row[*a]));
        let named = |at: &usize| {
            format!(
                "{} {:.0} %",
                short(&drift.sides[i].tokens[*at].piece),
                row[*at] * 100.0
            )
        };
        order
            .iter()
            .take(2)
            .map(named)
            .collect::<Vec<_>>()
            .join(", ")
    };
    vec![
        format!("{}.{}", head.layer, head.head),
        fixed(f64::from(head.shift), 3),
        looks(0),
        looks(1),
    ]
}
